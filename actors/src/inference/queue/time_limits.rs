//! Until when a request may wait, and what is said when it has waited longer.

use std::time::{Duration, Instant};

use crate::inference::InferError;

/// When it is too late for a request to begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeLimits {
    pub(super) deadline: Option<Instant>,
    pub(super) timeout: Option<Duration>,
    pub(super) queued_at: Instant,
}

impl TimeLimits {
    pub(super) fn start_by(&self) -> Option<Instant> {
        let timeout = self.timeout.and_then(|timeout| self.queued_at.checked_add(timeout));
        [self.deadline, timeout].into_iter().flatten().min()
    }

    pub(super) fn exceeded(&self, model: &str, now: Instant) -> InferError {
        let waited = now.saturating_duration_since(self.queued_at);
        let by_timeout = self.timeout.filter(|timeout| {
            self.deadline.is_none_or(|deadline| self.queued_at.checked_add(*timeout) <= Some(deadline))
        });
        InferError::DeadlineExceeded(match by_timeout {
            Some(timeout) => format!(
                "the request to model '{model}' has waited {waited:.1?}, its timeout is {timeout:?}; it was not run"
            ),
            None => format!(
                "the deadline of the request to model '{model}' has passed, it has waited {waited:.1?}; it was not run"
            ),
        })
    }
}
