//! Content-addressed files: `data/artefacts/sha256/ab/cdef…`, written aside,
//! fsynced, renamed; copied between peers in chunks and verified before use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use starling_proto::peer::artefacts_server::ArtefactsServer;

use crate::artefact_service::ArtefactService;
use crate::peers::{PeerChannel, PeerUnavailable};
use crate::state::{ArtefactDigest, NodeId, State};

/// Why an artefact is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum ArtefactError {
    /// The disk said no.
    #[error("artefact store at {path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        source: std::io::Error,
    },
    /// The bytes are not what they were said to be.
    #[error("artefact has SHA-256 {found} instead of {expected}; send it again")]
    DigestMismatch {
        /// What was announced.
        expected: ArtefactDigest,
        /// What came.
        found: ArtefactDigest,
    },
    /// More bytes than allowed.
    #[error("artefact is larger than {limit_bytes} bytes (config key `max_artefact_bytes`)")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// Nobody who answers has it.
    #[error("artefact {digest} could not be fetched from any peer: {reason}")]
    NotFetched {
        /// Which.
        digest: ArtefactDigest,
        /// What each peer said.
        reason: String,
    },
    /// Too few voters hold the bytes.
    #[error("artefact {digest} is held by {holders} of {voters} voters, a majority is needed: {reason}")]
    NoMajority {
        /// Which.
        digest: ArtefactDigest,
        /// How many hold it.
        holders: usize,
        /// How many vote.
        voters: usize,
        /// What the others said.
        reason: String,
    },
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct ArtefactStore {}

/// An artefact on its way in: written aside, hashed as it comes. Dropping it
/// removes the partial file.
pub struct Upload {}

impl Upload {
    /// Appends bytes.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), ArtefactError> {
        let _ = chunk;
        todo!()
    }

    /// The partial file, flushed, for inspection before it is kept.
    pub async fn flushed_path(&mut self) -> Result<PathBuf, ArtefactError> {
        todo!()
    }

    /// Checks the digest (if one was announced), fsyncs, renames. Answers with
    /// digest and size.
    pub async fn keep(
        self,
        expected: Option<ArtefactDigest>,
    ) -> Result<(ArtefactDigest, u64), ArtefactError> {
        let _ = expected;
        todo!()
    }
}

/// What the store asks of the flock.
pub trait Flockmates: Send + Sync + 'static {
    /// This node.
    fn this_node(&self) -> NodeId;
    /// Who votes now.
    fn voters(&self) -> Vec<NodeId>;
    /// Who is believed alive; with or without this node.
    fn live(&self) -> Vec<NodeId>;
    /// A channel to one of them.
    fn channel(&self, node_id: NodeId) -> Result<PeerChannel, PeerUnavailable>;
}

impl ArtefactStore {
    /// Opens the store in `data_dir`, making its folders if need be; removes
    /// what an interrupted upload or transfer left. Blocks, for short.
    pub fn open(data_dir: &Path, max_artefact_bytes: u64) -> Result<Self, ArtefactError> {
        let _ = (data_dir, max_artefact_bytes);
        todo!()
    }

    /// Tells the store whom it can copy from and to. Before that it knows only
    /// what is on this disk. Call it once.
    pub fn connect(&self, flockmates: Arc<dyn Flockmates>) {
        let _ = flockmates;
        todo!()
    }

    /// To be served on the peer port.
    pub fn server(&self) -> ArtefactsServer<ArtefactService> {
        ArtefactsServer::new(ArtefactService::new(self.clone()))
    }

    /// Deletes files to which no version in `state` refers and that came or
    /// were pushed again longer than `grace` ago. Answers how many. To be called
    /// on every node now and then, with a grace of an hour or more: an upload
    /// is there before its version is.
    pub async fn collect_garbage(&self, state: &State, grace: Duration) -> Result<usize, ArtefactError> {
        let _ = (state, grace);
        todo!()
    }

    /// Begins an upload.
    pub async fn upload(&self) -> Result<Upload, ArtefactError> {
        todo!()
    }

    /// Where the verified file is, if this node has it.
    pub fn path(&self, digest: ArtefactDigest) -> Option<PathBuf> {
        let _ = digest;
        todo!()
    }

    /// The verified file; fetched from whichever peers have it if it is not
    /// here. Concurrent calls for one digest share one transfer.
    pub async fn ensure_local(
        &self,
        digest: ArtefactDigest,
        size_bytes: u64,
        timeout: Duration,
    ) -> Result<PathBuf, ArtefactError> {
        let _ = (digest, size_bytes, timeout);
        todo!()
    }

    /// Returns once a majority of voters hold the bytes (this node has them).
    pub async fn replicate_to_majority(
        &self,
        digest: ArtefactDigest,
        size_bytes: u64,
        timeout: Duration,
    ) -> Result<(), ArtefactError> {
        let _ = (digest, size_bytes, timeout);
        todo!()
    }
}
