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
const RUNS_PER_SIZE: usize = 3;
/// A batch twice as large must make a row cheaper by a tenth.
const WORTH_DOUBLING: f64 = 0.9;
/// For models that made-up rows cannot run, or that are too slow to measure.
const UNMEASURED_ROWS: usize = 8;

/// Runs a few times, so that the first request finds the session warm. Gives the
/// batch size to use. A model that refuses made-up rows is left cold. Blocking,
/// for `max_run_time` at most.
pub(crate) fn warm_up(session: &mut ModelSession, batching: bool, max_run_time: Duration) -> usize {
    let measured = with_time_limit(max_run_time, |options| measure_sizes(session, batching, options));
    measured.unwrap_or(if batching { UNMEASURED_ROWS } else { 1 })
}

fn measure_sizes(session: &mut ModelSession, batching: bool, options: &RunOptions) -> usize {
    let give_up_at = Instant::now() + MEASURING_TIME_MAX;
    let mut measure = |rows: usize| {
        session.fill_with_samples(0, rows);
        best_run(session, options, give_up_at)
    };
    let first = measure(1);
    if !batching {
        return 1;
    }
    match first {
        Some(one_row) => best_batch_size(one_row, measure),
        None => UNMEASURED_ROWS,
    }
}

/// Doubles the size for as long as it is worth it. `measure` gives `None` when
/// there is no time left.
fn best_batch_size(one_row: Duration, mut measure: impl FnMut(usize) -> Option<Duration>) -> usize {
    let mut best_rows = 1;
    let mut best_per_row = one_row.as_secs_f64();
    while best_rows < MEASURED_ROWS_MAX {
        let rows = best_rows * 2;
        let Some(took) = measure(rows) else { return best_rows.max(UNMEASURED_ROWS) };
        let per_row = took.as_secs_f64() / rows as f64;
        if per_row > best_per_row * WORTH_DOUBLING {
            return best_rows;
        }
        best_rows = rows;
        best_per_row = per_row;
    }
    best_rows
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
        best_batch_size(took(1).unwrap(), took)
    }

    #[test]
    fn stops_where_the_time_per_row_flattens() {
        assert_eq!(choose(&[(1, 84), (2, 87), (4, 123), (8, 241), (16, 500)]), 4);
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
