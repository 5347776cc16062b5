//! What an overloaded version says to those whom it does not let in.

use std::time::Duration;

use crate::inference::InferError;
use crate::inference::error::Overload;
use crate::inference::load_gate::TooLong;

/// Bounds of the advice given with a refusal.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

pub(super) fn full(model: &str, max_requests: usize, retry_after: Duration) -> InferError {
    let text =
        format!("the queue of model '{model}' is full ({max_requests} requests wait); try again later");
    overloaded(Overload::QueueFull, text, retry_after)
}

pub(super) fn waits_too_long(model: &str, too_long: TooLong, retry_after: Duration) -> InferError {
    let TooLong { wait, bound } = too_long;
    let text = format!(
        "the queue of model '{model}' is too long: a request would wait {wait:.1?}, at most {bound:.1?} is allowed; try again later"
    );
    overloaded(Overload::QueueTime, text, retry_after)
}

/// `left`: of the request's own time.
pub(super) fn not_in_time(model: &str, wait: Duration, left: Duration) -> InferError {
    let text = format!(
        "model '{model}' could not begin with the request in time: it would wait {wait:.1?}, {left:.1?} are left; it was not queued"
    );
    overloaded(Overload::Deadline, text, wait.saturating_sub(left))
}

pub(super) fn displaced(model: &str, retry_after: Duration) -> InferError {
    let text = format!(
        "the queue of model '{model}' is full and a more urgent request has taken the place of this one; try again later"
    );
    overloaded(Overload::Displaced, text, retry_after)
}

fn overloaded(reason: Overload, text: String, retry_after: Duration) -> InferError {
    let retry_after = retry_after.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
    InferError::Overloaded { reason, text, retry_after }
}
