//! A disk that fails, lies, forgets, or hands back something else.

use std::time::Duration;

use openraft::storage::RaftLogStorage;
use openraft::{RaftLogReader, Vote};
use starling_raft::log_store::memory::MemoryDisk;
use starling_raft::log_store::{LogStore, LogStoreOptions, OpenError, OpenLog};
use starling_raft::state::ClusterId;
use uuid::Uuid;

use crate::{AnyDisk, PATIENCE, append, entry, error_of, indices, log_id, no_cache, run};

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
