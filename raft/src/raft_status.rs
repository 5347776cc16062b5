//! How this node stands in Raft, as openraft's metrics and the leader's calls tell it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant as _, Raft, RaftMetrics, ServerState};
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

fn status_of(
    metrics: &RaftMetrics<TypeConfig>,
    contact: &LeaderContact,
    applied: &Applied,
    lease: Duration,
) -> RaftStatus {
    let index = |log_id: &Option<crate::wire::LogId>| log_id.map_or(0, |log_id| log_id.index);
    let membership = metrics.membership_config.membership();
    let voters: Vec<NodeId> = membership.voter_ids().map(NodeId::new).collect();
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
