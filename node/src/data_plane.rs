//! The data plane: one current-thread runtime per core, each on its own thread,
//! and for each port an acceptor that deals connections out in turn. Nothing
//! but predictions runs here, so a saturated data plane delays no heartbeat.
//!
//! It stops in three steps, so that a client sees refused connections and never
//! a broken request: the acceptors take what has connected already and close
//! their ports; for a moment, everything goes on, and HTTP/1.1 answers say
//! `Connection: close`; then connections end once their requests are answered.

mod connection;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use connection::{Port, Wire};

use connection::{Dealt, serve_connection};

/// Accepted connections that may wait for one core.
const CONNECTIONS_WAITING_MAX: usize = 256;
/// After an accept that failed (too many open files, most likely).
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// How long everything goes on after the ports are closed.
const LAME_DUCK: Duration = Duration::from_millis(500);

/// The running data plane.
pub(crate) struct DataPlane {
    cores: Vec<JoinHandle<()>>,
    acceptors: JoinSet<()>,
    close_ports: CancellationToken,
    end_connections: CancellationToken,
}

impl DataPlane {
    /// Starts `threads` runtimes (0: one per core) and listens on `ports`.
    /// Acceptors run on `control`.
    pub(crate) fn start(
        threads: usize,
        ports: Vec<(TcpListener, Arc<Port>)>,
        control: &Handle,
    ) -> io::Result<Self> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            given => given,
        };
        let end_connections = CancellationToken::new();
        let mut senders = Vec::with_capacity(threads);
        let mut cores = Vec::with_capacity(threads);
        for index in 0..threads {
            let (sender, receiver) = mpsc::channel(CONNECTIONS_WAITING_MAX);
            cores.push(start_core(index, receiver, end_connections.clone())?);
            senders.push(sender);
        }
        let close_ports = CancellationToken::new();
        let dealer = Arc::new(Dealer { cores: senders, next: AtomicUsize::new(0) });
        let mut acceptors = JoinSet::new();
        let _entered = control.enter();
        for (listener, port) in ports {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let acceptor = accept(listener, port, dealer.clone(), close_ports.clone());
            acceptors.spawn_on(acceptor, control);
        }
        Ok(Self { cores, acceptors, close_ports, end_connections })
    }

    /// Serves one port on the control runtime itself, apart from predictions.
    pub(crate) fn start_on_control(
        listener: TcpListener,
        port: Arc<Port>,
        control: &Handle,
    ) -> io::Result<Self> {
        let end_connections = CancellationToken::new();
        let close_ports = CancellationToken::new();
        let (sender, receiver) = mpsc::channel(CONNECTIONS_WAITING_MAX);
        let dealer = Arc::new(Dealer { cores: vec![sender], next: AtomicUsize::new(0) });
        let _entered = control.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut acceptors = JoinSet::new();
        acceptors.spawn_on(accept(listener, port, dealer, close_ports.clone()), control);
        // It ends by itself once its acceptor has.
        control.spawn(serve_core(receiver, end_connections.clone()));
        Ok(Self { cores: Vec::new(), acceptors, close_ports, end_connections })
    }

    /// Stops, in the three steps that the file's head names. What is not
    /// answered after `grace` is cut off.
    pub(crate) async fn stop(mut self, grace: Duration) {
        self.close_ports.cancel();
        while self.acceptors.join_next().await.is_some() {}
        tokio::time::sleep(LAME_DUCK.min(grace / 2)).await;
        self.end_connections.cancel();
        let cores = self.cores;
        let joined = tokio::task::spawn_blocking(move || {
            for core in cores {
                if core.join().is_err() {
                    tracing::error!("a thread of the data plane has panicked");
                }
            }
        });
        if tokio::time::timeout(grace, joined).await.is_err() {
            tracing::warn!(?grace, "requests were still running after the grace period and are cut off");
        }
    }
}

/// Deals connections out in turn.
struct Dealer {
    cores: Vec<mpsc::Sender<Dealt>>,
    next: AtomicUsize,
}

impl Dealer {
    async fn deal(&self, connection: Dealt) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.cores.len();
        if self.cores[turn].send(connection).await.is_err() {
            tracing::error!(core = turn, "a thread of the data plane is gone; the connection is dropped");
        }
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    port: Arc<Port>,
    dealer: Arc<Dealer>,
    close: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = close.cancelled() => break,
        };
        take(accepted, &port, &dealer).await;
    }
    // Clients that have connected already would see a reset; serve them.
    while let Some(accepted) = waiting(&listener).await {
        take(accepted, &port, &dealer).await;
    }
}

/// A connection that waits to be accepted now.
async fn waiting(
    listener: &tokio::net::TcpListener,
) -> Option<io::Result<(tokio::net::TcpStream, SocketAddr)>> {
    tokio::time::timeout(Duration::from_millis(1), listener.accept()).await.ok()
}

async fn take(accepted: io::Result<(tokio::net::TcpStream, SocketAddr)>, port: &Arc<Port>, dealer: &Dealer) {
    let connection = accepted.and_then(|(stream, peer)| {
        stream.set_nodelay(true)?;
        Ok((stream.into_std()?, peer))
    });
    let (stream, peer) = match connection {
        Ok(connection) => connection,
        Err(error) => {
            tracing::warn!(port = port.name, %error, "a connection was not accepted");
            tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            return;
        }
    };
    if let Some(seat) = port.take_seat() {
        dealer.deal(Dealt { stream, peer, port: port.clone(), seat }).await;
    }
}

fn start_core(
    index: usize,
    connections: mpsc::Receiver<Dealt>,
    end: CancellationToken,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name(format!("serve-{index}"))
        .spawn(move || runtime.block_on(serve_core(connections, end)))
}

/// Ends once no acceptor is left and every connection has ended.
async fn serve_core(mut connections: mpsc::Receiver<Dealt>, end: CancellationToken) {
    let open = TaskTracker::new();
    while let Some(connection) = connections.recv().await {
        open.spawn(serve_connection(connection, end.clone()));
    }
    open.close();
    open.wait().await;
}
