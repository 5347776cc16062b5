//! The end of a node: signals, and the order in which everything stops.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{CannotStart, grace};
use crate::data_plane::DataPlane;
use crate::servers::{HealthReporter, Node};

/// Metrics are still served while the rest stops; their last answers are short.
const METRICS_GRACE: Duration = Duration::from_millis(200);

/// SIGTERM and SIGINT.
pub(super) struct Stopping {
    terminate: Signal,
    interrupt: Signal,
}

impl Stopping {
    /// From now on the signals no longer kill the process.
    pub(super) fn listen() -> Result<Self, CannotStart> {
        let listen = |kind| {
            signal(kind).map_err(|error| CannotStart(format!("signals cannot be listened for: {error}")))
        };
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for the next of them.
    pub(super) async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Says that it is not ready, answers what was asked, frees the sessions, hands
/// leadership over, flushes. The seat in the cluster is kept.
pub(super) async fn stop(node: &Arc<Node>, plane: DataPlane, beside: DataPlane, health: HealthReporter) {
    let grace = grace(&node.settings);
    node.stopping.cancel();
    node.update_readiness();
    crate::servers::say_not_serving(&health).await;
    plane.stop(grace).await;
    let Ok(running) = node.running() else { return };
    running.inference.shutdown(grace).await;
    running.feedback.shutdown().await;
    // History streams hold it for moments only.
    let flock = running.flock.write().await.take();
    if let Some(flock) = flock {
        flock.shutdown(grace).await;
    }
    beside.stop(METRICS_GRACE).await;
    tracing::info!("stopped");
}
