//! A refusal on its way between peers: what one node answers is what the other
//! one's caller gets, word for word.

use std::time::Duration;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use super::InferError;
use super::error::{Overload, bounded};

/// Says that the peer's inference answered, not a transport in between.
const ANSWERED_KEY: &str = "x-starling-answered";
const OVERLOAD_KEY: &str = "x-starling-overload";
const RETRY_AFTER_MILLIS_KEY: &str = "x-starling-retry-after-ms";

/// For the wire.
pub fn to_status(error: &InferError) -> Status {
    let code = match error {
        InferError::InvalidArgument(_) => Code::InvalidArgument,
        InferError::NotFound(_) => Code::NotFound,
        InferError::Overloaded { .. } => Code::ResourceExhausted,
        InferError::DeadlineExceeded(_) => Code::DeadlineExceeded,
        InferError::Unavailable(_) => Code::Unavailable,
        InferError::Cancelled => Code::Cancelled,
        InferError::Internal(_) => Code::Internal,
        InferError::Unimplemented(_) => Code::Unimplemented,
    };
    let mut metadata = MetadataMap::new();
    metadata.insert(ANSWERED_KEY, MetadataValue::from_static("1"));
    if let InferError::Overloaded { reason, retry_after, .. } = error {
        let millis = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
        metadata.insert(OVERLOAD_KEY, MetadataValue::from_static(reason.as_str()));
        metadata.insert(RETRY_AFTER_MILLIS_KEY, MetadataValue::from(millis));
    }
    Status::with_metadata(code, bounded(error.to_string()), metadata)
}

/// From the wire. Whatever a transport said is [`InferError::Unavailable`]: a
/// prediction changes nothing, so it may be asked for again elsewhere.
pub fn from_status(status: &Status) -> InferError {
    let text = status.message().to_owned();
    if status.metadata().get(ANSWERED_KEY).is_none() {
        return InferError::Unavailable(text);
    }
    match status.code() {
        Code::InvalidArgument => InferError::InvalidArgument(text),
        Code::NotFound => InferError::NotFound(text),
        Code::ResourceExhausted => InferError::Overloaded {
            reason: overload(status),
            text,
            retry_after: Duration::from_millis(number(status, RETRY_AFTER_MILLIS_KEY)),
        },
        Code::DeadlineExceeded => InferError::DeadlineExceeded(text),
        Code::Unavailable => InferError::Unavailable(text),
        Code::Cancelled => InferError::Cancelled,
        Code::Unimplemented => InferError::Unimplemented(text),
        _ => InferError::Internal(text),
    }
}

/// A peer of a newer version may have reasons that this one does not know.
fn overload(status: &Status) -> Overload {
    let named = status.metadata().get(OVERLOAD_KEY).and_then(|value| value.to_str().ok());
    Overload::ALL.into_iter().find(|reason| Some(reason.as_str()) == named).unwrap_or(Overload::QueueFull)
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
        }
    }

    #[test]
    fn what_a_transport_says_may_be_tried_elsewhere() {
        for status in [Status::unknown("transport error"), Status::cancelled("h2 reset")] {
            assert!(matches!(from_status(&status), InferError::Unavailable(_)));
        }
    }
}
