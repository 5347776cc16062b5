//! When a version whose instances end again and again is given up on this node.
//! Pure: it is told what happened and when.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Endings within this time count together.
const WINDOW: Duration = Duration::from_secs(60);
/// So many in a row, with no request answered in between, are too many.
const IN_A_ROW_MAX: usize = 5;
/// So many are too many whatever is answered in between. Some requests may be
/// what instances die of; others must not be refused over a few of them.
const IN_WINDOW_MAX: usize = 20;

/// The instances of one version that died or had to be ended of late.
#[derive(Debug, Default)]
pub(crate) struct InstanceFailures {
    at: VecDeque<Instant>,
    in_a_row: usize,
}

impl InstanceFailures {
    /// One more has ended; `last_answer` is when the version last answered. True:
    /// that is too many.
    pub(crate) fn note(&mut self, now: Instant, last_answer: Option<Instant>) -> bool {
        if let (Some(previous), Some(answer)) = (self.at.back(), last_answer)
            && answer > *previous
        {
            self.in_a_row = 0;
        }
        self.at.push_back(now);
        while self.at.front().is_some_and(|first| now.saturating_duration_since(*first) > WINDOW) {
            self.at.pop_front();
        }
        self.in_a_row = (self.in_a_row + 1).min(self.at.len());
        self.in_a_row >= IN_A_ROW_MAX || self.at.len() >= IN_WINDOW_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// After how many endings, one every `pause`, the version is given up.
    fn given_up_after(pause: Duration, answers_between: bool) -> Option<usize> {
        let began = Instant::now();
        let mut failures = InstanceFailures::default();
        (1..=100).find(|n| {
            let now = began + pause * *n as u32;
            let answered = answers_between.then(|| now - pause / 2);
            failures.note(now, answered)
        })
    }

    #[test]
    fn five_in_a_row_are_too_many() {
        assert_eq!(given_up_after(SECOND, false), Some(5));
        assert_eq!(given_up_after(10 * SECOND, false), Some(5));
    }

    #[test]
    fn with_answers_in_between_it_takes_twenty_within_a_minute() {
        assert_eq!(given_up_after(SECOND, true), Some(20));
        assert_eq!(given_up_after(4 * SECOND, true), None);
    }

    #[test]
    fn those_of_long_ago_do_not_count() {
        assert_eq!(given_up_after(20 * SECOND, false), None);
    }
}
