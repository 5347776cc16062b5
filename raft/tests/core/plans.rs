//! Plans of rollouts, commands about them, and a log in which they can begin.

use starling_raft::state::rollouts::commands::Step;
use starling_raft::state::rollouts::spec::{
    Arm, Bandit, BanditPolicy, CanaryStep, Correction, Experiment, Gate, GateTest, Micro, Millis, OnFailure,
    OnInconclusive, Pause, Reward, RewardKind, RolloutSpec, Strategy, Validation,
};
use starling_raft::state::rollouts::{FeedbackDelta, Measure, RewardSum, RewardTotals};
use starling_raft::state::routes::shadows::{Agreement, Comparison};
use starling_raft::state::{
    Command, Epoch, LogIndex, LogTime, NodeId, Ordinal, Rejection, Rollout, RolloutCommand, Route, VersionRef,
};

use crate::log::{Log, SECOND_MICROS, join, model, ppm, raise};

pub type Plan = RolloutSpec<VersionRef>;

/// One percent.
pub const PERCENT: u32 = 10_000;
/// Everything.
pub const WHOLE: u32 = 1_000_000;
/// Of the only member.
pub const NODE: u64 = 1_000;

impl Log {
    /// At feature level 4, with model `digits`: `v1` has the whole route, `v2`
    /// and `v3` are ready.
    pub fn for_rollouts() -> Self {
        let mut log = Self::founded();
        log.accept(join(1, 4));
        log.accept(raise(4));
        for (label, digest) in [("v1", 1), ("v2", 2), ("v3", 3)] {
            log.push_ready("digits", label, digest);
        }
        log
    }

    /// The same, and this plan running under the name `trial`.
    pub fn running(plan: Plan) -> Self {
        let mut log = Self::for_rollouts();
        log.accept(start("trial", plan));
        log
    }

    /// Lets log time pass.
    pub fn wait(&mut self, seconds: u64) {
        self.log_time_micros += seconds * SECOND_MICROS;
    }

    /// The rollout `trial`.
    pub fn trial(&self) -> Rollout {
        Rollout::clone(self.state.rollouts.get("trial").expect("started"))
    }

    /// The route of `digits`.
    pub fn route(&self) -> Route {
        Route::clone(self.state.routes.get("digits").expect("there"))
    }

    /// Ordinals and weights of the route of `digits`.
    pub fn weights(&self) -> Vec<(u64, u32)> {
        self.route().weights.iter().map(|(version, weight)| (version.get(), weight.get())).collect()
    }

    /// What a controller says that has just looked at `trial`.
    pub fn step(&self) -> Step {
        step("trial", self.trial().revision.get())
    }

    /// Rewards of `trial` for decisions of its newest epoch.
    pub fn reward(&self, version: u64, slice: u32, count: i64) -> RewardSum {
        let trial = self.trial();
        RewardSum {
            rollout: trial.name.clone(),
            started_at: trial.started_at,
            arm: Ordinal::new(version),
            epoch: trial.epochs.last().expect("begun").epoch,
            cluster: 0,
            slice,
            totals: totals(count),
        }
    }

    /// What `trial` has learnt: slice, arm, stratum, cluster and how many rewards.
    pub fn learnt(&self) -> Vec<(u32, u64, u32, u8, i64)> {
        let trial = self.trial();
        let cells = trial.learning.cells();
        cells
            .map(|(cell, totals)| (cell.slice, cell.arm.get(), cell.stratum, cell.cluster, totals.count))
            .collect()
    }
}

/// As many rewards, each of one.
pub fn totals(count: i64) -> RewardTotals {
    let count_wide = i128::from(count);
    RewardTotals { count, sum: count_wide << 24, sum_of_squares: count_wide << 48 }
}

pub fn version(text: &str) -> VersionRef {
    text.parse().unwrap()
}

fn plan(strategy: Strategy<VersionRef>) -> Plan {
    RolloutSpec {
        model: model("digits"),
        from: version("v1"),
        strategy,
        gates: vec![],
        on_failure: OnFailure::Rollback,
        on_inconclusive: OnInconclusive::Hold,
        inconclusive_after: Millis::from_secs(600),
        retry_on_stable: false,
        interval: Millis::from_secs(1),
        webhooks: vec![],
    }
}

/// 5 % for ten seconds, 25 % until approved, and everything for ten seconds.
pub fn canary() -> Plan {
    let step = |percent: u32, pause| CanaryStep { weight: ppm(percent * PERCENT), pause, gates: vec![] };
    let ten_seconds = Pause::For(Millis::from_secs(10));
    let steps = vec![step(5, ten_seconds), step(25, Pause::UntilApproved), step(100, ten_seconds)];
    plan(Strategy::Canary { to: version("v2"), steps })
}

/// Ten seconds of copies, then 10 %, 50 % and everything, ten seconds each but the
/// last, after which blue is kept warm for an hour.
pub fn blue_green() -> Plan {
    plan(Strategy::BlueGreen {
        to: version("v2"),
        validate: Some(validation()),
        steps: vec![ppm(10 * PERCENT), ppm(50 * PERCENT), ppm(WHOLE)],
        every: Millis::from_secs(10),
        keep_warm: Millis::from_secs(3_600),
    })
}

/// Copies of every request for ten seconds.
pub fn validation() -> Validation {
    Validation {
        hold: Millis::from_secs(10),
        min_requests: 100,
        portion: ppm(WHOLE),
        when: vec![],
        comparison: Comparison { outputs: vec![], others: Agreement::TopOne },
    }
}

pub fn shadowing() -> Plan {
    plan(Strategy::Shadow { to: version("v2"), validation: validation() })
}

pub fn arm(name: &str, of: &str, percent: u32) -> Arm<VersionRef> {
    Arm { name: name.parse().unwrap(), version: version(of), weight: ppm(percent * PERCENT) }
}

pub fn conversion() -> Reward {
    Reward { kind: RewardKind::Conversion, higher_is_better: true, labels: vec![] }
}

/// Half and half, for 64 minutes at most: slices are minutes.
pub fn ab_test() -> Plan {
    plan(Strategy::AbTest(Experiment {
        arms: vec![arm("control", "v1", 50), arm("treatment", "v2", 50)],
        metric: conversion(),
        alpha: ppm(5 * PERCENT),
        correction: Correction::Holm,
        decide_automatically: true,
        enrolment: ppm(WHOLE),
        min_rewards: 100,
        max_duration: Millis::from_secs(64 * 60),
    }))
}

/// Half and half to begin with; weights every ten seconds; slices are seconds.
pub fn bandit() -> Plan {
    plan(Strategy::Bandit(Bandit {
        arms: vec![arm("old", "v1", 50), arm("new", "v2", 50)],
        policy: BanditPolicy::Thompson,
        reward: conversion(),
        floor: ppm(PERCENT),
        half_life: Some(Millis::from_secs(8)),
        publish_every: Millis::from_secs(10),
        enrolment: ppm(WHOLE),
        stop: None,
    }))
}

pub fn gate(test: GateTest) -> Gate {
    Gate { test, min_samples: 100, alpha: ppm(5 * PERCENT) }
}

pub fn start(name: &str, plan: Plan) -> Command {
    started(name, plan, false)
}

pub fn start_again(name: &str, plan: Plan) -> Command {
    started(name, plan, true)
}

fn started(name: &str, plan: Plan, again: bool) -> Command {
    rollout(RolloutCommand::Start { name: name.parse().unwrap(), spec: Box::new(plan), again })
}

pub fn pause(name: &str) -> Command {
    rollout(RolloutCommand::Pause { name: name.parse().unwrap() })
}

pub fn resume(name: &str) -> Command {
    rollout(RolloutCommand::Resume { name: name.parse().unwrap() })
}

pub fn promote(name: &str) -> Command {
    rollout(RolloutCommand::Promote { name: name.parse().unwrap(), full: false, winner: None })
}

pub fn promote_fully(name: &str) -> Command {
    rollout(RolloutCommand::Promote { name: name.parse().unwrap(), full: true, winner: None })
}

pub fn promote_winner(name: &str, winner: &str) -> Command {
    let winner = Some(version(winner));
    rollout(RolloutCommand::Promote { name: name.parse().unwrap(), full: false, winner })
}

pub fn abort(name: &str) -> Command {
    rollout(RolloutCommand::Abort { name: name.parse().unwrap(), why: String::new() })
}

pub fn undo(name: &str) -> Command {
    rollout(RolloutCommand::Undo { name: name.parse().unwrap() })
}

pub fn set_arms(name: &str, arms: Vec<Arm<VersionRef>>) -> Command {
    rollout(RolloutCommand::SetArms { name: name.parse().unwrap(), arms })
}

/// Of a time in log time, in seconds.
pub fn drop_learning(name: &str, from: u64, to: u64) -> Command {
    let at = |seconds: u64| LogTime::from_micros(seconds * SECOND_MICROS);
    rollout(RolloutCommand::DropLearning { name: name.parse().unwrap(), from: at(from), to: at(to) })
}

/// What a controller says that has looked at `name` at a revision.
pub fn step(name: &str, revision: u64) -> Step {
    Step {
        name: name.parse().unwrap(),
        expected_revision: LogIndex::new(revision),
        why: "the numbers say so".to_owned(),
        evidence: vec![evidence()],
    }
}

pub fn evidence() -> Measure {
    Measure {
        what: "errorRate".to_owned(),
        version: Some(Ordinal::new(2)),
        value: Micro(2_500),
        lower: Some(Micro(1_000)),
        upper: None,
        samples: 4_000,
    }
}

pub fn advance(step: Step, stage: u32) -> Command {
    rollout(RolloutCommand::Advance { step, stage })
}

pub fn roll_back(step: Step) -> Command {
    rollout(RolloutCommand::RollBack { step })
}

pub fn hold(step: Step) -> Command {
    rollout(RolloutCommand::Hold { step })
}

/// Ordinals and percentages.
pub fn publish(step: Step, weights: &[(u64, u32)]) -> Command {
    let weights = weights.iter().map(|(version, percent)| (Ordinal::new(*version), ppm(percent * PERCENT)));
    rollout(RolloutCommand::Publish { step, weights: weights.collect() })
}

pub fn conclude(step: Step, winner: Option<u64>) -> Command {
    rollout(RolloutCommand::Conclude { step, winner: winner.map(Ordinal::new) })
}

pub fn feedback(node: u64, sequence: u64, sums: Vec<RewardSum>) -> Command {
    rollout(RolloutCommand::RecordFeedback(FeedbackDelta { node: NodeId::new(node), sequence, sums }))
}

fn rollout(command: RolloutCommand) -> Command {
    Command::Rollout(command)
}

pub fn not_over(stage: u32) -> Rejection {
    Rejection::StageNotOver { rollout: "trial".parse().unwrap(), stage }
}

pub fn epoch(index: u64) -> Epoch {
    Epoch::new(index)
}
