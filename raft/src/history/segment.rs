//! One segment file.
//!
//! Layout, format version 1, integers big-endian:
//!
//! - header, 16 bytes: magic `STLSEG`, format version (2), class (1: 0 audit,
//!   1 telemetry), three zeroes, CRC32C of these 12 bytes;
//! - event envelopes (see [`crate::envelope`]), in order of index and position;
//! - once sealed, a footer of 80 bytes: magic `STLEND`, format version (2),
//!   first index (8), last index (8), position of the last event in its entry
//!   (4), number of events (8), wall time of the last (8), SHA-256 of everything
//!   before the footer (32), CRC32C of these 76 bytes.
//!
//! An open segment's file is called `NAME.open`, a sealed one's `NAME.seg`.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::SegmentInfo;
use crate::envelope::{EnvelopeError, Frame, HEADER_BYTES, Header};
use crate::state::{EventClass, LogIndex, WallTime};

pub(super) const FORMAT_VERSION: u16 = 1;
pub(super) const SEGMENT_HEADER_BYTES: usize = 16;
pub(super) const FOOTER_BYTES: usize = 80;

const MAGIC: &[u8; 6] = b"STLSEG";
const FOOTER_MAGIC: &[u8; 6] = b"STLEND";

/// Where an event stands: its entry, and its position among the entry's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) index: LogIndex,
    pub(super) position: u32,
}

impl Place {
    /// Of the event in this frame, without decoding it.
    pub(super) fn of(frame: &Frame<'_>) -> Option<Self> {
        let (index, rest) = frame.payload.split_first_chunk::<8>()?;
        let (position, _) = rest.split_first_chunk::<4>()?;
        let index = LogIndex::new(u64::from_be_bytes(*index));
        Some(Self { index, position: u32::from_be_bytes(*position) })
    }
}

/// `audit-v1-00000000000000000042`, without the ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentName {
    pub(super) class: EventClass,
    pub(super) first_index: LogIndex,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-v{FORMAT_VERSION}-{:020}", class_word(self.class), self.first_index.get())
    }
}

impl FromStr for SegmentName {
    type Err = ();

    /// With or without the ending `.seg`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.strip_suffix(".seg").unwrap_or(text);
        let mut words = text.splitn(3, '-');
        let class = match words.next() {
            Some("audit") => EventClass::Audit,
            Some("telemetry") => EventClass::Telemetry,
            _ => return Err(()),
        };
        if words.next() != Some("v1") {
            return Err(());
        }
        let digits = words.next().filter(|digits| digits.len() == 20).ok_or(())?;
        let first_index = LogIndex::new(digits.parse().map_err(|_| ())?);
        Ok(Self { class, first_index })
    }
}

pub(super) fn class_word(class: EventClass) -> &'static str {
    match class {
        EventClass::Audit => "audit",
        EventClass::Telemetry => "telemetry",
    }
}

fn header_bytes(class: EventClass) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    bytes[..6].copy_from_slice(MAGIC);
    bytes[6..8].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
    bytes[8] = u8::from(class == EventClass::Telemetry);
    let checksum = crc32c::crc32c(&bytes[..12]);
    bytes[12..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// What is known about a segment's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) first: Place,
    pub(super) last: Place,
    pub(super) events: u64,
    pub(super) last_wall_time: WallTime,
}

/// The end of a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Footer {
    first_index: LogIndex,
    last: Place,
    events: u64,
    last_wall_time: WallTime,
    sha256: [u8; 32],
}

impl Footer {
    fn to_bytes(self) -> [u8; FOOTER_BYTES] {
        let mut bytes = [0; FOOTER_BYTES];
        bytes[..6].copy_from_slice(FOOTER_MAGIC);
        bytes[6..8].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.first_index.get().to_be_bytes());
        bytes[16..24].copy_from_slice(&self.last.index.get().to_be_bytes());
        bytes[24..28].copy_from_slice(&self.last.position.to_be_bytes());
        bytes[28..36].copy_from_slice(&self.events.to_be_bytes());
        bytes[36..44].copy_from_slice(&self.last_wall_time.as_unix_micros().to_be_bytes());
        bytes[44..76].copy_from_slice(&self.sha256);
        let checksum = crc32c::crc32c(&bytes[..76]);
        bytes[76..].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; FOOTER_BYTES]) -> Option<Self> {
        let u64_at = |at: usize| bytes[at..].first_chunk().map(|chunk| u64::from_be_bytes(*chunk));
        let u32_at = |at: usize| bytes[at..].first_chunk().map(|chunk| u32::from_be_bytes(*chunk));
        let sound = bytes.starts_with(FOOTER_MAGIC)
            && bytes[6..8] == FORMAT_VERSION.to_be_bytes()
            && u32_at(76)? == crc32c::crc32c(&bytes[..76]);
        if !sound {
            return None;
        }
        Some(Self {
            first_index: LogIndex::new(u64_at(8)?),
            last: Place { index: LogIndex::new(u64_at(16)?), position: u32_at(24)? },
            events: u64_at(28)?,
            last_wall_time: WallTime::from_unix_micros(u64_at(36)?),
            sha256: *bytes[44..].first_chunk()?,
        })
    }
}

/// A segment that never changes again.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    path: PathBuf,
    pub(super) name: SegmentName,
    pub(super) last: Place,
    pub(super) last_wall_time: WallTime,
    pub(super) size_bytes: u64,
    sha256: [u8; 32],
}

impl Sealed {
    /// Reads the footer only.
    pub(super) fn open(path: &Path, name: SegmentName) -> io::Result<Self> {
        let mut file = File::open(path).map_err(|error| with_path(error, path))?;
        let size_bytes = file.metadata().map_err(|error| with_path(error, path))?.len();
        if size_bytes < (SEGMENT_HEADER_BYTES + FOOTER_BYTES) as u64 {
            return Err(damaged(path, "it is too short"));
        }
        let mut header = [0; SEGMENT_HEADER_BYTES];
        file.read_exact(&mut header).map_err(|error| with_path(error, path))?;
        if header != header_bytes(name.class) {
            return Err(damaged(path, "its header is wrong"));
        }
        let mut bytes = [0; FOOTER_BYTES];
        file.seek(SeekFrom::End(-(FOOTER_BYTES as i64))).map_err(|error| with_path(error, path))?;
        file.read_exact(&mut bytes).map_err(|error| with_path(error, path))?;
        let footer = Footer::from_bytes(&bytes).ok_or_else(|| damaged(path, "its footer is wrong"))?;
        if footer.first_index != name.first_index {
            return Err(damaged(path, "its first index is not the one in its name"));
        }
        Ok(Self {
            path: path.to_owned(),
            name,
            last: footer.last,
            last_wall_time: footer.last_wall_time,
            size_bytes,
            sha256: footer.sha256,
        })
    }

    /// Reads everything and compares it with what a snapshot says.
    pub(super) fn open_verified(path: &Path, name: SegmentName, info: &SegmentInfo) -> io::Result<Self> {
        let sealed = Self::open(path, name)?;
        if sealed.info() != *info {
            return Err(damaged(path, "it is not the segment that the snapshot lists"));
        }
        let file = File::open(path).map_err(|error| with_path(error, path))?;
        let mut body = file.take(sealed.body_end());
        let mut hasher = Sha256::new();
        io::copy(&mut body, &mut hasher).map_err(|error| with_path(error, path))?;
        if hasher.finalize()[..] != sealed.sha256 {
            return Err(damaged(path, "its SHA-256 is wrong"));
        }
        Ok(sealed)
    }

    /// Moves the file to its place.
    pub(super) fn rename(self, to: PathBuf) -> io::Result<Self> {
        fs::rename(&self.path, &to).map_err(|error| with_path(error, &self.path))?;
        Ok(Self { path: to, ..self })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Where the events end and the footer begins.
    pub(super) fn body_end(&self) -> u64 {
        self.size_bytes - FOOTER_BYTES as u64
    }

    pub(super) fn info(&self) -> SegmentInfo {
        SegmentInfo {
            name: format!("{}.seg", self.name),
            first_index: self.name.first_index,
            last_index: self.last.index,
            size_bytes: self.size_bytes,
            sha256: self.sha256,
        }
    }

    /// Whether all events of `other` are in here as well.
    pub(super) fn contains(&self, other: &Sealed) -> bool {
        self.name.first_index <= other.name.first_index && self.last >= other.last
    }
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Open {
    path: PathBuf,
    name: SegmentName,
    file: File,
    pub(super) size_bytes: u64,
    pub(super) extent: Extent,
    hasher: Sha256,
    synced_bytes: u64,
}

/// What an `.open` file turned out to be.
pub(super) enum Recovered {
    /// A segment to go on with.
    Open(Box<Open>),
    /// Sealed but for its name, which it has now.
    Sealed(Sealed),
    /// Nothing: the crash came before the first event was whole.
    Nothing,
}

impl Open {
    /// A new file. The first events must follow at once.
    pub(super) fn create(dir: &Path, class: EventClass, extent: Extent, frames: &[u8]) -> io::Result<Self> {
        let name = SegmentName { class, first_index: extent.first.index };
        let path = dir.join(format!("{name}.open"));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| with_path(error, &path))?;
        let mut bytes = header_bytes(class).to_vec();
        bytes.extend_from_slice(frames);
        file.write_all(&bytes).map_err(|error| with_path(error, &path))?;
        fsync_dir(dir)?;
        let hasher = Sha256::new().chain_update(&bytes);
        Ok(Self { path, name, file, size_bytes: bytes.len() as u64, extent, hasher, synced_bytes: 0 })
    }

    /// Appends events that follow those already there.
    pub(super) fn append(&mut self, extent: Extent, frames: &[u8]) -> io::Result<()> {
        self.file.write_all(frames).map_err(|error| with_path(error, &self.path))?;
        self.hasher.update(frames);
        self.size_bytes += frames.len() as u64;
        self.extent.last = extent.last;
        self.extent.events += extent.events;
        self.extent.last_wall_time = extent.last_wall_time;
        Ok(())
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.synced_bytes < self.size_bytes {
            self.file.sync_data().map_err(|error| with_path(error, &self.path))?;
            self.synced_bytes = self.size_bytes;
        }
        Ok(())
    }

    /// Writes the footer, syncs, and gives the file its final name.
    pub(super) fn seal(mut self, dir: &Path) -> io::Result<Sealed> {
        let footer = Footer {
            first_index: self.name.first_index,
            last: self.extent.last,
            events: self.extent.events,
            last_wall_time: self.extent.last_wall_time,
            sha256: self.hasher.clone().finalize().into(),
        };
        self.file.write_all(&footer.to_bytes()).map_err(|error| with_path(error, &self.path))?;
        self.file.sync_all().map_err(|error| with_path(error, &self.path))?;
        finish_seal(dir, &self.path, self.name)
    }

    pub(super) fn view(&self) -> (PathBuf, PathBuf) {
        (self.path.clone(), self.path.with_extension("seg"))
    }

    pub(super) fn first_index(&self) -> LogIndex {
        self.name.first_index
    }

    /// Reads an `.open` file again after a restart, and cuts it at the first
    /// event that is not whole.
    pub(super) fn recover(dir: &Path, path: &Path, name: SegmentName) -> io::Result<Recovered> {
        let mut file =
            OpenOptions::new().read(true).write(true).open(path).map_err(|error| with_path(error, path))?;
        let length = file.metadata().map_err(|error| with_path(error, path))?.len();
        let mut reader = EventReader::start(file.try_clone()?, path.to_owned(), length)?;
        let mut hasher = Sha256::new().chain_update(header_bytes(name.class));
        let mut extent: Option<Extent> = None;
        let mut end = SEGMENT_HEADER_BYTES as u64;
        if reader.header == header_bytes(name.class) {
            while let Some((place, wall_time)) = reader.next_whole()? {
                hasher.update(&reader.frame_bytes);
                end = reader.offset;
                let first = extent.map_or(place, |extent| extent.first);
                let events = extent.map_or(0, |extent| extent.events) + 1;
                extent = Some(Extent { first, last: place, events, last_wall_time: wall_time });
            }
        }
        let Some(extent) = extent else {
            tracing::warn!(path = %path.display(), bytes = length, "history segment held no whole event: removed");
            fs::remove_file(path).map_err(|error| with_path(error, path))?;
            fsync_dir(dir)?;
            return Ok(Recovered::Nothing);
        };
        if extent.first.index != name.first_index {
            return Err(damaged(path, "its first index is not the one in its name"));
        }
        if length == end + FOOTER_BYTES as u64 && footer_at_end(&mut file).map_err(|e| with_path(e, path))? {
            file.sync_all().map_err(|error| with_path(error, path))?;
            return Ok(Recovered::Sealed(finish_seal(dir, path, name)?));
        }
        if end < length {
            tracing::warn!(
                path = %path.display(), bytes = length - end, last_index = extent.last.index.get(),
                "history segment had a torn tail: cut, to be applied again"
            );
            file.set_len(end).map_err(|error| with_path(error, path))?;
        }
        file.sync_all().map_err(|error| with_path(error, path))?;
        file.seek(SeekFrom::Start(end)).map_err(|error| with_path(error, path))?;
        Ok(Recovered::Open(Box::new(Self {
            path: path.to_owned(),
            name,
            file,
            size_bytes: end,
            extent,
            hasher,
            synced_bytes: end,
        })))
    }
}

fn footer_at_end(file: &mut File) -> io::Result<bool> {
    let mut bytes = [0; FOOTER_BYTES];
    file.seek(SeekFrom::End(-(FOOTER_BYTES as i64)))?;
    file.read_exact(&mut bytes)?;
    Ok(Footer::from_bytes(&bytes).is_some())
}

fn finish_seal(dir: &Path, path: &Path, name: SegmentName) -> io::Result<Sealed> {
    let sealed_path = dir.join(format!("{name}.seg"));
    fs::rename(path, &sealed_path).map_err(|error| with_path(error, path))?;
    fsync_dir(dir)?;
    Sealed::open(&sealed_path, name)
}

/// Reads events one after the other.
pub(super) struct EventReader {
    path: PathBuf,
    reader: BufReader<io::Take<File>>,
    header: [u8; SEGMENT_HEADER_BYTES],
    /// After the last frame that was read.
    offset: u64,
    end: u64,
    /// The last frame that was read.
    pub(super) frame_bytes: Vec<u8>,
}

impl EventReader {
    /// Begins; reads up to `end`, which is where the events end.
    pub(super) fn start(file: File, path: PathBuf, end: u64) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(64 << 10, file.take(end));
        let mut header = [0; SEGMENT_HEADER_BYTES];
        if end >= SEGMENT_HEADER_BYTES as u64 {
            reader.read_exact(&mut header).map_err(|error| with_path(error, &path))?;
        }
        Ok(Self { path, reader, header, offset: SEGMENT_HEADER_BYTES as u64, end, frame_bytes: Vec::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next event's frame in `frame_bytes`, checked; `None` at the end.
    ///
    /// # Errors
    /// `InvalidData` names the file if the frame is damaged.
    pub(super) fn next(&mut self) -> io::Result<Option<Place>> {
        if self.offset >= self.end {
            return Ok(None);
        }
        match self.read_frame()? {
            Ok((place, _)) => Ok(Some(place)),
            Err(error) => Err(damaged(&self.path, &format!("at byte {}: {error}", self.offset))),
        }
    }

    /// As [`EventReader::next`], but a damaged frame is the end.
    fn next_whole(&mut self) -> io::Result<Option<(Place, WallTime)>> {
        if self.offset >= self.end {
            return Ok(None);
        }
        match self.read_frame()? {
            Ok(found) => Ok(Some(found)),
            // Not torn, but newer: cutting would destroy what another binary wrote.
            Err(error @ EnvelopeError::Version(newer)) if newer > 1 => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("history segment {}: {error}", self.path.display()),
            )),
            Err(_) => Ok(None),
        }
    }

    fn read_frame(&mut self) -> io::Result<Result<(Place, WallTime), EnvelopeError>> {
        let left = (self.end - self.offset) as usize;
        self.frame_bytes.resize(HEADER_BYTES, 0);
        if left < HEADER_BYTES {
            return Ok(Err(EnvelopeError::CutOff { needed: HEADER_BYTES, found: left }));
        }
        self.reader.read_exact(&mut self.frame_bytes).map_err(|error| with_path(error, &self.path))?;
        let header = match self.frame_bytes.first_chunk().map(Header::read) {
            Some(Ok(header)) => header,
            Some(Err(error)) => return Ok(Err(error)),
            None => return Ok(Err(EnvelopeError::CutOff { needed: HEADER_BYTES, found: 0 })),
        };
        let frame_bytes = HEADER_BYTES + header.payload_bytes;
        if left < frame_bytes {
            return Ok(Err(EnvelopeError::CutOff { needed: frame_bytes, found: left }));
        }
        self.frame_bytes.resize(frame_bytes, 0);
        self.reader
            .read_exact(&mut self.frame_bytes[HEADER_BYTES..])
            .map_err(|error| with_path(error, &self.path))?;
        let frame = match Frame::read_exact(&self.frame_bytes) {
            Ok(frame) => frame,
            Err(error) => return Ok(Err(error)),
        };
        let short = EnvelopeError::CutOff { needed: 28, found: frame.payload.len() };
        let Some(place) = Place::of(&frame) else { return Ok(Err(short)) };
        let Some(wall_time) = frame.payload.get(20..).and_then(|rest| rest.first_chunk()) else {
            return Ok(Err(short));
        };
        self.offset += frame_bytes as u64;
        Ok(Ok((place, WallTime::from_unix_micros(u64::from_be_bytes(*wall_time)))))
    }
}

pub(super) fn fsync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| with_path(error, dir))
}

pub(super) fn with_path(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

pub(super) fn damaged(path: &Path, reason: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("history segment {} is damaged: {reason}; fetch it from another node", path.display()),
    )
}
