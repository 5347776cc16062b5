//! The Raft log on disk: votes and entries, durable before they are acknowledged.
//!
//! [`LogStore`] is what openraft holds. Behind it one thread owns the disk and
//! writes everything queued as one group.

mod options;

use std::io;
use std::ops::RangeBounds;
use std::path::Path;

use openraft::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use tokio::sync::watch;

pub use self::options::{Durability, LogStoreOptions, OpenError};
use crate::raft_types::TypeConfig;
use crate::state::ClusterId;

/// An opened log.
pub struct OpenLog {
    /// What openraft is given.
    pub store: LogStore,
    /// Becomes `Some(why)` once a write has failed. The process must end then:
    /// nothing is retried, and nothing more is accepted.
    pub fatal: watch::Receiver<Option<String>>,
}

/// Opens the log in `dir`, making both if they are not there, and verifies all
/// of it against what was once acknowledged. Blocks; takes up to seconds for a long log.
pub fn open(dir: &Path, options: LogStoreOptions) -> Result<OpenLog, OpenError> {
    let _ = (dir, options);
    todo!()
}

/// The Raft log. Cheap to clone; every clone is the same log.
#[derive(Clone)]
pub struct LogStore {}

impl LogStore {
    /// The cluster this log belongs to, if it was ever told.
    pub fn marker(&self) -> Option<ClusterId> {
        todo!()
    }

    /// Says for good which cluster this log belongs to. Durable when it returns.
    pub async fn set_marker(&self, cluster_id: ClusterId) -> io::Result<()> {
        let _ = cluster_id;
        todo!()
    }

    /// Writes what is queued and lets go of the directory. What is asked
    /// afterwards, of any clone, is an error.
    pub async fn close(&self) -> io::Result<()> {
        todo!()
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<EntryOf<TypeConfig>>, io::Error> {
        let _ = range;
        todo!()
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<TypeConfig>>, io::Error> {
        todo!()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        todo!()
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<TypeConfig>) -> Result<(), io::Error> {
        let _ = vote;
        todo!()
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = EntryOf<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let _ = (entries.into_iter().count(), callback);
        todo!()
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogIdOf<TypeConfig>>) -> Result<(), io::Error> {
        let _ = last_log_id;
        todo!()
    }

    async fn purge(&mut self, log_id: LogIdOf<TypeConfig>) -> Result<(), io::Error> {
        let _ = log_id;
        todo!()
    }
}
