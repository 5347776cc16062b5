//! Feedback: what became known about predictions, credited to the arms that made
//! them. Once per decision, whichever nodes it is sent to, how often, and
//! whoever dies in between.
//!
//! ```text
//! intake → store (one thread: journal, bitmaps, sums) → sender → log
//!        ↘ another node's intake
//!        ↘ outbox → delivery                          (where that cannot be reached)
//! ```

pub mod boots;
mod consensus_log;
mod delivery;
pub mod deltas;
pub mod disk;
pub mod home;
#[cfg(test)]
mod home_tests;
mod intake;
#[cfg(test)]
mod intake_tests;
pub mod item;
mod learnt;
pub mod ledger;
#[cfg(test)]
mod memory_disk;
mod metrics;
pub mod outbox;
mod peer_service;
mod records;
pub mod replicated;
pub mod rewarded;
pub mod segments;
mod sender;
mod state_ledger;
mod store;
#[cfg(test)]
mod testing;
pub mod verdict;
pub mod wire;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use starling_raft::flock::Flock;
use starling_raft::state::NodeId;
use tokio::sync::watch;

use self::consensus_log::ConsensusLog;
use self::home::HomeLimits;
use self::intake::Intake;
use self::item::{Answer, Feedback};
use self::metrics::FeedbackMetrics;
use self::peer_service::PeerCarrier;
use self::replicated::{Carrier, Replicated};
use self::sender::Sender;
use self::store::{Store, StoreConfig};
use crate::inference::task_keeper::TaskKeeper;

pub use self::learnt::Sealed;
pub use self::peer_service::PeerFeedbackService;
pub use self::sender::FLUSH_INTERVAL_MIN;
pub use self::store::DecisionCount;

const SEGMENT_BYTES: u64 = 16 << 20;
/// How long the log is waited for when a node stops.
const LAST_SENDING_MAX: Duration = Duration::from_secs(2);
const ASIDE_BYTES_MAX: u64 = 256 << 20;

/// How a node keeps feedback.
#[derive(Debug, Clone)]
pub struct FeedbackConfig {
    /// Everything that is kept, in a folder of its own.
    pub folder: PathBuf,
    /// Survives power loss, or the death of the process only.
    pub is_durable: bool,
    /// Decisions older than this are not rewarded any more.
    pub horizon: Duration,
    /// Of the journal of what was credited.
    pub journal_bytes_max: u64,
    /// Of what waits for other nodes.
    pub outbox_bytes_max: u64,
    /// Between two entries of the log; at least [`FLUSH_INTERVAL_MIN`].
    pub flush_interval: Duration,
}

/// Why feedback was not taken. Whatever it says, all of it may be sent again:
/// what had been taken is a duplicate then.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FeedbackError {
    /// The request as a whole is wrong.
    #[error("{0}")]
    InvalidArgument(String),
    /// There is no room.
    #[error("{text}")]
    Overloaded {
        /// For what.
        text: String,
        /// When there may be.
        retry_after: Duration,
    },
    /// It cannot be kept here.
    #[error("{0}")]
    Unavailable(String),
    /// This node has not applied all that it had before its last restart.
    #[error("this node is catching up with the log; try again")]
    Behind,
}

/// Takes feedback on one node. Cheap to clone.
#[derive(Clone)]
pub struct FeedbackDesk {
    intake: Arc<Intake>,
    sender: Sender,
    tasks: Arc<TaskKeeper>,
}

impl FeedbackDesk {
    /// Feedback of a node of this flock. `decided`: how many decisions it has made
    /// since its start. The tasks run on the runtime that calls this. Blocks while
    /// the files are read.
    pub fn start(
        flock: &Flock,
        peer_service: &PeerFeedbackService,
        decided: DecisionCount,
        config: FeedbackConfig,
        registry: &prometheus::Registry,
    ) -> Result<Self, FeedbackError> {
        let consensus = flock.consensus.clone();
        let (this_node, boot) = (consensus.node_id(), consensus.boot());
        let replicated = Arc::new(ConsensusLog::new(consensus));
        let carrier = Arc::new(PeerCarrier { peers: flock.peers.clone() });
        Self::start_with(this_node, boot, replicated, carrier, peer_service, decided, config, registry)
    }

    /// Opens the files and starts everything: takes what peers bring, brings what
    /// waits, and sends what was credited through the log. `boot`: how often this
    /// node has started.
    #[allow(clippy::too_many_arguments, reason = "each is a part of the node that tests replace")]
    fn start_with(
        this_node: NodeId,
        boot: u32,
        replicated: Arc<dyn Replicated>,
        carrier: Arc<dyn Carrier>,
        peer_service: &PeerFeedbackService,
        decided: DecisionCount,
        config: FeedbackConfig,
        registry: &prometheus::Registry,
    ) -> Result<Self, FeedbackError> {
        let failed = |error: &dyn std::fmt::Display| FeedbackError::Unavailable(error.to_string());
        let metrics = FeedbackMetrics::register(registry).map_err(|error| failed(&error))?;
        let store_config = StoreConfig {
            folder: config.folder,
            is_durable: config.is_durable,
            boot,
            home: HomeLimits {
                horizon: config.horizon,
                segment_bytes: SEGMENT_BYTES,
                journal_bytes: config.journal_bytes_max,
                aside_bytes: ASIDE_BYTES_MAX,
            },
            outbox_bytes_max: config.outbox_bytes_max,
        };
        let store =
            Store::start(store_config, Arc::clone(&replicated), decided).map_err(|error| failed(&error))?;
        let (committed, committed_receiver) = watch::channel(0);
        let intake = Arc::new(Intake {
            this_node,
            store: store.clone(),
            replicated: Arc::clone(&replicated),
            carrier,
            committed: committed_receiver,
            metrics: metrics.clone(),
            silent: Mutex::new(HashMap::new()),
        });
        peer_service.attach(Arc::clone(&intake));
        let sender = Sender {
            store,
            replicated,
            committed: Arc::new(committed),
            metrics,
            flush_interval: config.flush_interval,
        };
        let tasks = TaskKeeper::default();
        let sending = sender.clone();
        tasks.keep("feedback sender", move || sending.clone().run());
        let delivering = Arc::clone(&intake);
        tasks.keep("feedback delivery", move || delivery::run(Arc::clone(&delivering)));
        Ok(Self { intake, sender, tasks: Arc::new(tasks) })
    }

    /// Takes feedback about any node's decisions: one answer per item, in order;
    /// what could not even be read is answered already. With `wait_counted`,
    /// waits until what is credited is committed, or until the deadline.
    /// Cancelling does not take back what was taken.
    pub async fn record(
        &self,
        items: Vec<Result<Feedback, Answer>>,
        wait_counted: bool,
        deadline: Instant,
    ) -> Result<Vec<Answer>, FeedbackError> {
        self.intake.record(items, wait_counted, deadline).await
    }

    /// This node decides no more: sends what is left to the log, writes that down,
    /// and ends everything. Takes little longer than two seconds.
    pub async fn shutdown(&self) {
        self.tasks.stop();
        self.sender.finish(LAST_SENDING_MAX).await;
        if let Err(error) = self.intake.store.end().await {
            tracing::warn!(%error, "feedback did not end as it should; nothing that was answered is lost");
        }
    }
}
