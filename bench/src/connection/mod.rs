//! One request over a connection, and why it failed if it did.

mod grpc;
mod rest;

use std::fmt;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::BenchError;
use crate::payload::PreparedRequest;

pub(crate) use grpc::GrpcConnection;
pub(crate) use rest::RestConnection;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Before a connection that broke is dialled again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
/// Of a failure's message.
const MESSAGE_BYTES_MAX: usize = 512;

/// What a failed request is counted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ErrorCode {
    /// The number of a gRPC status.
    Grpc(i32),
    /// An HTTP status.
    Http(u16),
    /// No answer within the timeout.
    Timeout,
    /// The server gave up this request, and the connection goes on.
    Reset,
    /// The connection broke, or could not be made again.
    Connection,
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grpc(number) => write!(formatter, "{}", grpc_name(*number)),
            Self::Http(status) => write!(formatter, "{status}"),
            Self::Timeout => formatter.write_str("timeout"),
            Self::Reset => formatter.write_str("stream reset"),
            Self::Connection => formatter.write_str("connection"),
        }
    }
}

fn grpc_name(number: i32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    usize::try_from(number).ok().and_then(|index| NAMES.get(index)).unwrap_or(&"no such status")
}

/// A request that was not answered as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn connection(error: impl fmt::Display) -> Self {
        Self { code: ErrorCode::Connection, message: bounded(error.to_string()) }
    }
}

/// A connection of either protocol.
pub(crate) enum Connection {
    Grpc(GrpcConnection),
    Rest(RestConnection),
}

impl Connection {
    /// Sends a request and reads its answer to the end. A connection that broke is
    /// dialled again, after a pause, before the next request.
    pub(crate) async fn call(&mut self, request: &PreparedRequest, timeout: Duration) -> Result<(), Failure> {
        let answer = async {
            match self {
                Self::Grpc(connection) => connection.call(request).await,
                Self::Rest(connection) => connection.call(request).await,
            }
        };
        match tokio::time::timeout(timeout, answer).await {
            Ok(outcome) => outcome,
            Err(_) => {
                if let Self::Rest(connection) = self {
                    // Its answer would be taken for that of the next request.
                    connection.give_up();
                }
                Err(Failure { code: ErrorCode::Timeout, message: format!("no answer within {timeout:?}") })
            }
        }
    }
}

async fn dial(server: &str) -> Result<TcpStream, BenchError> {
    let unreachable = |reason: String| BenchError::Unreachable { server: server.to_owned(), reason };
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(server)).await;
    let stream = connected
        .map_err(|_| unreachable(format!("no connection within {CONNECT_TIMEOUT:?}")))?
        .map_err(|error| unreachable(error.to_string()))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn bounded(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_shown_as_their_protocols_name_them() {
        let codes = [ErrorCode::Grpc(8), ErrorCode::Grpc(99), ErrorCode::Http(429), ErrorCode::Timeout];
        let shown = codes.map(|code| code.to_string());
        assert_eq!(shown, ["RESOURCE_EXHAUSTED", "no such status", "429", "timeout"]);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(bounded("ü".repeat(300)).len(), 512);
        assert_eq!(bounded(format!("x{}", "ü".repeat(300))).len(), 511);
    }
}
