//! Who is alive, as this node sees it: chitchat over our own transport. A hint,
//! never a vote.

use std::collections::BTreeMap;
use std::time::Duration;

use starling_proto::peer::GossipPacket;
use tokio::sync::watch;
use tonic::Status;

use crate::state::{Addresses, ClusterId, NodeId, NodeUuid};

/// What gossip says about one live member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LivePeer {
    /// Where it listens now (newer than the log, after a restart on other ports).
    pub addresses: Addresses,
    /// How far it has applied the log; up to a second old.
    pub applied_index: u64,
    /// Requests in flight there; up to a second old.
    pub load: u32,
    /// It answers requests.
    pub ready: bool,
}

/// All members that this node believes alive, itself included.
pub type LivePeers = BTreeMap<NodeId, LivePeer>;

/// How this node gossips.
#[derive(Debug, Clone)]
pub struct GossipConfig {
    /// Packets of other clusters are refused.
    pub cluster_id: ClusterId,
    /// This node.
    pub node_id: NodeId,
    /// Tells two processes that claim one id apart.
    pub node_uuid: NodeUuid,
    /// Higher than at every earlier start of this node.
    pub generation: u64,
    /// What others should dial.
    pub addresses: Addresses,
    /// `--join` and the members' addresses in the log, as `host:port`.
    pub seeds: Vec<String>,
    /// Between rounds.
    pub interval: Duration,
}

/// Why gossip could not start.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    /// Others could not dial it either.
    #[error(
        "this node's own peer address '{address}' does not resolve: {reason}; set --advertise to what others can dial"
    )]
    OwnAddress {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
    /// chitchat said no.
    #[error("gossip could not start: {0}")]
    Start(String),
}

/// Where packets come in; given to the Membership service.
#[derive(Clone)]
pub struct GossipInlet {}

impl GossipInlet {
    /// Takes a packet in; does not wait. Too many at once are refused.
    #[allow(clippy::result_large_err)]
    pub fn receive(&self, packet: GossipPacket) -> Result<(), Status> {
        let _ = packet;
        todo!()
    }
}

/// Running gossip. Dropping it stops it.
pub struct Gossip {}

impl Gossip {
    /// Starts to gossip, in background tasks.
    pub async fn start(config: GossipConfig) -> Result<Self, GossipError> {
        let _ = config;
        todo!()
    }

    /// Where packets come in.
    pub fn inlet(&self) -> GossipInlet {
        todo!()
    }

    /// Who is alive. Holds this node from the start.
    pub fn live(&self) -> watch::Receiver<LivePeers> {
        todo!()
    }

    /// Says how this node is. Cheap; others learn it within a second or so.
    pub fn publish(&self, applied_index: u64, load: u32, ready: bool) {
        let _ = (applied_index, load, ready);
        todo!()
    }

    /// Resolves with the reason when gossip has ended by itself, or when another
    /// process claims this node's id: the process must end then.
    pub async fn fatal(&self) -> String {
        todo!()
    }

    /// Stops. Others notice by silence.
    pub async fn stop(self) {
        todo!()
    }
}
