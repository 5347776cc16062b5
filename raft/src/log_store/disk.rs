//! What the log needs of a disk: a sorted map written in atomic batches, and a
//! few bytes beside it. sled is one, a fault-injecting one in memory is another.

use std::io;
use std::sync::Arc;

/// Changes that happen together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    size_bytes: usize,
}

impl Batch {
    /// Sets `key` to `value`.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.size_bytes += key.len() + value.len();
        self.changes.push((key, Some(value)));
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.size_bytes += key.len();
        self.changes.push((key, None));
    }

    /// The changes in the order they were asked for; `None` takes the key out.
    pub fn into_changes(self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        self.changes
    }

    /// Keys and values together.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// The writing side. One thread owns it; every call may block. An error is
/// final: what is on the disk is unknown after it, and nothing is retried.
pub trait Disk: Send + 'static {
    /// Carries out a batch, after all batches before it. Readers see it when
    /// this returns; a crash may still take it back, together with all batches
    /// after it.
    fn write(&mut self, batch: Batch) -> io::Result<()>;

    /// Everything written before is durable when this returns.
    fn sync(&mut self) -> io::Result<()>;

    /// The bytes of both slots of the high-water record; empty where there are none.
    fn read_high_water(&mut self) -> io::Result<Vec<Vec<u8>>>;

    /// Overwrites one slot of the high-water record. Durable when this returns.
    fn write_high_water(&mut self, slot: usize, record: &[u8]) -> io::Result<()>;

    /// A handle for reading, usable from any thread.
    fn reader(&self) -> Arc<dyn DiskReader>;

    /// Lets go of the disk: it can be opened again when this returns.
    fn close(self)
    where
        Self: Sized,
    {
    }
}

/// What [`DiskReader::scan`] calls for every key and value; answers whether to go on.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> io::Result<bool> + 'a;

/// The reading side. Every call may block.
pub trait DiskReader: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// Visits the keys in `from..to` in order. Batches written meanwhile may or
    /// may not be seen.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> io::Result<()>;
}
