//! Whether one more request may wait: the bound of a queue in time. Pure: it is
//! told the time, and the estimate of the wait.
//!
//! A short burst is worth keeping, a queue that stands is not: it only makes
//! everyone late. So the bound is wide until it is reached, which shows that more
//! comes than can be done, and narrow from then on until the refusals have nearly
//! ceased. The narrow one still keeps every instance busy, so nothing is lost.

use std::time::{Duration, Instant};

use super::run_pace::{Crew, per_crew};

/// While more comes than can be done: these requests beyond the runs that keep the
/// instances busy, for what arrives unevenly.
const STANDING_REQUESTS: u32 = 10;
/// Otherwise: so many requests. Of fast models more, so that a closed loop of as
/// many callers as people try first is let in; of slow ones no more than a model
/// that is busy for nine tenths of the time has now and then.
const BURST_REQUESTS: u32 = 36;
const BURST_REQUESTS_OF_FAST: u32 = 64;
const FAST_BURST_MAX: Duration = Duration::from_millis(250);
/// Runs so short that the scheduler's whims outweigh them are not counted one
/// by one.
const STANDING_MIN: Duration = Duration::from_millis(20);
const BURST_MIN: Duration = Duration::from_millis(50);
/// Over how long the share of refusals is taken: the longer of the two.
const WINDOW: Duration = Duration::from_secs(1);
const WINDOW_RUNS: u32 = 20;
/// Under this share (one in so many) the overload is over. A narrow queue refuses
/// a few even when a little less comes than can be done.
const OVER_BELOW_ONE_IN: u32 = 10;

/// How long the queue of a version may take to be worked off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueueTime {
    /// As many runs of the measured length as keep the instances busy.
    #[default]
    Adaptive,
    /// So long.
    Fixed(Duration),
    /// Only the number of requests is bounded.
    Unbounded,
}

/// Decides for one queue.
#[derive(Debug, Clone)]
pub(crate) struct LoadGate {
    bound: QueueTime,
    overloaded: bool,
    window_began: Option<Instant>,
    asked: u32,
    refused: u32,
}

/// A request that would wait longer than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong {
    pub wait: Duration,
    pub bound: Duration,
}

impl LoadGate {
    pub(crate) fn new(bound: QueueTime) -> Self {
        Self { bound, overloaded: false, window_began: None, asked: 0, refused: 0 }
    }

    /// Whether a request may wait so long. `full_run`: what a full run takes.
    pub(crate) fn ask(
        &mut self,
        wait: Duration,
        full_run: Duration,
        crew: Crew,
        now: Instant,
    ) -> Result<(), TooLong> {
        self.turn_window(now, WINDOW.max(full_run.saturating_mul(WINDOW_RUNS)));
        self.asked += 1;
        let Some(bound) = self.bound_now(full_run, crew) else { return Ok(()) };
        if wait <= bound {
            return Ok(());
        }
        self.refuse();
        Err(TooLong { wait, bound })
    }

    /// As many wait as may, by whatever count: it is refused without a question.
    pub(crate) fn refuse(&mut self) {
        self.overloaded = true;
        self.refused += 1;
    }

    /// The widest that its bound gets; `None`: there is none.
    pub(crate) fn longest(&self, full_run: Duration, crew: Crew) -> Option<Duration> {
        Self { overloaded: false, ..self.clone() }.bound_now(full_run, crew)
    }

    fn bound_now(&self, full_run: Duration, crew: Crew) -> Option<Duration> {
        match self.bound {
            QueueTime::Unbounded => None,
            QueueTime::Fixed(bound) => Some(bound),
            QueueTime::Adaptive if self.overloaded => {
                Some(time_of(STANDING_REQUESTS, full_run, crew).max(STANDING_MIN))
            }
            QueueTime::Adaptive => {
                let of_fast = time_of(BURST_REQUESTS_OF_FAST, full_run, crew).min(FAST_BURST_MAX);
                Some(time_of(BURST_REQUESTS, full_run, crew).max(of_fast).max(BURST_MIN))
            }
        }
    }

    fn turn_window(&mut self, now: Instant, window: Duration) {
        let began = *self.window_began.get_or_insert(now);
        if now.saturating_duration_since(began) < window {
            return;
        }
        self.overloaded &= self.refused.saturating_mul(OVER_BELOW_ONE_IN) >= self.asked.max(1);
        self.window_began = Some(now);
        self.asked = 0;
        self.refused = 0;
    }
}

/// The run that goes on, one that is ready for whichever instance ends first, and
/// so many requests of one row.
fn time_of(requests: u32, full_run: Duration, crew: Crew) -> Duration {
    let max_rows = u32::try_from(crew.max_rows.max(1)).unwrap_or(u32::MAX);
    let of_requests = per_crew(full_run.saturating_mul(requests) / max_rows, crew);
    full_run.saturating_add(per_crew(full_run, crew)).saturating_add(of_requests)
}

#[cfg(test)]
mod tests;
