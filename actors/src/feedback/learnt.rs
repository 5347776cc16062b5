//! What the journal comes to: which decisions have their reward, and the sums
//! that the log has not confirmed. Folded from the same records while feedback
//! is taken and when the journal is read back.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use super::deltas::{Delta, Sign};
use super::disk::Disk;
use super::records::{Checkpoint, Content, Kept, StoredDelta, StoredSpan};
use super::rewarded::Rewarded;

/// Boot and number of a decision.
pub(super) type DecisionKey = (u32, u64);

/// A delta that is to go through the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Counts the node's deltas, from 1.
    pub number: u64,
    /// Its sums.
    pub delta: Delta,
}

/// See the head of this file.
pub(super) struct Learnt {
    pub(super) rewarded: Rewarded,
    /// Not confirmed by the log, in order of number.
    pub(super) sealed: VecDeque<Sealed>,
    pub(super) open: Delta,
    /// The number of the open delta.
    pub(super) next_delta: u64,
    /// First and last decision in each segment of the journal.
    spans: BTreeMap<u64, (DecisionKey, DecisionKey)>,
}

impl Learnt {
    /// As of a checkpoint; `None`: it is not what [`Learnt::checkpoint`] makes.
    pub(super) fn at(checkpoint: &Checkpoint, rewarded: Rewarded) -> Option<Self> {
        let (mut sealed, mut open) = (VecDeque::new(), Delta::default());
        for stored in &checkpoint.deltas {
            match stored.number < checkpoint.next_delta {
                true => sealed.push_back(Sealed { number: stored.number, delta: stored.delta()? }),
                false => open = stored.delta()?,
            }
        }
        let spans = checkpoint.spans.iter().map(|span| {
            let keys = ((span.first_boot, span.first_sequence), (span.last_boot, span.last_sequence));
            (span.segment, keys)
        });
        let next_delta = checkpoint.next_delta.max(1);
        Some(Self { rewarded, sealed, open, next_delta, spans: spans.collect() })
    }

    /// To go on from at `from_segment`.
    pub(super) fn checkpoint(&self, from_segment: u64) -> Checkpoint {
        let sealed = self.sealed.iter().map(|sealed| StoredDelta::new(sealed.number, &sealed.delta));
        let deltas = sealed.chain([StoredDelta::new(self.next_delta, &self.open)]).collect();
        let spans = self.spans.iter().map(|(segment, (first, last))| StoredSpan {
            segment: *segment,
            first_boot: first.0,
            first_sequence: first.1,
            last_boot: last.0,
            last_sequence: last.1,
        });
        Checkpoint { from_segment, next_delta: self.next_delta, deltas, spans: spans.collect() }
    }

    /// One record that stands in this segment of the journal.
    pub(super) fn fold(&mut self, disk: &impl Disk, segment: u64, content: &Content) -> io::Result<()> {
        match content {
            Content::Sealed(number) => self.seal(*number),
            Content::Committed(number) => self.confirm(*number),
            Content::Kept(kept) => self.fold_kept(disk, segment, kept)?,
        }
        Ok(())
    }

    fn fold_kept(&mut self, disk: &impl Disk, segment: u64, kept: &Kept) -> io::Result<()> {
        let key = (kept.boot, kept.sequence);
        let sign = if kept.retract { Sign::TakeBack } else { Sign::Credit };
        match sign {
            Sign::Credit => {
                self.rewarded.set_rewarded(disk, kept.boot, kept.sequence)?;
                let span = self.spans.entry(segment).or_insert((key, key));
                *span = (span.0.min(key), span.1.max(key));
            }
            Sign::TakeBack => self.rewarded.set_retracted(disk, kept.boot, kept.sequence)?,
        }
        if let Some(credited) = &kept.credit {
            self.open.add(credited.cell(), credited.units, sign);
        }
        Ok(())
    }

    fn seal(&mut self, number: u64) {
        self.sealed.push_back(Sealed { number, delta: std::mem::take(&mut self.open) });
        self.next_delta = number + 1;
    }

    fn confirm(&mut self, number: u64) {
        while self.sealed.front().is_some_and(|first| first.number <= number) {
            self.sealed.pop_front();
        }
        // Only a home that has lost its place is told of numbers that it did not give.
        self.next_delta = self.next_delta.max(number + 1);
    }

    /// Segments in which one of these decisions may be, the newest first.
    pub(super) fn segments_with(&self, keys: &[DecisionKey]) -> Vec<u64> {
        let holds =
            |(first, last): &(DecisionKey, DecisionKey)| keys.iter().any(|key| (first..=last).contains(&key));
        self.spans.iter().rev().filter(|(_, span)| holds(span)).map(|(segment, _)| *segment).collect()
    }

    /// Segments before this one are gone.
    pub(super) fn forget_segments_before(&mut self, segment: u64) {
        self.spans = self.spans.split_off(&segment);
    }
}
