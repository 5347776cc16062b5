//! What is to be done with one rollout now: a pure function of its state, of what
//! all nodes counted, of log time, and of what the looks before left behind.
//!
//! Order of judging: a version that nobody can serve, then gates, both in every
//! phase; then, of a rollout that runs, whether its stage is over or its arms have
//! a winner. What is missing is said; silence promotes nobody.

mod arms;
mod stages;

use std::collections::BTreeSet;
use std::time::Duration;

use starling_raft::state::rollouts::commands::Step;
use starling_raft::state::rollouts::spec::{OnFailure, Strategy};
use starling_raft::state::rollouts::stages::Stage;
use starling_raft::state::rollouts::{EVIDENCE_MAX, Ending, Measure, RolloutPhase};
use starling_raft::state::{LogIndex, LogTime, Model, NodeId, Ordinal, Phase, Rollout, RolloutCommand};

use super::bandit_look::BanditLook;
use super::experiment_look::{ExperimentLook, KeptPValues};
use super::gates::{Judged, Streaks, judge, streaks_after, tried_versions};
use super::measures::Measures;
use super::report::NextStep;

/// All that a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The rollout.
    pub rollout: &'a Rollout,
    /// Its model.
    pub model: &'a Model,
    /// What was counted and learnt.
    pub measures: &'a Measures,
    /// Log time.
    pub now: LogTime,
    /// Versions that no live node has had loaded for a while, though some live
    /// node has the stable one.
    pub gone: &'a BTreeSet<Ordinal>,
    /// Live nodes whose counts are not known by now: what they saw might forbid
    /// what the others' counts allow.
    pub unheard: &'a [NodeId],
    /// What the looks before left behind.
    pub memory: &'a Memory,
}

/// What a look leaves for the next. It is the leader's own: a new leader begins
/// without, and needs one look more before it goes on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// Of which run and stage this is.
    of: Option<(LogIndex, u32)>,
    streaks: Streaks,
    p_values: KeptPValues,
}

/// What one look comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// To be proposed.
    pub command: Option<RolloutCommand>,
    /// Every gate of the stage, of every version that is tried.
    pub gates: Vec<Judged>,
    /// Of an experiment or a bandit.
    pub arms: ArmsLook,
    /// For people.
    pub next: NextStep,
    /// For the next look.
    pub memory: Memory,
}

/// What is known of arms.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum ArmsLook {
    /// There are none, or nothing can be said of them.
    #[default]
    None,
    /// Of an A/B test.
    Experiment(ExperimentLook),
    /// Of a bandit.
    Bandit(BanditLook),
}

/// A command or none, and what comes next in words.
struct Decided {
    command: Option<RolloutCommand>,
    next: NextStep,
}

impl Memory {
    /// What of it still counts: streaks end with their stage, p-values with the run.
    fn still_valid(&self, rollout: &Rollout) -> Self {
        let (run, stage) = (rollout.started_at, rollout.stage);
        let same_run = self.of.is_some_and(|(of, _)| of == run);
        let same_stage = self.of == Some((run, stage));
        Self {
            of: Some((run, stage)),
            streaks: if same_stage { self.streaks.clone() } else { Streaks::new() },
            p_values: if same_run { self.p_values.clone() } else { KeptPValues::default() },
        }
    }
}

/// Looks once.
pub fn plan(scene: &Scene<'_>) -> Plan {
    let rollout = scene.rollout;
    let mut memory = scene.memory.still_valid(rollout);
    let stage = rollout.current_stage().unwrap_or_else(|| empty_stage(rollout));
    let gates = judge(rollout, &stage, scene.measures, &memory.streaks);
    let arms = arms::look(scene, &memory.p_values);
    let decided = decide(scene, &stage, &gates, &arms);
    memory.streaks = streaks_after(&memory.streaks, &gates);
    if let ArmsLook::Experiment(look) = &arms {
        memory.p_values = look.kept.clone();
    }
    Plan { command: decided.command, gates, arms, next: decided.next, memory }
}

fn decide(scene: &Scene<'_>, stage: &Stage, gates: &[Judged], arms: &ArmsLook) -> Decided {
    let rollout = scene.rollout;
    if let RolloutPhase::Finished { ending, why, .. } = &rollout.phase {
        return Decided::waiting(format!("nothing: {} ({why})", ending_in_words(*ending)), Vec::new());
    }
    if let Some(why) = unservable(scene) {
        let step = scene.step(why, Vec::new());
        let what = format!("{} gets everything back", scene.label(rollout.stable()));
        return Decided::doing(RolloutCommand::RollBack { step }, what);
    }
    if let Some(failed) = failed_gates(scene, gates) {
        return failed;
    }
    match &rollout.phase {
        RolloutPhase::Paused { by, .. } => {
            let resume = format!("`starling rollout resume {}`", rollout.name);
            Decided::waiting(format!("nothing: paused by {}", by.as_str()), vec![resume])
        }
        RolloutPhase::Held { why } => {
            let name = &rollout.name;
            let person = format!(
                "a person: `starling rollout resume {name}`, `starling rollout promote {name}` or `starling rollout abort {name}`"
            );
            Decided::waiting(format!("nothing: held ({why})"), vec![person])
        }
        _ => match &rollout.spec.strategy {
            Strategy::AbTest(experiment) => arms::decide_experiment(scene, experiment, gates, arms),
            Strategy::Bandit(bandit) => arms::decide_bandit(scene, bandit, gates, arms),
            _ => stages::decide(scene, stage, gates),
        },
    }
}

/// Why a version that is tried cannot be served at all.
fn unservable(scene: &Scene<'_>) -> Option<String> {
    for version in tried_versions(scene.rollout) {
        let label = scene.label(version);
        match scene.model.versions.get(&version).map(|version| &version.phase) {
            None => return Some(format!("{label} was deleted")),
            Some(Phase::Failed(reason)) => return Some(format!("{label} could not be loaded: {reason}")),
            Some(_) => {}
        }
        if scene.gone.contains(&version) {
            return Some(format!("no live node has {label} loaded any more"));
        }
    }
    None
}

/// In every phase: everything goes back, or a person is asked if the plan says so
/// and nobody was asked yet.
fn failed_gates(scene: &Scene<'_>, gates: &[Judged]) -> Option<Decided> {
    let failed: Vec<&Judged> = gates.iter().filter(|gate| gate.fails()).collect();
    let says: Vec<String> = failed.iter().map(|gate| gate.says(&scene.label(gate.version()))).collect();
    if failed.is_empty() {
        return None;
    }
    let evidence = failed.iter().map(|gate| gate.measure()).collect();
    let rollout = scene.rollout;
    let why = says.join("; ");
    match (rollout.spec.on_failure, &rollout.phase) {
        (OnFailure::Rollback, _) => {
            let what = format!("{} gets everything back: {why}", scene.label(rollout.stable()));
            Some(Decided::doing(RolloutCommand::RollBack { step: scene.step(why, evidence) }, what))
        }
        (OnFailure::Hold, RolloutPhase::Running) => {
            let what = format!("a person is asked: {why}");
            Some(Decided::doing(RolloutCommand::Hold { step: scene.step(why, evidence) }, what))
        }
        // It stands still already, and whoever stopped it decides.
        (OnFailure::Hold, _) => None,
    }
}

impl Scene<'_> {
    /// As people call a version.
    fn label(&self, version: Ordinal) -> String {
        label(self.model, version)
    }

    fn step(&self, why: String, mut evidence: Vec<Measure>) -> Step {
        evidence.truncate(EVIDENCE_MAX);
        Step { name: self.rollout.name.clone(), expected_revision: self.rollout.revision, why, evidence }
    }

    /// Whose counts are missing, for people.
    fn unheard(&self) -> impl Iterator<Item = String> + use<'_> {
        self.unheard.iter().map(|node| format!("what node {node} has counted"))
    }

    /// When weights changed last.
    fn last_published(&self) -> LogTime {
        self.rollout.epochs.last().map_or(self.rollout.started, |newest| newest.since)
    }

    /// Log time that must still pass until a moment; `None`: it is over.
    fn until(&self, moment: LogTime) -> Option<Duration> {
        let left = moment.as_micros().saturating_sub(self.now.as_micros());
        (left > 0).then(|| Duration::from_micros(left))
    }
}

impl Decided {
    fn doing(command: RolloutCommand, what: String) -> Self {
        let next = NextStep { what, waits_for: Vec::new(), not_before: None };
        Self { command: Some(command), next }
    }

    fn waiting(what: String, waits_for: Vec<String>) -> Self {
        Self { command: None, next: NextStep { what, waits_for, not_before: None } }
    }
}

/// As people call a version.
pub fn label(model: &Model, version: Ordinal) -> String {
    model.versions.get(&version).map_or_else(|| version.to_string(), |version| version.label.to_string())
}

/// What the gates that do not let pass say, and the evidence of those that are asked.
fn open_gates(scene: &Scene<'_>, gates: &[&Judged]) -> Vec<String> {
    let open = gates.iter().filter(|gate| !gate.lets_pass());
    open.map(|gate| gate.says(&scene.label(gate.version()))).collect()
}

fn evidence_of(gates: &[&Judged]) -> Vec<Measure> {
    gates.iter().filter(|gate| gate.is_asked).map(|gate| gate.measure()).collect()
}

/// In one word for events, and for people.
pub fn ending_in_words(ending: Ending) -> &'static str {
    match ending {
        Ending::Promoted => "promoted",
        Ending::RolledBack => "rolled back",
        Ending::Aborted => "aborted",
        Ending::Undone => "undone",
        Ending::Completed => "completed",
    }
}

/// A plan has at least one stage; should it have none, nothing is asked of it.
fn empty_stage(rollout: &Rollout) -> Stage {
    use starling_raft::state::rollouts::StageKind;
    use starling_raft::state::rollouts::spec::Millis;
    Stage {
        kind: StageKind::Experiment,
        weights: rollout.before.clone(),
        shadow: None,
        hold: Millis(0),
        min_requests: 0,
        until_approved: false,
        gates: Vec::new(),
    }
}

#[cfg(test)]
mod arms_tests;
#[cfg(test)]
mod tests;
