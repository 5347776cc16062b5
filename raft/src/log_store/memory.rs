//! A disk in memory that fails on demand and forgets what was not synced: the
//! oracle that the log's promises are tested against.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Batch, Disk, DiskReader, Visit};
use super::high_water::SLOTS;
use super::{LogStoreOptions, OpenError, OpenLog};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Default)]
struct Contents {
    /// What readers see.
    current: Map,
    /// What a power cut leaves.
    synced: Map,
    /// Batches between the two, in order.
    unsynced: Vec<Batch>,
    high_water: [Vec<u8>; SLOTS],
    fail_next_write: bool,
    fail_next_sync: bool,
    fail_next_high_water: bool,
    failing_reads: bool,
    lying_syncs: bool,
}

/// A disk that outlives the logs opened on it. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    contents: Arc<Mutex<Contents>>,
}

impl MemoryDisk {
    /// Opens the log on this disk, as [`super::open`] does on a directory.
    pub fn open_log(&self, options: LogStoreOptions) -> Result<OpenLog, OpenError> {
        super::open_on(self.clone(), Path::new("memory"), options)
    }

    /// The next batch is refused.
    pub fn fail_next_write(&self) {
        self.contents().fail_next_write = true;
    }

    /// The next sync fails, and nothing since the last one is durable.
    pub fn fail_next_sync(&self) {
        self.contents().fail_next_sync = true;
    }

    /// The next write of the high-water record fails.
    pub fn fail_next_high_water(&self) {
        self.contents().fail_next_high_water = true;
    }

    /// Whether every read fails from now on.
    pub fn set_failing_reads(&self, failing: bool) {
        self.contents().failing_reads = failing;
    }

    /// Whether syncs only claim to have happened from now on, as on a disk
    /// whose cache lies. The high-water record is not affected.
    pub fn set_lying_syncs(&self, lying: bool) {
        self.contents().lying_syncs = lying;
    }

    /// Cuts the power: of the batches that were not synced, only the first
    /// `kept` are there afterwards.
    pub fn cut_power(&self, kept: usize) {
        let mut contents = self.contents();
        let batches = std::mem::take(&mut contents.unsynced);
        for batch in batches.into_iter().take(kept) {
            apply(&mut contents.synced, batch);
        }
        contents.current = contents.synced.clone();
    }

    /// Changes the stored value of the `position`th key that starts with
    /// `prefix`. Answers whether there was one.
    pub fn corrupt(&self, prefix: &[u8], position: usize, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut contents = self.contents();
        let key = contents.current.keys().filter(|key| key.starts_with(prefix)).nth(position).cloned();
        let Some(key) = key else { return false };
        if let Some(value) = contents.current.get_mut(&key) {
            change(value);
        }
        contents.synced = contents.current.clone();
        true
    }

    /// Takes out the `position`th key that starts with `prefix`. Answers whether there was one.
    pub fn lose(&self, prefix: &[u8], position: usize) -> bool {
        let mut contents = self.contents();
        let key = contents.current.keys().filter(|key| key.starts_with(prefix)).nth(position).cloned();
        let Some(key) = key else { return false };
        contents.current.remove(&key);
        contents.synced = contents.current.clone();
        true
    }

    /// Changes the bytes of one slot of the high-water record.
    pub fn damage_high_water(&self, slot: usize, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(bytes) = self.contents().high_water.get_mut(slot) {
            change(bytes);
        }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apply(map: &mut Map, batch: Batch) {
    for (key, value) in batch.into_changes() {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

fn injected(what: &str) -> io::Error {
    io::Error::other(format!("injected: {what} failed"))
}

impl Disk for MemoryDisk {
    fn write(&mut self, batch: Batch) -> io::Result<()> {
        let mut contents = self.contents();
        if std::mem::take(&mut contents.fail_next_write) {
            return Err(injected("the write"));
        }
        apply(&mut contents.current, batch.clone());
        contents.unsynced.push(batch);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut contents = self.contents();
        if std::mem::take(&mut contents.fail_next_sync) {
            return Err(injected("the sync"));
        }
        if !contents.lying_syncs {
            contents.unsynced.clear();
            contents.synced = contents.current.clone();
        }
        Ok(())
    }

    fn read_high_water(&mut self) -> io::Result<Vec<Vec<u8>>> {
        Ok(self.contents().high_water.to_vec())
    }

    fn write_high_water(&mut self, slot: usize, record: &[u8]) -> io::Result<()> {
        let mut contents = self.contents();
        if std::mem::take(&mut contents.fail_next_high_water) {
            return Err(injected("the write of the high-water record"));
        }
        if let Some(bytes) = contents.high_water.get_mut(slot) {
            *bytes = record.to_vec();
        }
        Ok(())
    }

    fn reader(&self) -> Arc<dyn DiskReader> {
        Arc::new(self.clone())
    }
}

impl DiskReader for MemoryDisk {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let contents = self.contents();
        if contents.failing_reads {
            return Err(injected("the read"));
        }
        Ok(contents.current.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> io::Result<()> {
        let contents = self.contents();
        if contents.failing_reads {
            return Err(injected("the read"));
        }
        for (key, value) in contents.current.range(from.to_vec()..to.to_vec()) {
            if !visit(key, value)? {
                return Ok(());
            }
        }
        Ok(())
    }
}
