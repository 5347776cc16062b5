//! How events of rollouts fold into the state: the rollout itself, and the
//! weights of the route that it owns.

use std::sync::Arc;

use super::super::routes;
use super::super::{EntryContext, Epoch, LogTime, ModelName, RolloutName, State};
use super::commands::RolloutEvent;
use super::learning::{Learning, RewardCell, RewardSum};
use super::spec::{RolloutSpec, Strategy};
use super::{
    EPOCHS_KEPT_MAX, EpochOfRollout, INTERVALS_KEPT_MAX, Rollout, RolloutPhase, STRATA_MAX, Weights,
};

pub(in super::super) fn evolve(state: &mut State, context: &EntryContext, event: &RolloutEvent) {
    match event {
        RolloutEvent::RolloutStarted { name, spec, weights } => start(state, context, name, spec, weights),
        RolloutEvent::RolloutPaused { name } => {
            let since = state.cluster.log_time;
            let by = context.principal.clone();
            touch(state, context, name, |rollout| rollout.phase = RolloutPhase::Paused { by, since });
        }
        RolloutEvent::RolloutResumed { name } => {
            let now = state.cluster.log_time;
            touch(state, context, name, |rollout| {
                rollout.stage_since = resumed_since(rollout, now);
                rollout.phase = RolloutPhase::Running;
            });
        }
        RolloutEvent::RolloutApproved { name } => {
            let now = state.cluster.log_time;
            touch(state, context, name, |rollout| {
                rollout.approved = true;
                rollout.stage_since = now;
            });
        }
        RolloutEvent::RolloutAdvanced { name, stage, weights, why: _, evidence } => {
            let now = state.cluster.log_time;
            touch(state, context, name, |rollout| {
                rollout.stage = *stage;
                rollout.stage_since = now;
                rollout.approved = false;
                rollout.phase = RolloutPhase::Running;
                rollout.evidence.clone_from(evidence);
            });
            reweigh(state, context, name, weights);
        }
        RolloutEvent::RolloutHeld { name, why, evidence } => {
            touch(state, context, name, |rollout| {
                rollout.phase = RolloutPhase::Held { why: why.clone() };
                rollout.evidence.clone_from(evidence);
            });
        }
        RolloutEvent::RolloutPublished { name, weights, why: _, evidence } => {
            touch(state, context, name, |rollout| rollout.evidence.clone_from(evidence));
            reweigh(state, context, name, weights);
        }
        RolloutEvent::RolloutFinished { name, ending, weights, why, evidence } => {
            touch(state, context, name, |rollout| {
                let (ending, why, at) = (*ending, why.clone(), context.wall_time);
                rollout.phase = RolloutPhase::Finished { ending, why, at };
                rollout.after.clone_from(weights);
                rollout.evidence.clone_from(evidence);
            });
            // After it: what is decided from here on is no part of it.
            reweigh(state, context, name, weights);
        }
        RolloutEvent::RolloutArmsSet { name, arms, weights } => {
            touch(state, context, name, |rollout| match &mut rollout.spec.strategy {
                Strategy::AbTest(experiment) => experiment.arms.clone_from(arms),
                Strategy::Bandit(bandit) => bandit.arms.clone_from(arms),
                Strategy::BlueGreen { .. } | Strategy::Canary { .. } | Strategy::Shadow { .. } => {}
            });
            reweigh(state, context, name, weights);
        }
        RolloutEvent::RolloutLearningDropped { name, first_slice, last_slice, rewards: _ } => {
            let now = state.cluster.log_time;
            touch(state, context, name, |rollout| {
                let present = rollout.slice_of(now);
                rollout.learning.drop_slices(*first_slice, *last_slice, present);
            });
        }
        RolloutEvent::FeedbackRecorded { node, sequence, sums } => {
            state.rollouts.set_feedback_mark(*node, *sequence);
            credit(state, sums);
        }
    }
}

/// An epoch of a model's route began: its owner goes on with the same weights
/// or others.
pub(in super::super) fn epoch_began(state: &mut State, model: &ModelName) {
    let Some(owner) = state.rollouts.owner_of(model) else { return };
    let Some(route) = state.routes.get(model.as_str()) else { return };
    let (epoch, table, weights) = (route.epoch, Arc::new(route.table.clone()), route.weights.clone());
    let (name, since) = (owner.name.clone(), state.cluster.log_time);
    state.rollouts.update(&name, |rollout| {
        let stratum = stratum_of(rollout, weights);
        let epochs = Arc::make_mut(&mut rollout.epochs);
        epochs.push(EpochOfRollout { epoch, since, stratum, table });
        let surplus = surplus_of(epochs);
        epochs.drain(..surplus);
    });
}

/// How many of the oldest epochs are too many.
fn surplus_of(epochs: &[EpochOfRollout]) -> usize {
    let mut intervals = 0;
    let fits = |known: &&EpochOfRollout| {
        intervals += known.table.intervals().len();
        intervals <= INTERVALS_KEPT_MAX
    };
    let kept = epochs.iter().rev().take(EPOCHS_KEPT_MAX).take_while(fits).count();
    epochs.len().saturating_sub(kept.max(1))
}

fn start(
    state: &mut State,
    context: &EntryContext,
    name: &RolloutName,
    spec: &RolloutSpec,
    weights: &Weights,
) {
    let before = state.routes.get(spec.model.as_str()).map(|route| route.weights.clone()).unwrap_or_default();
    let now = state.cluster.log_time;
    state.rollouts.insert(Rollout {
        name: name.clone(),
        spec: spec.clone(),
        started_by: context.principal.clone(),
        started_at: context.log_index,
        started: now,
        started_wall: context.wall_time,
        revision: context.log_index,
        phase: RolloutPhase::Running,
        stage: 0,
        stage_since: now,
        approved: false,
        before,
        after: Weights::new(),
        evidence: Vec::new(),
        epochs: Arc::default(),
        strata: Arc::default(),
        learning: Learning::default(),
    });
    reweigh(state, context, name, weights);
}

/// A pause does not count; a hold begins the stage's time anew, because whatever
/// it waited for was not there.
fn resumed_since(rollout: &Rollout, now: LogTime) -> LogTime {
    match &rollout.phase {
        RolloutPhase::Paused { since, .. } => {
            let paused_micros = now.as_micros().saturating_sub(since.as_micros());
            rollout.stage_since.plus_micros(paused_micros)
        }
        _ => now,
    }
}

fn touch(state: &mut State, context: &EntryContext, name: &RolloutName, change: impl FnOnce(&mut Rollout)) {
    state.rollouts.update(name, |rollout| {
        rollout.revision = context.log_index;
        change(rollout);
    });
}

fn reweigh(state: &mut State, context: &EntryContext, name: &RolloutName, weights: &Weights) {
    let Some(rollout) = state.rollouts.get(name.as_str()) else { return };
    let model = rollout.spec.model.clone();
    routes::set_weights(state, Epoch::new(context.log_index.get()), &model, weights);
    epoch_began(state, &model);
}

/// Epochs of equal weights share one. A bandit's are all in one: its estimates
/// are per arm.
fn stratum_of(rollout: &mut Rollout, weights: Weights) -> u32 {
    let is_bandit = matches!(rollout.spec.strategy, Strategy::Bandit(_));
    let known = rollout.strata.iter().position(|known| is_bandit || *known == weights);
    let place = known.unwrap_or_else(|| {
        let strata = Arc::make_mut(&mut rollout.strata);
        if strata.len() < STRATA_MAX {
            strata.push(weights);
        }
        strata.len() - 1
    });
    place as u32
}

/// Rewards of runs that are forgotten, or of epochs that are, change nothing:
/// whoever sent them has refused them with the reason already, or knew less.
fn credit(state: &mut State, sums: &[RewardSum]) {
    let now = state.cluster.log_time;
    for sums in sums.chunk_by(|one, next| one.rollout == next.rollout) {
        let Some(name) = sums.first().map(|sum| &sum.rollout) else { continue };
        state.rollouts.update(name, |rollout| {
            // A node's log time may run ahead of the log's by a moment, not by more.
            let newest = rollout.slice_of(now).saturating_add(1);
            for sum in sums.iter().filter(|sum| sum.started_at == rollout.started_at) {
                let Some(stratum) = rollout.epoch(sum.epoch).map(|known| known.stratum) else { continue };
                let cluster = if rollout.tells_clusters_apart() { sum.cluster } else { 0 };
                let slice = sum.slice.clamp(1, newest);
                rollout.learning.add(RewardCell { slice, arm: sum.arm, stratum, cluster }, sum.totals);
            }
        });
    }
}
