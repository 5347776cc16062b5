//! The log that ships, after a power cut at any moment.
//!
//! A process runs a workload under a small recorder (`../crash_recorder`),
//! which notes every write, name change and sync, and what the log had
//! acknowledged by then. From that, the disk is rebuilt as it could have been
//! at every point, with subsets of what was not synced gone; `sync_file_range`
//! is no sync. Every image is opened with the log that ships: what was
//! acknowledged is there, or the loss is detected and the node fenced.
//! `cargo test --test crash_images -- --nocapture` prints the outcomes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod image;
mod model;
mod trace;
mod workload;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use starling_raft::log_store::{self, Durability, LogStoreOptions};
use tempfile::TempDir;

use crate::image::Crash;
use crate::model::{Found, Model};
use crate::trace::Op;

/// Says that this process is the recorded one, and where its files are.
const CHILD_DIR: &str = "CRASH_RECORDER_DIR";
const CHILD_NOTES: &str = "CRASH_RECORDER_NOTES";
/// Images are opened by this many threads.
const THREADS: usize = 2;

type Workload = fn(&Path, &Path, &LogStoreOptions);

/// What became of the images.
#[derive(Debug, Default)]
struct Outcomes {
    /// How often sled used the space of a freed segment again.
    reused_segments: usize,
    images: usize,
    intact: usize,
    fenced: Vec<String>,
    /// Acknowledged writes gone without a word, panics, gaps: what must never be.
    silent: Vec<String>,
}

#[test]
fn after_a_power_cut_what_was_acknowledged_is_there() {
    let experiment = Experiment {
        test: "after_a_power_cut_what_was_acknowledged_is_there",
        workload: workload::everything,
        options: LogStoreOptions::default(),
        lied_about: None,
        images_max: 1_000,
    };
    let Some(outcomes) = experiment.run("the settings that ship") else { return };
    assert_eq!(outcomes.silent, Vec::<String>::new());
    assert_eq!(outcomes.fenced, Vec::<String>::new(), "nothing that was synced was lost");
    assert!(outcomes.images >= 500, "{} images", outcomes.images);
}

#[test]
fn reused_segments_lose_nothing_either() {
    let experiment = Experiment {
        test: "reused_segments_lose_nothing_either",
        workload: workload::churn,
        options: LogStoreOptions { segment_bytes: 64 << 10, ..LogStoreOptions::default() },
        lied_about: None,
        images_max: 700,
    };
    let Some(outcomes) = experiment.run("small segments, reused") else { return };
    assert!(outcomes.reused_segments >= 3, "{} segments reused", outcomes.reused_segments);
    assert_eq!(outcomes.silent, Vec::<String>::new());
    assert_eq!(outcomes.fenced, Vec::<String>::new(), "nothing that was synced was lost");
    assert!(outcomes.images >= 500, "{} images", outcomes.images);
}

#[test]
fn where_the_disk_lied_about_the_log_the_node_is_fenced() {
    let experiment = Experiment {
        test: "where_the_disk_lied_about_the_log_the_node_is_fenced",
        workload: workload::everything,
        options: LogStoreOptions::default(),
        lied_about: Some("sled/db"),
        images_max: 500,
    };
    let Some(outcomes) = experiment.run("a disk that lies about its syncs of the log") else { return };
    assert_eq!(outcomes.silent, Vec::<String>::new());
    assert!(outcomes.fenced.len() >= 100, "{} fenced", outcomes.fenced.len());
}

#[test]
fn without_the_disk_flush_and_the_loss_check_acknowledged_writes_vanish_in_silence() {
    let experiment = Experiment {
        test: "without_the_disk_flush_and_the_loss_check_acknowledged_writes_vanish_in_silence",
        workload: workload::everything,
        options: LogStoreOptions {
            durability: Durability::ProcessCrash,
            skip_loss_check: true,
            ..LogStoreOptions::default()
        },
        lied_about: None,
        images_max: 200,
    };
    let Some(outcomes) = experiment.run("no disk flush, no loss check: a planted bug") else { return };
    assert!(!outcomes.silent.is_empty(), "the images did not find a bug that is there");
}

/// What is recorded, and which images are made of it.
struct Experiment {
    /// The test's own name: it is run again, as the recorded process.
    test: &'static str,
    workload: Workload,
    options: LogStoreOptions,
    /// The file whose syncs are taken for lies.
    lied_about: Option<&'static str>,
    images_max: usize,
}

impl Experiment {
    /// Records the workload in a child and opens the images. `None` in the child itself.
    fn run(&self, name: &str) -> Option<Outcomes> {
        if let Some(dir) = std::env::var_os(CHILD_DIR) {
            let notes = std::env::var_os(CHILD_NOTES).unwrap();
            (self.workload)(Path::new(&dir), Path::new(&notes), &self.options);
            return None;
        }
        let work = work_dir();
        let ops = record(self.test, work.path());
        let lied_about = self.lied_about.map(|name| trace::file_called(&ops, name));
        let crashes = image::crashes(&ops, self.images_max, lied_about);
        let mut outcomes = open_images(&ops, &crashes, self, work.path());
        let database = trace::file_called(&ops, "sled/db");
        outcomes.reused_segments = trace::reused_segments(&ops, database, self.options.segment_bytes as u64);
        report(name, &outcomes);
        Some(outcomes)
    }
}

fn report(name: &str, outcomes: &Outcomes) {
    println!(
        "{name}: {} segments reused; {} images, {} intact, {} fenced, {} silent losses",
        outcomes.reused_segments,
        outcomes.images,
        outcomes.intact,
        outcomes.fenced.len(),
        outcomes.silent.len()
    );
    for fenced in outcomes.fenced.iter().take(5) {
        println!("  fenced: {fenced}");
    }
    for silent in outcomes.silent.iter().take(5) {
        println!("  silent: {silent}");
    }
}

/// In memory where there is room: what the images are synced to does not matter.
fn work_dir() -> TempDir {
    const MEMORY: &str = "/dev/shm";
    const ROOM_BYTES: u64 = 1 << 30;
    let has_room = rustix::fs::statvfs(MEMORY).is_ok_and(|fs| fs.f_bavail * fs.f_frsize >= ROOM_BYTES);
    if has_room && let Ok(dir) = tempfile::tempdir_in(MEMORY) {
        return dir;
    }
    tempfile::tempdir().unwrap()
}

fn record(test: &str, work: &Path) -> Vec<Op> {
    let recorder = build_recorder(work);
    let data = work.join("recorded");
    std::fs::create_dir(&data).unwrap();
    let trace = work.join("trace");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("LD_PRELOAD", recorder)
        .env(CHILD_DIR, std::fs::canonicalize(&data).unwrap())
        .env(CHILD_NOTES, std::fs::canonicalize(work).unwrap().join("notes"))
        .env("CRASH_RECORDER_TRACE", &trace)
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    let ops = trace::read(&trace);
    std::fs::remove_dir_all(&data).unwrap();
    ops
}

fn build_recorder(work: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash_recorder/recorder.c");
    let library = work.join("recorder.so");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let built = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-o"])
        .args([&library, &source])
        .arg("-lpthread")
        .output();
    let built =
        built.unwrap_or_else(|error| panic!("{compiler} builds the recorder and is not there: {error}"));
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}

fn open_images(ops: &[Op], crashes: &[Crash], experiment: &Experiment, work: &Path) -> Outcomes {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Outcomes::default());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (next, outcomes) = (&next, &outcomes);
            scope.spawn(move || {
                let dir = work.join(format!("image-{thread}"));
                while let Some(crash) = crashes.get(next.fetch_add(1, Ordering::Relaxed)) {
                    std::fs::create_dir(&dir).unwrap();
                    image::build(&dir, ops, crash);
                    let verdict = std::panic::catch_unwind(AssertUnwindSafe(|| {
                        open_image(&dir, ops, crash, experiment)
                    }));
                    std::fs::remove_dir_all(&dir).unwrap();
                    let mut outcomes = outcomes.lock().unwrap();
                    outcomes.images += 1;
                    match verdict {
                        Ok(Verdict::Intact) => outcomes.intact += 1,
                        Ok(Verdict::Fenced(why)) => {
                            outcomes.fenced.push(format!("{why} at {}", place(ops, crash)))
                        }
                        Ok(Verdict::Silent(why)) => {
                            outcomes.silent.push(format!("{why} at {}", place(ops, crash)))
                        }
                        Err(_) => outcomes.silent.push(format!("a panic escaped at {}", place(ops, crash))),
                    }
                }
            });
        }
    });
    outcomes.into_inner().unwrap()
}

enum Verdict {
    Intact,
    Fenced(String),
    Silent(String),
}

/// Opens an image twice: what recovery leaves behind must be sound as well.
fn open_image(dir: &Path, ops: &[Op], crash: &Crash, experiment: &Experiment) -> Verdict {
    let mut model = Model::default();
    for op in &ops[..crash.end] {
        if let Op::Note(line) = op {
            model.note(line);
        }
    }
    for opening in ["first", "second"] {
        let found = match open_once(dir, &experiment.options) {
            Ok(found) => found,
            Err(log_store::OpenError::InUse { .. }) => {
                return Verdict::Silent("the lock was not released".to_owned());
            }
            Err(error) => return Verdict::Fenced(format!("{error} ({opening} opening)")),
        };
        if let Err(why) = model.check(&found, experiment.lied_about.is_some()) {
            return Verdict::Silent(format!("{why} ({opening} opening)"));
        }
    }
    Verdict::Intact
}

fn open_once(dir: &Path, options: &LogStoreOptions) -> Result<Found, log_store::OpenError> {
    let mut store = log_store::open(dir, options.clone())?.store;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    Ok(runtime.block_on(async {
        let state = store.get_log_state().await.unwrap();
        let found = Found {
            entries: store.try_get_log_entries(..).await.unwrap(),
            last_log_id: state.last_log_id,
            purged: state.last_purged_log_id,
            vote: store.read_vote().await.unwrap(),
            marked: store.marker().is_some(),
        };
        store.close().await.unwrap();
        found
    }))
}

fn place(ops: &[Op], crash: &Crash) -> String {
    let lost: Vec<String> = crash.lost.iter().map(|op| describe(*op, &ops[*op])).collect();
    let torn = crash.torn.map(|torn| format!(", {} torn as {torn:?}", describe(torn.op, &ops[torn.op])));
    let lost = match lost.len() {
        0..=8 => lost.join("; "),
        many => format!("{many} changes, the first: {}", lost[0]),
    };
    format!("record {} of {}, lost: [{lost}]{}", crash.end, ops.len(), torn.unwrap_or_default())
}

fn describe(position: usize, op: &Op) -> String {
    match op {
        Op::Write { file, offset, data } => {
            format!("{position}: {} bytes at {offset} of file {file}", data.len())
        }
        other => format!("{position}: {other:?}"),
    }
}
