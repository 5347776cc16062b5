//! How a rollout stands, as lines of text.

use starling_proto::admin::{Rollout, RolloutGateReport, RolloutNextStep, RolloutPhase, RolloutVersion};

use super::super::get::{micros, percent, weights};
use super::super::output;
use super::{history, moment, words};

/// Cells of a bar that shows a weight.
const BAR_CELLS: u32 = 20;
const WHOLE_PPM: u32 = 1_000_000;
const UNKNOWN: &str = "-";

/// All that is known.
pub(super) fn lines(rollout: &Rollout) -> Vec<String> {
    let mut lines = vec![headline(rollout)];
    if !rollout.why.is_empty() {
        lines.push(format!("why: {}", rollout.why));
    }
    let over = rollout.phase() == RolloutPhase::Finished;
    if over {
        lines.push(format!(
            "from {} to {}",
            moment::shown(rollout.started_unix_us),
            moment::shown(rollout.finished_unix_us)
        ));
    }
    if !rollout.problem.is_empty() {
        lines.push(format!("problem: {}", rollout.problem));
    }
    if !rollout.versions.is_empty() {
        lines.push(String::new());
        lines.extend(version_lines(&rollout.versions));
    } else if !rollout.weights.is_empty() {
        lines.push(format!("weights: {}", weights(&rollout.weights)));
    }
    if !rollout.gates.is_empty() {
        lines.push(String::new());
        lines.extend(gate_lines(&rollout.gates));
    }
    if !rollout.evidence.is_empty() {
        lines.push(String::new());
        lines.push("numbers behind the last step:".to_owned());
        lines.extend(rollout.evidence.iter().map(|measure| format!("  {}", history::measure(measure))));
    }
    if let Some(next) = rollout.next.as_ref().filter(|_| !over) {
        lines.push(String::new());
        lines.extend(next_lines(next));
    }
    lines
}

/// `rollout r: canary of digits, v1 -> v2, running, stage 1 of 3 (shift), epoch 42`.
fn headline(rollout: &Rollout) -> String {
    let model = rollout.spec.as_ref().map(|spec| spec.model.as_str()).unwrap_or_default();
    let mut line = format!(
        "rollout {}: {} of {model}, {}, {}, stage {}",
        rollout.name,
        words::strategy(rollout),
        words::versions(rollout),
        words::state(rollout),
        words::stage(rollout)
    );
    if rollout.epoch > 0 {
        line.push_str(&format!(", epoch {}", rollout.epoch));
    }
    if !rollout.reported_by.is_empty() {
        let count = rollout.reported_by.len();
        line.push_str(&format!(", counts of {count} {}", if count == 1 { "node" } else { "nodes" }));
    }
    line
}

type Column = (&'static str, fn(&RolloutVersion) -> String);

const ALWAYS: &[Column] = &[
    ("version", |version| version.version.clone()),
    ("arm", |version| or_unknown(version.arm.clone())),
    ("weight", |version| percent(version.weight_ppm)),
    ("", |version| bar(version.weight_ppm)),
    ("requests", |version| version.requests.to_string()),
    ("errors", errors),
    ("p50", |version| version.latency_p50_us.map_or_else(unknown, micros)),
    ("p99", |version| version.latency_p99_us.map_or_else(unknown, micros)),
];
const REWARDS: &[Column] = &[
    ("rewards", |version| version.rewards.to_string()),
    ("mean", |version| version.reward_mean.map_or_else(unknown, words::number)),
    ("interval", |version| interval(version.reward_lower, version.reward_upper, words::number)),
];
const BEST: &[Column] = &[("best", |version| version.probability_best.map_or_else(unknown, words::rate))];
const COPIES: &[Column] = &[
    ("compared", |version| version.copies.map_or_else(unknown, |copies| copies.compared.to_string())),
    ("agreed", agreed),
    ("failed", |version| version.copies.map_or_else(unknown, |copies| copies.errors.to_string())),
    ("dropped", |version| version.copies.map_or_else(unknown, |copies| copies.dropped.to_string())),
];

/// Columns of which nothing is known are left out.
fn version_lines(versions: &[RolloutVersion]) -> Vec<String> {
    let any = |known: fn(&RolloutVersion) -> bool| versions.iter().any(known);
    let mut columns = ALWAYS.to_vec();
    if any(|version| version.rewards > 0 || version.reward_mean.is_some()) {
        columns.extend(REWARDS);
    }
    if any(|version| version.probability_best.is_some()) {
        columns.extend(BEST);
    }
    if any(|version| version.copies.is_some()) {
        columns.extend(COPIES);
    }
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let row = |version: &RolloutVersion| columns.iter().map(|(_, cell)| cell(version)).collect();
    output::table_lines(&names, versions.iter().map(row).collect())
}

pub(super) fn gate_lines(gates: &[RolloutGateReport]) -> Vec<String> {
    let row = |report: &RolloutGateReport| {
        let gate = report.gate.unwrap_or_default();
        let shown = if words::is_rate(&gate) { words::rate } else { words::number };
        vec![
            words::gate(&gate),
            report.version.clone(),
            words::verdict(report.verdict()).to_owned(),
            report.value.map_or_else(unknown, shown),
            interval(report.lower, report.upper, shown),
            format!("{} of {}", report.samples, report.samples_needed),
            or_unknown(report.says.clone()),
        ]
    };
    let columns = ["gate", "version", "verdict", "value", "interval", "samples", "says"];
    output::table_lines(&columns, gates.iter().map(row).collect())
}

pub(super) fn next_lines(next: &RolloutNextStep) -> Vec<String> {
    let mut lines = vec![format!("next: {}", next.what)];
    lines.extend(next.waits_for.iter().map(|what| format!("  waits for {what}")));
    lines
}

fn bar(weight_ppm: u32) -> String {
    let filled = (u64::from(weight_ppm) * u64::from(BAR_CELLS)).div_ceil(u64::from(WHOLE_PPM)) as usize;
    let filled = filled.min(BAR_CELLS as usize);
    format!("{}{}", "█".repeat(filled), "░".repeat(BAR_CELLS as usize - filled))
}

fn errors(version: &RolloutVersion) -> String {
    if version.errors == 0 {
        return "0".to_owned();
    }
    let rate = version.errors as f64 / version.requests.max(1) as f64;
    format!("{} ({})", version.errors, words::rate(rate))
}

fn agreed(version: &RolloutVersion) -> String {
    let Some(copies) = version.copies else { return unknown() };
    if copies.compared == 0 {
        return copies.agreed.to_string();
    }
    format!("{} ({})", copies.agreed, words::rate(copies.agreed as f64 / copies.compared as f64))
}

fn interval(lower: Option<f64>, upper: Option<f64>, shown: fn(f64) -> String) -> String {
    match (lower, upper) {
        (Some(lower), Some(upper)) => format!("{} to {}", shown(lower), shown(upper)),
        (Some(lower), None) => format!("at least {}", shown(lower)),
        (None, Some(upper)) => format!("at most {}", shown(upper)),
        (None, None) => unknown(),
    }
}

fn or_unknown(text: String) -> String {
    if text.is_empty() { unknown() } else { text }
}

fn unknown() -> String {
    UNKNOWN.to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use starling_proto::admin::rollout_gate::Test;
    use starling_proto::admin::rollout_spec::Strategy;
    use starling_proto::admin::{
        AgreementGate, BanditStrategy, CanaryStrategy, ErrorRateGate, LatencyRatioGate, RolloutArm,
        RolloutCopies, RolloutEnding, RolloutGate, RolloutMeasure, RolloutSpec, RolloutStage, RolloutVerdict,
        StageKind, WeightedVersion,
    };

    use super::*;

    fn gate(test: Test) -> Option<RolloutGate> {
        Some(RolloutGate { test: Some(test), min_samples: 100, alpha_ppm: 50_000 })
    }

    pub(in super::super) fn canary() -> Rollout {
        let weight = |version: &str, weight_ppm| WeightedVersion { version: version.into(), weight_ppm };
        let stage = RolloutStage { kind: StageKind::Shift.into(), ..RolloutStage::default() };
        Rollout {
            name: "digits-v2".into(),
            spec: Some(RolloutSpec {
                model: "digits".into(),
                from: "v1".into(),
                strategy: Some(Strategy::Canary(CanaryStrategy { to: "v2".into(), steps: vec![] })),
                ..RolloutSpec::default()
            }),
            stages: vec![stage.clone(), stage],
            weights: vec![weight("v1", 900_000), weight("v2", 100_000)],
            epoch: 42,
            revision: 42,
            versions: vec![
                RolloutVersion {
                    version: "v1".into(),
                    arm: "stable".into(),
                    weight_ppm: 900_000,
                    requests: 9_000,
                    latency_p50_us: Some(210.0),
                    latency_p99_us: Some(1_240.0),
                    ..RolloutVersion::default()
                },
                RolloutVersion {
                    version: "v2".into(),
                    arm: "candidate".into(),
                    weight_ppm: 100_000,
                    requests: 1_000,
                    errors: 5,
                    ..RolloutVersion::default()
                },
            ],
            gates: vec![
                RolloutGateReport {
                    gate: gate(Test::ErrorRate(ErrorRateGate { max_ppm: 10_000 })),
                    version: "v2".into(),
                    verdict: RolloutVerdict::Pass.into(),
                    value: Some(0.005),
                    lower: Some(0.001),
                    upper: Some(0.0094),
                    samples: 1_000,
                    samples_needed: 100,
                    says: "at most 1 %".into(),
                },
                RolloutGateReport {
                    gate: gate(Test::LatencyRatio(LatencyRatioGate {
                        quantile_ppm: 990_000,
                        max_ratio_micro: 1_200_000,
                    })),
                    version: "v2".into(),
                    samples: 10,
                    samples_needed: 100,
                    ..RolloutGateReport::default()
                },
            ],
            next: Some(RolloutNextStep {
                what: "v2 gets 100 %".into(),
                waits_for: vec!["90 more samples of latencyP99".into()],
                not_before_ms: Some(59_001),
            }),
            reported_by: vec![1_000, 1_001],
            ..Rollout::default()
        }
    }

    #[test]
    fn a_canary_is_shown_with_its_numbers_gates_and_next_step() {
        assert_eq!(
            lines(&canary()),
            [
                "rollout digits-v2: canary of digits, v1 -> v2, running, stage 1 of 2 (shift), epoch 42, counts of 2 nodes",
                "",
                "VERSION  ARM        WEIGHT                        REQUESTS  ERRORS    P50     P99",
                "v1       stable     90%     ██████████████████░░  9000      0         210 µs  1.24 ms",
                "v2       candidate  10%     ██░░░░░░░░░░░░░░░░░░  1000      5 (0.5%)  -       -",
                "",
                "GATE                VERSION  VERDICT       VALUE  INTERVAL       SAMPLES      SAYS",
                "errorRate <= 1%     v2       pass          0.5%   0.1% to 0.94%  1000 of 100  at most 1 %",
                "latencyP99 <= 1.2x  v2       inconclusive  -      -              10 of 100    -",
                "",
                "next: v2 gets 100 %",
                "  waits for 90 more samples of latencyP99",
            ]
        );
    }

    #[test]
    fn a_bandit_is_shown_with_rewards_intervals_and_probabilities() {
        let arm =
            |version: &str| RolloutArm { name: version.into(), version: version.into(), weight_ppm: 500_000 };
        let rewarded = |version: &str, weight_ppm, mean, best| RolloutVersion {
            version: version.into(),
            arm: version.into(),
            weight_ppm,
            requests: 10,
            rewards: 8,
            reward_mean: Some(mean),
            reward_lower: Some(mean - 0.1),
            reward_upper: Some(mean + 0.1),
            probability_best: Some(best),
            ..RolloutVersion::default()
        };
        let rollout = Rollout {
            name: "b".into(),
            spec: Some(RolloutSpec {
                model: "digits".into(),
                from: "v1".into(),
                strategy: Some(Strategy::Bandit(BanditStrategy {
                    arms: vec![arm("v1"), arm("v2")],
                    ..BanditStrategy::default()
                })),
                ..RolloutSpec::default()
            }),
            stages: vec![RolloutStage { kind: StageKind::Experiment.into(), ..RolloutStage::default() }],
            phase: RolloutPhase::Paused.into(),
            why: "paused by local".into(),
            versions: vec![rewarded("v1", 20_000, 0.8, 0.01), rewarded("v2", 980_000, 0.95, 0.99)],
            ..Rollout::default()
        };
        assert_eq!(
            lines(&rollout),
            [
                "rollout b: bandit of digits, v1 | v2, paused, stage 1 of 1 (experiment)",
                "why: paused by local",
                "",
                "VERSION  ARM  WEIGHT                        REQUESTS  ERRORS  P50  P99  REWARDS  MEAN  INTERVAL      BEST",
                "v1       v1   2%      █░░░░░░░░░░░░░░░░░░░  10        0       -    -    8        0.8   0.7 to 0.9    1%",
                "v2       v2   98%     ████████████████████  10        0       -    -    8        0.95  0.85 to 1.05  99%",
            ]
        );
    }

    #[test]
    fn one_that_was_rolled_back_says_why_and_by_which_numbers() {
        let mut rollout = Rollout {
            phase: RolloutPhase::Finished.into(),
            ending: RolloutEnding::RolledBack.into(),
            why: "agreement of v2 is below 98 %".into(),
            started_unix_us: 1_764_079_200_000_000,
            finished_unix_us: 1_764_079_260_000_000,
            epoch: 0,
            weights: vec![],
            gates: vec![],
            reported_by: vec![],
            evidence: vec![RolloutMeasure {
                what: "agreement".into(),
                version: "v2".into(),
                value_micro: 910_000,
                lower_micro: None,
                upper_micro: Some(930_000),
                samples: 1_000,
            }],
            ..canary()
        };
        rollout.versions.truncate(1);
        rollout.versions[0].copies =
            Some(RolloutCopies { compared: 1_000, agreed: 910, errors: 1, dropped: 2 });
        assert_eq!(
            lines(&rollout),
            [
                "rollout digits-v2: canary of digits, v1 -> v2, rolled back, stage 1 of 2 (shift)",
                "why: agreement of v2 is below 98 %",
                "from 2025-11-25T14:00:00Z to 2025-11-25T14:01:00Z",
                "",
                "VERSION  ARM     WEIGHT                        REQUESTS  ERRORS  P50     P99      COMPARED  AGREED     FAILED  DROPPED",
                "v1       stable  90%     ██████████████████░░  9000      0       210 µs  1.24 ms  1000      910 (91%)  1       2",
                "",
                "numbers behind the last step:",
                "  agreement of v2 0.91 (at most 0.93; 1000)",
            ]
        );
    }

    #[test]
    fn gates_are_shown_as_they_are_written() {
        let shown = |test| words::gate(&gate(test).unwrap_or_default());
        assert_eq!(shown(Test::Agreement(AgreementGate { min_ppm: 980_000 })), "agreement >= 98%");
    }
}
