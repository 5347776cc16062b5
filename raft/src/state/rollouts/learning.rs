//! What a rollout has learnt: sums of rewards, exact, so that the order in which
//! they come changes nothing, and those of a time can be taken back.

use imbl::OrdMap;
use serde::Serialize;

use super::super::{Epoch, LogIndex, NodeId, Ordinal, RolloutName};

/// Sums of one delta.
pub const SUMS_PER_DELTA_MAX: usize = 4_096;
/// Slices of one rollout that are told apart; older ones become one.
pub const SLICES_MAX: u32 = 1_024;
/// What the sums of one cell may come to, either way: far from where an `i128`
/// would end, so that no order of additions overflows.
pub const SUM_MAGNITUDE_MAX: i128 = 1 << 120;

/// What one node learnt since its last delta: counted once, whoever proposes it
/// and however often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FeedbackDelta {
    /// Whose decisions were rewarded.
    pub node: NodeId,
    /// Counts the node's deltas, from 1.
    pub sequence: u64,
    /// In order; at most [`SUMS_PER_DELTA_MAX`].
    pub sums: Vec<RewardSum>,
}

/// Rewards that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RewardSum {
    /// Of which rollout.
    pub rollout: RolloutName,
    /// Of which run of it.
    pub started_at: LogIndex,
    /// Of which arm.
    pub arm: Ordinal,
    /// When it was decided.
    pub epoch: Epoch,
    /// Hash of the unit; 0 where clusters are not told apart.
    pub cluster: u8,
    /// When the reward was credited.
    pub slice: u32,
    /// The sums; negative where rewards are taken back.
    pub totals: RewardTotals,
}

/// Count, sum and sum of squares; units of 2⁻²⁴ and 2⁻⁴⁸.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RewardTotals {
    /// How many.
    pub count: i64,
    /// In units of 2⁻²⁴.
    pub sum: i128,
    /// In units of 2⁻⁴⁸.
    pub sum_of_squares: i128,
}

impl RewardTotals {
    fn plus(self, other: Self) -> Self {
        let within = |sum: i128| sum.clamp(-SUM_MAGNITUDE_MAX, SUM_MAGNITUDE_MAX);
        Self {
            count: self.count.saturating_add(other.count),
            sum: within(self.sum.saturating_add(other.sum)),
            sum_of_squares: within(self.sum_of_squares.saturating_add(other.sum_of_squares)),
        }
    }

    fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// What is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RewardCell {
    /// When the reward was credited; 0: long ago.
    pub slice: u32,
    /// Of which arm.
    pub arm: Ordinal,
    /// Of which weights.
    pub stratum: u32,
    /// Hash of the unit.
    pub cluster: u8,
}

/// All rewards of one rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learning {
    cells: OrdMap<RewardCell, RewardTotals>,
    /// Ever seen, also if its rewards were taken back: so that which slices are
    /// still told apart depends on no order.
    newest_slice: u32,
}

impl Learning {
    /// In order of cell.
    pub fn cells(&self) -> impl Iterator<Item = (&RewardCell, &RewardTotals)> {
        self.cells.iter()
    }

    /// The newest slice that anything was credited in.
    pub fn newest_slice(&self) -> u32 {
        self.newest_slice
    }

    /// Remembers a slice as seen: for snapshots.
    pub(crate) fn see_slice(&mut self, slice: u32) {
        self.newest_slice = self.newest_slice.max(slice);
    }

    /// Adds to a cell; cells that come to nothing are not kept.
    pub(crate) fn add(&mut self, cell: RewardCell, totals: RewardTotals) {
        self.see_slice(cell.slice);
        self.add_as_is(self.still_told_apart(cell), totals);
        self.merge_old();
    }

    /// Drops what was credited in these slices.
    pub(super) fn drop_slices(&mut self, first: u32, last: u32) {
        let dropped = |cell: &RewardCell| (first..=last).contains(&cell.slice);
        self.cells = self
            .cells
            .iter()
            .filter(|(cell, _)| !dropped(cell))
            .map(|(cell, totals)| (*cell, *totals))
            .collect();
    }

    /// Rewards credited in these slices.
    pub fn count_in(&self, first: u32, last: u32) -> i64 {
        let within = self.cells().filter(|(cell, _)| (first..=last).contains(&cell.slice));
        within.map(|(_, totals)| totals.count).fold(0, i64::saturating_add)
    }

    fn add_as_is(&mut self, cell: RewardCell, totals: RewardTotals) {
        let sum = self.cells.get(&cell).copied().unwrap_or_default().plus(totals);
        if sum.is_nothing() {
            self.cells.remove(&cell);
        } else {
            self.cells.insert(cell, sum);
        }
    }

    fn newest_merged(&self) -> u32 {
        self.newest_slice.saturating_sub(SLICES_MAX)
    }

    /// Whatever comes late for a slice that has been merged is merged too.
    fn still_told_apart(&self, cell: RewardCell) -> RewardCell {
        if cell.slice <= self.newest_merged() { RewardCell { slice: 0, ..cell } } else { cell }
    }

    fn merge_old(&mut self) {
        let newest_merged = self.newest_merged();
        let first = |cells: &OrdMap<RewardCell, RewardTotals>| {
            let told_apart = RewardCell { slice: 1, arm: Ordinal::new(0), stratum: 0, cluster: 0 };
            cells.range(told_apart..).next().map(|(cell, totals)| (*cell, *totals))
        };
        while let Some((cell, totals)) = first(&self.cells).filter(|(cell, _)| cell.slice <= newest_merged) {
            self.cells.remove(&cell);
            self.add_as_is(RewardCell { slice: 0, ..cell }, totals);
        }
    }
}
