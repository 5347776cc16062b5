//! How long to wait before trying again: twice as long each time, up to a bound,
//! and never quite the same, so that nodes do not try in step.

use std::time::Duration;

/// Waits between attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    /// Begins with `shortest`.
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, attempts: 0 }
    }

    /// The next wait: between half and the whole of the doubled one.
    pub fn next_wait(&mut self) -> Duration {
        let doubled = self.shortest.saturating_mul(1 << self.attempts.min(16));
        self.attempts = self.attempts.saturating_add(1);
        doubled.min(self.longest).mul_f64(rand::random_range(0.5..=1.0))
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let bounds = [(50, 100), (100, 200), (175, 350), (175, 350)];
        for (least, most) in bounds {
            let wait = backoff.next_wait();
            assert!((Duration::from_millis(least)..=Duration::from_millis(most)).contains(&wait), "{wait:?}");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(100));
    }
}
