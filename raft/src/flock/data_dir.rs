//! The data directory: made if it is not there, and held by one process only.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::StartError;

/// The lock's file within the data directory.
const LOCK_FILE: &str = "LOCK";

/// Held while it lives; the system lets go of it when the process dies.
#[derive(Debug)]
pub(super) struct DataDirLock {
    /// The directory.
    pub(super) path: PathBuf,
    _file: File,
}

/// Makes the directory and locks it. Blocks.
pub(super) fn lock(data_dir: &Path) -> Result<DataDirLock, StartError> {
    let unusable = |path: &Path, error: std::io::Error| StartError::DataDir {
        path: path.to_owned(),
        reason: format!("{error}; check its owner and mode, or choose another with --data-dir"),
    };
    fs::create_dir_all(data_dir).map_err(|error| unusable(data_dir, error))?;
    let path: PathBuf = data_dir.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|error| unusable(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(DataDirLock { path: data_dir.to_owned(), _file: file }),
        Err(TryLockError::WouldBlock) => Err(StartError::DataDirLocked { path: data_dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(unusable(&path, error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        let held = lock(&data_dir).unwrap();
        assert!(matches!(lock(&data_dir).unwrap_err(), StartError::DataDirLocked { .. }));
        drop(held);
        lock(&data_dir).unwrap();
    }

    #[test]
    fn a_path_that_is_no_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let error = lock(&file).unwrap_err();
        assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    }
}
