//! How this node stands in Raft, as openraft's metrics and the leader's calls tell it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{BasicNode, Instant as _, Membership, Raft, RaftMetrics, ServerState};
use tokio::sync::watch;

use crate::consensus::RaftStatus;
use crate::raft_types::TypeConfig;
use crate::state::NodeId;
use crate::state_machine::{Applied, StateMachine};

/// When a leader last called this node. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LeaderContact(Arc<Mutex<Option<Instant>>>);

impl LeaderContact {
    /// It has just called, and this node followed.
    pub fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_within(&self, window: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() <= window)
    }
}

/// Follows openraft's metrics until it stops. `lease` bounds how old news of a
/// quorum may be.
pub fn follow(
    raft: &Raft<TypeConfig, StateMachine>,
    contact: LeaderContact,
    applied: Applied,
    lease: Duration,
) -> watch::Receiver<RaftStatus> {
    let mut metrics = raft.metrics();
    let read = move |metrics: &RaftMetrics<TypeConfig>| status_of(metrics, &contact, &applied, lease);
    let (publish, status) = watch::channel(read(&metrics.borrow_watched()));
    tokio::spawn(async move {
        // A quorum is lost by silence, which changes no metric: hence the clock.
        let mut clock = tokio::time::interval(lease / 4);
        loop {
            let changed = tokio::select! {
                changed = metrics.changed() => changed,
                _ = clock.tick() => Ok(()),
                () = publish.closed() => return,
            };
            let now = read(&metrics.borrow_watched());
            publish.send_if_modified(|known| {
                let is_news = *known != now;
                *known = now;
                is_news
            });
            if changed.is_err() {
                return;
            }
        }
    });
    status
}

/// Those who vote whichever configuration is asked: while a change is under
/// way, whoever is coming does not count yet, nor whoever is going.
fn settled_voters(membership: &Membership<u64, BasicNode>) -> Vec<NodeId> {
    let configs = membership.get_joint_config();
    let in_all = |voter: &u64| configs.iter().all(|config| config.contains(voter));
    membership.voter_ids().filter(in_all).map(NodeId::new).collect()
}

/// Whether a change of who votes is neither under way nor waiting for its commit.
pub(crate) fn membership_is_settled(metrics: &RaftMetrics<TypeConfig>) -> bool {
    let (effective, committed) = (&metrics.membership_config, &metrics.committed_membership_config);
    effective.log_id() == committed.log_id() && effective.membership().get_joint_config().len() <= 1
}

fn status_of(
    metrics: &RaftMetrics<TypeConfig>,
    contact: &LeaderContact,
    applied: &Applied,
    lease: Duration,
) -> RaftStatus {
    let index = |log_id: &Option<crate::wire::LogId>| log_id.map_or(0, |log_id| log_id.index);
    let membership = metrics.committed_membership_config.membership();
    let voters = settled_voters(membership);
    let is_leader = metrics.state == ServerState::Leader;
    let has_quorum = if is_leader {
        let is_alone = voters == [NodeId::new(metrics.id)];
        is_alone || metrics.last_quorum_acked.is_some_and(|at| at.elapsed() <= lease)
    } else {
        metrics.current_leader.is_some() && contact.is_within(lease)
    };
    RaftStatus {
        term: metrics.current_term,
        leader: metrics.current_leader.map(NodeId::new),
        is_leader,
        last_log_index: metrics.last_log_index.unwrap_or(0),
        committed_index: index(&metrics.local_committed),
        applied_index: index(&metrics.last_applied),
        snapshot_index: index(&metrics.snapshot),
        purged_index: index(&metrics.purged),
        voters,
        learners: membership.learner_ids().map(NodeId::new).collect(),
        has_quorum: has_quorum && metrics.running_state.is_ok(),
        snapshots_installed: applied.snapshots_installed(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn whoever_is_coming_does_not_vote_before_the_change_is_through() {
        let nodes: BTreeMap<u64, BasicNode> = [1000, 1004, 1005].map(|id| (id, BasicNode::default())).into();
        let (old, new) = (BTreeSet::from([1000]), BTreeSet::from([1000, 1004, 1005]));
        let under_way = Membership::new(vec![old, new.clone()], nodes.clone()).unwrap();
        assert_eq!(settled_voters(&under_way), [NodeId::new(1000)]);
        let through = Membership::new(vec![new], nodes).unwrap();
        assert_eq!(settled_voters(&through), [1000, 1004, 1005].map(NodeId::new));
    }
}
