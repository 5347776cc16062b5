//! The one handle through which the rest of the system asks the replicated log:
//! propose, read, watch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{Raft, ReadPolicy};
use serde::Serialize;
use starling_proto::peer;
use starling_proto::peer::raft_client::RaftClient;
use starling_proto::peer::read_index_response::Result as WireReadIndex;
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use crate::peers::{PeerIdentity, Peers};
use crate::proposals::{self, Proposal, time_until};
use crate::raft_config::RaftTiming;
use crate::raft_status::membership_is_settled;
use crate::raft_types::TypeConfig;
use crate::state::{
    Accepted, ClusterCommand, ClusterId, Command, LogIndex, LogTime, NodeId, Principal, Rejection, RequestId,
    State,
};
use crate::state_machine::{Applied, StateMachine};

/// The state after the entry at `index` was applied.
#[derive(Debug, Clone)]
pub struct AppliedState {
    /// The last applied entry.
    pub index: LogIndex,
    /// What everything up to it folds into.
    pub state: Arc<State>,
}

/// How this node stands in Raft.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs)]
pub struct RaftStatus {
    pub term: u64,
    pub leader: Option<NodeId>,
    pub is_leader: bool,
    pub last_log_index: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub snapshot_index: u64,
    pub purged_index: u64,
    pub voters: Vec<NodeId>,
    pub learners: Vec<NodeId>,
    /// This node has heard from a quorum (or its leader) within the lease.
    pub has_quorum: bool,
    /// Snapshots installed from a leader since this process started.
    pub snapshots_installed: u64,
}

/// Why a command was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// Decided against, on every node.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// No leader could be reached, or no quorum: nothing is known to have
    /// happened. Retry with the same request id.
    #[error("the write was not accepted: {0}")]
    Unavailable(String),
    /// It may or may not be carried out later. Retry with the same request id.
    #[error("the write was not confirmed within {0:?}; ask again with the same request id")]
    TimedOut(Duration),
}

/// Why a linearizable read was not possible.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No leader, or the leader has no quorum.
    #[error("a linearizable read needs a quorum: {0}; `--stale` reads what this node knows")]
    Unavailable(String),
    /// This node did not catch up in time.
    #[error("this node did not catch up within {0:?}; `--stale` reads what it knows")]
    TimedOut(Duration),
}

/// Between attempts of a read that found no leader.
const READ_RETRY_DELAY: Duration = Duration::from_millis(50);

/// The handle. Cheap to clone.
#[derive(Clone)]
pub struct Consensus {
    core: Arc<Core>,
}

/// What the handle holds.
pub(crate) struct Core {
    pub(crate) raft: Raft<TypeConfig, StateMachine>,
    pub(crate) identity: PeerIdentity,
    pub(crate) boot: u32,
    pub(crate) applied: Applied,
    pub(crate) status: watch::Receiver<RaftStatus>,
    pub(crate) peers: Peers,
    pub(crate) timing: RaftTiming,
    pub(crate) in_flight: Semaphore,
}

impl Consensus {
    pub(crate) fn new(core: Core) -> Self {
        Self { core: Arc::new(core) }
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// Openraft itself: for the one actor that changes who votes.
    pub(crate) fn raft(&self) -> &Raft<TypeConfig, StateMachine> {
        &self.core.raft
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.core.identity.node_id
    }

    /// This cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.core.identity.cluster_id
    }

    /// How many times this node has started under its identity, this time included.
    pub fn boot(&self) -> u32 {
        self.core.boot
    }

    /// What this node has applied, however old it is. Does not wait.
    pub fn applied(&self) -> AppliedState {
        self.core.applied.state()
    }

    /// The log time that a leader stamps now: that of the last applied entry and
    /// what has passed since by the monotonic clock.
    pub fn log_time_now(&self) -> LogTime {
        self.core.applied.log_time_now()
    }

    /// Changes of [`Consensus::applied`]; intermediate states may be skipped.
    pub fn watch_applied(&self) -> watch::Receiver<AppliedState> {
        self.core.applied.watch()
    }

    /// How this node stands in Raft.
    pub fn status(&self) -> RaftStatus {
        self.core.status.borrow().clone()
    }

    /// Changes of [`Consensus::status`].
    pub fn watch_status(&self) -> watch::Receiver<RaftStatus> {
        self.core.status.clone()
    }

    /// Proposes a command, from whichever node: forwards to the leader, retries
    /// across elections under the same request id, until `timeout`, or until it
    /// is plain that there is no quorum. Cancelling does not take the command back.
    pub async fn propose(
        &self,
        principal: &Principal,
        request_id: RequestId,
        command: Command,
        timeout: Duration,
    ) -> Result<Accepted, ProposeError> {
        let proposal = Proposal { principal: principal.clone(), request_id, command };
        proposals::propose(&self.core, &proposal, timeout).await
    }

    /// After this returns, [`Consensus::applied`] includes every write that was
    /// acknowledged before the call (ReadIndex).
    pub async fn linearize(&self, timeout: Duration) -> Result<AppliedState, ReadError> {
        let deadline = Instant::now() + timeout;
        loop {
            let remaining = time_until(deadline).unwrap_or_default();
            let reason = match tokio::time::timeout(remaining, self.core.read_index()).await {
                Ok(Ok(index)) => {
                    return self.wait_applied(index, time_until(deadline).unwrap_or_default()).await;
                }
                Ok(Err(reason)) => reason,
                Err(_) => self.core.why_no_leader(),
            };
            if self.core.usable_leader().is_none() {
                self.core.wait_for_leader(deadline).await.map_err(ReadError::Unavailable)?;
            }
            let Some(remaining) = time_until(deadline) else {
                return Err(ReadError::Unavailable(reason));
            };
            tokio::time::sleep(READ_RETRY_DELAY.min(remaining)).await;
        }
    }

    /// Waits until this node has applied `index`.
    pub async fn wait_applied(&self, index: LogIndex, timeout: Duration) -> Result<AppliedState, ReadError> {
        let mut applied = self.core.applied.watch();
        let reached = applied.wait_for(|applied| applied.index >= index);
        match tokio::time::timeout(timeout, reached).await {
            Ok(Ok(applied)) => Ok(applied.clone()),
            Ok(Err(_)) => Err(ReadError::Unavailable("Raft has stopped on this node".to_owned())),
            Err(_) => Err(ReadError::TimedOut(timeout)),
        }
    }

    /// Hands leadership to another voter if this node leads. Returns once it no
    /// longer does, or after `timeout`.
    pub async fn transfer_leadership(&self, timeout: Duration) {
        let core = &self.core;
        if !core.status.borrow().is_leader {
            return;
        }
        let Some(successor) = core.best_successor() else {
            tracing::info!("no other voter can take over leadership");
            return;
        };
        tracing::info!(%successor, "handing leadership over");
        if let Err(error) = core.raft.trigger().transfer_leader(successor.get()).await {
            tracing::warn!(%error, "leadership was not handed over");
            return;
        }
        let mut status = core.status.clone();
        let handed_over = status.wait_for(|status| !status.is_leader);
        if tokio::time::timeout(timeout, handed_over).await.is_err() {
            tracing::warn!(%successor, "leadership was not taken over in time");
        }
    }

    /// Returns once no change of who votes is under way, or after `timeout`. A
    /// leader that stops in the middle of one could leave the others without a quorum.
    pub(crate) async fn wait_for_settled_membership(&self, timeout: Duration) {
        let mut metrics = self.core.raft.metrics();
        let settled = async {
            while !membership_is_settled(&metrics.borrow_watched()) {
                if metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(timeout, settled).await.is_err() {
            tracing::warn!("a change of who votes is still under way");
        }
    }

    /// Proposes a checkpoint; answers with its index and, for each member, the
    /// digest it recorded there or why it did not answer.
    pub async fn verify(
        &self,
        principal: &Principal,
        timeout: Duration,
    ) -> Result<(LogIndex, Vec<(NodeId, Result<String, String>)>), ProposeError> {
        let deadline = Instant::now() + timeout;
        let request_id = RequestId::new(Uuid::now_v7());
        let command = Command::Cluster(ClusterCommand::Checkpoint);
        let index = self.propose(principal, request_id, command, timeout).await?.log_index;
        let remaining = || time_until(deadline).unwrap_or_default();
        let applied = match self.wait_applied(index, remaining()).await {
            Ok(applied) => applied,
            // The members that are known already are asked all the same.
            Err(_) => self.applied(),
        };
        let members: Vec<NodeId> = applied.state.members.iter().map(|member| member.node_id).collect();
        let answers = members.into_iter().map(|member| async move {
            (member, self.core.digest_of(member, index, time_until(deadline).unwrap_or_default()).await)
        });
        Ok((index, join_all(answers).await))
    }
}

impl Core {
    /// The leader, if it was heard from within its lease: one that was not may
    /// be dead or cut off, and to ask it would only cost time.
    pub(crate) fn usable_leader(&self) -> Option<NodeId> {
        let status = self.status.borrow();
        status.leader.filter(|_| status.has_quorum)
    }

    /// Resolves once `leader` does not lead any more, as far as this node knows.
    pub(crate) async fn leader_is_no_longer(&self, leader: NodeId) {
        let mut status = self.status.clone();
        if status.wait_for(|status| status.leader != Some(leader) || !status.has_quorum).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits out an election. Gives up, with the reason, at the deadline, or
    /// earlier if no election can succeed because too few voters are there.
    pub(crate) async fn wait_for_leader(&self, deadline: Instant) -> Result<(), String> {
        let patience = self.timing.election_patience();
        loop {
            let Some(remaining) = time_until(deadline) else {
                return Err(self.why_no_leader());
            };
            let mut status = self.status.clone();
            let elected = status.wait_for(|status| status.leader.is_some() && status.has_quorum);
            match tokio::time::timeout(patience.min(remaining), elected).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(_)) => return Err("Raft has stopped on this node".to_owned()),
                Err(_) => {
                    let (reached, voters) = self.voters_reached();
                    if reached <= voters / 2 {
                        return Err(self.why_no_leader());
                    }
                }
            }
        }
    }

    /// For people.
    pub(crate) fn why_no_leader(&self) -> String {
        let (reached, voters) = self.voters_reached();
        match self.status.borrow().leader {
            Some(leader) if leader == self.identity.node_id => format!(
                "this node leads but has lost its quorum: {reached} of {voters} voters can be reached"
            ),
            Some(leader) => {
                format!("node {leader}, which led, is silent: {reached} of {voters} voters can be reached")
            }
            None => format!("no leader is known: {reached} of {voters} voters can be reached"),
        }
    }

    /// How many voters can be reached, this node included if it votes, and how
    /// many there are. A voter knows by its own calls of the last two
    /// elections; a learner calls nobody and has only gossip's word.
    fn voters_reached(&self) -> (usize, usize) {
        let window = self.timing.election_timeout_max * 2;
        let own = self.identity.node_id;
        let voters = self.status.borrow().voters.clone();
        let live = self.peers.live();
        let live = live.borrow();
        let reached = voters.iter().filter(|voter| match voters.contains(&own) {
            true => **voter == own || self.peers.was_reached_within(**voter, window),
            false => live.contains_key(voter),
        });
        (reached.count(), voters.len())
    }

    /// The index that a linearizable read must have applied, by the leader's word.
    pub(crate) async fn read_index(&self) -> Result<LogIndex, String> {
        match self.usable_leader() {
            None => Err(self.why_no_leader()),
            Some(leader) if leader == self.identity.node_id => self.read_index_here().await,
            Some(leader) => self.read_index_from(leader).await,
        }
    }

    /// As the leader: confirmed by a quorum that it still is.
    pub(crate) async fn read_index_here(&self) -> Result<LogIndex, String> {
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read_log_id, _applied)) => Ok(LogIndex::new(read_log_id.index())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => Err(self.why_no_leader()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn read_index_from(&self, leader: NodeId) -> Result<LogIndex, String> {
        let channel = self.peers.channel(leader).map_err(|error| error.to_string())?;
        let answer = RaftClient::new(channel).read_index(peer::ReadIndexRequest {}).await;
        let answer = answer.map_err(|status| format!("node {leader}, which leads: {}", status.message()))?;
        match answer.into_inner().result {
            Some(WireReadIndex::Index(index)) => Ok(LogIndex::new(index)),
            Some(WireReadIndex::NotLeader(_)) => Err(format!("node {leader} does not lead any more")),
            None => Err(format!("node {leader} gave an empty answer")),
        }
    }

    async fn digest_of(&self, member: NodeId, index: LogIndex, timeout: Duration) -> Result<String, String> {
        if member == self.identity.node_id {
            let digest = self.applied.digest_at(index);
            return digest
                .map(hex::encode)
                .ok_or_else(|| "this node has not applied the checkpoint".to_owned());
        }
        let channel = self.peers.channel(member).map_err(|error| error.to_string())?;
        let mut request = tonic::Request::new(peer::CheckpointDigestRequest { index: index.get() });
        request.set_timeout(timeout);
        let mut client = RaftClient::new(channel);
        match tokio::time::timeout(timeout, client.checkpoint_digest(request)).await {
            Ok(Ok(answer)) => Ok(hex::encode(answer.into_inner().digest)),
            Ok(Err(status)) => Err(status.message().to_owned()),
            Err(_) => Err(format!("no answer within {timeout:?}")),
        }
    }

    /// The voter that has most of the log, is not being drained, and has
    /// answered lately.
    fn best_successor(&self) -> Option<NodeId> {
        let state = self.applied.state().state;
        let window = self.timing.election_timeout_max;
        let is_fit = |candidate: &NodeId| {
            *candidate != self.identity.node_id
                && self.peers.was_reached_within(*candidate, window)
                && state.members.get(*candidate).is_some_and(|member| !member.draining)
        };
        let voters = self.status.borrow().voters.clone();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let matched = |voter: &NodeId| replication.get(&voter.get()).cloned().flatten();
        voters.into_iter().filter(is_fit).max_by_key(matched)
    }
}
