//! The Raft log on disk: votes and entries, durable before they are acknowledged.
//!
//! [`LogStore`] is what openraft holds. What it appends is readable from memory
//! at once; one thread ([`committer`]) owns the disk, writes everything queued
//! as one group and calls back when that is durable. [`recovery`] holds the log
//! against the [`high_water`] record when it is opened: a log that has forgotten
//! a promise is an [`OpenError`] that fences the node.

mod committer;
pub mod disk;
mod entry_format;
mod high_water;
pub mod memory;
mod options;
mod read_back;
mod recovery;
mod sled_disk;
mod store;
mod tail;

use std::path::Path;
use std::sync::{Arc, mpsc};

use tokio::sync::watch;

use self::committer::{Committer, Shared};
pub use self::options::{Durability, LogStoreOptions, OpenError};
use self::sled_disk::{SledDisk, panic_message};
pub use self::store::{LogStats, LogStore};

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
    let disk = SledDisk::open(dir, &options)?;
    open_on(disk, dir, options)
}

/// Opens the log on any disk. `dir` is its name in errors.
pub fn open_on(
    mut disk: impl disk::Disk,
    dir: &Path,
    options: LogStoreOptions,
) -> Result<OpenLog, OpenError> {
    let unreadable = |source| OpenError::Unreadable { dir: dir.to_owned(), source };
    // sled reads lazily, and panics on pages that it cannot read.
    let recovered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        recovery::recover(&mut disk, dir, &options)
    }));
    let recovered = match recovered {
        Ok(recovered) => recovered?,
        Err(panic) => {
            let what = format!("reading it back panicked: {}", panic_message(panic.as_ref()));
            return Err(OpenError::Damaged { dir: dir.to_owned(), what });
        }
    };

    let shared = Arc::new(Shared::new(recovered.tail));
    let (fatal_sender, fatal) = watch::channel(None);
    let (sender, queue) = mpsc::channel();
    let store = LogStore::new(Arc::clone(&shared), disk.reader(), sender, options.queue_bytes_max);
    let committer =
        Committer::new(disk, shared, recovered.high_water, queue, fatal_sender, options.fail_after_appends);
    std::thread::Builder::new()
        .name("log-commit".to_owned())
        .spawn(move || committer.run())
        .map_err(unreadable)?;
    Ok(OpenLog { store, fatal })
}
