//! Runs a session before it is needed, and measures how long runs take by their
//! size.

use std::time::{Duration, Instant};

use ort::session::RunOptions;

use super::batch_size::{ROWS_MAX, RunTimes};
use super::session::ModelSession;
use super::time_limit::with_time_limit;

const MEASURING_TIME_MAX: Duration = Duration::from_millis(200);
/// A size is taken by its best run: the others were disturbed.
const RUNS_PER_SIZE: usize = 5;

/// Runs a few times, so that the first request finds the session warm. Gives how
/// long runs take; with one row only where there is no `batching`. A model that
/// refuses made-up rows is left cold. Blocking, for `max_run_time` at most.
pub(crate) fn warm_up(session: &mut ModelSession, batching: bool, max_run_time: Duration) -> RunTimes {
    let measured = with_time_limit(max_run_time, |options| {
        let give_up_at = Instant::now() + MEASURING_TIME_MAX;
        RunTimes::measure(if batching { ROWS_MAX } else { 1 }, |rows| {
            session.fill_with_samples(0, rows);
            best_run(session, options, give_up_at)
        })
    });
    measured.unwrap_or_else(RunTimes::unknown)
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
