//! What people read of a rollout, in few words.

use starling_proto::admin::rollout_gate::Test;
use starling_proto::admin::rollout_spec::Strategy;
use starling_proto::admin::{Rollout, RolloutEnding, RolloutGate, RolloutPhase, RolloutVerdict, StageKind};

use super::super::get::percent;

/// As manifests write it.
pub(super) fn strategy(rollout: &Rollout) -> &'static str {
    match rollout.spec.as_ref().and_then(|spec| spec.strategy.as_ref()) {
        Some(Strategy::BlueGreen(_)) => "blueGreen",
        Some(Strategy::Canary(_)) => "canary",
        Some(Strategy::Shadow(_)) => "shadow",
        Some(Strategy::AbTest(_)) => "abTest",
        Some(Strategy::Bandit(_)) => "bandit",
        None => "unknown",
    }
}

/// `v1 -> v2`, or the arms.
pub(super) fn versions(rollout: &Rollout) -> String {
    let Some(spec) = &rollout.spec else { return String::new() };
    let arms = |arms: &[starling_proto::admin::RolloutArm]| {
        arms.iter().map(|arm| arm.version.clone()).collect::<Vec<_>>().join(" | ")
    };
    match &spec.strategy {
        Some(Strategy::BlueGreen(plan)) => format!("{} -> {}", spec.from, plan.to),
        Some(Strategy::Canary(plan)) => format!("{} -> {}", spec.from, plan.to),
        Some(Strategy::Shadow(plan)) => format!("{} -> {}", spec.from, plan.to),
        Some(Strategy::AbTest(plan)) => arms(&plan.arms),
        Some(Strategy::Bandit(plan)) => arms(&plan.arms),
        None => spec.from.clone(),
    }
}

/// `running`, `paused`, `held`, or how it ended.
pub(super) fn state(rollout: &Rollout) -> String {
    match rollout.phase() {
        RolloutPhase::Running => "running".to_owned(),
        RolloutPhase::Paused => "paused".to_owned(),
        RolloutPhase::Held => "held".to_owned(),
        RolloutPhase::Finished => ending_words(rollout.ending()).to_owned(),
    }
}

/// How it ended.
pub fn ending_words(ending: RolloutEnding) -> &'static str {
    match ending {
        RolloutEnding::None => "not over",
        RolloutEnding::Promoted => "promoted",
        RolloutEnding::RolledBack => "rolled back",
        RolloutEnding::Aborted => "aborted",
        RolloutEnding::Undone => "undone",
        RolloutEnding::Completed => "completed",
    }
}

/// `2 of 3 (shift)`.
pub(super) fn stage(rollout: &Rollout) -> String {
    let kind = rollout.stages.get(rollout.stage as usize).map(|stage| stage.kind());
    let kind = kind.map(|kind| format!(" ({})", stage_kind(kind))).unwrap_or_default();
    format!("{} of {}{kind}", rollout.stage + 1, rollout.stages.len())
}

pub(super) fn stage_kind(kind: StageKind) -> &'static str {
    match kind {
        StageKind::Validate => "validate",
        StageKind::Shift => "shift",
        StageKind::KeepWarm => "keep warm",
        StageKind::Experiment => "experiment",
    }
}

pub(super) fn verdict(verdict: RolloutVerdict) -> &'static str {
    match verdict {
        RolloutVerdict::Pass => "pass",
        RolloutVerdict::Fail => "fail",
        RolloutVerdict::Inconclusive => "inconclusive",
    }
}

/// `errorRate <= 1%`.
pub(super) fn gate(gate: &RolloutGate) -> String {
    match &gate.test {
        Some(Test::ErrorRate(test)) => format!("errorRate <= {}", percent(test.max_ppm)),
        Some(Test::ErrorRateDifference(test)) => {
            format!("errorRateDifference <= {}", percent(test.max_ppm))
        }
        Some(Test::LatencyRatio(test)) => {
            let quantile = percent(test.quantile_ppm);
            format!("latencyP{} <= {}x", quantile.trim_end_matches('%'), micro(test.max_ratio_micro))
        }
        Some(Test::Agreement(test)) => format!("agreement >= {}", percent(test.min_ppm)),
        Some(Test::RewardDifference(test)) => {
            format!("rewardDifference >= {}", micro(-test.max_drop_micro))
        }
        None => "unknown".to_owned(),
    }
}

/// Whether its numbers are parts of a whole.
pub(super) fn is_rate(gate: &RolloutGate) -> bool {
    matches!(gate.test, Some(Test::ErrorRate(_) | Test::ErrorRateDifference(_) | Test::Agreement(_)))
}

/// Millionths, as a number.
pub(super) fn micro(micro: i64) -> String {
    number(micro as f64 / 1e6)
}

/// At most four decimals, and none that say nothing.
pub(super) fn number(number: f64) -> String {
    let text = format!("{number:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Of a whole.
pub(super) fn rate(rate: f64) -> String {
    let text = format!("{:.2}", rate * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}
