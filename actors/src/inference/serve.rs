//! The way of a request: route, run here or forward, say what was decided.

use std::time::{Duration, Instant};

use starling_proto::admin::Route;
use starling_proto::inference::{
    ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataResponse,
    ModelStatisticsResponse, RepositoryIndexResponse,
};
use starling_raft::flock::Flock;
use starling_raft::state::{NodeId, Principal};
use tonic::service::Routes;

use super::{InferError, OnnxRuntime};

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

/// The peer service `PeerInference`, to be given to [`Flock::start`] before
/// there is an [`Inference`]: it answers UNAVAILABLE until then.
#[derive(Clone, Default)]
pub struct PeerInferenceService {}

impl PeerInferenceService {
    /// For the peer server.
    pub fn routes(&self) -> Routes {
        todo!()
    }
}

/// Inference on this node. Cheap to clone.
#[derive(Clone)]
pub struct Inference {}

impl Inference {
    /// Starts everything: follows the log, loads what is placed here, exchanges
    /// readiness, reports traffic, and on the leader marks versions ready.
    pub async fn start(
        runtime: OnnxRuntime,
        flock: &Flock,
        peer_service: &PeerInferenceService,
        config: InferenceConfig,
        registry: &prometheus::Registry,
    ) -> Result<Self, InferError> {
        let _ = (runtime, flock, peer_service, config, registry);
        todo!()
    }

    /// One prediction, from wherever it can be had. Response parameters are set
    /// as the design's section 6 names them.
    pub async fn infer(
        &self,
        request: ModelInferRequest,
        context: RequestContext,
    ) -> Result<ModelInferResponse, InferError> {
        let _ = (request, context);
        todo!()
    }

    /// True once this node can answer: it has caught up, and every version that
    /// a route names is loaded here or ready on a live peer.
    pub fn ready(&self) -> bool {
        todo!()
    }

    /// True if this node can answer for the model (and version: label or
    /// ordinal; empty: what the route names).
    pub fn model_ready(&self, model: &str, version: &str) -> Result<bool, InferError> {
        let _ = (model, version);
        todo!()
    }

    /// The signature, in the protocol's words.
    pub fn model_metadata(&self, model: &str, version: &str) -> Result<ModelMetadataResponse, InferError> {
        let _ = (model, version);
        todo!()
    }

    /// The signature, in Triton's words.
    pub fn model_config(&self, model: &str, version: &str) -> Result<ModelConfigResponse, InferError> {
        let _ = (model, version);
        todo!()
    }

    /// Cumulative counts of one model or, if empty, of all that are loaded here.
    pub fn model_statistics(
        &self,
        model: &str,
        version: &str,
    ) -> Result<ModelStatisticsResponse, InferError> {
        let _ = (model, version);
        todo!()
    }

    /// Every version, and its state as this node sees it.
    pub fn repository_index(&self, ready_only: bool) -> RepositoryIndexResponse {
        let _ = ready_only;
        todo!()
    }

    /// Nodes known to have a version loaded and warm.
    pub fn loaded_on(&self, model: &str, ordinal: u64) -> Vec<NodeId> {
        let _ = (model, ordinal);
        todo!()
    }

    /// Routes with the whole cluster's traffic, as the leader knows it.
    pub async fn routes_with_traffic(
        &self,
        model: &str,
        timeout: Duration,
    ) -> Result<Vec<Route>, InferError> {
        let _ = (model, timeout);
        todo!()
    }

    /// Requests queued, running or forwarded from here.
    pub fn in_flight(&self) -> usize {
        todo!()
    }

    /// Stops taking work in, answers what was accepted, frees the sessions.
    pub async fn shutdown(&self, timeout: Duration) {
        let _ = timeout;
        todo!()
    }
}
