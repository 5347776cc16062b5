//! What handlers reach: the running node, or, before it has joined, nothing.

use std::sync::{Arc, OnceLock};

use starling_actors::feedback::FeedbackDesk;
use starling_actors::inference::{Inference, OnnxRuntime};
use starling_raft::artefacts::ArtefactStore;
use starling_raft::consensus::Consensus;
use starling_raft::flock::Flock;
use starling_raft::peers::Peers;
use tokio::runtime::Handle;
use tokio::sync::{RwLock, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::security::Security;
use crate::config::Settings;
use crate::telemetry::Metrics;

/// Shared by all servers of this process.
pub(crate) struct Node {
    /// As given at the start.
    pub(crate) settings: Settings,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// Reads signatures from model files.
    pub(crate) onnx: OnnxRuntime,
    /// Decides who asks.
    pub(crate) security: Security,
    /// The runtime of everything that is no prediction.
    pub(crate) control: Handle,
    /// Cancelled once this node takes no new work: endless streams end then.
    pub(crate) stopping: CancellationToken,
    running: OnceLock<Running>,
    ready: watch::Sender<bool>,
}

/// A node that has an identity and serves.
pub(crate) struct Running {
    /// Propose, read, watch.
    pub(crate) consensus: Consensus,
    /// Model files.
    pub(crate) artefacts: ArtefactStore,
    /// Who is alive.
    pub(crate) peers: Peers,
    /// Predictions.
    pub(crate) inference: Inference,
    /// What becomes known about them.
    pub(crate) feedback: FeedbackDesk,
    /// Empty once it is being shut down.
    pub(crate) flock: RwLock<Option<Flock>>,
}

impl Node {
    /// A node that has not joined yet.
    pub(crate) fn new(
        settings: Settings,
        metrics: Metrics,
        onnx: OnnxRuntime,
        security: Security,
        control: Handle,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            metrics,
            onnx,
            security,
            control,
            stopping: CancellationToken::new(),
            running: OnceLock::new(),
            ready: watch::channel(false).0,
        })
    }

    /// From now on handlers reach it. Returns it.
    pub(crate) fn set_running(&self, flock: Flock, inference: Inference, feedback: FeedbackDesk) -> &Running {
        self.running.get_or_init(|| Running {
            consensus: flock.consensus.clone(),
            artefacts: flock.artefacts.clone(),
            peers: flock.peers.clone(),
            inference,
            feedback,
            flock: RwLock::new(Some(flock)),
        })
    }

    /// The running node. Wait-free.
    pub(crate) fn running(&self) -> Result<&Running, Starting> {
        self.running.get().ok_or(Starting)
    }

    /// Whether this node can answer predictions, and wants to.
    pub(crate) fn ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Looks again whether this node can answer.
    pub(crate) fn update_readiness(&self) {
        let ready = !self.stopping.is_cancelled()
            && self.running.get().is_some_and(|running| running.inference.ready());
        self.ready.send_if_modified(|known| std::mem::replace(known, ready) != ready);
    }

    /// Changes of [`Node::ready`].
    pub(crate) fn watch_ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }
}

/// The node has not joined a cluster yet.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("this node is starting and has not joined a cluster yet; try again shortly")]
pub(crate) struct Starting;

impl From<Starting> for Status {
    fn from(starting: Starting) -> Self {
        Status::unavailable(starting.to_string())
    }
}
