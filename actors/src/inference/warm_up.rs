//! Runs a session before it is needed, and measures how many rows a run should
//! have: as many as still make a row cheaper.

use std::time::{Duration, Instant};

use ort::session::RunOptions;

use super::session::ModelSession;
use super::time_limit::with_time_limit;

/// Where measuring stops.
const MEASURED_ROWS_MAX: usize = 64;
const MEASURING_TIME_MAX: Duration = Duration::from_millis(200);
/// A size is taken by its best run: the others were disturbed.
const RUNS_PER_SIZE: usize = 5;
/// A batch twice as large must make a row cheaper by a tenth.
const WORTH_DOUBLING: f64 = 0.9;
/// Sizes in a row that bring nothing, after which larger ones are not tried.
const FRUITLESS_SIZES_MAX: usize = 2;
/// For models that made-up rows cannot run, or that are too slow to measure.
const UNMEASURED_ROWS: usize = 8;

/// What was measured. Times are those of the best run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Measured {
    /// The batch size to use.
    pub rows: usize,
    /// `None`: the model refuses made-up rows.
    pub one_row: Option<Duration>,
    /// Of `rows` rows; `None`: there was no time to see.
    pub full_batch: Option<Duration>,
}

/// Runs a few times, so that the first request finds the session warm. Gives the
/// batch size to use, and how long runs take. A model that refuses made-up rows
/// is left cold. Blocking, for `max_run_time` at most.
pub(crate) fn warm_up(session: &mut ModelSession, batching: bool, max_run_time: Duration) -> Measured {
    let measured = with_time_limit(max_run_time, |options| measure_sizes(session, batching, options));
    let rows = if batching { UNMEASURED_ROWS } else { 1 };
    measured.unwrap_or(Measured { rows, one_row: None, full_batch: None })
}

/// Runs a session like one that has been measured, with one row and with `rows`.
/// Blocking, for `max_run_time` at most.
pub(crate) fn warm_up_another(session: &mut ModelSession, rows: usize, max_run_time: Duration) {
    with_time_limit(max_run_time, |options| {
        for rows in [1, rows, 1] {
            session.fill_with_samples(0, rows);
            // A model that refuses made-up rows is left cold.
            let _ = session.run(options);
        }
    });
}

fn measure_sizes(session: &mut ModelSession, batching: bool, options: &RunOptions) -> Measured {
    let give_up_at = Instant::now() + MEASURING_TIME_MAX;
    let mut measure = |rows: usize| {
        session.fill_with_samples(0, rows);
        best_run(session, options, give_up_at)
    };
    let one_row = measure(1);
    if !batching {
        return Measured { rows: 1, one_row, full_batch: one_row };
    }
    match one_row {
        Some(one_row) => best_batch_size(one_row, measure),
        None => Measured { rows: UNMEASURED_ROWS, one_row: None, full_batch: None },
    }
}

/// Doubles the size for as long as it is worth it; one size that is not may have
/// been disturbed, two in a row are the end. `measure` gives `None` when there is
/// no time left.
fn best_batch_size(one_row: Duration, mut measure: impl FnMut(usize) -> Option<Duration>) -> Measured {
    let mut best = Measured { rows: 1, one_row: Some(one_row), full_batch: Some(one_row) };
    let mut best_per_row = one_row.as_secs_f64();
    let mut rows = 1;
    let mut fruitless = 0;
    while rows < MEASURED_ROWS_MAX && fruitless < FRUITLESS_SIZES_MAX {
        rows *= 2;
        let Some(took) = measure(rows) else {
            if fruitless > 0 {
                return best;
            }
            let full_batch = best.full_batch.filter(|_| best.rows >= UNMEASURED_ROWS);
            return Measured { rows: best.rows.max(UNMEASURED_ROWS), full_batch, ..best };
        };
        let per_row = took.as_secs_f64() / rows as f64;
        if per_row > best_per_row * WORTH_DOUBLING {
            fruitless += 1;
            continue;
        }
        best = Measured { rows, full_batch: Some(took), ..best };
        best_per_row = per_row;
        fruitless = 0;
    }
    best
}

fn best_run(session: &mut ModelSession, options: &RunOptions, give_up_at: Instant) -> Option<Duration> {
    let mut best = None;
    for _ in 0..RUNS_PER_SIZE {
        if Instant::now() >= give_up_at {
            break;
        }
        let ran = session.run(options).ok()?;
        let took = ran.ended - ran.began;
        best = Some(best.map_or(took, |best: Duration| best.min(took)));
    }
    best
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn choose(micros_by_rows: &[(usize, u64)]) -> usize {
        let took = |rows: usize| {
            let found = micros_by_rows.iter().find(|(measured, _)| *measured == rows);
            found.map(|(_, micros)| Duration::from_micros(*micros))
        };
        best_batch_size(took(1).unwrap(), took).rows
    }

    #[test]
    fn stops_where_the_time_per_row_flattens() {
        assert_eq!(choose(&[(1, 84), (2, 87), (4, 123), (8, 241), (16, 500)]), 4);
    }

    #[test]
    fn one_disturbed_size_is_not_the_end() {
        assert_eq!(choose(&[(1, 84), (2, 200), (4, 123), (8, 241), (16, 500)]), 4);
    }

    #[test]
    fn says_how_long_one_row_and_the_full_batch_took() {
        let took =
            |rows| Some(Duration::from_micros(if rows < 8 { 80 + rows as u64 } else { 80 * rows as u64 }));
        let measured = best_batch_size(Duration::from_micros(81), took);
        let micros = |micros| Some(Duration::from_micros(micros));
        assert_eq!(measured, Measured { rows: 4, one_row: micros(81), full_batch: micros(84) });
    }

    #[test]
    fn goes_to_the_end_while_rows_get_cheaper() {
        assert_eq!(choose(&[(1, 30), (2, 31), (4, 32), (8, 33), (16, 35), (32, 40), (64, 50)]), 64);
    }

    #[test]
    fn a_model_that_gains_nothing_runs_one_row() {
        assert_eq!(choose(&[(1, 100), (2, 200)]), 1);
    }

    #[test]
    fn without_time_to_measure_a_moderate_size_is_taken() {
        assert_eq!(choose(&[(1, 300_000)]), 8);
        assert_eq!(choose(&[(1, 100), (2, 101), (4, 102), (8, 104), (16, 108)]), 16);
    }
}
