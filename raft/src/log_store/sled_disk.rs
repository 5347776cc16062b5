//! The disk that ships: sled, and the high-water file beside it.
//!
//! sled 0.34.7 on Linux calls `sync_file_range` where one expects a disk flush,
//! so every group is followed by `fdatasync` of its data file through a second
//! descriptor. sled may panic or hang on a damaged file: opening happens on a
//! thread of its own, with a deadline.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::disk::{Batch, Disk, DiskReader, Visit};
use super::high_water::{HighWater, SLOT_BYTES, SLOTS};
use super::options::{Durability, LogStoreOptions, OpenError};

const SLED_DIRECTORY: &str = "sled";
const HIGH_WATER_FILE: &str = "high-water";
/// sled opens within a second or two; past this it is taken to hang.
const OPEN_TIME_MAX: Duration = Duration::from_secs(120);
/// sled's own threads may hold its lock a little longer than its handles live.
const UNLOCK_TIME_MAX: Duration = Duration::from_secs(10);
const UNLOCK_POLL: Duration = Duration::from_millis(5);

/// sled and the high-water file of one directory.
pub(super) struct SledDisk {
    tree: sled::Tree,
    // Holds the directory's lock; dropped last of all that touches sled.
    _database: sled::Db,
    data: File,
    high_water: File,
    durability: Durability,
}

impl SledDisk {
    /// Opens or makes the log's files in `dir`, all of them durable by name.
    pub(super) fn open(dir: &Path, options: &LogStoreOptions) -> Result<Self, OpenError> {
        let unreadable = |source| OpenError::Unreadable { dir: dir.to_owned(), source };
        let sled_dir = dir.join(SLED_DIRECTORY);
        fs::create_dir_all(&sled_dir).map_err(unreadable)?;

        let database = match open_sled(dir, &sled_dir, options) {
            Ok(database) => database,
            Err(OpenError::Damaged { what, .. }) if nothing_was_ever_promised(dir) => {
                tracing::warn!(%what, "the log's first start was interrupted; starting it anew");
                fs::remove_dir_all(&sled_dir).map_err(unreadable)?;
                fs::create_dir_all(&sled_dir).map_err(unreadable)?;
                open_sled(dir, &sled_dir, options)?
            }
            Err(error) => return Err(error),
        };

        let data = OpenOptions::new().read(true).write(true).open(sled_dir.join("db")).map_err(unreadable)?;
        if options.durability == Durability::PowerLoss {
            // sled syncs neither its settings nor its directory.
            data.sync_all().map_err(unreadable)?;
            File::open(sled_dir.join("conf")).and_then(|conf| conf.sync_all()).map_err(unreadable)?;
            sync_directory(&sled_dir).map_err(unreadable)?;
        }
        let high_water = open_high_water(dir, options.durability).map_err(unreadable)?;
        Ok(Self {
            tree: (*database).clone(),
            _database: database,
            data,
            high_water,
            durability: options.durability,
        })
    }
}

impl Disk for SledDisk {
    fn write(&mut self, batch: Batch) -> io::Result<()> {
        let mut sled_batch = sled::Batch::default();
        for (key, value) in batch.into_changes() {
            match value {
                Some(value) => sled_batch.insert(key, value),
                None => sled_batch.remove(key),
            }
        }
        self.tree.apply_batch(sled_batch).map_err(io_error)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.tree.flush().map_err(io_error)?;
        if self.durability == Durability::PowerLoss {
            self.data.sync_data()?;
        }
        Ok(())
    }

    fn read_high_water(&mut self) -> io::Result<Vec<Vec<u8>>> {
        read_slots(&self.high_water)
    }

    fn write_high_water(&mut self, slot: usize, record: &[u8]) -> io::Result<()> {
        self.high_water.write_all_at(record, (slot * SLOT_BYTES) as u64)?;
        if self.durability == Durability::PowerLoss {
            self.high_water.sync_data()?;
        }
        Ok(())
    }

    fn close(self) {
        let Self { tree, _database, data, .. } = self;
        drop((tree, _database));
        let deadline = Instant::now() + UNLOCK_TIME_MAX;
        while let Err(error) = flock(&data, FlockOperation::NonBlockingLockExclusive) {
            if Instant::now() >= deadline {
                tracing::warn!(%error, "sled has not let go of the log's directory");
                return;
            }
            std::thread::sleep(UNLOCK_POLL);
        }
    }

    fn reader(&self) -> Arc<dyn DiskReader> {
        Arc::new(SledReader { tree: self.tree.clone() })
    }
}

struct SledReader {
    tree: sled::Tree,
}

impl DiskReader for SledReader {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.tree.get(key).map_err(io_error)?.map(|value| value.to_vec()))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> io::Result<()> {
        for pair in self.tree.range(from..to) {
            let (key, value) = pair.map_err(io_error)?;
            if !visit(&key, &value)? {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn open_sled(dir: &Path, sled_dir: &Path, options: &LogStoreOptions) -> Result<sled::Db, OpenError> {
    remove_unfinished_snapshots(sled_dir)
        .map_err(|source| OpenError::Unreadable { dir: dir.to_owned(), source })?;
    let config = sled::Config::new()
        .path(sled_dir)
        .segment_size(options.segment_bytes)
        .cache_capacity(options.page_cache_bytes)
        .mode(sled::Mode::LowSpace)
        .flush_every_ms(None);

    let damaged = |what: &str| OpenError::Damaged { dir: dir.to_owned(), what: what.to_owned() };
    let (sender, receiver) = mpsc::channel();
    let opener = std::thread::Builder::new().name("log-open".to_owned()).spawn(move || {
        let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| config.open()));
        // Nobody waits any more once the deadline has passed.
        let _ = sender.send(opened);
    });
    opener.map_err(|source| OpenError::Unreadable { dir: dir.to_owned(), source })?;
    match receiver.recv_timeout(OPEN_TIME_MAX) {
        Ok(Ok(Ok(database))) => Ok(database),
        Ok(Ok(Err(error))) => Err(open_error(dir, error)),
        Ok(Err(panic)) => Err(damaged(&format!("sled panicked on it: {}", panic_message(panic.as_ref())))),
        Err(_) => Err(damaged(&format!("sled did not open it within {OPEN_TIME_MAX:?}"))),
    }
}

/// What a panic said.
pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(message) = panic.downcast_ref::<&str>() {
        return (*message).to_owned();
    }
    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "no message".to_owned())
}

/// sled takes a snapshot file that a crash left half-written for a finished,
/// damaged one. They only save time, so the unfinished ones may go.
fn remove_unfinished_snapshots(sled_dir: &Path) -> io::Result<()> {
    for file in fs::read_dir(sled_dir)? {
        let path = file?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// The high-water file is made only after sled's own files are durable, and
/// written before anything is acknowledged: where it is absent or blank, no
/// promise depends on what sled holds.
fn nothing_was_ever_promised(dir: &Path) -> bool {
    match File::open(dir.join(HIGH_WATER_FILE)) {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        Ok(file) => read_slots(&file)
            .is_ok_and(|slots| HighWater::newest(&slots).is_some_and(|newest| newest.is_blank())),
    }
}

fn open_high_water(dir: &Path, durability: Durability) -> io::Result<File> {
    let path = dir.join(HIGH_WATER_FILE);
    let is_new = !path.exists();
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    if !is_new {
        return Ok(file);
    }
    file.set_len((SLOTS * SLOT_BYTES) as u64)?;
    if durability == Durability::PowerLoss {
        file.sync_all()?;
        sync_directory(dir)?;
        if let Some(parent) = dir.parent() {
            sync_directory(parent)?;
        }
    }
    Ok(file)
}

fn read_slots(file: &File) -> io::Result<Vec<Vec<u8>>> {
    (0..SLOTS).map(|slot| read_slot(file, slot)).collect()
}

fn read_slot(file: &File, slot: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; SLOT_BYTES];
    let mut filled = 0;
    while filled < SLOT_BYTES {
        let read_bytes = file.read_at(&mut bytes[filled..], (slot * SLOT_BYTES + filled) as u64)?;
        if read_bytes == 0 {
            break;
        }
        filled += read_bytes;
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    // The parent of a relative path of one component is the empty path.
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

fn open_error(dir: &Path, error: sled::Error) -> OpenError {
    let dir: PathBuf = dir.to_owned();
    match error {
        sled::Error::Io(source) if source.to_string().contains("could not acquire lock") => {
            OpenError::InUse { dir }
        }
        sled::Error::Io(source) if source.raw_os_error().is_some() => OpenError::Unreadable { dir, source },
        other => {
            OpenError::Damaged { dir, what: other.to_string().trim_end_matches(" backtrace ()").to_owned() }
        }
    }
}

fn io_error(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(source) => source,
        other => io::Error::other(other),
    }
}
