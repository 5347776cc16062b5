//! Reading the history without holding it: segments do not change under a
//! reader, and an open one is read only as far as it was written when the view
//! was taken.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::HistoryRecord;
use super::segment::{EventReader, Place, damaged, with_path};
use crate::envelope::{EventEnvelope, Frame};
use crate::state::LogIndex;

/// A page ends early once it holds about so many encoded bytes.
const PAGE_BYTES: usize = 8 << 20;

/// What could be read when it was taken.
#[derive(Debug, Clone)]
pub struct HistoryView {
    lanes: Vec<LaneView>,
}

/// Of one class, in order of first index.
#[derive(Debug, Clone)]
pub(super) struct LaneView {
    pub(super) segments: Vec<SegmentView>,
}

#[derive(Debug, Clone)]
pub(super) struct SegmentView {
    pub(super) path: PathBuf,
    /// Where an open segment's file is after it was sealed.
    pub(super) path_once_sealed: Option<PathBuf>,
    pub(super) last: Place,
    /// Where its events end.
    pub(super) end: u64,
}

impl SegmentView {
    fn open(&self) -> io::Result<EventReader> {
        let (file, path) = match (File::open(&self.path), &self.path_once_sealed) {
            (Err(error), Some(sealed)) if error.kind() == io::ErrorKind::NotFound => {
                (File::open(sealed).map_err(|error| with_path(error, sealed))?, sealed)
            }
            (file, _) => (file.map_err(|error| with_path(error, &self.path))?, &self.path),
        };
        EventReader::start(file, path.clone(), self.end)
    }
}

impl HistoryView {
    pub(super) fn new(lanes: Vec<LaneView>) -> Self {
        Self { lanes }
    }

    /// Events from `from` on, in order, all classes. The page ends with the
    /// entry that reaches `limit` events or about 8 MiB, so the next begins
    /// one index after its last.
    ///
    /// # Errors
    /// `InvalidData` names a damaged file; `NotFound` one that retention has
    /// removed since the view was taken.
    pub fn read(&self, from: LogIndex, limit: usize) -> io::Result<Vec<HistoryRecord>> {
        let mut cursors = Vec::with_capacity(self.lanes.len());
        for lane in &self.lanes {
            cursors.push(LaneCursor::start(lane, from)?);
        }
        let mut page: Vec<HistoryRecord> = Vec::new();
        let mut page_bytes = 0;
        loop {
            let soonest = cursors
                .iter_mut()
                .filter_map(|cursor| cursor.place.map(|place| (place, cursor)))
                .min_by_key(|(place, _)| *place);
            let Some((place, cursor)) = soonest else { break };
            let full = page.len() >= limit || page_bytes >= PAGE_BYTES;
            if full && page.last().is_none_or(|last| last.log_index < place.index) {
                break;
            }
            let (record, bytes) = cursor.take()?;
            page.push(record);
            page_bytes += bytes;
        }
        Ok(page)
    }
}

/// Walks through the segments of a class, over their overlaps.
struct LaneCursor {
    segments: VecDeque<SegmentView>,
    reader: Option<EventReader>,
    /// Of the event that [`LaneCursor::take`] gives next.
    place: Option<Place>,
}

impl LaneCursor {
    fn start(lane: &LaneView, from: LogIndex) -> io::Result<Self> {
        let segments = lane.segments.iter().filter(|segment| segment.last.index >= from).cloned().collect();
        let mut cursor = Self { segments, reader: None, place: None };
        cursor.advance(Place { index: from, position: 0 })?;
        Ok(cursor)
    }

    /// To the first event at or after `wanted`.
    fn advance(&mut self, wanted: Place) -> io::Result<()> {
        loop {
            if let Some(reader) = &mut self.reader {
                while let Some(place) = reader.next()? {
                    if place >= wanted {
                        self.place = Some(place);
                        return Ok(());
                    }
                }
            }
            self.place = None;
            self.reader = None;
            let Some(segment) = self.segments.pop_front() else { return Ok(()) };
            if segment.last >= wanted {
                self.reader = Some(segment.open()?);
            }
        }
    }

    fn take(&mut self) -> io::Result<(HistoryRecord, usize)> {
        let (Some(reader), Some(place)) = (&self.reader, self.place) else {
            return Err(io::Error::other("history reader was asked beyond its end"));
        };
        let envelope = Frame::read_exact(&reader.frame_bytes)
            .and_then(|frame| EventEnvelope::from_frame(&frame))
            .map_err(|error| damaged(reader.path(), &error.to_string()))?;
        let bytes = reader.frame_bytes.len();
        self.advance(Place { index: place.index, position: place.position + 1 })?;
        Ok((envelope.into(), bytes))
    }
}
