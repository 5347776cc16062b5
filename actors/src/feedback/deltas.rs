//! From rewards to the sums that go through the log. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use starling_raft::state::rollouts::learning::SUMS_PER_DELTA_MAX;
use starling_raft::state::{Epoch, LogIndex, Ordinal};
use xxhash_rust::xxh3::xxh3_64;

use super::item::Feedback;

/// Cells of one delta: an entry of the log stays below a megabyte.
pub const CELLS_MAX: usize = SUMS_PER_DELTA_MAX;

/// Rewards that are summed up together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// The rollout, by name.
    pub rollout: Arc<str>,
    /// Which run of it.
    pub started_at: LogIndex,
    /// The arm.
    pub arm: Ordinal,
    /// When it was decided.
    pub epoch: Epoch,
    /// The slice of log time in which the reward was credited.
    pub slice: u32,
    /// The unit's hash; 0 where units are not told apart.
    pub cluster: u8,
}

/// Of one cell; negative where more is taken back than credited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Rewards.
    pub count: i64,
    /// In units of 2⁻²⁴.
    pub sum: i128,
    /// In units of 2⁻⁴⁸.
    pub sum_of_squares: i128,
}

/// What one node has credited since its last delta.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delta {
    cells: BTreeMap<Cell, Sums>,
}

/// Credit it, or take it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It counts.
    Credit,
    /// It was credited, and never should have been.
    TakeBack,
}

impl Delta {
    /// Adds one reward, in units of 2⁻²⁴.
    pub fn add(&mut self, cell: Cell, units: i64, sign: Sign) {
        let sums = self.cells.entry(cell).or_default();
        let units = i128::from(units);
        match sign {
            Sign::Credit => {
                sums.count += 1;
                sums.sum += units;
                sums.sum_of_squares += units * units;
            }
            Sign::TakeBack => {
                sums.count -= 1;
                sums.sum -= units;
                sums.sum_of_squares -= units * units;
            }
        }
    }

    /// Sets a cell.
    pub fn insert(&mut self, cell: Cell, sums: Sums) {
        self.cells.insert(cell, sums);
    }

    /// In order. Cells that come to nothing are among them.
    pub fn cells(&self) -> impl Iterator<Item = (&Cell, &Sums)> {
        self.cells.iter()
    }

    /// Nothing was added.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// There is no room for another cell.
    pub fn is_full(&self) -> bool {
        self.cells.len() >= CELLS_MAX
    }
}

/// The cluster of whoever a decision was about: of the unit that was named, else
/// of the bucket that its arm was drawn by. All of one key is in one bucket; a
/// request without a key has a bucket of its own, drawn anew.
pub fn cluster_of(feedback: &Feedback) -> u8 {
    let decision = &feedback.decision;
    let hash = match (&feedback.unit, decision.arm) {
        (Some(unit), _) => xxh3_64(unit.as_bytes()),
        (None, Some(bucket)) => xxh3_64(&bucket.get().to_le_bytes()),
        (None, None) => xxh3_64(&decision.sequence.to_le_bytes()),
    };
    (hash & 0xff) as u8
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::testing::{decision, feedback};
    use super::*;

    fn cell(cluster: u8) -> Cell {
        Cell {
            rollout: "r".into(),
            started_at: LogIndex::new(7),
            arm: Ordinal::new(2),
            epoch: Epoch::new(9),
            slice: 3,
            cluster,
        }
    }

    #[test]
    fn a_delta_counts_sums_and_squares_by_cell() {
        let mut delta = Delta::default();
        delta.add(cell(1), 3, Sign::Credit);
        delta.add(cell(1), -5, Sign::Credit);
        delta.add(cell(2), 4, Sign::TakeBack);
        let cells: Vec<_> = delta.cells().map(|(cell, sums)| (cell.cluster, *sums)).collect();
        assert_eq!(
            cells,
            [
                (1, Sums { count: 2, sum: -2, sum_of_squares: 34 }),
                (2, Sums { count: -1, sum: -4, sum_of_squares: -16 }),
            ]
        );
    }

    #[test]
    fn the_cluster_is_of_the_unit_else_of_the_bucket_else_of_the_decision() {
        let named = Feedback { unit: Some("alice".to_owned()), ..feedback(1) };
        let elsewhere = Feedback { decision: decision(99), ..named.clone() };
        assert_eq!(cluster_of(&named), cluster_of(&elsewhere));
        assert_eq!(cluster_of(&named), (xxh3_64(b"alice") & 0xff) as u8);
        let (mut one, mut other) = (feedback(1), feedback(2));
        other.decision.arm = one.decision.arm;
        assert_eq!(cluster_of(&one), cluster_of(&other));
        one.decision.arm = None;
        assert_eq!(cluster_of(&one), (xxh3_64(&1_u64.to_le_bytes()) & 0xff) as u8);
    }
}
