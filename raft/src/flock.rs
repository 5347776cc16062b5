//! Puts the parts of a node's membership in the flock together: identity, log,
//! Raft, gossip, peers, artefacts, and the server that peers dial.

mod data_dir;
mod housekeeping;
mod peer_door;
mod peer_server;
mod start;
mod storage;
mod watchdog;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tonic::service::Routes;

use crate::artefacts::ArtefactStore;
use crate::consensus::Consensus;
use crate::flock::data_dir::DataDirLock;
use crate::flock::peer_server::PeerServer;
use crate::flock::watchdog::Watchdog;
use crate::gossip::Gossip;
use crate::history::HistoryRecord;
use crate::log_store::{LogStore, LogStoreOptions};
use crate::peers::Peers;
use crate::proposals::time_until;
use crate::state::{Addresses, FeatureLevel, LogIndex};
use crate::state_machine::{SharedHistory, lock};

pub use self::peer_door::{FORWARDING_MARK, ForwardingDoor};

/// Raft has ended and predictions are answered before peers are shut out: what
/// still runs then are streams without an end.
const PEER_CALLS_END_WITHIN: Duration = Duration::from_millis(500);

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
    /// Where connections of forwarded predictions go; `None`: they are closed,
    /// and peers forward to this node by calls on its peer services.
    pub forwarding: Option<ForwardingDoor>,
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

/// What this node tells the others about itself every second or so.
#[derive(Debug, Default)]
struct Condition {
    load: AtomicU32,
    ready: AtomicBool,
}

/// A running member of the flock.
pub struct Flock {
    /// Propose, read, watch.
    pub consensus: Consensus,
    /// Content-addressed files.
    pub artefacts: ArtefactStore,
    /// Channels to the others.
    pub peers: Peers,
    history: SharedHistory,
    condition: Arc<Condition>,
    watchdog: Watchdog,
    gossip: Arc<Gossip>,
    server: PeerServer,
    log: LogStore,
    /// The one that changes who votes: ended first when the node stops.
    autopilot: JoinHandle<()>,
    /// What else runs beside: ended last.
    tasks: Vec<JoinHandle<()>>,
    /// Held until everything else has let go of the directory.
    data_dir: DataDirLock,
}

/// Reads the event history. Cheap to clone.
#[derive(Clone)]
pub struct EventReader {
    consensus: Consensus,
    history: SharedHistory,
}

impl EventReader {
    /// As [`Flock::history`].
    pub async fn read(&self, from: LogIndex, limit: usize) -> Result<Vec<HistoryRecord>, std::io::Error> {
        let applied = self.consensus.applied().index;
        let view = lock(&self.history).view();
        let mut page = tokio::task::spawn_blocking(move || view.read(from, limit)).await??;
        // Segments that came with a snapshot may reach beyond what is applied here.
        page.retain(|record| record.log_index <= applied);
        Ok(page)
    }
}

impl Flock {
    /// Starts: locks the data directory, opens the log, listens for peers,
    /// founds or joins a cluster if there is none yet, and returns once this
    /// node has an identity and its core runs. It may wait without end for
    /// others to appear; `on_listening` is called as soon as peers can dial.
    /// `peer_services` are served beside Raft's on the peer port, behind the
    /// same checks of cluster id and addressee.
    ///
    /// Cancelling is safe: what was granted, claimed or written by then is on
    /// disk, and the next start goes on from there.
    pub async fn start(
        config: FlockConfig,
        peer_services: Routes,
        on_listening: impl FnOnce() + Send,
    ) -> Result<Flock, StartError> {
        let log = LogStoreOptions { durability: config.durability.into(), ..LogStoreOptions::default() };
        Self::start_with_log(config, log, peer_services, on_listening).await
    }

    /// [`Flock::start`] with a log of one's own making: for tests of what
    /// happens when the disk fails.
    #[doc(hidden)]
    pub async fn start_with_log(
        config: FlockConfig,
        log: LogStoreOptions,
        peer_services: Routes,
        on_listening: impl FnOnce() + Send,
    ) -> Result<Flock, StartError> {
        start::start(config, log, peer_services, on_listening).await
    }

    /// Resolves when the node must end at once, and says why.
    pub async fn fatal(&self) -> Fatal {
        self.watchdog.fatal().await
    }

    /// Says how busy this node is and whether it answers requests; the others
    /// learn it within a second or so. Cheap.
    pub fn report_condition(&self, load: u32, ready: bool) {
        self.condition.load.store(load, Ordering::Relaxed);
        self.condition.ready.store(ready, Ordering::Relaxed);
    }

    /// Events from `from` on that are applied now, in order: whole entries,
    /// about `limit` events. The next page begins one index after the last.
    pub async fn history(&self, from: LogIndex, limit: usize) -> Result<Vec<HistoryRecord>, std::io::Error> {
        self.events().read(from, limit).await
    }

    /// Reads the history wherever the flock itself is out of reach.
    pub fn events(&self) -> EventReader {
        EventReader { consensus: self.consensus.clone(), history: self.history.clone() }
    }

    /// Where everything of this node is kept.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir.path
    }

    /// Hands leadership over, stops Raft, gossip and the peer server, flushes.
    /// The seat is kept. Takes little longer than `timeout`; with none,
    /// leadership is not handed over.
    pub async fn shutdown(self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let remaining = || time_until(deadline).unwrap_or_default();
        if self.consensus.status().is_leader {
            self.consensus.wait_for_settled_membership(remaining() / 2).await;
        }
        self.autopilot.abort();
        self.consensus.transfer_leadership(remaining() / 2).await;
        if let Err(error) = self.consensus.raft().shutdown().await {
            tracing::warn!(%error, "the Raft core did not end as it should");
        }
        for task in &self.tasks {
            task.abort();
        }
        self.server.stop(PEER_CALLS_END_WITHIN.min(remaining() / 2)).await;
        if let Ok(gossip) = Arc::try_unwrap(self.gossip) {
            gossip.stop().await;
        }
        let history = self.history.clone();
        let synced = tokio::task::spawn_blocking(move || lock(&history).sync()).await;
        if let Ok(Err(error)) = synced {
            tracing::warn!(%error, "the history was not flushed; what is missing is made again from the log");
        }
        if let Err(error) = self.log.close().await {
            tracing::warn!(%error, "the log was not closed as it should");
        }
        drop(self.data_dir);
        tracing::info!(node = %self.consensus.node_id(), "left the flock for now");
    }
}

impl From<Durability> for crate::log_store::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::PowerLoss => Self::PowerLoss,
            Durability::ProcessCrash => Self::ProcessCrash,
        }
    }
}
