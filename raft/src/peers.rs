//! Channels to the other nodes: found by gossip first and the log second, each
//! call stamped with the cluster, from whom and to whom.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::consensus::AppliedState;
use crate::dial::dial;
use crate::gossip::LivePeers;
use crate::state::{ClusterId, NodeId};

/// Metadata key: the cluster that the caller belongs to.
pub const CLUSTER_ID_KEY: &str = "x-starling-cluster-id";
/// Metadata key: who calls.
pub const FROM_KEY: &str = "x-starling-from";
/// Metadata key: who is called.
pub const TO_KEY: &str = "x-starling-to";

/// Largest message between peers: an append of many entries is the largest.
pub const PEER_MESSAGE_BYTES_MAX: usize = 32 << 20;

/// Who this node is to its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The cluster it belongs to.
    pub cluster_id: ClusterId,
    /// Its id there.
    pub node_id: NodeId,
}

/// Stamps calls with `x-starling-cluster-id`, `x-starling-from` and
/// `x-starling-to`.
#[derive(Clone)]
pub struct Stamp {
    cluster_id: MetadataValue<Ascii>,
    from: MetadataValue<Ascii>,
    to: MetadataValue<Ascii>,
}

impl tonic::service::Interceptor for Stamp {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER_ID_KEY, self.cluster_id.clone());
        metadata.insert(FROM_KEY, self.from.clone());
        metadata.insert(TO_KEY, self.to.clone());
        Ok(request)
    }
}

/// A stamped channel to one node; the generated clients take it.
pub type PeerChannel = InterceptedService<Channel, Stamp>;

/// Why a peer cannot be called.
#[derive(Debug, Clone, thiserror::Error)]
#[error("node {node_id} cannot be called: {reason}")]
pub struct PeerUnavailable {
    /// Whom.
    pub node_id: NodeId,
    /// Why.
    pub reason: String,
}

/// Connections are apart, so that megabytes on one never delay a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Lane {
    /// Raft's appends, votes and heartbeats.
    Raft,
    /// Snapshots, artefacts, forwarded predictions.
    Bulk,
}

struct Cached {
    address: String,
    channel: Channel,
}

struct Shared {
    identity: PeerIdentity,
    live: watch::Receiver<LivePeers>,
    applied: watch::Receiver<AppliedState>,
    /// Addresses from Raft's own membership: all that a newcomer knows before it has applied anything.
    raft_addresses: Mutex<HashMap<NodeId, String>>,
    channels: Mutex<HashMap<(NodeId, Lane), Cached>>,
    contacts: Mutex<HashMap<NodeId, Instant>>,
}

/// The channels. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

impl Peers {
    /// Channels as `identity`, to whoever `live` or `applied` name.
    pub fn new(
        identity: PeerIdentity,
        live: watch::Receiver<LivePeers>,
        applied: watch::Receiver<AppliedState>,
    ) -> Self {
        let shared = Shared {
            identity,
            live,
            applied,
            raft_addresses: Mutex::default(),
            channels: Mutex::default(),
            contacts: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Who this node is.
    pub fn identity(&self) -> PeerIdentity {
        self.shared.identity
    }

    /// A channel to a node; connects in the background, and again when its
    /// address changes.
    pub fn channel(&self, node_id: NodeId) -> Result<PeerChannel, PeerUnavailable> {
        self.channel_on(node_id, Lane::Bulk)
    }

    /// The channel that carries nothing but Raft's small messages.
    pub(crate) fn raft_channel(&self, node_id: NodeId) -> Result<PeerChannel, PeerUnavailable> {
        self.channel_on(node_id, Lane::Raft)
    }

    /// Who is alive, as gossip at this node sees it. Includes this node.
    pub fn live(&self) -> watch::Receiver<LivePeers> {
        self.shared.live.clone()
    }

    /// Where a node listens for its peers, by the newest that is known.
    pub fn address(&self, node_id: NodeId) -> Option<String> {
        if let Some(peer) = self.shared.live.borrow().get(&node_id) {
            return Some(peer.addresses.peer.clone());
        }
        if let Some(member) = self.shared.applied.borrow().state.members.get(node_id) {
            return Some(member.addresses.peer.clone());
        }
        lock(&self.shared.raft_addresses).get(&node_id).cloned()
    }

    /// What Raft's membership or a join answer says about a node's address; the last resort.
    pub(crate) fn learn_address(&self, node_id: NodeId, address: &str) {
        lock(&self.shared.raft_addresses).insert(node_id, address.to_owned());
    }

    /// Notes that a node has just answered.
    pub(crate) fn note_contact(&self, node_id: NodeId) {
        lock(&self.shared.contacts).insert(node_id, Instant::now());
    }

    /// Whether a node has answered within `window`.
    pub(crate) fn was_reached_within(&self, node_id: NodeId, window: Duration) -> bool {
        lock(&self.shared.contacts).get(&node_id).is_some_and(|at| at.elapsed() <= window)
    }

    fn channel_on(&self, node_id: NodeId, lane: Lane) -> Result<PeerChannel, PeerUnavailable> {
        let unavailable = |reason: String| PeerUnavailable { node_id, reason };
        let address = self
            .address(node_id)
            .ok_or_else(|| unavailable("neither gossip nor the log knows its address".to_owned()))?;
        let mut channels = lock(&self.shared.channels);
        let known = channels.get(&(node_id, lane)).filter(|cached| cached.address == address);
        let channel = match known {
            Some(cached) => cached.channel.clone(),
            None => {
                let channel = dial(&address).map_err(|error| unavailable(error.to_string()))?;
                let cached = Cached { address, channel: channel.clone() };
                channels.insert((node_id, lane), cached);
                channel
            }
        };
        Ok(InterceptedService::new(channel, self.stamp(node_id)))
    }

    fn stamp(&self, to: NodeId) -> Stamp {
        let PeerIdentity { cluster_id, node_id } = self.shared.identity;
        Stamp {
            cluster_id: ascii(&cluster_id.to_string()),
            from: MetadataValue::from(node_id.get()),
            to: MetadataValue::from(to.get()),
        }
    }
}

fn ascii(text: &str) -> MetadataValue<Ascii> {
    // A UUID's text always is a header value; an empty one would be refused by the other side.
    MetadataValue::try_from(text).unwrap_or_else(|_| MetadataValue::from_static(""))
}

/// A panic while one of these maps was held leaves it whole: all updates are single inserts.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
