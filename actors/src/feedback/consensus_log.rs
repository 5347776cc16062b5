//! The replicated log of this node's cluster, as feedback sees it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use starling_raft::consensus::{Consensus, ProposeError};
use starling_raft::state::rollouts::{FeedbackDelta, RewardSum, RewardTotals};
use starling_raft::state::{Command, NodeId, Principal, Rejection, RequestId, RolloutCommand};
use uuid::Uuid;

use super::learnt::Sealed;
use super::replicated::{Belonging, NotTaken, Replicated, View};
use super::state_ledger::StateLedger;

/// Through the one handle on the log.
pub struct ConsensusLog {
    consensus: Consensus,
    /// The newest that was looked at: many rewards are judged by one state.
    view: Mutex<Option<View>>,
}

impl ConsensusLog {
    /// Of this node.
    pub fn new(consensus: Consensus) -> Self {
        Self { consensus, view: Mutex::new(None) }
    }
}

#[tonic::async_trait]
impl Replicated for ConsensusLog {
    fn view(&self) -> View {
        let applied = self.consensus.applied();
        let mut newest = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        match newest.as_ref().filter(|view| view.applied == applied.index) {
            Some(view) => view.clone(),
            None => {
                let log_time = applied.state.cluster.log_time;
                let ledger = Arc::new(StateLedger::new(applied.state));
                newest.insert(View { ledger, log_time, applied: applied.index }).clone()
            }
        }
    }

    fn confirmed(&self) -> u64 {
        self.consensus.applied().state.rollouts.feedback_mark(self.consensus.node_id())
    }

    fn belonging(&self, node: NodeId) -> Belonging {
        let members = &self.consensus.applied().state.members;
        if node == self.consensus.node_id() {
            Belonging::Itself
        } else if members.get(node).is_some() {
            Belonging::Member
        } else if members.was_removed(node) {
            Belonging::Removed
        } else {
            Belonging::Stranger
        }
    }

    async fn catch_up(&self, timeout: Duration) -> Result<(), String> {
        self.consensus.linearize(timeout).await.map(drop).map_err(|error| error.to_string())
    }

    async fn propose(&self, sealed: &Sealed, timeout: Duration) -> Result<(), NotTaken> {
        let node = self.consensus.node_id();
        let delta = delta_of(node, sealed).map_err(NotTaken::Never)?;
        let command = Command::Rollout(RolloutCommand::RecordFeedback(delta));
        let request_id = request_id(node, sealed.number);
        match self.consensus.propose(&Principal::node(node), request_id, command, timeout).await {
            Ok(_) => Ok(()),
            Err(ProposeError::Rejected(
                rejection @ (Rejection::FeatureNotEnabled { .. } | Rejection::UnknownNode(_)),
            )) => Err(NotTaken::NotNow(rejection.to_string())),
            Err(ProposeError::Rejected(rejection)) => Err(NotTaken::Never(rejection.to_string())),
            Err(error) => Err(NotTaken::NotNow(error.to_string())),
        }
    }
}

/// The same for the same delta.
fn request_id(node: NodeId, number: u64) -> RequestId {
    RequestId::new(Uuid::from_u64_pair(node.get(), number))
}

fn delta_of(node: NodeId, sealed: &Sealed) -> Result<FeedbackDelta, String> {
    let mut sums = Vec::new();
    for (cell, totals) in sealed.delta.cells() {
        sums.push(RewardSum {
            rollout: cell.rollout.parse().map_err(|error| format!("{error}"))?,
            started_at: cell.started_at,
            arm: cell.arm,
            epoch: cell.epoch,
            cluster: cell.cluster,
            slice: cell.slice,
            totals: RewardTotals {
                count: totals.count,
                sum: totals.sum,
                sum_of_squares: totals.sum_of_squares,
            },
        });
    }
    Ok(FeedbackDelta { node, sequence: sealed.number, sums })
}
