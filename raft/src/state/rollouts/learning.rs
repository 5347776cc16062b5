//! What a rollout has learnt: sums of rewards, exact, so that the order in which
//! they come changes nothing, and those of a time can be taken back.

use std::ops::RangeInclusive;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Serialize, Serializer};

use super::super::{Epoch, LogIndex, NodeId, Ordinal, RolloutName};

/// Sums of one delta.
pub const SUMS_PER_DELTA_MAX: usize = 4_096;
/// Slices of one rollout that are told apart; older ones become one.
pub const SLICES_MAX: u32 = 1_024;
/// Separate times of one rollout whose rewards were taken back.
pub const DROPPED_MAX: usize = 256;
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
    #[serde(serialize_with = "as_text")]
    pub sum: i128,
    /// In units of 2⁻⁴⁸.
    #[serde(serialize_with = "as_text")]
    pub sum_of_squares: i128,
}

/// Readers of JSON take numbers for floating-point ones and would round these.
fn as_text<S: Serializer>(sum: &i128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(sum)
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
    /// First and last slice of the times that were taken back, in order and
    /// apart: what comes late for them is dropped as well.
    dropped: Arc<Vec<(u32, u32)>>,
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

    /// First and last slice of each time that was taken back.
    pub fn dropped(&self) -> &[(u32, u32)] {
        &self.dropped
    }

    /// Remembers a time as taken back: for snapshots, and for dropping.
    pub(crate) fn refuse_slices(&mut self, first: u32, last: u32) {
        if first > last {
            return;
        }
        let dropped = Arc::make_mut(&mut self.dropped);
        dropped.push((first, last));
        dropped.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(dropped.len());
        for (first, last) in dropped.drain(..) {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        *dropped = merged;
    }

    /// Adds to a cell; cells that come to nothing are not kept.
    pub(crate) fn add(&mut self, cell: RewardCell, totals: RewardTotals) {
        let merged_before = self.newest_merged();
        self.see_slice(cell.slice);
        if self.newest_merged() > merged_before {
            self.merge_old();
        }
        if self.dropped.iter().any(|(first, last)| (*first..=*last).contains(&cell.slice)) {
            return;
        }
        self.add_as_is(self.still_told_apart(cell), totals);
    }

    /// Drops what was credited in these slices, and what will still come for
    /// those before the `present` one: of that, more is being credited.
    pub(super) fn drop_slices(&mut self, first: u32, last: u32, present: u32) {
        let within = self.whole_slices(first, last);
        self.cells = self
            .cells
            .iter()
            .filter(|(cell, _)| !within.contains(&cell.slice))
            .map(|(cell, totals)| (*cell, *totals))
            .collect();
        self.refuse_slices(first, last.min(present.saturating_sub(1)));
    }

    /// Rewards credited in these slices.
    pub fn count_in(&self, first: u32, last: u32) -> i64 {
        let slices = self.whole_slices(first, last);
        let within = self.cells().filter(|(cell, _)| slices.contains(&cell.slice));
        within.map(|(_, totals)| totals.count).fold(0, i64::saturating_add)
    }

    /// Whether anything is known of these slices, be it that as much was taken
    /// back as was given.
    pub(super) fn has_any_in(&self, first: u32, last: u32) -> bool {
        let slices = self.whole_slices(first, last);
        self.cells().any(|(cell, _)| slices.contains(&cell.slice))
    }

    /// What has become one can only be taken back as one: with all that it was.
    fn whole_slices(&self, first: u32, last: u32) -> RangeInclusive<u32> {
        let all_merged = first <= 1 && last >= self.newest_merged();
        if all_merged { 0..=last } else { first..=last }
    }

    fn add_as_is(&mut self, cell: RewardCell, totals: RewardTotals) {
        let Some(sum) = self.cells.get_mut(&cell) else {
            if !totals.is_nothing() {
                self.cells.insert(cell, RewardTotals::default().plus(totals));
            }
            return;
        };
        *sum = sum.plus(totals);
        if sum.is_nothing() {
            self.cells.remove(&cell);
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
