//! Who has which version loaded, as this node has heard, and who of the holders
//! should get a request.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use starling_proto::peer::Readiness;
use starling_proto::peer::readiness::{FailedVersion, LoadedVersion};
use starling_raft::state::{NodeId, Ordinal};

use super::routing_table::VersionId;

/// Why a node could not load a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadFailure {
    /// In the words of whoever refused.
    pub reason: String,
    /// The runtime refused the file itself; fetching it again changes nothing.
    pub refused: bool,
}

/// What one node says of itself. How busy it is stands apart, in [`NodeLoad`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeReadiness {
    /// Loaded and warm, with the rows that one run takes at most.
    pub loaded: BTreeMap<VersionId, u32>,
    /// Tried and failed.
    pub failed: BTreeMap<VersionId, LoadFailure>,
}

/// How busy a node is.
#[derive(Debug, Default)]
pub struct NodeLoad {
    reported: AtomicU32,
    outstanding: AtomicU32,
}

/// A request that is on its way to a node; counts until it is dropped.
#[derive(Debug)]
pub struct Outstanding(Arc<NodeLoad>);

/// A node that has a version.
#[derive(Debug, Clone)]
pub struct Holder {
    /// Which.
    pub node_id: NodeId,
    /// How busy it is.
    pub load: Arc<NodeLoad>,
}

#[derive(Debug, Clone)]
struct Known {
    readiness: Arc<NodeReadiness>,
    load: Arc<NodeLoad>,
}

/// What is known of all nodes. Immutable, but for the loads.
#[derive(Debug, Clone, Default)]
pub struct ReadinessView {
    by_node: BTreeMap<NodeId, Known>,
    holders: HashMap<VersionId, Vec<Holder>>,
}

impl NodeLoad {
    /// What the node last said of itself, and what we have sent it since.
    fn estimate(&self) -> u32 {
        let outstanding = self.outstanding.load(Ordering::Relaxed);
        self.reported.load(Ordering::Relaxed).saturating_add(outstanding)
    }

    /// Counts a request that is being sent to the node.
    pub fn begin(self: &Arc<Self>) -> Outstanding {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        Outstanding(Arc::clone(self))
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

impl NodeReadiness {
    /// For the wire.
    pub fn to_wire(&self, node_id: NodeId, in_flight: u32, applied_index: u64) -> Readiness {
        let loaded = self.loaded.iter().map(|(id, max_batch)| LoadedVersion {
            model_id: id.model_id,
            ordinal: id.ordinal.get(),
            max_batch: *max_batch,
        });
        let failed = self.failed.iter().map(|(id, failure)| FailedVersion {
            model_id: id.model_id,
            ordinal: id.ordinal.get(),
            reason: failure.reason.clone(),
            refused: failure.refused,
        });
        Readiness {
            node_id: node_id.get(),
            loaded: loaded.collect(),
            failed: failed.collect(),
            in_flight,
            applied_index,
        }
    }

    /// From the wire.
    pub fn from_wire(wire: &Readiness) -> Self {
        let id = |model_id, ordinal| VersionId { model_id, ordinal: Ordinal::new(ordinal) };
        let loaded =
            wire.loaded.iter().map(|version| (id(version.model_id, version.ordinal), version.max_batch));
        let failed = wire.failed.iter().map(|version| {
            let failure = LoadFailure { reason: version.reason.clone(), refused: version.refused };
            (id(version.model_id, version.ordinal), failure)
        });
        Self { loaded: loaded.collect(), failed: failed.collect() }
    }
}

impl ReadinessView {
    /// With what a node says now in place of what it said before. `None` if it
    /// says nothing new; its load is noted all the same.
    pub fn with(&self, node_id: NodeId, readiness: NodeReadiness, in_flight: u32) -> Option<Self> {
        let known = self.by_node.get(&node_id);
        let load = known.map(|known| Arc::clone(&known.load)).unwrap_or_default();
        load.reported.store(in_flight, Ordering::Relaxed);
        if known.is_some_and(|known| *known.readiness == readiness) {
            return None;
        }
        let mut by_node = self.by_node.clone();
        by_node.insert(node_id, Known { readiness: Arc::new(readiness), load });
        Some(Self::of(by_node))
    }

    /// Without a node. `None` if it was not there.
    pub fn without(&self, node_id: NodeId) -> Option<Self> {
        let mut by_node = self.by_node.clone();
        by_node.remove(&node_id)?;
        Some(Self::of(by_node))
    }

    fn of(by_node: BTreeMap<NodeId, Known>) -> Self {
        let mut holders: HashMap<VersionId, Vec<Holder>> = HashMap::new();
        for (node_id, known) in &by_node {
            for version in known.readiness.loaded.keys() {
                let holder = Holder { node_id: *node_id, load: Arc::clone(&known.load) };
                holders.entry(*version).or_default().push(holder);
            }
        }
        Self { by_node, holders }
    }

    /// Who has said something, in order of id.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.by_node.keys().copied()
    }

    /// What a node says of itself, if it has said anything.
    pub fn node(&self, node_id: NodeId) -> Option<&NodeReadiness> {
        self.by_node.get(&node_id).map(|known| &*known.readiness)
    }

    /// Whether a node has a version loaded.
    pub fn has(&self, node_id: NodeId, version: VersionId) -> bool {
        self.node(node_id).is_some_and(|readiness| readiness.loaded.contains_key(&version))
    }

    /// Who has a version loaded, in order of id.
    pub fn holders(&self, version: VersionId) -> &[Holder] {
        self.holders.get(&version).map_or(&[], Vec::as_slice)
    }

    /// Rows per run, by whichever node has the version loaded.
    pub fn max_batch(&self, version: VersionId) -> Option<u32> {
        self.by_node.values().find_map(|known| known.readiness.loaded.get(&version).copied())
    }

    /// Why some node could not load a version.
    pub fn failure(&self, version: VersionId) -> Option<(NodeId, &LoadFailure)> {
        self.by_node
            .iter()
            .find_map(|(node_id, known)| known.readiness.failed.get(&version).map(|why| (*node_id, why)))
    }
}

/// Of two candidates drawn at random the one with the lower load: nearly as good
/// as asking all, without all choosing the same one. `random` is any number.
pub fn less_loaded_of_two(candidates: &[Holder], random: u64) -> Option<&Holder> {
    let count = candidates.len() as u64;
    if count == 0 {
        return None;
    }
    let first = random % count;
    if count == 1 {
        return candidates.first();
    }
    // A different one: the second draw is among the others.
    let second = (first + 1 + (random / count) % (count - 1)) % count;
    let (first, second) = (&candidates[first as usize], &candidates[second as usize]);
    Some(if second.load.estimate() < first.load.estimate() { second } else { first })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    fn version(ordinal: u64) -> VersionId {
        VersionId { model_id: 1, ordinal: Ordinal::new(ordinal) }
    }

    fn node(id: u64) -> NodeId {
        NodeId::new(id)
    }

    fn loaded(ordinals: &[u64]) -> NodeReadiness {
        let loaded = ordinals.iter().map(|ordinal| (version(*ordinal), 8)).collect();
        NodeReadiness { loaded, ..NodeReadiness::default() }
    }

    fn holder(id: u64, in_flight: u32) -> Holder {
        let load = NodeLoad::default();
        load.reported.store(in_flight, Ordering::Relaxed);
        Holder { node_id: node(id), load: Arc::new(load) }
    }

    #[test]
    fn holders_follow_what_nodes_say() {
        let view = ReadinessView::default();
        let view = view.with(node(1), loaded(&[1, 2]), 0).unwrap();
        let view = view.with(node(2), loaded(&[2]), 0).unwrap();
        let of_second: Vec<NodeId> = view.holders(version(2)).iter().map(|holder| holder.node_id).collect();
        assert_eq!(of_second, [node(1), node(2)]);
        let view = view.without(node(1)).unwrap();
        assert!(view.holders(version(1)).is_empty());
        assert!(view.has(node(2), version(2)));
        assert!(view.without(node(1)).is_none());
    }

    #[test]
    fn a_node_that_says_the_same_again_changes_only_its_load() {
        let view = ReadinessView::default().with(node(1), loaded(&[1]), 3).unwrap();
        assert!(view.with(node(1), loaded(&[1]), 9).is_none());
        assert_eq!(view.holders(version(1))[0].load.estimate(), 9);
    }

    #[test]
    fn requests_on_their_way_count_until_they_are_dropped() {
        let holder = holder(1, 2);
        let on_its_way = holder.load.begin();
        assert_eq!(holder.load.estimate(), 3);
        drop(on_its_way);
        assert_eq!(holder.load.estimate(), 2);
    }

    #[test]
    fn the_wire_changes_nothing() {
        let mut readiness = loaded(&[1, 3]);
        readiness.failed.insert(version(2), LoadFailure { reason: "no such operator".into(), refused: true });
        let wire = readiness.to_wire(node(5), 4, 77);
        assert_eq!((wire.node_id, wire.in_flight, wire.applied_index), (5, 4, 77));
        assert_eq!(NodeReadiness::from_wire(&wire), readiness);
    }

    #[test]
    fn nobody_is_chosen_from_nobody() {
        assert!(less_loaded_of_two(&[], 7).is_none());
    }

    proptest! {
        #[test]
        fn of_two_the_less_loaded_is_chosen_whatever_the_draw(random in any::<u64>()) {
            let candidates = [holder(1, 5), holder(2, 1)];
            prop_assert_eq!(less_loaded_of_two(&candidates, random).unwrap().node_id, node(2));
        }

        #[test]
        fn the_busiest_of_many_is_never_chosen(random in any::<u64>()) {
            let candidates = [holder(1, 0), holder(2, 9), holder(3, 0), holder(4, 0)];
            prop_assert_ne!(less_loaded_of_two(&candidates, random).unwrap().node_id, node(2));
        }
    }
}
