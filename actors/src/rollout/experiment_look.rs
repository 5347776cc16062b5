//! One look at an A/B test: each arm held against the control, and what that
//! amounts to. Pure; the p-values of the looks before are handed in.

use std::collections::BTreeMap;

use starling_raft::state::rollouts::spec::{self, Experiment};
use starling_raft::state::{Ordinal, Rollout};
use starling_statistics::confidence::{AsymptoticSequence, BernoulliSequence, RunningPValue};
use starling_statistics::correction::Correction;
use starling_statistics::experiment::{Arm, Outcome, Plan, Recommendation, decide};
use starling_statistics::sums::{ArmSums, Effect, MeanEstimate};
use starling_statistics::{Alpha, InferenceError};

use super::measures::Measures;
use super::reward_scale::metric_of;

/// The smallest p-values of the looks so far, which the next one starts from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeptPValues {
    arms: BTreeMap<Ordinal, RunningPValue>,
    sample_ratio: RunningPValue,
}

/// An experiment at one look.
#[derive(Debug, Clone, PartialEq)]
pub struct ExperimentLook {
    /// The control first, then the others in the order of the plan: as
    /// [`Outcome::arms`] counts them.
    pub arms: Vec<Ordinal>,
    /// What the statistics say.
    pub outcome: Outcome,
    /// For the next look.
    pub kept: KeptPValues,
}

impl ExperimentLook {
    /// The arm that is to be promoted.
    pub fn winner(&self) -> Option<Ordinal> {
        match self.outcome.recommendation {
            Recommendation::Winner { arm } => self.arms.get(arm).copied(),
            _ => None,
        }
    }

    /// Whether every arm but the control does harm, so that the control has won.
    pub fn control_wins(&self) -> bool {
        match &self.outcome.recommendation {
            Recommendation::Harm { arms } => arms.len() + 1 == self.arms.len(),
            _ => false,
        }
    }
}

/// Looks at the rewards as they are now.
pub fn look(
    rollout: &Rollout,
    experiment: &Experiment,
    measures: &Measures,
    kept: &KeptPValues,
) -> Result<ExperimentLook, InferenceError> {
    let others = experiment.arms.iter().map(|arm| arm.version).filter(|arm| *arm != rollout.stable());
    let versions: Vec<Ordinal> = std::iter::once(rollout.stable()).chain(others).collect();
    let nothing = ArmSums::default();
    let arms: Vec<Arm<'_>> = versions
        .iter()
        .map(|version| Arm {
            primary: measures.rewards.get(version).unwrap_or(&nothing),
            guardrails: Vec::new(),
            before: kept.arms.get(version).copied().unwrap_or_default(),
        })
        .collect();
    let plan = Plan {
        alpha: alpha_of(experiment),
        correction: correction_of(experiment.correction),
        samples_min: experiment.min_rewards.max(1),
        ..Plan::new(metric_of(Some(&experiment.metric)))
    };
    let outcome = decide(&plan, &arms, &measures.exposures, kept.sample_ratio)?;
    let kept = KeptPValues {
        arms: outcome
            .arms
            .iter()
            .filter_map(|result| Some((*versions.get(result.arm)?, result.p_value)))
            .collect(),
        sample_ratio: outcome.sample_ratio,
    };
    Ok(ExperimentLook { arms: versions, outcome, kept })
}

/// Means of one arm that are believable at every look; `None`: too little is known.
pub fn mean_interval(experiment: &Experiment, sums: &ArmSums) -> Option<(f64, f64)> {
    let total = sums.total().ok()?;
    let alpha = alpha_of(experiment);
    let interval = match experiment.metric.kind {
        spec::RewardKind::Conversion => {
            let count = total.count();
            let sum = total.sum().clamp(0.0, count as f64);
            BernoulliSequence::DEFAULT.bounded_mean(sum, count, alpha)
        }
        spec::RewardKind::Bounded { .. } | spec::RewardKind::Unbounded => {
            let mean = MeanEstimate::from_moments(&total).ok()?;
            let effect = Effect::new(mean.mean, mean.variance, mean.count).ok()?;
            AsymptoticSequence::DEFAULT.look(&effect, alpha).map(|look| look.interval)
        }
    };
    interval.ok().map(|interval| (interval.lower(), interval.upper()))
}

fn alpha_of(experiment: &Experiment) -> Alpha {
    Alpha::new(f64::from(experiment.alpha.get()) / 1e6).unwrap_or(Alpha::FIVE_PERCENT)
}

fn correction_of(correction: spec::Correction) -> Correction {
    match correction {
        spec::Correction::None => Correction::None,
        spec::Correction::Bonferroni => Correction::Bonferroni,
        spec::Correction::Holm => Correction::Holm,
        spec::Correction::BenjaminiHochberg => Correction::BenjaminiHochberg,
    }
}
