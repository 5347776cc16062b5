//! The event history: appended once, read in order, found again after a crash.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use starling_raft::history::{History, HistoryOptions, HistoryRecord, Retention, SegmentInfo};
use starling_raft::state::{
    ClusterEvent, Event, EventClass, LogIndex, LogTime, MemberEvent, NodeId, Principal, WallTime,
};
use tempfile::TempDir;

use crate::log::request_id;

fn record_of(index: u64, node: u64, class: EventClass) -> HistoryRecord {
    HistoryRecord {
        log_index: LogIndex::new(index),
        log_time: LogTime::from_micros(index * 10),
        wall_time: WallTime::from_unix_micros(index * 1_000_000),
        principal: Principal::local(),
        request_id: request_id(u128::from(index)),
        class,
        event: Event::Member(MemberEvent::NodeDrained { node_id: NodeId::new(node) }),
    }
}

fn record(index: u64) -> HistoryRecord {
    record_of(index, index, EventClass::Audit)
}

fn records(indexes: impl IntoIterator<Item = u64>) -> Vec<HistoryRecord> {
    indexes.into_iter().map(record).collect()
}

fn open(folder: &TempDir) -> History {
    History::open(folder.path(), HistoryOptions::default()).unwrap()
}

fn all(history: &History) -> Vec<HistoryRecord> {
    history.read(LogIndex::new(0), usize::MAX).unwrap()
}

fn file_names(folder: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn open_file(folder: &TempDir) -> PathBuf {
    folder.path().join("audit-v1-00000000000000000001.open")
}

#[test]
fn what_was_appended_is_read_in_order_and_after_reopening() {
    let folder = TempDir::new().unwrap();
    let mut history = open(&folder);
    assert_eq!((history.last_index(), all(&history)), (None, vec![]));
    history.append(&records(1..=3)).unwrap();
    history.append(&records([7])).unwrap();
    history.sync().unwrap();
    assert_eq!(all(&history), records([1, 2, 3, 7]));
    drop(history);
    let history = open(&folder);
    assert_eq!(history.last_index(), Some(LogIndex::new(7)));
    assert_eq!(all(&history), records([1, 2, 3, 7]));
}

#[test]
fn entries_applied_again_are_skipped_exactly() {
    let folder = TempDir::new().unwrap();
    let mut history = open(&folder);
    let two_events = [record_of(2, 20, EventClass::Audit), record_of(2, 21, EventClass::Audit)];
    let written = [&records([1])[..], &two_events, &records([3])].concat();
    history.append(&written).unwrap();
    history.append(&written).unwrap();
    history.append(&two_events).unwrap();
    drop(history);
    let mut history = open(&folder);
    history.append(&written).unwrap();
    history.append(&records([4])).unwrap();
    assert_eq!(all(&history), [&written[..], &records([4])].concat());
}

#[test]
fn an_entry_torn_between_its_events_is_completed_when_it_is_applied_again() {
    let folder = TempDir::new().unwrap();
    let mut history = open(&folder);
    let entry: Vec<HistoryRecord> = (0..3).map(|node| record_of(5, node, EventClass::Audit)).collect();
    history.append(&records([1])).unwrap();
    history.append(&entry).unwrap();
    drop(history);
    let file = OpenOptions::new().write(true).open(open_file(&folder)).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();

    let mut history = open(&folder);
    assert_eq!(all(&history), [&records([1])[..], &entry[..2]].concat());
    history.append(&entry).unwrap();
    assert_eq!(all(&history), [&records([1])[..], &entry].concat());
}

#[test]
fn events_out_of_order_are_refused() {
    let folder = TempDir::new().unwrap();
    let error = open(&folder).append(&records([2, 1])).unwrap_err();
    assert_eq!(error.to_string(), "event of index 1 after one of index 2");
}

#[test]
fn a_page_ends_with_a_whole_entry() {
    let folder = TempDir::new().unwrap();
    let mut history = open(&folder);
    let entry: Vec<HistoryRecord> = (0..3).map(|node| record_of(2, node, EventClass::Audit)).collect();
    history.append(&[&records([1])[..], &entry, &records([3])].concat()).unwrap();
    let page = |from, limit| {
        let page = history.read(LogIndex::new(from), limit).unwrap();
        page.iter().map(|record| record.log_index.get()).collect::<Vec<_>>()
    };
    assert_eq!(page(0, 1), [1]);
    assert_eq!(page(1, 2), [1, 2, 2, 2]);
    assert_eq!(page(2, 1), [2, 2, 2]);
    assert_eq!(page(3, 9), [3]);
    assert_eq!(page(4, 9), [] as [u64; 0]);
    assert_eq!(page(0, 0), [] as [u64; 0]);
}

#[test]
fn classes_have_files_of_their_own_and_are_read_together() {
    let folder = TempDir::new().unwrap();
    let mut history = open(&folder);
    let mixed: Vec<HistoryRecord> = (1..=6)
        .map(|index| {
            let class = if index % 2 == 0 { EventClass::Telemetry } else { EventClass::Audit };
            record_of(index, index, class)
        })
        .collect();
    history.append(&mixed).unwrap();
    let both_in_one = [record_of(7, 1, EventClass::Audit), record_of(7, 2, EventClass::Telemetry)];
    history.append(&both_in_one).unwrap();
    history.append(&both_in_one).unwrap();
    assert_eq!(all(&history), [&mixed[..], &both_in_one].concat());
    history.seal().unwrap();
    assert_eq!(
        file_names(&folder),
        ["audit-v1-00000000000000000001.seg", "telemetry-v1-00000000000000000002.seg"]
    );
    drop(history);
    assert_eq!(all(&open(&folder)), [&mixed[..], &both_in_one].concat());
}

#[test]
fn a_sealed_segment_is_listed_and_the_next_event_opens_another() {
    let folder = TempDir::new().unwrap();
    let mut history = open(&folder);
    history.append(&records(1..=3)).unwrap();
    assert_eq!(history.segments(), []);
    history.seal().unwrap();
    history.seal().unwrap();
    history.append(&records([9])).unwrap();
    let segments = history.segments();
    assert_eq!(segments.len(), 1);
    let SegmentInfo { name, first_index, last_index, size_bytes, .. } = &segments[0];
    assert_eq!(name, "audit-v1-00000000000000000001.seg");
    assert_eq!((first_index.get(), last_index.get()), (1, 3));
    assert_eq!(*size_bytes, fs::metadata(folder.path().join(name)).unwrap().len());
    assert_eq!(
        file_names(&folder),
        ["audit-v1-00000000000000000001.seg", "audit-v1-00000000000000000009.open"]
    );
    drop(history);
    let history = open(&folder);
    assert_eq!(history.segments(), segments);
    assert_eq!(all(&history), records([1, 2, 3, 9]));
}

#[test]
fn a_segment_that_has_grown_large_is_sealed() {
    let folder = TempDir::new().unwrap();
    let options = HistoryOptions { segment_bytes: 1_000, ..HistoryOptions::default() };
    let mut history = History::open(folder.path(), options).unwrap();
    for index in 1..=50 {
        history.append(&records([index])).unwrap();
    }
    let segments = history.segments();
    assert!(segments.len() >= 3, "{segments:?}");
    assert!(segments.iter().all(|segment| segment.size_bytes < 1_300), "{segments:?}");
    assert_eq!(all(&history), records(1..=50));
    assert_eq!(history.read(LogIndex::new(33), 4).unwrap(), records(33..=36));
}

#[test]
fn the_open_segment_is_cut_at_the_first_damaged_event() {
    let folder = TempDir::new().unwrap();
    let mut history = open(&folder);
    history.append(&records([1])).unwrap();
    let first_bytes = fs::metadata(open_file(&folder)).unwrap().len() as usize;
    history.append(&records(2..=4)).unwrap();
    drop(history);
    flip(&open_file(&folder), first_bytes + 20);
    let mut history = open(&folder);
    assert_eq!(all(&history), records([1]));
    history.append(&records(1..=5)).unwrap();
    assert_eq!(all(&history), records(1..=5));
    drop(history);
    assert_eq!(all(&open(&folder)), records(1..=5));
}

#[test]
fn wherever_the_open_segment_is_torn_the_whole_events_before_it_stay() {
    let folder = TempDir::new().unwrap();
    let mut history = open(&folder);
    let mut ends = Vec::new();
    for index in 1..=3 {
        history.append(&records([index])).unwrap();
        ends.push(fs::metadata(open_file(&folder)).unwrap().len());
    }
    drop(history);
    let whole = fs::read(open_file(&folder)).unwrap();
    for torn in 0..=whole.len() {
        for rest in [0, whole.len() - torn] {
            // Cut off, or its pages never written.
            let bytes = [&whole[..torn], &vec![0; rest]].concat();
            fs::write(open_file(&folder), bytes).unwrap();
            let mut history = open(&folder);
            let kept = ends.iter().filter(|end| **end <= torn as u64).count() as u64;
            assert_eq!(all(&history), records(1..=kept), "torn at {torn}, {rest} zeroes");
            history.append(&records(1..=4)).unwrap();
            assert_eq!(all(&history), records(1..=4), "torn at {torn}, {rest} zeroes");
            drop(history);
        }
    }
}

#[test]
fn a_seal_that_a_crash_interrupted_is_finished_or_begun_again() {
    let folder = TempDir::new().unwrap();
    let mut history = open(&folder);
    history.append(&records(1..=3)).unwrap();
    history.seal().unwrap();
    let segments = history.segments();
    drop(history);
    let sealed = folder.path().join(&segments[0].name);
    let bytes = fs::read(&sealed).unwrap();

    fs::rename(&sealed, open_file(&folder)).unwrap();
    let history = open(&folder);
    assert_eq!(history.segments(), segments, "the footer was whole");
    drop(history);

    fs::remove_file(&sealed).unwrap();
    fs::write(open_file(&folder), &bytes[..bytes.len() - 10]).unwrap();
    let mut history = open(&folder);
    assert_eq!(history.segments(), [], "the footer was torn");
    history.append(&records(1..=3)).unwrap();
    history.seal().unwrap();
    assert_eq!(history.segments(), segments);
}

#[test]
fn damage_in_a_sealed_segment_is_an_error_that_names_the_file() {
    let folder = TempDir::new().unwrap();
    let mut history = open(&folder);
    history.append(&records(1..=3)).unwrap();
    history.seal().unwrap();
    let path = folder.path().join("audit-v1-00000000000000000001.seg");
    flip(&path, 100);
    let error = history.read(LogIndex::new(0), 10).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("audit-v1-00000000000000000001.seg"), "{error}");
    flip(&path, 100);
    assert_eq!(all(&history), records(1..=3));

    let length = fs::metadata(&path).unwrap().len() as usize;
    flip(&path, length - 40);
    let error = History::open(folder.path(), HistoryOptions::default()).unwrap_err();
    assert!(error.to_string().contains("audit-v1-00000000000000000001.seg"), "{error}");
}

#[test]
fn a_file_of_a_newer_format_stops_the_node() {
    let folder = TempDir::new().unwrap();
    let name = "audit-v2-00000000000000000001.seg";
    fs::write(folder.path().join(name), b"?").unwrap();
    let error = History::open(folder.path(), HistoryOptions::default()).unwrap_err();
    assert!(error.to_string().contains(name) && error.to_string().contains("update starling"), "{error}");
}

/// Appends, seals after each of `ends`; the last part stays open.
fn with_segments(folder: &TempDir, ends: &[u64], last: u64) -> History {
    let mut history = open(folder);
    let mut begin = 1;
    for end in ends {
        history.append(&records(begin..=*end)).unwrap();
        history.seal().unwrap();
        begin = end + 1;
    }
    history.append(&records(begin..=last)).unwrap();
    history
}

fn import_all(from: &History, to: &mut History) {
    for info in to.missing(&from.segments()) {
        to.import_segment(&info, &from.segment_path(&info.name).unwrap()).unwrap();
    }
}

#[test]
fn a_new_node_imports_the_segments_that_it_lacks() {
    let (leader_folder, new_folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let leader = with_segments(&leader_folder, &[4, 9], 9);
    let mut new = open(&new_folder);
    import_all(&leader, &mut new);
    assert_eq!(new.segments(), leader.segments());
    assert_eq!(new.missing(&leader.segments()), []);
    new.append(&records(8..=11)).unwrap();
    assert_eq!(all(&new), records(1..=11));
    drop(new);
    assert_eq!(all(&open(&new_folder)), records(1..=11));
}

#[test]
fn a_node_that_fell_behind_imports_over_what_it_has() {
    let (leader_folder, slow_folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let leader = with_segments(&leader_folder, &[4, 9, 15], 15);
    let mut slow = with_segments(&slow_folder, &[3, 7], 11);
    import_all(&leader, &mut slow);
    assert_eq!(all(&slow), records(1..=15));
    slow.append(&records(14..=18)).unwrap();
    assert_eq!(all(&slow), records(1..=18));
    drop(slow);
    let slow = open(&slow_folder);
    assert_eq!(all(&slow), records(1..=18));
    assert_eq!(slow.read(LogIndex::new(6), 6).unwrap(), records(6..=11));
}

#[test]
fn a_segment_that_is_contained_in_a_local_one_is_not_taken_in() {
    let (one_folder, other_folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let one = with_segments(&one_folder, &[4], 4);
    let mut other = with_segments(&other_folder, &[9], 9);
    let before = other.segments();
    let info = one.segments().remove(0);
    other.import_segment(&info, &one.segment_path(&info.name).unwrap()).unwrap();
    assert_eq!(other.segments(), before);
    assert_eq!(file_names(&other_folder), ["audit-v1-00000000000000000001.seg"]);
}

#[test]
fn a_fetched_file_that_is_damaged_or_another_is_refused_and_leaves_nothing_behind() {
    let (leader_folder, new_folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let leader = with_segments(&leader_folder, &[4, 9], 9);
    let mut new = open(&new_folder);
    let infos = leader.segments();
    let fetched = new_folder.path().join("fetched");
    for at in [0, 30, 100] {
        fs::copy(leader.segment_path(&infos[0].name).unwrap(), &fetched).unwrap();
        flip(&fetched, at);
        let error = new.import_segment(&infos[0], &fetched).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
    }
    let other = leader.segment_path(&infos[1].name).unwrap();
    assert_eq!(new.import_segment(&infos[0], &other).unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    assert_eq!(file_names(&new_folder), ["fetched"]);
    assert_eq!(all(&new), []);

    let sound = leader.segment_path(&infos[0].name).unwrap();
    new.import_segment(&infos[0], &sound).unwrap();
    assert_eq!(all(&new), records(1..=4));
}

#[test]
fn a_name_that_leads_elsewhere_is_refused() {
    let folder = TempDir::new().unwrap();
    let mut history = with_segments(&folder, &[4], 4);
    let info = SegmentInfo { name: "../audit-v1-x.seg".to_owned(), ..history.segments().remove(0) };
    let error = history.import_segment(&info, &open_file(&folder)).unwrap_err();
    assert_eq!(error.to_string(), "'../audit-v1-x.seg' is not the name of a segment");
    assert_eq!(history.segment_path("../history/audit-v1-00000000000000000001.seg"), None);
}

#[test]
fn what_was_being_imported_at_a_crash_is_cleared_away() {
    let folder = TempDir::new().unwrap();
    drop(with_segments(&folder, &[4], 4));
    fs::write(folder.path().join("audit-v1-00000000000000000005.seg.tmp"), b"half").unwrap();
    let history = open(&folder);
    assert_eq!(file_names(&folder), ["audit-v1-00000000000000000001.seg"]);
    assert_eq!(all(&history), records(1..=4));
}

#[test]
fn telemetry_expires_by_age_and_by_size_and_audit_stays() {
    let folder = TempDir::new().unwrap();
    let options = HistoryOptions {
        telemetry: Retention { max_bytes: Some(10_000), max_age: Some(Duration::from_secs(60)) },
        ..HistoryOptions::default()
    };
    let mut history = History::open(folder.path(), options).unwrap();
    for index in 1..=4 {
        let telemetry = record_of(index, 1, EventClass::Telemetry);
        let audit = record_of(index, 2, EventClass::Audit);
        history.append(&[telemetry, audit]).unwrap();
        history.seal().unwrap();
    }
    // Event n has wall time n seconds.
    assert_eq!(history.expire(WallTime::from_unix_micros(61_000_000)).unwrap(), [] as [String; 0]);
    assert_eq!(
        history.expire(WallTime::from_unix_micros(62_500_000)).unwrap(),
        ["telemetry-v1-00000000000000000001.seg", "telemetry-v1-00000000000000000002.seg"]
    );
    let left = all(&history);
    let of_class = |class| left.iter().filter(|r| r.class == class).map(|r| r.log_index.get()).collect();
    let (audit, telemetry): (Vec<u64>, Vec<u64>) =
        (of_class(EventClass::Audit), of_class(EventClass::Telemetry));
    assert_eq!((audit, telemetry), (vec![1, 2, 3, 4], vec![3, 4]));
    history.append(&[record_of(2, 1, EventClass::Telemetry)]).unwrap();
    assert_eq!(all(&history), left, "what has expired does not come back");
}

#[test]
fn a_view_reads_what_was_there_when_it_was_taken_even_after_a_seal() {
    let folder = TempDir::new().unwrap();
    let mut history = open(&folder);
    history.append(&records(1..=3)).unwrap();
    let view = history.view();
    history.append(&records(4..=6)).unwrap();
    assert_eq!(view.read(LogIndex::new(0), 99).unwrap(), records(1..=3));
    history.seal().unwrap();
    assert_eq!(view.read(LogIndex::new(0), 99).unwrap(), records(1..=3));
}

#[test]
fn an_event_of_the_cluster_keeps_its_content() {
    let folder = TempDir::new().unwrap();
    let mut history = open(&folder);
    let event = Event::Cluster(ClusterEvent::CheckpointTaken {});
    let checkpoint = HistoryRecord { event, ..record(3) };
    history.append(std::slice::from_ref(&checkpoint)).unwrap();
    assert_eq!(all(&history), [checkpoint]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Steps: append a few more, seal, crash with a torn tail and apply again.
    #[test]
    fn whatever_happens_in_between_the_history_is_every_event_once(
        steps in proptest::collection::vec((0..4_u8, 1..6_u64, any::<u16>()), 1..20)
    ) {
        let folder = TempDir::new().unwrap();
        let mut history = open(&folder);
        let mut last = 0;
        let mut sealed_to = 0;
        for (what, count, torn) in steps {
            match what {
                0 | 1 => {
                    history.append(&records(last + 1..=last + count)).unwrap();
                    last += count;
                }
                2 => {
                    history.seal().unwrap();
                    sealed_to = last;
                }
                _ => {
                    drop(history);
                    let open_files = file_names(&folder).into_iter().filter(|name| name.ends_with(".open"));
                    for name in open_files {
                        let file = OpenOptions::new().write(true).open(folder.path().join(name)).unwrap();
                        let length = file.metadata().unwrap().len();
                        file.set_len(length - u64::from(torn) % (length + 1)).unwrap();
                    }
                    history = open(&folder);
                    prop_assert!(history.last_index().map_or(0, LogIndex::get) >= sealed_to);
                    history.append(&records(sealed_to + 1..=last)).unwrap();
                }
            }
            prop_assert_eq!(all(&history), records(1..=last));
        }
    }
}
