//! From what chitchat heard to [`LivePeers`]: which incarnation of a node
//! counts, and who claims an id that is not theirs. Pure.

use std::collections::BTreeMap;

use chitchat::{ChitchatId, NodeState};

use super::{LivePeer, LivePeers};
use crate::state::{Addresses, NodeId};

/// Keys, short because every packet carries some. chitchat's own id of a node
/// is its [`NodeId`] as text.
pub(super) mod key {
    pub(crate) const UUID: &str = "uuid";
    pub(crate) const PEER: &str = "peer";
    pub(crate) const GRPC: &str = "grpc";
    pub(crate) const REST: &str = "rest";
    pub(crate) const METRICS: &str = "metrics";
    pub(crate) const APPLIED: &str = "applied";
    pub(crate) const LOAD: &str = "load";
    pub(crate) const READY: &str = "ready";
}

/// One live incarnation of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) node_id: NodeId,
    pub(super) node_uuid: String,
    pub(super) generation: u64,
    pub(super) gossip_address: String,
    pub(super) peer: LivePeer,
}

/// What follows from all that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) live: LivePeers,
    /// Ids that two different nodes claim, for the log.
    pub(super) disputed: Vec<String>,
    /// Why this process must end: another one runs under its identity.
    pub(super) usurped: Option<String>,
}

/// Reads a node's keys; `None` until enough of them have arrived.
pub(super) fn heard(id: &ChitchatId, state: &NodeState) -> Option<Heard> {
    let text = |key: &str| state.get(key).unwrap_or_default().to_owned();
    Some(Heard {
        node_id: NodeId::new(id.node_id.parse().ok()?),
        node_uuid: state.get(key::UUID)?.to_owned(),
        generation: id.generation_id,
        gossip_address: id.gossip_advertise_addr.to_string(),
        peer: LivePeer {
            addresses: Addresses {
                peer: state.get(key::PEER)?.to_owned(),
                grpc: text(key::GRPC),
                rest: text(key::REST),
                metrics: text(key::METRICS),
            },
            applied_index: text(key::APPLIED).parse().unwrap_or_default(),
            load: text(key::LOAD).parse().unwrap_or_default(),
            ready: state.get(key::READY) == Some("1"),
        },
    })
}

/// Of each node the newest incarnation counts; of this node, this process.
pub(super) fn settle(own: &Heard, others: impl IntoIterator<Item = Heard>) -> Settled {
    let mut newest = BTreeMap::from([(own.node_id, own.clone())]);
    let mut disputed = Vec::new();
    let mut usurped = None;
    for other in others {
        let Some(held) = newest.get(&other.node_id) else {
            newest.insert(other.node_id, other);
            continue;
        };
        if held.node_uuid != other.node_uuid {
            disputed.push(format!(
                "two nodes claim the id {}: {} at {} and {} at {}; stop the one that `starling get nodes` does not show, and start it with an empty data directory",
                held.node_id, held.node_uuid, held.gossip_address, other.node_uuid, other.gossip_address
            ));
        }
        if other.node_id != own.node_id {
            if other.generation > held.generation {
                newest.insert(other.node_id, other);
            }
            continue;
        }
        let same_process = other.generation == own.generation && other.gossip_address == own.gossip_address;
        if other.node_uuid == own.node_uuid && other.generation >= own.generation && !same_process {
            usurped = Some(format!(
                "another process at {} runs as node {} from a copy of this node's data directory; keep one of the two, and start the other with an empty data directory",
                other.gossip_address, own.node_id
            ));
        }
    }
    let live = newest.into_iter().map(|(node_id, heard)| (node_id, heard.peer)).collect();
    Settled { live, disputed, usurped }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn node(node_id: u64, node_uuid: &str, generation: u64, port: u16) -> Heard {
        let addresses = Addresses { peer: format!("127.0.0.1:{port}"), ..Addresses::default() };
        Heard {
            node_id: NodeId::new(node_id),
            node_uuid: node_uuid.to_owned(),
            generation,
            gossip_address: addresses.peer.clone(),
            peer: LivePeer { addresses, ..LivePeer::default() },
        }
    }

    fn ports(settled: &Settled) -> Vec<(u64, &str)> {
        settled.live.iter().map(|(id, peer)| (id.get(), peer.addresses.peer.as_str())).collect()
    }

    #[test]
    fn a_node_that_came_back_elsewhere_counts_where_it_is_now() {
        let own = node(1000, "a", 5, 1);
        for others in
            [[node(1004, "b", 7, 2), node(1004, "b", 8, 3)], [node(1004, "b", 8, 3), node(1004, "b", 7, 2)]]
        {
            let settled = settle(&own, others);
            assert_eq!(ports(&settled), [(1000, "127.0.0.1:1"), (1004, "127.0.0.1:3")]);
            assert_eq!((settled.disputed.len(), settled.usurped), (0, None));
        }
    }

    #[test]
    fn the_own_earlier_process_is_no_rival() {
        let settled = settle(&node(1000, "a", 5, 1), [node(1000, "a", 4, 9), node(1000, "a", 5, 1)]);
        assert_eq!(ports(&settled), [(1000, "127.0.0.1:1")]);
        assert_eq!(settled.usurped, None);
    }

    #[test]
    fn a_copy_of_the_data_directory_that_runs_as_well_ends_this_process() {
        let own = node(1000, "a", 5, 1);
        for copy in [node(1000, "a", 6, 9), node(1000, "a", 5, 9)] {
            let reason = settle(&own, [copy]).usurped.unwrap();
            assert!(reason.contains("at 127.0.0.1:9 runs as node 1000"), "{reason}");
        }
    }

    #[test]
    fn another_node_under_one_id_is_named_and_never_replaces_this_node() {
        let settled = settle(&node(1000, "a", 5, 1), [node(1000, "x", 6, 9)]);
        assert_eq!(ports(&settled), [(1000, "127.0.0.1:1")]);
        assert_eq!(settled.usurped, None);
        assert_eq!(settled.disputed.len(), 1);
        assert!(settled.disputed[0].starts_with("two nodes claim the id 1000"), "{:?}", settled.disputed);
    }
}
