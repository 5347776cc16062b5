//! What the log keeps and hands back, on both disks.

use std::io;

use futures::StreamExt;
use openraft::storage::RaftLogStorage;
use openraft::{RaftLogReader, Vote};
use starling_raft::log_store::LogStoreOptions;
use starling_raft::log_store::memory::MemoryDisk;
use starling_raft::state::ClusterId;
use uuid::Uuid;

use crate::{AnyDisk, append, append_async, entry, indices, log_id, no_cache, run};

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
    run(async {
        let disk = MemoryDisk::default();
        let mut store = disk.open_log(no_cache()).unwrap().store;
        append(&store, (0..20).map(|index| entry(1, index, 200_000)).collect()).await.unwrap();
        let streamed: Vec<_> =
            store.entries_stream(3..50).await.map(|entry| entry.unwrap().log_id.index).collect().await;
        assert_eq!(streamed, (3..20).collect::<Vec<_>>());
    });
}
