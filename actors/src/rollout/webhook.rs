//! One POST to a webhook, bounded in time and size.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use thiserror::Error;

const TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_CONNECTIONS_MAX: usize = 1;

/// Sends. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks {
    client: Client<HttpConnector, Full<Bytes>>,
}

/// Why a webhook was not told.
#[derive(Debug, Error)]
pub enum NotTold {
    /// Nothing that could be asked.
    #[error("'{url}' is no http:// address: {reason}")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No answer in time.
    #[error("no answer within {TIMEOUT:?}")]
    TimedOut,
    /// No connection, or a broken one.
    #[error("{0}")]
    Unreachable(String),
    /// An answer that says no.
    #[error("it answered with {0}")]
    Refused(hyper::StatusCode),
}

impl NotTold {
    /// Whether the same again might be taken.
    pub fn is_worth_another_try(&self) -> bool {
        match self {
            Self::Address { .. } => false,
            Self::TimedOut | Self::Unreachable(_) => true,
            Self::Refused(status) => {
                status.is_server_error()
                    || matches!(
                        *status,
                        hyper::StatusCode::REQUEST_TIMEOUT | hyper::StatusCode::TOO_MANY_REQUESTS
                    )
            }
        }
    }
}

impl Default for Webhooks {
    fn default() -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(HttpConnector::new());
        Self { client }
    }
}

impl Webhooks {
    /// Posts a JSON body; anything but a status of 200 to 299 in time is an error.
    pub async fn post(&self, url: &str, body: &str) -> Result<(), NotTold> {
        let address = |reason: String| NotTold::Address { url: url.to_owned(), reason };
        let uri: Uri =
            url.parse().map_err(|error: hyper::http::uri::InvalidUri| address(error.to_string()))?;
        if uri.scheme_str() != Some("http") {
            return Err(address("only http:// is spoken".to_owned()));
        }
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, "starling")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|error| address(error.to_string()))?;
        let answer = tokio::time::timeout(TIMEOUT, self.client.request(request)).await;
        let answer = answer
            .map_err(|_| NotTold::TimedOut)?
            .map_err(|error| NotTold::Unreachable(error.to_string()))?;
        if answer.status().is_success() { Ok(()) } else { Err(NotTold::Refused(answer.status())) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with this status line, and gives what it was sent.
    async fn receiver(status: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut received = String::new();
            let mut buffer = [0; 4_096];
            while !received.contains("{\"id\":7}") {
                let read = stream.read(&mut buffer).await.unwrap();
                received.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
            }
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            received
        });
        (url, task)
    }

    #[tokio::test]
    async fn the_body_arrives_as_json_by_post() {
        let (url, task) = receiver("204 No Content").await;
        Webhooks::default().post(&url, "{\"id\":7}").await.unwrap();
        let received = task.await.unwrap();
        assert!(received.starts_with("POST /hook HTTP/1.1"), "{received}");
        assert!(received.contains("content-type: application/json"), "{received}");
    }

    #[tokio::test]
    async fn what_says_no_is_asked_again_only_if_that_could_help() {
        for (status, again) in [("500 Internal Server Error", true), ("404 Not Found", false)] {
            let (url, task) = receiver(status).await;
            let error = Webhooks::default().post(&url, "{\"id\":7}").await.unwrap_err();
            assert_eq!(error.is_worth_another_try(), again, "{status}");
            task.await.unwrap();
        }
        let error = Webhooks::default().post("https://example.invalid/", "{}").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "'https://example.invalid/' is no http:// address: only http:// is spoken"
        );
    }
}
