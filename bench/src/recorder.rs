//! What one thread of the generator has seen so far.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock::Clock;
use crate::connection::{ErrorCode, Failure};

/// Latencies beyond are counted as this long.
const LATENCY_NANOS_MAX: u64 = 600_000_000_000;
const DIGITS: u8 = 3;
/// There is a histogram per slice: 1 % is enough, and ten times smaller.
const DIGITS_OF_SLICE: u8 = 2;
/// Sent so much after the intended time counts as late.
const LATE_AFTER: Duration = Duration::from_millis(1);

/// Failures of one code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failures {
    pub(crate) count: u64,
    /// The first one's message.
    pub(crate) example: String,
}

/// One part of the time line; requests belong to where they were meant to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    /// Nanoseconds.
    pub(crate) latencies: Histogram<u64>,
}

/// Counts and histograms. Requests meant for the warm-up leave a trace only in
/// `answered_in_all`.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    slice: Duration,
    /// Answers of any time: what a live view shows.
    pub(crate) answered_in_all: u64,
    /// Successful answers that came while the window was open.
    pub(crate) answered_in_window: u64,
    /// Successful answers to requests of the window.
    pub(crate) answered: u64,
    /// Failed requests of the window.
    pub(crate) failed: u64,
    pub(crate) failures: BTreeMap<ErrorCode, Failures>,
    /// Nanoseconds, of successful answers to requests of the window.
    pub(crate) latencies: Histogram<u64>,
    pub(crate) slices: Vec<Slice>,
    /// Requests of the window that were sent late.
    pub(crate) late: u64,
    /// Requests of the window that were never sent.
    pub(crate) not_sent: u64,
    pub(crate) lag_max: Duration,
    /// Processor time of the generator's thread.
    pub(crate) processor_time: Duration,
}

impl Recorder {
    pub(crate) fn new(slice: Duration) -> Self {
        Self {
            slice,
            answered_in_all: 0,
            answered_in_window: 0,
            answered: 0,
            failed: 0,
            failures: BTreeMap::new(),
            latencies: histogram(DIGITS),
            slices: Vec::new(),
            late: 0,
            not_sent: 0,
            lag_max: Duration::ZERO,
            processor_time: Duration::ZERO,
        }
    }

    /// A request that was meant to be sent at `intended` is answered, or has failed.
    pub(crate) fn record(&mut self, clock: &Clock, intended: Duration, outcome: Result<(), Failure>) {
        let now = clock.now();
        if outcome.is_ok() {
            self.answered_in_all += 1;
            self.answered_in_window += u64::from(clock.is_measured(now));
        }
        if intended < clock.begin || intended > clock.end() {
            return;
        }
        let slice = self.slice_at(intended - clock.begin);
        match outcome {
            Ok(()) => {
                let latency = nanos(now.saturating_sub(intended));
                slice.answered += 1;
                slice.latencies.saturating_record(latency);
                self.answered += 1;
                self.latencies.saturating_record(latency);
                clock.count_answer();
            }
            Err(failure) => {
                slice.failed += 1;
                self.failed += 1;
                self.failures
                    .entry(failure.code)
                    .or_insert_with(|| Failures { count: 0, example: failure.message })
                    .count += 1;
            }
        }
    }

    /// A request of an open loop leaves so much after its intended time.
    pub(crate) fn record_lag(&mut self, lag: Duration) {
        self.late += u64::from(lag > LATE_AFTER);
        self.lag_max = self.lag_max.max(lag);
    }

    fn slice_at(&mut self, since_begin: Duration) -> &mut Slice {
        let index = (since_begin.as_nanos() / self.slice.as_nanos()) as usize;
        if self.slices.len() <= index {
            self.slices.resize_with(index + 1, Slice::empty);
        }
        &mut self.slices[index]
    }

    /// Adds what another thread has seen.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.answered_in_all += other.answered_in_all;
        self.answered_in_window += other.answered_in_window;
        self.answered += other.answered;
        self.failed += other.failed;
        self.late += other.late;
        self.not_sent += other.not_sent;
        self.lag_max = self.lag_max.max(other.lag_max);
        self.processor_time += other.processor_time;
        merge_latencies(&mut self.latencies, &other.latencies);
        for (code, failures) in &other.failures {
            let of_code = self.failures.entry(*code);
            of_code.or_insert_with(|| Failures { count: 0, example: failures.example.clone() }).count +=
                failures.count;
        }
        if self.slices.len() < other.slices.len() {
            self.slices.resize_with(other.slices.len(), Slice::empty);
        }
        for (slice, others) in self.slices.iter_mut().zip(&other.slices) {
            slice.merge(others);
        }
    }
}

impl Slice {
    pub(crate) fn empty() -> Self {
        Self { answered: 0, failed: 0, latencies: histogram(DIGITS_OF_SLICE) }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        merge_latencies(&mut self.latencies, &other.latencies);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(LATENCY_NANOS_MAX)
}

fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LATENCY_NANOS_MAX, digits)
        .unwrap_or_else(|_| unreachable!("the bounds and digits are constants within what it takes"))
}

fn merge_latencies(into: &mut Histogram<u64>, from: &Histogram<u64>) {
    // Both have the same bounds, so nothing can fall outside.
    let _ = into.add(from);
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::load::Ending;

    fn refused() -> Failure {
        Failure { code: ErrorCode::Grpc(8), message: "full".into() }
    }

    #[test]
    fn requests_belong_to_the_slice_in_which_they_were_meant_to_be_sent() {
        let second = Duration::from_secs(1);
        let started = Instant::now() - 3 * second;
        let clock = Clock::new(started, second, Ending::After(10 * second));
        let mut recorder = Recorder::new(second);
        recorder.record(&clock, Duration::from_millis(500), Ok(()));
        recorder.record(&clock, Duration::from_millis(1_000), Ok(()));
        recorder.record(&clock, Duration::from_millis(2_500), Ok(()));
        recorder.record(&clock, Duration::from_millis(2_600), Err(refused()));
        let slices: Vec<(u64, u64)> = recorder.slices.iter().map(|s| (s.answered, s.failed)).collect();
        assert_eq!(slices, [(1, 0), (1, 1)]);
        assert_eq!((recorder.answered, recorder.failed, recorder.answered_in_all), (2, 1, 3));
        // Sent at 1 s, answered at 3 s.
        assert!(recorder.latencies.max() >= 1_990_000_000);
    }

    #[test]
    fn threads_add_up_and_the_first_message_of_a_code_stays() {
        let clock = Clock::new(Instant::now(), Duration::ZERO, Ending::After(Duration::from_secs(60)));
        let mut one = Recorder::new(Duration::from_secs(1));
        let mut other = one.clone();
        one.record(&clock, Duration::ZERO, Err(refused()));
        other.record(&clock, Duration::ZERO, Err(Failure { message: "later".into(), ..refused() }));
        other.record_lag(Duration::from_millis(2));
        one.merge(&other);
        let expected = Failures { count: 2, example: "full".into() };
        assert_eq!(one.failures, BTreeMap::from([(ErrorCode::Grpc(8), expected)]));
        assert_eq!((one.late, one.lag_max), (1, Duration::from_millis(2)));
    }
}
