//! What feedback needs of the replicated log, and of the other nodes. The rest
//! of this folder knows no more of them, so that tests can stand in.

use std::sync::Arc;
use std::time::Duration;

use starling_raft::state::{LogIndex, LogTime, NodeId};

use super::item::{Answer, Feedback};
use super::learnt::Sealed;
use super::ledger::Ledger;

/// One applied state.
#[derive(Clone)]
pub struct View {
    /// Whom rewards are credited to.
    pub ledger: Arc<dyn Ledger>,
    /// Its time.
    pub log_time: LogTime,
    /// The entry it is of.
    pub applied: LogIndex,
}

/// Whether a node belongs to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Belonging {
    /// This one.
    Itself,
    /// It does.
    Member,
    /// It did, and never will again.
    Removed,
    /// As far as is known here it never did.
    Stranger,
}

/// The log does not take a delta.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Now: propose it again.
    #[error("{0}")]
    NotNow(String),
    /// Ever.
    #[error("{0}")]
    Never(String),
}

/// The replicated log, as feedback sees it.
#[tonic::async_trait]
pub trait Replicated: Send + Sync + 'static {
    /// What this node has applied.
    fn view(&self) -> View;
    /// The number of this node's last delta that has been applied here.
    fn confirmed(&self) -> u64;
    /// Whether a node belongs to the cluster, as far as is applied here.
    fn belonging(&self, node: NodeId) -> Belonging;
    /// After this, everything that was committed before has been applied here.
    /// An error: that cannot be said now.
    async fn catch_up(&self, timeout: Duration) -> Result<(), String>;
    /// Puts a delta of this node into the log. Proposed again, it counts once.
    async fn propose(&self, sealed: &Sealed, timeout: Duration) -> Result<(), NotTaken>;
}

/// Brings feedback to the nodes that decided.
#[tonic::async_trait]
pub trait Carrier: Send + Sync + 'static {
    /// One answer per item. An error: nothing is known of what has happened.
    async fn carry(
        &self,
        home: NodeId,
        items: Vec<Feedback>,
        wait_counted: bool,
        timeout: Duration,
    ) -> Result<Vec<Answer>, String>;
}
