//! The one thread that owns the disk.
//!
//! It takes everything that is queued, writes it as one group, syncs once,
//! moves the high-water record, and only then calls back, in order. An error
//! is never retried: after a failed sync nobody knows what the disk holds.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::storage::IOFlushed;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::disk::{Batch, Disk};
use super::entry_format::{
    EntryOfStarling, LogIdOfStarling, Meta, VoteOfStarling, encode_entry, encode_log_id, encode_marker,
    encode_origin, encode_vote, entry_size_bytes, log_key_floor, parse_log_key,
};
use super::high_water::HighWater;
use super::sled_disk::panic_message;
use super::tail::Tail;
use crate::raft_types::TypeConfig;

/// Largest batch given to the disk at once, keys and values together. Larger
/// groups become several batches under one sync.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Operations written as one group at most.
const GROUP_OPERATIONS_MAX: usize = 4096;
/// Keys that a purge or truncation takes out in one batch.
pub(super) const REMOVALS_PER_BATCH_MAX: usize = 1000;
/// How long a commit mark may wait for an operation to ride along with.
const COMMITTED_DELAY_MAX: Duration = Duration::from_millis(50);

/// Answers once an operation is durable.
pub(super) type Done = oneshot::Sender<io::Result<()>>;

/// What the committer is asked to do, in the order in which memory did it.
pub(super) enum Operation {
    /// Writes entries. `origin` is set where an unpurged log begins with them.
    Append { entries: Vec<EntryOfStarling>, origin: Option<u64>, epoch: u64, callback: IOFlushed<TypeConfig> },
    /// Writes a vote.
    SaveVote { vote: VoteOfStarling, done: Done },
    /// Writes which cluster the log belongs to.
    SetMarker { marker: [u8; 16], done: Done },
    /// Writes how far the log is committed; need not be durable.
    SaveCommitted { committed: Option<LogIdOfStarling> },
    /// Takes out the entries from `from` on; `keep` is the last log id then.
    Truncate { from: u64, keep: Option<LogIdOfStarling>, done: Done },
    /// Writes the purge mark; the entries are taken out little by little.
    Purge { upto: LogIdOfStarling },
    /// Lets go of the disk.
    Close { done: Done },
}

impl Operation {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Append { entries, .. } => entries.iter().map(entry_size_bytes).sum(),
            _ => 64,
        }
    }

    /// Written alone, after everything before it.
    fn stands_alone(&self) -> bool {
        matches!(self, Self::Truncate { .. } | Self::Close { .. })
    }

    fn fail(self, why: &str) {
        let error = || io::Error::other(format!("the log has stopped: {why}"));
        match self {
            Self::Append { callback, .. } => callback.io_completed(Err(error())),
            Self::SaveVote { done, .. }
            | Self::SetMarker { done, .. }
            | Self::Truncate { done, .. }
            | Self::Close { done } => {
                // The caller may have given up waiting.
                let _ = done.send(Err(error()));
            }
            Self::SaveCommitted { .. } | Self::Purge { .. } => {}
        }
    }
}

/// An operation in the queue. The permit is its share of the queue's bound.
pub(super) struct Queued {
    pub(super) operation: Operation,
    pub(super) permit: OwnedSemaphorePermit,
}

/// What the committer has done since the log was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) appends: AtomicU64,
    pub(super) entries: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) syncs: AtomicU64,
}

/// Memory that the committer shares with the store's handles.
#[derive(Debug, Default)]
pub(super) struct Shared {
    tail: Mutex<Tail>,
    pub(super) counters: Counters,
}

impl Shared {
    pub(super) fn new(tail: Tail) -> Self {
        Self { tail: Mutex::new(tail), counters: Counters::default() }
    }

    pub(super) fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a record up and writes it to the slot whose turn it is.
pub(super) fn write_high_water(disk: &mut impl Disk, high_water: &mut HighWater) -> io::Result<()> {
    high_water.generation += 1;
    disk.write_high_water(high_water.slot(), &high_water.encode())
}

/// The thread's state.
pub(super) struct Committer<D> {
    disk: D,
    shared: Arc<Shared>,
    high_water: HighWater,
    queue: Receiver<Queued>,
    fatal: watch::Sender<Option<String>>,
    fail_after_appends: Option<u64>,
    /// The group being written; answered when it is durable, or has failed.
    group: Vec<Queued>,
    /// Taken from the queue, but to be done after the current group.
    held_over: Option<Queued>,
    unwritten_committed: Option<LogIdOfStarling>,
    /// Entries below this index are still to be taken out.
    purge_below: Option<u64>,
}

/// What the thread does after a round.
enum After {
    GoOn,
    /// Nobody holds the log any more.
    End,
    /// It was closed, and the disk is to be let go before this is answered.
    Closed(Done),
}

impl<D: Disk> Committer<D> {
    /// A committer of what [`super::recovery`] found.
    pub(super) fn new(
        disk: D,
        shared: Arc<Shared>,
        high_water: HighWater,
        queue: Receiver<Queued>,
        fatal: watch::Sender<Option<String>>,
        fail_after_appends: Option<u64>,
    ) -> Self {
        Self {
            disk,
            shared,
            high_water,
            queue,
            fatal,
            fail_after_appends,
            group: Vec::new(),
            held_over: None,
            unwritten_committed: None,
            purge_below: None,
        }
    }

    /// Runs until the log is closed, dropped, or fails.
    pub(super) fn run(mut self) {
        loop {
            // sled panics where others return an error.
            match std::panic::catch_unwind(AssertUnwindSafe(|| self.round())) {
                Ok(Ok(After::GoOn)) => {}
                Ok(Ok(After::End)) => return,
                Ok(Ok(After::Closed(done))) => {
                    self.disk.close();
                    // The caller may have given up waiting.
                    let _ = done.send(Ok(()));
                    return;
                }
                Ok(Err(error)) => return self.stop_for_good(&error.to_string()),
                Err(panic) => {
                    return self.stop_for_good(&format!("panic: {}", panic_message(panic.as_ref())));
                }
            }
        }
    }

    /// One group, or one piece of what can wait.
    fn round(&mut self) -> io::Result<After> {
        match self.gather() {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => {
                self.do_what_can_wait()?;
                return Ok(After::GoOn);
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.write_committed_alone()?;
                return Ok(After::End);
            }
        }
        if let [Queued { operation: Operation::Truncate { from, keep, .. }, .. }] = self.group.as_slice() {
            self.truncate(*from, *keep)?;
            self.answer();
            return Ok(After::GoOn);
        }
        if let [Queued { operation: Operation::Close { .. }, .. }] = self.group.as_slice() {
            self.write_committed_alone()?;
            if let Some(Queued { operation: Operation::Close { done }, .. }) = self.group.pop() {
                return Ok(After::Closed(done));
            }
        }
        self.commit()?;
        self.answer();
        self.purge_some()?;
        Ok(After::GoOn)
    }

    /// Waits for an operation and takes what is queued behind it, up to a bound.
    fn gather(&mut self) -> Result<(), RecvTimeoutError> {
        let first = match self.held_over.take() {
            Some(queued) => queued,
            None if self.purge_below.is_some() => self.queue.recv_timeout(Duration::ZERO)?,
            None if self.unwritten_committed.is_some() => self.queue.recv_timeout(COMMITTED_DELAY_MAX)?,
            None => self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected)?,
        };
        let mut size_bytes = first.operation.size_bytes();
        let mut complete = first.operation.stands_alone();
        self.group.push(first);
        while !complete && size_bytes < BATCH_BYTES_MAX && self.group.len() < GROUP_OPERATIONS_MAX {
            let Ok(queued) = self.queue.try_recv() else { break };
            size_bytes += queued.operation.size_bytes();
            complete = queued.operation.stands_alone();
            if complete {
                self.held_over = Some(queued);
            } else {
                self.group.push(queued);
            }
        }
        Ok(())
    }

    /// Writes the group, syncs, and moves the high-water record.
    fn commit(&mut self) -> io::Result<()> {
        let mut writer = Writer::default();
        let mut promised = self.high_water;
        let mut written: Option<(u64, u64)> = None;
        let mut appends = 0;
        let mut entries_appended = 0;
        for queued in &self.group {
            match &queued.operation {
                Operation::Append { entries, origin, epoch, .. } => {
                    if let Some(origin) = origin {
                        writer.put(Meta::Origin, encode_origin(*origin));
                    }
                    for entry in entries {
                        writer.put_entry(entry);
                        promised.last_log_id = Some(entry.log_id);
                        written = Some((entry.log_id.index + 1, *epoch));
                    }
                    appends += 1;
                    entries_appended += entries.len() as u64;
                }
                Operation::SaveVote { vote, .. } => {
                    writer.put(Meta::Vote, encode_vote(vote));
                    promised.vote = Some(*vote);
                }
                Operation::SetMarker { marker, .. } => {
                    writer.put(Meta::Marker, encode_marker(marker));
                    promised.marker = Some(*marker);
                }
                Operation::SaveCommitted { committed } => self.unwritten_committed = *committed,
                Operation::Purge { upto } => {
                    writer.put(Meta::Purged, encode_log_id(Meta::Purged, upto));
                    self.purge_below = Some(upto.index + 1);
                    if promised.last_log_id.is_none_or(|last| last.index <= upto.index) {
                        promised.last_log_id = Some(*upto);
                    }
                }
                Operation::Truncate { .. } | Operation::Close { .. } => {}
            }
        }
        if writer.is_empty() {
            return Ok(());
        }
        if let Some(committed) = self.unwritten_committed.take() {
            writer.put(Meta::Committed, encode_log_id(Meta::Committed, &committed));
        }
        self.write_and_sync(writer.into_batches())?;
        self.refuse_if_told_to(appends)?;
        if promised != self.high_water {
            self.high_water = promised;
            write_high_water(&mut self.disk, &mut self.high_water)?;
        }

        self.shared.counters.appends.fetch_add(appends, Ordering::Relaxed);
        self.shared.counters.entries.fetch_add(entries_appended, Ordering::Relaxed);
        let mut tail = self.shared.tail();
        if let Some((end, epoch)) = written {
            tail.mark_written(end, epoch);
        }
        tail.vote = self.high_water.vote;
        tail.marker = self.high_water.marker;
        Ok(())
    }

    /// Tells everyone in the group that it is durable.
    fn answer(&mut self) {
        for queued in self.group.drain(..) {
            match queued.operation {
                Operation::Append { callback, .. } => callback.io_completed(Ok(())),
                Operation::SaveVote { done, .. }
                | Operation::SetMarker { done, .. }
                | Operation::Truncate { done, .. }
                | Operation::Close { done } => {
                    // The caller may have given up waiting.
                    let _ = done.send(Ok(()));
                }
                Operation::SaveCommitted { .. } | Operation::Purge { .. } => {}
            }
            drop(queued.permit);
        }
    }

    /// Lowers the high-water record, then takes out the entries from the end
    /// towards `from`: a crash in between leaves a longer log, never a hole.
    fn truncate(&mut self, from: u64, keep: Option<LogIdOfStarling>) -> io::Result<()> {
        if self.high_water.last_log_id.is_some_and(|last| last.index >= from) {
            self.high_water.last_log_id = keep;
            write_high_water(&mut self.disk, &mut self.high_water)?;
        }
        let mut keys = Vec::new();
        self.disk.reader().scan(&log_key_floor(from), &log_key_floor(u64::MAX), &mut |key, _| {
            keys.push(key.to_vec());
            Ok(true)
        })?;
        let mut batches = Vec::new();
        let mut batch = Batch::default();
        let mut batch_keys = 0;
        let mut last_index = None;
        for key in keys.into_iter().rev() {
            let (index, _) = parse_log_key(&key)?;
            // All chunks of an entry go in one batch.
            if batch_keys >= REMOVALS_PER_BATCH_MAX && last_index != Some(index) {
                batches.push(std::mem::take(&mut batch));
                batch_keys = 0;
            }
            batch.remove(key);
            batch_keys += 1;
            last_index = Some(index);
        }
        batches.push(batch);
        self.write_and_sync(batches)
    }

    fn do_what_can_wait(&mut self) -> io::Result<()> {
        if self.purge_below.is_some() {
            return self.purge_some();
        }
        self.write_committed_alone()
    }

    fn write_committed_alone(&mut self) -> io::Result<()> {
        let Some(committed) = self.unwritten_committed.take() else { return Ok(()) };
        let mut batch = Batch::default();
        batch.put(Meta::Committed.key(), encode_log_id(Meta::Committed, &committed));
        self.write_and_sync(vec![batch])
    }

    /// Takes out some of what lies below the purge mark. Not synced: a crash
    /// brings entries back that the purge mark rules out.
    fn purge_some(&mut self) -> io::Result<()> {
        let Some(below) = self.purge_below else { return Ok(()) };
        let mut batch = Batch::default();
        let mut keys = 0;
        self.disk.reader().scan(&log_key_floor(0), &log_key_floor(below), &mut |key, _| {
            batch.remove(key.to_vec());
            keys += 1;
            Ok(keys < REMOVALS_PER_BATCH_MAX)
        })?;
        if keys < REMOVALS_PER_BATCH_MAX {
            self.purge_below = None;
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.shared.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.disk.write(batch)
    }

    fn write_and_sync(&mut self, batches: Vec<Batch>) -> io::Result<()> {
        for batch in batches.into_iter().filter(|batch| !batch.is_empty()) {
            self.disk.write(batch)?;
            self.shared.counters.batches.fetch_add(1, Ordering::Relaxed);
        }
        self.disk.sync()?;
        self.shared.counters.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn refuse_if_told_to(&self, appends: u64) -> io::Result<()> {
        let acknowledged = self.shared.counters.appends.load(Ordering::Relaxed);
        match self.fail_after_appends {
            Some(allowed) if acknowledged + appends > allowed => {
                Err(io::Error::other(format!("the log was told to fail after {allowed} appends")))
            }
            _ => Ok(()),
        }
    }

    /// Says that the log has failed and refuses everything from here on.
    fn stop_for_good(mut self, why: &str) {
        tracing::error!(%why, "the Raft log has failed; this process must end");
        self.shared.tail().stopped = Some(why.to_owned());
        self.fatal.send_replace(Some(why.to_owned()));
        for queued in self.group.drain(..).chain(self.held_over.take()) {
            queued.operation.fail(why);
        }
        while let Ok(queued) = self.queue.recv() {
            queued.operation.fail(why);
        }
    }
}

/// Cuts a group into batches within the bound, each of which may be the last
/// that a crash leaves.
#[derive(Default)]
struct Writer {
    batches: Vec<Batch>,
    batch: Batch,
}

impl Writer {
    fn put(&mut self, meta: Meta, value: Vec<u8>) {
        self.batch.put(meta.key(), value);
    }

    fn put_entry(&mut self, entry: &EntryOfStarling) {
        let chunks = encode_entry(entry);
        let entry_bytes: usize = chunks.iter().map(|(key, value)| key.len() + value.len()).sum();
        if self.batch.size_bytes() + entry_bytes <= BATCH_BYTES_MAX {
            for (key, value) in chunks {
                self.batch.put(key, value);
            }
            return;
        }
        self.close_batch();
        // The first chunk comes last: an entry without it was never written.
        for (key, value) in chunks.into_iter().rev() {
            if self.batch.size_bytes() + key.len() + value.len() > BATCH_BYTES_MAX {
                self.close_batch();
            }
            self.batch.put(key, value);
        }
    }

    fn close_batch(&mut self) {
        if !self.batch.is_empty() {
            self.batches.push(std::mem::take(&mut self.batch));
        }
    }

    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.batch.is_empty()
    }

    fn into_batches(mut self) -> Vec<Batch> {
        self.close_batch();
        self.batches
    }
}
