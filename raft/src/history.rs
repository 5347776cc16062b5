//! Every event ever, with its index, in immutable checksummed segment files:
//! audit, time travel, watch. Raft may purge its log; this stays.
//!
//! Audit and telemetry have segments of their own, so that a busy source of
//! samples never pushes out who changed what. Per class there are any number of
//! sealed segments and at most one open one, to which events are appended. A
//! crash may tear the open segment's tail; what is cut there is applied, and so
//! appended, again from the Raft log, which is why [`History::seal`] (or
//! [`History::sync`]) must have returned before a snapshot lets Raft purge.
//!
//! Everything here is synchronous; an error of a write or a sync leaves the
//! history unusable ([`History::append`] says so ever after): the process is to
//! end and to recover from what is on disk.

mod lane;
mod segment;
mod view;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use self::lane::Lane;
use self::segment::{Place, Sealed, SegmentName};
pub use self::view::HistoryView;
use crate::envelope::EventEnvelope;
use crate::state::{EntryContext, Event, EventClass, LogIndex, LogTime, Principal, RequestId, WallTime};

/// One event, with what its entry said about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct HistoryRecord {
    pub log_index: LogIndex,
    pub log_time: LogTime,
    pub wall_time: WallTime,
    pub principal: Principal,
    pub request_id: RequestId,
    pub class: EventClass,
    pub event: Event,
}

impl HistoryRecord {
    /// An event of the entry with this context, in the event's own class.
    pub fn new(context: &EntryContext, event: Event) -> Self {
        Self {
            log_index: context.log_index,
            log_time: context.log_time,
            wall_time: context.wall_time,
            principal: context.principal.clone(),
            request_id: context.request_id,
            class: event.class(),
            event,
        }
    }

    fn envelope(&self, position: u32) -> EventEnvelope {
        EventEnvelope {
            context: EntryContext {
                log_index: self.log_index,
                log_time: self.log_time,
                wall_time: self.wall_time,
                principal: self.principal.clone(),
                request_id: self.request_id,
            },
            position,
            class: self.class,
            event: self.event.clone(),
        }
    }
}

impl From<EventEnvelope> for HistoryRecord {
    fn from(envelope: EventEnvelope) -> Self {
        let EventEnvelope { context, position: _, class, event } = envelope;
        let EntryContext { log_index, log_time, wall_time, principal, request_id } = context;
        Self { log_index, log_time, wall_time, principal, request_id, class, event }
    }
}

/// When segments are closed, and which are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryOptions {
    /// A segment that has reached this size is sealed. Bytes.
    pub segment_bytes: u64,
    /// What is kept of audit. By default all.
    pub audit: Retention,
    /// What is kept of telemetry.
    pub telemetry: Retention,
}

/// Which sealed segments of a class are kept. Oldest go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Of all sealed segments together; `None`: no bound.
    pub max_bytes: Option<u64>,
    /// By the wall time of a segment's last event; `None`: for ever.
    pub max_age: Option<std::time::Duration>,
}

impl Default for HistoryOptions {
    fn default() -> Self {
        const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);
        Self {
            segment_bytes: 16 << 20,
            audit: Retention::default(),
            telemetry: Retention { max_bytes: Some(1 << 30), max_age: Some(7 * DAY) },
        }
    }
}

/// A sealed segment, as a snapshot lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentInfo {
    /// File name: class, format version, first index.
    pub name: String,
    /// Index of its first event.
    pub first_index: LogIndex,
    /// Index of its last event.
    pub last_index: LogIndex,
    /// Of the whole file.
    pub size_bytes: u64,
    /// SHA-256 of everything before the footer, in which it stands as well. The
    /// footer follows from the rest, so it identifies the whole file.
    pub sha256: [u8; 32],
}

/// The segment files of one node.
#[derive(Debug)]
pub struct History {
    dir: PathBuf,
    options: HistoryOptions,
    lanes: BTreeMap<EventClass, Lane>,
    failed: bool,
}

impl History {
    /// Opens the folder, and makes it if it is not there. Cuts a torn tail off
    /// open segments.
    ///
    /// # Errors
    /// What the file system says; a sealed segment that is damaged, or a file
    /// of a newer format, by its path.
    pub fn open(dir: impl Into<PathBuf>, options: HistoryOptions) -> io::Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(|error| segment::with_path(error, &dir))?;
        let mut lanes = BTreeMap::new();
        for class in [EventClass::Audit, EventClass::Telemetry] {
            lanes.insert(class, Lane::open(&dir, class)?);
        }
        Ok(Self { dir, options, lanes, failed: false })
    }

    /// Appends events, in the order of their entries. All events of one entry
    /// must come in one call; a call may bring several entries. Those that are
    /// in the history already are skipped, one by one, so an entry may be
    /// applied again after a restart.
    ///
    /// Readable when this returns; durable after [`History::sync`].
    ///
    /// # Errors
    /// A failed write, and from then on always.
    pub fn append(&mut self, records: &[HistoryRecord]) -> io::Result<()> {
        self.refuse_if_failed()?;
        let mut position = 0;
        let mut previous: Option<LogIndex> = None;
        let mut batches: BTreeMap<EventClass, lane::Batch> = BTreeMap::new();
        for record in records {
            position = match previous {
                Some(index) if index == record.log_index => position + 1,
                Some(index) if index > record.log_index => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        format!("event of index {} after one of index {index}", record.log_index),
                    ));
                }
                _ => 0,
            };
            previous = Some(record.log_index);
            let place = Place { index: record.log_index, position };
            if self.lanes.get(&record.class).is_some_and(|lane| lane.has(place)) {
                continue;
            }
            let envelope = record.envelope(position);
            batches.entry(record.class).or_default().push(place, record.wall_time, &envelope.encode());
        }
        self.attempt(|history| history.write(&batches))
    }

    fn write(&mut self, batches: &BTreeMap<EventClass, lane::Batch>) -> io::Result<()> {
        for (class, batch) in batches {
            if let Some(lane) = self.lanes.get_mut(class) {
                lane.append(&self.dir, batch)?;
                if lane.open_bytes() >= self.options.segment_bytes {
                    lane.seal(&self.dir)?;
                }
            }
        }
        Ok(())
    }

    /// Makes everything appended durable (fdatasync of the open segments).
    ///
    /// # Errors
    /// A failed sync, and from then on always: it is never retried, since the
    /// kernel may have dropped what it could not write.
    pub fn sync(&mut self) -> io::Result<()> {
        self.refuse_if_failed()?;
        self.attempt(|history| history.lanes.values_mut().try_for_each(Lane::sync))
    }

    /// Closes the open segments for ever; the next event opens new ones. After
    /// this [`History::segments`] has everything that was appended, durable.
    ///
    /// # Errors
    /// As [`History::sync`].
    pub fn seal(&mut self) -> io::Result<()> {
        self.refuse_if_failed()?;
        self.attempt(|history| history.lanes.values_mut().try_for_each(|lane| lane.seal(&history.dir)))
    }

    /// Index of the last event; entries without events leave no trace.
    pub fn last_index(&self) -> Option<LogIndex> {
        self.lanes.values().filter_map(Lane::last).map(|place| place.index).max()
    }

    /// Sealed segments, by class and first index: what a snapshot lists.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.lanes.values().flat_map(|lane| lane.sealed().iter().map(|sealed| sealed.info())).collect()
    }

    /// Of the listed segments, those with events that are not known to be here.
    pub fn missing(&self, listed: &[SegmentInfo]) -> Vec<SegmentInfo> {
        listed.iter().filter(|info| !self.covers(info)).cloned().collect()
    }

    fn covers(&self, info: &SegmentInfo) -> bool {
        self.segments().iter().any(|local| {
            local == info
                || (local.name.split('-').next() == info.name.split('-').next()
                    && local.first_index <= info.first_index
                    && local.last_index > info.last_index)
        })
    }

    /// Where a sealed segment lies, to be sent to a peer. `None` if there is no
    /// such segment (any more).
    pub fn segment_path(&self, name: &str) -> Option<PathBuf> {
        let sealed = self.lanes.values().flat_map(|lane| lane.sealed());
        sealed.map(|sealed| sealed.path()).find(|path| path.file_name().is_some_and(|file| file == name))
    }

    /// Takes in a segment that was fetched from a peer into `file`, which stays
    /// as it is. It is checked against `info` before it gets its name. Local
    /// segments that it contains are dropped; if one contains it, nothing
    /// happens.
    ///
    /// # Errors
    /// `InvalidData` if the file is not what `info` says; the file system's.
    pub fn import_segment(&mut self, info: &SegmentInfo, file: &Path) -> io::Result<()> {
        self.refuse_if_failed()?;
        let name: SegmentName = info.name.parse().map_err(|()| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("'{}' is not the name of a segment", info.name),
            )
        })?;
        let aside = self.dir.join(format!("{}.tmp", info.name));
        copy_synced(file, &aside)?;
        let fetched = match Sealed::open_verified(&aside, name, info) {
            Ok(fetched) => fetched,
            Err(error) => {
                fs::remove_file(&aside)?;
                return Err(error);
            }
        };
        self.attempt(|history| match history.lanes.get_mut(&name.class) {
            Some(lane) => lane.adopt(&history.dir, &aside, fetched),
            None => Ok(()),
        })
    }

    /// Removes sealed segments that the options no longer want kept, and says
    /// which. `now` is the state's wall time.
    ///
    /// # Errors
    /// The file system's.
    pub fn expire(&mut self, now: WallTime) -> io::Result<Vec<String>> {
        let mut removed = Vec::new();
        for (class, lane) in &mut self.lanes {
            let retention = match class {
                EventClass::Audit => self.options.audit,
                EventClass::Telemetry => self.options.telemetry,
            };
            removed.extend(lane.expire(&self.dir, retention, now)?);
        }
        Ok(removed)
    }

    /// What can be read now, to be read without holding the history.
    pub fn view(&self) -> HistoryView {
        HistoryView::new(self.lanes.values().map(Lane::view).collect())
    }

    /// Events from `from` on, in order, about `limit` at most: the last entry's
    /// events are all there, so the next page begins one index later.
    ///
    /// # Errors
    /// As [`HistoryView::read`].
    pub fn read(&self, from: LogIndex, limit: usize) -> io::Result<Vec<HistoryRecord>> {
        self.view().read(from, limit)
    }

    fn refuse_if_failed(&self) -> io::Result<()> {
        if !self.failed {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "history in {} is not written to after a failed write; restart the node",
            self.dir.display()
        )))
    }

    fn attempt<T>(&mut self, change: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        let result = change(self);
        self.failed |= result.is_err();
        result
    }
}

fn copy_synced(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from).map_err(|error| segment::with_path(error, from))?;
    let mut copy = File::create(to).map_err(|error| segment::with_path(error, to))?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = source.read(&mut buffer).map_err(|error| segment::with_path(error, from))?;
        if read == 0 {
            break;
        }
        copy.write_all(&buffer[..read]).map_err(|error| segment::with_path(error, to))?;
    }
    copy.sync_all().map_err(|error| segment::with_path(error, to))
}
