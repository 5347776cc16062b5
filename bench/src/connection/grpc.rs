//! Unary gRPC calls straight on HTTP/2: the request is one prepared frame, and of
//! the answer only the status is looked at.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, StatusCode};

use super::{ErrorCode, Failure, RECONNECT_PAUSE, bounded, dial};
use crate::BenchError;
use crate::payload::PreparedRequest;

/// So large that an answer never waits for the reader.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// A connection that several clients share. Clones are the same connection.
#[derive(Clone)]
pub(crate) struct GrpcConnection {
    server: Arc<str>,
    sender: Arc<Mutex<Numbered>>,
    dialling: Arc<tokio::sync::Mutex<()>>,
}

/// The number tells a connection from the one that replaced it.
#[derive(Clone)]
struct Numbered {
    number: u64,
    sender: SendRequest<Bytes>,
}

impl GrpcConnection {
    /// Dials, on the runtime that will drive the connection.
    pub(crate) async fn connect(server: &str) -> Result<Self, BenchError> {
        let numbered = Numbered { number: 0, sender: handshake(server).await? };
        Ok(Self { server: server.into(), sender: Arc::new(Mutex::new(numbered)), dialling: Arc::default() })
    }

    pub(super) async fn call(&self, request: &PreparedRequest) -> Result<(), Failure> {
        let current = self.current();
        let number = current.number;
        let outcome = exchange(current.sender, request).await;
        if outcome.as_ref().is_err_and(|failure| failure.code == ErrorCode::Connection) {
            self.replace(number).await;
        }
        outcome
    }

    fn current(&self) -> Numbered {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Of all that share the broken connection, one dials.
    async fn replace(&self, broken: u64) {
        let _dialling = self.dialling.lock().await;
        if self.current().number != broken {
            return;
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
        // Where that fails the next request fails too, and dials again.
        if let Ok(sender) = handshake(&self.server).await {
            let numbered = Numbered { number: broken + 1, sender };
            *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = numbered;
        }
    }
}

async fn handshake(server: &str) -> Result<SendRequest<Bytes>, BenchError> {
    let stream = dial(server).await?;
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .enable_push(false);
    let (sender, connection) = builder
        .handshake(stream)
        .await
        .map_err(|error| BenchError::Unreachable { server: server.to_owned(), reason: error.to_string() })?;
    tokio::spawn(async move {
        // Whoever sends on it learns of its end.
        let _ = connection.await;
    });
    Ok(sender)
}

async fn exchange(sender: SendRequest<Bytes>, request: &PreparedRequest) -> Result<(), Failure> {
    let mut sender = sender.ready().await.map_err(failure)?;
    let (answer, mut body) = sender.send_request(request.head.clone(), false).map_err(failure)?;
    body.send_data(request.body.clone(), true).map_err(failure)?;
    let answer = answer.await.map_err(failure)?;
    if answer.status() != StatusCode::OK {
        let code = ErrorCode::Http(answer.status().as_u16());
        return Err(Failure { code, message: format!("HTTP {}", answer.status()) });
    }
    if let Some(outcome) = status_in(answer.headers()) {
        return outcome;
    }
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        let data = data.map_err(failure)?;
        body.flow_control().release_capacity(data.len()).map_err(failure)?;
    }
    let trailers = body.trailers().await.map_err(failure)?.unwrap_or_default();
    status_in(&trailers).unwrap_or_else(|| {
        Err(Failure { code: ErrorCode::Grpc(2), message: "the answer has no grpc-status".into() })
    })
}

fn failure(error: h2::Error) -> Failure {
    if error.is_reset() {
        return Failure { code: ErrorCode::Reset, message: bounded(error.to_string()) };
    }
    Failure::connection(error)
}

fn status_in(headers: &HeaderMap) -> Option<Result<(), Failure>> {
    let status = headers.get("grpc-status")?;
    if status.as_bytes() == b"0" {
        return Some(Ok(()));
    }
    let number = status.to_str().ok().and_then(|number| number.parse().ok()).unwrap_or(2);
    // tonic decodes the percent signs.
    let message = tonic::Status::from_header_map(headers).map(|status| status.message().to_owned());
    Some(Err(Failure { code: ErrorCode::Grpc(number), message: bounded(message.unwrap_or_default()) }))
}
