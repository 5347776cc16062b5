//! Feedback that waits for the home of its decisions: a lane of segments per
//! home, of bounded size together. What was delivered is delivered again after
//! a restart; the home counts it once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use prost::Message;
use starling_raft::state::NodeId;

use super::disk::Disk;
use super::item::{Feedback, Verdict};
use super::records::Kept;
use super::segments::{LaneError, Position, Segments, record_bytes};

const LANE: &str = "for-";
const SEGMENT_BYTES_MAX: u64 = 4 << 20;

/// There is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{bytes} bytes of feedback wait for nodes that cannot be reached, and {bytes_max} may \
     (config key `feedback_outbox_bytes_max`); send it again once they are back"
)]
pub struct Full {
    /// What waits.
    pub bytes: u64,
    /// What may.
    pub bytes_max: u64,
}

/// The first items for one home.
#[derive(Debug, Clone, PartialEq)]
pub struct Parcel {
    /// In the order in which they came.
    pub items: Vec<Feedback>,
    /// Once these are delivered, the next begin here.
    pub until: Position,
}

struct Lane {
    segments: Segments,
    delivered: Position,
}

/// All lanes.
pub struct Outbox<D> {
    disk: D,
    bytes_max: u64,
    lanes: BTreeMap<NodeId, Lane>,
}

impl<D: Disk> Outbox<D> {
    /// Finds what waits.
    pub fn open(mut disk: D, bytes_max: u64) -> Result<Self, LaneError> {
        let mut lanes = BTreeMap::new();
        for name in disk.list()? {
            let home = name.strip_prefix(LANE).and_then(|rest| rest.split_once('/')?.0.parse().ok());
            let Some(home) = home.map(NodeId::new) else { continue };
            if let Entry::Vacant(lane) = lanes.entry(home) {
                lane.insert(Lane::open(&mut disk, home)?);
            }
        }
        Ok(Self { disk, bytes_max, lanes })
    }

    /// Homes that something waits for.
    pub fn homes(&self) -> Vec<NodeId> {
        let waiting = self.lanes.iter().filter(|(_, lane)| lane.delivered < lane.segments.end());
        waiting.map(|(home, _)| *home).collect()
    }

    /// Of all lanes.
    pub fn bytes(&self) -> u64 {
        self.lanes.values().map(|lane| lane.segments.bytes()).sum()
    }

    /// Takes all of them or none; durable after [`Outbox::sync`].
    pub fn put(
        &mut self,
        home: NodeId,
        items: &[Feedback],
        unix_micros: u64,
    ) -> Result<Result<(), Full>, LaneError> {
        let records: Vec<Vec<u8>> =
            items.iter().map(|item| Kept::new(item, Verdict::Stored, unix_micros).encode_to_vec()).collect();
        let (bytes, more) = (self.bytes(), records.iter().map(|record| record_bytes(record)).sum::<u64>());
        if bytes + more > self.bytes_max {
            return Ok(Err(Full { bytes, bytes_max: self.bytes_max }));
        }
        if !self.lanes.contains_key(&home) {
            self.lanes.insert(home, Lane::open(&mut self.disk, home)?);
        }
        if let Some(lane) = self.lanes.get_mut(&home) {
            records.iter().for_each(|record| lane.segments.append(record));
        }
        Ok(Ok(()))
    }

    /// What was put is durable.
    pub fn sync(&mut self) -> Result<(), LaneError> {
        for lane in self.lanes.values_mut().filter(|lane| lane.segments.has_unsynced()) {
            if lane.segments.sync(&mut self.disk)? {
                lane.segments.begin_segment();
            }
        }
        Ok(())
    }

    /// The first items for a home, at most so many. What is put must be synced.
    pub fn first(&self, home: NodeId, items_max: usize) -> Result<Option<Parcel>, LaneError> {
        let Some(lane) = self.lanes.get(&home) else { return Ok(None) };
        let mut parcel = Parcel { items: Vec::new(), until: lane.delivered };
        lane.segments.scan(&self.disk, lane.delivered, u64::MAX, |record, next| {
            if let Ok(kept) = Kept::decode(record) {
                parcel.items.push(kept.feedback());
            }
            parcel.until = next;
            parcel.items.len() < items_max
        })?;
        Ok((parcel.until > lane.delivered).then_some(parcel))
    }

    /// The home has everything before this.
    pub fn delivered(&mut self, home: NodeId, until: Position) -> Result<(), LaneError> {
        let Some(lane) = self.lanes.get_mut(&home) else { return Ok(()) };
        lane.delivered = lane.delivered.max(until);
        if lane.delivered == lane.segments.end() && !lane.segments.has_unsynced() && until.byte > 0 {
            lane.segments.begin_segment();
            lane.delivered = lane.segments.end();
        }
        Ok(lane.segments.remove_before(&mut self.disk, lane.delivered.segment)?)
    }
}

impl Lane {
    fn open(disk: &mut impl Disk, home: NodeId) -> Result<Self, LaneError> {
        let segments = Segments::open(disk, &format!("{LANE}{home}"), SEGMENT_BYTES_MAX)?;
        let delivered = Position { segment: segments.first_segment(), byte: 0 };
        Ok(Self { segments, delivered })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::memory_disk::MemoryDisk;
    use super::super::testing::feedback;
    use super::*;

    const HOME: NodeId = NodeId::new(1_007);
    const OTHER: NodeId = NodeId::new(1_009);

    fn sequences(parcel: &Parcel) -> Vec<u64> {
        parcel.items.iter().map(|item| item.decision.sequence).collect()
    }

    #[test]
    fn items_wait_for_their_home_in_order_across_a_crash() {
        let disk = MemoryDisk::default();
        let mut outbox = Outbox::open(disk.clone(), 1 << 20).unwrap();
        outbox.put(HOME, &[feedback(1), feedback(2), feedback(3)], 9).unwrap().unwrap();
        outbox.put(OTHER, &[feedback(4)], 9).unwrap().unwrap();
        outbox.sync().unwrap();
        outbox.put(HOME, &[feedback(5)], 9).unwrap().unwrap();

        let mut outbox = Outbox::open(disk.after_crash(0), 1 << 20).unwrap();
        assert_eq!(outbox.homes(), [HOME, OTHER]);
        let parcel = outbox.first(HOME, 2).unwrap().unwrap();
        assert_eq!(sequences(&parcel), [1, 2]);
        assert_eq!(parcel.items[0], feedback(1));
        outbox.delivered(HOME, parcel.until).unwrap();
        let parcel = outbox.first(HOME, 2).unwrap().unwrap();
        assert_eq!(sequences(&parcel), [3]);
        outbox.delivered(HOME, parcel.until).unwrap();
        assert_eq!(outbox.homes(), [OTHER]);
        assert_eq!(outbox.first(HOME, 2).unwrap(), None);

        outbox.put(HOME, &[feedback(6)], 9).unwrap().unwrap();
        outbox.sync().unwrap();
        assert_eq!(sequences(&outbox.first(HOME, 2).unwrap().unwrap()), [6]);
    }

    #[test]
    fn a_full_outbox_refuses_and_has_room_again_once_it_was_delivered() {
        let mut outbox = Outbox::open(MemoryDisk::default(), 1_000).unwrap();
        let items: Vec<_> = (1..=20).map(feedback).collect();
        outbox.put(HOME, &items, 9).unwrap().unwrap();
        let full = outbox.put(OTHER, &items, 9).unwrap().unwrap_err();
        assert_eq!(full.bytes_max, 1_000);
        outbox.sync().unwrap();
        let parcel = outbox.first(HOME, 100).unwrap().unwrap();
        outbox.delivered(HOME, parcel.until).unwrap();
        assert_eq!(outbox.bytes(), 0);
        outbox.put(OTHER, &items, 9).unwrap().unwrap();
    }
}
