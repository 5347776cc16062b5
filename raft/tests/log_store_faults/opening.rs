//! Directories that cannot be opened, and which of them fence the node.

use std::path::{Path, PathBuf};

use starling_raft::log_store::{self, LogStoreOptions, OpenError};

use crate::{append, entry, error_of, run};

#[test]
fn a_second_opener_of_one_directory_is_refused() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let first = log_store::open(dir.path(), LogStoreOptions::default()).unwrap();
        let error = error_of(log_store::open(dir.path(), LogStoreOptions::default()));
        assert!(matches!(error, OpenError::InUse { .. }), "{error}");
        assert!(!error.fences_the_node());
        first.store.close().await.unwrap();
        log_store::open(dir.path(), LogStoreOptions::default()).unwrap();
    });
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_that_does_not_fence() {
    let dir = tempfile::tempdir().unwrap();
    let file: PathBuf = dir.path().join("a-file");
    std::fs::write(&file, b"in the way").unwrap();
    let error = error_of(log_store::open(&file, LogStoreOptions::default()));
    assert!(matches!(error, OpenError::Unreadable { .. }), "{error}");
    assert!(!error.fences_the_node());
}

#[test]
fn damaged_files_of_sled_fence_the_node() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let store = log_store::open(dir.path(), LogStoreOptions::default()).unwrap().store;
        append(&store, (0..50).map(|index| entry(1, index, 500)).collect()).await.unwrap();
        store.close().await.unwrap();

        overwrite(&dir.path().join("sled/db"), 0, &[0x55; 64 * 1024]);
        let error = error_of(log_store::open(dir.path(), LogStoreOptions::default()));
        assert!(error.fences_the_node(), "{error}");
    });
}

#[test]
fn a_lost_sled_directory_fences_the_node() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let store = log_store::open(dir.path(), LogStoreOptions::default()).unwrap().store;
        append(&store, vec![entry(1, 0, 10)]).await.unwrap();
        store.close().await.unwrap();
        std::fs::remove_dir_all(dir.path().join("sled")).unwrap();
        let error = error_of(log_store::open(dir.path(), LogStoreOptions::default()));
        assert!(matches!(error, OpenError::LostWrites { .. }), "{error}");
    });
}

#[test]
fn a_first_start_that_was_interrupted_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("sled")).unwrap();
    // sled's settings, torn.
    std::fs::write(dir.path().join("sled/conf"), b"torn").unwrap();
    log_store::open(dir.path(), LogStoreOptions::default()).unwrap();
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}
