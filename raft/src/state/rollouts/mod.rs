//! Rollouts: plans that change a route over time, and how far they have come.
//!
//! A rollout owns the weights of one model's route from its start to its end.
//! It begins and ends with one version that has the whole route, so its draws
//! may be salted anew each time, and still nobody moves who need not.

mod check;
pub mod commands;
mod deciding;
mod evolving;
pub mod learning;
pub mod spec;
pub mod stages;

use std::sync::Arc;

use imbl::OrdMap;
use serde::Serialize;

pub use check::SpecProblem;
pub use commands::{RolloutCommand, RolloutEvent};
pub(super) use deciding::{decide, require_no_owner};
pub(super) use evolving::{epoch_began, evolve};
pub use learning::{FeedbackDelta, Learning, RewardCell, RewardSum, RewardTotals};
pub use spec::RolloutSpec;
pub use stages::{Stage, StageKind};

use super::bucket::Bucket;
use super::ownership::OwnershipTable;
use super::routes::shadows::Shadow;
use super::{
    ArmName, Epoch, LogIndex, LogTime, ModelName, NodeId, Ordinal, PartsPerMillion, Principal, RolloutName,
    WallTime,
};
use spec::{Micro, Millis, Strategy};

/// Rollouts that are not over.
pub const ACTIVE_MAX: usize = 10_000;
/// Rollouts that are over and still known; the oldest are forgotten first. The
/// history knows them all.
pub const FINISHED_KEPT_MAX: usize = 1_000;
/// Epochs of one rollout whose decisions can still be credited.
pub const EPOCHS_KEPT_MAX: usize = 256;
/// And no more than have so many intervals in their tables together: a thousand
/// bandits must fit into memory and into a snapshot. The newest is always kept.
pub const INTERVALS_KEPT_MAX: usize = 8_192;
/// Different weights of one experiment.
pub const STRATA_MAX: usize = 256;
/// Numbers that one step may name.
pub const EVIDENCE_MAX: usize = 64;
/// Characters of a reason.
pub const WHY_CHARACTERS_MAX: usize = 1_000;

/// Weights of versions: in order of ordinal, without zeroes, summing to the whole.
pub type Weights = Vec<(Ordinal, PartsPerMillion)>;

/// One plan, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// What people call it.
    pub name: RolloutName,
    /// What it is to do.
    pub spec: RolloutSpec,
    /// Who started it.
    pub started_by: Principal,
    /// The entry that started it: tells runs of one name apart, and salts them.
    pub started_at: LogIndex,
    /// In log time.
    pub started: LogTime,
    /// By the leader's wall clock.
    pub started_wall: WallTime,
    /// The entry that last changed it. Controllers name the one they looked at.
    pub revision: LogIndex,
    /// Whether it goes on by itself.
    pub phase: RolloutPhase,
    /// Index among its stages.
    pub stage: u32,
    /// Since when, in log time, pauses left out; an approval begins it anew, for
    /// until then the stage could not end.
    pub stage_since: LogTime,
    /// A person has approved of this stage's end.
    pub approved: bool,
    /// What the route was before.
    pub before: Weights,
    /// What it has left the route as; empty until it is over.
    pub after: Weights,
    /// Numbers that caused the last automatic step.
    pub evidence: Vec<Measure>,
    /// Its epochs, oldest first, at most [`EPOCHS_KEPT_MAX`].
    pub epochs: Arc<Vec<EpochOfRollout>>,
    /// Weights that it has had, by stratum; of a bandit only the first.
    pub strata: Arc<Vec<Weights>>,
    /// Rewards so far.
    pub learning: Learning,
}

/// Whether a rollout goes on by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RolloutPhase {
    /// It does.
    Running,
    /// A person has stopped it; gates go on.
    Paused {
        /// Who.
        by: Principal,
        /// In log time.
        since: LogTime,
    },
    /// It cannot tell or was told to ask; a person decides.
    Held {
        /// What it could not tell.
        why: String,
    },
    /// Over: the route is nobody's.
    Finished {
        /// How.
        ending: Ending,
        /// In the words of whoever ended it.
        why: String,
        /// By the leader's wall clock.
        at: WallTime,
    },
}

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Ending {
    /// A candidate has the whole route.
    Promoted,
    /// Gates gave the stable version everything back.
    RolledBack,
    /// A person gave the stable version everything back.
    Aborted,
    /// It was promoted, and a person went back to what was before.
    Undone,
    /// It ended without a change: a shadow was compared, a test had no winner.
    Completed,
}

/// A number that caused a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measure {
    /// `errorRate`, `latencyRatio`, `agreement`, `rewardDifference`, `probabilityBest`, …
    pub what: String,
    /// Of which version; absent: of the rollout.
    pub version: Option<Ordinal>,
    /// The estimate.
    pub value: Micro,
    /// What is known of it for sure: not less than.
    pub lower: Option<Micro>,
    /// Not more than.
    pub upper: Option<Micro>,
    /// Out of how many.
    pub samples: u64,
}

/// One epoch of a rollout: who owned what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochOfRollout {
    /// Which.
    pub epoch: Epoch,
    /// In log time.
    pub since: LogTime,
    /// Epochs of equal weights share one.
    pub stratum: u32,
    /// As of then.
    pub table: Arc<OwnershipTable>,
}

impl Rollout {
    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, RolloutPhase::Finished { .. })
    }

    /// Gets everything back when it fails.
    pub fn stable(&self) -> Ordinal {
        self.spec.from
    }

    /// Salts its draws, apart from those of any other run: for who takes part
    /// and for which arm they get there are two purposes beside it.
    pub fn salt(&self) -> String {
        format!("{}@{}", self.name, self.started_at)
    }

    /// Of the traffic that no rule and no pin decides; the rest gets the stable version.
    pub fn enrolment(&self) -> PartsPerMillion {
        self.spec.enrolment()
    }

    /// Whether what a candidate fails is answered by the stable version.
    pub fn retries_on_stable(&self) -> bool {
        self.spec.retry_on_stable
    }

    /// What people call a version inside it: the arm's name; `stable` or
    /// `candidate` where the strategy has no arms.
    pub fn arm_name(&self, version: Ordinal) -> Option<&str> {
        let arms = self.spec.arms();
        if !arms.is_empty() {
            return arms.iter().find(|arm| arm.version == version).map(|arm| arm.name.as_str());
        }
        if version == self.spec.from {
            return Some("stable");
        }
        (self.spec.candidate() == Some(&version)).then_some("candidate")
    }

    /// Every version that it may send traffic or copies to, in order of ordinal.
    pub fn versions(&self) -> Vec<Ordinal> {
        let arms = self.spec.arms().iter().map(|arm| arm.version);
        let mut versions: Vec<Ordinal> =
            arms.chain(self.spec.candidate().copied()).chain([self.spec.from]).collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }

    /// The stage it is in.
    pub fn current_stage(&self) -> Option<Stage> {
        self.spec.stages().into_iter().nth(self.stage as usize)
    }

    /// A shadow that it adds to the route's own in its present stage.
    pub fn shadow(&self) -> Option<Shadow> {
        if self.is_over() {
            return None;
        }
        self.current_stage()?.shadow
    }

    /// Which arm a bucket belonged to at an epoch, and in which stratum.
    pub fn arm_at(&self, epoch: Epoch, bucket: Bucket) -> Option<(Ordinal, u32)> {
        let known = self.epoch(epoch)?;
        Some((known.table.owner(bucket)?, known.stratum))
    }

    /// One of its epochs, if it is kept.
    pub fn epoch(&self, epoch: Epoch) -> Option<&EpochOfRollout> {
        let place = self.epochs.binary_search_by_key(&epoch, |known| known.epoch).ok()?;
        self.epochs.get(place)
    }

    /// How long a slice of its learning is: rewards can be taken back, and age,
    /// by slices.
    pub fn slice(&self) -> Millis {
        const MINUTE: u64 = 60_000;
        const HOUR: u64 = 60 * MINUTE;
        match &self.spec.strategy {
            Strategy::Bandit(bandit) => {
                let half_life = bandit.half_life.map_or(HOUR * 8, |half_life| half_life.0);
                Millis((half_life / 8).clamp(1_000, HOUR))
            }
            Strategy::AbTest(experiment) => Millis((experiment.max_duration.0 / 64).max(MINUTE)),
            _ => Millis(HOUR),
        }
    }

    /// The slice that a moment falls into, from 1: 0 stands for all that is too
    /// old to be told apart.
    pub fn slice_of(&self, now: LogTime) -> u32 {
        let since = now.as_micros().saturating_sub(self.started.as_micros());
        let slices = since / self.slice().as_micros().max(1);
        u32::try_from(slices).unwrap_or(u32::MAX - 1) + 1
    }

    /// Clusters of units are told apart where the variance needs them.
    pub fn tells_clusters_apart(&self) -> bool {
        !matches!(self.spec.strategy, Strategy::Bandit(_))
    }

    /// The arm's name as its type.
    pub fn arm(&self, version: Ordinal) -> Option<&ArmName> {
        self.spec.arms().iter().find(|arm| arm.version == version).map(|arm| &arm.name)
    }
}

/// All rollouts that are known, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rollouts {
    by_name: OrdMap<RolloutName, Arc<Rollout>>,
    /// Those that are not over.
    owners: OrdMap<ModelName, RolloutName>,
    /// The last delta that came of each node.
    feedback_marks: OrdMap<NodeId, u64>,
}

impl Rollouts {
    /// In order of name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rollout>> {
        self.by_name.values()
    }

    /// By name.
    pub fn get(&self, name: &str) -> Option<&Arc<Rollout>> {
        self.by_name.get(name)
    }

    /// The one that owns the weights of a model's route.
    pub fn owner_of(&self, model: &ModelName) -> Option<&Arc<Rollout>> {
        self.by_name.get(self.owners.get(model)?)
    }

    /// Those that are not over, in order of model.
    pub fn active(&self) -> impl Iterator<Item = &Arc<Rollout>> {
        self.owners.values().filter_map(|name| self.by_name.get(name))
    }

    /// How many are not over.
    pub fn active_count(&self) -> usize {
        self.owners.len()
    }

    /// The number of the last delta of a node's rewards; 0: none has come.
    pub fn feedback_mark(&self, node: NodeId) -> u64 {
        self.feedback_marks.get(&node).copied().unwrap_or(0)
    }

    /// All such numbers: for snapshots.
    pub fn feedback_marks(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.feedback_marks.iter().map(|(node, mark)| (*node, *mark))
    }

    /// Puts a number in as it is: for snapshots.
    pub(crate) fn set_feedback_mark(&mut self, node: NodeId, mark: u64) {
        self.feedback_marks.insert(node, mark);
    }

    /// Puts a rollout in as it is: for snapshots, and for folding.
    pub(crate) fn insert(&mut self, rollout: Rollout) {
        if rollout.is_over() {
            if self.owners.get(&rollout.spec.model) == Some(&rollout.name) {
                self.owners.remove(&rollout.spec.model);
            }
        } else {
            self.owners.insert(rollout.spec.model.clone(), rollout.name.clone());
        }
        self.by_name.insert(rollout.name.clone(), Arc::new(rollout));
        self.forget_finished();
    }

    /// Copies the rollout only if somebody else looks at it.
    fn update(&mut self, name: &RolloutName, change: impl FnOnce(&mut Rollout)) {
        let Some(shared) = self.by_name.get_mut(name) else { return };
        let was_over = shared.is_over();
        let rollout = Arc::make_mut(shared);
        change(rollout);
        if was_over || !rollout.is_over() {
            return;
        }
        let model = rollout.spec.model.clone();
        self.owners.remove(&model);
        self.forget_finished();
    }

    /// The ones that ended first go first.
    fn forget_finished(&mut self) {
        if self.by_name.len() - self.owners.len() <= FINISHED_KEPT_MAX {
            return;
        }
        let over = self.by_name.values().filter(|rollout| rollout.is_over());
        if let Some(oldest) = over.min_by_key(|rollout| rollout.revision).map(|rollout| rollout.name.clone())
        {
            self.by_name.remove(&oldest);
        }
    }

    /// Its id is never used again, so none of its deltas can come twice.
    pub(super) fn forget_node(&mut self, node: NodeId) {
        self.feedback_marks.remove(&node);
    }

    /// A model is gone, and what was known of it.
    pub(super) fn forget_model(&mut self, model: &ModelName) {
        self.owners.remove(model);
        let gone = |rollout: &&Arc<Rollout>| rollout.spec.model == *model;
        let names: Vec<RolloutName> = self.iter().filter(gone).map(|rollout| rollout.name.clone()).collect();
        for name in names {
            self.by_name.remove(&name);
        }
    }
}
