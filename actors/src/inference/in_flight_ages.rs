//! How old the oldest request in flight is, at the price of two additions per
//! request: requests are counted by the stretch of time in which they came.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Stretches that are told apart. One is used again only after all others, and
/// until then an older request would be found.
const STRETCHES: usize = 64;

/// Ages of the requests in flight, to the length of a stretch.
#[derive(Debug)]
pub(crate) struct InFlightAges {
    began: Instant,
    stretch: Duration,
    counts: [AtomicU32; STRETCHES],
    /// Nanoseconds from the beginning to the latest success, and one more; 0: none.
    last_success: AtomicU64,
}

/// Where a request is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch(usize);

impl InFlightAges {
    /// Tells ages up to sixty times the length of a stretch apart.
    pub(crate) fn new(began: Instant, stretch: Duration) -> Self {
        Self {
            began,
            stretch: stretch.max(Duration::from_millis(1)),
            counts: std::array::from_fn(|_| AtomicU32::new(0)),
            last_success: AtomicU64::new(0),
        }
    }

    /// A request has come. Give the answer to `leave`.
    pub(crate) fn enter(&self, now: Instant) -> Stretch {
        let stretch = self.number(now) as usize % STRETCHES;
        self.counts[stretch].fetch_add(1, Relaxed);
        Stretch(stretch)
    }

    /// It is not in flight any more.
    pub(crate) fn leave(&self, entered: Stretch) {
        self.counts[entered.0].fetch_sub(1, Relaxed);
    }

    /// One was answered.
    pub(crate) fn succeed(&self, now: Instant) {
        let nanos = nanos(now.saturating_duration_since(self.began));
        self.last_success.store(nanos.saturating_add(1), Relaxed);
    }

    /// When one was answered last.
    pub(crate) fn last_success(&self) -> Option<Instant> {
        match self.last_success.load(Relaxed) {
            0 => None,
            nanos => self.began.checked_add(Duration::from_nanos(nanos - 1)),
        }
    }

    /// Age of the oldest request in flight, a stretch too young at most.
    pub(crate) fn oldest(&self, now: Instant) -> Option<Duration> {
        let newest = self.number(now);
        let older = (0..STRETCHES as u64).rev().filter(|back| *back <= newest);
        let is_filled = |back: &u64| self.counts[(newest - back) as usize % STRETCHES].load(Relaxed) > 0;
        let back = older.into_iter().find(is_filled)?;
        // From the end of its stretch.
        let end = self.stretch.saturating_mul(u32::try_from(newest - back + 1).unwrap_or(u32::MAX));
        Some(now.saturating_duration_since(self.began).saturating_sub(end))
    }

    fn number(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began);
        nanos(since) / nanos(self.stretch).max(1)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_oldest_in_flight_is_found_to_the_length_of_a_stretch() {
        let began = Instant::now();
        let ages = InFlightAges::new(began, SECOND);
        assert_eq!(ages.oldest(began + 100 * SECOND), None);
        let old = ages.enter(began + 100 * SECOND);
        let young = ages.enter(began + 110 * SECOND);
        assert_eq!(ages.oldest(began + 111 * SECOND), Some(10 * SECOND));
        ages.leave(old);
        assert_eq!(ages.oldest(began + 111 * SECOND), Some(Duration::ZERO));
        ages.leave(young);
        assert_eq!(ages.oldest(began + 111 * SECOND), None);
    }

    #[test]
    fn nobody_is_too_young_to_be_seen_or_older_than_the_beginning() {
        let began = Instant::now();
        let ages = InFlightAges::new(began, SECOND);
        ages.enter(began);
        assert_eq!(ages.oldest(began), Some(Duration::ZERO));
        assert_eq!(ages.oldest(began + 40 * SECOND), Some(39 * SECOND));
    }

    #[test]
    fn the_latest_success_is_remembered() {
        let began = Instant::now();
        let ages = InFlightAges::new(began, SECOND);
        assert_eq!(ages.last_success(), None);
        ages.succeed(began);
        assert_eq!(ages.last_success(), Some(began));
        ages.succeed(began + SECOND);
        assert_eq!(ages.last_success(), Some(began + SECOND));
    }
}
