//! How many rows a run should have, from the measured times of runs by their
//! size. Pure.

use std::time::Duration;

/// Where measuring stops.
pub(super) const ROWS_MAX: usize = 64;
/// A run that takes no longer keeps nobody waiting for long. Up to here rows share
/// runs also where that makes them little cheaper: what is measured at load finds
/// the weights in the caches, and under load they are not, which costs a run of
/// few rows as much as one of many.
pub(super) const SHORT_RUN: Duration = Duration::from_millis(2);
/// In longer runs, a batch twice as large must make a row cheaper by a tenth.
const WORTH_DOUBLING: f64 = 0.9;
/// In short ones, a row may cost so much more than in the best of them.
const AS_GOOD_AS_BEST: f64 = 1.1;
/// Sizes in a row that bring nothing, after which larger ones are not looked at:
/// one may have been disturbed.
const FRUITLESS_SIZES_MAX: usize = 2;
/// For models that made-up rows cannot run, or that are too slow to measure.
const UNMEASURED_ROWS: usize = 8;

/// Measured times of runs of 1, 2, 4, … rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RunTimes {
    times: Vec<Duration>,
    /// There was no time for more, or rows cannot be made up.
    cut_short: bool,
}

/// A size, and how long a run of it takes, where that was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchSize {
    pub rows: usize,
    pub time: Option<Duration>,
}

impl RunTimes {
    /// Measures for as long as larger sizes may be worth it, up to `rows_max`.
    /// `measure` gives `None` when there is no time left.
    pub(crate) fn measure(rows_max: usize, mut measure: impl FnMut(usize) -> Option<Duration>) -> Self {
        let mut times = Vec::new();
        let mut rows = 1;
        while rows <= rows_max {
            let Some(time) = measure(rows) else { return Self { times, cut_short: true } };
            times.push(time);
            rows *= 2;
            let measured = Self { times, cut_short: false };
            if time > SHORT_RUN && measured.fruitless_sizes() >= FRUITLESS_SIZES_MAX {
                return measured;
            }
            times = measured.times;
        }
        Self { times, cut_short: false }
    }

    /// Nothing could be measured.
    pub(crate) fn unknown() -> Self {
        Self { times: Vec::new(), cut_short: true }
    }

    /// Of one row; `None`: it could not be measured.
    pub(crate) fn one_row(&self) -> Option<Duration> {
        self.times.first().copied()
    }

    /// The rows that should run together.
    pub(crate) fn best(&self) -> BatchSize {
        let (worthwhile, fruitless) = self.worthwhile();
        if self.cut_short && fruitless == 0 && worthwhile < UNMEASURED_ROWS {
            return BatchSize { rows: UNMEASURED_ROWS, time: None };
        }
        // Where rows get no cheaper at all, sharing runs only makes them wait.
        let rows = if worthwhile > 1 { worthwhile.max(self.largest_short_run()) } else { worthwhile };
        BatchSize { rows, time: self.of(rows) }
    }

    /// The same for those that must not run for longer than a short run, if there
    /// is such a size.
    pub(crate) fn best_short(&self) -> Option<BatchSize> {
        let best = self.best();
        if best.time.is_some_and(|time| time <= SHORT_RUN) {
            return Some(best);
        }
        let (rows, time) = self.sizes().filter(|(_, time)| *time <= SHORT_RUN).last()?;
        (rows < best.rows).then_some(BatchSize { rows, time: Some(time) })
    }

    /// How long a run of so many rows takes, or of a few more; `None`: so many were
    /// not measured.
    pub(crate) fn of(&self, rows: usize) -> Option<Duration> {
        self.times.get(rows.max(1).next_power_of_two().trailing_zeros() as usize).copied()
    }

    fn sizes(&self) -> impl Iterator<Item = (usize, Duration)> {
        self.times.iter().enumerate().map(|(index, time)| (1 << index, *time))
    }

    fn fruitless_sizes(&self) -> usize {
        self.worthwhile().1
    }

    /// The largest size to which doubling was worth it, and how many sizes have
    /// been looked at in vain behind it.
    fn worthwhile(&self) -> (usize, usize) {
        let mut best = (1, f64::INFINITY);
        let mut fruitless = 0;
        for (rows, time) in self.sizes() {
            if per_row(rows, time) <= best.1 * WORTH_DOUBLING {
                best = (rows, per_row(rows, time));
                fruitless = 0;
                continue;
            }
            fruitless += 1;
            if fruitless == FRUITLESS_SIZES_MAX {
                break;
            }
        }
        (best.0, fruitless)
    }

    /// The most rows in a short run that cost about as little as in the best one.
    fn largest_short_run(&self) -> usize {
        let short = || self.sizes().filter(|(_, time)| *time <= SHORT_RUN);
        let best = short().map(|(rows, time)| per_row(rows, time)).fold(f64::INFINITY, f64::min);
        let good = short().filter(|(rows, time)| per_row(*rows, *time) <= best * AS_GOOD_AS_BEST);
        good.last().map_or(1, |(rows, _)| rows)
    }
}

fn per_row(rows: usize, time: Duration) -> f64 {
    time.as_secs_f64() / rows as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times of 1, 2, 4, … rows; after them there is no time left.
    fn measured(micros: &[u64]) -> RunTimes {
        RunTimes::measure(ROWS_MAX, |rows| {
            micros.get(rows.trailing_zeros() as usize).map(|micros| Duration::from_micros(*micros))
        })
    }

    fn size(rows: usize, micros: u64) -> BatchSize {
        BatchSize { rows, time: Some(Duration::from_micros(micros)) }
    }

    #[test]
    fn the_largest_short_run_is_taken_whose_rows_cost_about_the_least() {
        for (micros, expected) in [
            // Flat from 4 rows on, and 64 rows are no short run.
            (&[84, 87, 123, 241, 500, 1_010, 2_050][..], size(32, 1_010)),
            // Rows get dearer where they leave the caches.
            (&[84, 87, 123, 241, 560, 1_300, 2_800], size(8, 241)),
            // One disturbed size is not the end.
            (&[84, 200, 123, 241, 500, 1_010, 2_050], size(32, 1_010)),
            // Cheaper and cheaper.
            (&[30, 31, 32, 33, 35, 40, 50], size(64, 50)),
        ] {
            assert_eq!(measured(micros).best(), expected, "{micros:?}");
        }
    }

    #[test]
    fn long_runs_share_only_where_each_doubling_is_worth_it() {
        for (micros, expected) in [
            (&[2_500, 5_000, 10_000][..], size(1, 2_500)),
            (&[2_500, 3_000, 4_000, 7_900, 15_800], size(4, 4_000)),
        ] {
            assert_eq!(measured(micros).best(), expected, "{micros:?}");
        }
    }

    #[test]
    fn a_model_that_gains_nothing_runs_one_row() {
        assert_eq!(measured(&[100, 200, 400, 800, 1_600, 3_200, 6_400]).best(), size(1, 100));
    }

    #[test]
    fn what_must_be_short_takes_the_largest_size_that_is() {
        let gains_further = measured(&[200, 210, 400, 700, 1_200, 2_100, 3_700]);
        assert_eq!(gains_further.best(), size(64, 3_700));
        assert_eq!(gains_further.best_short(), Some(size(16, 1_200)));
        assert_eq!(measured(&[30, 31, 32, 33, 35, 40, 50]).best_short(), Some(size(64, 50)));
        assert_eq!(measured(&[2_500, 5_000, 10_000]).best_short(), None);
    }

    #[test]
    fn without_time_to_measure_a_moderate_size_is_taken() {
        let moderate = BatchSize { rows: 8, time: None };
        assert_eq!(measured(&[]).best(), moderate);
        assert_eq!(RunTimes::unknown().best(), moderate);
        assert_eq!(measured(&[300_000]).best(), moderate);
        assert_eq!(measured(&[300_000]).one_row(), Some(Duration::from_millis(300)));
        assert_eq!(measured(&[100, 101, 102, 104, 108]).best(), size(16, 108));
    }

    #[test]
    fn measuring_ends_once_runs_are_long_and_bring_nothing() {
        let mut asked = Vec::new();
        let times = RunTimes::measure(ROWS_MAX, |rows| {
            asked.push(rows);
            Some(Duration::from_millis(rows as u64))
        });
        assert_eq!(asked, [1, 2, 4]);
        assert_eq!(times.best(), size(1, 1_000));
    }

    #[test]
    fn a_size_in_between_takes_as_long_as_the_next_larger_one() {
        let times = measured(&[10, 20, 40]);
        let micros = [0, 1, 2, 3, 4, 5].map(|rows| times.of(rows).map(|time| time.as_micros()));
        assert_eq!(micros, [Some(10), Some(10), Some(20), Some(40), Some(40), None]);
    }
}
