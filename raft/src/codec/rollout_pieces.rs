//! Frozen pieces of plans and of what a rollout learns. Frozen as they are: a
//! change is a new piece in a new version of whatever contains it.

use super::pieces::{arm_name, model_name, parts_per_million, rollout_name};
use super::route_pieces::{ComparisonV1, ConditionV1, FrozenVersion};
use super::{CodecError, Decode, Encode};
use crate::state::rollouts::spec::{
    Arm, Bandit, BanditPolicy, CanaryStep, Correction, Experiment, Gate, GateTest, Micro, Millis, OnFailure,
    OnInconclusive, Pause, Reward, RewardKind, StopRule, Strategy, Validation,
};
use crate::state::rollouts::{Ending, Measure, RewardSum, RewardTotals, RolloutSpec};
use crate::state::{Epoch, LogIndex, Ordinal};

#[derive(Encode, Decode)]
pub(super) struct SpecV1<V> {
    model: String,
    from: V,
    strategy: StrategyV1<V>,
    gates: Vec<GateV1>,
    hold_on_failure: bool,
    on_inconclusive: OnInconclusiveV1,
    inconclusive_after_millis: u64,
    retry_on_stable: bool,
    interval_millis: u64,
    webhooks: Vec<String>,
}

#[derive(Encode, Decode)]
enum OnInconclusiveV1 {
    Hold,
    Rollback,
    Promote,
}

#[derive(Encode, Decode)]
enum StrategyV1<V> {
    BlueGreen {
        to: V,
        validate: Option<ValidationV1>,
        steps_ppm: Vec<u32>,
        every_millis: u64,
        keep_warm_millis: u64,
    },
    Canary {
        to: V,
        steps: Vec<CanaryStepV1>,
    },
    Shadow {
        to: V,
        validation: ValidationV1,
    },
    AbTest(ExperimentV1<V>),
    Bandit(BanditV1<V>),
}

#[derive(Encode, Decode)]
struct ValidationV1 {
    hold_millis: u64,
    min_requests: u64,
    portion_ppm: u32,
    when: Vec<ConditionV1>,
    comparison: ComparisonV1,
}

#[derive(Encode, Decode)]
struct CanaryStepV1 {
    weight_ppm: u32,
    /// Absent: until approved.
    pause_millis: Option<u64>,
    gates: Vec<GateV1>,
}

#[derive(Encode, Decode)]
struct GateV1 {
    test: GateTestV1,
    min_samples: u64,
    alpha_ppm: u32,
}

#[derive(Encode, Decode)]
enum GateTestV1 {
    ErrorRate { max_ppm: u32 },
    ErrorRateDifference { max_ppm: u32 },
    LatencyRatio { quantile_ppm: u32, max_ratio_micro: i64 },
    Agreement { min_ppm: u32 },
    RewardDifference { max_drop_micro: i64 },
}

#[derive(Encode, Decode)]
pub(super) struct ArmV1<V> {
    name: String,
    version: V,
    weight_ppm: u32,
}

#[derive(Encode, Decode)]
struct RewardV1 {
    kind: RewardKindV1,
    higher_is_better: bool,
    labels: Vec<(String, i64)>,
}

#[derive(Encode, Decode)]
enum RewardKindV1 {
    Conversion,
    Bounded { floor_micro: i64, ceiling_micro: i64 },
    Unbounded,
}

#[derive(Encode, Decode)]
struct ExperimentV1<V> {
    arms: Vec<ArmV1<V>>,
    metric: RewardV1,
    alpha_ppm: u32,
    correction: CorrectionV1,
    decide_automatically: bool,
    enrolment_ppm: u32,
    min_rewards: u64,
    max_duration_millis: u64,
}

#[derive(Encode, Decode)]
enum CorrectionV1 {
    None,
    Bonferroni,
    Holm,
    BenjaminiHochberg,
}

#[derive(Encode, Decode)]
struct BanditV1<V> {
    arms: Vec<ArmV1<V>>,
    policy: BanditPolicyV1,
    reward: RewardV1,
    floor_ppm: u32,
    half_life_millis: Option<u64>,
    publish_every_millis: u64,
    enrolment_ppm: u32,
    stop: Option<StopRuleV1>,
}

#[derive(Encode, Decode)]
enum BanditPolicyV1 {
    EpsilonGreedy { epsilon_ppm: u32, half_after: u64 },
    Ucb1,
    Thompson,
    TopTwoThompson { leader_ppm: u32 },
}

#[derive(Encode, Decode)]
struct StopRuleV1 {
    probability_best_ppm: u32,
    min_rewards: u64,
}

#[derive(Encode, Decode)]
pub(super) struct MeasureV1 {
    what: String,
    version: Option<u64>,
    value_micro: i64,
    lower_micro: Option<i64>,
    upper_micro: Option<i64>,
    samples: u64,
}

#[derive(Encode, Decode)]
pub(super) enum EndingV1 {
    Promoted,
    RolledBack,
    Aborted,
    Undone,
    Completed,
}

#[derive(Encode, Decode)]
pub(super) struct RewardSumV1 {
    rollout: String,
    started_at: u64,
    arm: u64,
    epoch: u64,
    cluster: u8,
    slice: u32,
    totals: RewardTotalsV1,
}

#[derive(Encode, Decode)]
pub(super) struct RewardTotalsV1 {
    count: i64,
    sum: i128,
    sum_of_squares: i128,
}

impl<V: FrozenVersion> SpecV1<V> {
    pub(super) fn new(live: &RolloutSpec<V::Live>) -> Self {
        Self {
            model: live.model.to_string(),
            from: V::freeze(&live.from),
            strategy: StrategyV1::new(&live.strategy),
            gates: live.gates.iter().map(GateV1::new).collect(),
            hold_on_failure: live.on_failure == OnFailure::Hold,
            on_inconclusive: match live.on_inconclusive {
                OnInconclusive::Hold => OnInconclusiveV1::Hold,
                OnInconclusive::Rollback => OnInconclusiveV1::Rollback,
                OnInconclusive::Promote => OnInconclusiveV1::Promote,
            },
            inconclusive_after_millis: live.inconclusive_after.0,
            retry_on_stable: live.retry_on_stable,
            interval_millis: live.interval.0,
            webhooks: live.webhooks.clone(),
        }
    }

    pub(super) fn thaw(self) -> Result<RolloutSpec<V::Live>, CodecError> {
        Ok(RolloutSpec {
            model: model_name(&self.model)?,
            from: self.from.thaw()?,
            strategy: self.strategy.thaw()?,
            gates: each(self.gates, GateV1::thaw)?,
            on_failure: if self.hold_on_failure { OnFailure::Hold } else { OnFailure::Rollback },
            on_inconclusive: match self.on_inconclusive {
                OnInconclusiveV1::Hold => OnInconclusive::Hold,
                OnInconclusiveV1::Rollback => OnInconclusive::Rollback,
                OnInconclusiveV1::Promote => OnInconclusive::Promote,
            },
            inconclusive_after: Millis(self.inconclusive_after_millis),
            retry_on_stable: self.retry_on_stable,
            interval: Millis(self.interval_millis),
            webhooks: self.webhooks,
        })
    }
}

impl<V: FrozenVersion> StrategyV1<V> {
    fn new(live: &Strategy<V::Live>) -> Self {
        match live {
            Strategy::BlueGreen { to, validate, steps, every, keep_warm } => Self::BlueGreen {
                to: V::freeze(to),
                validate: validate.as_ref().map(ValidationV1::new),
                steps_ppm: steps.iter().map(|step| step.get()).collect(),
                every_millis: every.0,
                keep_warm_millis: keep_warm.0,
            },
            Strategy::Canary { to, steps } => {
                Self::Canary { to: V::freeze(to), steps: steps.iter().map(CanaryStepV1::new).collect() }
            }
            Strategy::Shadow { to, validation } => {
                Self::Shadow { to: V::freeze(to), validation: ValidationV1::new(validation) }
            }
            Strategy::AbTest(experiment) => Self::AbTest(ExperimentV1::new(experiment)),
            Strategy::Bandit(bandit) => Self::Bandit(BanditV1::new(bandit)),
        }
    }

    fn thaw(self) -> Result<Strategy<V::Live>, CodecError> {
        Ok(match self {
            Self::BlueGreen { to, validate, steps_ppm, every_millis, keep_warm_millis } => {
                Strategy::BlueGreen {
                    to: to.thaw()?,
                    validate: validate.map(ValidationV1::thaw).transpose()?,
                    steps: each(steps_ppm, parts_per_million)?,
                    every: Millis(every_millis),
                    keep_warm: Millis(keep_warm_millis),
                }
            }
            Self::Canary { to, steps } => {
                Strategy::Canary { to: to.thaw()?, steps: each(steps, CanaryStepV1::thaw)? }
            }
            Self::Shadow { to, validation } => {
                Strategy::Shadow { to: to.thaw()?, validation: validation.thaw()? }
            }
            Self::AbTest(experiment) => Strategy::AbTest(experiment.thaw()?),
            Self::Bandit(bandit) => Strategy::Bandit(bandit.thaw()?),
        })
    }
}

impl ValidationV1 {
    fn new(live: &Validation) -> Self {
        Self {
            hold_millis: live.hold.0,
            min_requests: live.min_requests,
            portion_ppm: live.portion.get(),
            when: live.when.iter().map(Into::into).collect(),
            comparison: (&live.comparison).into(),
        }
    }

    fn thaw(self) -> Result<Validation, CodecError> {
        Ok(Validation {
            hold: Millis(self.hold_millis),
            min_requests: self.min_requests,
            portion: parts_per_million(self.portion_ppm)?,
            when: self.when.into_iter().map(Into::into).collect(),
            comparison: self.comparison.try_into()?,
        })
    }
}

impl CanaryStepV1 {
    fn new(live: &CanaryStep) -> Self {
        Self {
            weight_ppm: live.weight.get(),
            pause_millis: match live.pause {
                Pause::For(pause) => Some(pause.0),
                Pause::UntilApproved => None,
            },
            gates: live.gates.iter().map(GateV1::new).collect(),
        }
    }

    fn thaw(self) -> Result<CanaryStep, CodecError> {
        Ok(CanaryStep {
            weight: parts_per_million(self.weight_ppm)?,
            pause: self.pause_millis.map_or(Pause::UntilApproved, |pause| Pause::For(Millis(pause))),
            gates: each(self.gates, GateV1::thaw)?,
        })
    }
}

impl GateV1 {
    fn new(live: &Gate) -> Self {
        let test = match live.test {
            GateTest::ErrorRate { max } => GateTestV1::ErrorRate { max_ppm: max.get() },
            GateTest::ErrorRateDifference { max } => GateTestV1::ErrorRateDifference { max_ppm: max.get() },
            GateTest::LatencyRatio { quantile, max_ratio } => {
                GateTestV1::LatencyRatio { quantile_ppm: quantile.get(), max_ratio_micro: max_ratio.0 }
            }
            GateTest::Agreement { min } => GateTestV1::Agreement { min_ppm: min.get() },
            GateTest::RewardDifference { max_drop } => {
                GateTestV1::RewardDifference { max_drop_micro: max_drop.0 }
            }
        };
        Self { test, min_samples: live.min_samples, alpha_ppm: live.alpha.get() }
    }

    fn thaw(self) -> Result<Gate, CodecError> {
        let test = match self.test {
            GateTestV1::ErrorRate { max_ppm } => GateTest::ErrorRate { max: parts_per_million(max_ppm)? },
            GateTestV1::ErrorRateDifference { max_ppm } => {
                GateTest::ErrorRateDifference { max: parts_per_million(max_ppm)? }
            }
            GateTestV1::LatencyRatio { quantile_ppm, max_ratio_micro } => GateTest::LatencyRatio {
                quantile: parts_per_million(quantile_ppm)?,
                max_ratio: Micro(max_ratio_micro),
            },
            GateTestV1::Agreement { min_ppm } => GateTest::Agreement { min: parts_per_million(min_ppm)? },
            GateTestV1::RewardDifference { max_drop_micro } => {
                GateTest::RewardDifference { max_drop: Micro(max_drop_micro) }
            }
        };
        Ok(Gate { test, min_samples: self.min_samples, alpha: parts_per_million(self.alpha_ppm)? })
    }
}

impl<V: FrozenVersion> ArmV1<V> {
    pub(super) fn new(live: &Arm<V::Live>) -> Self {
        Self { name: live.name.to_string(), version: V::freeze(&live.version), weight_ppm: live.weight.get() }
    }

    pub(super) fn thaw(self) -> Result<Arm<V::Live>, CodecError> {
        Ok(Arm {
            name: arm_name(&self.name)?,
            version: self.version.thaw()?,
            weight: parts_per_million(self.weight_ppm)?,
        })
    }
}

impl RewardV1 {
    fn new(live: &Reward) -> Self {
        Self {
            kind: match live.kind {
                RewardKind::Conversion => RewardKindV1::Conversion,
                RewardKind::Bounded { floor, ceiling } => {
                    RewardKindV1::Bounded { floor_micro: floor.0, ceiling_micro: ceiling.0 }
                }
                RewardKind::Unbounded => RewardKindV1::Unbounded,
            },
            higher_is_better: live.higher_is_better,
            labels: live.labels.iter().map(|(label, value)| (label.clone(), value.0)).collect(),
        }
    }

    fn thaw(self) -> Reward {
        Reward {
            kind: match self.kind {
                RewardKindV1::Conversion => RewardKind::Conversion,
                RewardKindV1::Bounded { floor_micro, ceiling_micro } => {
                    RewardKind::Bounded { floor: Micro(floor_micro), ceiling: Micro(ceiling_micro) }
                }
                RewardKindV1::Unbounded => RewardKind::Unbounded,
            },
            higher_is_better: self.higher_is_better,
            labels: self.labels.into_iter().map(|(label, value)| (label, Micro(value))).collect(),
        }
    }
}

impl<V: FrozenVersion> ExperimentV1<V> {
    fn new(live: &Experiment<V::Live>) -> Self {
        Self {
            arms: live.arms.iter().map(ArmV1::new).collect(),
            metric: RewardV1::new(&live.metric),
            alpha_ppm: live.alpha.get(),
            correction: match live.correction {
                Correction::None => CorrectionV1::None,
                Correction::Bonferroni => CorrectionV1::Bonferroni,
                Correction::Holm => CorrectionV1::Holm,
                Correction::BenjaminiHochberg => CorrectionV1::BenjaminiHochberg,
            },
            decide_automatically: live.decide_automatically,
            enrolment_ppm: live.enrolment.get(),
            min_rewards: live.min_rewards,
            max_duration_millis: live.max_duration.0,
        }
    }

    fn thaw(self) -> Result<Experiment<V::Live>, CodecError> {
        Ok(Experiment {
            arms: each(self.arms, ArmV1::thaw)?,
            metric: self.metric.thaw(),
            alpha: parts_per_million(self.alpha_ppm)?,
            correction: match self.correction {
                CorrectionV1::None => Correction::None,
                CorrectionV1::Bonferroni => Correction::Bonferroni,
                CorrectionV1::Holm => Correction::Holm,
                CorrectionV1::BenjaminiHochberg => Correction::BenjaminiHochberg,
            },
            decide_automatically: self.decide_automatically,
            enrolment: parts_per_million(self.enrolment_ppm)?,
            min_rewards: self.min_rewards,
            max_duration: Millis(self.max_duration_millis),
        })
    }
}

impl<V: FrozenVersion> BanditV1<V> {
    fn new(live: &Bandit<V::Live>) -> Self {
        Self {
            arms: live.arms.iter().map(ArmV1::new).collect(),
            policy: match live.policy {
                BanditPolicy::EpsilonGreedy { epsilon, half_after } => {
                    BanditPolicyV1::EpsilonGreedy { epsilon_ppm: epsilon.get(), half_after }
                }
                BanditPolicy::Ucb1 => BanditPolicyV1::Ucb1,
                BanditPolicy::Thompson => BanditPolicyV1::Thompson,
                BanditPolicy::TopTwoThompson { leader } => {
                    BanditPolicyV1::TopTwoThompson { leader_ppm: leader.get() }
                }
            },
            reward: RewardV1::new(&live.reward),
            floor_ppm: live.floor.get(),
            half_life_millis: live.half_life.map(|half_life| half_life.0),
            publish_every_millis: live.publish_every.0,
            enrolment_ppm: live.enrolment.get(),
            stop: live.stop.map(|stop| StopRuleV1 {
                probability_best_ppm: stop.probability_best.get(),
                min_rewards: stop.min_rewards,
            }),
        }
    }

    fn thaw(self) -> Result<Bandit<V::Live>, CodecError> {
        Ok(Bandit {
            arms: each(self.arms, ArmV1::thaw)?,
            policy: match self.policy {
                BanditPolicyV1::EpsilonGreedy { epsilon_ppm, half_after } => {
                    BanditPolicy::EpsilonGreedy { epsilon: parts_per_million(epsilon_ppm)?, half_after }
                }
                BanditPolicyV1::Ucb1 => BanditPolicy::Ucb1,
                BanditPolicyV1::Thompson => BanditPolicy::Thompson,
                BanditPolicyV1::TopTwoThompson { leader_ppm } => {
                    BanditPolicy::TopTwoThompson { leader: parts_per_million(leader_ppm)? }
                }
            },
            reward: self.reward.thaw(),
            floor: parts_per_million(self.floor_ppm)?,
            half_life: self.half_life_millis.map(Millis),
            publish_every: Millis(self.publish_every_millis),
            enrolment: parts_per_million(self.enrolment_ppm)?,
            stop: self.stop.map(StopRuleV1::thaw).transpose()?,
        })
    }
}

impl StopRuleV1 {
    fn thaw(self) -> Result<StopRule, CodecError> {
        let probability_best = parts_per_million(self.probability_best_ppm)?;
        Ok(StopRule { probability_best, min_rewards: self.min_rewards })
    }
}

impl MeasureV1 {
    fn new(live: &Measure) -> Self {
        Self {
            what: live.what.clone(),
            version: live.version.map(Ordinal::get),
            value_micro: live.value.0,
            lower_micro: live.lower.map(|lower| lower.0),
            upper_micro: live.upper.map(|upper| upper.0),
            samples: live.samples,
        }
    }

    fn thaw(self) -> Measure {
        Measure {
            what: self.what,
            version: self.version.map(Ordinal::new),
            value: Micro(self.value_micro),
            lower: self.lower_micro.map(Micro),
            upper: self.upper_micro.map(Micro),
            samples: self.samples,
        }
    }
}

impl From<Ending> for EndingV1 {
    fn from(live: Ending) -> Self {
        match live {
            Ending::Promoted => Self::Promoted,
            Ending::RolledBack => Self::RolledBack,
            Ending::Aborted => Self::Aborted,
            Ending::Undone => Self::Undone,
            Ending::Completed => Self::Completed,
        }
    }
}

impl From<EndingV1> for Ending {
    fn from(frozen: EndingV1) -> Self {
        match frozen {
            EndingV1::Promoted => Self::Promoted,
            EndingV1::RolledBack => Self::RolledBack,
            EndingV1::Aborted => Self::Aborted,
            EndingV1::Undone => Self::Undone,
            EndingV1::Completed => Self::Completed,
        }
    }
}

impl RewardSumV1 {
    pub(super) fn new(live: &RewardSum) -> Self {
        Self {
            rollout: live.rollout.to_string(),
            started_at: live.started_at.get(),
            arm: live.arm.get(),
            epoch: live.epoch.get(),
            cluster: live.cluster,
            slice: live.slice,
            totals: live.totals.into(),
        }
    }

    pub(super) fn thaw(self) -> Result<RewardSum, CodecError> {
        Ok(RewardSum {
            rollout: rollout_name(&self.rollout)?,
            started_at: LogIndex::new(self.started_at),
            arm: Ordinal::new(self.arm),
            epoch: Epoch::new(self.epoch),
            cluster: self.cluster,
            slice: self.slice,
            totals: self.totals.into(),
        })
    }
}

impl From<RewardTotals> for RewardTotalsV1 {
    fn from(live: RewardTotals) -> Self {
        Self { count: live.count, sum: live.sum, sum_of_squares: live.sum_of_squares }
    }
}

impl From<RewardTotalsV1> for RewardTotals {
    fn from(frozen: RewardTotalsV1) -> Self {
        Self { count: frozen.count, sum: frozen.sum, sum_of_squares: frozen.sum_of_squares }
    }
}

pub(super) fn measures_v1(live: &[Measure]) -> Vec<MeasureV1> {
    live.iter().map(MeasureV1::new).collect()
}

pub(super) fn measures(frozen: Vec<MeasureV1>) -> Vec<Measure> {
    frozen.into_iter().map(MeasureV1::thaw).collect()
}

pub(super) fn each<F, L>(
    frozen: Vec<F>,
    thaw: impl Fn(F) -> Result<L, CodecError>,
) -> Result<Vec<L>, CodecError> {
    frozen.into_iter().map(thaw).collect()
}
