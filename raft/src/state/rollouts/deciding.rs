//! What becomes of a command about rollouts: pure, the same on every node.

use super::super::{
    EntryContext, Event, LogTime, Model, ModelName, Ordinal, PartsPerMillion, Rejection, RolloutName, Route,
    State, VersionRef,
};
use super::check::{SpecProblem, checked, checked_arms, ready_version};
use super::commands::{RolloutCommand, RolloutEvent, Step};
use super::learning::{DROPPED_MAX, FeedbackDelta, SUMS_PER_DELTA_MAX};
use super::spec::{Arm, Bandit, Millis, RolloutSpec, Strategy};
use super::stages::weights_of;
use super::{
    ACTIVE_MAX, EVIDENCE_MAX, Ending, Measure, Rollout, RolloutPhase, STRATA_MAX, WHY_CHARACTERS_MAX, Weights,
};

type Decided = Result<Vec<Event>, Rejection>;

pub(in super::super) fn decide(state: &State, context: &EntryContext, command: &RolloutCommand) -> Decided {
    match command {
        RolloutCommand::Start { name, spec, again } => start(state, name, spec, *again),
        RolloutCommand::Pause { name } => pause(state, name),
        RolloutCommand::Resume { name } => resume(state, name),
        RolloutCommand::Promote { name, full, winner } => promote(state, name, *full, winner.as_ref()),
        RolloutCommand::Abort { name, why } => abort(state, name, why),
        RolloutCommand::Undo { name } => undo(state, context, name),
        RolloutCommand::SetArms { name, arms } => set_arms(state, name, arms),
        RolloutCommand::DropLearning { name, from, to } => drop_learning(state, name, *from, *to),
        RolloutCommand::Advance { step, stage } => advance(state, step, *stage),
        RolloutCommand::RollBack { step } => roll_back(state, step),
        RolloutCommand::Hold { step } => hold(state, step),
        RolloutCommand::Publish { step, weights } => publish(state, step, weights),
        RolloutCommand::Conclude { step, winner } => conclude(state, step, *winner),
        RolloutCommand::RecordFeedback(delta) => record_feedback(state, delta),
    }
}

fn start(state: &State, name: &RolloutName, spec: &RolloutSpec<VersionRef>, again: bool) -> Decided {
    let model =
        state.models.get(spec.model.as_str()).ok_or_else(|| Rejection::UnknownModel(spec.model.clone()))?;
    if let Some(known) = state.rollouts.get(name.as_str())
        && !(again && known.is_over())
    {
        if known.was_asked_for(model, spec) {
            return Ok(vec![]);
        }
        return Err(Rejection::RolloutExists { rollout: name.clone(), is_over: known.is_over() });
    }
    let route =
        state.routes.get(spec.model.as_str()).ok_or_else(|| Rejection::NoRoute(spec.model.clone()))?;
    require_no_owner(state, &spec.model)?;
    if state.rollouts.active_count() >= ACTIVE_MAX {
        let what = "the number of rollouts that are not over".to_owned();
        return Err(Rejection::LimitReached { what, limit: ACTIVE_MAX as u64 });
    }
    let spec = checked(name, model, route, spec)?;
    let weights = spec.stages().into_iter().next().map(|stage| stage.weights).unwrap_or_default();
    Ok(event(RolloutEvent::RolloutStarted { name: name.clone(), spec: Box::new(spec), weights }))
}

fn pause(state: &State, name: &RolloutName) -> Decided {
    let rollout = unfinished(state, name)?;
    match rollout.phase {
        RolloutPhase::Running => Ok(event(RolloutEvent::RolloutPaused { name: name.clone() })),
        _ => Ok(vec![]),
    }
}

fn resume(state: &State, name: &RolloutName) -> Decided {
    let rollout = unfinished(state, name)?;
    match rollout.phase {
        RolloutPhase::Running => Ok(vec![]),
        _ => Ok(event(RolloutEvent::RolloutResumed { name: name.clone() })),
    }
}

fn promote(state: &State, name: &RolloutName, full: bool, winner: Option<&VersionRef>) -> Decided {
    const BY_A_PERSON: &str = "promoted by a person";
    let rollout = unfinished(state, name)?;
    if !rollout.spec.arms().is_empty() {
        let model = model_of(state, rollout)?;
        let winner = winner.ok_or_else(|| Rejection::WinnerNeeded(name.clone()))?;
        let winner = ready_version(model, winner)?;
        require_arm(rollout, winner)?;
        return Ok(won(rollout, winner, BY_A_PERSON, &[]));
    }
    if winner.is_some() {
        return Err(Rejection::NotAnExperiment(name.clone()));
    }
    if !full && let Some(events) = approve(rollout) {
        return Ok(events);
    }
    let stages = rollout.spec.stages();
    let last = stages.len().saturating_sub(1) as u32;
    if rollout.stage >= last {
        return Ok(last_stage_over(rollout, BY_A_PERSON, &[]));
    }
    if let Some(candidate) = rollout.spec.candidate() {
        require_ready(model_of(state, rollout)?, *candidate)?;
    }
    let next = if full { last } else { rollout.stage + 1 };
    let weights = stages.into_iter().nth(next as usize).map(|stage| stage.weights).unwrap_or_default();
    Ok(advanced(name, next, weights, BY_A_PERSON, &[]))
}

/// A stage that waits for a person, and is not held, ends once its gates pass:
/// to approve is not to overrule them. `None`: there is nothing to approve.
fn approve(rollout: &Rollout) -> Option<Vec<Event>> {
    if !rollout.current_stage()?.until_approved || matches!(rollout.phase, RolloutPhase::Held { .. }) {
        return None;
    }
    let name = &rollout.name;
    let mut events = Vec::new();
    if matches!(rollout.phase, RolloutPhase::Paused { .. }) {
        events.extend(event(RolloutEvent::RolloutResumed { name: name.clone() }));
    }
    if !rollout.approved {
        events.extend(event(RolloutEvent::RolloutApproved { name: name.clone() }));
    }
    Some(events)
}

fn abort(state: &State, name: &RolloutName, why: &str) -> Decided {
    let rollout = unfinished(state, name)?;
    let why = if why.is_empty() { "aborted by a person" } else { why };
    Ok(finished(name, Ending::Aborted, whole(rollout.stable()), why, &[]))
}

fn undo(state: &State, context: &EntryContext, name: &RolloutName) -> Decided {
    let rollout = find(state, name)?;
    let ending = match &rollout.phase {
        RolloutPhase::Finished { ending, .. } => *ending,
        _ => return abort(state, name, "undone by a person"),
    };
    if ending != Ending::Promoted {
        return Ok(vec![]);
    }
    let model = &rollout.spec.model;
    require_no_owner(state, model)?;
    let route = state.routes.get(model.as_str()).ok_or_else(|| Rejection::NoRoute(model.clone()))?;
    if !left_as_it_is(rollout, route) {
        return Err(Rejection::RouteMoved { rollout: name.clone(), model: model.clone() });
    }
    let found = model_of(state, rollout)?;
    for (ordinal, _) in &rollout.before {
        require_ready(found, *ordinal)?;
    }
    let why = format!("undone by {}", context.principal.as_str());
    Ok(finished(name, Ending::Undone, rollout.before.clone(), &why, &[]))
}

/// Whether the route is still what the rollout made of it.
fn left_as_it_is(rollout: &Rollout, route: &Route) -> bool {
    route.weights == rollout.after
}

fn set_arms(state: &State, name: &RolloutName, arms: &[Arm<VersionRef>]) -> Decided {
    let rollout = unfinished(state, name)?;
    if rollout.spec.arms().is_empty() {
        return Err(Rejection::NotAnExperiment(name.clone()));
    }
    let arms = checked_arms(name, model_of(state, rollout)?, &rollout.spec, arms)?;
    if arms == rollout.spec.arms() {
        return Ok(vec![]);
    }
    if rollout.strata.len() >= STRATA_MAX {
        let what = format!("how often the arms of rollout '{name}' may change");
        return Err(Rejection::LimitReached { what, limit: STRATA_MAX as u64 });
    }
    let weights = weights_of(&arms);
    Ok(event(RolloutEvent::RolloutArmsSet { name: name.clone(), arms, weights }))
}

fn drop_learning(state: &State, name: &RolloutName, from: LogTime, to: LogTime) -> Decided {
    let rollout = find(state, name)?;
    if to < from || to < rollout.started {
        return Ok(vec![]);
    }
    let (first_slice, last_slice) = (rollout.slice_of(from), rollout.slice_of(to));
    if !rollout.learning.has_any_in(first_slice, last_slice) {
        return Ok(vec![]);
    }
    if rollout.learning.dropped().len() >= DROPPED_MAX {
        let what = format!("how many times of rollout '{name}' are taken back");
        return Err(Rejection::LimitReached { what, limit: DROPPED_MAX as u64 });
    }
    let rewards = rollout.learning.count_in(first_slice, last_slice);
    let name = name.clone();
    Ok(event(RolloutEvent::RolloutLearningDropped { name, first_slice, last_slice, rewards }))
}

fn advance(state: &State, step: &Step, stage: u32) -> Decided {
    let rollout = looked_at(state, step)?;
    let stages = rollout.spec.stages();
    let next = rollout.stage + 1;
    require_stage_over(state, rollout)?;
    if stage != next || next as usize >= stages.len() {
        return Err(Rejection::StageNotOver { rollout: step.name.clone(), stage: rollout.stage });
    }
    let weights = stages.into_iter().nth(next as usize).map(|stage| stage.weights).unwrap_or_default();
    Ok(advanced(&step.name, next, weights, &step.why, &step.evidence))
}

fn roll_back(state: &State, step: &Step) -> Decided {
    let rollout = looked_at(state, step)?;
    Ok(finished(&step.name, Ending::RolledBack, whole(rollout.stable()), &step.why, &step.evidence))
}

fn hold(state: &State, step: &Step) -> Decided {
    let rollout = looked_at(state, step)?;
    require_running(rollout)?;
    Ok(event(RolloutEvent::RolloutHeld {
        name: step.name.clone(),
        why: shortened(&step.why),
        evidence: bounded(&step.evidence),
    }))
}

fn publish(state: &State, step: &Step, weights: &Weights) -> Decided {
    let rollout = looked_at(state, step)?;
    require_running(rollout)?;
    let Strategy::Bandit(bandit) = &rollout.spec.strategy else {
        return Err(Rejection::NotAnExperiment(step.name.clone()));
    };
    require_publishing_time(state, rollout, bandit.publish_every)?;
    let mut weights = weights.clone();
    weights.retain(|(_, weight)| weight.get() > 0);
    weights.sort();
    for (ordinal, _) in &weights {
        require_arm(rollout, *ordinal)?;
    }
    let sum_ppm: u64 = weights.iter().map(|(_, weight)| u64::from(weight.get())).sum();
    let twice = weights.windows(2).any(|pair| matches!(pair, [one, other] if one.0 == other.0));
    if twice || sum_ppm != u64::from(PartsPerMillion::WHOLE.get()) {
        return Err(Rejection::WeightsDoNotSum { model: rollout.spec.model.clone(), sum_ppm });
    }
    require_floor(rollout, bandit, &weights)?;
    let (name, why, evidence) = (step.name.clone(), shortened(&step.why), bounded(&step.evidence));
    Ok(event(RolloutEvent::RolloutPublished { name, weights, why, evidence }))
}

fn conclude(state: &State, step: &Step, winner: Option<Ordinal>) -> Decided {
    let rollout = looked_at(state, step)?;
    if rollout.spec.arms().is_empty() {
        require_stage_over(state, rollout)?;
        if (rollout.stage as usize) + 1 < rollout.spec.stages().len() {
            return Err(Rejection::StageNotOver { rollout: step.name.clone(), stage: rollout.stage });
        }
        return Ok(last_stage_over(rollout, &step.why, &step.evidence));
    }
    require_running(rollout)?;
    let winner = winner.unwrap_or_else(|| rollout.stable());
    require_arm(rollout, winner)?;
    Ok(won(rollout, winner, &step.why, &step.evidence))
}

fn record_feedback(state: &State, delta: &FeedbackDelta) -> Decided {
    if state.members.get(delta.node).is_none() {
        return Err(Rejection::UnknownNode(delta.node));
    }
    if delta.sequence <= state.rollouts.feedback_mark(delta.node) {
        return Ok(vec![]);
    }
    if delta.sums.len() > SUMS_PER_DELTA_MAX {
        let what = "the number of sums of one delta of rewards".to_owned();
        return Err(Rejection::LimitReached { what, limit: SUMS_PER_DELTA_MAX as u64 });
    }
    Ok(event(RolloutEvent::FeedbackRecorded {
        node: delta.node,
        sequence: delta.sequence,
        sums: delta.sums.clone(),
    }))
}

impl Rollout {
    /// Whether this plan is the one it was started with, arms as they are now.
    /// A name whose version is gone is taken for the one that stood in its
    /// place: a manifest of a rollout that is over stays in git for longer than
    /// the versions that it names.
    fn was_asked_for(&self, model: &Model, spec: &RolloutSpec<VersionRef>) -> bool {
        let mut in_place = Vec::new();
        let collected = self.spec.resolved(|ordinal| {
            in_place.push(*ordinal);
            Ok::<_, ()>(*ordinal)
        });
        let mut in_place = in_place.into_iter();
        let resolved = spec.resolved(|wanted| {
            let before = in_place.next();
            let gone = before.filter(|ordinal| !model.versions.contains_key(ordinal));
            model.version(wanted).map(|version| version.ordinal).or(gone).ok_or(())
        });
        collected.is_ok() && resolved.is_ok_and(|resolved| resolved == self.spec)
    }
}

pub(in super::super) fn require_no_owner(state: &State, model: &ModelName) -> Result<(), Rejection> {
    match state.rollouts.owner_of(model) {
        Some(owner) => Err(Rejection::RouteOwned { model: model.clone(), rollout: owner.name.clone() }),
        None => Ok(()),
    }
}

fn find<'a>(state: &'a State, name: &RolloutName) -> Result<&'a Rollout, Rejection> {
    let rollout = state.rollouts.get(name.as_str());
    rollout.map(|rollout| &**rollout).ok_or_else(|| Rejection::UnknownRollout(name.clone()))
}

fn unfinished<'a>(state: &'a State, name: &RolloutName) -> Result<&'a Rollout, Rejection> {
    let rollout = find(state, name)?;
    if rollout.is_over() {
        return Err(Rejection::RolloutOver(name.clone()));
    }
    Ok(rollout)
}

fn looked_at<'a>(state: &'a State, step: &Step) -> Result<&'a Rollout, Rejection> {
    let rollout = unfinished(state, &step.name)?;
    let (expected, found) = (step.expected_revision, rollout.revision);
    if expected != found {
        return Err(Rejection::RevisionMismatch { rollout: step.name.clone(), expected, found });
    }
    Ok(rollout)
}

fn require_running(rollout: &Rollout) -> Result<(), Rejection> {
    match rollout.phase {
        RolloutPhase::Running => Ok(()),
        _ => Err(Rejection::RolloutNotRunning(rollout.name.clone())),
    }
}

/// Looked at again here, with the log's own time: a leader whose clock runs
/// ahead hurries nothing.
fn require_stage_over(state: &State, rollout: &Rollout) -> Result<(), Rejection> {
    require_running(rollout)?;
    let Some(stage) = rollout.current_stage() else { return Ok(()) };
    let over = rollout.stage_since.plus_micros(stage.hold.as_micros());
    let waits_for_approval = stage.until_approved && !rollout.approved;
    if state.cluster.log_time < over || waits_for_approval {
        return Err(Rejection::StageNotOver { rollout: rollout.name.clone(), stage: rollout.stage });
    }
    Ok(())
}

/// So that a new leader, which does not know when the last one published, does
/// not do it at once.
fn require_publishing_time(state: &State, rollout: &Rollout, every: Millis) -> Result<(), Rejection> {
    let Some(newest) = rollout.epochs.last() else { return Ok(()) };
    if state.cluster.log_time < newest.since.plus_micros(every.as_micros()) {
        return Err(Rejection::StageNotOver { rollout: rollout.name.clone(), stage: rollout.stage });
    }
    Ok(())
}

/// An arm that is left out has nothing.
fn require_floor(rollout: &Rollout, bandit: &Bandit, weights: &Weights) -> Result<(), Rejection> {
    let floor = bandit.floor.get();
    for arm in &bandit.arms {
        let weight = weights.iter().find(|(version, _)| *version == arm.version);
        let found = weight.map_or(0, |(_, weight)| weight.get());
        if found < floor {
            let (found, min, max) = (found.into(), floor.into(), PartsPerMillion::WHOLE.get().into());
            return Err(Rejection::InvalidRollout {
                rollout: rollout.name.clone(),
                field: format!("weights.{}", arm.name),
                problem: SpecProblem::OutOfRange { found, min, max },
            });
        }
    }
    Ok(())
}

fn require_arm(rollout: &Rollout, version: Ordinal) -> Result<(), Rejection> {
    if rollout.spec.arms().iter().any(|arm| arm.version == version) {
        return Ok(());
    }
    Err(Rejection::NoSuchArm { rollout: rollout.name.clone(), version: version.to_string() })
}

fn require_ready(model: &Model, ordinal: Ordinal) -> Result<(), Rejection> {
    ready_version(model, &VersionRef::Ordinal(ordinal)).map(|_| ())
}

fn model_of<'a>(state: &'a State, rollout: &Rollout) -> Result<&'a Model, Rejection> {
    let model = state.models.get(rollout.spec.model.as_str());
    model.map(|model| &**model).ok_or_else(|| Rejection::UnknownModel(rollout.spec.model.clone()))
}

/// The candidate has everything, unless it was only compared.
fn last_stage_over(rollout: &Rollout, why: &str, evidence: &[Measure]) -> Vec<Event> {
    match &rollout.spec.strategy {
        Strategy::BlueGreen { to, .. } | Strategy::Canary { to, .. } => {
            finished(&rollout.name, Ending::Promoted, whole(*to), why, evidence)
        }
        _ => finished(&rollout.name, Ending::Completed, whole(rollout.stable()), why, evidence),
    }
}

/// One arm of an experiment has everything.
fn won(rollout: &Rollout, winner: Ordinal, why: &str, evidence: &[Measure]) -> Vec<Event> {
    let ending = if winner == rollout.stable() { Ending::Completed } else { Ending::Promoted };
    finished(&rollout.name, ending, whole(winner), why, evidence)
}

fn whole(ordinal: Ordinal) -> Weights {
    vec![(ordinal, PartsPerMillion::WHOLE)]
}

fn advanced(name: &RolloutName, stage: u32, weights: Weights, why: &str, evidence: &[Measure]) -> Vec<Event> {
    let (name, why, evidence) = (name.clone(), shortened(why), bounded(evidence));
    event(RolloutEvent::RolloutAdvanced { name, stage, weights, why, evidence })
}

fn finished(
    name: &RolloutName,
    ending: Ending,
    weights: Weights,
    why: &str,
    evidence: &[Measure],
) -> Vec<Event> {
    let (name, why, evidence) = (name.clone(), shortened(why), bounded(evidence));
    event(RolloutEvent::RolloutFinished { name, ending, weights, why, evidence })
}

fn event(event: RolloutEvent) -> Vec<Event> {
    vec![Event::Rollout(event)]
}

fn shortened(why: &str) -> String {
    why.chars().take(WHY_CHARACTERS_MAX).collect()
}

fn bounded(evidence: &[Measure]) -> Vec<Measure> {
    let short =
        |measure: &Measure| Measure { what: measure.what.chars().take(64).collect(), ..measure.clone() };
    evidence.iter().take(EVIDENCE_MAX).map(short).collect()
}
