//! Brings what this node counted to the leader, and the cluster's counts to
//! whoever asks.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use starling_proto::peer::peer_inference_client::PeerInferenceClient;
use starling_proto::peer::{ClusterTrafficRequest, TrafficReport};
use starling_raft::consensus::Consensus;
use starling_raft::peers::Peers;
use starling_raft::state::{NodeId, Rollout, State};
use tokio::time::Instant;

use super::InferError;
use super::cluster_traffic::{ClusterCounts, ClusterTraffic, NODES_MAX};
use super::routing_feed::RoutingFeed;
use super::shadowing::cells::ShadowRecorder;
use super::traffic::{Ledger, StageStarts, TrafficRecorder};
use crate::rollout::measures::stage_began;
use crate::rollout::notified::NotifiedMark;

/// Largest report, and largest answer with the reports of all nodes.
pub const REPORT_BYTES_MAX: usize = 64 << 20;

const REPORT_TIMEOUT: Duration = Duration::from_secs(2);
/// This node's own counts are read anew for a look after so long.
const OWN_COUNTS_MAX_AGE: Duration = Duration::from_millis(100);
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Counts of this node and, while it leads, of all.
pub struct TrafficExchange {
    /// Counts on the request path.
    pub recorder: TrafficRecorder,
    /// Counts copies for shadows.
    pub shadows: Arc<ShadowRecorder>,
    /// Up to where webhooks of rollouts were told: learnt from whoever leads.
    pub notified: Arc<NotifiedMark>,
    consensus: Consensus,
    peers: Peers,
    routing: Arc<RoutingFeed>,
    sequence: AtomicU64,
    cluster: Mutex<ClusterTraffic>,
    /// When each node's last report came.
    heard: Mutex<HashMap<NodeId, Instant>>,
}

impl TrafficExchange {
    /// Nothing counted yet.
    pub fn new(
        consensus: Consensus,
        peers: Peers,
        routing: Arc<RoutingFeed>,
        notified: Arc<NotifiedMark>,
    ) -> Self {
        Self {
            recorder: TrafficRecorder::default(),
            shadows: Arc::default(),
            notified,
            consensus,
            peers,
            routing,
            sequence: AtomicU64::new(0),
            cluster: Mutex::default(),
            heard: Mutex::default(),
        }
    }

    /// Reports every `interval`, without end. A report that does not arrive is
    /// not repeated: the next one says it all.
    pub async fn run(self: Arc<Self>, interval: Duration) {
        let mut rounds = tokio::time::interval(interval);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            let Some(leader) = self.consensus.status().leader else { continue };
            if let Err(reason) = self.report_to(leader).await {
                tracing::debug!(%leader, %reason, "traffic was not reported");
            }
        }
    }

    async fn report_to(&self, leader: NodeId) -> Result<(), String> {
        let report = self.own_report();
        if leader == self.consensus.node_id() {
            self.accept(&report);
            return Ok(());
        }
        let channel = self.peers.channel(leader).map_err(|error| error.to_string())?;
        let mut client = PeerInferenceClient::new(channel).max_encoding_message_size(REPORT_BYTES_MAX);
        let sent = tokio::time::timeout(REPORT_TIMEOUT, client.report_traffic(report)).await;
        let answer = sent
            .map_err(|_| format!("no answer within {REPORT_TIMEOUT:?}"))?
            .map_err(|status| status.to_string())?;
        self.notified.advance(answer.into_inner().webhooks_told_through);
        Ok(())
    }

    fn own_report(&self) -> TrafficReport {
        let models = self.model_ids();
        TrafficReport {
            node_id: self.consensus.node_id().get(),
            boot: u64::from(self.consensus.boot()),
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed) + 1,
            cells: self.own_ledger().to_wire(),
            shadows: self.shadows.read(|model_id| models.contains(&model_id)).to_wire(),
        }
    }

    /// Takes a node's report. Kept by every node, in case it leads.
    pub fn accept(&self, report: &TrafficReport) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let node_id = NodeId::new(report.node_id);
        if heard.len() < NODES_MAX || heard.contains_key(&node_id) {
            heard.insert(node_id, Instant::now());
        }
        drop(heard);
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner).accept(report);
    }

    /// What this node counted itself.
    pub fn own_ledger(&self) -> Ledger {
        let models = self.model_ids();
        let stages = stage_starts(&self.consensus.applied().state);
        self.recorder.read_by_stage(|model_id| models.contains(&model_id), &stages)
    }

    /// Whether a node has reported to this one within `window`.
    pub fn heard_within(&self, node_id: NodeId, window: Duration) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&node_id).is_some_and(|at| at.elapsed() <= window)
    }

    /// What all nodes counted of the models that are wanted, if this node leads.
    pub fn counts_of(&self, wanted: impl Fn(u64) -> bool) -> Option<ClusterCounts> {
        if !self.consensus.status().is_leader {
            return None;
        }
        if !self.heard_within(self.consensus.node_id(), OWN_COUNTS_MAX_AGE) {
            self.accept(&self.own_report());
        }
        Some(self.cluster.lock().unwrap_or_else(PoisonError::into_inner).counts_of(wanted))
    }

    /// What all nodes have reported, if this node leads.
    pub fn reports(&self) -> Result<Vec<TrafficReport>, InferError> {
        if !self.consensus.status().is_leader {
            return Err(InferError::Unavailable("this node does not lead; ask the leader".to_owned()));
        }
        self.accept(&self.own_report());
        let models = self.model_ids();
        let state = self.consensus.applied().state;
        let mut cluster = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        let is_member = |node_id: &NodeId| state.members.get(*node_id).is_some();
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).retain(|node_id, _| is_member(node_id));
        cluster.retain(|model_id| models.contains(&model_id), |node_id| state.members.get(node_id).is_some());
        Ok(cluster.to_wire())
    }

    /// What all nodes have reported, from wherever the leader is. Asks again
    /// across an election, until `timeout`.
    pub async fn ask_leader(&self, timeout: Duration) -> Result<Vec<TrafficReport>, InferError> {
        let deadline = Instant::now() + timeout;
        let mut reason = "there is no leader".to_owned();
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return Err(InferError::Unavailable(format!(
                    "the leader did not say what the cluster served within {timeout:?}: {reason}"
                )));
            }
            if let Some(leader) = self.consensus.status().leader {
                match self.ask(leader, remaining).await {
                    Ok(reports) => return Ok(reports),
                    Err(error) => reason = error,
                }
            }
            tokio::time::sleep(ASK_AGAIN.min(remaining)).await;
        }
    }

    async fn ask(&self, leader: NodeId, timeout: Duration) -> Result<Vec<TrafficReport>, String> {
        if leader == self.consensus.node_id() {
            return self.reports().map_err(|error| error.to_string());
        }
        let channel = self.peers.channel(leader).map_err(|error| error.to_string())?;
        let mut client = PeerInferenceClient::new(channel).max_decoding_message_size(REPORT_BYTES_MAX);
        let timeout = timeout.min(REPORT_TIMEOUT);
        match tokio::time::timeout(timeout, client.cluster_traffic(ClusterTrafficRequest {})).await {
            Ok(Ok(response)) => Ok(response.into_inner().nodes),
            Ok(Err(status)) => Err(status.to_string()),
            Err(_) => Err(format!("no answer within {timeout:?}")),
        }
    }

    fn model_ids(&self) -> HashSet<u64> {
        self.routing.table().models().map(|model| model.model.id).collect()
    }
}

/// Where the present stage of each rollout began.
fn stage_starts(state: &State) -> StageStarts {
    let start = |rollout: &Arc<Rollout>| {
        let model = state.models.get(rollout.spec.model.as_str())?;
        Some((model.id, stage_began(rollout)))
    };
    state.rollouts.active().filter_map(start).collect()
}
