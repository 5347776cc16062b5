//! On which nodes a model's versions are loaded: rendezvous hashing, so that a
//! node that comes or goes moves only what it must.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Model, NodeId};

/// The nodes among `candidates` (alive, not draining) that should hold the
/// model's versions: all of them, or the `replicas` with the highest score. In
/// order of score, so the first is the most preferred.
pub fn placed_on(model: &Model, candidates: &[NodeId]) -> Vec<NodeId> {
    let mut scored: Vec<(u64, NodeId)> = candidates
        .iter()
        .map(|node_id| (xxh3_64_with_seed(model.name.as_str().as_bytes(), node_id.get()), *node_id))
        .collect();
    scored.sort_by(|left, right| right.cmp(left));
    let wanted = if model.replicas == 0 { scored.len() } else { model.replicas as usize };
    scored.into_iter().take(wanted).map(|(_, node_id)| node_id).collect()
}
