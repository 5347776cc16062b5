//! What can be chosen when the log is opened, and why opening it can fail.

use std::io;
use std::path::PathBuf;

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A power cut: every group of writes ends with a disk flush.
    #[default]
    PowerLoss,
    /// The death of the process only: what the kernel holds in memory when
    /// the power goes is lost. Faster on slow disks, and for tests.
    ProcessCrash,
}

/// How the log is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStoreOptions {
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// Memory for entries that are answered without reading the disk. Entries
    /// not yet written are held beyond it; [`LogStoreOptions::queue_bytes_max`] bounds those.
    pub tail_cache_bytes: usize,
    /// Bytes of entries that may wait for the disk before `append` waits.
    pub queue_bytes_max: usize,
    /// Memory sled may use for its pages.
    pub page_cache_bytes: u64,
    /// Unit in which sled takes and frees space. Large ones are reused late,
    /// long after what they held was superseded and synced. Fixed at the first
    /// start; for tests.
    #[doc(hidden)]
    pub segment_bytes: usize,
    /// For the test that proves the loss check is needed: the log is taken as it is found.
    #[doc(hidden)]
    pub skip_loss_check: bool,
    /// For tests of what happens when the disk fails: the disk reports an error
    /// once this many appends were acknowledged.
    #[doc(hidden)]
    pub fail_after_appends: Option<u64>,
}

impl Default for LogStoreOptions {
    fn default() -> Self {
        Self {
            durability: Durability::PowerLoss,
            tail_cache_bytes: 32 << 20,
            queue_bytes_max: 64 << 20,
            page_cache_bytes: 64 << 20,
            segment_bytes: 8 << 20,
            skip_loss_check: false,
            fail_after_appends: None,
        }
    }
}

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the directory.
    #[error("the log in {dir} is held by another process; stop it, or choose another data directory")]
    InUse {
        /// The log's directory.
        dir: PathBuf,
    },
    /// The directory cannot be read or written.
    #[error(
        "the log in {dir} cannot be opened: {source}; check the directory's owner, its mode and free space"
    )]
    Unreadable {
        /// The log's directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log is intact in itself but behind what this node once acknowledged.
    #[error(
        "the log in {dir} has lost acknowledged writes: {what}; this node must not vote under its identity again"
    )]
    LostWrites {
        /// The log's directory.
        dir: PathBuf,
        /// What is missing.
        what: String,
    },
    /// The log cannot be read back as it was written.
    #[error("the log in {dir} is damaged: {what}; this node must not vote under its identity again")]
    Damaged {
        /// The log's directory.
        dir: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl OpenError {
    /// What this node once promised may be forgotten: it must not vote under
    /// its identity again. It may rejoin under a new one, with its data put aside.
    pub fn fences_the_node(&self) -> bool {
        matches!(self, Self::LostWrites { .. } | Self::Damaged { .. })
    }
}
