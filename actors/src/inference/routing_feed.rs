//! Keeps the routing table as new as the log that this node has applied.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use starling_raft::consensus::AppliedState;
use starling_raft::state::{NodeId, State};
use tokio::sync::watch;

use super::routing_table::RoutingTable;

/// The table in force, and how new it is.
#[derive(Debug)]
pub struct RoutingFeed {
    table: ArcSwap<RoutingTable>,
    draining: ArcSwap<BTreeSet<NodeId>>,
    applied_index: watch::Sender<u64>,
}

/// This node has not applied an index in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StillBehind {
    /// How far it has come.
    pub applied_index: u64,
}

impl RoutingFeed {
    /// From what is applied now.
    pub fn new(applied: &AppliedState) -> Self {
        let table = RoutingTable::default().updated(&applied.state).unwrap_or_default();
        let (applied_index, _) = watch::channel(applied.index.get());
        Self {
            table: ArcSwap::from_pointee(table),
            draining: ArcSwap::from_pointee(draining(&applied.state)),
            applied_index,
        }
    }

    /// The table in force. Wait-free; not to be held across an await.
    pub fn table(&self) -> Guard<Arc<RoutingTable>> {
        self.table.load()
    }

    /// Whether work is kept away from a node. Wait-free.
    pub fn is_draining(&self, node_id: NodeId) -> bool {
        self.draining.load().contains(&node_id)
    }

    /// The log index that the table reflects.
    pub fn applied_index(&self) -> u64 {
        *self.applied_index.borrow()
    }

    /// Takes a newer state; answers whether any model or route has changed.
    pub fn apply(&self, applied: &AppliedState) -> bool {
        let updated = self.table.load().updated(&applied.state);
        let changed = updated.is_some();
        if let Some(table) = updated {
            self.table.store(Arc::new(table));
        }
        let draining = draining(&applied.state);
        if **self.draining.load() != draining {
            self.draining.store(Arc::new(draining));
        }
        self.applied_index.send_if_modified(|index| {
            let newer = applied.index.get() > *index;
            *index = (*index).max(applied.index.get());
            newer
        });
        changed
    }

    /// Returns once the table reflects `index`. Cancelling is harmless.
    pub async fn wait_for(&self, index: u64, timeout: Duration) -> Result<(), StillBehind> {
        if self.applied_index() >= index {
            return Ok(());
        }
        let mut applied_index = self.applied_index.subscribe();
        let reached = applied_index.wait_for(|applied| *applied >= index);
        match tokio::time::timeout(timeout, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(StillBehind { applied_index: self.applied_index() }),
        }
    }
}

fn draining(state: &State) -> BTreeSet<NodeId> {
    state.members.iter().filter(|member| member.draining).map(|member| member.node_id).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use starling_raft::state::LogIndex;

    use super::*;
    use crate::inference::test_states::TestState;

    fn applied(cluster: &TestState) -> AppliedState {
        AppliedState { index: LogIndex::new(cluster.index), state: Arc::new(cluster.state.clone()) }
    }

    #[test]
    fn the_table_follows_and_says_whether_it_changed() {
        let mut cluster = TestState::default();
        let feed = RoutingFeed::new(&applied(&cluster));
        assert!(feed.table().model("digits").is_none());
        cluster.register("digits");
        assert!(feed.apply(&applied(&cluster)));
        assert!(feed.table().model("digits").is_some());
        cluster.join();
        assert!(!feed.apply(&applied(&cluster)));
        assert_eq!(feed.applied_index(), 3);
    }

    #[test]
    fn a_drained_node_is_known() {
        let mut cluster = TestState::default();
        let (first, second) = (cluster.join(), cluster.join());
        let feed = RoutingFeed::new(&applied(&cluster));
        assert!(!feed.is_draining(first));
        cluster.drain(first);
        feed.apply(&applied(&cluster));
        assert!(feed.is_draining(first));
        assert!(!feed.is_draining(second));
    }

    #[tokio::test]
    async fn waiting_ends_when_the_index_is_reached() {
        let mut cluster = TestState::default();
        let feed = Arc::new(RoutingFeed::new(&applied(&cluster)));
        let waiting = tokio::spawn({
            let feed = Arc::clone(&feed);
            async move { feed.wait_for(2, Duration::from_secs(30)).await }
        });
        tokio::task::yield_now().await;
        cluster.register("digits");
        feed.apply(&applied(&cluster));
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn waiting_is_bounded_and_says_how_far_the_node_has_come() {
        let mut cluster = TestState::default();
        cluster.register("digits");
        let feed = RoutingFeed::new(&applied(&cluster));
        let late = feed.wait_for(9, Duration::from_millis(10)).await;
        assert_eq!(late, Err(StillBehind { applied_index: 2 }));
    }
}
