//! Why a prediction is not answered: one enum for gRPC, REST and forwarding.

use std::time::Duration;

/// Errors repeat what a client sent; a name of a megabyte fits into no trailer.
const TEXT_BYTES_MAX: usize = 2_048;

/// A text of bearable length.
pub fn bounded(mut text: String) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text;
    }
    let length = text.len();
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text.push_str(&format!("… (cut; {length} bytes)"));
    text
}

/// A refusal or failure. The text names what came and what was expected.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InferError {
    /// The request is wrong; sending it again changes nothing.
    #[error("{0}")]
    InvalidArgument(String),
    /// The request fits the signature, and the model itself would not take it. To
    /// the caller that is an invalid argument; a rollout holds it against a version
    /// that stands in for one which takes it.
    #[error("{0}")]
    RefusedByModel(String),
    /// No such model or version.
    #[error("{0}")]
    NotFound(String),
    /// This node has more work than it can do in time. Nothing was run.
    #[error("{text}")]
    Overloaded {
        /// Which bound it would have broken.
        reason: Overload,
        /// Names the model and the bound.
        text: String,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The time that the request allowed was over before its run began. Nothing
    /// was run.
    #[error("{0}")]
    DeadlineExceeded(String),
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

/// The bound that an overloaded node keeps by refusing a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overload {
    /// As many requests wait as may.
    QueueFull,
    /// Those who wait would wait too long.
    QueueTime,
    /// It could not begin within its own deadline or timeout.
    Deadline,
    /// It waited, and a more urgent one has taken its place.
    Displaced,
    /// The requests inside this node have as many bytes as they may.
    Memory,
}

impl Overload {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::QueueFull, Self::QueueTime, Self::Deadline, Self::Displaced, Self::Memory];

    /// In metrics and between peers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::QueueTime => "queue_time",
            Self::Deadline => "deadline",
            Self::Displaced => "displaced",
            Self::Memory => "memory",
        }
    }
}
