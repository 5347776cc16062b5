//! The way of a request: route, run here or forward, say what was decided.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::HeaderMap;
use starling_proto::admin::Route;
use starling_proto::inference::{ModelInferRequest, ModelInferResponse};
use starling_raft::consensus::Consensus;
use starling_raft::flock::Flock;
use starling_raft::state::{NodeId, Principal};
use tokio::sync::Semaphore;

use super::account::Account;
use super::admission::Admission;
use super::answering::{Answered, WAITERS_MAX};
use super::classification::Classification;
use super::decision_ids::DecisionIds;
use super::decision_parameters::{DecisionParameters, boolean_parameter};
use super::decision_records::{
    DecisionRecord, DecisionRecorder, DecisionRing, PendingRecord, RecordFilter, RecordLimits,
};
use super::forward::Forwarder;
use super::load_gate::QueueTime;
use super::local_versions::LocalVersions;
use super::model_config::is_batched;
use super::peer_service::Backend;
use super::placement_follower::PlacementFollower;
use super::queue::QueueDefaults;
use super::readiness::{ReadinessBoard, follow_peers};
use super::request_metrics::RequestMetrics;
use super::route_traffic::routes_with_traffic;
use super::router::{find_model, find_version};
use super::routing_feed::RoutingFeed;
use super::routing_table::RoutedVersion;
use super::shadowing::examples::ShadowExample;
use super::shadowing::{Copies, ShadowLimits, ShadowSite, Shadowing};
use super::short_way::ShortWays;
use super::tally::Tally;
use super::task_keeper::TaskKeeper;
use super::traffic_report::TrafficExchange;
use super::{InferError, OnnxRuntime, VersionHost, health_monitor, ready_controller};
use crate::rollout::RolloutController;
use crate::rollout::metrics::RolloutMetrics;
use crate::rollout::notified::NotifiedMark;

pub use super::peer_service::PeerInferenceService;

/// A peer may queue a request before it runs it.
const FORWARD_ALLOWANCE: Duration = Duration::from_secs(10);
/// In the data directory: up to where webhooks of rollouts were told.
const WEBHOOKS_MARK_FILE: &str = "webhooks-told";
/// Peers hear within this time that this node is leaving.
const LEAVING_IS_HEARD: Duration = Duration::from_millis(100);

/// Limits and defaults of this node.
#[derive(Debug, Clone)]
pub struct InferenceConfig {
    /// Requests that may wait per version, where its settings do not say.
    pub max_queue: usize,
    /// How long those who wait may have to, where its settings do not say how many.
    pub max_queue_time: QueueTime,
    /// After which a run is ended, where its settings do not say.
    pub max_run_time: Duration,
    /// How long `x-starling-min-epoch` may wait.
    pub min_epoch_wait_max: Duration,
    /// How often traffic is reported to the leader.
    pub traffic_report_interval: Duration,
    /// How long a version may take to be fetched and loaded.
    pub load_timeout: Duration,
    /// Threads that receive predictions, each of which says which it is by
    /// [`super::local::core::enter`]; small fast models are run by each. 0:
    /// there are none.
    pub data_plane_cores: usize,
    /// What is kept of each decision.
    pub decision_records: RecordLimits,
    /// A version that has answered nobody for so long is probed.
    pub health_probe_interval: Duration,
    /// Contents of all requests inside this node, in bytes.
    pub max_request_bytes_in_flight: u64,
    /// What shadows may take.
    pub shadow: ShadowLimits,
}

/// What a request says beside its body.
#[derive(Debug, Clone)]
pub struct RequestContext<'a> {
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
    /// When its handler began: from then on its time counts.
    pub arrived: Instant,
    /// gRPC metadata or HTTP headers, for rules that ask for them.
    pub metadata: Option<&'a HeaderMap>,
}

/// An answer that is not encoded yet.
pub struct Prediction {
    /// Without what is to be said of the decision.
    pub response: ModelInferResponse,
    /// What is to be said of it; `None`: quiet was asked for.
    pub decided: Option<DecisionParameters>,
    /// To be dropped when the encoder takes over; `None`: a peer has counted it.
    pub account: Option<Account>,
    /// For shadows; to be dropped when the encoder is done.
    pub copies: Option<Copies>,
}

impl Prediction {
    /// The answer with its parameters, for those who encode it in their own way.
    pub fn into_response(self) -> ModelInferResponse {
        let mut response = self.response;
        if let Some(decided) = &self.decided {
            decided.write(&mut response.parameters);
        }
        response
    }
}

/// Inference on this node. Cheap to clone.
#[derive(Clone)]
pub struct Inference {
    pub(super) core: Arc<Core>,
}

pub(super) struct Core {
    pub(super) this_node: NodeId,
    pub(super) config: InferenceConfig,
    pub(super) consensus: Consensus,
    pub(super) host: VersionHost,
    pub(super) admission: Arc<Admission>,
    pub(super) decisions: DecisionIds,
    pub(super) recorder: DecisionRecorder,
    pub(super) records: Arc<DecisionRing>,
    pub(super) routing: Arc<RoutingFeed>,
    pub(super) local: Arc<LocalVersions>,
    pub(super) board: Arc<ReadinessBoard>,
    pub(super) forwarder: Forwarder,
    pub(super) traffic: Arc<TrafficExchange>,
    pub(super) rollouts: Arc<RolloutController>,
    pub(super) metrics: Arc<RequestMetrics>,
    pub(super) shadowing: Shadowing,
    pub(super) waiters: Semaphore,
    pub(super) has_caught_up: AtomicBool,
    pub(super) tasks: TaskKeeper,
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
        let queues = QueueDefaults { max_requests: config.max_queue, max_time: config.max_queue_time };
        let host = VersionHost::start_with(runtime, registry, queues, config.data_plane_cores).await?;
        let consensus = flock.consensus.clone();
        let peers = flock.peers.clone();
        let this_node = consensus.node_id();
        let routing = Arc::new(RoutingFeed::new(&consensus.applied()));
        let board = Arc::new(ReadinessBoard::new(this_node));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let records = Arc::new(DecisionRing::new(config.decision_records.records, threads));
        let local: Arc<LocalVersions> = Arc::default();
        let forwarder = Forwarder {
            this_node,
            peers: peers.clone(),
            short_ways: Arc::new(ShortWays::new(peers.clone(), config.data_plane_cores)),
            board: Arc::clone(&board),
            attempt_timeout: config.max_run_time + FORWARD_ALLOWANCE,
            outcomes: metrics.forwarded.clone(),
            ways: metrics.forward_ways.clone(),
        };
        let notified = Arc::new(NotifiedMark::open(&flock.data_dir().join(WEBHOOKS_MARK_FILE)));
        let traffic = TrafficExchange::new(consensus.clone(), peers.clone(), Arc::clone(&routing), notified);
        let traffic = Arc::new(traffic);
        let site = ShadowSite {
            recorder: Arc::clone(&traffic.shadows),
            local: Arc::clone(&local),
            routing: Arc::clone(&routing),
            forwarder: forwarder.clone(),
            cores: config.data_plane_cores,
        };
        let shadowing = Shadowing::start(config.shadow, site, registry)?;
        let core = Core {
            this_node,
            consensus: consensus.clone(),
            host,
            admission: Arc::new(Admission::new(
                metrics.in_flight.clone(),
                config.max_request_bytes_in_flight,
            )),
            decisions: DecisionIds::new(this_node, consensus.boot()),
            recorder: DecisionRecorder::new(config.decision_records, Arc::clone(&records) as _),
            records,
            local,
            forwarder,
            rollouts: Arc::new(RolloutController::new(
                consensus,
                peers,
                Arc::clone(&board),
                Arc::clone(&traffic),
                config.traffic_report_interval,
                Arc::new(RolloutMetrics::register(registry).map_err(internal)?),
            )),
            traffic,
            shadowing,
            routing,
            board,
            metrics,
            config,
            waiters: Semaphore::new(WAITERS_MAX),
            has_caught_up: AtomicBool::new(false),
            tasks: TaskKeeper::default(),
        };
        let attached = peer_service.attach(Backend {
            identity: flock.peers.identity(),
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
        context: RequestContext<'_>,
    ) -> Result<ModelInferResponse, InferError> {
        self.predict(request, context).await.map(Prediction::into_response)
    }

    /// As [`Inference::infer`], with the account of its time still open.
    pub async fn predict(
        &self,
        request: ModelInferRequest,
        context: RequestContext<'_>,
    ) -> Result<Prediction, InferError> {
        let core = &*self.core;
        let classification = Classification::of(&request)?;
        let (_admitted, routed) = match core.admit_and_route(&request, &context).await {
            Ok(routed) => routed,
            Err(error) => {
                core.metrics.refused(&error);
                return Err(error);
            }
        };
        let tally = Tally::new(&core.metrics, &core.traffic.recorder, &routed, context.arrived);
        let quiet = context.quiet
            || routed.version.version.settings.quiet
            || boolean_parameter(&request.parameters, "starling_quiet");
        let record = core.recorder.begin(&request, &context, &routed);
        let shadowed = core.shadowing.begin(&request, &routed, &context);
        let answer = core.answer_or_retry(request, &routed, &context, tally).await;
        PendingRecord::finish(record, answer.as_ref().map(|answered| answered.by));
        let Answered { mut response, by, account, retried_on } = answer?;
        let version = retried_on.as_ref().unwrap_or(&routed.version);
        let latency = context.arrived.elapsed();
        let copies = shadowed.map(|of| of.answered(&response, version, routed.decision, latency));
        classification.apply(is_batched(&version.version), &mut response)?;
        response.model_version.clone_from(&version.ordinal_text);
        let decided = (!quiet).then_some(DecisionParameters { routed, answered_by: by, retried_on });
        Ok(Prediction { response, decided, account, copies })
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

    /// What decides the next steps of rollouts while this node leads.
    pub fn rollouts(&self) -> &RolloutController {
        &self.core.rollouts
    }

    /// What this node decided of late, newest first.
    pub fn decision_records(&self, filter: &RecordFilter) -> Vec<DecisionRecord> {
        self.core.records.newest(filter)
    }

    /// Requests of this node whose shadow did not agree, newest first, `limit` at
    /// most. `model`: by name; `version`: label or ordinal of the shadow, empty: of
    /// every one. Fails with `NotFound`.
    pub fn shadow_examples(
        &self,
        model: &str,
        version: &str,
        limit: usize,
    ) -> Result<Vec<ShadowExample>, InferError> {
        let table = self.core.routing.table();
        let model = find_model(&table, model)?;
        let wanted = match version {
            "" => None,
            named => Some(find_version(model, named)?.id),
        };
        let model_id = model.model.id;
        let is_wanted = |shadow: &RoutedVersion| {
            shadow.id.model_id == model_id && wanted.is_none_or(|wanted| wanted == shadow.id)
        };
        Ok(self.core.shadowing.examples().newest(is_wanted, limit))
    }

    /// Requests queued, running or forwarded from here.
    pub fn in_flight(&self) -> usize {
        self.core.admission.inside()
    }

    /// Stops taking work in, answers what was accepted, frees the sessions.
    pub async fn shutdown(&self, timeout: Duration) {
        let core = &*self.core;
        let deadline = Instant::now() + timeout;
        core.tasks.stop();
        core.shadowing.stop();
        // Peers send nothing more once they have heard it.
        core.board.leave();
        tokio::time::sleep(LEAVING_IS_HEARD.min(timeout / 2)).await;
        core.admission.close();
        if !core.admission.wait_until_empty(deadline.saturating_duration_since(Instant::now())).await {
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
        let (local, interval) = (Arc::clone(&self.local), self.config.health_probe_interval);
        self.tasks.keep("health", move || health_monitor::run(Arc::clone(&local), interval));
        let (traffic, interval) = (Arc::clone(&self.traffic), self.config.traffic_report_interval);
        self.tasks.keep("traffic report", move || Arc::clone(&traffic).run(interval));
        let rollouts = Arc::clone(&self.rollouts);
        self.tasks.keep("rollouts", move || Arc::clone(&rollouts).run());
        let notifier = self.rollouts.notifier(flock.events());
        self.tasks.keep("webhooks", move || notifier.clone().run());
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

    pub(super) fn has_caught_up(&self) -> bool {
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
