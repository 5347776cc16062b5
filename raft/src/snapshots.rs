//! The folder of snapshot files: complete ones only, the newest two.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use starling_proto::peer;

use crate::history::SegmentInfo;
use crate::raft_types::SnapshotFile;
use crate::snapshot_file::{SnapshotError, read_snapshot, write_snapshot};
use crate::state::State;
use crate::wire::{self, SnapshotMeta};

const KEPT: usize = 2;
const COMPLETE: &str = "snapshot";
/// What is not a snapshot yet, or never became one.
const PARTIAL: [&str; 2] = ["partial", "tmp"];

/// What is in a snapshot.
pub struct Snapshot {
    /// Where it stands in the log, and who belonged to Raft there.
    pub meta: SnapshotMeta,
    /// What everything up to there folds into.
    pub state: State,
    /// The history segments that hold the events up to there.
    pub segments: Vec<SegmentInfo>,
}

impl Snapshot {
    /// Reads and verifies a file. Blocks.
    pub fn read(path: &Path) -> io::Result<Self> {
        let contents = read_snapshot(path).map_err(to_io)?;
        let invalid = |error: String| {
            io::Error::new(io::ErrorKind::InvalidData, format!("snapshot {}: {error}", path.display()))
        };
        let meta = peer::SnapshotMeta::decode(contents.meta_bytes.as_slice())
            .map_err(|error| invalid(error.to_string()))?;
        let meta = wire::snapshot_meta_from_wire(meta).map_err(|error| invalid(error.to_string()))?;
        Ok(Self { meta, state: contents.state, segments: contents.segments })
    }
}

/// The folder. Cheap to clone.
#[derive(Clone)]
pub struct SnapshotDir {
    dir: Arc<PathBuf>,
    current: Arc<Mutex<Option<(SnapshotMeta, SnapshotFile)>>>,
    partials: Arc<AtomicU64>,
}

impl SnapshotDir {
    /// Opens the folder, making it if it is not there, and clears away what an
    /// earlier process left unfinished.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        for path in files_in(dir)? {
            if path.extension().is_some_and(|extension| PARTIAL.iter().any(|partial| extension == *partial)) {
                fs::remove_file(path)?;
            }
        }
        Ok(Self { dir: Arc::new(dir.to_owned()), current: Arc::default(), partials: Arc::default() })
    }

    /// What the newest readable snapshot holds, if there is one. A damaged one
    /// is passed over: the log may still reach back to the one before it, and
    /// Raft refuses to start if it does not. Blocks.
    pub fn load_newest(&self) -> io::Result<Option<Snapshot>> {
        for path in self.complete_files()?.into_iter().rev() {
            match Snapshot::read(&path) {
                Ok(snapshot) => {
                    let size_bytes = fs::metadata(&path)?.len();
                    self.set_current(snapshot.meta.clone(), SnapshotFile { path, size_bytes });
                    return Ok(Some(snapshot));
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "snapshot cannot be read; trying the one before");
                }
            }
        }
        Ok(None)
    }

    /// The newest snapshot.
    pub fn current(&self) -> Option<(SnapshotMeta, SnapshotFile)> {
        self.lock().clone()
    }

    /// Where a snapshot may be written until it is complete.
    pub fn partial_path(&self) -> PathBuf {
        let number = self.partials.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{number}.partial"))
    }

    /// Writes a snapshot, which is durable when this returns. Blocks.
    pub fn write(&self, snapshot: &Snapshot) -> io::Result<SnapshotFile> {
        let path = self.complete_path(&snapshot.meta);
        let meta_bytes = wire::snapshot_meta_to_wire(&snapshot.meta).encode_to_vec();
        let size_bytes =
            write_snapshot(&path, &meta_bytes, &snapshot.state, &snapshot.segments).map_err(to_io)?;
        let file = SnapshotFile { path, size_bytes };
        self.set_current(snapshot.meta.clone(), file.clone());
        self.prune()?;
        Ok(file)
    }

    /// Takes in a complete, durable file that came from elsewhere, and reads
    /// it. Blocks.
    pub fn adopt(&self, file: &SnapshotFile) -> io::Result<Snapshot> {
        let snapshot = Snapshot::read(&file.path)?;
        let path = self.complete_path(&snapshot.meta);
        if file.path != path {
            fs::rename(&file.path, &path)?;
            File::open(self.dir.as_path())?.sync_all()?;
        }
        self.set_current(snapshot.meta.clone(), SnapshotFile { path, size_bytes: file.size_bytes });
        self.prune()?;
        Ok(snapshot)
    }

    fn complete_path(&self, meta: &SnapshotMeta) -> PathBuf {
        let index = meta.last_log_id.map_or(0, |log_id| log_id.index);
        self.dir.join(format!("{index:020}.{COMPLETE}"))
    }

    fn set_current(&self, meta: SnapshotMeta, file: SnapshotFile) {
        let mut current = self.lock();
        let is_newer = current.as_ref().is_none_or(|(known, _)| known.last_log_id <= meta.last_log_id);
        if is_newer {
            *current = Some((meta, file));
        }
    }

    fn prune(&self) -> io::Result<()> {
        let files = self.complete_files()?;
        let surplus = files.len().saturating_sub(KEPT);
        for path in files.into_iter().take(surplus) {
            match fs::remove_file(path) {
                // A snapshot that is built beside this one prunes too.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Oldest first.
    fn complete_files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = files_in(&self.dir)?;
        files.retain(|path| path.extension().is_some_and(|extension| extension == COMPLETE));
        files.sort();
        Ok(files)
    }

    /// A panic while it was held leaves it whole: it is written at once.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(SnapshotMeta, SnapshotFile)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn to_io(error: SnapshotError) -> io::Error {
    match error {
        SnapshotError::Io { ref source, .. } => io::Error::new(source.kind(), error),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

fn files_in(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::state::FeatureLevel;
    use crate::wire::log_id_from_wire;

    fn snapshot(index: u64) -> Snapshot {
        let last_log_id = Some(log_id_from_wire(&peer::LogId { term: 1, node_id: 1000, index }));
        let mut state = State::default();
        state.cluster.feature_level = FeatureLevel::new(u32::try_from(index).unwrap());
        Snapshot { meta: SnapshotMeta { last_log_id, ..SnapshotMeta::default() }, state, segments: vec![] }
    }

    #[test]
    fn the_newest_two_are_kept_and_the_newest_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = SnapshotDir::open(dir.path()).unwrap();
        for index in [10, 20, 30] {
            snapshots.write(&snapshot(index)).unwrap();
        }
        assert_eq!(files_in(dir.path()).unwrap().len(), 2);
        let reopened = SnapshotDir::open(dir.path()).unwrap();
        let newest = reopened.load_newest().unwrap().unwrap();
        assert_eq!(newest.meta, snapshot(30).meta);
        assert_eq!(newest.state, snapshot(30).state);
        assert_eq!(reopened.current().unwrap().0, snapshot(30).meta);
    }

    #[test]
    fn a_damaged_snapshot_is_passed_over_for_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = SnapshotDir::open(dir.path()).unwrap();
        snapshots.write(&snapshot(10)).unwrap();
        let newest = snapshots.write(&snapshot(20)).unwrap();
        let mut bytes = fs::read(&newest.path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&newest.path, bytes).unwrap();
        let reopened = SnapshotDir::open(dir.path()).unwrap();
        assert_eq!(reopened.load_newest().unwrap().unwrap().meta, snapshot(10).meta);
    }

    #[test]
    fn what_an_earlier_process_left_unfinished_is_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["0.partial", "00000000000000000010.snapshot.tmp"] {
            fs::write(dir.path().join(name), b"half").unwrap();
        }
        let snapshots = SnapshotDir::open(dir.path()).unwrap();
        assert!(snapshots.load_newest().unwrap().is_none());
        assert_eq!(files_in(dir.path()).unwrap(), Vec::<PathBuf>::new());
    }
}
