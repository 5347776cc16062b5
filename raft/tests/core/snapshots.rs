//! Snapshot files: read back whole, or found damaged.

use std::fs;

use starling_raft::codec::state_digest;
use starling_raft::history::SegmentInfo;
use starling_raft::snapshot_file::{SnapshotError, read_snapshot, write_snapshot};
use starling_raft::state::{LogIndex, State};
use tempfile::TempDir;

use crate::log::{Log, set_route};

fn some_state() -> State {
    let mut log = Log::of_two();
    log.push_ready("digits", "v1", 1);
    log.push_ready("digits", "v2", 2);
    log.accept(set_route("digits", &[("v1", 300_000), ("v2", 700_000)]));
    log.state
}

fn segment() -> SegmentInfo {
    SegmentInfo {
        name: "audit-v1-00000000000000000001.seg".to_owned(),
        first_index: LogIndex::new(1),
        last_index: LogIndex::new(7),
        size_bytes: 900,
        sha256: [5; 32],
    }
}

#[test]
fn a_snapshot_reads_back() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("snapshot");
    let state = some_state();
    let size_bytes = write_snapshot(&path, b"meta", &state, &[segment()]).unwrap();
    assert_eq!(size_bytes, fs::metadata(&path).unwrap().len());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left aside");
    let contents = read_snapshot(&path).unwrap();
    assert_eq!(contents.meta_bytes, b"meta");
    assert_eq!(contents.segments, [segment()]);
    assert_eq!(contents.state, state);
    assert_eq!(state_digest(&contents.state), state_digest(&state));
}

#[test]
fn a_state_of_many_chunks_reads_back() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("snapshot");
    let mut log = Log::founded();
    for number in 0..500 {
        log.accept(crate::log::register(&format!("model-{number}"), "v1", 1));
    }
    let size_bytes = write_snapshot(&path, &[7; 70_000], &log.state, &[]).unwrap();
    assert!(size_bytes > 3 * 65_536, "{size_bytes}");
    let contents = read_snapshot(&path).unwrap();
    assert_eq!((contents.meta_bytes, contents.state), (vec![7; 70_000], log.state));
}

#[test]
fn writing_over_an_older_snapshot_replaces_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("snapshot");
    write_snapshot(&path, b"old", &State::default(), &[]).unwrap();
    write_snapshot(&path, b"new", &some_state(), &[]).unwrap();
    assert_eq!(read_snapshot(&path).unwrap().meta_bytes, b"new");
}

#[test]
fn flipped_bits_cuts_and_additions_are_noticed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("snapshot");
    write_snapshot(&path, b"meta", &some_state(), &[segment()]).unwrap();
    let bytes = fs::read(&path).unwrap();
    let assert_damaged = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).unwrap();
        let error = read_snapshot(&path).expect_err(what);
        assert!(matches!(error, SnapshotError::Damaged { .. }), "{what}: {error}");
    };
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert_damaged(&flipped, &format!("a bit of byte {at} flipped"));
    }
    for length in (0..bytes.len()).step_by(3).chain(bytes.len() - 40..bytes.len()) {
        assert_damaged(&bytes[..length], &format!("cut to {length}"));
    }
    assert_damaged(&[&bytes[..], &[0]].concat(), "one byte more");
}

#[test]
fn a_missing_snapshot_is_not_a_damaged_one() {
    let folder = TempDir::new().unwrap();
    let error = read_snapshot(&folder.path().join("none")).unwrap_err();
    assert!(matches!(error, SnapshotError::Io { .. }), "{error}");
}
