//! The bound by itself, and in a simulated queue under every load.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;

use super::*;
use crate::inference::run_pace::{Ahead, RunPace};

const MS: Duration = Duration::from_millis(1);
const ONE: Crew = Crew { instances: 1, max_rows: 1 };

#[test]
fn a_burst_is_let_in_and_a_queue_that_stands_is_cut_until_the_refusals_cease() {
    let mut gate = LoadGate::new(QueueTime::Adaptive);
    let began = Instant::now();
    assert_eq!(gate.ask(380 * MS, 10 * MS, ONE, began), Ok(()));
    let too_long = TooLong { wait: 381 * MS, bound: 380 * MS };
    assert_eq!(gate.ask(381 * MS, 10 * MS, ONE, began), Err(too_long));
    let too_long = TooLong { wait: 121 * MS, bound: 120 * MS };
    assert_eq!(gate.ask(121 * MS, 10 * MS, ONE, began), Err(too_long));
    assert_eq!(gate.ask(120 * MS, 10 * MS, ONE, began), Ok(()));

    // In the next window one in twelve is refused: it is over.
    let next = began + WINDOW; // Longer than twenty runs of 10 ms.
    assert!(gate.ask(121 * MS, 10 * MS, ONE, next).is_err());
    for _ in 0..11 {
        assert_eq!(gate.ask(Duration::ZERO, 10 * MS, ONE, next), Ok(()));
    }
    assert_eq!(gate.ask(121 * MS, 10 * MS, ONE, next + WINDOW), Ok(()));
}

#[test]
fn a_bound_that_was_set_is_the_bound() {
    let mut gate = LoadGate::new(QueueTime::Fixed(30 * MS));
    let now = Instant::now();
    assert!(gate.ask(31 * MS, MS, ONE, now).is_err());
    assert!(gate.ask(30 * MS, MS, ONE, now).is_ok());
    let mut gate = LoadGate::new(QueueTime::Unbounded);
    assert!(gate.ask(Duration::from_secs(3_600), MS, ONE, now).is_ok());
}

#[test]
fn fast_models_are_not_refused_over_a_hiccup() {
    let mut gate = LoadGate::new(QueueTime::Adaptive);
    let now = Instant::now();
    assert!(gate.ask(50 * MS, MS / 100, ONE, now).is_ok());
    assert!(gate.ask(51 * MS, MS / 100, ONE, now).is_err());
    assert!(gate.ask(20 * MS, MS / 100, ONE, now).is_ok());
}

/// A model: what a run takes, and who runs it.
#[derive(Debug, Clone, Copy)]
struct Model {
    fixed: Duration,
    per_row: Duration,
    crew: Crew,
}

impl Model {
    fn run(&self, rows: usize) -> Duration {
        self.fixed + self.per_row * rows as u32
    }

    /// Rows per second, all instances together.
    fn capacity(&self) -> f64 {
        let rows = (self.crew.max_rows * self.crew.instances) as f64;
        rows / self.run(self.crew.max_rows).as_secs_f64()
    }
}

#[derive(Debug)]
struct Outcome {
    answered: usize,
    refused: usize,
    per_second: f64,
    p99: Duration,
}

/// Open loop with exponential pauses, until so many rows could have been answered;
/// those of the first 200 full runs do not count.
fn simulate(model: Model, load: f64, rows: u32, bound: QueueTime) -> Outcome {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut pause = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let uniform = (random >> 11) as f64 / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-(1.0 - uniform).ln() / (model.capacity() * load))
    };
    let began = Instant::now();
    let full_run = model.run(model.crew.max_rows);
    let warm = began + full_run * 200;
    let end = warm + Duration::from_secs(1).mul_f64(f64::from(rows) / model.capacity());
    let mut gate = LoadGate::new(bound);
    let mut pace = RunPace::default();
    let mut waiting: VecDeque<Instant> = VecDeque::new();
    let mut busy_until = vec![began; model.crew.instances];
    let mut runs: Vec<(Instant, usize, Duration)> = Vec::new();
    let mut latencies: Vec<Duration> = Vec::new();
    let (mut now, mut refused) = (began, 0);
    while now < end {
        now += pause();
        // Everything that instances begin before this arrival.
        loop {
            let free = (0..busy_until.len()).min_by_key(|index| busy_until[*index]).unwrap();
            let Some(first) = waiting.front() else { break };
            let start = busy_until[free].max(*first);
            if start > now {
                break;
            }
            let there = waiting.iter().take_while(|arrived| **arrived <= start).count();
            let rows = there.min(model.crew.max_rows);
            let took = model.run(rows);
            busy_until[free] = start + took;
            note_ended(&mut pace, &mut runs, start);
            pace.begin(start, model.crew.instances);
            runs.push((start + took, rows, took));
            for arrived in waiting.drain(..rows) {
                if arrived >= warm {
                    latencies.push(start + took - arrived);
                }
            }
        }
        note_ended(&mut pace, &mut runs, now);
        let ahead = Ahead { requests: waiting.len(), rows: waiting.len() };
        let admitted = match pace.wait(ahead, model.crew, now) {
            Some(wait) => gate.ask(wait, pace.of_run(model.crew.max_rows).unwrap(), model.crew, now).is_ok(),
            None => true,
        };
        if admitted {
            waiting.push_back(now);
        } else if now >= warm {
            refused += 1;
        }
    }
    latencies.sort_unstable();
    let p99 = latencies[latencies.len() * 99 / 100];
    let per_second = latencies.len() as f64 / (end - warm).as_secs_f64();
    Outcome { answered: latencies.len(), refused, per_second, p99 }
}

fn note_ended(pace: &mut RunPace, runs: &mut Vec<(Instant, usize, Duration)>, now: Instant) {
    for (_, rows, took) in runs.extract_if(.., |(ends, _, _)| *ends <= now) {
        pace.end(rows, took);
    }
}

fn models() -> Vec<(&'static str, Model)> {
    let crew = |instances, max_rows| Crew { instances, max_rows };
    let fixed_2_ms = Model { fixed: 2 * MS, per_row: Duration::ZERO, crew: ONE };
    vec![
        ("2 ms, one by one", fixed_2_ms),
        ("2 ms, two instances", Model { crew: crew(2, 1), ..fixed_2_ms }),
        ("50 ms, one by one", Model { fixed: 50 * MS, ..fixed_2_ms }),
        ("4 ms for 8 rows", Model { fixed: 2 * MS, per_row: MS / 4, crew: crew(1, 8) }),
        ("10 ms for 32 rows", Model { fixed: 2 * MS, per_row: MS / 4, crew: crew(1, 32) }),
        ("20 ms for 64 rows, four instances", Model { fixed: 4 * MS, per_row: MS / 4, crew: crew(4, 64) }),
    ]
}

#[test]
fn at_twice_what_can_be_done_all_of_it_is_done_and_nobody_waits_twice_as_long_as_at_nine_tenths() {
    for (name, model) in models() {
        let busy = simulate(model, 0.9, 60_000, QueueTime::Adaptive);
        let overloaded = simulate(model, 2.0, 60_000, QueueTime::Adaptive);
        assert!(overloaded.per_second >= 0.95 * model.capacity(), "{name}: {overloaded:?}");
        assert!(overloaded.p99 <= busy.p99 * 2, "{name}: {overloaded:?} after {busy:?}");
    }
}

#[test]
fn at_nine_tenths_of_what_can_be_done_nearly_nobody_is_refused() {
    for (name, model) in models() {
        let busy = simulate(model, 0.9, 60_000, QueueTime::Adaptive);
        assert!(busy.refused * 1_000 <= busy.answered, "{name}: {busy:?}");
    }
}

#[test]
fn without_a_bound_in_time_an_overload_makes_everyone_late() {
    let (_, model) = models()[0];
    let unbounded = simulate(model, 2.0, 5_000, QueueTime::Unbounded);
    assert!(unbounded.p99 > Duration::from_secs(3), "{unbounded:?}");
}

#[test]
fn a_closed_loop_of_64_callers_of_a_fast_model_is_never_refused() {
    // Of a model that runs one by one all but one wait.
    for (millis, callers) in [(1, 64), (3, 64), (10, 37), (1_000, 37)] {
        let full_run = Duration::from_millis(millis);
        let mut gate = LoadGate::new(QueueTime::Adaptive);
        assert_eq!(gate.ask(full_run * callers, full_run, ONE, Instant::now()), Ok(()), "{millis} ms");
    }
}
