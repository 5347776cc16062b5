//! What the log promises when the disk fails, lies, forgets or is damaged.
//! Where the disk's behaviour does not matter, both disks are tested alike.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use openraft::alias::{EntryOf, LogIdOf};
use openraft::impls::leader_id_adv::LeaderId;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{Entry, EntryPayload, LogId, RaftLogReader, Vote};
use starling_raft::log_store::memory::MemoryDisk;
use starling_raft::log_store::{self, LogStore, LogStoreOptions, OpenError, OpenLog};
use starling_raft::raft_types::{EnvelopeBytes, TypeConfig};
use starling_raft::state::ClusterId;
use tempfile::TempDir;
use uuid::Uuid;

type Flushed = tokio::sync::oneshot::Receiver<io::Result<()>>;

/// Long enough for a busy machine; nothing waits this long when it works.
const PATIENCE: Duration = Duration::from_secs(30);

/// A disk that can be opened again.
enum AnyDisk {
    Sled(TempDir),
    Memory(MemoryDisk),
}

impl AnyDisk {
    fn both() -> [Self; 2] {
        [Self::Sled(tempfile::tempdir().unwrap()), Self::Memory(MemoryDisk::default())]
    }

    fn open(&self, options: LogStoreOptions) -> Result<OpenLog, OpenError> {
        match self {
            Self::Sled(dir) => log_store::open(dir.path(), options),
            Self::Memory(disk) => disk.open_log(options),
        }
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn log_id(term: u64, index: u64) -> LogIdOf<TypeConfig> {
    LogId::new(LeaderId { term, node_id: 1 }, index)
}

fn entry(term: u64, index: u64, bytes: usize) -> EntryOf<TypeConfig> {
    let filled = Bytes::from(vec![index as u8; bytes]);
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(EnvelopeBytes(filled)) }
}

async fn append_async(store: &LogStore, entries: Vec<EntryOf<TypeConfig>>) -> io::Result<Flushed> {
    let (sender, flushed) = <TypeConfig as TypeConfigExt>::oneshot();
    store.clone().append(entries, IOFlushed::signal(sender)).await?;
    Ok(flushed)
}

async fn append(store: &LogStore, entries: Vec<EntryOf<TypeConfig>>) -> io::Result<()> {
    let flushed = append_async(store, entries).await?;
    tokio::time::timeout(PATIENCE, flushed).await.unwrap().unwrap()
}

async fn indices(store: &LogStore) -> Vec<u64> {
    let entries = store.clone().try_get_log_entries(..).await.unwrap();
    entries.iter().map(|entry| entry.log_id.index).collect()
}

fn no_cache() -> LogStoreOptions {
    LogStoreOptions { tail_cache_bytes: 0, ..LogStoreOptions::default() }
}

fn error_of(opened: Result<OpenLog, OpenError>) -> OpenError {
    match opened {
        Ok(_) => panic!("the log was opened"),
        Err(error) => error,
    }
}

#[test]
fn a_reopened_log_holds_what_was_acknowledged() {
    run(async {
        for disk in AnyDisk::both() {
            let cluster_id = ClusterId::new(Uuid::from_u128(7));
            let opened = disk.open(no_cache()).unwrap();
            let mut store = opened.store;
            assert_eq!(store.marker(), None);
            store.set_marker(cluster_id).await.unwrap();
            store.save_vote(&Vote::new_committed(3, 1)).await.unwrap();
            append(&store, (0..40).map(|index| entry(2, index, 100)).collect()).await.unwrap();
            store.save_committed(Some(log_id(2, 20))).await.unwrap();
            store.truncate_after(Some(log_id(2, 29))).await.unwrap();
            append(&store, vec![entry(3, 30, 9_000)]).await.unwrap();
            store.purge(log_id(2, 9)).await.unwrap();
            store.close().await.unwrap();

            let mut store = disk.open(no_cache()).unwrap().store;
            assert_eq!(store.marker(), Some(cluster_id));
            assert_eq!(store.read_vote().await.unwrap(), Some(Vote::new_committed(3, 1)));
            assert_eq!(store.read_committed().await.unwrap(), Some(log_id(2, 20)));
            let state = store.get_log_state().await.unwrap();
            assert_eq!(state.last_purged_log_id, Some(log_id(2, 9)));
            assert_eq!(state.last_log_id, Some(log_id(3, 30)));
            assert_eq!(indices(&store).await, (10..=30).collect::<Vec<_>>());
            let last = store.try_get_log_entries(30..31).await.unwrap();
            assert_eq!(last, vec![entry(3, 30, 9_000)]);
            store.close().await.unwrap();
        }
    });
}

#[test]
fn a_large_entry_spans_batches_and_is_read_back_whole() {
    run(async {
        for disk in AnyDisk::both() {
            let store = disk.open(no_cache()).unwrap().store;
            let large = entry(1, 1, (1 << 20) + 12_345);
            append(&store, vec![entry(1, 0, 10), large.clone(), entry(1, 2, 10)]).await.unwrap();
            assert!(store.stats().batches >= 3, "{:?}", store.stats());
            store.close().await.unwrap();

            let mut store = disk.open(no_cache()).unwrap().store;
            assert_eq!(store.try_get_log_entries(1..2).await.unwrap(), vec![large]);
            assert_eq!(indices(&store).await, vec![0, 1, 2]);
        }
    });
}

#[test]
fn an_appended_entry_is_readable_before_it_is_durable() {
    run(async {
        for disk in AnyDisk::both() {
            let store = disk.open(no_cache()).unwrap().store;
            let flushed = append_async(&store, vec![entry(1, 0, 10), entry(1, 1, 10)]).await.unwrap();
            assert_eq!(indices(&store).await, vec![0, 1]);
            flushed.await.unwrap().unwrap();
        }
    });
}

#[test]
fn many_appends_share_few_syncs() {
    run(async {
        for disk in AnyDisk::both() {
            let store = disk.open(LogStoreOptions::default()).unwrap().store;
            let mut waiting = Vec::new();
            // On a current-thread runtime nothing yields here, so the queue grows while the disk works.
            for index in 0..2_000 {
                waiting.push(append_async(&store, vec![entry(1, index, 100)]).await.unwrap());
            }
            for flushed in waiting {
                flushed.await.unwrap().unwrap();
            }
            let stats = store.stats();
            assert_eq!((stats.appends, stats.entries), (2_000, 2_000));
            assert!(stats.syncs <= 500, "{stats:?}");
        }
    });
}

#[test]
fn an_append_that_would_leave_a_gap_is_refused() {
    run(async {
        for disk in AnyDisk::both() {
            let store = disk.open(LogStoreOptions::default()).unwrap().store;
            append(&store, vec![entry(1, 0, 10)]).await.unwrap();
            let gap = append(&store, vec![entry(1, 2, 10)]).await.unwrap_err();
            assert_eq!(gap.kind(), io::ErrorKind::InvalidInput);
            let inner_gap = append(&store, vec![entry(1, 1, 10), entry(1, 3, 10)]).await.unwrap_err();
            assert_eq!(inner_gap.kind(), io::ErrorKind::InvalidInput);
            assert_eq!(indices(&store).await, vec![0]);
        }
    });
}

#[test]
fn a_limited_read_is_bounded_by_bytes_and_never_empty() {
    run(async {
        for disk in AnyDisk::both() {
            let mut store = disk.open(no_cache()).unwrap().store;
            append(&store, (0..8).map(|index| entry(1, index, 300_000)).collect()).await.unwrap();
            append(&store, vec![entry(1, 8, 3_000_000), entry(1, 9, 10)]).await.unwrap();

            let some = store.limited_get_log_entries(0, 10).await.unwrap();
            assert_eq!(some.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>(), vec![0, 1, 2, 3]);
            let one = store.limited_get_log_entries(8, 10).await.unwrap();
            assert_eq!(one.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>(), vec![8]);

            store.purge(log_id(1, 4)).await.unwrap();
            let purged = store.limited_get_log_entries(2, 10).await.unwrap_err();
            assert_eq!(purged.kind(), io::ErrorKind::NotFound);
        }
    });
}

#[test]
fn a_read_error_is_reported_and_nothing_is_made_up() {
    run(async {
        let disk = MemoryDisk::default();
        let mut store = disk.open_log(no_cache()).unwrap().store;
        append(&store, (0..5).map(|index| entry(1, index, 10)).collect()).await.unwrap();
        disk.set_failing_reads(true);
        assert!(store.try_get_log_entries(0..5).await.is_err());
        assert!(store.limited_get_log_entries(0, 5).await.is_err());
        disk.set_failing_reads(false);
        assert_eq!(indices(&store).await, vec![0, 1, 2, 3, 4]);
    });
}

#[test]
fn a_failed_sync_is_reported_to_the_caller_and_stops_the_log_for_good() {
    run(async {
        let disk = MemoryDisk::default();
        let OpenLog { store, mut fatal } = disk.open_log(LogStoreOptions::default()).unwrap();
        append(&store, vec![entry(1, 0, 10)]).await.unwrap();
        assert_eq!(*fatal.borrow(), None);

        disk.fail_next_sync();
        assert!(append(&store, vec![entry(1, 1, 10)]).await.is_err());
        tokio::time::timeout(PATIENCE, fatal.wait_for(Option::is_some)).await.unwrap().unwrap();

        // The disk would work again, but nobody knows what it holds.
        assert!(append(&store, vec![entry(1, 2, 10)]).await.is_err());
        assert!(store.clone().save_vote(&Vote::new(9, 1)).await.is_err());

        // After a restart that loses what was not synced, all that was acknowledged is there.
        drop(store);
        disk.cut_power(0);
        let store = disk.open_log(LogStoreOptions::default()).unwrap().store;
        assert_eq!(indices(&store).await, vec![0]);
    });
}

#[test]
fn a_failed_write_and_a_failed_high_water_record_stop_the_log_as_well() {
    run(async {
        for fail in [MemoryDisk::fail_next_write, MemoryDisk::fail_next_high_water] {
            let disk = MemoryDisk::default();
            let OpenLog { store, mut fatal } = disk.open_log(LogStoreOptions::default()).unwrap();
            fail(&disk);
            assert!(append(&store, vec![entry(1, 0, 10)]).await.is_err());
            tokio::time::timeout(PATIENCE, fatal.wait_for(Option::is_some)).await.unwrap().unwrap();
        }
    });
}

#[test]
fn a_log_told_to_fail_does_so_and_recovers_when_reopened() {
    run(async {
        for disk in AnyDisk::both() {
            let options = LogStoreOptions { fail_after_appends: Some(3), ..LogStoreOptions::default() };
            let OpenLog { store, mut fatal } = disk.open(options).unwrap();
            for index in 0..3 {
                append(&store, vec![entry(1, index, 10)]).await.unwrap();
            }
            assert!(append(&store, vec![entry(1, 3, 10)]).await.is_err());
            let why = tokio::time::timeout(PATIENCE, fatal.wait_for(Option::is_some))
                .await
                .unwrap()
                .unwrap()
                .clone();
            assert_eq!(why.unwrap(), "the log was told to fail after 3 appends");
            drop(store);

            let store = reopen(&disk).await;
            let found = indices(&store).await;
            assert!(found.starts_with(&[0, 1, 2]), "{found:?}");
        }
    });
}

/// Opens a log that was dropped without being closed: the directory is let go a moment later.
async fn reopen(disk: &AnyDisk) -> LogStore {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match disk.open(LogStoreOptions::default()) {
            Ok(opened) => return opened.store,
            Err(OpenError::InUse { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_power_cut_keeps_every_acknowledged_write() {
    run(async {
        let disk = MemoryDisk::default();
        let store = disk.open_log(LogStoreOptions::default()).unwrap().store;
        append(&store, (0..10).map(|index| entry(1, index, 10)).collect()).await.unwrap();
        store.clone().save_vote(&Vote::new(4, 1)).await.unwrap();
        disk.cut_power(0);
        drop(store);
        let mut store = disk.open_log(LogStoreOptions::default()).unwrap().store;
        assert_eq!(indices(&store).await, (0..10).collect::<Vec<_>>());
        assert_eq!(store.read_vote().await.unwrap(), Some(Vote::new(4, 1)));
    });
}

#[test]
fn a_disk_that_lied_about_a_sync_is_found_out() {
    run(async {
        let disk = MemoryDisk::default();
        let store = disk.open_log(LogStoreOptions::default()).unwrap().store;
        append(&store, vec![entry(1, 0, 10)]).await.unwrap();
        disk.set_lying_syncs(true);
        append(&store, vec![entry(1, 1, 10)]).await.unwrap();
        disk.cut_power(0);

        let error = error_of(disk.open_log(LogStoreOptions::default()));
        assert!(error.fences_the_node());
        assert_eq!(
            error.to_string(),
            "the log in memory has lost acknowledged writes: entry T1-N1.1 was acknowledged, \
             the log ends with T1-N1.0; this node must not vote under its identity again"
        );
    });
}

#[test]
fn a_forgotten_vote_is_found_out() {
    run(async {
        let disk = MemoryDisk::default();
        let store = disk.open_log(LogStoreOptions::default()).unwrap().store;
        store.clone().save_vote(&Vote::new(4, 1)).await.unwrap();
        disk.set_lying_syncs(true);
        store.clone().save_vote(&Vote::new(5, 2)).await.unwrap();
        disk.cut_power(0);
        let error = error_of(disk.open_log(LogStoreOptions::default()));
        assert!(matches!(&error, OpenError::LostWrites { what, .. } if what.contains("vote")), "{error}");
    });
}

#[test]
fn a_forgotten_cluster_is_found_out() {
    run(async {
        let disk = MemoryDisk::default();
        let store = disk.open_log(LogStoreOptions::default()).unwrap().store;
        disk.set_lying_syncs(true);
        store.set_marker(ClusterId::new(Uuid::from_u128(1))).await.unwrap();
        disk.cut_power(0);
        let error = error_of(disk.open_log(LogStoreOptions::default()));
        assert!(matches!(&error, OpenError::LostWrites { what, .. } if what.contains("cluster")), "{error}");
    });
}

#[test]
fn a_crash_in_a_truncation_never_looks_like_loss() {
    run(async {
        for kept in 0..4 {
            let disk = MemoryDisk::default();
            let mut store = disk.open_log(LogStoreOptions::default()).unwrap().store;
            append(&store, (0..10).map(|index| entry(1, index, 10)).collect()).await.unwrap();
            disk.set_lying_syncs(true);
            store.truncate_after(Some(log_id(1, 4))).await.unwrap();
            disk.cut_power(kept);
            drop(store);
            let store = disk.open_log(LogStoreOptions::default()).unwrap().store;
            let found = indices(&store).await;
            assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
            assert!(found.len() >= 5, "{kept} batches kept: {found:?}");
        }
    });
}

#[test]
fn a_large_entry_cut_off_by_a_crash_is_dropped_and_the_log_goes_on() {
    run(async {
        let disk = MemoryDisk::default();
        let store = disk.open_log(LogStoreOptions::default()).unwrap().store;
        append(&store, vec![entry(1, 0, 10)]).await.unwrap();
        disk.fail_next_sync();
        assert!(append(&store, vec![entry(1, 1, 3 << 20)]).await.is_err());
        drop(store);
        disk.cut_power(2);

        let store = disk.open_log(no_cache()).unwrap().store;
        assert_eq!(indices(&store).await, vec![0]);
        append(&store, vec![entry(2, 1, 10), entry(2, 2, 10)]).await.unwrap();
        store.close().await.unwrap();
        let store = disk.open_log(no_cache()).unwrap().store;
        assert_eq!(indices(&store).await, vec![0, 1, 2]);
    });
}

#[test]
fn a_torn_slot_of_the_high_water_record_leaves_the_one_before() {
    run(async {
        let disk = MemoryDisk::default();
        let store = disk.open_log(LogStoreOptions::default()).unwrap().store;
        append(&store, vec![entry(1, 0, 10)]).await.unwrap();
        store.close().await.unwrap();
        for slot in 0..2 {
            disk.damage_high_water(slot, |bytes| bytes.truncate(20));
            // Opening writes the other slot anew.
            let store = disk.open_log(LogStoreOptions::default()).unwrap().store;
            assert_eq!(indices(&store).await, vec![0]);
            store.close().await.unwrap();
        }
    });
}

#[test]
fn a_log_without_any_high_water_record_is_not_trusted() {
    run(async {
        let disk = MemoryDisk::default();
        let store = disk.open_log(LogStoreOptions::default()).unwrap().store;
        append(&store, vec![entry(1, 0, 10)]).await.unwrap();
        store.close().await.unwrap();
        for slot in 0..2 {
            disk.damage_high_water(slot, Vec::clear);
        }
        let error = error_of(disk.open_log(LogStoreOptions::default()));
        assert!(matches!(error, OpenError::LostWrites { .. }), "{error}");
    });
}

#[test]
fn a_damaged_chunk_is_found_when_the_log_is_opened_and_when_it_is_read() {
    run(async {
        let disk = MemoryDisk::default();
        let mut store = disk.open_log(no_cache()).unwrap().store;
        append(&store, (0..5).map(|index| entry(1, index, 9_000)).collect()).await.unwrap();
        assert!(disk.corrupt(&[1], 7, |value| value[100] ^= 1));
        let error = store.try_get_log_entries(..).await.unwrap_err();
        assert_eq!(error.to_string(), "a chunk of an entry does not match its checksum");
        store.close().await.unwrap();
        let error = error_of(disk.open_log(no_cache()));
        assert!(matches!(&error, OpenError::Damaged { what, .. } if what.contains("checksum")), "{error}");
        assert!(error.fences_the_node());
    });
}

#[test]
fn a_hole_in_the_log_is_found_when_it_is_opened_and_never_read_over() {
    run(async {
        for (position, hole) in [(0, 0), (2, 2)] {
            let disk = MemoryDisk::default();
            let mut store = disk.open_log(no_cache()).unwrap().store;
            append(&store, (0..5).map(|index| entry(1, index, 10)).collect()).await.unwrap();
            assert!(disk.lose(&[1], position));
            assert!(store.try_get_log_entries(..).await.is_err());
            store.close().await.unwrap();
            let error = error_of(disk.open_log(no_cache()));
            let OpenError::Damaged { what, .. } = &error else { panic!("{error}") };
            assert_eq!(*what, format!("entry {} was found where {hole} should be", hole + 1));
        }
    });
}

#[test]
fn an_interrupted_purge_is_finished_by_the_next_start() {
    run(async {
        let disk = MemoryDisk::default();
        let mut store = disk.open_log(no_cache()).unwrap().store;
        append(&store, (0..3_000).map(|index| entry(1, index, 10)).collect()).await.unwrap();
        store.purge(log_id(1, 2_899)).await.unwrap();
        append(&store, vec![entry(1, 3_000, 10)]).await.unwrap();
        // The purge mark is synced, the removals are not.
        disk.cut_power(0);
        drop(store);
        let store = disk.open_log(no_cache()).unwrap().store;
        assert_eq!(indices(&store).await, (2_900..=3_000).collect::<Vec<_>>());
    });
}

#[test]
fn a_purge_past_the_end_leaves_an_empty_log_that_goes_on_behind_it() {
    run(async {
        for disk in AnyDisk::both() {
            let mut store = disk.open(no_cache()).unwrap().store;
            append(&store, (0..5).map(|index| entry(1, index, 10)).collect()).await.unwrap();
            store.purge(log_id(2, 100)).await.unwrap();
            append(&store, vec![entry(2, 101, 10)]).await.unwrap();
            store.close().await.unwrap();
            let mut store = disk.open(no_cache()).unwrap().store;
            assert_eq!(indices(&store).await, vec![101]);
            assert_eq!(store.get_log_state().await.unwrap().last_purged_log_id, Some(log_id(2, 100)));
        }
    });
}

#[test]
fn entries_stream_in_pieces_without_a_gap() {
    use futures::StreamExt;
    run(async {
        let disk = MemoryDisk::default();
        let mut store = disk.open_log(no_cache()).unwrap().store;
        append(&store, (0..20).map(|index| entry(1, index, 200_000)).collect()).await.unwrap();
        let streamed: Vec<_> =
            store.entries_stream(3..50).await.map(|entry| entry.unwrap().log_id.index).collect().await;
        assert_eq!(streamed, (3..20).collect::<Vec<_>>());
    });
}

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
