//! The log's face to openraft.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{Stream, stream};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use uuid::Uuid;

use super::committer::{Done, Operation, Queued, Shared};
use super::disk::DiskReader;
use super::entry_format::{
    EntryOfStarling, LogIdOfStarling, VoteOfStarling, check_entry_size, entry_size_bytes,
};
use super::read_back::read_entries;
use crate::raft_types::TypeConfig;
use crate::state::ClusterId;

/// Entries that one message of replication carries, in bytes; more only if a
/// single entry is larger.
const READ_BYTES_MAX: usize = 1 << 20;
/// The queue's bound is counted in units of this size.
const QUEUE_UNIT_BYTES: usize = 1024;
/// A read is repeated when the log changed under it; it changes seldom.
const READ_ATTEMPTS_MAX: usize = 16;

/// What the log has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStats {
    /// Calls of `append` that are durable.
    pub appends: u64,
    /// Entries in them.
    pub entries: u64,
    /// Batches written.
    pub batches: u64,
    /// Disk flushes, one for each group.
    pub syncs: u64,
}

/// The Raft log. Cheap to clone; every clone is the same log. The disk is let
/// go when the last clone is dropped, or at [`LogStore::close`].
#[derive(Clone)]
pub struct LogStore {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    /// `None` once the log is closed.
    reader: Mutex<Option<Arc<dyn DiskReader>>>,
    queue: Sender<Queued>,
    queue_space: Arc<Semaphore>,
    queue_units: u32,
}

impl LogStore {
    pub(super) fn new(
        shared: Arc<Shared>,
        reader: Arc<dyn DiskReader>,
        queue: Sender<Queued>,
        queue_bytes_max: usize,
    ) -> Self {
        let queue_units = u32::try_from(queue_bytes_max / QUEUE_UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        let queue_space = Arc::new(Semaphore::new(queue_units as usize));
        Self {
            inner: Arc::new(Inner {
                shared,
                reader: Mutex::new(Some(reader)),
                queue,
                queue_space,
                queue_units,
            }),
        }
    }

    /// The cluster this log belongs to, if it was ever told.
    pub fn marker(&self) -> Option<ClusterId> {
        self.inner.shared.tail().marker.map(|bytes| ClusterId::new(Uuid::from_bytes(bytes)))
    }

    /// Says for good which cluster this log belongs to. Durable when it
    /// returns. Cancelling does not take it back.
    pub async fn set_marker(&self, cluster_id: ClusterId) -> io::Result<()> {
        let marker = *cluster_id.uuid().as_bytes();
        self.ask(|done| Operation::SetMarker { marker, done }).await
    }

    /// What the log has done since it was opened.
    pub fn stats(&self) -> LogStats {
        let counters = &self.inner.shared.counters;
        LogStats {
            appends: counters.appends.load(Ordering::Relaxed),
            entries: counters.entries.load(Ordering::Relaxed),
            batches: counters.batches.load(Ordering::Relaxed),
            syncs: counters.syncs.load(Ordering::Relaxed),
        }
    }

    /// Writes what is queued and lets go of the directory. What is asked
    /// afterwards, of any clone, is an error.
    pub async fn close(&self) -> io::Result<()> {
        self.inner.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        let permit = self.space_for(0).await?;
        let answer = {
            let mut tail = self.inner.shared.tail();
            tail.check_running()?;
            tail.stopped = Some("it was closed".to_owned());
            let (done, answer) = oneshot::channel();
            self.send(Operation::Close { done }, permit)?;
            answer
        };
        answer.await.map_err(|_| gone())?
    }

    /// Queues an operation and waits until it is durable.
    async fn ask(&self, operation: impl FnOnce(Done) -> Operation) -> io::Result<()> {
        let permit = self.space_for(0).await?;
        let answer = {
            let tail = self.inner.shared.tail();
            tail.check_running()?;
            let (done, answer) = oneshot::channel();
            self.send(operation(done), permit)?;
            answer
        };
        answer.await.map_err(|_| gone())?
    }

    /// Called while the tail is locked, so that the queue has the order in
    /// which memory was changed.
    fn send(&self, operation: Operation, permit: OwnedSemaphorePermit) -> io::Result<()> {
        self.inner.queue.send(Queued { operation, permit }).map_err(|_| gone())
    }

    async fn space_for(&self, size_bytes: usize) -> io::Result<OwnedSemaphorePermit> {
        let units = u32::try_from(size_bytes / QUEUE_UNIT_BYTES + 1).unwrap_or(u32::MAX);
        let units = units.min(self.inner.queue_units);
        Arc::clone(&self.inner.queue_space).acquire_many_owned(units).await.map_err(|_| gone())
    }

    /// The entries of `range` that the log contains, contiguous, until there
    /// are `bytes_max` of them; at least one if there is any.
    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<EntryOfStarling>> {
        for _ in 0..READ_ATTEMPTS_MAX {
            let plan = self.inner.shared.tail().plan_read(range.clone(), bytes_max);
            let from_disk = if plan.on_disk.is_empty() {
                Vec::new()
            } else {
                self.read_disk(plan.on_disk.clone(), bytes_max).await?
            };
            if let Some(entries) = self.inner.shared.tail().finish_read(plan, from_disk, bytes_max) {
                return Ok(entries);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("entries {}..{} could not be read without a gap", range.start, range.end),
        ))
    }

    async fn read_disk(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<EntryOfStarling>> {
        let reader = self.inner.reader.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reader = reader.ok_or_else(gone)?;
        let read = tokio::task::spawn_blocking(move || read_entries(reader.as_ref(), range, bytes_max));
        read.await.map_err(|panic| io::Error::other(format!("reading the log panicked: {panic}")))?
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the log is closed")
}

/// `start..end` of whatever kind of range was asked for.
fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<EntryOfStarling>, io::Error> {
        self.read(half_open(&range), usize::MAX).await
    }

    /// Never empty for a range that is not: a leader would replicate a hole.
    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<EntryOfStarling>, io::Error> {
        if start >= end {
            return Ok(Vec::new());
        }
        let entries = self.read(start..end, READ_BYTES_MAX).await?;
        match entries.first() {
            Some(entry) if entry.log_id.index == start => Ok(entries),
            _ => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("entry {start} was asked for, but it was purged or never appended"),
            )),
        }
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<EntryOfStarling, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let asked = half_open(&range);
        let contained = self.inner.shared.tail().indices();
        let remaining = asked.start.max(contained.start)..asked.end.min(contained.end);
        let pieces = stream::unfold((self.clone(), remaining), |(mut store, remaining)| async move {
            if remaining.is_empty() {
                return None;
            }
            match store.limited_get_log_entries(remaining.start, remaining.end).await {
                Ok(entries) => {
                    let next = remaining.start + entries.len() as u64..remaining.end;
                    let entries: Vec<_> = entries.into_iter().map(Ok).collect();
                    Some((stream::iter(entries), (store, next)))
                }
                Err(error) => Some((stream::iter(vec![Err(error)]), (store, 0..0))),
            }
        });
        Box::pin(futures::StreamExt::flatten(pieces))
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOfStarling>, io::Error> {
        Ok(self.inner.shared.tail().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let tail = self.inner.shared.tail();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOfStarling) -> Result<(), io::Error> {
        let vote = *vote;
        self.ask(|done| Operation::SaveVote { vote, done }).await
    }

    async fn save_committed(&mut self, committed: Option<LogIdOfStarling>) -> Result<(), io::Error> {
        let permit = self.space_for(0).await?;
        let mut tail = self.inner.shared.tail();
        tail.check_running()?;
        tail.committed = committed;
        self.send(Operation::SaveCommitted { committed }, permit)
    }

    async fn read_committed(&mut self) -> Result<Option<LogIdOfStarling>, io::Error> {
        Ok(self.inner.shared.tail().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = EntryOfStarling> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        for entry in &entries {
            check_entry_size(entry)?;
        }
        let permit = self.space_for(entries.iter().map(entry_size_bytes).sum()).await?;
        let mut tail = self.inner.shared.tail();
        tail.check_running()?;
        let origin = tail.append(&entries)?;
        let epoch = tail.epoch();
        self.send(Operation::Append { entries, origin, epoch, callback }, permit)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogIdOfStarling>) -> Result<(), io::Error> {
        let permit = self.space_for(0).await?;
        let answer = {
            let mut tail = self.inner.shared.tail();
            tail.check_running()?;
            let Some(from) = tail.truncate_after(last_log_id) else { return Ok(()) };
            let (done, answer) = oneshot::channel();
            self.send(Operation::Truncate { from, keep: tail.last_log_id, done }, permit)?;
            answer
        };
        answer.await.map_err(|_| gone())?
    }

    async fn purge(&mut self, log_id: LogIdOfStarling) -> Result<(), io::Error> {
        let permit = self.space_for(0).await?;
        let mut tail = self.inner.shared.tail();
        tail.check_running()?;
        if !tail.purge(log_id) {
            return Ok(());
        }
        self.send(Operation::Purge { upto: log_id }, permit)
    }
}
