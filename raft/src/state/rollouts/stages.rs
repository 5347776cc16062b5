//! A plan as a list of stages: what every strategy comes down to, so that one
//! controller drives them all.

use serde::Serialize;

use super::super::routes::shadows::Shadow;
use super::super::{Ordinal, PartsPerMillion};
use super::spec::{Arm, CanaryStep, Gate, Millis, Pause, RolloutSpec, Strategy, Validation};

/// What a stage is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum StageKind {
    /// The candidate gets copies and answers nobody.
    Validate,
    /// The candidate has a part of the traffic.
    Shift,
    /// The candidate has all of it, and the stable version stays loaded.
    KeepWarm,
    /// Arms are compared until one wins or time is up.
    Experiment,
}

/// One stage of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// What it is for.
    pub kind: StageKind,
    /// In order of ordinal, without zeroes; they sum to the whole.
    pub weights: Vec<(Ordinal, PartsPerMillion)>,
    /// Added to the route's own.
    pub shadow: Option<Shadow>,
    /// The next stage comes no sooner.
    pub hold: Millis,
    /// And not before so many requests were compared or answered by the candidate.
    pub min_requests: u64,
    /// And not before a person says so.
    pub until_approved: bool,
    /// Beside the rollout's own.
    pub gates: Vec<Gate>,
}

impl RolloutSpec {
    /// All stages, in order; never empty.
    pub fn stages(&self) -> Vec<Stage> {
        match &self.strategy {
            Strategy::BlueGreen { to, validate, steps, every, keep_warm } => {
                let shift = |weight: &PartsPerMillion| Stage {
                    weights: split(self.from, *to, *weight),
                    hold: *every,
                    ..Stage::of(StageKind::Shift)
                };
                let mut stages: Vec<Stage> =
                    validate.iter().map(|validation| validation.stage(self.from, *to)).collect();
                let (last, before) =
                    steps.split_last().map_or((&PartsPerMillion::WHOLE, &[][..]), |both| both);
                stages.extend(before.iter().map(shift));
                let whole = Stage { hold: *keep_warm, ..shift(last) };
                stages.push(Stage { kind: StageKind::KeepWarm, ..whole });
                stages
            }
            Strategy::Canary { to, steps } => steps.iter().map(|step| step.stage(self.from, *to)).collect(),
            Strategy::Shadow { to, validation } => vec![validation.stage(self.from, *to)],
            Strategy::AbTest(experiment) => vec![experiment_stage(&experiment.arms)],
            Strategy::Bandit(bandit) => vec![experiment_stage(&bandit.arms)],
        }
    }
}

impl Stage {
    fn of(kind: StageKind) -> Self {
        Self {
            kind,
            weights: Vec::new(),
            shadow: None,
            hold: Millis(0),
            min_requests: 0,
            until_approved: false,
            gates: Vec::new(),
        }
    }
}

impl Validation {
    fn stage(&self, from: Ordinal, to: Ordinal) -> Stage {
        let shadow = Shadow {
            version: to,
            portion: self.portion,
            when: self.when.clone(),
            comparison: self.comparison.clone(),
        };
        Stage {
            weights: vec![(from, PartsPerMillion::WHOLE)],
            shadow: Some(shadow),
            hold: self.hold,
            min_requests: self.min_requests,
            ..Stage::of(StageKind::Validate)
        }
    }
}

impl CanaryStep {
    fn stage(&self, from: Ordinal, to: Ordinal) -> Stage {
        let (hold, until_approved) = match self.pause {
            Pause::For(hold) => (hold, false),
            Pause::UntilApproved => (Millis(0), true),
        };
        Stage {
            weights: split(from, to, self.weight),
            hold,
            until_approved,
            gates: self.gates.clone(),
            ..Stage::of(StageKind::Shift)
        }
    }
}

fn experiment_stage(arms: &[Arm]) -> Stage {
    Stage { weights: weights_of(arms), ..Stage::of(StageKind::Experiment) }
}

/// In order of ordinal, without zeroes.
pub(super) fn weights_of(arms: &[Arm]) -> Vec<(Ordinal, PartsPerMillion)> {
    let mut weights: Vec<_> =
        arms.iter().filter(|arm| arm.weight.get() > 0).map(|arm| (arm.version, arm.weight)).collect();
    weights.sort();
    weights
}

/// The candidate's part, and the stable version's.
fn split(from: Ordinal, to: Ordinal, candidate: PartsPerMillion) -> Vec<(Ordinal, PartsPerMillion)> {
    let mut weights = vec![(from, candidate.rest()), (to, candidate)];
    weights.retain(|(_, weight)| weight.get() > 0);
    weights.sort();
    weights
}
