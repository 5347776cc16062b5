//! HTTP/1.1 requests, one at a time on a connection.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;

use super::{ErrorCode, Failure, RECONNECT_PAUSE, bounded, dial};
use crate::BenchError;
use crate::payload::PreparedRequest;

/// A connection of one client.
pub(crate) struct RestConnection {
    server: String,
    /// `None` once it broke.
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl RestConnection {
    /// Dials, on the runtime that will drive the connection.
    pub(crate) async fn connect(server: &str) -> Result<Self, BenchError> {
        let sender = Some(handshake(server).await?);
        Ok(Self { server: server.to_owned(), sender })
    }

    /// To be dialled again before the next request.
    pub(super) fn give_up(&mut self) {
        self.sender = None;
    }

    pub(super) async fn call(&mut self, request: &PreparedRequest) -> Result<(), Failure> {
        // Taken, so that a call that is given up leaves none behind.
        let sender = match self.sender.take() {
            Some(sender) => sender,
            None => self.dial_again().await?,
        };
        let (sender, outcome) = exchange(sender, request).await?;
        self.sender = Some(sender);
        outcome
    }

    async fn dial_again(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        tokio::time::sleep(RECONNECT_PAUSE).await;
        handshake(&self.server).await.map_err(Failure::connection)
    }
}

async fn handshake(server: &str) -> Result<SendRequest<Full<Bytes>>, BenchError> {
    let stream = TokioIo::new(dial(server).await?);
    let (sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(|error| BenchError::Unreachable { server: server.to_owned(), reason: error.to_string() })?;
    tokio::spawn(async move {
        // Whoever sends on it learns of its end.
        let _ = connection.await;
    });
    Ok(sender)
}

type Exchanged = (SendRequest<Full<Bytes>>, Result<(), Failure>);

/// Errors: the connection is of no use any more.
async fn exchange(
    mut sender: SendRequest<Full<Bytes>>,
    request: &PreparedRequest,
) -> Result<Exchanged, Failure> {
    sender.ready().await.map_err(Failure::connection)?;
    let body = Full::new(request.body.clone());
    let answer =
        sender.send_request(request.head.clone().map(|()| body)).await.map_err(Failure::connection)?;
    let status = answer.status();
    let mut body = answer.into_body();
    if status.is_success() {
        while let Some(frame) = body.frame().await {
            frame.map_err(Failure::connection)?;
        }
        return Ok((sender, Ok(())));
    }
    let text = body.collect().await.map_err(Failure::connection)?.to_bytes();
    let message = bounded(String::from_utf8_lossy(&text).into_owned());
    Ok((sender, Err(Failure { code: ErrorCode::Http(status.as_u16()), message })))
}
