//! What a plan would do, given what the cluster has counted so far.

use starling_proto::admin::{DryRunRolloutResponse, RolloutStage};

use super::super::{duration, get, output};
use super::{view, words};

/// Its stages, what its gates say now, and what the first look would lead to.
pub fn dry_run_lines(name: &str, answer: &DryRunRolloutResponse) -> Vec<String> {
    let model = answer.spec.as_ref().map(|spec| spec.model.as_str()).unwrap_or_default();
    let mut lines =
        vec![format!("rollout {name} of model {model} would go through {}:", stages(answer.stages.len()))];
    let rows = answer.stages.iter().enumerate().map(|(index, stage)| row(index, stage)).collect();
    let columns = ["stage", "kind", "weights", "copies to", "at least", "then"];
    lines.extend(output::table_lines(&columns, rows));
    if answer.gates.is_empty() {
        lines.push("it has no gates: nothing but time stands before its end".to_owned());
    } else {
        lines.push("what its gates say of what was counted so far:".to_owned());
        lines.extend(view::gate_lines(&answer.gates));
    }
    if let Some(would) = &answer.would {
        lines.push("started now, by these numbers:".to_owned());
        lines.extend(view::next_lines(would));
    }
    lines
}

fn stages(count: usize) -> String {
    if count == 1 { "one stage".to_owned() } else { format!("{count} stages") }
}

fn row(index: usize, stage: &RolloutStage) -> Vec<String> {
    let mut least = Vec::new();
    if stage.hold_ms > 0 {
        least.push(duration::from_millis(stage.hold_ms));
    }
    if stage.min_requests > 0 {
        least.push(format!("{} requests", stage.min_requests));
    }
    vec![
        (index + 1).to_string(),
        words::stage_kind(stage.kind()).to_owned(),
        get::weights(&stage.weights),
        if stage.shadow.is_empty() { "-".to_owned() } else { stage.shadow.clone() },
        if least.is_empty() { "-".to_owned() } else { least.join(", ") },
        if stage.until_approved { "approval".to_owned() } else { "by itself".to_owned() },
    ]
}

#[cfg(test)]
mod tests {
    use starling_proto::admin::{RolloutNextStep, RolloutSpec, StageKind, WeightedVersion};

    use super::*;

    #[test]
    fn stages_gates_and_the_first_step_are_shown() {
        let weight = |version: &str, weight_ppm| WeightedVersion { version: version.into(), weight_ppm };
        let answer = DryRunRolloutResponse {
            spec: Some(RolloutSpec { model: "digits".into(), ..RolloutSpec::default() }),
            stages: vec![
                RolloutStage {
                    kind: StageKind::Validate.into(),
                    weights: vec![weight("v1", 1_000_000)],
                    hold_ms: 600_000,
                    min_requests: 1_000,
                    shadow: "v2".into(),
                    ..RolloutStage::default()
                },
                RolloutStage {
                    kind: StageKind::Shift.into(),
                    weights: vec![weight("v1", 900_000), weight("v2", 100_000)],
                    until_approved: true,
                    ..RolloutStage::default()
                },
            ],
            gates: vec![],
            would: Some(RolloutNextStep {
                what: "v2 gets 10 %".into(),
                waits_for: vec!["10 minutes".into()],
                not_before_ms: Some(600_000),
            }),
        };
        assert_eq!(
            dry_run_lines("r", &answer),
            [
                "rollout r of model digits would go through 2 stages:",
                "STAGE  KIND      WEIGHTS        COPIES TO  AT LEAST            THEN",
                "1      validate  v1=100%        v2         10m, 1000 requests  by itself",
                "2      shift     v1=90% v2=10%  -          -                   approval",
                "it has no gates: nothing but time stands before its end",
                "started now, by these numbers:",
                "next: v2 gets 10 %",
                "  waits for 10 minutes",
            ]
        );
    }
}
