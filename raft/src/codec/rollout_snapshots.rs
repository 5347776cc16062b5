//! Rollouts as a snapshot stores them.

use std::sync::Arc;

use super::pieces::{WeightsV1, rollout_name, weights, weights_v1};
use super::rollout_pieces::{EndingV1, MeasureV1, RewardTotalsV1, SpecV1, each, measures, measures_v1};
use super::snapshots::{frozen_table, table};
use super::{CodecError, Decode, Encode};
use crate::state::rollouts::{EpochOfRollout, Learning, RewardCell, RolloutPhase, Rollouts};
use crate::state::{Epoch, LogIndex, LogTime, NodeId, Ordinal, Principal, Rollout, WallTime};

#[derive(Encode, Decode)]
pub(super) struct RolloutsV1 {
    rollouts: Vec<RolloutV1>,
    /// Node and the number of its last delta.
    feedback_marks: Vec<(u64, u64)>,
}

#[derive(Encode, Decode)]
struct RolloutV1 {
    name: String,
    spec: SpecV1<u64>,
    started_by: String,
    started_at: u64,
    started_micros: u64,
    started_wall_micros: u64,
    revision: u64,
    phase: RolloutPhaseV1,
    stage: u32,
    stage_since_micros: u64,
    approved: bool,
    before: WeightsV1,
    after: WeightsV1,
    evidence: Vec<MeasureV1>,
    epochs: Vec<EpochOfRolloutV1>,
    strata: Vec<WeightsV1>,
    newest_slice: u32,
    /// First and last slice of each time that was taken back.
    dropped: Vec<(u32, u32)>,
    cells: Vec<(RewardCellV1, RewardTotalsV1)>,
}

#[derive(Encode, Decode)]
enum RolloutPhaseV1 {
    Running,
    Paused { by: String, since_micros: u64 },
    Held { why: String },
    Finished { ending: EndingV1, why: String, at_micros: u64 },
}

#[derive(Encode, Decode)]
struct EpochOfRolloutV1 {
    epoch: u64,
    since_micros: u64,
    stratum: u32,
    /// End and owner of each interval; each begins where the one before ends.
    intervals: Vec<(u32, u64)>,
}

#[derive(Encode, Decode)]
struct RewardCellV1 {
    slice: u32,
    arm: u64,
    stratum: u32,
    cluster: u8,
}

impl From<&Rollouts> for RolloutsV1 {
    fn from(live: &Rollouts) -> Self {
        Self {
            rollouts: live.iter().map(|rollout| RolloutV1::new(rollout)).collect(),
            feedback_marks: live.feedback_marks().map(|(node, mark)| (node.get(), mark)).collect(),
        }
    }
}

impl TryFrom<RolloutsV1> for Rollouts {
    type Error = CodecError;

    fn try_from(frozen: RolloutsV1) -> Result<Self, CodecError> {
        let mut live = Self::default();
        for rollout in frozen.rollouts {
            live.insert(rollout.thaw()?);
        }
        for (node, mark) in frozen.feedback_marks {
            live.set_feedback_mark(NodeId::new(node), mark);
        }
        Ok(live)
    }
}

impl RolloutV1 {
    fn new(live: &Rollout) -> Self {
        Self {
            name: live.name.to_string(),
            spec: SpecV1::new(&live.spec),
            started_by: live.started_by.as_str().to_owned(),
            started_at: live.started_at.get(),
            started_micros: live.started.as_micros(),
            started_wall_micros: live.started_wall.as_unix_micros(),
            revision: live.revision.get(),
            phase: RolloutPhaseV1::new(&live.phase),
            stage: live.stage,
            stage_since_micros: live.stage_since.as_micros(),
            approved: live.approved,
            before: weights_v1(&live.before),
            after: weights_v1(&live.after),
            evidence: measures_v1(&live.evidence),
            epochs: live.epochs.iter().map(EpochOfRolloutV1::new).collect(),
            strata: live.strata.iter().map(|weights| weights_v1(weights)).collect(),
            newest_slice: live.learning.newest_slice(),
            dropped: live.learning.dropped().to_vec(),
            cells: live
                .learning
                .cells()
                .map(|(cell, totals)| (RewardCellV1::new(cell), (*totals).into()))
                .collect(),
        }
    }

    fn thaw(self) -> Result<Rollout, CodecError> {
        let mut learning = Learning::default();
        learning.see_slice(self.newest_slice);
        for (cell, totals) in self.cells {
            learning.add(cell.thaw(), totals.into());
        }
        // After the cells: of the slice that was the present one when a time was
        // taken back, there may be both.
        for (first, last) in self.dropped {
            learning.refuse_slices(first, last);
        }
        Ok(Rollout {
            name: rollout_name(&self.name)?,
            spec: self.spec.thaw()?,
            started_by: Principal::named(&self.started_by),
            started_at: LogIndex::new(self.started_at),
            started: LogTime::from_micros(self.started_micros),
            started_wall: WallTime::from_unix_micros(self.started_wall_micros),
            revision: LogIndex::new(self.revision),
            phase: self.phase.thaw(),
            stage: self.stage,
            stage_since: LogTime::from_micros(self.stage_since_micros),
            approved: self.approved,
            before: weights(self.before)?,
            after: weights(self.after)?,
            evidence: measures(self.evidence),
            epochs: Arc::new(each(self.epochs, EpochOfRolloutV1::thaw)?),
            strata: Arc::new(each(self.strata, weights)?),
            learning,
        })
    }
}

impl RolloutPhaseV1 {
    fn new(live: &RolloutPhase) -> Self {
        match live {
            RolloutPhase::Running => Self::Running,
            RolloutPhase::Paused { by, since } => {
                Self::Paused { by: by.as_str().to_owned(), since_micros: since.as_micros() }
            }
            RolloutPhase::Held { why } => Self::Held { why: why.clone() },
            RolloutPhase::Finished { ending, why, at } => {
                Self::Finished { ending: (*ending).into(), why: why.clone(), at_micros: at.as_unix_micros() }
            }
        }
    }

    fn thaw(self) -> RolloutPhase {
        match self {
            Self::Running => RolloutPhase::Running,
            Self::Paused { by, since_micros } => {
                RolloutPhase::Paused { by: Principal::named(&by), since: LogTime::from_micros(since_micros) }
            }
            Self::Held { why } => RolloutPhase::Held { why },
            Self::Finished { ending, why, at_micros } => RolloutPhase::Finished {
                ending: ending.into(),
                why,
                at: WallTime::from_unix_micros(at_micros),
            },
        }
    }
}

impl EpochOfRolloutV1 {
    fn new(live: &EpochOfRollout) -> Self {
        Self {
            epoch: live.epoch.get(),
            since_micros: live.since.as_micros(),
            stratum: live.stratum,
            intervals: frozen_table(&live.table),
        }
    }

    fn thaw(self) -> Result<EpochOfRollout, CodecError> {
        Ok(EpochOfRollout {
            epoch: Epoch::new(self.epoch),
            since: LogTime::from_micros(self.since_micros),
            stratum: self.stratum,
            table: Arc::new(table(self.intervals)?),
        })
    }
}

impl RewardCellV1 {
    fn new(live: &RewardCell) -> Self {
        Self { slice: live.slice, arm: live.arm.get(), stratum: live.stratum, cluster: live.cluster }
    }

    fn thaw(self) -> RewardCell {
        let arm = Ordinal::new(self.arm);
        RewardCell { slice: self.slice, arm, stratum: self.stratum, cluster: self.cluster }
    }
}
