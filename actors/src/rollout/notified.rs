//! Up to which entry of the log webhooks were told: known to the leader, learnt by
//! the others with each answer to their reports, and kept in a file by all.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The newest entry whose webhooks are done. It only grows.
#[derive(Debug, Default)]
pub struct NotifiedMark {
    index: AtomicU64,
    file: Option<PathBuf>,
}

impl NotifiedMark {
    /// As it was kept in this file; without one that can be read, from the first
    /// entry on: telling twice is better than not at all.
    pub fn open(file: &Path) -> Self {
        let kept = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
        Self { index: AtomicU64::new(kept.unwrap_or(0)), file: Some(file.to_owned()) }
    }

    /// The entry.
    pub fn get(&self) -> u64 {
        self.index.load(Ordering::Relaxed)
    }

    /// Everything up to this entry is done. Blocks for a small file; what is lost
    /// of it in a power cut is told again.
    pub fn advance(&self, index: u64) {
        if self.index.fetch_max(index, Ordering::Relaxed) >= index {
            return;
        }
        let Some(file) = &self.file else { return };
        let aside = file.with_extension("new");
        let written = std::fs::write(&aside, index.to_string()).and_then(|()| std::fs::rename(&aside, file));
        if let Err(error) = written {
            tracing::warn!(%error, file = %file.display(), "how far webhooks were told is not on disk");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn the_mark_only_grows_and_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mark");
        let mark = NotifiedMark::open(&file);
        assert_eq!(mark.get(), 0);
        mark.advance(7);
        mark.advance(3);
        assert_eq!(NotifiedMark::open(&file).get(), 7);
        std::fs::write(&file, "no number").unwrap();
        assert_eq!(NotifiedMark::open(&file).get(), 0);
    }
}
