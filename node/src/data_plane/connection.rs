//! One connection: HTTP/1.1 and HTTP/2 on a router, until the client leaves or
//! the node stops.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use prometheus::IntGauge;
use starling_actors::inference::local::core::ReadRequest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::config::Settings;
use crate::servers::{AnswerBody, DirectPredictions, Peer, routed};
use crate::telemetry::Metrics;

/// A request's head may have this many bytes; room for cookies and tokens.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// Bytes of request body that may be on their way per stream and connection.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// An idle HTTP/2 connection is probed so often.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(60);
/// A probe that is not answered for so long ends the connection.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// gRPC.
    Http2,
    /// Whichever the client begins with.
    Http1OrHttp2,
}

/// One port: what is served there, and how many may connect.
pub(crate) struct Port {
    /// For metrics and logs.
    pub(crate) name: &'static str,
    router: Router,
    /// The short way of predictions, where there is one.
    direct: Option<DirectPredictions>,
    builder: Builder<TokioExecutor>,
    seats: Arc<Semaphore>,
    connections: IntGauge,
    refused: prometheus::IntCounter,
}

/// An accepted connection on its way to its core.
pub(super) struct Dealt {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) port: Arc<Port>,
    pub(super) seat: Seat,
}

/// One of the connections that a port may have; gives it back when dropped.
pub(super) struct Seat {
    connections: IntGauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.dec();
    }
}

impl Port {
    /// A port that serves `direct`, and what that leaves `router`, under the limits of `settings`.
    pub(crate) fn new(
        name: &'static str,
        wire: Wire,
        router: Router,
        direct: Option<DirectPredictions>,
        settings: &Settings,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let seats = usize::try_from(settings.max_connections).unwrap_or(usize::MAX);
        Arc::new(Self {
            name,
            router,
            direct,
            builder: builder(wire, settings),
            seats: Arc::new(Semaphore::new(seats.min(Semaphore::MAX_PERMITS))),
            connections: metrics.connections.with_label_values(&[name]),
            refused: metrics.connections_refused.with_label_values(&[name]),
        })
    }

    /// `None`: there are too many connections; counted.
    pub(super) fn take_seat(&self) -> Option<Seat> {
        let Ok(permit) = self.seats.clone().try_acquire_owned() else {
            self.refused.inc();
            return None;
        };
        self.connections.inc();
        Some(Seat { connections: self.connections.clone(), _permit: permit })
    }

    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<AnswerBody> {
        let mut request = match &self.direct {
            None => request.map(Body::new),
            Some(direct) => match direct.answer(request, peer).await {
                Ok(answer) => return answer,
                Err(request) => *request,
            },
        };
        request.extensions_mut().insert(peer);
        // A router is always ready.
        routed(Box::pin(self.router.clone().call(request)).await)
    }
}

fn builder(wire: Wire, settings: &Settings) -> Builder<TokioExecutor> {
    let streams = u32::try_from(settings.max_concurrent_streams).unwrap_or(u32::MAX);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(settings.header_read_timeout);
    // Clients' pings are answered however often they come: no ENHANCE_YOUR_CALM.
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    match wire {
        Wire::Http2 => builder.http2_only(),
        Wire::Http1OrHttp2 => builder,
    }
}

/// Serves until the client leaves or, once `end` is cancelled, until what it
/// has asked is answered.
pub(super) async fn serve_connection(connection: Dealt, end: CancellationToken) {
    let Dealt { stream, peer, port, seat } = connection;
    let stream = match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%peer, %error, "a connection was lost before it was served"),
    };
    let served = port.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        // Counted here, as soon as it is read, and not when its future first runs.
        let read = ReadRequest::begin();
        let port = served.clone();
        // Boxed, because hyper moves it from hand to hand until it runs.
        Box::pin(async move {
            let _read = read;
            Ok::<_, Infallible>(port.answer(request, Peer(peer)).await)
        })
    });
    let connection = port.builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        // Clients that go away are everyday life.
        tracing::debug!(port = port.name, %peer, %error, "a connection ended badly");
    }
    drop(seat);
}
