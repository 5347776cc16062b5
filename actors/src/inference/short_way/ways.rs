//! Which connections a core has: one to each peer that it had something to ask,
//! opened beside the first request and kept until the peer leaves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use starling_raft::peers::Peers;
use starling_raft::state::NodeId;

use super::Over;
use super::asking::{Asking, Pending};
use crate::inference::forward::Forwarded;
use crate::inference::local::core;

/// A peer that refused or broke the connection is not dialled sooner.
const REDIAL_PAUSE: Duration = Duration::from_secs(1);

/// All connections of this node, by core. Each core touches its own only.
pub(in crate::inference) struct ShortWays {
    peers: Peers,
    cores: Box<[Mutex<HashMap<NodeId, Way>>]>,
}

enum Way {
    Opening,
    Open(Arc<Asking>),
    Closed { until: Instant },
}

impl ShortWays {
    /// None is open yet. Without cores there never is one.
    pub(in crate::inference) fn new(peers: Peers, cores: usize) -> Self {
        Self { peers, cores: (0..cores).map(|_| Mutex::default()).collect() }
    }

    /// Sends a request to a peer. `None`: it has to go the ordinary way.
    pub(in crate::inference) fn ask(
        self: &Arc<Self>,
        node_id: NodeId,
        forwarded: Forwarded<'_>,
        remaining: Option<Duration>,
    ) -> Option<Pending> {
        let core = core::here()?;
        self.open_way(core, node_id)?.ask(forwarded, remaining)
    }

    fn open_way(self: &Arc<Self>, core: usize, node_id: NodeId) -> Option<Arc<Asking>> {
        let mut ways = lock(self.cores.get(core)?);
        match ways.get(&node_id) {
            Some(Way::Open(asking)) if !asking.is_over() => return Some(Arc::clone(asking)),
            // Whoever keeps it closes it in a moment.
            Some(Way::Opening | Way::Open(_)) => return None,
            Some(Way::Closed { until }) if Instant::now() < *until => return None,
            Some(Way::Closed { .. }) | None => {}
        }
        ways.insert(node_id, Way::Opening);
        // On this core's own runtime, and aborted with it.
        tokio::spawn(Arc::clone(self).keep(core, node_id));
        None
    }

    /// Opens a connection and keeps it to its end.
    async fn keep(self: Arc<Self>, core: usize, node_id: NodeId) {
        let over = self.open_and_run(core, node_id).await;
        tracing::debug!(peer = %node_id, %over, "requests are forwarded to it the ordinary way for now");
        let is_live = self.peers.live().borrow().contains_key(&node_id);
        let Some(ways) = self.cores.get(core) else { return };
        match is_live {
            true => lock(ways).insert(node_id, Way::Closed { until: Instant::now() + REDIAL_PAUSE }),
            false => lock(ways).remove(&node_id),
        };
    }

    async fn open_and_run(&self, core: usize, node_id: NodeId) -> Over {
        let Some(address) = self.peers.address(node_id) else { return Over::Gone };
        let (asking, mut incoming) = match Asking::open(&address, self.peers.identity(), node_id).await {
            Ok(opened) => opened,
            Err(over) => return over,
        };
        if let Some(ways) = self.cores.get(core) {
            lock(ways).insert(node_id, Way::Open(Arc::clone(&asking)));
        }
        let mut live = self.peers.live();
        let over = tokio::select! {
            biased;
            over = asking.run(&mut incoming) => over,
            // A node that died says nothing: gossip does.
            _ = live.wait_for(|live| live.get(&node_id).is_none_or(|peer| peer.addresses.peer != address)) => {
                Over::Gone
            }
        };
        asking.end(&over);
        over
    }
}

/// A panic while it was held leaves it whole: all updates are single inserts.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
