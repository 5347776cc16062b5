//! Rollouts as the wire shows them: by label instead of ordinal.

use std::sync::Arc;
use std::time::Duration;

use starling_actors::rollout::{
    CopiesReport, DryRun, GateReport, GateVerdict, NextStep, RolloutReport, VersionReport,
};
use starling_proto::admin as wire;
use starling_raft::state::rollouts::{Ending, Measure, RolloutPhase, Weights};
use starling_raft::state::{Model, Ordinal, Rollout, State};

use super::super::route_out::label;
use crate::rollout_wire::{gate_to_wire, spec_to_wire, stage_to_wire};

/// Labels of one model's versions.
#[derive(Clone, Copy)]
pub(super) struct Labels<'a>(Option<&'a Arc<Model>>);

impl<'a> Labels<'a> {
    pub(super) fn of(state: &'a State, rollout: &Rollout) -> Self {
        Self::of_model(state, rollout.spec.model.as_str())
    }

    pub(super) fn of_model(state: &'a State, model: &str) -> Self {
        Self(state.models.get(model))
    }

    fn label(self, ordinal: Ordinal) -> String {
        self.0.map_or_else(|| ordinal.to_string(), |model| label(model, ordinal))
    }

    pub(super) fn weights(self, weights: &Weights) -> Vec<wire::WeightedVersion> {
        let weighted = |(ordinal, weight): &(Ordinal, starling_raft::state::PartsPerMillion)| {
            wire::WeightedVersion { version: self.label(*ordinal), weight_ppm: weight.get() }
        };
        weights.iter().map(weighted).collect()
    }

    pub(super) fn measures(self, measures: &[Measure]) -> Vec<wire::RolloutMeasure> {
        let measure = |measure: &Measure| wire::RolloutMeasure {
            what: measure.what.clone(),
            version: measure.version.map(|version| self.label(version)).unwrap_or_default(),
            value_micro: measure.value.0,
            lower_micro: measure.lower.map(|lower| lower.0),
            upper_micro: measure.upper.map(|upper| upper.0),
            samples: measure.samples,
        };
        measures.iter().map(measure).collect()
    }
}

/// What the log knows of one.
pub(super) fn rollout(state: &State, rollout: &Rollout) -> wire::Rollout {
    let labels = Labels::of(state, rollout);
    let owns = state.rollouts.owner_of(&rollout.spec.model).is_some_and(|owner| owner.name == rollout.name);
    let route = state.routes.get(rollout.spec.model.as_str()).filter(|_| owns);
    let (phase, why) = match &rollout.phase {
        RolloutPhase::Running => (wire::RolloutPhase::Running, String::new()),
        RolloutPhase::Paused { by, .. } => (wire::RolloutPhase::Paused, format!("paused by {}", by.as_str())),
        RolloutPhase::Held { why } => (wire::RolloutPhase::Held, why.clone()),
        RolloutPhase::Finished { why, .. } => (wire::RolloutPhase::Finished, why.clone()),
    };
    let (ending, finished_unix_us) = match &rollout.phase {
        RolloutPhase::Finished { ending, at, .. } => (ending_wire(*ending), at.as_unix_micros()),
        _ => (wire::RolloutEnding::None, 0),
    };
    wire::Rollout {
        name: rollout.name.to_string(),
        spec: Some(spec_to_wire(&rollout.spec, |ordinal| labels.label(*ordinal))),
        phase: phase.into(),
        ending: ending.into(),
        why,
        stage: rollout.stage,
        stages: stages(labels, rollout),
        weights: route.map(|route| labels.weights(&route.weights)).unwrap_or_default(),
        before: labels.weights(&rollout.before),
        started_by: rollout.started_by.as_str().to_owned(),
        started_at_index: rollout.started_at.get(),
        started_unix_us: rollout.started_wall.as_unix_micros(),
        finished_unix_us,
        revision: rollout.revision.get(),
        epoch: route.map_or(0, |route| route.epoch.get()),
        approved: rollout.approved,
        evidence: labels.measures(&rollout.evidence),
        ..wire::Rollout::default()
    }
}

fn stages(labels: Labels<'_>, rollout: &Rollout) -> Vec<wire::RolloutStage> {
    rollout.spec.stages().iter().map(|stage| stage_to_wire(stage, |ordinal| labels.label(ordinal))).collect()
}

/// The same with what the leader counted and concluded.
pub(super) fn report(state: &State, report: &RolloutReport) -> wire::Rollout {
    let labels = Labels::of(state, &report.rollout);
    wire::Rollout {
        versions: report.versions.iter().map(version).collect(),
        gates: report.gates.iter().map(|one| gate(labels, one)).collect(),
        next: Some(next_step(&report.next)),
        reported_by: report.reported_by.iter().map(|node| node.get()).collect(),
        ..rollout(state, &report.rollout)
    }
}

pub(super) fn dry_run(state: &State, dry_run: &DryRun) -> wire::DryRunRolloutResponse {
    let labels = Labels::of_model(state, dry_run.spec.model.as_str());
    let stages = dry_run.stages.iter();
    wire::DryRunRolloutResponse {
        spec: Some(spec_to_wire(&dry_run.spec, |ordinal| labels.label(*ordinal))),
        stages: stages.map(|stage| stage_to_wire(stage, |ordinal| labels.label(ordinal))).collect(),
        gates: dry_run.gates.iter().map(|one| gate(labels, one)).collect(),
        would: Some(next_step(&dry_run.would)),
    }
}

pub(super) fn ending_wire(ending: Ending) -> wire::RolloutEnding {
    match ending {
        Ending::Promoted => wire::RolloutEnding::Promoted,
        Ending::RolledBack => wire::RolloutEnding::RolledBack,
        Ending::Aborted => wire::RolloutEnding::Aborted,
        Ending::Undone => wire::RolloutEnding::Undone,
        Ending::Completed => wire::RolloutEnding::Completed,
    }
}

fn version(version: &VersionReport) -> wire::RolloutVersion {
    let micros = |latency: Duration| latency.as_secs_f64() * 1e6;
    wire::RolloutVersion {
        version: version.label.clone(),
        arm: version.arm.clone().unwrap_or_default(),
        weight_ppm: version.weight.get(),
        requests: version.requests,
        errors: version.errors,
        latency_p50_us: version.latency_p50.map(micros),
        latency_p99_us: version.latency_p99.map(micros),
        rewards: version.rewards,
        reward_mean: version.reward_mean,
        reward_lower: version.reward_interval.map(|(lower, _)| lower),
        reward_upper: version.reward_interval.map(|(_, upper)| upper),
        probability_best: version.probability_best,
        copies: version.copies.map(copies),
    }
}

fn copies(copies: CopiesReport) -> wire::RolloutCopies {
    let CopiesReport { compared, agreed, errors, dropped, .. } = copies;
    wire::RolloutCopies { compared, agreed, errors, dropped }
}

fn gate(labels: Labels<'_>, report: &GateReport) -> wire::RolloutGateReport {
    wire::RolloutGateReport {
        gate: Some(gate_to_wire(&report.gate)),
        version: labels.label(report.version),
        verdict: match report.verdict {
            GateVerdict::Pass => wire::RolloutVerdict::Pass,
            GateVerdict::Fail => wire::RolloutVerdict::Fail,
            GateVerdict::Inconclusive => wire::RolloutVerdict::Inconclusive,
        }
        .into(),
        value: report.value,
        lower: report.lower,
        upper: report.upper,
        samples: report.samples,
        samples_needed: report.samples_needed,
        says: report.says.clone(),
    }
}

fn next_step(next: &NextStep) -> wire::RolloutNextStep {
    wire::RolloutNextStep {
        what: next.what.clone(),
        waits_for: next.waits_for.clone(),
        not_before_ms: next.not_before.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
    }
}
