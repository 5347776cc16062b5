//! The leader's controller of rollouts: runs on every node, acts while it leads.
//! What it decides is in [`super::plan`]; here it is woken, given what all nodes
//! counted, and its commands are proposed.
//!
//! Each command names the revision that was looked at, so a step happens once,
//! whoever leads and whenever a leader dies.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use starling_raft::consensus::{AppliedState, Consensus, ProposeError};
use starling_raft::flock::EventReader;
use starling_raft::peers::Peers;
use starling_raft::state::rollouts::RolloutSpec;
use starling_raft::state::{
    Command, EntryContext, LogIndex, NodeId, Principal, Rejection, RequestId, Rollout, RolloutCommand,
    RolloutName, State, VersionRef, WallTime,
};
use thiserror::Error;
use uuid::Uuid;

use super::describe::{describe, gate_reports};
use super::measures::{CopyCounts, Traffic};
use super::metrics::RolloutMetrics;
use super::notify::Notifier;
use super::presence::Presence;
use super::report::{DryRun, RolloutReport};
use super::rounds::{Looked, Rounds, View};
use super::webhook::Webhooks;
use crate::inference::readiness::ReadinessBoard;
use crate::inference::traffic_report::TrafficExchange;

const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Commands that are on their way at once.
const PROPOSALS_MAX: usize = 16;
/// As a safety net, and to notice who is missed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Between two passes, whatever wakes it.
const PAUSE: Duration = Duration::from_millis(20);
/// A live node that has not reported for so many of its intervals is unheard.
const REPORTS_MISSED_MAX: u32 = 5;

/// Looks at every rollout that is not over, while this node leads.
pub struct RolloutController {
    consensus: Consensus,
    peers: Peers,
    board: Arc<ReadinessBoard>,
    traffic: Arc<TrafficExchange>,
    heard_within: Duration,
    rounds: Mutex<Rounds>,
    presence: Mutex<Presence>,
    metrics: Arc<RolloutMetrics>,
}

/// Why a plan could not be tried.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DryRunError {
    /// Only the leader knows what all nodes count.
    #[error("this node does not lead and does not know what all nodes count; ask the leader")]
    NotLeading,
    /// It would be refused.
    #[error("{0}")]
    Refused(Rejection),
}

impl RolloutController {
    /// Nothing looked at yet. `report_interval`: how often nodes report.
    pub(crate) fn new(
        consensus: Consensus,
        peers: Peers,
        board: Arc<ReadinessBoard>,
        traffic: Arc<TrafficExchange>,
        report_interval: Duration,
        metrics: Arc<RolloutMetrics>,
    ) -> Self {
        let heard_within = (report_interval * REPORTS_MISSED_MAX).max(LOOK_AGAIN);
        let (rounds, presence) = (Mutex::default(), Mutex::default());
        Self { consensus, peers, board, traffic, heard_within, rounds, presence, metrics }
    }

    /// Who tells webhooks of what happens, reading the history from `events`.
    pub(crate) fn notifier(&self, events: EventReader) -> Notifier {
        Notifier {
            consensus: self.consensus.clone(),
            events,
            mark: Arc::clone(&self.traffic.notified),
            metrics: Arc::clone(&self.metrics),
            webhooks: Webhooks::default(),
        }
    }

    /// Looks without end. A proposal that a leader's death interrupts is decided
    /// anew by the next one.
    pub async fn run(self: Arc<Self>) {
        let mut status = self.consensus.watch_status();
        let mut applied = self.consensus.watch_applied();
        let mut shown: Option<Instant> = None;
        loop {
            if shown.is_none_or(|shown| shown.elapsed() >= LOOK_AGAIN) {
                self.metrics.observe(&self.consensus.applied().state, &self.traffic.own_ledger());
                shown = Some(Instant::now());
            }
            let leads = status.borrow_and_update().is_leader;
            applied.mark_unchanged();
            let wait = if leads { self.pass().await } else { self.rest() };
            tokio::time::sleep(PAUSE).await;
            tokio::select! {
                changed = status.changed() => if changed.is_err() { return },
                changed = applied.changed(), if leads => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn rest(&self) -> Duration {
        lock(&self.rounds).clear();
        self.metrics.stop_leading();
        LOOK_AGAIN
    }

    /// Looks at all that are due and proposes what follows. Answers with how long
    /// nothing is due.
    async fn pass(self: &Arc<Self>) -> Duration {
        let applied = self.consensus.applied();
        let at = Instant::now();
        let due = lock(&self.rounds).due(&applied.state, at);
        if !due.is_empty() {
            let this = Arc::clone(self);
            // A thousand rollouts take a while: not on the threads of Raft.
            let looked = tokio::task::spawn_blocking(move || this.look(&applied, &due, at)).await;
            match looked {
                Ok(commands) => self.propose_all(commands).await,
                Err(error) => tracing::error!(%error, "a pass over the rollouts failed; trying again"),
            }
        }
        let next = lock(&self.rounds).next_due();
        let now = Instant::now();
        next.map_or(LOOK_AGAIN, |next| next.saturating_duration_since(now)).min(LOOK_AGAIN)
    }

    fn look(&self, applied: &AppliedState, due: &[Arc<Rollout>], at: Instant) -> Vec<RolloutCommand> {
        let models: HashSet<u64> = due
            .iter()
            .filter_map(|rollout| applied.state.models.get(rollout.spec.model.as_str()))
            .map(|model| model.id)
            .collect();
        let Some((traffic, _)) = self.traffic(|model_id| models.contains(&model_id)) else {
            return Vec::new();
        };
        let mut rounds = lock(&self.rounds);
        rounds.retain_active(&applied.state);
        let looked = self.with_view(&applied.state, &traffic, at, |view| rounds.look(view, due, at));
        drop(rounds);
        for looked in &looked {
            if let Some(model) = applied.state.models.get(looked.rollout.spec.model.as_str()) {
                self.metrics.looked(model, looked);
            }
        }
        self.metrics.pass.observe(at.elapsed().as_secs_f64());
        looked.into_iter().filter_map(|looked| looked.plan.command).collect()
    }

    /// Gives `use_view` everything that looks depend on.
    fn with_view<T>(
        &self,
        state: &State,
        traffic: &Traffic,
        at: Instant,
        use_view: impl FnOnce(&View<'_>) -> T,
    ) -> T {
        let live: BTreeSet<NodeId> = self.peers.live().borrow().keys().copied().collect();
        let unheard = self.unheard(state, &live);
        let mut presence = lock(&self.presence);
        presence.note(state, &self.board.view(), &live, at);
        let presence = &*presence;
        use_view(&View {
            state,
            traffic,
            now: self.consensus.log_time_now(),
            unheard: &unheard,
            is_gone: &|rollout, model, version| presence.is_gone(rollout, model, version, at),
        })
    }

    /// Live members whose last report is too old.
    fn unheard(&self, state: &State, live: &BTreeSet<NodeId>) -> Vec<NodeId> {
        let is_unheard = |node: &&NodeId| {
            state.members.get(**node).is_some() && !self.traffic.heard_within(**node, self.heard_within)
        };
        live.iter().filter(is_unheard).copied().collect()
    }

    /// What all nodes counted of some models, and which nodes they are; `None`:
    /// this node does not lead.
    fn traffic(&self, wanted: impl Fn(u64) -> bool) -> Option<(Traffic, Vec<NodeId>)> {
        let counts = self.traffic.counts_of(wanted)?;
        let copies = counts.shadows.iter().map(|(key, cell)| (*key, CopyCounts::from(cell))).collect();
        Some((Traffic { requests: counts.requests, copies }, counts.reported_by))
    }

    async fn propose_all(&self, commands: Vec<RolloutCommand>) {
        let proposals = commands.into_iter().map(|command| self.propose(command));
        futures::stream::iter(proposals).buffer_unordered(PROPOSALS_MAX).collect::<Vec<()>>().await;
    }

    async fn propose(&self, command: RolloutCommand) {
        let principal = Principal::node(self.consensus.node_id());
        let request_id = RequestId::new(Uuid::now_v7());
        tracing::info!(?command, "proposing the next step of a rollout");
        let step = step_name(&command);
        let command = Command::Rollout(command);
        let outcome = match self.consensus.propose(&principal, request_id, command, PROPOSE_TIMEOUT).await {
            Ok(_) => "taken",
            // Somebody was faster, or the log's time is not there yet: looked at again.
            Err(ProposeError::Rejected(reason)) => {
                tracing::info!(%reason, "the step was not taken");
                "refused"
            }
            Err(error) => {
                tracing::warn!(%error, "the step was not recorded; it is decided anew");
                "not_recorded"
            }
        };
        self.metrics.steps.with_label_values(&[step, outcome]).inc();
    }

    /// How a rollout stands; `None`: this node does not lead, or knows no rollout
    /// of that name. Answers at once from memory.
    pub fn report(&self, name: &str) -> Option<RolloutReport> {
        let state = self.consensus.applied().state;
        let rollout = state.rollouts.get(name)?;
        let model = state.models.get(rollout.spec.model.as_str())?;
        let (traffic, reported_by) = self.traffic(|model_id| model_id == model.id)?;
        let at = Instant::now();
        let looked = self.with_view(&state, &traffic, at, |view| lock(&self.rounds).glance(view, rollout))?;
        let Looked { rollout, measures, plan } = looked;
        Some(describe(&rollout, model, &measures, &plan, reported_by))
    }

    /// What this plan would do, given what the cluster has counted so far. Changes
    /// nothing. Refused as its start would be.
    pub fn dry_run(&self, name: &RolloutName, spec: &RolloutSpec<VersionRef>) -> Result<DryRun, DryRunError> {
        if !self.consensus.status().is_leader {
            return Err(DryRunError::NotLeading);
        }
        let applied = self.consensus.applied();
        let state = started(&applied, name, spec).map_err(DryRunError::Refused)?;
        let started = state.rollouts.get(name.as_str());
        let model = state.models.get(spec.model.as_str());
        let refused = || DryRunError::Refused(Rejection::UnknownModel(spec.model.clone()));
        let (rollout, model) = started.zip(model).ok_or_else(refused)?;
        let (traffic, _) = self.traffic(|model_id| model_id == model.id).ok_or(DryRunError::NotLeading)?;
        let traffic = traffic.as_if_in_stage(model.id, rollout);
        let at = Instant::now();
        let looked = self.with_view(&state, &traffic, at, |view| view.look(rollout, &Default::default()));
        let plan = looked.ok_or_else(refused)?.plan;
        Ok(DryRun {
            spec: rollout.spec.clone(),
            stages: rollout.spec.stages(),
            gates: gate_reports(model, &plan.gates),
            would: plan.next,
        })
    }
}

fn step_name(command: &RolloutCommand) -> &'static str {
    match command {
        RolloutCommand::Advance { .. } => "advance",
        RolloutCommand::RollBack { .. } => "roll_back",
        RolloutCommand::Hold { .. } => "hold",
        RolloutCommand::Publish { .. } => "publish",
        RolloutCommand::Conclude { .. } => "conclude",
        _ => "other",
    }
}

/// The state as it would be had the rollout just begun.
fn started(
    applied: &AppliedState,
    name: &RolloutName,
    spec: &RolloutSpec<VersionRef>,
) -> Result<State, Rejection> {
    let mut state = State::clone(&applied.state);
    let context = EntryContext {
        log_index: LogIndex::new(applied.index.get() + 1),
        log_time: state.cluster.log_time,
        wall_time: WallTime::from_unix_micros(0),
        principal: Principal::local(),
        request_id: RequestId::new(Uuid::nil()),
    };
    let start = RolloutCommand::Start { name: name.clone(), spec: Box::new(spec.clone()), again: true };
    let (_, outcome) = state.apply(&context, &Command::Rollout(start));
    outcome.map(|_| state)
}

/// What a look leaves behind stays usable when a thread that held it has panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
