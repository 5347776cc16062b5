//! A refusal on its way between peers: what one node answers is what the other
//! one's caller gets, word for word.

use std::time::Duration;

use starling_proto::peer::ForwardRefusal;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use super::InferError;
use super::error::{Overload, bounded};

/// Says that the peer's inference answered, not a transport in between.
const ANSWERED_KEY: &str = "x-starling-answered";
const OVERLOAD_KEY: &str = "x-starling-overload";
const RETRY_AFTER_MILLIS_KEY: &str = "x-starling-retry-after-ms";

/// For a call's answer.
pub fn to_status(error: &InferError) -> Status {
    let ForwardRefusal { text, .. } = to_refusal(error);
    let mut metadata = MetadataMap::new();
    metadata.insert(ANSWERED_KEY, MetadataValue::from_static("1"));
    if let InferError::Overloaded { reason, retry_after, .. } = error {
        metadata.insert(OVERLOAD_KEY, MetadataValue::from_static(reason.as_str()));
        metadata.insert(RETRY_AFTER_MILLIS_KEY, MetadataValue::from(millis(*retry_after)));
    }
    Status::with_metadata(code(error), text, metadata)
}

/// For a connection of forwarded requests, where nothing in between answers.
pub fn to_refusal(error: &InferError) -> ForwardRefusal {
    let (overload, retry_after_ms) = match error {
        InferError::Overloaded { reason, retry_after, .. } => (reason.as_str(), millis(*retry_after)),
        _ => ("", 0),
    };
    ForwardRefusal {
        code: code(error).into(),
        text: bounded(error.to_string()),
        overload: overload.to_owned(),
        retry_after_ms,
    }
}

fn code(error: &InferError) -> Code {
    match error {
        InferError::InvalidArgument(_) => Code::InvalidArgument,
        // Between peers only: callers get an invalid argument.
        InferError::RefusedByModel(_) => Code::FailedPrecondition,
        InferError::NotFound(_) => Code::NotFound,
        InferError::Overloaded { .. } => Code::ResourceExhausted,
        InferError::DeadlineExceeded(_) => Code::DeadlineExceeded,
        InferError::Unavailable(_) => Code::Unavailable,
        InferError::Cancelled => Code::Cancelled,
        InferError::Internal(_) => Code::Internal,
        InferError::Unimplemented(_) => Code::Unimplemented,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// From a call's answer. Whatever a transport said is [`InferError::Unavailable`]:
/// a prediction changes nothing, so it may be asked for again elsewhere.
pub fn from_status(status: &Status) -> InferError {
    if status.metadata().get(ANSWERED_KEY).is_none() {
        return InferError::Unavailable(status.message().to_owned());
    }
    let named = status.metadata().get(OVERLOAD_KEY).and_then(|value| value.to_str().ok());
    from_refusal(ForwardRefusal {
        code: status.code().into(),
        text: status.message().to_owned(),
        overload: named.unwrap_or_default().to_owned(),
        retry_after_ms: number(status, RETRY_AFTER_MILLIS_KEY),
    })
}

/// From a connection of forwarded requests.
pub fn from_refusal(refusal: ForwardRefusal) -> InferError {
    let ForwardRefusal { code, text, overload: named, retry_after_ms } = refusal;
    match Code::from_i32(code) {
        Code::InvalidArgument => InferError::InvalidArgument(text),
        Code::FailedPrecondition => InferError::RefusedByModel(text),
        Code::NotFound => InferError::NotFound(text),
        Code::ResourceExhausted => InferError::Overloaded {
            reason: overload(&named),
            text,
            retry_after: Duration::from_millis(retry_after_ms),
        },
        Code::DeadlineExceeded => InferError::DeadlineExceeded(text),
        Code::Unavailable => InferError::Unavailable(text),
        Code::Cancelled => InferError::Cancelled,
        Code::Unimplemented => InferError::Unimplemented(text),
        _ => InferError::Internal(text),
    }
}

/// A peer of a newer version may have reasons that this one does not know.
fn overload(named: &str) -> Overload {
    Overload::ALL.into_iter().find(|reason| reason.as_str() == named).unwrap_or(Overload::QueueFull)
}

fn number(status: &Status, key: &str) -> u64 {
    let text = status.metadata().get(key).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_arrives_as_it_was_sent() {
        let refusals = [
            InferError::InvalidArgument("input 'x' has rank 3".into()),
            InferError::RefusedByModel("an index is out of bounds".into()),
            InferError::NotFound("no such model".into()),
            InferError::Overloaded {
                reason: Overload::QueueTime,
                text: "the queue of model 'digits' is too long".into(),
                retry_after: Duration::from_millis(250),
            },
            InferError::DeadlineExceeded("model 'digits' was too slow".into()),
            InferError::Unavailable("not here".into()),
            InferError::Cancelled,
            InferError::Internal("the run failed".into()),
            InferError::Unimplemented("shared memory".into()),
        ];
        for refusal in refusals {
            let arrived = from_status(&to_status(&refusal));
            assert_eq!(format!("{arrived:?}"), format!("{refusal:?}"));
            let arrived = from_refusal(to_refusal(&refusal));
            assert_eq!(format!("{arrived:?}"), format!("{refusal:?}"));
        }
    }

    #[test]
    fn what_a_transport_says_may_be_tried_elsewhere() {
        for status in [Status::unknown("transport error"), Status::cancelled("h2 reset")] {
            assert!(matches!(from_status(&status), InferError::Unavailable(_)));
        }
    }
}
