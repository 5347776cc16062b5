//! How fast a version answers: the measured time of a run by its size, and from
//! it how long a request will wait. Pure: it is told what happened and when.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Sizes are powers of two, up to 2^16 rows.
const SIZES: usize = 17;
/// Weight of the newest run in the mean time of its size: 1/8.
const MEAN_SHIFT: u32 = 3;
/// Runs whose beginning is remembered, whatever the number of instances.
const BEGINNINGS_MAX: usize = 64;

/// What stands before a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// Requests that wait and go first.
    pub requests: usize,
    /// Their rows.
    pub rows: usize,
}

/// Who works: so many instances, each taking so many rows at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crew {
    pub instances: usize,
    /// Rows of a full run; 1: requests run one by one.
    pub max_rows: usize,
}

/// Measured times of the runs of one version.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunPace {
    /// Mean nanoseconds of a run of up to 2^index rows; 0: not measured.
    mean_nanos: [u64; SIZES],
    /// When the present runs began, the newest last. One that never came to its
    /// end stays until others have pushed it out; it counts as one that is due.
    beginnings: VecDeque<Instant>,
}

impl RunPace {
    /// A run begins.
    pub(crate) fn begin(&mut self, now: Instant, instances: usize) {
        self.beginnings.push_back(now);
        while self.beginnings.len() > instances.clamp(1, BEGINNINGS_MAX) {
            self.beginnings.pop_front();
        }
    }

    /// A run of `rows` rows has ended; together with what is done around it, it
    /// took so long.
    pub(crate) fn end(&mut self, rows: usize, took: Duration) {
        self.beginnings.pop_front();
        let newest = nanos(took).max(1);
        let mean = &mut self.mean_nanos[size_class(rows)];
        *mean = match *mean {
            0 => newest,
            mean => (mean - (mean >> MEAN_SHIFT)) + (newest >> MEAN_SHIFT),
        };
    }

    /// How long a run of so many rows takes; `None` before anything was measured.
    /// A size that has not run yet is taken for the next larger one that has, or
    /// for as much slower than a smaller one as it is larger.
    pub(crate) fn of_run(&self, rows: usize) -> Option<Duration> {
        let class = size_class(rows);
        let larger = self.mean_nanos[class..].iter().find(|nanos| **nanos > 0);
        if let Some(nanos) = larger {
            return Some(Duration::from_nanos(*nanos));
        }
        let smaller = (0..class).rev().find(|smaller| self.mean_nanos[*smaller] > 0)?;
        let factor = 1_u64 << (class - smaller);
        Some(Duration::from_nanos(self.mean_nanos[smaller].saturating_mul(factor)))
    }

    /// How long until the run of a request begins that has so much before it.
    /// `None` before anything was measured.
    pub(crate) fn wait(&self, ahead: Ahead, crew: Crew, now: Instant) -> Option<Duration> {
        let full_run = self.of_run(crew.max_rows)?;
        let runs = if crew.max_rows > 1 { ahead.rows / crew.max_rows } else { ahead.requests };
        let runs = u32::try_from(runs).unwrap_or(u32::MAX);
        let work = per_crew(full_run.saturating_mul(runs), crew);
        Some(self.first_free(full_run, crew, now).saturating_add(work))
    }

    /// When the first of the present runs will have ended.
    fn first_free(&self, full_run: Duration, crew: Crew, now: Instant) -> Duration {
        if self.beginnings.len() < crew.instances.clamp(1, BEGINNINGS_MAX) {
            return Duration::ZERO;
        }
        let Some(oldest) = self.beginnings.front() else { return Duration::ZERO };
        full_run.saturating_sub(now.saturating_duration_since(*oldest))
    }
}

/// What so much work takes when all share it.
pub(crate) fn per_crew(work: Duration, crew: Crew) -> Duration {
    work / u32::try_from(crew.instances.max(1)).unwrap_or(u32::MAX)
}

/// The power of two that a run of so many rows counts with.
fn size_class(rows: usize) -> usize {
    (rows.max(1).next_power_of_two().trailing_zeros() as usize).min(SIZES - 1)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const ONE: Crew = Crew { instances: 1, max_rows: 1 };

    fn measured(runs: &[(usize, u64)]) -> RunPace {
        let mut pace = RunPace::default();
        for (rows, millis) in runs {
            pace.end(*rows, Duration::from_millis(*millis));
        }
        pace
    }

    fn busy(requests: usize, rows: usize) -> Ahead {
        Ahead { requests, rows }
    }

    #[test]
    fn nothing_is_said_before_anything_was_measured() {
        assert_eq!(RunPace::default().wait(busy(9, 9), ONE, Instant::now()), None);
    }

    #[test]
    fn a_size_that_has_not_run_is_judged_by_its_neighbours() {
        let pace = measured(&[(2, 10), (8, 16)]);
        for (rows, millis) in [(1, 10), (2, 10), (3, 16), (7, 16), (8, 16), (9, 32), (32, 64)] {
            assert_eq!(pace.of_run(rows), Some(Duration::from_millis(millis)), "{rows} rows");
        }
    }

    #[test]
    fn the_mean_follows_the_newest_runs() {
        let mut pace = measured(&[(1, 80)]);
        pace.end(1, 8 * MS);
        assert_eq!(pace.of_run(1), Some(71 * MS));
        for _ in 0..100 {
            pace.end(1, 8 * MS);
        }
        assert!(pace.of_run(1).unwrap() < 9 * MS);
    }

    #[test]
    fn requests_that_run_one_by_one_are_waited_for_one_by_one() {
        let pace = measured(&[(1, 10)]);
        let now = Instant::now();
        assert_eq!(pace.wait(busy(7, 7), ONE, now), Some(70 * MS));
        let two = Crew { instances: 2, ..ONE };
        assert_eq!(pace.wait(busy(7, 7), two, now), Some(35 * MS));
    }

    #[test]
    fn requests_that_run_together_are_waited_for_by_the_batch() {
        let pace = measured(&[(8, 20)]);
        let eight = Crew { instances: 1, max_rows: 8 };
        let now = Instant::now();
        assert_eq!(pace.wait(busy(7, 7), eight, now), Some(Duration::ZERO));
        assert_eq!(pace.wait(busy(17, 17), eight, now), Some(40 * MS));
        assert_eq!(pace.wait(busy(2, 17), eight, now), Some(40 * MS));
    }

    #[test]
    fn what_is_left_of_the_present_run_counts() {
        let mut pace = measured(&[(1, 10)]);
        let begun = Instant::now();
        pace.begin(begun, 1);
        assert_eq!(pace.wait(busy(0, 0), ONE, begun + 4 * MS), Some(6 * MS));
        assert_eq!(pace.wait(busy(2, 2), ONE, begun + 4 * MS), Some(26 * MS));
        assert_eq!(pace.wait(busy(0, 0), ONE, begun + 99 * MS), Some(Duration::ZERO));
        // Of two instances one has never run: it is free.
        let two = Crew { instances: 2, ..ONE };
        assert_eq!(pace.wait(busy(0, 0), two, begun + 4 * MS), Some(Duration::ZERO));
        pace.end(1, 10 * MS);
        assert_eq!(pace.wait(busy(0, 0), ONE, begun + 4 * MS), Some(Duration::ZERO));
    }

    proptest! {
        #[test]
        fn more_before_it_never_makes_a_request_wait_less(
            runs in prop::collection::vec((1_usize..200, 1_u64..500), 1..20),
            requests in 0_usize..1_000,
            more in 0_usize..1_000,
            instances in 1_usize..9,
            max_rows in 1_usize..100,
        ) {
            let pace = measured(&runs);
            let now = Instant::now();
            let crew = Crew { instances, max_rows };
            let less = pace.wait(busy(requests, requests), crew, now).unwrap();
            let most = pace.wait(busy(requests + more, requests + more), crew, now).unwrap();
            prop_assert!(less <= most);
        }

        #[test]
        fn no_size_and_no_time_overflows(rows in any::<usize>(), millis in any::<u64>()) {
            let rows = rows.min(usize::MAX / 4);
            let pace = measured(&[(rows, millis)]);
            let crew = Crew { instances: 1, max_rows: usize::MAX / 4 };
            prop_assert!(pace.wait(busy(rows, rows), crew, Instant::now()).is_some());
        }
    }
}
