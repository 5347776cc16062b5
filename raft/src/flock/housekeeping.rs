//! What is thrown away now and then: telemetry that is old enough, and
//! artefacts to which nothing refers.

use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::artefacts::ArtefactStore;
use crate::state_machine::{Applied, SharedHistory, lock};

const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// An upload is here before its version is in the log.
const ARTEFACT_GRACE: Duration = Duration::from_secs(60 * 60);

/// Runs until it is aborted. A failure is said and tried again the next time.
pub(super) async fn keep_house(applied: Applied, history: SharedHistory, artefacts: ArtefactStore) {
    let mut clock = tokio::time::interval(INTERVAL);
    // The first tick comes at once, when this node may not have caught up yet.
    clock.tick().await;
    loop {
        clock.tick().await;
        let state = applied.state().state;
        let now = state.cluster.wall_time;
        let history = history.clone();
        match spawn_blocking(move || lock(&history).expire(now)).await {
            Ok(Ok(removed)) if removed.is_empty() => {}
            Ok(Ok(removed)) => tracing::info!(?removed, "removed history segments past their retention"),
            Ok(Err(error)) => tracing::warn!(%error, "old history segments could not be removed"),
            Err(error) => tracing::error!(%error, "removing old history segments panicked"),
        }
        match artefacts.collect_garbage(&state, ARTEFACT_GRACE).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed artefacts that no version refers to"),
            Err(error) => tracing::warn!(%error, "unused artefacts could not be removed"),
        }
    }
}
