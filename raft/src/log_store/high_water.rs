//! The small record beside the log that says how far its promises reach.
//!
//! sled cuts a torn tail silently: after a power cut the log may be shorter
//! than what this node acknowledged, and nothing in the log itself shows it.
//! The high-water record is written and synced after the log's own sync and
//! before the acknowledgement, so a log that is behind it has lost a promise.
//! It is lowered before a truncation, so that an ordinary crash never looks like loss.

use super::entry_format::{
    FormatError, LogIdOfStarling, Reader, VoteOfStarling, put_log_id, put_vote, seal, unseal,
};

/// Two slots take turns, so that a torn write leaves the one before.
pub(super) const SLOTS: usize = 2;
/// Bytes kept for a slot: far apart, so that no sector holds both.
pub(super) const SLOT_BYTES: usize = 4096;

/// What this node has promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct HighWater {
    /// Counts the writes of this record.
    pub(super) generation: u64,
    /// The last vote that was acknowledged.
    pub(super) vote: Option<VoteOfStarling>,
    /// The last entry that was acknowledged and not truncated since.
    pub(super) last_log_id: Option<LogIdOfStarling>,
    /// The cluster this log belongs to.
    pub(super) marker: Option<[u8; 16]>,
}

impl HighWater {
    /// Nothing was ever promised.
    pub(super) fn is_blank(&self) -> bool {
        self.vote.is_none() && self.last_log_id.is_none() && self.marker.is_none()
    }

    /// The slot this generation is written to.
    pub(super) fn slot(&self) -> usize {
        (self.generation % SLOTS as u64) as usize
    }

    /// Stored form, shorter than a sector.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(64);
        body.extend_from_slice(&self.generation.to_be_bytes());
        put_optional(&mut body, self.vote.as_ref(), put_vote);
        put_optional(&mut body, self.last_log_id.as_ref(), put_log_id);
        put_optional(&mut body, self.marker.as_ref(), |out, marker| out.extend_from_slice(marker));
        let mut stored = vec![body.len() as u8];
        stored.extend_from_slice(&seal(&body));
        stored
    }

    fn decode(slot: &[u8]) -> Result<Self, FormatError> {
        const WHAT: &str = "a slot of the high-water file";
        let mut reader = Reader::new(WHAT, slot);
        let body_bytes = usize::from(reader.u8()?);
        let sealed = slot.get(1..1 + 5 + body_bytes).ok_or(FormatError::TooShort { what: WHAT })?;
        let mut reader = Reader::new(WHAT, unseal(WHAT, sealed)?);
        let high_water = Self {
            generation: reader.u64()?,
            vote: if reader.u8()? == 1 { Some(reader.vote()?) } else { None },
            last_log_id: if reader.u8()? == 1 { Some(reader.log_id()?) } else { None },
            marker: if reader.u8()? == 1 { Some(reader.array()?) } else { None },
        };
        reader.end()?;
        Ok(high_water)
    }

    /// The newest record among the slots; `None` if no slot can be read.
    pub(super) fn newest(slots: &[Vec<u8>]) -> Option<Self> {
        slots.iter().filter_map(|slot| Self::decode(slot).ok()).max_by_key(|record| record.generation)
    }
}

fn put_optional<T>(out: &mut Vec<u8>, value: Option<&T>, put: impl Fn(&mut Vec<u8>, &T)) {
    let Some(value) = value else {
        out.push(0);
        return;
    };
    out.push(1);
    put(out, value);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use openraft::impls::leader_id_adv::LeaderId;
    use openraft::{LogId, Vote};

    use super::*;

    fn record(generation: u64) -> HighWater {
        HighWater {
            generation,
            vote: Some(Vote::new_committed(7, 2)),
            last_log_id: Some(LogId::new(LeaderId { term: 6, node_id: 1 }, 900)),
            marker: Some([0xAB; 16]),
        }
    }

    #[test]
    fn the_stored_record_has_these_bytes_for_ever() {
        assert_eq!(
            hex::encode(record(3).encode()),
            "44\
             013e63bfe3\
             0000000000000003\
             01000000000000000700000000000000020101\
             000000000000000600000000000000010000000000000384\
             01abababababababababababababababab"
        );
    }

    #[test]
    fn the_newest_readable_slot_wins() {
        let slots = vec![record(4).encode(), record(3).encode()];
        assert_eq!(HighWater::newest(&slots), Some(record(4)));
    }

    #[test]
    fn a_torn_slot_leaves_the_one_before() {
        let newest = record(4).encode();
        for kept_bytes in 0..newest.len() {
            let mut torn = newest[..kept_bytes].to_vec();
            torn.resize(SLOT_BYTES, 0);
            let slots = vec![torn, record(3).encode()];
            assert_eq!(HighWater::newest(&slots), Some(record(3)), "{kept_bytes} bytes kept");
        }
    }

    #[test]
    fn empty_slots_are_no_record() {
        assert_eq!(HighWater::newest(&[vec![], vec![0; SLOT_BYTES]]), None);
    }

    #[test]
    fn generations_take_turns_in_the_slots() {
        assert_eq!((record(4).slot(), record(5).slot(), record(6).slot()), (0, 1, 0));
    }
}
