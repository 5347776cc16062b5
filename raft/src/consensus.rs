//! The one handle through which the rest of the system asks the replicated log:
//! propose, read, watch.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use crate::state::{Accepted, ClusterId, Command, LogIndex, NodeId, Principal, Rejection, RequestId, State};

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

/// The handle. Cheap to clone.
#[derive(Clone)]
pub struct Consensus {}

impl Consensus {
    /// This node.
    pub fn node_id(&self) -> NodeId {
        todo!()
    }

    /// This cluster.
    pub fn cluster_id(&self) -> ClusterId {
        todo!()
    }

    /// How many times this node has started under its identity, this time included.
    pub fn boot(&self) -> u32 {
        todo!()
    }

    /// What this node has applied, however old it is. Does not wait.
    pub fn applied(&self) -> AppliedState {
        todo!()
    }

    /// Changes of [`Consensus::applied`]; intermediate states may be skipped.
    pub fn watch_applied(&self) -> watch::Receiver<AppliedState> {
        todo!()
    }

    /// How this node stands in Raft.
    pub fn status(&self) -> RaftStatus {
        todo!()
    }

    /// Changes of [`Consensus::status`].
    pub fn watch_status(&self) -> watch::Receiver<RaftStatus> {
        todo!()
    }

    /// Proposes a command, from whichever node: forwards to the leader, retries
    /// across elections under the same request id, until `timeout`.
    /// Cancelling does not take the command back.
    pub async fn propose(
        &self,
        principal: &Principal,
        request_id: RequestId,
        command: Command,
        timeout: Duration,
    ) -> Result<Accepted, ProposeError> {
        let _ = (principal, request_id, command, timeout);
        todo!()
    }

    /// After this returns, [`Consensus::applied`] includes every write that was
    /// acknowledged before the call (ReadIndex).
    pub async fn linearize(&self, timeout: Duration) -> Result<AppliedState, ReadError> {
        let _ = timeout;
        todo!()
    }

    /// Waits until this node has applied `index`.
    pub async fn wait_applied(&self, index: LogIndex, timeout: Duration) -> Result<AppliedState, ReadError> {
        let _ = (index, timeout);
        todo!()
    }

    /// Hands leadership to another voter if this node leads. Returns once it no
    /// longer does, or after `timeout`.
    pub async fn transfer_leadership(&self, timeout: Duration) {
        let _ = timeout;
        todo!()
    }

    /// Proposes a checkpoint; answers with its index and, for each member, the
    /// digest it recorded there or why it did not answer.
    pub async fn verify(
        &self,
        principal: &Principal,
        timeout: Duration,
    ) -> Result<(LogIndex, Vec<(NodeId, Result<String, String>)>), ProposeError> {
        let _ = (principal, timeout);
        todo!()
    }
}
