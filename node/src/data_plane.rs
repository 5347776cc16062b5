//! The data plane: one current-thread runtime per core, each on its own thread,
//! and for each port an acceptor that deals connections out in turn; so are the
//! connections on which peers forward predictions. Nothing but predictions runs
//! here, so a saturated data plane delays no heartbeat.
//!
//! It stops in three steps, so that a client sees refused connections and never
//! a broken request: the acceptors take what has connected already and close
//! their ports; for a moment, everything goes on, and HTTP/1.1 answers say
//! `Connection: close`; then connections end once their requests are answered.

mod connection;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt;
use starling_actors::inference::local::core;
use starling_actors::inference::serve::PeerInferenceService;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use connection::{Port, Wire};

use connection::{Dealt, serve_connection};

use crate::config::Settings;

/// Accepted connections that may wait for one core.
const CONNECTIONS_WAITING_MAX: usize = 256;
/// After an accept that failed (too many open files, most likely).
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// A connection on which nothing happens is probed after this time, and so often.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// A connection ends once its client has taken nothing of what it is sent for so
/// long, or has answered no probe.
const NOTHING_TAKEN_MAX: Duration = Duration::from_secs(90);
/// How long everything goes on after the ports are closed.
const LAME_DUCK: Duration = Duration::from_millis(500);

/// How many runtimes the data plane has: as configured, else one per core.
pub(crate) fn thread_count(settings: &Settings) -> usize {
    match usize::try_from(settings.data_plane_threads) {
        Ok(given) if given > 0 => given,
        _ => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
    }
}

/// Connections on which peers forward predictions, and who answers there.
pub(crate) struct Forwarding {
    pub(crate) connections: mpsc::Receiver<TcpStream>,
    pub(crate) service: PeerInferenceService,
}

/// The running data plane.
pub(crate) struct DataPlane {
    cores: Vec<JoinHandle<()>>,
    acceptors: JoinSet<()>,
    close_ports: CancellationToken,
    end_connections: CancellationToken,
}

impl DataPlane {
    /// Starts `threads` runtimes, listens on `ports` and takes what peers
    /// forward. Acceptors run on `control`.
    pub(crate) fn start(
        threads: usize,
        ports: Vec<(TcpListener, Arc<Port>)>,
        forwarding: Option<Forwarding>,
        control: &Handle,
    ) -> io::Result<Self> {
        let end_connections = CancellationToken::new();
        let mut senders = Vec::with_capacity(threads);
        let mut cores = Vec::with_capacity(threads);
        for index in 0..threads {
            let (sender, receiver) = mpsc::channel(CONNECTIONS_WAITING_MAX);
            cores.push(start_core(index, receiver, end_connections.clone())?);
            senders.push(sender);
        }
        let close_ports = CancellationToken::new();
        let mut acceptors = JoinSet::new();
        if let Some(forwarding) = forwarding {
            // In turns of their own, so that clients are dealt out evenly.
            let dealer = Dealer::new(senders.clone());
            acceptors.spawn_on(take_forwarding(forwarding, dealer, close_ports.clone()), control);
        }
        let dealer = Arc::new(Dealer::new(senders));
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
        let dealer = Arc::new(Dealer::new(vec![sender]));
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
        let joined = join(self.cores);
        if tokio::time::timeout(grace, joined).await.is_err() {
            tracing::warn!(?grace, "requests were still running after the grace period and are cut off");
        }
    }
}

/// Resolves when all threads have ended. A thread of its own waits for them, not
/// one of the runtime's, which the runtime would wait for in its turn.
fn join(cores: Vec<JoinHandle<()>>) -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        for core in cores {
            if core.join().is_err() {
                tracing::error!("a thread of the data plane has panicked");
            }
        }
        // Whoever waited may have given up.
        let _ = sender.send(());
    });
    receiver
}

/// A connection on its way to its core.
enum Connection {
    Client(Dealt),
    Peer(TcpStream, PeerInferenceService),
}

/// Deals connections out in turn.
struct Dealer {
    cores: Vec<mpsc::Sender<Connection>>,
    next: AtomicUsize,
}

impl Dealer {
    fn new(cores: Vec<mpsc::Sender<Connection>>) -> Self {
        Self { cores, next: AtomicUsize::new(0) }
    }

    async fn deal(&self, connection: Connection) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.cores.len();
        if self.cores[turn].send(connection).await.is_err() {
            tracing::error!(core = turn, "a thread of the data plane is gone; the connection is dropped");
        }
    }
}

/// Those that come once the ports are closed are not taken: peers ask by calls then.
async fn take_forwarding(forwarding: Forwarding, dealer: Dealer, close: CancellationToken) {
    let Forwarding { mut connections, service } = forwarding;
    loop {
        let taken = tokio::select! {
            taken = connections.recv() => taken,
            () = close.cancelled() => return,
        };
        let Some(stream) = taken else { return };
        dealer.deal(Connection::Peer(stream, service.clone())).await;
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
        notice_silence(&stream)?;
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
        dealer.deal(Connection::Client(Dealt { stream, peer, port: port.clone(), seat })).await;
    }
}

/// A client whose machine is gone sends no farewell, and one that never reads
/// takes nothing: neither holds its connection for ever.
fn notice_silence(stream: &tokio::net::TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_INTERVAL)?;
    sockopt::set_tcp_user_timeout(stream, NOTHING_TAKEN_MAX.as_millis() as u32)?;
    Ok(())
}

fn start_core(
    index: usize,
    connections: mpsc::Receiver<Connection>,
    end: CancellationToken,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(format!("serve-{index}")).spawn(move || {
        core::enter(index);
        runtime.block_on(serve_core(connections, end));
    })
}

/// Ends once no acceptor is left and every connection has ended.
async fn serve_core(mut connections: mpsc::Receiver<Connection>, end: CancellationToken) {
    let open = TaskTracker::new();
    while let Some(connection) = connections.recv().await {
        match connection {
            Connection::Client(dealt) => open.spawn(serve_connection(dealt, end.clone())),
            Connection::Peer(stream, service) => open.spawn(service.serve_forwarding(stream, end.clone())),
        };
    }
    open.close();
    open.wait().await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::io::{Read, Write};

    use axum::Router;
    use axum::routing::get;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::config::{Given, Settings, resolve};
    use crate::telemetry::Metrics;

    const WAIT_MAX: Duration = Duration::from_secs(20);

    fn settings(flags: &[(&'static str, &str)]) -> Settings {
        let flags = flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        resolve(&Given { flags, ..Given::default() }).unwrap()
    }

    fn start(router: Router, settings: &Settings) -> (DataPlane, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Metrics::new().unwrap();
        let port = Port::new("test", Wire::Http1OrHttp2, router, None, settings, &metrics);
        (DataPlane::start(2, vec![(listener, port)], None, &Handle::current()).unwrap(), address)
    }

    fn ask(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        stream
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_request_that_runs_when_the_node_stops_is_answered_and_new_ones_are_refused() {
        let (arrived, may_answer) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (in_handler, answer) = (arrived.clone(), may_answer.clone());
        let handler = move || async move {
            in_handler.add_permits(1);
            answer.acquire().await.unwrap().forget();
            "answered"
        };
        let (plane, address) = start(Router::new().route("/", get(handler)), &settings(&[]));
        let mut stream = ask(address);
        arrived.acquire().await.unwrap().forget();

        let stopped = tokio::spawn(plane.stop(WAIT_MAX));
        let closed = tokio::time::timeout(WAIT_MAX, async {
            while TcpStream::connect(address).is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        closed.await.expect("the port must close");
        may_answer.add_permits(1);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("answered"), "{answer}");
        tokio::time::timeout(WAIT_MAX, stopped).await.expect("it must stop").unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_request_that_never_ends_is_cut_off_after_the_grace_period() {
        let arrived = Arc::new(Semaphore::new(0));
        let in_handler = arrived.clone();
        let handler = move || async move {
            in_handler.add_permits(1);
            std::future::pending::<&'static str>().await
        };
        let (plane, address) = start(Router::new().route("/", get(handler)), &settings(&[]));
        let _stream = ask(address);
        arrived.acquire().await.unwrap().forget();
        let stopped = plane.stop(Duration::from_millis(50));
        tokio::time::timeout(WAIT_MAX, stopped).await.expect("it must stop all the same");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_connection_over_the_limit_is_closed_at_once() {
        let router = Router::new().route("/", get(|| async { "answered" }));
        let (_plane, address) = start(router, &settings(&[("max_connections", "1")]));
        let mut first = ask(address);
        let mut head = [0; 12];
        first.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        let mut second = ask(address);
        let mut rest = Vec::new();
        // Closed or reset, and in either case not served.
        let _ = second.read_to_end(&mut rest);
        assert!(rest.is_empty());
    }
}
