//! The next step of a rollout that goes from stage to stage: when a stage is over,
//! what it still waits for, and what becomes of one whose gates cannot tell.

use starling_raft::state::rollouts::spec::OnInconclusive;
use starling_raft::state::rollouts::stages::{Stage, StageKind};
use starling_raft::state::{Ordinal, RolloutCommand};

use super::super::gates::Judged;
use super::super::report::NextStep;
use super::{Decided, Scene, evidence_of, open_gates};

pub(super) fn decide(scene: &Scene<'_>, stage: &Stage, gates: &[Judged]) -> Decided {
    let rollout = scene.rollout;
    let over_at = rollout.stage_since.plus_micros(stage.hold.as_micros());
    let not_before = scene.until(over_at);
    let gates: Vec<&Judged> = gates.iter().collect();
    let open = open_gates(scene, &gates);
    let too_few = too_few_requests(scene, stage);
    let approval = (stage.until_approved && !rollout.approved)
        .then(|| format!("approval: `starling rollout promote {}`", rollout.name));

    let mut waits_for: Vec<String> = Vec::new();
    waits_for.extend(not_before.map(|left| format!("{} s of log time", left.as_secs_f64().ceil())));
    waits_for.extend(approval.clone());
    waits_for.extend(too_few.clone());
    waits_for.extend(open.iter().cloned());
    waits_for.extend(scene.unheard());
    let what = next_in_words(scene, stage);
    if waits_for.is_empty() {
        let passed: Vec<String> =
            gates.iter().filter(|gate| gate.is_asked).map(|gate| gate.what().to_owned()).collect();
        let why = match passed.is_empty() {
            true => format!("stage {} is over and has no gates", rollout.stage + 1),
            false => format!("stage {} is over and its gates pass: {}", rollout.stage + 1, passed.join(", ")),
        };
        return go_on(scene, &gates, why, what);
    }
    let waiting = Decided { command: None, next: NextStep { what, waits_for, not_before } };
    let is_only_open = not_before.is_none() && approval.is_none() && scene.unheard.is_empty();
    let patience_ends = over_at.plus_micros(rollout.spec.inconclusive_after.as_micros());
    if !is_only_open || scene.until(patience_ends).is_some() {
        return waiting;
    }

    let mut missing: Vec<String> = too_few.iter().cloned().collect();
    missing.extend(open);
    let why = format!(
        "the gates could not tell for {} s: {}",
        rollout.spec.inconclusive_after.0 / 1_000,
        missing.join("; ")
    );
    match rollout.spec.on_inconclusive {
        OnInconclusive::Hold => {
            let step = scene.step(why.clone(), evidence_of(&gates));
            Decided::doing(RolloutCommand::Hold { step }, format!("a person is asked: {why}"))
        }
        OnInconclusive::Rollback => {
            let step = scene.step(why.clone(), evidence_of(&gates));
            let what = format!("{} gets everything back: {why}", scene.label(rollout.stable()));
            Decided::doing(RolloutCommand::RollBack { step }, what)
        }
        OnInconclusive::Promote => {
            let enough =
                too_few.is_none() && gates.iter().all(|gate| gate.lets_pass() || gate.is_open_with_enough());
            // Nothing is promoted on silence, whatever the plan says.
            if !enough {
                return waiting;
            }
            let what = next_in_words(scene, stage);
            go_on(scene, &gates, format!("{why}; the plan goes on then"), what)
        }
    }
}

/// To the next stage, or to the end.
fn go_on(scene: &Scene<'_>, gates: &[&Judged], why: String, what: String) -> Decided {
    let rollout = scene.rollout;
    let step = scene.step(why, evidence_of(gates));
    let next = rollout.stage + 1;
    let command = if (next as usize) < rollout.spec.stages().len() {
        RolloutCommand::Advance { step, stage: next }
    } else {
        RolloutCommand::Conclude { step, winner: None }
    };
    Decided::doing(command, what)
}

/// What the stage's minimum of requests still lacks.
fn too_few_requests(scene: &Scene<'_>, stage: &Stage) -> Option<String> {
    let candidate = *scene.rollout.spec.candidate()?;
    let (have, what) = match stage.kind {
        StageKind::Validate => (scene.measures.compared_of(candidate), "copies compared"),
        _ => (scene.measures.requests_of(candidate), "requests answered by the candidate"),
    };
    let need = stage.min_requests;
    (have < need).then(|| format!("{have} of {need} {what}"))
}

fn next_in_words(scene: &Scene<'_>, stage: &Stage) -> String {
    let rollout = scene.rollout;
    let stages = rollout.spec.stages();
    let candidate = rollout.spec.candidate().map(|candidate| scene.label(*candidate)).unwrap_or_default();
    let weight_of = |stage: &Stage, version: Ordinal| {
        stage.weights.iter().find(|(ordinal, _)| *ordinal == version).map_or(0, |(_, weight)| weight.get())
    };
    match (stages.get(rollout.stage as usize + 1), rollout.spec.candidate()) {
        (Some(next), Some(version)) => {
            format!("{candidate} gets {} %", f64::from(weight_of(next, *version)) / 10_000.0)
        }
        (None, _) if stage.kind == StageKind::Validate => {
            format!("the comparison of {candidate} is complete")
        }
        _ => format!("{candidate} is promoted"),
    }
}
