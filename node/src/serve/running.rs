//! A node from its open ports to its end.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use starling_actors::feedback::{FeedbackDesk, PeerFeedbackService};
use starling_actors::inference::serve::PeerInferenceService;
use starling_actors::inference::{Inference, OnnxRuntime};
use starling_raft::flock::{Flock, FlockConfig};
use starling_raft::state::Addresses;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::conditions::{feedback_config, flock_config, inference_config, log_store_options};
use super::listen::Listeners;
use super::stop::{Stopping, stop};
use super::{CannotStart, grace};
use crate::config::Settings;
use crate::data_plane::{self, DataPlane, Forwarding, Port, Wire};
use crate::ready_file::{self, ReadyFile};
use crate::servers::{self, Node, PeerRolloutService, Security};
use crate::telemetry::{Gpus, Metrics};

/// Connections of forwarded predictions that wait for the data plane. Until it
/// has started, peers that find no place ask by calls.
const FORWARDING_CONNECTIONS_WAITING_MAX: usize = 64;
/// How often the node asks itself whether it can answer.
const READINESS_INTERVAL: Duration = Duration::from_millis(50);

/// Runs until a signal, and stops in order; ends the process at once if the
/// node has died inside.
pub(super) async fn run(
    settings: Settings,
    listeners: Listeners,
    onnx: OnnxRuntime,
    gpus: Option<Gpus>,
) -> Result<ExitCode, CannotStart> {
    let mut stop_signal = Stopping::listen()?;
    let metrics = Metrics::new().map_err(|error| CannotStart(format!("metrics: {error}")))?;
    if let Some(gpus) = gpus {
        let registered = metrics.registry.register(Box::new(gpus));
        registered.map_err(|error| CannotStart(format!("metrics of the GPUs: {error}")))?;
    }
    let Listeners { rest, grpc, metrics: metrics_listener, peer, addresses } = listeners;
    let (door, connections) = mpsc::channel(FORWARDING_CONNECTIONS_WAITING_MAX);
    let flock_config = flock_config(&settings, peer, addresses.clone(), door)?;
    let security = Security::new(settings.insecure);
    let node = Node::new(settings, metrics, onnx, security, Handle::current());

    let (health, health_service) = servers::health_service().await;
    let settings = &node.settings;
    let port = |name, wire, (router, direct)| Port::new(name, wire, router, direct, settings, &node.metrics);
    let with_direct = |(router, direct)| (router, Some(direct));
    let grpc_port = port("grpc", Wire::Http2, with_direct(servers::grpc(&node, health_service)));
    let rest_port = port("rest", Wire::Http1OrHttp2, with_direct(servers::rest(&node)));
    let metrics_port = port("metrics", Wire::Http1OrHttp2, (servers::metrics_router(&node), None));
    let beside = DataPlane::start_on_control(metrics_listener, metrics_port, &node.control)
        .map_err(|error| CannotStart(format!("the metrics server cannot be started: {error}")))?;

    let announcer = Announcer { file: settings.ready_file.clone(), addresses };
    announcer.check_writable()?;
    let service = PeerInferenceService::default();
    let joined = tokio::select! {
        joined = join(&node, flock_config, &service, &announcer) => joined,
        () = stop_signal.told() => {
            tracing::info!("told to stop before this node has joined a cluster");
            return Ok(ExitCode::SUCCESS);
        }
    };
    if let Err(failure) = joined {
        return failure;
    }
    let threads = data_plane::thread_count(settings);
    let client_ports = vec![(grpc.open()?, grpc_port), (rest.open()?, rest_port)];
    let forwarding = Forwarding { connections, service };
    let plane = DataPlane::start(threads, client_ports, Some(forwarding), &node.control)
        .map_err(|error| CannotStart(format!("the data plane cannot be started: {error}")))?;
    tokio::spawn(follow_readiness(node.clone(), announcer));
    tokio::spawn(servers::follow_readiness(health.clone(), node.clone()));

    tokio::select! {
        () = stop_signal.told() => {}
        never = end_if_fatal(&node) => match never {},
    }
    tracing::info!(grace = ?grace(&node.settings), "told to stop; running requests may finish");
    tokio::select! {
        () = stop(&node, plane, beside, health) => Ok(ExitCode::SUCCESS),
        () = stop_signal.told() => {
            tracing::warn!("told to stop twice; ending at once");
            Ok(ExitCode::from(crate::exit::FAILED))
        }
    }
}

/// Joins the flock, starts inference, and lets the handlers reach both.
async fn join(
    node: &Arc<Node>,
    config: FlockConfig,
    peer_service: &PeerInferenceService,
    announcer: &Announcer,
) -> Result<(), Result<ExitCode, CannotStart>> {
    let on_listening = || announcer.announce(false, None);
    let log = log_store_options(&node.settings, &config);
    let feedback_service = PeerFeedbackService::default();
    let peer_routes = peer_service
        .routes()
        .add_service(PeerRolloutService::server(node.clone()))
        .add_service(feedback_service.server());
    let flock = Flock::start_with_log(config, log, peer_routes, on_listening)
        .await
        .map_err(|error| Err(CannotStart(error.to_string())))?;
    let node_id = flock.consensus.node_id();
    let (_, onnx_runtime) = node.onnx.describe();
    tracing::info!(
        %node_id,
        cluster_id = %flock.consensus.cluster_id(),
        boot = flock.consensus.boot(),
        grpc = announcer.addresses.grpc,
        rest = announcer.addresses.rest,
        metrics = announcer.addresses.metrics,
        peer = announcer.addresses.peer,
        onnx_runtime = %onnx_runtime.display(),
        "this node is part of a cluster"
    );
    let config = inference_config(&node.settings);
    let started =
        Inference::start(node.onnx.clone(), &flock, peer_service, config, &node.metrics.registry).await;
    let inference = match started {
        Ok(inference) => inference,
        Err(error) => {
            tracing::error!(%error, "inference cannot be started");
            flock.shutdown(grace(&node.settings)).await;
            return Err(Ok(ExitCode::from(crate::exit::FAILED)));
        }
    };
    let decided = {
        let inference = inference.clone();
        Arc::new(move || inference.decisions_made())
    };
    let config = feedback_config(&node.settings);
    match FeedbackDesk::start(&flock, &feedback_service, decided, config, &node.metrics.registry) {
        Ok(feedback) => {
            node.set_running(flock, inference, feedback);
            Ok(())
        }
        Err(error) => {
            tracing::error!(%error, "feedback cannot be kept");
            inference.shutdown(grace(&node.settings)).await;
            flock.shutdown(grace(&node.settings)).await;
            Err(Ok(ExitCode::from(crate::exit::FAILED)))
        }
    }
}

/// A node whose core has died must not look alive: it ends, and recovers from
/// disk when it is started again.
async fn end_if_fatal(node: &Node) -> std::convert::Infallible {
    if let Ok(running) = node.running()
        && let Some(flock) = running.flock.read().await.as_ref()
    {
        let fatal = flock.fatal().await;
        tracing::error!(reason = %fatal, "this node cannot go on and ends now; it recovers from disk when started again");
        eprintln!("starling: {fatal}");
        std::process::exit(i32::from(crate::exit::FAILED));
    }
    std::future::pending().await
}

async fn follow_readiness(node: Arc<Node>, announcer: Announcer) {
    let node_id = node.running().ok().map(|running| running.consensus.node_id().get());
    let mut ready = node.watch_ready();
    announcer.announce(false, node_id);
    while !node.stopping.is_cancelled() {
        node.update_readiness();
        tell_others(&node).await;
        if ready.has_changed().unwrap_or(false) {
            let ready = *ready.borrow_and_update();
            tracing::info!(ready, "readiness changed");
            announcer.announce(ready, node_id);
        }
        tokio::time::sleep(READINESS_INTERVAL).await;
    }
    announcer.announce(false, node_id);
}

/// So that other nodes prefer the less busy, and leave this one out if it cannot answer.
async fn tell_others(node: &Node) {
    let Ok(running) = node.running() else { return };
    let load = u32::try_from(running.inference.in_flight()).unwrap_or(u32::MAX);
    if let Some(flock) = running.flock.read().await.as_ref() {
        flock.report_condition(load, node.ready());
    }
}

/// Writes the ready file, if one is wanted.
struct Announcer {
    file: Option<PathBuf>,
    addresses: Addresses,
}

impl Announcer {
    fn content(&self, ready: bool, node_id: Option<u64>) -> ReadyFile {
        let Addresses { peer, grpc, rest, metrics } = self.addresses.clone();
        ReadyFile { ready, node_id, rest, grpc, metrics, peer }
    }

    fn announce(&self, ready: bool, node_id: Option<u64>) {
        let Some(file) = &self.file else { return };
        if let Err(error) = ready_file::write(file, &self.content(ready, node_id)) {
            tracing::error!(file = %file.display(), %error, "the ready file cannot be written");
        }
    }

    /// Whoever waits for the file would wait for ever.
    fn check_writable(&self) -> Result<(), CannotStart> {
        let Some(file) = &self.file else { return Ok(()) };
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => std::path::Path::new("."),
        };
        if folder.is_dir() {
            return Ok(());
        }
        Err(CannotStart(format!(
            "ready file {} cannot be written: {} is no directory; make it first",
            file.display(),
            folder.display()
        )))
    }
}
