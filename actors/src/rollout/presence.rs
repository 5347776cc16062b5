//! Versions that nobody can serve: no live node has one loaded, and has not had it
//! for a while, though the stable version is there.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use starling_raft::state::{Model, NodeId, Ordinal, Rollout, State};

use crate::inference::readiness_view::ReadinessView;
use crate::inference::routing_table::VersionId;

/// A node that restarts, or whose word is late, takes no rollout back.
pub const GONE_AFTER: Duration = Duration::from_secs(3);
/// Noting is for all rollouts at once, looks are not.
const NOTED_EVERY: Duration = Duration::from_millis(500);

/// Since when each version has been missed.
#[derive(Debug, Default)]
pub struct Presence {
    missed_since: HashMap<VersionId, Instant>,
    noted: Option<Instant>,
}

impl Presence {
    /// Notes who is there now, unless it was noted a moment ago. As long as some live node has said nothing of
    /// itself, nobody is missed.
    pub fn note(&mut self, state: &State, view: &ReadinessView, live: &BTreeSet<NodeId>, at: Instant) {
        if self.noted.is_some_and(|noted| at.saturating_duration_since(noted) < NOTED_EVERY) {
            return;
        }
        self.noted = Some(at);
        let mut missed = HashMap::new();
        let heard: BTreeSet<NodeId> = view.nodes().collect();
        if live.is_subset(&heard) {
            for rollout in state.rollouts.active() {
                let Some(model) = state.models.get(rollout.spec.model.as_str()) else { continue };
                let has = |ordinal| {
                    let version = VersionId { model_id: model.id, ordinal };
                    live.iter().any(|node| view.has(*node, version))
                };
                if !has(rollout.stable()) {
                    continue;
                }
                for ordinal in rollout.versions().into_iter().filter(|ordinal| !has(*ordinal)) {
                    let version = VersionId { model_id: model.id, ordinal };
                    let since = self.missed_since.get(&version).copied().unwrap_or(at);
                    missed.insert(version, since);
                }
            }
        }
        self.missed_since = missed;
    }

    /// Whether a version has been missed long enough.
    pub fn is_gone(&self, _: &Rollout, model: &Model, ordinal: Ordinal, at: Instant) -> bool {
        let version = VersionId { model_id: model.id, ordinal };
        let since = self.missed_since.get(&version);
        since.is_some_and(|since| at.saturating_duration_since(*since) >= GONE_AFTER)
    }
}
