//! What stands in the files: protobuf messages, so that fields can be added.
//! Tags are fixed for ever; 0 stands for absent where a number is one more than
//! what it means.

use starling_raft::state::bucket::Bucket;
use starling_raft::state::decision::Decision;
use starling_raft::state::{Epoch, LogIndex, NodeId, Ordinal};

use super::deltas::{Cell, Delta, Sums};
use super::item::{Feedback, Said, Verdict};

/// One record of the journal.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Entry {
    #[prost(oneof = "Content", tags = "1, 2, 3")]
    pub(super) content: Option<Content>,
}

/// Of one record.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Content {
    /// A piece of feedback that was taken.
    #[prost(message, tag = "1")]
    Kept(Kept),
    /// All credits since the mark before are the delta of this number.
    #[prost(uint64, tag = "2")]
    Sealed(u64),
    /// The log has confirmed all deltas up to this number.
    #[prost(uint64, tag = "3")]
    Committed(u64),
}

/// Feedback as it was taken.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Kept {
    #[prost(uint64, tag = "1")]
    pub(super) node: u64,
    #[prost(uint32, tag = "2")]
    pub(super) boot: u32,
    #[prost(uint64, tag = "3")]
    pub(super) sequence: u64,
    #[prost(uint64, tag = "4")]
    pub(super) model_id: u64,
    #[prost(uint64, tag = "5")]
    pub(super) epoch: u64,
    #[prost(uint32, tag = "6")]
    pub(super) rule_after: u32,
    #[prost(uint32, tag = "7")]
    pub(super) enrolment_after: u32,
    #[prost(uint32, tag = "8")]
    pub(super) arm_after: u32,
    #[prost(double, optional, tag = "9")]
    pub(super) number: Option<f64>,
    #[prost(bool, optional, tag = "10")]
    pub(super) flag: Option<bool>,
    #[prost(string, optional, tag = "11")]
    pub(super) label: Option<String>,
    #[prost(string, optional, tag = "12")]
    pub(super) unit: Option<String>,
    #[prost(bool, tag = "13")]
    pub(super) retract: bool,
    #[prost(uint64, optional, tag = "14")]
    pub(super) observed_unix_micros: Option<u64>,
    #[prost(uint64, tag = "15")]
    pub(super) taken_unix_micros: u64,
    /// By its place in [`Verdict::ALL`], from 1.
    #[prost(uint32, tag = "16")]
    pub(super) verdict: u32,
    #[prost(message, optional, tag = "17")]
    pub(super) credit: Option<Credited>,
}

/// What was credited, or taken back.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Credited {
    #[prost(string, tag = "1")]
    pub(super) rollout: String,
    #[prost(uint64, tag = "2")]
    pub(super) started_at: u64,
    #[prost(uint64, tag = "3")]
    pub(super) arm: u64,
    #[prost(uint64, tag = "4")]
    pub(super) epoch: u64,
    #[prost(uint32, tag = "5")]
    pub(super) cluster: u32,
    #[prost(uint32, tag = "6")]
    pub(super) slice: u32,
    /// Units of 2⁻²⁴.
    #[prost(sint64, tag = "7")]
    pub(super) units: i64,
}

/// Everything that earlier segments of the journal come to.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Checkpoint {
    /// The first segment that is not in it.
    #[prost(uint64, tag = "1")]
    pub(super) from_segment: u64,
    #[prost(uint64, tag = "2")]
    pub(super) next_delta: u64,
    /// Not known to be committed, in order; the last is still open.
    #[prost(message, repeated, tag = "3")]
    pub(super) deltas: Vec<StoredDelta>,
    #[prost(message, repeated, tag = "4")]
    pub(super) spans: Vec<StoredSpan>,
}

/// The first and last decision whose reward stands in a segment.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredSpan {
    #[prost(uint64, tag = "1")]
    pub(super) segment: u64,
    #[prost(uint32, tag = "2")]
    pub(super) first_boot: u32,
    #[prost(uint64, tag = "3")]
    pub(super) first_sequence: u64,
    #[prost(uint32, tag = "4")]
    pub(super) last_boot: u32,
    #[prost(uint64, tag = "5")]
    pub(super) last_sequence: u64,
}

/// One delta.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredDelta {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    #[prost(message, repeated, tag = "2")]
    pub(super) cells: Vec<StoredCell>,
}

/// One cell of a delta; sums in little-endian order.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredCell {
    #[prost(message, optional, tag = "1")]
    pub(super) cell: Option<Credited>,
    #[prost(sint64, tag = "2")]
    pub(super) count: i64,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) sum: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) squares: Vec<u8>,
}

/// What each life of this node had decided by when.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredBoots {
    /// Rewards of earlier lives are not known.
    #[prost(uint32, tag = "1")]
    pub(super) first: u32,
    #[prost(message, repeated, tag = "2")]
    pub(super) lives: Vec<StoredLife>,
}

/// One life.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredLife {
    #[prost(uint32, tag = "1")]
    pub(super) boot: u32,
    /// Decisions until the last mark.
    #[prost(uint64, tag = "2")]
    pub(super) decided: u64,
    /// It ended in order, and decided no more.
    #[prost(bool, tag = "3")]
    pub(super) has_ended: bool,
    /// Log time in microseconds.
    #[prost(uint64, repeated, tag = "4")]
    pub(super) mark_times: Vec<u64>,
    #[prost(uint64, repeated, tag = "5")]
    pub(super) mark_sequences: Vec<u64>,
    /// Log time of its first mark, in microseconds.
    #[prost(uint64, optional, tag = "6")]
    pub(super) began: Option<u64>,
}

impl Kept {
    pub(super) fn new(feedback: &Feedback, verdict: Verdict, taken_unix_micros: u64) -> Self {
        let Feedback { decision, said, unit, retract, observed_unix_micros } = feedback;
        let place = Verdict::ALL.iter().position(|other| *other == verdict);
        Self {
            node: decision.node.get(),
            boot: decision.boot,
            sequence: decision.sequence,
            model_id: decision.model_id,
            epoch: decision.epoch.get(),
            rule_after: decision.rule.map_or(0, |rule| u32::from(rule) + 1),
            enrolment_after: decision.enrolment.map_or(0, |bucket| bucket.get() + 1),
            arm_after: decision.arm.map_or(0, |bucket| bucket.get() + 1),
            number: match said {
                Said::Number(number) => Some(*number),
                _ => None,
            },
            flag: match said {
                Said::Flag(flag) => Some(*flag),
                _ => None,
            },
            label: match said {
                Said::Label(label) => Some(label.clone()),
                _ => None,
            },
            unit: unit.clone(),
            retract: *retract,
            observed_unix_micros: *observed_unix_micros,
            taken_unix_micros,
            verdict: place.map_or(0, |place| place as u32 + 1),
            credit: None,
        }
    }

    /// What was sent, to be sent on.
    pub(super) fn feedback(self) -> Feedback {
        let bucket = |after: u32| after.checked_sub(1).and_then(Bucket::new);
        let said = match (self.number, self.flag, self.label) {
            (Some(number), _, _) => Said::Number(number),
            (None, Some(flag), _) => Said::Flag(flag),
            (None, None, Some(label)) => Said::Label(label),
            (None, None, None) => Said::Nothing,
        };
        Feedback {
            decision: Decision {
                node: NodeId::new(self.node),
                boot: self.boot,
                sequence: self.sequence,
                model_id: self.model_id,
                epoch: Epoch::new(self.epoch),
                rule: self.rule_after.checked_sub(1).and_then(|rule| rule.try_into().ok()),
                enrolment: bucket(self.enrolment_after),
                arm: bucket(self.arm_after),
            },
            said,
            unit: self.unit,
            retract: self.retract,
            observed_unix_micros: self.observed_unix_micros,
        }
    }
}

impl Credited {
    pub(super) fn new(cell: &Cell, units: i64) -> Self {
        Self {
            rollout: cell.rollout.to_string(),
            started_at: cell.started_at.get(),
            arm: cell.arm.get(),
            epoch: cell.epoch.get(),
            cluster: u32::from(cell.cluster),
            slice: cell.slice,
            units,
        }
    }

    pub(super) fn cell(&self) -> Cell {
        Cell {
            rollout: self.rollout.as_str().into(),
            started_at: LogIndex::new(self.started_at),
            arm: Ordinal::new(self.arm),
            epoch: Epoch::new(self.epoch),
            cluster: (self.cluster & 0xff) as u8,
            slice: self.slice,
        }
    }
}

impl StoredDelta {
    pub(super) fn new(number: u64, delta: &Delta) -> Self {
        let cells = delta.cells().map(|(cell, sums)| StoredCell {
            cell: Some(Credited::new(cell, 0)),
            count: sums.count,
            sum: sums.sum.to_le_bytes().to_vec(),
            squares: sums.sum_of_squares.to_le_bytes().to_vec(),
        });
        Self { number, cells: cells.collect() }
    }

    /// `None`: it is not what [`StoredDelta::new`] makes.
    pub(super) fn delta(&self) -> Option<Delta> {
        let number = |bytes: &[u8]| bytes.try_into().ok().map(i128::from_le_bytes);
        let mut delta = Delta::default();
        for stored in &self.cells {
            let sums = Sums {
                count: stored.count,
                sum: number(&stored.sum)?,
                sum_of_squares: number(&stored.squares)?,
            };
            delta.insert(stored.cell.as_ref()?.cell(), sums);
        }
        Some(delta)
    }
}
