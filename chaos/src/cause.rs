//! Why a call did not succeed, as far as its caller can tell.

use std::error::Error;
use std::fmt;
use std::io;

use tonic::{Code, Status};

/// The cause of a retry or a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Nobody listens at the address: the request was never sent.
    Refused,
    /// The connection was closing before the request was written: it was never
    /// sent, and goes out again on a new connection to the same node.
    Unsent,
    /// The connection broke with the request in flight.
    Broken,
    /// No answer in time.
    TimedOut,
    /// The node answered with an error; the code as a number.
    Answered(i32),
}

impl Cause {
    /// Of a connection that could not be made.
    pub fn of_connect(error: &(dyn Error + 'static)) -> Self {
        for source in chain(error) {
            if let Some(error) = source.downcast_ref::<io::Error>() {
                return match error.kind() {
                    io::ErrorKind::TimedOut => Self::TimedOut,
                    io::ErrorKind::ConnectionRefused => Self::Refused,
                    _ => Self::Broken,
                };
            }
        }
        Self::TimedOut
    }

    /// Of a call on a connection that stood.
    pub fn of_call(status: &Status) -> Self {
        let Some(source) = status.source() else {
            return Self::Answered(status.code() as i32);
        };
        for source in chain(source) {
            if let Some(error) = source.downcast_ref::<hyper::Error>()
                && (error.is_canceled() || error.is_closed())
            {
                return Self::Unsent;
            }
            if let Some(error) = source.downcast_ref::<io::Error>()
                && error.kind() == io::ErrorKind::ConnectionRefused
            {
                return Self::Refused;
            }
        }
        match status.code() {
            Code::DeadlineExceeded => Self::TimedOut,
            _ => Self::Broken,
        }
    }

    /// Whether the same request may succeed elsewhere.
    pub fn may_pass(self) -> bool {
        match self {
            Self::Refused | Self::Unsent | Self::Broken | Self::TimedOut => true,
            Self::Answered(code) => matches!(Code::from(code), Code::Unavailable | Code::ResourceExhausted),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => out.write_str("connection refused"),
            Self::Unsent => out.write_str("connection closed before sending"),
            Self::Broken => out.write_str("connection broke in flight"),
            Self::TimedOut => out.write_str("no answer in time"),
            Self::Answered(code) => write!(out, "answered {:?}", Code::from(*code)),
        }
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn nobody_listening_is_a_refused_connection() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{free}")).unwrap();
        let error = endpoint.connect().await.unwrap_err();
        assert_eq!(Cause::of_connect(&error), Cause::Refused);
    }

    #[test]
    fn an_error_that_the_server_sent_is_an_answer() {
        let status = Status::unavailable("draining");
        assert_eq!(Cause::of_call(&status).to_string(), "answered Unavailable");
        assert!(Cause::of_call(&status).may_pass());
        assert!(!Cause::of_call(&Status::invalid_argument("shape")).may_pass());
    }
}
