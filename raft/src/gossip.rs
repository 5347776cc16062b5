//! Who is alive, as this node sees it: chitchat over our own transport. A hint,
//! never a vote.

use std::collections::BTreeMap;

use crate::state::{Addresses, NodeId};

/// What gossip says about one live member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePeer {
    /// Where it listens now (newer than the log, after a restart on other ports).
    pub addresses: Addresses,
    /// How far it has applied the log.
    pub applied_index: u64,
}

/// All members that this node believes alive, itself included.
pub type LivePeers = BTreeMap<NodeId, LivePeer>;
