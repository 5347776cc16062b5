//! Channels to the other nodes: found by gossip first and the log second, each
//! call stamped with the cluster, from whom and to whom.

use tokio::sync::watch;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::gossip::LivePeers;
use crate::state::NodeId;

/// Stamps calls with `x-starling-cluster-id`, `x-starling-from` and
/// `x-starling-to`.
#[derive(Clone)]
pub struct Stamp {}

impl tonic::service::Interceptor for Stamp {
    fn call(&mut self, request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
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

/// The channels. Cheap to clone.
#[derive(Clone)]
pub struct Peers {}

impl Peers {
    /// A channel to a node; connects in the background, and again when its
    /// address changes.
    pub fn channel(&self, node_id: NodeId) -> Result<PeerChannel, PeerUnavailable> {
        let _ = node_id;
        todo!()
    }

    /// Who is alive, as gossip at this node sees it. Includes this node.
    pub fn live(&self) -> watch::Receiver<LivePeers> {
        todo!()
    }
}
