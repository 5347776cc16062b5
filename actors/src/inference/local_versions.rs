//! The versions that this node answers for, by an identity that is never used
//! twice. What is not in here is not given new requests, though the host may
//! still be answering old ones.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::LoadedVersion;
use super::routing_table::VersionId;

/// Read on every request, changed when a version comes or goes.
#[derive(Default)]
pub struct LocalVersions {
    by_id: ArcSwap<HashMap<VersionId, Arc<LoadedVersion>>>,
}

impl LocalVersions {
    /// One of them. Wait-free.
    pub fn get(&self, id: VersionId) -> Option<Arc<LoadedVersion>> {
        self.by_id.load().get(&id).map(Arc::clone)
    }

    /// All of them, in no particular order.
    pub fn all(&self) -> Vec<(VersionId, Arc<LoadedVersion>)> {
        self.by_id.load().iter().map(|(id, version)| (*id, Arc::clone(version))).collect()
    }

    /// Gives it requests from now on.
    pub fn insert(&self, id: VersionId, version: &Arc<LoadedVersion>) {
        self.by_id.rcu(|by_id| {
            let mut by_id = HashMap::clone(by_id);
            by_id.insert(id, Arc::clone(version));
            by_id
        });
    }

    /// Gives it no more requests.
    pub fn remove(&self, id: VersionId) {
        self.by_id.rcu(|by_id| {
            let mut by_id = HashMap::clone(by_id);
            by_id.remove(&id);
            by_id
        });
    }
}
