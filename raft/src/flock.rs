//! Puts the parts of a node's membership in the flock together: identity, log,
//! Raft, gossip, peers, artefacts, and the server that peers dial.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use tonic::service::Routes;

use crate::artefacts::ArtefactStore;
use crate::consensus::Consensus;
use crate::history::HistoryRecord;
use crate::peers::Peers;
use crate::state::{Addresses, FeatureLevel, LogIndex};

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Power loss: fdatasync before every acknowledgement.
    PowerLoss,
    /// The death of the process only.
    ProcessCrash,
}

/// How a node takes part.
#[derive(Debug)]
pub struct FlockConfig {
    /// Everything the node keeps.
    pub data_dir: PathBuf,
    /// Bound already, so that its port is known. Non-blocking.
    pub peer_listener: TcpListener,
    /// What others should dial.
    pub addresses: Addresses,
    /// Peer addresses of nodes that may be there. Empty with no
    /// `bootstrap_expect`: a new data directory becomes a cluster of one.
    pub join: Vec<String>,
    /// Found a cluster once this many uninitialised nodes, all with this
    /// setting, have met.
    pub bootstrap_expect: Option<u32>,
    /// Free words, such as zone=a.
    pub labels: BTreeMap<String, String>,
    /// What this binary announces that it can read.
    pub max_feature_level: FeatureLevel,
    /// This binary's version.
    pub starling_version: String,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// How often a leader says that it lives.
    pub heartbeat_interval: Duration,
    /// Shortest wait before a follower stands for election.
    pub election_timeout_min: Duration,
    /// Longest wait; also the leader's lease.
    pub election_timeout_max: Duration,
    /// Entries between snapshots.
    pub snapshot_every_entries: u64,
    /// Entries kept behind a snapshot, so that a slow follower needs none.
    pub log_entries_kept: u64,
    /// How many nodes vote at most: 3, 5 or 7.
    pub voters_max: usize,
    /// A voter silent for so long is replaced by a healthy learner.
    pub dead_after: Duration,
    /// Between rounds of gossip.
    pub gossip_interval: Duration,
    /// Largest artefact.
    pub max_artefact_bytes: u64,
}

/// Why a node cannot start. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Cannot be read or written.
    #[error("data directory {path} cannot be used: {reason}")]
    DataDir {
        /// Where.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// Another process has it.
    #[error(
        "data directory {path} is in use by another starling process; stop it or give this one another --data-dir"
    )]
    DataDirLocked {
        /// Where.
        path: PathBuf,
    },
    /// The disk lost what was acknowledged, or the identity does not fit.
    #[error("{0}")]
    Fenced(String),
    /// The others refuse this node.
    #[error("{0}")]
    Refused(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Why a running node must end: its Raft core, store or gossip has died.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(pub String);

/// A running member of the flock.
pub struct Flock {
    /// Propose, read, watch.
    pub consensus: Consensus,
    /// Content-addressed files.
    pub artefacts: ArtefactStore,
    /// Channels to the others.
    pub peers: Peers,
}

impl Flock {
    /// Starts: locks the data directory, opens the log, listens for peers,
    /// founds or joins a cluster if there is none yet, and returns once this
    /// node has an identity and its core runs. It may wait without end for
    /// others to appear; `on_listening` is called as soon as peers can dial.
    /// `peer_services` are served beside Raft's on the peer port, behind the
    /// same checks of cluster id and addressee.
    pub async fn start(
        config: FlockConfig,
        peer_services: Routes,
        on_listening: impl FnOnce() + Send,
    ) -> Result<Flock, StartError> {
        let _ = (config, peer_services, on_listening);
        todo!()
    }

    /// Resolves when the node must end at once, and says why.
    pub async fn fatal(&self) -> Fatal {
        todo!()
    }

    /// Events from `from` on that are applied now, in order, at most `limit`.
    pub async fn history(&self, from: LogIndex, limit: usize) -> Result<Vec<HistoryRecord>, std::io::Error> {
        let _ = (from, limit);
        todo!()
    }

    /// Hands leadership over, stops Raft, gossip and the peer server, flushes.
    /// The seat is kept.
    pub async fn shutdown(self, timeout: Duration) {
        let _ = timeout;
        todo!()
    }
}
