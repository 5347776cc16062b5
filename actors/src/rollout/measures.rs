//! What all nodes counted of one rollout's present stage, and what it has learnt:
//! everything that gates and decisions look at.
//!
//! A stage is the run of newest epochs with equal weights: a stage's steps grow,
//! so no two stages have the same, and rules or shadows that change in between
//! begin an epoch but no stage. A bandit is in one stage from start to end.

use std::collections::BTreeMap;

use starling_raft::state::rollouts::learning::RewardTotals;
use starling_raft::state::{Ordinal, Rollout};
use starling_statistics::bandits::{ArmRewards, Batch};
use starling_statistics::sample_ratio::StratumCounts;
use starling_statistics::sums::{ArmSums, Moments, Stratum};

use crate::inference::latency_sketch::LatencySketch;
use crate::inference::routing_table::VersionId;
use crate::inference::shadowing::cells::ShadowCell;
use crate::inference::traffic::{Cell, CellKey};

/// What became of a shadow's copies at one epoch, or at several together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyCounts {
    /// Answered, and held against the live answer.
    pub compared: u64,
    /// Those of them that agreed.
    pub agreed: u64,
    /// Copies that the shadow failed.
    pub errors: u64,
    /// Copies that found no room.
    pub dropped: u64,
    /// Of the shadow's answers.
    pub latency: LatencySketch,
    /// Of the live answers to the same requests.
    pub live_latency: LatencySketch,
}

impl CopyCounts {
    /// Adds all that others have counted.
    pub fn merge(&mut self, other: &Self) {
        self.compared = self.compared.saturating_add(other.compared);
        self.agreed = self.agreed.saturating_add(other.agreed);
        self.errors = self.errors.saturating_add(other.errors);
        self.dropped = self.dropped.saturating_add(other.dropped);
        self.latency.merge(&other.latency);
        self.live_latency.merge(&other.live_latency);
    }
}

impl From<&ShadowCell> for CopyCounts {
    fn from(cell: &ShadowCell) -> Self {
        Self {
            compared: cell.compared,
            agreed: cell.agreed,
            errors: cell.errors,
            dropped: cell.dropped_copies(),
            latency: cell.latency.clone(),
            live_latency: cell.live_latency.clone(),
        }
    }
}

/// What the nodes counted, together, by version and epoch.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// Requests.
    pub requests: BTreeMap<CellKey, Cell>,
    /// Copies, by the shadow's version.
    pub copies: BTreeMap<CellKey, CopyCounts>,
}

impl Traffic {
    /// As if everything that versions of this model got so far had come in the
    /// rollout's present stage: for trying a plan out.
    pub fn as_if_in_stage(self, model_id: u64, rollout: &Rollout) -> Self {
        let epoch = stage_began(rollout);
        let moved =
            |key: CellKey| if key.version.model_id == model_id { CellKey { epoch, ..key } } else { key };
        let mut in_stage = Self::default();
        for (key, cell) in self.requests {
            in_stage.requests.entry(moved(key)).or_default().merge(&cell);
        }
        for (key, copies) in self.copies {
            in_stage.copies.entry(moved(key)).or_default().merge(&copies);
        }
        in_stage
    }
}

/// What is known of one rollout.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measures {
    /// Requests of the present stage by version; none: no entry.
    pub requests: BTreeMap<Ordinal, Cell>,
    /// Copies of the present stage by version.
    pub copies: BTreeMap<Ordinal, CopyCounts>,
    /// Rewards of the whole run by version, by stratum and cluster.
    pub rewards: BTreeMap<Ordinal, ArmSums>,
    /// The same by slice of time.
    pub slices: BTreeMap<Ordinal, ArmRewards>,
    /// Distinct units by stratum: an experiment's arms in the order of its look,
    /// the control first.
    pub exposures: Vec<StratumCounts>,
}

impl Measures {
    /// Of a rollout of the model with this id.
    pub fn of(rollout: &Rollout, model_id: u64, traffic: &Traffic) -> Self {
        let mut measures = Self::default();
        let (first, last) = stage_epochs(rollout);
        for ordinal in rollout.versions() {
            let version = VersionId { model_id, ordinal };
            let span = CellKey { version, epoch: first }..=CellKey { version, epoch: last };
            for (_, cell) in traffic.requests.range(span.clone()) {
                let known = measures.requests.entry(ordinal).or_default();
                known.merge(cell);
            }
            for (_, copies) in traffic.copies.range(span) {
                measures.copies.entry(ordinal).or_default().merge(copies);
            }
        }
        measures.learn(rollout);
        measures
    }

    /// Rewards that were taken back before they arrived leave a cell with less
    /// than nothing: it waits for the rest.
    fn learn(&mut self, rollout: &Rollout) {
        let mut slices: BTreeMap<(Ordinal, u32), RewardTotals> = BTreeMap::new();
        for (cell, totals) in rollout.learning.cells() {
            let slice = slices.entry((cell.arm, cell.slice)).or_default();
            slice.count = slice.count.saturating_add(totals.count);
            slice.sum = slice.sum.saturating_add(totals.sum);
            slice.sum_of_squares = slice.sum_of_squares.saturating_add(totals.sum_of_squares);
        }
        for ((arm, slice), totals) in slices {
            let Some(moments) = moments(&totals) else { continue };
            // What would overflow is left out: rewards are bounded, so it cannot.
            let _ = self.slices.entry(arm).or_default().add(Batch(slice.into()), &moments);
        }
        let mut strata: BTreeMap<(Ordinal, u32, u8), RewardTotals> = BTreeMap::new();
        for (cell, totals) in rollout.learning.cells() {
            let sums = strata.entry((cell.arm, cell.stratum, cell.cluster)).or_default();
            sums.count = sums.count.saturating_add(totals.count);
            sums.sum = sums.sum.saturating_add(totals.sum);
            sums.sum_of_squares = sums.sum_of_squares.saturating_add(totals.sum_of_squares);
        }
        for ((arm, stratum, cluster), totals) in strata {
            let Some(moments) = moments(&totals) else { continue };
            let _ = self.rewards.entry(arm).or_default().add(Stratum(stratum.into()), cluster, &moments);
        }
    }

    /// Requests of one version in the present stage.
    pub fn requests_of(&self, version: Ordinal) -> u64 {
        self.requests.get(&version).map_or(0, |cell| cell.requests)
    }

    /// Copies of one version that were compared, in the present stage.
    pub fn compared_of(&self, version: Ordinal) -> u64 {
        self.copies.get(&version).map_or(0, |copies| copies.compared)
    }

    /// All rewards of one version together.
    pub fn rewards_of(&self, version: Ordinal) -> Moments {
        self.rewards.get(&version).and_then(|sums| sums.total().ok()).unwrap_or_default()
    }
}

/// The first and the last epoch that the present stage may have traffic at.
fn stage_epochs(rollout: &Rollout) -> (u64, u64) {
    let Some(newest) = rollout.epochs.last() else { return (u64::MAX, u64::MAX) };
    let stage = rollout.epochs.iter().rev().take_while(|known| known.stratum == newest.stratum);
    let first = stage.last().unwrap_or(newest).epoch.get();
    let last = if rollout.is_over() { newest.epoch.get() } else { u64::MAX };
    (first, last)
}

/// The first epoch of a rollout's present stage: what nodes count from then on
/// must stay apart from what they counted before.
pub fn stage_began(rollout: &Rollout) -> u64 {
    stage_epochs(rollout).0
}

/// The weights in force: of a bandit those that were published last. In order of
/// ordinal, without zeroes.
pub fn weights_in_force(rollout: &Rollout) -> BTreeMap<Ordinal, u32> {
    let mut weights = BTreeMap::new();
    let newest = rollout.epochs.last().map_or(&[][..], |newest| newest.table.intervals());
    for interval in newest {
        *weights.entry(interval.owner).or_insert(0) += interval.end - interval.start;
    }
    weights
}

fn moments(totals: &RewardTotals) -> Option<Moments> {
    let count = u64::try_from(totals.count).ok().filter(|count| *count > 0)?;
    Moments::from_parts(count, totals.sum, totals.sum_of_squares).ok()
}
