//! An append-only lane of records in segment files, each record with its length
//! and checksum: what was synced is read back whole, a torn end is cut off.

use std::collections::BTreeMap;
use std::io;

use super::disk::Disk;

/// Length and CRC32C before each record.
const HEAD_BYTES: usize = 8;
/// Longest record.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// Where a record is: its segment and the byte at which it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// Segments are numbered from 1.
    pub segment: u64,
    /// Within it.
    pub byte: u64,
}

/// A lane cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The disk says no.
    #[error("feedback store: {0}")]
    Io(#[from] io::Error),
    /// What was once whole is not any more.
    #[error(
        "feedback store: segment {name} is damaged at byte {byte}; restore it from a backup, or remove the \
         folder `feedback`: rewards of decisions made until now are then too late"
    )]
    Damaged {
        /// Which file.
        name: String,
        /// Where its first bad record begins.
        byte: usize,
    },
}

/// One lane. Its files are `NAME/0000000000000001` and so on.
#[derive(Debug)]
pub struct Segments {
    name: String,
    segment_bytes_max: u64,
    /// Number and length; the last is appended to.
    segments: BTreeMap<u64, u64>,
    /// Not given to the disk yet.
    buffer: Vec<u8>,
    /// Given to the disk, or not even that.
    has_unsynced: bool,
}

impl Segments {
    /// Finds what there is, and cuts the torn end off.
    pub fn open(disk: &mut impl Disk, name: &str, segment_bytes_max: u64) -> Result<Self, LaneError> {
        let mut lane = Self {
            name: name.to_owned(),
            segment_bytes_max,
            segments: BTreeMap::new(),
            buffer: Vec::new(),
            has_unsynced: false,
        };
        let prefix = format!("{name}/");
        for file in disk.list()? {
            if let Some(number) = file.strip_prefix(&prefix).and_then(|number| number.parse().ok()) {
                lane.segments.insert(number, disk.bytes(&file)?);
            }
        }
        if let Some((&last, &bytes)) = lane.segments.last_key_value() {
            let file = lane.file(last);
            let whole = whole_bytes(&disk.read(&file)?) as u64;
            if whole < bytes {
                tracing::warn!(file, bytes, whole, "the end of a segment is torn and cut off");
                disk.truncate(&file, whole)?;
                lane.segments.insert(last, whole);
            }
        } else {
            lane.segments.insert(1, 0);
        }
        Ok(lane)
    }

    /// Nothing was ever appended.
    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// Of all its segments.
    pub fn bytes(&self) -> u64 {
        self.segments.values().sum::<u64>() + self.buffer.len() as u64
    }

    /// The segment that is appended to.
    pub fn last_segment(&self) -> u64 {
        self.segments.last_key_value().map_or(1, |(number, _)| *number)
    }

    /// The first that is kept.
    pub fn first_segment(&self) -> u64 {
        self.segments.first_key_value().map_or(1, |(number, _)| *number)
    }

    /// Where the next record will be.
    pub fn end(&self) -> Position {
        let segment = self.last_segment();
        let written = self.segments.get(&segment).copied().unwrap_or_default();
        Position { segment, byte: written + self.buffer.len() as u64 }
    }

    /// Appends one record, in memory.
    pub fn append(&mut self, record: &[u8]) {
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(&crc32c::crc32c(record).to_le_bytes());
        self.buffer.extend_from_slice(record);
        self.has_unsynced = true;
    }

    /// Something was appended since the last sync.
    pub fn has_unsynced(&self) -> bool {
        self.has_unsynced
    }

    /// Gives what was appended to the disk, so that it can be read back.
    pub fn flush(&mut self, disk: &mut impl Disk) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let segment = self.last_segment();
        disk.append(&self.file(segment), &self.buffer)?;
        *self.segments.entry(segment).or_default() += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// What was appended is durable. True: the segment is full.
    pub fn sync(&mut self, disk: &mut impl Disk) -> io::Result<bool> {
        self.flush(disk)?;
        let (segment, bytes) = (self.last_segment(), self.end().byte);
        disk.sync(&self.file(segment))?;
        self.has_unsynced = false;
        Ok(bytes >= self.segment_bytes_max)
    }

    /// From now on another segment is appended to. Only after a sync.
    pub fn begin_segment(&mut self) {
        self.segments.insert(self.last_segment() + 1, 0);
    }

    /// Removes whole segments before this one; never the last.
    pub fn remove_before(&mut self, disk: &mut impl Disk, segment: u64) -> io::Result<()> {
        let last = self.last_segment();
        while let Some((&first, _)) = self.segments.first_key_value().filter(|(n, _)| **n < segment.min(last))
        {
            disk.remove(&self.file(first))?;
            self.segments.remove(&first);
        }
        Ok(())
    }

    /// Removes the oldest segments before this one until no more than so many
    /// bytes are left.
    pub fn keep_within(&mut self, disk: &mut impl Disk, bytes_max: u64, before: u64) -> io::Result<()> {
        let mut left = self.bytes();
        let mut first_kept = self.first_segment();
        for (&number, &bytes) in self.segments.range(..before) {
            if left <= bytes_max {
                break;
            }
            left -= bytes;
            first_kept = number + 1;
        }
        self.remove_before(disk, first_kept)
    }

    /// Gives each record from a position on, up to the end of segment `through`,
    /// with where the next begins, until `look` says false. What was appended
    /// must have been flushed.
    pub fn scan(
        &self,
        disk: &impl Disk,
        from: Position,
        through: u64,
        mut look: impl FnMut(&[u8], Position) -> bool,
    ) -> Result<(), LaneError> {
        let last = self.last_segment();
        if from.segment > through {
            return Ok(());
        }
        for (&number, &bytes) in self.segments.range(from.segment..=through) {
            if bytes == 0 {
                continue;
            }
            let file = self.file(number);
            let content = disk.read(&file)?;
            let mut at = if number == from.segment { from.byte as usize } else { 0 };
            while let Some(record) = record_at(&content, at) {
                at += HEAD_BYTES + record.len();
                let next = Position { segment: number, byte: at as u64 };
                if !look(record, next) {
                    return Ok(());
                }
            }
            if at < content.len() && number != last {
                return Err(LaneError::Damaged { name: file, byte: at });
            }
        }
        Ok(())
    }

    fn file(&self, number: u64) -> String {
        format!("{}/{number:016}", self.name)
    }
}

/// What a record takes in a segment.
pub fn record_bytes(record: &[u8]) -> u64 {
    (HEAD_BYTES + record.len()) as u64
}

/// `None`: there is no whole record.
fn record_at(content: &[u8], at: usize) -> Option<&[u8]> {
    let (length, rest) = content.get(at..)?.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let record = rest.get(..u32::from_le_bytes(*length) as usize)?;
    let is_whole = record.len() <= RECORD_BYTES_MAX && crc32c::crc32c(record) == u32::from_le_bytes(*crc);
    // An empty record would make a hole of zeroes look like records.
    (is_whole && !record.is_empty()).then_some(record)
}

fn whole_bytes(content: &[u8]) -> usize {
    let mut at = 0;
    while let Some(record) = record_at(content, at) {
        at += HEAD_BYTES + record.len();
    }
    at
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::memory_disk::MemoryDisk;
    use super::*;

    fn read(lane: &Segments, disk: &MemoryDisk) -> Vec<String> {
        let mut records = Vec::new();
        let look = |record: &[u8], _| {
            records.push(String::from_utf8(record.to_vec()).unwrap());
            true
        };
        lane.scan(disk, Position::default(), u64::MAX, look).unwrap();
        records
    }

    #[test]
    fn what_was_synced_is_read_back_and_what_was_torn_is_not() {
        let mut disk = MemoryDisk::default();
        let mut lane = Segments::open(&mut disk, "lane", 1 << 20).unwrap();
        lane.append(b"one");
        lane.append(b"two");
        assert!(!lane.sync(&mut disk).unwrap());
        lane.append(b"three");
        lane.flush(&mut disk).unwrap();
        assert_eq!(read(&lane, &disk), ["one", "two", "three"]);

        for (kept, expected) in [(0, 2), (128, 2), (254, 2), (255, 3)] {
            let mut after = disk.after_crash(kept);
            let mut lane = Segments::open(&mut after, "lane", 1 << 20).unwrap();
            assert_eq!(read(&lane, &after).len(), expected, "{kept}");
            lane.append(b"four");
            lane.sync(&mut after).unwrap();
            assert_eq!(read(&lane, &after).last().unwrap(), "four");
        }
    }

    #[test]
    fn full_segments_are_left_behind_and_removed_from_the_front() {
        let mut disk = MemoryDisk::default();
        let mut lane = Segments::open(&mut disk, "lane", 20).unwrap();
        for record in [b"first", b"other"] {
            lane.append(record);
            if lane.sync(&mut disk).unwrap() {
                lane.begin_segment();
            }
        }
        lane.append(b"third");
        lane.sync(&mut disk).unwrap();
        assert_eq!(lane.last_segment(), 2);
        assert_eq!(read(&lane, &disk), ["first", "other", "third"]);
        lane.remove_before(&mut disk, 9).unwrap();
        assert_eq!(read(&lane, &disk), ["third"]);
        let reopened = Segments::open(&mut disk, "lane", 20).unwrap();
        assert_eq!((reopened.first_segment(), reopened.last_segment()), (2, 2));
    }

    #[test]
    fn damage_in_a_sealed_segment_is_named() {
        let mut disk = MemoryDisk::default();
        let mut lane = Segments::open(&mut disk, "lane", 1).unwrap();
        lane.append(b"first");
        lane.sync(&mut disk).unwrap();
        lane.begin_segment();
        lane.append(b"second");
        lane.sync(&mut disk).unwrap();
        let mut bytes = disk.read("lane/0000000000000001").unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        disk.replace("lane/0000000000000001", &bytes).unwrap();
        let damaged = lane.scan(&disk, Position::default(), u64::MAX, |_, _| true).unwrap_err();
        assert!(damaged.to_string().contains("lane/0000000000000001 is damaged at byte 0"), "{damaged}");
    }
}
