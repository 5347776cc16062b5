//! Failures in the words of gRPC and HTTP: which status each gets.

use std::time::Duration;

use http::StatusCode;
use starling_actors::feedback::FeedbackError;
use starling_actors::inference::InferError;
use starling_actors::inference::error::bounded;
use starling_raft::artefacts::ArtefactError;
use starling_raft::consensus::{ProposeError, ReadError};
use starling_raft::state::Rejection;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// By which gRPC clients are told when to try again, in milliseconds.
const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// What nginx made the custom for a client that went away; no registered code fits.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The gRPC status of a prediction that failed.
pub(super) fn infer_status(error: &InferError) -> Status {
    let text = bounded(error.to_string());
    match error {
        InferError::InvalidArgument(_) | InferError::RefusedByModel(_) => Status::invalid_argument(text),
        InferError::NotFound(_) => Status::not_found(text),
        InferError::Overloaded { retry_after, .. } => exhausted(text, *retry_after),
        InferError::DeadlineExceeded(_) => Status::deadline_exceeded(text),
        InferError::Unavailable(_) => Status::unavailable(text),
        InferError::Cancelled => Status::cancelled(text),
        InferError::Internal(_) => Status::internal(text),
        InferError::Unimplemented(_) => Status::unimplemented(text),
    }
}

fn exhausted(text: String, retry_after: Duration) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(PUSHBACK, MetadataValue::from(retry_after.as_millis().max(1) as u64));
    Status::with_metadata(Code::ResourceExhausted, text, metadata)
}

/// The HTTP status of a prediction that failed, and when to try again.
pub(super) fn infer_http(error: &InferError) -> (StatusCode, Option<Duration>) {
    match error {
        InferError::InvalidArgument(_) | InferError::RefusedByModel(_) => (StatusCode::BAD_REQUEST, None),
        InferError::NotFound(_) => (StatusCode::NOT_FOUND, None),
        InferError::Overloaded { retry_after, .. } => (StatusCode::TOO_MANY_REQUESTS, Some(*retry_after)),
        InferError::DeadlineExceeded(_) => (StatusCode::GATEWAY_TIMEOUT, None),
        InferError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, None),
        InferError::Cancelled => {
            let closed = StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST);
            (closed, None)
        }
        InferError::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, None),
        InferError::Unimplemented(_) => (StatusCode::NOT_IMPLEMENTED, None),
    }
}

/// The gRPC status of feedback that was not taken.
pub(super) fn feedback_status(error: &FeedbackError) -> Status {
    let text = error.to_string();
    match error {
        FeedbackError::InvalidArgument(_) => Status::invalid_argument(text),
        FeedbackError::Overloaded { retry_after, .. } => exhausted(text, *retry_after),
        FeedbackError::Unavailable(_) | FeedbackError::Behind => Status::unavailable(text),
    }
}

/// The HTTP status of feedback that was not taken, and when to send it again.
pub(super) fn feedback_http(error: &FeedbackError) -> (StatusCode, Option<Duration>) {
    match error {
        FeedbackError::InvalidArgument(_) => (StatusCode::BAD_REQUEST, None),
        FeedbackError::Overloaded { retry_after, .. } => (StatusCode::TOO_MANY_REQUESTS, Some(*retry_after)),
        FeedbackError::Unavailable(_) | FeedbackError::Behind => (StatusCode::SERVICE_UNAVAILABLE, None),
    }
}

/// The gRPC status of a command that was decided against.
fn rejection_status(rejection: &Rejection) -> Status {
    let text = rejection.to_string();
    match rejection {
        Rejection::UnknownModel(_)
        | Rejection::UnknownVersion { .. }
        | Rejection::UnknownNode(_)
        | Rejection::UnknownRollout(_) => Status::not_found(text),
        Rejection::LabelTaken { .. } | Rejection::AlreadyFounded(_) | Rejection::RolloutExists { .. } => {
            Status::already_exists(text)
        }
        Rejection::WeightsDoNotSum { .. }
        | Rejection::VersionNamedTwice { .. }
        | Rejection::InvalidRollout { .. }
        | Rejection::WinnerNeeded(_)
        | Rejection::NoSuchArm { .. } => Status::invalid_argument(text),
        Rejection::EpochMismatch { .. } | Rejection::RevisionMismatch { .. } => Status::aborted(text),
        Rejection::LimitReached { .. } => Status::resource_exhausted(text),
        _ => Status::failed_precondition(text),
    }
}

/// The gRPC status of a write that was not accepted.
pub(super) fn propose_status(error: &ProposeError) -> Status {
    match error {
        ProposeError::Rejected(rejection) => rejection_status(rejection),
        ProposeError::Unavailable(_) => Status::unavailable(error.to_string()),
        ProposeError::TimedOut(_) => Status::deadline_exceeded(error.to_string()),
    }
}

/// The gRPC status of a linearizable read that was not possible.
pub(super) fn read_status(error: &ReadError) -> Status {
    match error {
        ReadError::Unavailable(_) => Status::unavailable(error.to_string()),
        ReadError::TimedOut(_) => Status::deadline_exceeded(error.to_string()),
    }
}

/// The gRPC status of an artefact that could not be kept or spread.
pub(super) fn artefact_status(error: &ArtefactError) -> Status {
    let text = error.to_string();
    match error {
        ArtefactError::Io { .. } => Status::internal(text),
        ArtefactError::DigestMismatch { .. } => Status::data_loss(text),
        ArtefactError::TooLarge { .. } => Status::invalid_argument(text),
        ArtefactError::NotFetched { .. } | ArtefactError::NoMajority { .. } => Status::unavailable(text),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use starling_actors::inference::error::Overload;

    use super::*;

    #[test]
    fn each_failure_has_its_code_in_both_protocols() {
        let full = overloaded(Overload::QueueFull);
        let cases = [
            (InferError::InvalidArgument("x".into()), Code::InvalidArgument, 400),
            (InferError::RefusedByModel("x".into()), Code::InvalidArgument, 400),
            (InferError::NotFound("x".into()), Code::NotFound, 404),
            (full, Code::ResourceExhausted, 429),
            (InferError::DeadlineExceeded("x".into()), Code::DeadlineExceeded, 504),
            (InferError::Unavailable("x".into()), Code::Unavailable, 503),
            (InferError::Cancelled, Code::Cancelled, 499),
            (InferError::Internal("x".into()), Code::Internal, 500),
            (InferError::Unimplemented("x".into()), Code::Unimplemented, 501),
        ];
        for (error, code, http) in cases {
            assert_eq!(infer_status(&error).code(), code, "{error}");
            assert_eq!(infer_http(&error).0.as_u16(), http, "{error}");
        }
    }

    fn overloaded(reason: Overload) -> InferError {
        InferError::Overloaded { reason, text: "full".into(), retry_after: Duration::from_millis(20) }
    }

    #[test]
    fn a_text_that_repeats_a_megabyte_is_cut() {
        let status = infer_status(&InferError::InvalidArgument("é".repeat(1 << 20)));
        assert!(status.message().len() < 2_200, "{}", status.message().len());
        assert!(status.message().ends_with("… (cut; 2097152 bytes)"));
        assert_eq!(bounded("short".into()), "short");
    }

    #[test]
    fn every_refusal_of_an_overloaded_node_says_when_to_try_again() {
        for reason in Overload::ALL {
            let error = overloaded(reason);
            let status = infer_status(&error);
            assert_eq!(status.code(), Code::ResourceExhausted, "{reason:?}");
            assert_eq!(status.metadata().get(PUSHBACK).unwrap().to_str().unwrap(), "20", "{reason:?}");
            let expected = (StatusCode::TOO_MANY_REQUESTS, Some(Duration::from_millis(20)));
            assert_eq!(infer_http(&error), expected, "{reason:?}");
        }
    }

    #[test]
    fn advice_of_less_than_a_millisecond_is_not_read_as_never() {
        let error = InferError::Overloaded {
            reason: Overload::QueueFull,
            text: "full".into(),
            retry_after: Duration::from_micros(3),
        };
        assert_eq!(infer_status(&error).metadata().get(PUSHBACK).unwrap().to_str().unwrap(), "1");
    }

    #[test]
    fn a_rejection_is_no_unavailability() {
        let unknown = ProposeError::Rejected(Rejection::UnknownModel("m".parse().unwrap()));
        assert_eq!(propose_status(&unknown).code(), Code::NotFound);
        let not_ready = ProposeError::Rejected(Rejection::VersionNotReady {
            model: "m".parse().unwrap(),
            label: "v1".parse().unwrap(),
        });
        assert_eq!(propose_status(&not_ready).code(), Code::FailedPrecondition);
        assert_eq!(propose_status(&ProposeError::Unavailable("no leader".into())).code(), Code::Unavailable);
    }
}
