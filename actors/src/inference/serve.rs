//! The way of a request: route, run here or forward, say what was decided.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use starling_proto::admin::Route;
use starling_proto::inference::{
    ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataResponse,
    ModelStatisticsResponse, RepositoryIndexResponse,
};
use starling_raft::consensus::Consensus;
use starling_raft::flock::Flock;
use starling_raft::state::{NodeId, Ordinal, Phase, Principal};
use tokio::sync::Semaphore;

use super::admission::{Admission, Admitted};
use super::decision_ids::DecisionIds;
use super::decision_parameters::{DecisionParameters, boolean_parameter, text_parameter};
use super::forward::{Forwarded, Forwarder, nobody_has_it};
use super::local_versions::LocalVersions;
use super::model_config::{config, index_entry, metadata, statistics_of_none};
use super::peer_service::Backend;
use super::placement_follower::PlacementFollower;
use super::readiness::{ReadinessBoard, follow_peers};
use super::readiness_view::NodeReadiness;
use super::request_metrics::RequestMetrics;
use super::route_traffic::routes_with_traffic;
use super::router::{RouteRequest, Routed, find_model, find_version, route};
use super::routing_feed::RoutingFeed;
use super::routing_table::{RoutedModel, RoutedVersion};
use super::task_keeper::TaskKeeper;
use super::traffic::{CellKey, Ending};
use super::traffic_report::TrafficExchange;
use super::{InferError, OnnxRuntime, VersionHost, ready_controller};

pub use super::peer_service::PeerInferenceService;

/// A ready version that no live node has loaded (its node has just died, or
/// this one has just started) is waited for so long.
const HOLDER_WAIT_MAX: Duration = Duration::from_secs(2);
/// Requests that wait so at once; more are refused.
const HOLDER_WAITERS_MAX: usize = 1_024;
/// A peer may queue a request before it runs it.
const FORWARD_ALLOWANCE: Duration = Duration::from_secs(10);

/// Limits and defaults of this node.
#[derive(Debug, Clone)]
pub struct InferenceConfig {
    /// Requests that may wait per version, where its settings do not say.
    pub max_queue: usize,
    /// After which a run is ended, where its settings do not say.
    pub max_run_time: Duration,
    /// How long `x-starling-min-epoch` may wait.
    pub min_epoch_wait_max: Duration,
    /// How often traffic is reported to the leader.
    pub traffic_report_interval: Duration,
    /// How long a version may take to be fetched and loaded.
    pub load_timeout: Duration,
}

/// What a request says beside its body.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Who asks.
    pub principal: Principal,
    /// When its answer is of no use any more.
    pub deadline: Option<Instant>,
    /// From `x-starling-key`; the request parameter `routing_key` stands in.
    pub routing_key: Option<String>,
    /// From `x-starling-min-epoch`.
    pub min_epoch: Option<u64>,
    /// From `x-starling-quiet` or the request parameter `starling_quiet`.
    pub quiet: bool,
}

/// Inference on this node. Cheap to clone.
#[derive(Clone)]
pub struct Inference {
    core: Arc<Core>,
}

struct Core {
    this_node: NodeId,
    config: InferenceConfig,
    consensus: Consensus,
    host: VersionHost,
    admission: Arc<Admission>,
    decisions: DecisionIds,
    routing: Arc<RoutingFeed>,
    local: Arc<LocalVersions>,
    board: Arc<ReadinessBoard>,
    forwarder: Forwarder,
    traffic: Arc<TrafficExchange>,
    metrics: Arc<RequestMetrics>,
    holder_waiters: Semaphore,
    has_caught_up: AtomicBool,
    tasks: TaskKeeper,
}

impl Inference {
    /// Starts everything: follows the log, loads what is placed here, exchanges
    /// readiness, reports traffic, and on the leader marks versions ready. The
    /// tasks run on the runtime that calls this.
    pub async fn start(
        runtime: OnnxRuntime,
        flock: &Flock,
        peer_service: &PeerInferenceService,
        config: InferenceConfig,
        registry: &prometheus::Registry,
    ) -> Result<Self, InferError> {
        let internal = |error: prometheus::Error| InferError::Internal(format!("metrics: {error}"));
        let metrics = Arc::new(RequestMetrics::register(registry).map_err(internal)?);
        let host = VersionHost::start(runtime, registry).await?;
        let consensus = flock.consensus.clone();
        let peers = flock.peers.clone();
        let this_node = consensus.node_id();
        let routing = Arc::new(RoutingFeed::new(&consensus.applied()));
        let board = Arc::new(ReadinessBoard::new(this_node));
        let core = Core {
            this_node,
            consensus: consensus.clone(),
            host,
            admission: Arc::new(Admission::new(metrics.in_flight.clone())),
            decisions: DecisionIds::new(this_node, consensus.boot()),
            local: Arc::default(),
            forwarder: Forwarder {
                this_node,
                peers: peers.clone(),
                board: Arc::clone(&board),
                attempt_timeout: config.max_run_time + FORWARD_ALLOWANCE,
                outcomes: metrics.forwarded.clone(),
            },
            traffic: Arc::new(TrafficExchange::new(consensus, peers, Arc::clone(&routing))),
            routing,
            board,
            metrics,
            config,
            holder_waiters: Semaphore::new(HOLDER_WAITERS_MAX),
            has_caught_up: AtomicBool::new(false),
            tasks: TaskKeeper::default(),
        };
        let attached = peer_service.attach(Backend {
            this_node,
            admission: Arc::clone(&core.admission),
            local: Arc::clone(&core.local),
            board: Arc::clone(&core.board),
            routing: Arc::clone(&core.routing),
            traffic: Arc::clone(&core.traffic),
        });
        if !attached {
            return Err(InferError::Internal("the peer service already belongs to another inference".into()));
        }
        core.start_tasks(flock);
        Ok(Self { core: Arc::new(core) })
    }

    /// One prediction, from wherever it can be had. Response parameters are set
    /// as the design's section 6 names them. Dropping the future takes the
    /// request out of the queue, here or at the peer.
    pub async fn infer(
        &self,
        request: ModelInferRequest,
        context: RequestContext,
    ) -> Result<ModelInferResponse, InferError> {
        let core = &*self.core;
        let started = Instant::now();
        let (_admitted, routed) = match core.admit_and_route(&request, &context).await {
            Ok(routed) => routed,
            Err(error) => {
                core.metrics.refused(&error);
                return Err(error);
            }
        };
        let tally = Tally::new(core, &routed, started);
        let quiet = context.quiet || boolean_parameter(&request.parameters, "starling_quiet");
        let answer = core.answer(request, &routed, &context).await;
        tally.finish(&answer);
        let (mut response, answered_by) = answer?;
        response.model_version.clone_from(&routed.version.ordinal_text);
        if !quiet {
            DecisionParameters { routed: &routed, answered_by }.write(&mut response.parameters);
        }
        Ok(response)
    }

    /// True once this node can answer: it has caught up, and every version that
    /// a route names is loaded here or ready on a live peer. A node that has
    /// caught up once and then loses its quorum goes on.
    pub fn ready(&self) -> bool {
        let core = &*self.core;
        if core.admission.is_closed() || !core.has_caught_up() {
            return false;
        }
        let view = core.board.view();
        let table = core.routing.table();
        let can_answer = |version: &Arc<RoutedVersion>| !view.holders(version.id).is_empty();
        table.models().all(|model| model.versions_in_route().all(can_answer))
    }

    /// True if this node can answer for the model (and version: label or
    /// ordinal; empty: what the route names).
    pub fn model_ready(&self, model: &str, version: &str) -> Result<bool, InferError> {
        let view = self.core.board.view();
        let table = self.core.routing.table();
        let model = find_model(&table, model)?;
        if !version.is_empty() {
            let version = find_version(model, version)?;
            return Ok(version.version.phase == Phase::Ready && !view.holders(version.id).is_empty());
        }
        let all_held = model.versions_in_route().all(|version| !view.holders(version.id).is_empty());
        Ok(model.route.is_some() && all_held)
    }

    /// The signature, in the protocol's words.
    pub fn model_metadata(&self, model: &str, version: &str) -> Result<ModelMetadataResponse, InferError> {
        let table = self.core.routing.table();
        let (model, version) = described(&table, model, version)?;
        Ok(metadata(model, version))
    }

    /// The signature, in Triton's words.
    pub fn model_config(&self, model: &str, version: &str) -> Result<ModelConfigResponse, InferError> {
        let table = self.core.routing.table();
        let (model, version) = described(&table, model, version)?;
        Ok(ModelConfigResponse { config: Some(config(model, version, &self.core.board.view())) })
    }

    /// Cumulative counts of one model or, if empty, of all that are loaded
    /// here, requests that peers sent here included. A version that is not
    /// loaded here has counted nothing.
    pub fn model_statistics(
        &self,
        model: &str,
        version: &str,
    ) -> Result<ModelStatisticsResponse, InferError> {
        let core = &*self.core;
        let table = core.routing.table();
        let of = |version: &Arc<RoutedVersion>| match core.local.get(version.id) {
            Some(loaded) => loaded.statistics(),
            None => statistics_of_none(version),
        };
        let is_loaded = |version: &&Arc<RoutedVersion>| core.local.get(version.id).is_some();
        let model_stats = if model.is_empty() {
            let models = table.models_by_name();
            models.iter().flat_map(|model| model.versions().filter(is_loaded).map(of)).collect()
        } else if version.is_empty() {
            find_model(&table, model)?.versions().filter(is_loaded).map(of).collect()
        } else {
            vec![of(find_version(find_model(&table, model)?, version)?)]
        };
        Ok(ModelStatisticsResponse { model_stats })
    }

    /// Every version, and its state as this node sees it.
    pub fn repository_index(&self, ready_only: bool) -> RepositoryIndexResponse {
        let view = self.core.board.view();
        let table = self.core.routing.table();
        let models = table.models_by_name();
        let entries = models
            .iter()
            .flat_map(|model| model.versions().map(|version| index_entry(model, version, &view)))
            .filter(|entry| !ready_only || entry.state == "READY");
        RepositoryIndexResponse { models: entries.collect() }
    }

    /// Nodes known to have a version loaded and warm.
    pub fn loaded_on(&self, model: &str, ordinal: u64) -> Vec<NodeId> {
        let table = self.core.routing.table();
        let Some(version) = table.model(model).and_then(|model| model.version(Ordinal::new(ordinal))) else {
            return Vec::new();
        };
        self.core.board.view().holders(version.id).iter().map(|holder| holder.node_id).collect()
    }

    /// Routes with the whole cluster's traffic, as the leader knows it. Fails
    /// with `Unavailable` if no leader answers in time.
    pub async fn routes_with_traffic(
        &self,
        model: &str,
        timeout: Duration,
    ) -> Result<Vec<Route>, InferError> {
        if !model.is_empty() {
            find_model(&self.core.routing.table(), model)?;
        }
        let reports = self.core.traffic.ask_leader(timeout).await?;
        Ok(routes_with_traffic(&self.core.routing.table(), model, &reports))
    }

    /// Requests queued, running or forwarded from here.
    pub fn in_flight(&self) -> usize {
        self.core.admission.inside()
    }

    /// Stops taking work in, answers what was accepted, frees the sessions.
    pub async fn shutdown(&self, timeout: Duration) {
        let core = &*self.core;
        let deadline = Instant::now() + timeout;
        core.admission.close();
        core.tasks.stop();
        // Peers stop sending requests here as soon as they hear it.
        core.board.announce(NodeReadiness::default());
        if !core.admission.wait_until_empty(timeout).await {
            tracing::warn!(in_flight = self.in_flight(), ?timeout, "requests are cut off by the shutdown");
        }
        core.host.shutdown(deadline.saturating_duration_since(Instant::now())).await;
    }
}

impl Core {
    fn start_tasks(&self, flock: &Flock) {
        let (consensus, routing, metrics) =
            (self.consensus.clone(), Arc::clone(&self.routing), Arc::clone(&self.metrics));
        self.tasks.keep("routing", move || {
            follow_log(consensus.clone(), Arc::clone(&routing), Arc::clone(&metrics))
        });
        let (board, peers) = (Arc::clone(&self.board), flock.peers.clone());
        self.tasks.keep("readiness", move || follow_peers(Arc::clone(&board), peers.clone()));
        let (board, peers, consensus) =
            (Arc::clone(&self.board), flock.peers.clone(), self.consensus.clone());
        self.tasks.keep("ready controller", move || {
            ready_controller::run(consensus.clone(), peers.clone(), Arc::clone(&board))
        });
        let (traffic, interval) = (Arc::clone(&self.traffic), self.config.traffic_report_interval);
        self.tasks.keep("traffic report", move || Arc::clone(&traffic).run(interval));
        let follower = PlacementFollower {
            this_node: self.this_node,
            consensus: self.consensus.clone(),
            peers: flock.peers.clone(),
            artefacts: flock.artefacts.clone(),
            host: self.host.clone(),
            local: Arc::clone(&self.local),
            board: Arc::clone(&self.board),
            config: self.config.clone(),
        };
        self.tasks.keep("placement", move || follower.clone().run());
    }

    fn has_caught_up(&self) -> bool {
        if self.has_caught_up.load(Ordering::Relaxed) {
            return true;
        }
        let status = self.consensus.status();
        let caught_up = status.has_quorum
            && status.leader.is_some()
            && self.routing.applied_index() >= status.committed_index;
        if caught_up {
            self.has_caught_up.store(true, Ordering::Relaxed);
        }
        caught_up
    }

    async fn admit_and_route(
        &self,
        request: &ModelInferRequest,
        context: &RequestContext,
    ) -> Result<(Admitted, Routed), InferError> {
        let admitted = self.admission.enter()?;
        if let Some(epoch) = context.min_epoch {
            self.wait_for_epoch(epoch, context.deadline).await?;
        }
        let key =
            context.routing_key.as_deref().or_else(|| text_parameter(&request.parameters, "routing_key"));
        let asked = RouteRequest {
            model: &request.model_name,
            version: &request.model_version,
            key: key.filter(|key| !key.is_empty()),
        };
        let routed = route(&self.routing.table(), asked, || self.decisions.next())?;
        Ok((admitted, routed))
    }

    async fn wait_for_epoch(&self, epoch: u64, deadline: Option<Instant>) -> Result<(), InferError> {
        let longest = self.config.min_epoch_wait_max;
        let timeout = match deadline {
            Some(deadline) => longest.min(deadline.saturating_duration_since(Instant::now())),
            None => longest,
        };
        self.routing.wait_for(epoch, timeout).await.map_err(|behind| {
            InferError::Unavailable(format!(
                "this node routes by log index {}, the request asks for {epoch} at least; it waited {timeout:?}: try again or ask another node",
                behind.applied_index
            ))
        })
    }

    /// Here if this node has the version; else from a peer. A drained node asks
    /// peers first.
    async fn answer(
        &self,
        request: ModelInferRequest,
        routed: &Routed,
        context: &RequestContext,
    ) -> Result<(ModelInferResponse, NodeId), InferError> {
        let id = routed.version.id;
        if !self.routing.is_draining(self.this_node)
            && let Some(version) = self.local.get(id)
        {
            return Ok((version.infer(request, context.deadline).await?.response, self.this_node));
        }
        self.answer_elsewhere(request, routed, context).await
    }

    async fn answer_elsewhere(
        &self,
        request: ModelInferRequest,
        routed: &Routed,
        context: &RequestContext,
    ) -> Result<(ModelInferResponse, NodeId), InferError> {
        let version = &routed.version;
        let decision = routed.decision.to_string();
        let forwarded = Forwarded {
            request: &request,
            version,
            epoch: routed.decision.epoch.get(),
            decision: &decision,
            principal: &context.principal,
            deadline: context.deadline,
        };
        let is_serving = |node_id: NodeId| !self.routing.is_draining(node_id);
        let mut candidates = self.forwarder.candidates(version, is_serving);
        if self.local.get(version.id).is_none() && candidates.is_empty() {
            self.wait_for_holder(version, context.deadline).await?;
            candidates = self.forwarder.candidates(version, is_serving);
        }
        let local_only = self.local.get(version.id).is_some()
            && !candidates.iter().any(|holder| is_serving(holder.node_id));
        let refusal = if local_only {
            nobody_has_it(version)
        } else {
            match self.forwarder.forward(forwarded, candidates).await {
                Err(refusal @ InferError::Unavailable(_)) => refusal,
                ended => return ended,
            }
        };
        match self.local.get(version.id) {
            Some(local) => Ok((local.infer(request, context.deadline).await?.response, self.this_node)),
            None => Err(refusal),
        }
    }

    /// Returns once some live node has the version.
    async fn wait_for_holder(
        &self,
        version: &RoutedVersion,
        deadline: Option<Instant>,
    ) -> Result<(), InferError> {
        let Ok(_waiter) = self.holder_waiters.try_acquire() else { return Err(nobody_has_it(version)) };
        let timeout = match deadline {
            Some(deadline) => HOLDER_WAIT_MAX.min(deadline.saturating_duration_since(Instant::now())),
            None => HOLDER_WAIT_MAX,
        };
        let mut view = self.board.watch_view();
        let held = view.wait_for(|view| !view.holders(version.id).is_empty());
        match tokio::time::timeout(timeout, held).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(nobody_has_it(version)),
        }
    }
}

/// Keeps the table as new as the log, without end.
async fn follow_log(consensus: Consensus, routing: Arc<RoutingFeed>, metrics: Arc<RequestMetrics>) {
    let mut applied = consensus.watch_applied();
    loop {
        let newest = applied.borrow_and_update().clone();
        if routing.apply(&newest) {
            metrics.retain(&routing.table());
        }
        metrics.routed_index.set(i64::try_from(newest.index.get()).unwrap_or(i64::MAX));
        if applied.changed().await.is_err() {
            return;
        }
    }
}

fn described<'a>(
    table: &'a super::routing_table::RoutingTable,
    model: &str,
    version: &str,
) -> Result<(&'a Arc<RoutedModel>, &'a Arc<RoutedVersion>), InferError> {
    let model = find_model(table, model)?;
    if !version.is_empty() {
        return Ok((model, find_version(model, version)?));
    }
    let name = &model.model.name;
    let none = || InferError::Unavailable(format!("model '{name}' has no versions; push one"));
    Ok((model, model.representative().ok_or_else(none)?))
}

/// Counts one request when it ends, also when its caller goes away.
struct Tally<'a> {
    core: &'a Core,
    routed: &'a Routed,
    started: Instant,
    counted: bool,
}

impl<'a> Tally<'a> {
    fn new(core: &'a Core, routed: &'a Routed, started: Instant) -> Self {
        Self { core, routed, started, counted: false }
    }

    fn finish(mut self, answer: &Result<(ModelInferResponse, NodeId), InferError>) {
        self.counted = true;
        match answer {
            Ok(_) => {
                let latency = self.started.elapsed();
                self.core.metrics.answered(&self.routed.version, latency);
                self.record(Ending::Answered(latency));
            }
            Err(error) => self.failed(error),
        }
    }

    fn failed(&self, error: &InferError) {
        self.core.metrics.failed(&self.routed.version, error);
        let callers_fault = matches!(error, InferError::InvalidArgument(_) | InferError::Cancelled);
        self.record(if callers_fault { Ending::CallersFault } else { Ending::Failed });
    }

    fn record(&self, ending: Ending) {
        let epoch = self.routed.decision.epoch.get();
        let key = CellKey { version: self.routed.version.id, epoch };
        self.core.traffic.recorder.record(key, ending);
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        if !self.counted {
            self.failed(&InferError::Cancelled);
        }
    }
}
