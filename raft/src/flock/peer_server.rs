//! The server that peers dial: every service of the peer port, behind one gate.

use std::net::TcpListener;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::Server;

use super::peer_door::{ForwardingDoor, sort};
use crate::peer_gate::{OwnIdentity, PeerGate};

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const STREAMS_PER_CONNECTION_MAX: u32 = 8_192;
/// Accepted connections that the server has not taken yet.
const CONNECTIONS_WAITING_MAX: usize = 16;
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// A running server.
pub(super) struct PeerServer {
    stop: oneshot::Sender<()>,
    door: AbortHandle,
    task: JoinHandle<()>,
}

impl PeerServer {
    /// Listens from now on. Connections of forwarded predictions go through
    /// `forwarding`. `on_end` is told if it ends by itself.
    pub(super) fn start(
        listener: TcpListener,
        services: Routes,
        forwarding: Option<ForwardingDoor>,
        own: OwnIdentity,
        on_end: impl FnOnce(String) + Send + 'static,
    ) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (accepted, incoming) = mpsc::channel(CONNECTIONS_WAITING_MAX);
        let door = tokio::spawn(sort(listener, accepted, forwarding)).abort_handle();
        let incoming = ReceiverStream::new(incoming);
        let (stop, stopped) = oneshot::channel::<()>();
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .layer(PeerGate::new(own))
            .add_routes(services);
        let task = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            match server.serve_with_incoming_shutdown(incoming, stopped).await {
                Ok(()) => tracing::debug!("the peer server has ended"),
                Err(error) => on_end(format!("the server on the peer port has ended: {error}")),
            }
        });
        Ok(Self { stop, door, task })
    }

    /// Takes no more calls, and lets those under way end for at most `timeout`.
    pub(super) async fn stop(mut self, timeout: Duration) {
        self.door.abort();
        let _ = self.stop.send(());
        if tokio::time::timeout(timeout, &mut self.task).await.is_err() {
            self.task.abort();
            let _ = self.task.await;
        }
    }
}
