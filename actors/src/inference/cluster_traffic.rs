//! On the leader: the newest counts of every node. A report may be lost,
//! repeated or overtaken; what a node counted is in here once.
//!
//! A report is cumulative since the node's boot. When a node comes back, what
//! its earlier lives counted is kept beside what it counts now. This memory is
//! the leader's own: a new leader knows of earlier lives only what ended while
//! it led.

use std::collections::BTreeMap;

use starling_proto::peer::TrafficReport;
use starling_raft::state::NodeId;

use super::shadowing::cells::ShadowCell;
use super::traffic::{Cell, CellKey, Counts, Ledger};

/// Nodes whose counts are kept. Reports of more are refused.
pub const NODES_MAX: usize = 256;

#[derive(Debug, Default)]
struct NodeTraffic {
    boot: u64,
    sequence: u64,
    current: Ledgers,
    earlier_boots: Ledgers,
}

/// Everything that a node counts.
#[derive(Debug, Default, Clone)]
struct Ledgers {
    requests: Ledger<Cell>,
    shadows: Ledger<ShadowCell>,
}

impl Ledgers {
    fn from_wire(report: &TrafficReport) -> Self {
        Self {
            requests: Ledger::<Cell>::from_wire(&report.cells),
            shadows: Ledger::<ShadowCell>::from_wire(&report.shadows),
        }
    }

    fn absorb(&mut self, other: &Self) {
        self.requests.absorb(other.requests.cells().map(|(key, cell)| (*key, cell.clone())));
        self.shadows.absorb(other.shadows.cells().map(|(key, cell)| (*key, cell.clone())));
    }

    fn retain_models(&mut self, exists: impl Fn(u64) -> bool) {
        self.requests.retain_models(&exists);
        self.shadows.retain_models(&exists);
    }
}

/// The counts of all nodes.
#[derive(Debug, Default)]
pub struct ClusterTraffic {
    by_node: BTreeMap<NodeId, NodeTraffic>,
}

impl ClusterTraffic {
    /// Takes a report; an older one than the last, or the same again, changes
    /// nothing.
    pub fn accept(&mut self, report: &TrafficReport) {
        let node_id = NodeId::new(report.node_id);
        if self.by_node.len() >= NODES_MAX && !self.by_node.contains_key(&node_id) {
            tracing::warn!(node = %node_id, limit = NODES_MAX, "traffic report of one node too many is ignored");
            return;
        }
        let known = self.by_node.entry(node_id).or_default();
        if (report.boot, report.sequence) <= (known.boot, known.sequence) {
            return;
        }
        if report.boot > known.boot {
            let ended = std::mem::take(&mut known.current);
            known.earlier_boots.absorb(&ended);
        }
        known.boot = report.boot;
        known.sequence = report.sequence;
        known.current = Ledgers::from_wire(report);
    }

    /// Forgets models and nodes that are gone.
    pub fn retain(&mut self, model_exists: impl Fn(u64) -> bool, node_exists: impl Fn(NodeId) -> bool) {
        self.by_node.retain(|node_id, _| node_exists(*node_id));
        for known in self.by_node.values_mut() {
            known.current.retain_models(&model_exists);
            known.earlier_boots.retain_models(&model_exists);
        }
    }

    /// What all nodes counted of the models that are wanted, together.
    pub fn counts_of(&self, wanted: impl Fn(u64) -> bool) -> ClusterCounts {
        let mut counts = ClusterCounts::default();
        for (node_id, known) in &self.by_node {
            counts.reported_by.push(*node_id);
            for ledgers in [&known.earlier_boots, &known.current] {
                let of_wanted = |key: &CellKey| wanted(key.version.model_id);
                for (key, cell) in ledgers.requests.cells().filter(|(key, _)| of_wanted(key)) {
                    counts.requests.entry(*key).or_default().merge(cell);
                }
                for (key, cell) in ledgers.shadows.cells().filter(|(key, _)| of_wanted(key)) {
                    counts.shadows.entry(*key).or_default().merge(cell);
                }
            }
        }
        counts
    }

    /// One report per node, all its boots together.
    pub fn to_wire(&self) -> Vec<TrafficReport> {
        let to_wire = |(node_id, known): (&NodeId, &NodeTraffic)| {
            let mut ledgers = known.earlier_boots.clone();
            ledgers.absorb(&known.current);
            TrafficReport {
                node_id: node_id.get(),
                boot: known.boot,
                sequence: known.sequence,
                cells: ledgers.requests.to_wire(),
                shadows: ledgers.shadows.to_wire(),
            }
        };
        self.by_node.iter().map(to_wire).collect()
    }
}

/// What all nodes counted of some models.
#[derive(Debug, Clone, Default)]
pub struct ClusterCounts {
    /// Requests, by the version that answered.
    pub requests: BTreeMap<CellKey, Cell>,
    /// Copies, by the shadow's version.
    pub shadows: BTreeMap<CellKey, ShadowCell>,
    /// Whose counts are in here, in order.
    pub reported_by: Vec<NodeId>,
}

/// What the nodes counted, together.
pub fn merged(reports: &[TrafficReport]) -> BTreeMap<CellKey, Cell> {
    together(reports.iter().map(|report| Ledger::<Cell>::from_wire(&report.cells)))
}

/// What the nodes counted of shadows, together: by the shadow's version, and the
/// epoch at which it got its copies.
pub fn shadow_cells(reports: &[TrafficReport]) -> BTreeMap<CellKey, ShadowCell> {
    together(reports.iter().map(|report| Ledger::<ShadowCell>::from_wire(&report.shadows)))
}

fn together<C: Counts>(ledgers: impl Iterator<Item = Ledger<C>>) -> BTreeMap<CellKey, C> {
    let mut cells: BTreeMap<CellKey, C> = BTreeMap::new();
    for ledger in ledgers {
        for (key, cell) in ledger.cells() {
            cells.entry(*key).or_default().merge(cell);
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::time::Duration;

    use proptest::prelude::*;
    use starling_raft::state::Ordinal;

    use super::*;
    use crate::inference::routing_table::VersionId;
    use crate::inference::traffic::{Ending, TrafficRecorder};

    fn report(node_id: u64, boot: u64, sequence: u64, requests: u64) -> TrafficReport {
        let recorder = TrafficRecorder::default();
        let key = CellKey { version: VersionId { model_id: 1, ordinal: Ordinal::new(1) }, epoch: 9 };
        for _ in 0..requests {
            recorder.record(key, Ending::Answered(Duration::from_micros(50)));
        }
        TrafficReport {
            node_id,
            boot,
            sequence,
            cells: recorder.read(|_| true).to_wire(),
            ..Default::default()
        }
    }

    fn requests(traffic: &ClusterTraffic) -> u64 {
        merged(&traffic.to_wire()).values().map(|cell| cell.requests).sum()
    }

    #[test]
    fn the_counts_of_all_nodes_are_added() {
        let mut traffic = ClusterTraffic::default();
        traffic.accept(&report(1, 1, 1, 3));
        traffic.accept(&report(2, 1, 1, 4));
        assert_eq!(requests(&traffic), 7);
        let cells = merged(&traffic.to_wire());
        assert_eq!(cells.values().next().unwrap().latency.count(), 7);
    }

    #[test]
    fn a_restart_keeps_what_was_counted_before_it() {
        let mut traffic = ClusterTraffic::default();
        traffic.accept(&report(1, 1, 8, 3));
        traffic.accept(&report(1, 2, 1, 2));
        traffic.accept(&report(1, 1, 9, 100));
        assert_eq!(requests(&traffic), 5);
        traffic.accept(&report(1, 2, 2, 4));
        assert_eq!(requests(&traffic), 7);
    }

    #[test]
    fn removed_nodes_and_deleted_models_are_forgotten() {
        let mut traffic = ClusterTraffic::default();
        traffic.accept(&report(1, 1, 1, 3));
        traffic.accept(&report(2, 1, 1, 4));
        traffic.retain(|_| true, |node_id| node_id.get() == 2);
        assert_eq!(requests(&traffic), 4);
        traffic.retain(|_| false, |_| true);
        assert_eq!(requests(&traffic), 0);
    }

    #[test]
    fn no_more_nodes_are_kept_than_the_limit() {
        let mut traffic = ClusterTraffic::default();
        for node_id in 0..NODES_MAX as u64 + 10 {
            traffic.accept(&report(node_id, 1, 1, 1));
        }
        assert_eq!(requests(&traffic), NODES_MAX as u64);
    }

    proptest! {
        /// Reports of one boot, with growing counts, sent in any order with
        /// repeats: the newest that came decides.
        #[test]
        fn lost_repeated_and_overtaken_reports_count_once(
            order in prop::collection::vec(1..10_u64, 1..30),
        ) {
            let mut traffic = ClusterTraffic::default();
            for sequence in &order {
                traffic.accept(&report(1, 1, *sequence, sequence * 2));
            }
            let newest = order.iter().max().unwrap();
            prop_assert_eq!(requests(&traffic), newest * 2);
        }
    }
}
