//! From the wire to a plan. What is refused names the field as manifests call it.

use starling_proto::admin as wire;
use starling_raft::state::rollouts::RolloutSpec;
use starling_raft::state::rollouts::spec::{
    Arm, Bandit, BanditPolicy, CanaryStep, Correction, Experiment, Gate, GateTest, Micro, Millis, OnFailure,
    OnInconclusive, Pause, Reward, RewardKind, StopRule, Strategy, Validation,
};
use starling_raft::state::{PartsPerMillion, VersionRef};

use crate::servers::route_in;

type Wanted = Option<VersionRef>;
type Read<T> = Result<T, String>;

/// A plan; `None` where no version is named.
pub(crate) fn spec_from_wire(spec: &wire::RolloutSpec) -> Read<RolloutSpec<Wanted>> {
    use wire::rollout_spec::Strategy as Wire;
    let strategy = match spec.strategy.as_ref().ok_or("spec.strategy is missing")? {
        Wire::BlueGreen(plan) => Strategy::BlueGreen {
            to: version("spec.to", &plan.to)?,
            validate: plan
                .validate
                .as_ref()
                .map(|copies| validation("spec.strategy.blueGreen.validate", copies))
                .transpose()?,
            steps: plan
                .steps_ppm
                .iter()
                .map(|step| ppm("spec.strategy.blueGreen.steps", *step))
                .collect::<Read<_>>()?,
            every: Millis(plan.every_ms),
            keep_warm: Millis(plan.keep_warm_ms),
        },
        Wire::Canary(plan) => Strategy::Canary {
            to: version("spec.to", &plan.to)?,
            steps: plan.steps.iter().enumerate().map(canary_step).collect::<Read<_>>()?,
        },
        Wire::Shadow(plan) => Strategy::Shadow {
            to: version("spec.to", &plan.to)?,
            validation: validation("spec.strategy.shadow", &plan.validation.clone().unwrap_or_default())?,
        },
        Wire::AbTest(plan) => Strategy::AbTest(ab_test(plan)?),
        Wire::Bandit(plan) => Strategy::Bandit(bandit(plan)?),
    };
    Ok(RolloutSpec {
        model: spec.model.parse().map_err(|error| format!("spec.model: {error}"))?,
        from: version("spec.from", &spec.from)?,
        strategy,
        gates: gates("spec.gates", &spec.gates)?,
        on_failure: match spec.on_failure() {
            wire::OnFailure::Rollback => OnFailure::Rollback,
            wire::OnFailure::Hold => OnFailure::Hold,
        },
        on_inconclusive: match spec.on_inconclusive() {
            wire::OnInconclusive::Hold => OnInconclusive::Hold,
            wire::OnInconclusive::Rollback => OnInconclusive::Rollback,
            wire::OnInconclusive::Promote => OnInconclusive::Promote,
        },
        inconclusive_after: Millis(spec.inconclusive_after_ms),
        retry_on_stable: spec.retry_on_stable,
        interval: Millis(spec.interval_ms),
        webhooks: spec.webhooks.clone(),
    })
}

/// Arms as `SetRolloutArms` and plans name them.
pub(crate) fn arms_from_wire(path: &str, arms: &[wire::RolloutArm]) -> Read<Vec<Arm<Wanted>>> {
    let arm = |(index, arm): (usize, &wire::RolloutArm)| {
        let path = format!("{path}[{index}]");
        let name = if arm.name.is_empty() { &arm.version } else { &arm.name };
        Ok(Arm {
            name: name.parse().map_err(|error| format!("{path}.name: {error}"))?,
            version: version(&format!("{path}.version"), &arm.version)?,
            weight: ppm(&format!("{path}.weight"), arm.weight_ppm)?,
        })
    };
    arms.iter().enumerate().map(arm).collect()
}

fn version(path: &str, text: &str) -> Read<Wanted> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| format!("{path}: {error}"))
}

fn ppm(path: &str, ppm: u32) -> Read<PartsPerMillion> {
    PartsPerMillion::new(ppm).map_err(|error| format!("{path}: {error}"))
}

fn gates(path: &str, gates: &[wire::RolloutGate]) -> Read<Vec<Gate>> {
    gates.iter().enumerate().map(|(index, one)| gate(&format!("{path}[{index}]"), one)).collect()
}

fn gate(path: &str, gate: &wire::RolloutGate) -> Read<Gate> {
    use wire::rollout_gate::Test as Wire;
    let test = match gate.test.as_ref().ok_or_else(|| format!("{path} tests nothing"))? {
        Wire::ErrorRate(test) => {
            GateTest::ErrorRate { max: ppm(&format!("{path}.errorRate.max"), test.max_ppm)? }
        }
        Wire::ErrorRateDifference(test) => {
            let max = ppm(&format!("{path}.errorRateDifference.max"), test.max_ppm)?;
            GateTest::ErrorRateDifference { max }
        }
        Wire::LatencyRatio(test) => GateTest::LatencyRatio {
            quantile: ppm(&format!("{path}.latency"), test.quantile_ppm)?,
            max_ratio: Micro(test.max_ratio_micro),
        },
        Wire::Agreement(test) => {
            GateTest::Agreement { min: ppm(&format!("{path}.agreement.min"), test.min_ppm)? }
        }
        Wire::RewardDifference(test) => GateTest::RewardDifference { max_drop: Micro(test.max_drop_micro) },
    };
    let alpha = ppm(&format!("{path}.alpha"), gate.alpha_ppm)?;
    Ok(Gate { test, min_samples: gate.min_samples, alpha })
}

fn canary_step((index, step): (usize, &wire::CanaryStep)) -> Read<CanaryStep> {
    let path = format!("spec.strategy.canary.steps[{index}]");
    Ok(CanaryStep {
        weight: ppm(&format!("{path}.weight"), step.weight_ppm)?,
        pause: if step.until_approved { Pause::UntilApproved } else { Pause::For(Millis(step.pause_ms)) },
        gates: gates(&format!("{path}.gates"), &step.gates)?,
    })
}

fn validation(path: &str, validation: &wire::RolloutValidation) -> Read<Validation> {
    let said = |status: tonic::Status| status.message().to_owned();
    let comparison = validation.comparison.as_ref();
    Ok(Validation {
        hold: Millis(validation.hold_ms),
        min_requests: validation.min_requests,
        portion: ppm(&format!("{path}.portion"), validation.portion_ppm)?,
        when: route_in::conditions(&format!("{path}.when"), &validation.when).map_err(said)?,
        comparison: route_in::comparison(&format!("{path}.comparison"), comparison).map_err(said)?,
    })
}

fn ab_test(plan: &wire::AbTestStrategy) -> Read<Experiment<Wanted>> {
    const PATH: &str = "spec.strategy.abTest";
    Ok(Experiment {
        arms: arms_from_wire(&format!("{PATH}.arms"), &plan.arms)?,
        metric: reward(plan.metric.clone().unwrap_or_default()),
        alpha: ppm(&format!("{PATH}.alpha"), plan.alpha_ppm)?,
        correction: match plan.correction() {
            wire::Correction::Holm => Correction::Holm,
            wire::Correction::None => Correction::None,
            wire::Correction::Bonferroni => Correction::Bonferroni,
            wire::Correction::BenjaminiHochberg => Correction::BenjaminiHochberg,
        },
        decide_automatically: plan.decide_automatically,
        enrolment: ppm(&format!("{PATH}.enrolment"), plan.enrolment_ppm)?,
        min_rewards: plan.min_rewards,
        max_duration: Millis(plan.max_duration_ms),
    })
}

fn bandit(plan: &wire::BanditStrategy) -> Read<Bandit<Wanted>> {
    const PATH: &str = "spec.strategy.bandit";
    use wire::bandit_strategy::Policy;
    let policy = match &plan.policy {
        Some(Policy::EpsilonGreedy(policy)) => BanditPolicy::EpsilonGreedy {
            epsilon: ppm(&format!("{PATH}.policy.epsilonGreedy.epsilon"), policy.epsilon_ppm)?,
            half_after: policy.half_after,
        },
        Some(Policy::Ucb1(_)) => BanditPolicy::Ucb1,
        Some(Policy::TopTwoThompson(policy)) => BanditPolicy::TopTwoThompson {
            leader: ppm(&format!("{PATH}.policy.topTwoThompson.leader"), policy.leader_ppm)?,
        },
        Some(Policy::Thompson(_)) | None => BanditPolicy::Thompson,
    };
    let stop = match &plan.stop {
        Some(stop) => Some(StopRule {
            probability_best: ppm(&format!("{PATH}.stop.probabilityBest"), stop.probability_best_ppm)?,
            min_rewards: stop.min_rewards,
        }),
        None => None,
    };
    Ok(Bandit {
        arms: arms_from_wire(&format!("{PATH}.arms"), &plan.arms)?,
        policy,
        reward: reward(plan.reward.clone().unwrap_or_default()),
        floor: ppm(&format!("{PATH}.floor"), plan.floor_ppm)?,
        half_life: (plan.half_life_ms > 0).then_some(Millis(plan.half_life_ms)),
        publish_every: Millis(plan.publish_every_ms),
        enrolment: ppm(&format!("{PATH}.enrolment"), plan.enrolment_ppm)?,
        stop,
    })
}

fn reward(reward: wire::RolloutReward) -> Reward {
    use wire::rollout_reward::Kind;
    let kind = match reward.kind {
        Some(Kind::Bounded(bounds)) => {
            RewardKind::Bounded { floor: Micro(bounds.floor_micro), ceiling: Micro(bounds.ceiling_micro) }
        }
        Some(Kind::Unbounded(_)) => RewardKind::Unbounded,
        Some(Kind::Conversion(_)) | None => RewardKind::Conversion,
    };
    let labels = reward.labels.into_iter().map(|label| (label.label, Micro(label.reward_micro))).collect();
    Reward { kind, higher_is_better: !reward.lower_is_better, labels }
}
