//! What a rollout is asked to do: its strategy, its gates, and what becomes of it
//! when they fail or cannot tell.
//!
//! `V` says which version: by reference as people write it, by ordinal once it
//! is accepted.

use serde::Serialize;

use super::super::routes::rules::Condition;
use super::super::routes::shadows::Comparison;
use super::super::{ArmName, ModelName, Ordinal, PartsPerMillion};

/// Arms of one experiment.
pub const ARMS_MAX: usize = 32;
/// Steps of one blue/green rollout or canary.
pub const STEPS_MAX: usize = 64;
/// Gates of one rollout, and of one step.
pub const GATES_MAX: usize = 32;
/// Webhooks of one rollout.
pub const WEBHOOKS_MAX: usize = 8;
/// Bytes of a webhook's URL.
pub const WEBHOOK_BYTES_MAX: usize = 1_024;
/// Longest time that a rollout waits for anything: a year.
pub const WAIT_MAX: Millis = Millis(366 * 24 * 3_600 * 1_000);

/// A length of log time, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// As log time counts.
    pub const fn as_micros(self) -> u64 {
        self.0.saturating_mul(1_000)
    }

    /// From whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000))
    }
}

/// A number in millionths: rewards, ratios and margins in the log are integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Micro(pub i64);

/// A plan that changes a route over time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec<V = Ordinal> {
    /// Whose route.
    pub model: ModelName,
    /// The stable version: it has the whole route when the rollout begins, and
    /// gets it back when the rollout fails.
    pub from: V,
    /// What is tried, and how.
    pub strategy: Strategy<V>,
    /// What must hold all the time, paused or not.
    pub gates: Vec<Gate>,
    /// When a gate fails.
    pub on_failure: OnFailure,
    /// When the gates cannot tell for as long as `inconclusive_after`.
    pub on_inconclusive: OnInconclusive,
    /// How long gates may go on not telling; counted from when a stage could end.
    pub inconclusive_after: Millis,
    /// A request that the candidate fails is answered by the stable version.
    pub retry_on_stable: bool,
    /// How often the leader looks.
    pub interval: Millis,
    /// Told of promotion, rollback and hold.
    pub webhooks: Vec<String>,
}

/// When a gate fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum OnFailure {
    /// The stable version gets everything back.
    #[default]
    Rollback,
    /// Weights stay, and a person decides.
    Hold,
}

/// When gates cannot tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum OnInconclusive {
    /// Weights stay, and a person decides.
    #[default]
    Hold,
    /// The stable version gets everything back.
    Rollback,
    /// As if they had passed.
    Promote,
}

/// What is tried, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Strategy<V = Ordinal> {
    /// Green is loaded and validated beside blue, gets the traffic in steps or
    /// at once, and blue stays loaded for a while.
    #[serde(rename_all = "camelCase")]
    BlueGreen {
        /// Green.
        to: V,
        /// Copies of live traffic before any of it.
        validate: Option<Validation>,
        /// Green's weights, one after the other; the last is the whole.
        steps: Vec<PartsPerMillion>,
        /// How long each step stands.
        every: Millis,
        /// How long blue stays loaded after the last step.
        keep_warm: Millis,
    },
    /// The candidate gets more and more, with gates at every step.
    Canary {
        /// The candidate.
        to: V,
        /// One after the other; the last has the whole.
        steps: Vec<CanaryStep>,
    },
    /// The candidate gets copies and answers nobody.
    Shadow {
        /// The candidate.
        to: V,
        /// For how long, and how it is compared.
        validation: Validation,
    },
    /// Arms of fixed weights are compared, and the better one wins.
    AbTest(Experiment<V>),
    /// Weights follow rewards.
    Bandit(Bandit<V>),
}

/// Copies of live traffic, and how they are compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Validation {
    /// At least for so long.
    pub hold: Millis,
    /// At least so many copies compared.
    pub min_requests: u64,
    /// Of the requests that `when` picks.
    pub portion: PartsPerMillion,
    /// All must hold; none: every request.
    pub when: Vec<Condition>,
    /// What counts as agreement.
    pub comparison: Comparison,
}

/// One step of a canary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStep {
    /// The candidate's.
    pub weight: PartsPerMillion,
    /// What the next step waits for, beside the gates.
    pub pause: Pause,
    /// Beside the rollout's own.
    pub gates: Vec<Gate>,
}

/// What the next step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Pause {
    /// Log time.
    For(Millis),
    /// `starling rollout promote`.
    UntilApproved,
}

/// Something that must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// What is looked at.
    pub test: GateTest,
    /// The gate says nothing with fewer.
    pub min_samples: u64,
    /// How often it may be wrong, over all looks together.
    pub alpha: PartsPerMillion,
}

/// What a gate looks at: the candidate, in the present stage, on all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum GateTest {
    /// Failed requests of all.
    ErrorRate {
        /// At most.
        max: PartsPerMillion,
    },
    /// Failed requests of all, beside the stable version's.
    ErrorRateDifference {
        /// Above the stable version's by this at most.
        max: PartsPerMillion,
    },
    /// A quantile of the latency, over the stable version's.
    LatencyRatio {
        /// Which: 990,000 is p99.
        quantile: PartsPerMillion,
        /// At most.
        max_ratio: Micro,
    },
    /// Answers of a shadow that agree with the live ones.
    Agreement {
        /// At least.
        min: PartsPerMillion,
    },
    /// The mean reward, beside the stable version's.
    RewardDifference {
        /// Below the stable version's by this at most.
        max_drop: Micro,
    },
}

/// One version inside an experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Arm<V = Ordinal> {
    /// For people.
    pub name: ArmName,
    /// An arm is one version, and a version one arm.
    pub version: V,
    /// To begin with; they sum to the whole.
    pub weight: PartsPerMillion,
}

/// What a reward is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reward {
    /// How it is distributed.
    pub kind: RewardKind,
    /// False: smaller is better.
    pub higher_is_better: bool,
    /// Labels and what they count for. Numbers count as they are, `true` 1 and
    /// `false` 0; a label that does not stand here is refused.
    pub labels: Vec<(String, Micro)>,
}

/// How rewards are distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RewardKind {
    /// 0 or 1.
    Conversion,
    /// Within bounds; others are refused.
    Bounded {
        /// Least.
        floor: Micro,
        /// Greatest.
        ceiling: Micro,
    },
    /// Any number.
    Unbounded,
}

/// How several comparisons share one error probability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Correction {
    /// Each has its own.
    None,
    /// Divided evenly.
    Bonferroni,
    /// Step-down (Holm 1979).
    #[default]
    Holm,
    /// False discoveries (Benjamini and Hochberg 1995).
    BenjaminiHochberg,
}

/// An A/B test. The control is `from`, and is one of the arms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Experiment<V = Ordinal> {
    /// The control among them.
    pub arms: Vec<Arm<V>>,
    /// What is compared.
    pub metric: Reward,
    /// How often it may be wrong, over all looks together.
    pub alpha: PartsPerMillion,
    /// Over several arms.
    pub correction: Correction,
    /// True: the winner is promoted by itself; false: a person promotes it.
    pub decide_automatically: bool,
    /// Of the traffic; the rest gets the stable version.
    pub enrolment: PartsPerMillion,
    /// Nothing is decided with fewer rewards in any arm.
    pub min_rewards: u64,
    /// After this it ends without a winner.
    pub max_duration: Millis,
}

/// A bandit. The stable version is one of the arms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bandit<V = Ordinal> {
    /// The stable one among them.
    pub arms: Vec<Arm<V>>,
    /// How weights follow rewards.
    pub policy: BanditPolicy,
    /// What is rewarded.
    pub reward: Reward,
    /// No arm gets less.
    pub floor: PartsPerMillion,
    /// After this an old reward counts half; absent: rewards never age.
    pub half_life: Option<Millis>,
    /// How often weights may be published.
    pub publish_every: Millis,
    /// Of the traffic; the rest gets the stable version.
    pub enrolment: PartsPerMillion,
    /// When the best arm gets everything; absent: never.
    pub stop: Option<StopRule>,
}

/// How weights follow rewards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum BanditPolicy {
    /// The best arm so far, and now and then any.
    EpsilonGreedy {
        /// How often any, to begin with.
        epsilon: PartsPerMillion,
        /// Rewards after which it is that often half; 0: never less.
        half_after: u64,
    },
    /// Optimism (Auer, Cesa-Bianchi and Fischer 2002); the floor explores.
    Ucb1,
    /// Probability of being best (Thompson 1933).
    Thompson,
    /// The same, with a challenger (Russo 2016).
    TopTwoThompson {
        /// How often the leader is played.
        leader: PartsPerMillion,
    },
}

/// When a bandit is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StopRule {
    /// Of being the best arm, at least.
    pub probability_best: PartsPerMillion,
    /// And at least so many rewards in every arm.
    pub min_rewards: u64,
}

impl<V> RolloutSpec<V> {
    /// The arms of an experiment; empty for strategies with one candidate.
    pub fn arms(&self) -> &[Arm<V>] {
        match &self.strategy {
            Strategy::AbTest(experiment) => &experiment.arms,
            Strategy::Bandit(bandit) => &bandit.arms,
            Strategy::BlueGreen { .. } | Strategy::Canary { .. } | Strategy::Shadow { .. } => &[],
        }
    }

    /// The one candidate of strategies that have one.
    pub fn candidate(&self) -> Option<&V> {
        match &self.strategy {
            Strategy::BlueGreen { to, .. } | Strategy::Canary { to, .. } | Strategy::Shadow { to, .. } => {
                Some(to)
            }
            Strategy::AbTest(_) | Strategy::Bandit(_) => None,
        }
    }

    /// What a reward is, where there are rewards by plan.
    pub fn reward(&self) -> Option<&Reward> {
        match &self.strategy {
            Strategy::AbTest(experiment) => Some(&experiment.metric),
            Strategy::Bandit(bandit) => Some(&bandit.reward),
            Strategy::BlueGreen { .. } | Strategy::Canary { .. } | Strategy::Shadow { .. } => None,
        }
    }

    /// Of the traffic; the rest gets the stable version.
    pub fn enrolment(&self) -> PartsPerMillion {
        match &self.strategy {
            Strategy::AbTest(experiment) => experiment.enrolment,
            Strategy::Bandit(bandit) => bandit.enrolment,
            Strategy::BlueGreen { .. } | Strategy::Canary { .. } | Strategy::Shadow { .. } => {
                PartsPerMillion::WHOLE
            }
        }
    }

    /// As people write it.
    pub fn strategy_name(&self) -> &'static str {
        match &self.strategy {
            Strategy::BlueGreen { .. } => "blueGreen",
            Strategy::Canary { .. } => "canary",
            Strategy::Shadow { .. } => "shadow",
            Strategy::AbTest(_) => "abTest",
            Strategy::Bandit(_) => "bandit",
        }
    }

    /// The same with every version looked up; the first that `look_up` refuses
    /// ends it.
    pub fn resolved<W, E>(&self, mut look_up: impl FnMut(&V) -> Result<W, E>) -> Result<RolloutSpec<W>, E> {
        let mut arms = |arms: &[Arm<V>]| -> Result<Vec<Arm<W>>, E> {
            arms.iter()
                .map(|arm| {
                    let version = look_up(&arm.version)?;
                    Ok(Arm { name: arm.name.clone(), version, weight: arm.weight })
                })
                .collect()
        };
        let strategy = match &self.strategy {
            Strategy::AbTest(experiment) => Strategy::AbTest(Experiment {
                arms: arms(&experiment.arms)?,
                metric: experiment.metric.clone(),
                alpha: experiment.alpha,
                correction: experiment.correction,
                decide_automatically: experiment.decide_automatically,
                enrolment: experiment.enrolment,
                min_rewards: experiment.min_rewards,
                max_duration: experiment.max_duration,
            }),
            Strategy::Bandit(bandit) => Strategy::Bandit(Bandit {
                arms: arms(&bandit.arms)?,
                policy: bandit.policy,
                reward: bandit.reward.clone(),
                floor: bandit.floor,
                half_life: bandit.half_life,
                publish_every: bandit.publish_every,
                enrolment: bandit.enrolment,
                stop: bandit.stop,
            }),
            Strategy::BlueGreen { to, validate, steps, every, keep_warm } => Strategy::BlueGreen {
                to: look_up(to)?,
                validate: validate.clone(),
                steps: steps.clone(),
                every: *every,
                keep_warm: *keep_warm,
            },
            Strategy::Canary { to, steps } => Strategy::Canary { to: look_up(to)?, steps: steps.clone() },
            Strategy::Shadow { to, validation } => {
                Strategy::Shadow { to: look_up(to)?, validation: validation.clone() }
            }
        };
        Ok(RolloutSpec {
            model: self.model.clone(),
            from: look_up(&self.from)?,
            strategy,
            gates: self.gates.clone(),
            on_failure: self.on_failure,
            on_inconclusive: self.on_inconclusive,
            inconclusive_after: self.inconclusive_after,
            retry_on_stable: self.retry_on_stable,
            interval: self.interval,
            webhooks: self.webhooks.clone(),
        })
    }
}
