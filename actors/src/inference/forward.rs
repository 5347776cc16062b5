//! Sends a routed request to a peer that has the version: the less loaded of
//! two drawn at random, and once more elsewhere if that one is not available.
//! From a core of the data plane it goes the short way, if that is open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounterVec;
use starling_proto::inference::{ModelInferRequest, ModelInferResponse};
use starling_proto::peer::ForwardRequest;
use starling_proto::peer::peer_inference_client::PeerInferenceClient;
use starling_raft::peers::Peers;
use starling_raft::state::{NodeId, Principal};
use tonic::Request;

use super::InferError;
use super::forward_status::from_status;
use super::readiness::ReadinessBoard;
use super::readiness_view::{Holder, less_loaded_of_two};
use super::routing_table::RoutedVersion;
use super::short_way::ShortWays;

/// Peers that are asked for one request, the first included.
const ATTEMPTS_MAX: usize = 2;
/// Largest forwarded message: what gRPC clients of the protocol allow.
pub const FORWARD_BYTES_MAX: usize = i32::MAX as usize;

/// A request that has been routed, as a peer is to see it.
#[derive(Debug, Clone, Copy)]
pub struct Forwarded<'a> {
    /// As the client sent it.
    pub request: &'a ModelInferRequest,
    /// Who answers.
    pub version: &'a RoutedVersion,
    /// By which epoch.
    pub epoch: u64,
    /// The decision id.
    pub decision: &'a str,
    /// Who asks.
    pub principal: &'a Principal,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
}

/// Sends requests to peers. Cheap to clone.
#[derive(Clone)]
pub struct Forwarder {
    /// Never asked.
    pub this_node: NodeId,
    /// Channels, and who is alive.
    pub peers: Peers,
    /// Connections from core to core.
    pub(super) short_ways: Arc<ShortWays>,
    /// Who has what.
    pub board: Arc<ReadinessBoard>,
    /// A peer that has not answered for so long is given up.
    pub attempt_timeout: Duration,
    /// By outcome: `answered`, `refused`, `unavailable`.
    pub outcomes: IntCounterVec,
    /// By the way that a request took: `short`, `ordinary`.
    pub ways: IntCounterVec,
}

impl Forwarder {
    /// Peers that could answer now: alive and loaded, those that
    /// `is_preferred` picks if there are any.
    pub fn candidates(&self, version: &RoutedVersion, is_preferred: impl Fn(NodeId) -> bool) -> Vec<Holder> {
        let view = self.board.view();
        let live = self.peers.live();
        let live = live.borrow();
        let others = view
            .holders(version.id)
            .iter()
            .filter(|holder| holder.node_id != self.this_node && live.contains_key(&holder.node_id));
        let others: Vec<Holder> = others.cloned().collect();
        let preferred: Vec<Holder> =
            others.iter().filter(|holder| is_preferred(holder.node_id)).cloned().collect();
        if preferred.is_empty() { others } else { preferred }
    }

    /// The answer and who gave it. Dropping the future cancels the request at
    /// the peer as well.
    pub async fn forward(
        &self,
        forwarded: Forwarded<'_>,
        mut candidates: Vec<Holder>,
    ) -> Result<(ModelInferResponse, NodeId), InferError> {
        let mut refusal = nobody_has_it(forwarded.version);
        for _ in 0..ATTEMPTS_MAX {
            let Some(chosen) = less_loaded_of_two(&candidates, rand::random()).cloned() else { break };
            candidates.retain(|holder| holder.node_id != chosen.node_id);
            let _outstanding = chosen.load.begin();
            match self.attempt(forwarded, chosen.node_id).await {
                Ok(response) => {
                    self.count("answered");
                    return Ok((response, chosen.node_id));
                }
                Err(InferError::Unavailable(reason)) => {
                    self.count("unavailable");
                    tracing::debug!(peer = %chosen.node_id, %reason, "forwarding failed");
                    refusal = InferError::Unavailable(format!("node {}: {reason}", chosen.node_id));
                }
                Err(error) => {
                    self.count("refused");
                    return Err(error);
                }
            }
        }
        Err(refusal)
    }

    /// A copy for a shadow, for which nobody waits: asked of one peer, once, and not
    /// counted among the requests. `candidates`: at least one.
    pub(super) async fn ask_copy(
        &self,
        forwarded: Forwarded<'_>,
        candidates: &[Holder],
    ) -> Result<ModelInferResponse, InferError> {
        let Some(chosen) = less_loaded_of_two(candidates, rand::random()) else {
            return Err(nobody_has_it(forwarded.version));
        };
        let remaining = forwarded.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let request = ForwardRequest {
            request: Some(forwarded.request.clone()),
            shadow: true,
            ..envelope(forwarded, remaining)
        };
        self.call(chosen.node_id, request).await
    }

    async fn attempt(
        &self,
        forwarded: Forwarded<'_>,
        node_id: NodeId,
    ) -> Result<ModelInferResponse, InferError> {
        let model = forwarded.version.key.model.as_str();
        let remaining = forwarded.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if remaining.is_some_and(|remaining| remaining.is_zero()) {
            return Err(too_late(model));
        }
        let limit = remaining.map_or(self.attempt_timeout, |remaining| remaining.min(self.attempt_timeout));
        let answer = async {
            if let Some(pending) = self.short_ways.ask(node_id, forwarded, remaining) {
                self.ways.with_label_values(&["short"]).inc();
                return pending.answer().await;
            }
            self.ways.with_label_values(&["ordinary"]).inc();
            self.ask_ordinarily(node_id, forwarded, remaining).await
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            () = tokio::time::sleep(limit) => Err(match remaining {
                Some(remaining) if remaining <= limit => too_late(model),
                _ => InferError::Unavailable(format!("no answer within {limit:?}")),
            }),
        }
    }

    /// By a call on the channel to the peer, which the control runtime serves.
    async fn ask_ordinarily(
        &self,
        node_id: NodeId,
        forwarded: Forwarded<'_>,
        remaining: Option<Duration>,
    ) -> Result<ModelInferResponse, InferError> {
        // Tensor bytes are shared, not copied.
        let request =
            ForwardRequest { request: Some(forwarded.request.clone()), ..envelope(forwarded, remaining) };
        self.call(node_id, request).await
    }

    async fn call(&self, node_id: NodeId, request: ForwardRequest) -> Result<ModelInferResponse, InferError> {
        let channel =
            self.peers.channel(node_id).map_err(|error| InferError::Unavailable(error.to_string()))?;
        let mut client = PeerInferenceClient::new(channel)
            .max_decoding_message_size(FORWARD_BYTES_MAX)
            .max_encoding_message_size(FORWARD_BYTES_MAX);
        let mut live = self.peers.live();
        tokio::select! {
            biased;
            answer = client.forward(Request::new(request)) => match answer {
                Ok(response) => Ok(response.into_inner()),
                Err(status) => Err(from_status(&status)),
            },
            _ = live.wait_for(|live| !live.contains_key(&node_id)) => {
                Err(InferError::Unavailable("it died".to_owned()))
            }
        }
    }

    fn count(&self, outcome: &str) {
        self.outcomes.with_label_values(&[outcome]).inc();
    }
}

fn too_late(model: &str) -> InferError {
    InferError::DeadlineExceeded(format!(
        "the deadline passed before a peer could answer for model '{model}'"
    ))
}

/// All that a peer is told but the request itself.
pub(super) fn envelope(forwarded: Forwarded<'_>, remaining: Option<Duration>) -> ForwardRequest {
    let micros = |remaining: Duration| u64::try_from(remaining.as_micros()).unwrap_or(u64::MAX).max(1);
    ForwardRequest {
        request: None,
        shadow: false,
        model_id: forwarded.version.id.model_id,
        ordinal: forwarded.version.id.ordinal.get(),
        epoch: forwarded.epoch,
        decision: forwarded.decision.to_owned(),
        timeout_us: remaining.map_or(0, micros),
        principal: forwarded.principal.as_str().to_owned(),
    }
}

/// What is said when neither this node nor a live peer has a version.
pub fn nobody_has_it(version: &RoutedVersion) -> InferError {
    let name = &version.key.model;
    InferError::Unavailable(format!(
        "no live node has version '{}' of model '{name}' loaded; see `starling get versions {name}`",
        version.version.label
    ))
}
