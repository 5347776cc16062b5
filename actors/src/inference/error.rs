//! Why a prediction is not answered: one enum for gRPC, REST and forwarding.

use std::time::Duration;

/// A refusal or failure. The text names what came and what was expected.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InferError {
    /// The request is wrong; sending it again changes nothing.
    #[error("{0}")]
    InvalidArgument(String),
    /// No such model or version.
    #[error("{0}")]
    NotFound(String),
    /// The bounded queue is full. Nothing was run.
    #[error("the queue of model '{model}' is full ({limit} requests wait); try again later")]
    QueueFull {
        /// The model.
        model: String,
        /// The bound.
        limit: usize,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The caller's time was over before the run began. Nothing was run.
    #[error("the deadline passed before model '{model}' could answer; the request was not run")]
    DeadlineExceeded {
        /// The model.
        model: String,
    },
    /// Not here and not now: no node holds the version, or it went away.
    #[error("{0}")]
    Unavailable(String),
    /// The caller went away.
    #[error("the request was cancelled")]
    Cancelled,
    /// The run itself failed.
    #[error("{0}")]
    Internal(String),
    /// Part of the protocol that is not supported, with the reason.
    #[error("{0}")]
    Unimplemented(String),
}
