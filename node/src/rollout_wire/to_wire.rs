//! From a plan to the wire.

use starling_proto::admin as wire;
use starling_raft::state::Ordinal;
use starling_raft::state::rollouts::spec::{
    Arm, Bandit, BanditPolicy, CanaryStep, Correction, Experiment, Gate, GateTest, OnFailure, OnInconclusive,
    Pause, Reward, RewardKind, Strategy, Validation,
};
use starling_raft::state::rollouts::{RolloutSpec, Stage, StageKind};

use crate::servers::route_out;

/// `name`: what a version is called on the wire.
pub(crate) fn spec_to_wire<V>(spec: &RolloutSpec<V>, name: impl Fn(&V) -> String) -> wire::RolloutSpec {
    use wire::rollout_spec::Strategy as Wire;
    let strategy = match &spec.strategy {
        Strategy::BlueGreen { to, validate, steps, every, keep_warm } => {
            Wire::BlueGreen(wire::BlueGreenStrategy {
                to: name(to),
                validate: validate.as_ref().map(validation),
                steps_ppm: steps.iter().map(|step| step.get()).collect(),
                every_ms: every.0,
                keep_warm_ms: keep_warm.0,
            })
        }
        Strategy::Canary { to, steps } => Wire::Canary(wire::CanaryStrategy {
            to: name(to),
            steps: steps.iter().map(canary_step).collect(),
        }),
        Strategy::Shadow { to, validation: copies } => {
            Wire::Shadow(wire::ShadowStrategy { to: name(to), validation: Some(validation(copies)) })
        }
        Strategy::AbTest(experiment) => Wire::AbTest(ab_test(experiment, &name)),
        Strategy::Bandit(plan) => Wire::Bandit(bandit(plan, &name)),
    };
    wire::RolloutSpec {
        model: spec.model.to_string(),
        from: name(&spec.from),
        strategy: Some(strategy),
        gates: spec.gates.iter().map(gate_to_wire).collect(),
        on_failure: match spec.on_failure {
            OnFailure::Rollback => wire::OnFailure::Rollback,
            OnFailure::Hold => wire::OnFailure::Hold,
        }
        .into(),
        on_inconclusive: match spec.on_inconclusive {
            OnInconclusive::Hold => wire::OnInconclusive::Hold,
            OnInconclusive::Rollback => wire::OnInconclusive::Rollback,
            OnInconclusive::Promote => wire::OnInconclusive::Promote,
        }
        .into(),
        inconclusive_after_ms: spec.inconclusive_after.0,
        retry_on_stable: spec.retry_on_stable,
        interval_ms: spec.interval.0,
        webhooks: spec.webhooks.clone(),
    }
}

pub(crate) fn gate_to_wire(gate: &Gate) -> wire::RolloutGate {
    use wire::rollout_gate::Test as Wire;
    let test = match gate.test {
        GateTest::ErrorRate { max } => Wire::ErrorRate(wire::ErrorRateGate { max_ppm: max.get() }),
        GateTest::ErrorRateDifference { max } => {
            Wire::ErrorRateDifference(wire::ErrorRateDifferenceGate { max_ppm: max.get() })
        }
        GateTest::LatencyRatio { quantile, max_ratio } => Wire::LatencyRatio(wire::LatencyRatioGate {
            quantile_ppm: quantile.get(),
            max_ratio_micro: max_ratio.0,
        }),
        GateTest::Agreement { min } => Wire::Agreement(wire::AgreementGate { min_ppm: min.get() }),
        GateTest::RewardDifference { max_drop } => {
            Wire::RewardDifference(wire::RewardDifferenceGate { max_drop_micro: max_drop.0 })
        }
    };
    wire::RolloutGate { test: Some(test), min_samples: gate.min_samples, alpha_ppm: gate.alpha.get() }
}

pub(crate) fn stage_to_wire(stage: &Stage, name: impl Fn(Ordinal) -> String) -> wire::RolloutStage {
    let weight = |(ordinal, weight): &(Ordinal, starling_raft::state::PartsPerMillion)| {
        wire::WeightedVersion { version: name(*ordinal), weight_ppm: weight.get() }
    };
    wire::RolloutStage {
        kind: match stage.kind {
            StageKind::Validate => wire::StageKind::Validate,
            StageKind::Shift => wire::StageKind::Shift,
            StageKind::KeepWarm => wire::StageKind::KeepWarm,
            StageKind::Experiment => wire::StageKind::Experiment,
        }
        .into(),
        weights: stage.weights.iter().map(weight).collect(),
        hold_ms: stage.hold.0,
        min_requests: stage.min_requests,
        until_approved: stage.until_approved,
        shadow: stage.shadow.as_ref().map(|shadow| name(shadow.version)).unwrap_or_default(),
    }
}

fn canary_step(step: &CanaryStep) -> wire::CanaryStep {
    let (pause_ms, until_approved) = match step.pause {
        Pause::For(pause) => (pause.0, false),
        Pause::UntilApproved => (0, true),
    };
    wire::CanaryStep {
        weight_ppm: step.weight.get(),
        pause_ms,
        until_approved,
        gates: step.gates.iter().map(gate_to_wire).collect(),
    }
}

fn validation(validation: &Validation) -> wire::RolloutValidation {
    wire::RolloutValidation {
        hold_ms: validation.hold.0,
        min_requests: validation.min_requests,
        portion_ppm: validation.portion.get(),
        when: route_out::conditions(&validation.when),
        comparison: Some(route_out::comparison(&validation.comparison)),
    }
}

fn arms<V>(arms: &[Arm<V>], name: &impl Fn(&V) -> String) -> Vec<wire::RolloutArm> {
    arms.iter()
        .map(|arm| wire::RolloutArm {
            name: arm.name.to_string(),
            version: name(&arm.version),
            weight_ppm: arm.weight.get(),
        })
        .collect()
}

fn ab_test<V>(experiment: &Experiment<V>, name: &impl Fn(&V) -> String) -> wire::AbTestStrategy {
    wire::AbTestStrategy {
        arms: arms(&experiment.arms, name),
        metric: Some(reward(&experiment.metric)),
        alpha_ppm: experiment.alpha.get(),
        correction: match experiment.correction {
            Correction::None => wire::Correction::None,
            Correction::Bonferroni => wire::Correction::Bonferroni,
            Correction::Holm => wire::Correction::Holm,
            Correction::BenjaminiHochberg => wire::Correction::BenjaminiHochberg,
        }
        .into(),
        decide_automatically: experiment.decide_automatically,
        enrolment_ppm: experiment.enrolment.get(),
        min_rewards: experiment.min_rewards,
        max_duration_ms: experiment.max_duration.0,
    }
}

fn bandit<V>(bandit: &Bandit<V>, name: &impl Fn(&V) -> String) -> wire::BanditStrategy {
    use wire::bandit_strategy::Policy;
    let policy = match bandit.policy {
        BanditPolicy::EpsilonGreedy { epsilon, half_after } => {
            Policy::EpsilonGreedy(wire::EpsilonGreedyPolicy { epsilon_ppm: epsilon.get(), half_after })
        }
        BanditPolicy::Ucb1 => Policy::Ucb1(wire::Ucb1Policy {}),
        BanditPolicy::Thompson => Policy::Thompson(wire::ThompsonPolicy {}),
        BanditPolicy::TopTwoThompson { leader } => {
            Policy::TopTwoThompson(wire::TopTwoThompsonPolicy { leader_ppm: leader.get() })
        }
    };
    wire::BanditStrategy {
        arms: arms(&bandit.arms, name),
        policy: Some(policy),
        reward: Some(reward(&bandit.reward)),
        floor_ppm: bandit.floor.get(),
        half_life_ms: bandit.half_life.map_or(0, |half_life| half_life.0),
        publish_every_ms: bandit.publish_every.0,
        enrolment_ppm: bandit.enrolment.get(),
        stop: bandit.stop.map(|stop| wire::BanditStop {
            probability_best_ppm: stop.probability_best.get(),
            min_rewards: stop.min_rewards,
        }),
    }
}

fn reward(reward: &Reward) -> wire::RolloutReward {
    use wire::rollout_reward::Kind;
    let kind = match reward.kind {
        RewardKind::Conversion => Kind::Conversion(wire::ConversionReward {}),
        RewardKind::Bounded { floor, ceiling } => {
            Kind::Bounded(wire::BoundedReward { floor_micro: floor.0, ceiling_micro: ceiling.0 })
        }
        RewardKind::Unbounded => Kind::Unbounded(wire::UnboundedReward {}),
    };
    let label = |(label, reward): &(String, starling_raft::state::rollouts::spec::Micro)| wire::RewardLabel {
        label: label.clone(),
        reward_micro: reward.0,
    };
    wire::RolloutReward {
        kind: Some(kind),
        lower_is_better: !reward.higher_is_better,
        labels: reward.labels.iter().map(label).collect(),
    }
}
