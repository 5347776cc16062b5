//! The short way of a forwarded request: a connection from a core of this node's
//! data plane to a core of the peer's, without a thread in between.
//!
//! It begins on the peer port as every call between nodes does, with a mark that
//! HTTP/2 does not begin with, and the same question who calls whom. Then frames
//! go both ways: a request or its cancellation there, an answer or a refusal
//! back. What the short way does not take (large requests, many at once, requests
//! that are not on a core, peers that do not know it) goes by a call on the
//! ordinary channel.

mod answering;
mod asking;
mod frame;
mod incoming;
mod outgoing;
#[cfg(test)]
mod tests;
mod ways;

pub(super) use answering::serve;
pub(super) use ways::ShortWays;

use std::time::Duration;

/// Requests that are on their way on one connection.
const REQUESTS_MAX: usize = 256;
/// Larger requests go the ordinary way, so that they hold up no small ones.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// From the first byte to the last word of the greeting.
const GREETING_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
enum Over {
    #[error("the connection of forwarded requests failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("the peer closed the connection of forwarded requests")]
    Closed,
    #[error("the peer sent what is no frame of forwarded requests: {0}")]
    Frame(String),
    #[error("the peer refused the connection of forwarded requests: {0}")]
    Refused(String),
    #[error("the peer did not greet within {GREETING_TIMEOUT:?}")]
    Silent,
    #[error("it died, or listens elsewhere now")]
    Gone,
}
