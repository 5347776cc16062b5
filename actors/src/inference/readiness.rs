//! Hears from every live peer what it has loaded, over a stream that the peer
//! keeps alive, and keeps what it has heard for routing and placement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use starling_proto::peer::WatchReadinessRequest;
use starling_proto::peer::peer_inference_client::PeerInferenceClient;
use starling_raft::peers::Peers;
use starling_raft::state::NodeId;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::backoff::Backoff;
use super::readiness_view::{NodeReadiness, ReadinessView};

/// A peer says something at least so often.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(500);

/// A peer that has said nothing for so long is not relied on.
const SILENCE_MAX: Duration = Duration::from_secs(3);
const RECONNECT_WAIT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(2);
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What this node says of itself and has heard of the others.
#[derive(Debug)]
pub struct ReadinessBoard {
    this_node: NodeId,
    left: AtomicBool,
    own: watch::Sender<Arc<NodeReadiness>>,
    view: watch::Sender<Arc<ReadinessView>>,
}

impl ReadinessBoard {
    /// Knows nothing yet.
    pub fn new(this_node: NodeId) -> Self {
        let (own, _) = watch::channel(Arc::default());
        let (view, _) = watch::channel(Arc::default());
        Self { this_node, left: AtomicBool::new(false), own, view }
    }

    /// What is known now, this node included.
    pub fn view(&self) -> Arc<ReadinessView> {
        Arc::clone(&self.view.borrow())
    }

    /// Changes of [`ReadinessBoard::view`].
    pub fn watch_view(&self) -> watch::Receiver<Arc<ReadinessView>> {
        self.view.subscribe()
    }

    /// What this node says of itself.
    pub fn own(&self) -> Arc<NodeReadiness> {
        Arc::clone(&self.own.borrow())
    }

    /// Changes of [`ReadinessBoard::own`].
    pub fn watch_own(&self) -> watch::Receiver<Arc<NodeReadiness>> {
        self.own.subscribe()
    }

    /// Says what this node has, to itself and to all that listen.
    pub fn announce(&self, readiness: NodeReadiness) {
        let changed = self.own.send_if_modified(|own| {
            // Looked at under the lock: what is announced while this node
            // leaves is taken back by leaving.
            if self.left.load(Ordering::SeqCst) || **own == readiness {
                return false;
            }
            *own = Arc::new(readiness.clone());
            true
        });
        if changed {
            self.heard(self.this_node, readiness, 0);
        }
    }

    /// Says that this node has nothing any more, whatever is announced later.
    pub fn leave(&self) {
        self.left.store(true, Ordering::SeqCst);
        self.own.send_replace(Arc::default());
        self.heard(self.this_node, NodeReadiness::default(), 0);
    }

    /// Notes what a node says of itself.
    pub fn heard(&self, node_id: NodeId, readiness: NodeReadiness, in_flight: u32) {
        self.view.send_if_modified(|view| replace(view, view.with(node_id, readiness, in_flight)));
    }

    /// No longer relies on what a node has said.
    pub fn forget(&self, node_id: NodeId) {
        self.view.send_if_modified(|view| replace(view, view.without(node_id)));
    }

    /// Forgets whoever is not alive.
    fn retain(&self, alive: &BTreeSet<NodeId>) {
        for node_id in self.view().nodes().filter(|node_id| *node_id != self.this_node) {
            if !alive.contains(&node_id) {
                self.forget(node_id);
            }
        }
    }
}

fn replace(view: &mut Arc<ReadinessView>, newer: Option<ReadinessView>) -> bool {
    let Some(newer) = newer else { return false };
    *view = Arc::new(newer);
    true
}

/// Listens to every live peer, without end. Dropping it stops listening.
pub async fn follow_peers(board: Arc<ReadinessBoard>, peers: Peers) {
    let mut live = peers.live();
    let mut listeners: BTreeMap<NodeId, AbortOnDropHandle<()>> = BTreeMap::new();
    loop {
        let alive: BTreeSet<NodeId> = live.borrow_and_update().keys().copied().collect();
        listeners.retain(|node_id, _| alive.contains(node_id));
        board.retain(&alive);
        for node_id in alive.iter().filter(|node_id| **node_id != board.this_node) {
            listeners.entry(*node_id).or_insert_with(|| {
                let listening = listen_without_end(Arc::clone(&board), peers.clone(), *node_id);
                AbortOnDropHandle::new(tokio::spawn(listening))
            });
        }
        // The sweep forgets what a listener wrote while it was being stopped.
        let woken = tokio::time::timeout(SWEEP_INTERVAL, live.changed()).await;
        if matches!(woken, Ok(Err(_))) {
            return;
        }
    }
}

async fn listen_without_end(board: Arc<ReadinessBoard>, peers: Peers, node_id: NodeId) {
    let mut backoff = Backoff::new(RECONNECT_WAIT_MIN, RECONNECT_WAIT_MAX);
    loop {
        let reason = listen(&board, &peers, node_id, &mut backoff).await;
        board.forget(node_id);
        tracing::debug!(peer = %node_id, %reason, "readiness stream ended");
        tokio::time::sleep(backoff.next_wait()).await;
    }
}

/// Listens until the stream breaks; answers why it did.
async fn listen(board: &ReadinessBoard, peers: &Peers, node_id: NodeId, backoff: &mut Backoff) -> String {
    let channel = match peers.channel(node_id) {
        Ok(channel) => channel,
        Err(unavailable) => return unavailable.to_string(),
    };
    let mut client = PeerInferenceClient::new(channel);
    let opened = tokio::time::timeout(SILENCE_MAX, client.watch_readiness(WatchReadinessRequest {})).await;
    let mut stream = match opened {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return status.to_string(),
        Err(_) => return format!("no answer within {SILENCE_MAX:?}"),
    };
    loop {
        let message = match tokio::time::timeout(SILENCE_MAX, stream.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return "the peer ended it".to_owned(),
            Ok(Err(status)) => return status.to_string(),
            Err(_) => return format!("silent for {SILENCE_MAX:?}"),
        };
        if message.node_id != node_id.get() {
            return format!("node {} answers at its address", message.node_id);
        }
        backoff.reset();
        board.heard(node_id, NodeReadiness::from_wire(&message), message.in_flight);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use starling_raft::state::Ordinal;

    use super::*;
    use crate::inference::routing_table::VersionId;

    fn loaded(ordinal: u64) -> NodeReadiness {
        let id = VersionId { model_id: 1, ordinal: Ordinal::new(ordinal) };
        NodeReadiness { loaded: [(id, 8)].into_iter().collect(), ..NodeReadiness::default() }
    }

    #[test]
    fn an_announcement_is_seen_by_this_node_and_by_listeners_once() {
        let board = ReadinessBoard::new(NodeId::new(1));
        let mut listener = board.watch_own();
        board.announce(loaded(1));
        assert!(listener.has_changed().unwrap());
        assert_eq!(**listener.borrow_and_update(), loaded(1));
        assert_eq!(board.view().node(NodeId::new(1)), Some(&loaded(1)));
        board.announce(loaded(1));
        assert!(!listener.has_changed().unwrap());
    }

    #[test]
    fn a_node_that_has_left_stays_empty() {
        let board = ReadinessBoard::new(NodeId::new(1));
        board.announce(loaded(1));
        board.leave();
        board.announce(loaded(1));
        assert_eq!(*board.own(), NodeReadiness::default());
        assert_eq!(board.view().node(NodeId::new(1)), Some(&NodeReadiness::default()));
    }

    #[test]
    fn the_dead_are_forgotten_and_this_node_never_is() {
        let board = ReadinessBoard::new(NodeId::new(1));
        board.announce(loaded(1));
        board.heard(NodeId::new(2), loaded(1), 0);
        board.heard(NodeId::new(3), loaded(1), 0);
        board.retain(&BTreeSet::from([NodeId::new(3)]));
        assert_eq!(board.view().nodes().map(NodeId::get).collect::<Vec<_>>(), [1, 3]);
    }
}
