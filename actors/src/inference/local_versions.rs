//! The versions that this node answers for, by an identity that is never used
//! twice. What is not in here is not given new requests, though the host may
//! still be answering old ones.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::LoadedVersion;
use super::routing_table::VersionId;

/// Read on every request, changed when a version comes or goes.
#[derive(Default)]
pub struct LocalVersions {
    by_id: ArcSwap<HashMap<VersionId, Arc<LoadedVersion>>>,
    /// Changes when one of them falls ill or recovers.
    health: watch::Sender<()>,
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

    /// Whether it is here and does what it is there for.
    pub fn is_well(&self, id: VersionId) -> bool {
        self.by_id.load().get(&id).is_some_and(|version| version.is_well())
    }

    /// Whether requests wait on this node, beside those that run and run next.
    pub(super) fn requests_wait(&self) -> bool {
        self.by_id.load().values().any(|version| version.requests_wait())
    }

    /// Says that one of them has fallen ill or recovered.
    pub(super) fn health_changed(&self) {
        self.health.send_replace(());
    }

    /// Changes of their health.
    pub(super) fn watch_health(&self) -> watch::Receiver<()> {
        self.health.subscribe()
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
