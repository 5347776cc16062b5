//! What the log holds, as far as memory knows: its bounds, the vote, and the
//! newest entries. An appended entry is readable from here at once, durable or not.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use super::entry_format::{EntryOfStarling, LogIdOfStarling, VoteOfStarling, entry_size_bytes};

/// The bounds of the log and its newest entries.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) vote: Option<VoteOfStarling>,
    pub(super) committed: Option<LogIdOfStarling>,
    pub(super) marker: Option<[u8; 16]>,
    pub(super) purged: Option<LogIdOfStarling>,
    /// The last entry, or the purge mark where there is none after it.
    pub(super) last_log_id: Option<LogIdOfStarling>,
    /// Indices of the entries the log contains.
    indices: Range<u64>,
    /// The entries at the end of `indices`.
    cached: VecDeque<EntryOfStarling>,
    cached_bytes: usize,
    cached_bytes_max: usize,
    /// Entries below this index are on disk, synced or not.
    written_end: u64,
    /// Counts truncations: what was read or written across one is void.
    epoch: u64,
    /// Why nothing is accepted any more.
    pub(super) stopped: Option<String>,
}

/// Where the entries of a range are.
#[derive(Debug)]
pub(super) struct ReadPlan {
    /// To be read from the disk, before `cached`.
    pub(super) on_disk: Range<u64>,
    cached: Vec<EntryOfStarling>,
    end: u64,
    epoch: u64,
}

impl Tail {
    /// The log as it was found on disk. `newest` are its last entries.
    pub(super) fn recovered(
        indices: Range<u64>,
        last_log_id: Option<LogIdOfStarling>,
        newest: VecDeque<EntryOfStarling>,
        cached_bytes_max: usize,
    ) -> Self {
        let cached_bytes = newest.iter().map(entry_size_bytes).sum();
        let mut tail = Self {
            last_log_id,
            written_end: indices.end,
            indices,
            cached: newest,
            cached_bytes,
            cached_bytes_max,
            ..Self::default()
        };
        tail.evict();
        tail
    }

    /// Indices of the entries the log contains.
    pub(super) fn indices(&self) -> Range<u64> {
        self.indices.clone()
    }

    /// Counts truncations.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Refuses once the log has stopped.
    pub(super) fn check_running(&self) -> io::Result<()> {
        match &self.stopped {
            Some(why) => Err(io::Error::other(format!("the log has stopped: {why}"))),
            None => Ok(()),
        }
    }

    /// Adds entries, which must follow the last one without a gap. Answers the
    /// index at which a log that was never purged begins, if it begins here.
    pub(super) fn append(&mut self, entries: &[EntryOfStarling]) -> io::Result<Option<u64>> {
        let Some((first, last)) = entries.first().zip(entries.last()) else {
            return Ok(None);
        };
        let begins_here = self.indices.is_empty() && self.purged.is_none();
        let expected = if begins_here { first.log_id.index } else { self.indices.end };
        for (entry, index) in entries.iter().zip(expected..) {
            if entry.log_id.index != index {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("entry {} appended where {index} was expected would leave a gap", entry.log_id),
                ));
            }
        }
        if begins_here {
            self.indices = expected..expected;
            self.written_end = expected;
        }
        self.indices.end = last.log_id.index + 1;
        self.last_log_id = Some(last.log_id);
        for entry in entries {
            self.cached_bytes += entry_size_bytes(entry);
            self.cached.push_back(entry.clone());
        }
        self.evict();
        Ok(begins_here.then_some(expected))
    }

    /// Takes out everything after `keep`. Answers the first index taken out, if any.
    pub(super) fn truncate_after(&mut self, keep: Option<LogIdOfStarling>) -> Option<u64> {
        let from = keep.map_or(0, |log_id| log_id.index + 1).max(self.indices.start);
        if from >= self.indices.end {
            return None;
        }
        while self.cached.back().is_some_and(|entry| entry.log_id.index >= from) {
            self.forget_newest();
        }
        self.indices.end = from;
        self.written_end = self.written_end.min(from);
        self.last_log_id = if self.indices.is_empty() { self.purged } else { keep };
        self.epoch += 1;
        Some(from)
    }

    /// Takes out everything up to and including `upto`. Answers whether that changes anything.
    pub(super) fn purge(&mut self, upto: LogIdOfStarling) -> bool {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return false;
        }
        let start = upto.index + 1;
        self.purged = Some(upto);
        while self.cached.front().is_some_and(|entry| entry.log_id.index < start) {
            self.forget_oldest();
        }
        self.indices.start = self.indices.start.max(start);
        if self.indices.end <= start {
            self.indices = start..start;
            self.written_end = start;
            self.last_log_id = Some(upto);
        }
        true
    }

    /// Entries below `end` are on disk, as of truncation `epoch`.
    pub(super) fn mark_written(&mut self, end: u64, epoch: u64) {
        if epoch == self.epoch {
            self.written_end = self.written_end.max(end);
            self.evict();
        }
    }

    /// Plans how to read the entries of `range` that the log contains, about
    /// `bytes_max` of them and at least one.
    pub(super) fn plan_read(&self, range: Range<u64>, bytes_max: usize) -> ReadPlan {
        let start = range.start.max(self.indices.start);
        let end = range.end.min(self.indices.end).max(start);
        let cached_start = self.indices.end - self.cached.len() as u64;
        let on_disk = start..end.min(cached_start).max(start);
        let mut cached = Vec::new();
        let mut taken_bytes = 0;
        let skipped = on_disk.end.saturating_sub(cached_start) as usize;
        for entry in self.cached.iter().skip(skipped).take_while(|entry| entry.log_id.index < end) {
            if taken_bytes >= bytes_max {
                break;
            }
            taken_bytes += entry_size_bytes(entry);
            cached.push(entry.clone());
        }
        ReadPlan { on_disk, cached, end, epoch: self.epoch }
    }

    /// Puts together what was read from disk with what was cached. `None` if
    /// the log has changed meanwhile and the read must be repeated.
    pub(super) fn finish_read(
        &self,
        plan: ReadPlan,
        from_disk: Vec<EntryOfStarling>,
        bytes_max: usize,
    ) -> Option<Vec<EntryOfStarling>> {
        if plan.epoch != self.epoch {
            return None;
        }
        let mut next = plan.on_disk.start.max(self.indices.start);
        let mut entries = Vec::with_capacity(from_disk.len() + plan.cached.len());
        let mut taken_bytes = 0;
        let still_here = |entry: &EntryOfStarling| entry.log_id.index >= self.indices.start;
        for entry in from_disk.into_iter().chain(plan.cached).filter(still_here) {
            if taken_bytes >= bytes_max {
                break;
            }
            if entry.log_id.index != next {
                return None;
            }
            taken_bytes += entry_size_bytes(&entry);
            next += 1;
            entries.push(entry);
        }
        let is_complete = next >= plan.end || taken_bytes >= bytes_max;
        is_complete.then_some(entries)
    }

    fn evict(&mut self) {
        while self.cached_bytes > self.cached_bytes_max
            && self.cached.front().is_some_and(|entry| entry.log_id.index < self.written_end)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(entry) = self.cached.pop_front() {
            self.cached_bytes -= entry_size_bytes(&entry);
        }
    }

    fn forget_newest(&mut self) {
        if let Some(entry) = self.cached.pop_back() {
            self.cached_bytes -= entry_size_bytes(&entry);
        }
    }
}
