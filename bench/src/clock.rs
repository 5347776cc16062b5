//! The one clock of a measurement: when its window begins, and when it is over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::load::Ending;

const NEVER: u64 = u64::MAX;

/// Shared by all threads of one measurement. Times are offsets from `start`.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// End of the warm-up.
    pub(crate) begin: Duration,
    /// Nanoseconds after `start`; `NEVER` until it is known.
    end: AtomicU64,
    answers_left: AtomicU64,
}

impl Clock {
    pub(crate) fn new(start: Instant, warm_up: Duration, ending: Ending) -> Self {
        let (end, answers_left) = match ending {
            Ending::After(duration) => (as_nanos(warm_up + duration), NEVER),
            Ending::Answers(answers) => (NEVER, answers),
        };
        Self { start, begin: warm_up, end: end.into(), answers_left: answers_left.into() }
    }

    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn instant(&self, at: Duration) -> Instant {
        self.start + at
    }

    /// Where the window ends, as far as that is known.
    pub(crate) fn end(&self) -> Duration {
        Duration::from_nanos(self.end.load(Ordering::Relaxed))
    }

    pub(crate) fn is_over(&self, at: Duration) -> bool {
        at >= self.end()
    }

    pub(crate) fn is_measured(&self, at: Duration) -> bool {
        at >= self.begin && !self.is_over(at)
    }

    /// Ends the window now, unless it has ended before.
    pub(crate) fn stop(&self) {
        self.end.fetch_min(as_nanos(self.now()), Ordering::Relaxed);
    }

    /// Counts an answer to a request of the window; the last one that was asked
    /// for ends it.
    pub(crate) fn count_answer(&self) {
        if self.answers_left.load(Ordering::Relaxed) == NEVER {
            return;
        }
        let take_one = |left: u64| left.checked_sub(1);
        let before = self.answers_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one);
        if before == Ok(1) {
            self.stop();
        }
    }
}

fn as_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_what_follows_the_warm_up() {
        let second = Duration::from_secs(1);
        let clock = Clock::new(Instant::now(), second, Ending::After(second));
        let measured =
            [0.5, 1.0, 1.5, 2.0].map(|seconds| clock.is_measured(Duration::from_secs_f64(seconds)));
        assert_eq!(measured, [false, true, true, false]);
    }

    #[test]
    fn the_last_answer_that_was_asked_for_ends_it() {
        let clock = Clock::new(Instant::now(), Duration::ZERO, Ending::Answers(2));
        clock.count_answer();
        assert!(!clock.is_over(clock.now()));
        clock.count_answer();
        assert!(clock.is_over(clock.now()));
    }

    #[test]
    fn stopping_never_moves_the_end_later() {
        let clock = Clock::new(Instant::now(), Duration::ZERO, Ending::After(Duration::ZERO));
        clock.stop();
        assert_eq!(clock.end(), Duration::ZERO);
    }
}
