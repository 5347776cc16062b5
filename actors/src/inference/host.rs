//! The versions that are loaded on this node, each with its bounded queue, its
//! batcher and its supervised instances.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_proto::inference::{ModelInferRequest, ModelInferResponse, ModelStatistics};
use starling_raft::state::models::VersionSettings;
use starling_raft::state::{ModelName, Ordinal, Signature};

use super::{InferError, OnnxRuntime};

/// Which version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionKey {
    /// Of which model.
    pub model: ModelName,
    /// Which of its versions.
    pub ordinal: Ordinal,
}

/// What came out, and what it took.
#[derive(Debug)]
pub struct Answer {
    /// `model_name`, `id`, `outputs` and contents are set; parameters are not.
    pub response: ModelInferResponse,
    /// From the queue's entry to its exit.
    pub queue: Duration,
    /// Checking, decoding and concatenating.
    pub compute_input: Duration,
    /// The run.
    pub compute_infer: Duration,
    /// Splitting and encoding.
    pub compute_output: Duration,
    /// Rows of the run that this request was part of.
    pub batch_rows: usize,
}

/// A loaded, warmed version. Requests that it has accepted are answered even
/// while it is being unloaded.
pub struct LoadedVersion {
    /// Which.
    pub key: VersionKey,
    /// What it takes and gives.
    pub signature: Arc<Signature>,
}

impl LoadedVersion {
    /// Checks the request against the signature, waits its turn in the bounded
    /// queue, runs it (with others, where they can be concatenated), answers.
    /// Dropping the future takes the request out of the queue.
    pub async fn infer(
        &self,
        request: ModelInferRequest,
        deadline: Option<Instant>,
    ) -> Result<Answer, InferError> {
        let _ = (request, deadline);
        todo!()
    }

    /// Requests queued or running.
    pub fn in_flight(&self) -> usize {
        todo!()
    }

    /// Cumulative counts and nanoseconds, in Triton's shape. Name and version
    /// are set.
    pub fn statistics(&self) -> ModelStatistics {
        todo!()
    }

    /// The batch size that it runs at most.
    pub fn max_batch(&self) -> usize {
        todo!()
    }
}

/// All loaded versions of this node. Cheap to clone.
#[derive(Clone)]
pub struct VersionHost {}

impl VersionHost {
    /// Starts the supervision tree.
    pub async fn start(runtime: OnnxRuntime, registry: &prometheus::Registry) -> Result<Self, InferError> {
        let _ = (runtime, registry);
        todo!()
    }

    /// Loads and warms a version; returns once it answers. Loading what is
    /// loaded returns it.
    pub async fn load(
        &self,
        key: VersionKey,
        file: PathBuf,
        signature: Arc<Signature>,
        settings: VersionSettings,
    ) -> Result<Arc<LoadedVersion>, InferError> {
        let _ = (key, file, signature, settings);
        todo!()
    }

    /// Takes a version out of service; its sessions are freed once what it has
    /// accepted is answered. Returns when they are.
    pub async fn unload(&self, key: &VersionKey) {
        let _ = key;
        todo!()
    }

    /// One loaded version. Wait-free.
    pub fn get(&self, key: &VersionKey) -> Option<Arc<LoadedVersion>> {
        let _ = key;
        todo!()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<LoadedVersion>> {
        todo!()
    }

    /// Answers what is accepted, then frees everything.
    pub async fn shutdown(&self, timeout: Duration) {
        let _ = timeout;
        todo!()
    }
}
