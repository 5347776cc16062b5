//! Numbers the decisions of this node. Node, boot and number together are never
//! used twice, so a decision id is unique without asking anybody.

use std::sync::atomic::{AtomicU64, Ordering};

use starling_raft::state::NodeId;

/// Counts the decisions of one node since its start.
#[derive(Debug)]
pub struct DecisionIds {
    node: NodeId,
    boot: u32,
    next_sequence: AtomicU64,
}

/// What makes one decision unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The node that decides.
    pub node: NodeId,
    /// How often that node had started.
    pub boot: u32,
    /// Counts its decisions since then, from 1.
    pub sequence: u64,
}

impl DecisionIds {
    /// For a node in its `boot`-th life.
    pub fn new(node: NodeId, boot: u32) -> Self {
        Self { node, boot, next_sequence: AtomicU64::new(1) }
    }

    /// The next number. Wait-free.
    pub fn next(&self) -> Ticket {
        let sequence = self.next_sequence.fetch_add(1, Ordering::Relaxed);
        Ticket { node: self.node, boot: self.boot, sequence }
    }

    /// How many have been given out.
    pub fn given(&self) -> u64 {
        self.next_sequence.load(Ordering::Relaxed) - 1
    }
}

impl Ticket {
    /// Stands in for a routing key where the request has none: every request is
    /// drawn anew, and the draw can be repeated from the decision id alone.
    pub fn as_key(&self) -> [u8; 20] {
        let mut key = [0; 20];
        key[..8].copy_from_slice(&self.node.get().to_le_bytes());
        key[8..12].copy_from_slice(&self.boot.to_le_bytes());
        key[12..].copy_from_slice(&self.sequence.to_le_bytes());
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_count_from_one_and_name_node_and_boot() {
        let ids = DecisionIds::new(NodeId::new(1_007), 3);
        assert_eq!(ids.next(), Ticket { node: NodeId::new(1_007), boot: 3, sequence: 1 });
        assert_eq!(ids.next().sequence, 2);
        assert_eq!(ids.given(), 2);
    }

    #[test]
    fn a_ticket_reads_as_twenty_little_endian_bytes() {
        let ticket = Ticket { node: NodeId::new(1), boot: 2, sequence: 3 };
        assert_eq!(ticket.as_key(), [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    }
}
