//! The golden values of rollouts: every variant and every optional field once.
//! Read and compared in `golden.rs`.

use starling_raft::state::rollouts::commands::Step;
use starling_raft::state::rollouts::spec::{
    Arm, Bandit, BanditPolicy, CanaryStep, Correction, Experiment, GateTest, Micro, Millis, OnFailure,
    OnInconclusive, Pause, Reward, RewardKind, RolloutSpec, StopRule, Strategy, Validation,
};
use starling_raft::state::rollouts::{
    Ending, FeedbackDelta, Measure, RewardSum, RewardTotals, SpecProblem, Weights,
};
use starling_raft::state::routes::rules::{Attribute, Condition, Test};
use starling_raft::state::routes::shadows::{Agreement, Comparison};
use starling_raft::state::{
    Command, Epoch, Event, LogIndex, LogTime, ModelName, NodeId, Ordinal, Outcome, Rejection, RolloutCommand,
    RolloutEvent, RolloutName, State,
};

use crate::log::{Log, delete_version, join, model, ppm, raise, remove};
use crate::plans::{
    self, Plan, abort, advance, arm, conclude, drop_learning, feedback, gate, hold, pause, promote,
    promote_winner, publish, roll_back, set_arms, start, step, undo, validation, version,
};

fn name() -> RolloutName {
    "digits-v2".parse().unwrap()
}

fn digits() -> ModelName {
    model("digits")
}

/// Every strategy, gate, pause, policy, correction and kind of reward.
fn plans() -> Vec<(&'static str, Plan)> {
    let blue_green = RolloutSpec {
        from: version("1"),
        gates: vec![
            gate(GateTest::ErrorRate { max: ppm(10_000) }),
            gate(GateTest::ErrorRateDifference { max: ppm(5_000) }),
            gate(GateTest::LatencyRatio { quantile: ppm(990_000), max_ratio: Micro(1_200_000) }),
            gate(GateTest::Agreement { min: ppm(980_000) }),
            gate(GateTest::RewardDifference { max_drop: Micro(20_000) }),
        ],
        on_failure: OnFailure::Hold,
        on_inconclusive: OnInconclusive::Promote,
        retry_on_stable: true,
        webhooks: vec!["http://127.0.0.1:9/hook".to_owned()],
        strategy: Strategy::BlueGreen {
            to: version("v2"),
            validate: Some(full_validation()),
            steps: vec![ppm(100_000), ppm(500_000), ppm(1_000_000)],
            every: Millis(300_000),
            keep_warm: Millis(3_600_000),
        },
        ..plans::blue_green()
    };
    let at_once = Strategy::BlueGreen {
        to: version("v2"),
        validate: None,
        steps: vec![ppm(1_000_000)],
        every: Millis(0),
        keep_warm: Millis(0),
    };
    let canary = vec![
        CanaryStep { weight: ppm(50_000), pause: Pause::For(Millis(1_500)), gates: vec![] },
        CanaryStep {
            weight: ppm(1_000_000),
            pause: Pause::UntilApproved,
            gates: vec![gate(GateTest::ErrorRate { max: ppm(1) })],
        },
    ];
    let with = |strategy| RolloutSpec { strategy, ..plans::canary() };
    vec![
        ("", blue_green),
        ("-at-once", with(at_once)),
        (
            "-canary",
            RolloutSpec {
                on_inconclusive: OnInconclusive::Rollback,
                ..with(Strategy::Canary { to: version("2"), steps: canary })
            },
        ),
        ("-shadow", plans::shadowing()),
        ("-ab-test", with(experiment(Correction::None, RewardKind::Conversion))),
        (
            "-ab-test-bonferroni",
            with(experiment(
                Correction::Bonferroni,
                RewardKind::Bounded { floor: Micro(-1), ceiling: Micro(2_500_000) },
            )),
        ),
        ("-ab-test-holm", with(experiment(Correction::Holm, RewardKind::Unbounded))),
        (
            "-ab-test-benjamini-hochberg",
            with(experiment(Correction::BenjaminiHochberg, RewardKind::Conversion)),
        ),
        ("-bandit", with(full_bandit())),
        ("-bandit-ucb1", with(plain_bandit(BanditPolicy::Ucb1))),
        ("-bandit-thompson", with(plain_bandit(BanditPolicy::Thompson))),
        (
            "-bandit-top-two-thompson",
            with(plain_bandit(BanditPolicy::TopTwoThompson { leader: ppm(500_000) })),
        ),
    ]
}

fn full_validation() -> Validation {
    let when = vec![Condition {
        attribute: Attribute::Metadata("x-country".to_owned()),
        test: Test::In(vec!["de".to_owned(), "at".to_owned()]),
    }];
    let outputs = vec![
        ("label".to_owned(), Agreement::Exact),
        ("near".to_owned(), Agreement::Tolerance { absolute_nano: 5, relative_nano: 10_000 }),
        ("p".to_owned(), Agreement::Distance { max: ppm(20_000) }),
    ];
    let comparison = Comparison { outputs, others: Agreement::TopOne };
    Validation { hold: Millis(600_000), portion: ppm(250_000), when, comparison, ..validation() }
}

fn experiment(correction: Correction, kind: RewardKind) -> Strategy<starling_raft::state::VersionRef> {
    Strategy::AbTest(Experiment {
        arms: vec![arm("control", "v1", 50), arm("treatment", "2", 30), arm("other", "v3", 20)],
        metric: Reward { kind, higher_is_better: false, labels: vec![] },
        alpha: ppm(50_000),
        correction,
        decide_automatically: correction == Correction::Holm,
        enrolment: ppm(200_000),
        min_rewards: 1_000,
        max_duration: Millis(86_400_000),
    })
}

fn plain_bandit(policy: BanditPolicy) -> Strategy<starling_raft::state::VersionRef> {
    Strategy::Bandit(Bandit {
        arms: vec![arm("old", "v1", 50), arm("new", "v2", 50)],
        policy,
        reward: Reward { kind: RewardKind::Unbounded, higher_is_better: true, labels: vec![] },
        floor: ppm(10_000),
        half_life: None,
        publish_every: Millis(5_000),
        enrolment: ppm(1_000_000),
        stop: None,
    })
}

fn full_bandit() -> Strategy<starling_raft::state::VersionRef> {
    let Strategy::Bandit(plain) =
        plain_bandit(BanditPolicy::EpsilonGreedy { epsilon: ppm(100_000), half_after: 500 })
    else {
        unreachable!()
    };
    let labels = vec![("click".to_owned(), Micro(1_000_000)), ("gekauft-ß".to_owned(), Micro(-2_500_000))];
    Strategy::Bandit(Bandit {
        reward: Reward { labels, ..plain.reward },
        half_life: Some(Millis(28_800_000)),
        stop: Some(StopRule { probability_best: ppm(990_000), min_rewards: 10_000 }),
        ..plain
    })
}

/// As it is once its versions are looked up.
fn resolved(plan: &Plan) -> Box<RolloutSpec> {
    let ordinal = |version: &starling_raft::state::VersionRef| {
        version.to_string().trim_start_matches('v').parse().map(Ordinal::new)
    };
    Box::new(plan.resolved(ordinal).unwrap())
}

/// With bounds and without.
fn measures() -> Vec<Measure> {
    let rollout = Measure {
        what: "sampleRatio".to_owned(),
        version: None,
        value: Micro(-1),
        lower: None,
        upper: Some(Micro(i64::MAX)),
        samples: 0,
    };
    vec![plans::evidence(), rollout]
}

fn full_step() -> Step {
    Step {
        name: name(),
        expected_revision: LogIndex::new(41),
        why: "numbers".to_owned(),
        evidence: measures(),
    }
}

fn weights() -> Weights {
    vec![(Ordinal::new(1), ppm(250_000)), (Ordinal::new(2), ppm(750_000))]
}

/// One given and one taken back, as far as the numbers reach.
fn sums() -> Vec<RewardSum> {
    let given = RewardSum {
        rollout: name(),
        started_at: LogIndex::new(30),
        arm: Ordinal::new(2),
        epoch: Epoch::new(33),
        cluster: 255,
        slice: 7,
        totals: RewardTotals { count: 3, sum: 3 << 24, sum_of_squares: i128::MAX },
    };
    let totals = RewardTotals { count: -1, sum: -(1 << 24), sum_of_squares: i128::MIN };
    vec![given.clone(), RewardSum { cluster: 0, totals, ..given }]
}

pub fn commands() -> Vec<(String, Command)> {
    let starts = plans().into_iter().map(|(suffix, plan)| {
        let again = suffix.is_empty();
        let command = RolloutCommand::Start { name: name(), spec: Box::new(plan), again };
        (format!("command-0701-v1{suffix}"), command)
    });
    let promote = |full, winner| RolloutCommand::Promote { name: name(), full, winner };
    let others = [
        ("command-0702-v1", RolloutCommand::Pause { name: name() }),
        ("command-0703-v1", RolloutCommand::Resume { name: name() }),
        ("command-0704-v1", promote(true, Some(version("v2")))),
        ("command-0704-v1-one-step", promote(false, None)),
        ("command-0705-v1", RolloutCommand::Abort { name: name(), why: "it smells".to_owned() }),
        ("command-0706-v1", RolloutCommand::Undo { name: name() }),
        (
            "command-0707-v1",
            RolloutCommand::SetArms { name: name(), arms: vec![arm("old", "1", 60), arm("new", "v2", 40)] },
        ),
        (
            "command-0708-v1",
            RolloutCommand::DropLearning {
                name: name(),
                from: LogTime::from_micros(1_000_000),
                to: LogTime::from_micros(2_000_000),
            },
        ),
        ("command-0709-v1", RolloutCommand::Advance { step: full_step(), stage: 3 }),
        ("command-070a-v1", RolloutCommand::RollBack { step: full_step() }),
        ("command-070b-v1", RolloutCommand::Hold { step: full_step() }),
        ("command-070c-v1", RolloutCommand::Publish { step: full_step(), weights: weights() }),
        ("command-070d-v1", RolloutCommand::Conclude { step: full_step(), winner: Some(Ordinal::new(2)) }),
        ("command-070d-v1-nobody", RolloutCommand::Conclude { step: full_step(), winner: None }),
        (
            "command-070e-v1",
            RolloutCommand::RecordFeedback(FeedbackDelta {
                node: NodeId::new(1_003),
                sequence: 9,
                sums: sums(),
            }),
        ),
    ];
    let others = others.into_iter().map(|(file, command)| (file.to_owned(), command));
    starts.chain(others).map(|(file, command)| (file, Command::Rollout(command))).collect()
}

pub fn events() -> Vec<(String, Event)> {
    let starts = plans().into_iter().map(|(suffix, plan)| {
        let started =
            RolloutEvent::RolloutStarted { name: name(), spec: resolved(&plan), weights: weights() };
        (format!("event-8701-v1{suffix}"), started)
    });
    let endings = [
        ("", Ending::Promoted),
        ("-rolled-back", Ending::RolledBack),
        ("-aborted", Ending::Aborted),
        ("-undone", Ending::Undone),
        ("-completed", Ending::Completed),
    ];
    let endings = endings.map(|(suffix, ending)| {
        let (why, evidence) = ("numbers".to_owned(), measures());
        let finished =
            RolloutEvent::RolloutFinished { name: name(), ending, weights: weights(), why, evidence };
        (format!("event-8707-v1{suffix}"), finished)
    });
    let (why, evidence) = (|| "numbers".to_owned(), measures);
    let arms = vec![
        Arm { name: "old".parse().unwrap(), version: Ordinal::new(1), weight: ppm(600_000) },
        Arm { name: "new".parse().unwrap(), version: Ordinal::new(2), weight: ppm(400_000) },
    ];
    let others = [
        ("event-8702-v1", RolloutEvent::RolloutPaused { name: name() }),
        ("event-8703-v1", RolloutEvent::RolloutResumed { name: name() }),
        (
            "event-8704-v1",
            RolloutEvent::RolloutAdvanced {
                name: name(),
                stage: 2,
                weights: weights(),
                why: why(),
                evidence: evidence(),
            },
        ),
        ("event-8705-v1", RolloutEvent::RolloutHeld { name: name(), why: why(), evidence: evidence() }),
        (
            "event-8706-v1",
            RolloutEvent::RolloutPublished {
                name: name(),
                weights: weights(),
                why: why(),
                evidence: evidence(),
            },
        ),
        ("event-8708-v1", RolloutEvent::RolloutArmsSet { name: name(), arms, weights: weights() }),
        (
            "event-8709-v1",
            RolloutEvent::RolloutLearningDropped {
                name: name(),
                first_slice: 3,
                last_slice: 5,
                rewards: -17,
            },
        ),
        (
            "event-870a-v1",
            RolloutEvent::FeedbackRecorded { node: NodeId::new(1_003), sequence: 9, sums: sums() },
        ),
        ("event-870b-v1", RolloutEvent::RolloutApproved { name: name() }),
    ];
    let others = others.into_iter().map(|(file, event)| (file.to_owned(), event));
    starts.chain(endings).chain(others).map(|(file, event)| (file, Event::Rollout(event))).collect()
}

pub fn outcomes() -> Vec<(String, Outcome)> {
    let refusals = [
        ("route-owned", Rejection::RouteOwned { model: digits(), rollout: name() }),
        ("unknown-rollout", Rejection::UnknownRollout(name())),
        ("rollout-exists", Rejection::RolloutExists { rollout: name(), is_over: true }),
        ("rollout-over", Rejection::RolloutOver(name())),
        ("rollout-not-running", Rejection::RolloutNotRunning(name())),
        ("stage-not-over", Rejection::StageNotOver { rollout: name(), stage: 2 }),
        ("winner-needed", Rejection::WinnerNeeded(name())),
        ("no-such-arm", Rejection::NoSuchArm { rollout: name(), version: "v9".to_owned() }),
        ("not-an-experiment", Rejection::NotAnExperiment(name())),
        ("route-moved", Rejection::RouteMoved { rollout: name(), model: digits() }),
        (
            "revision-mismatch",
            Rejection::RevisionMismatch {
                rollout: name(),
                expected: LogIndex::new(41),
                found: LogIndex::new(43),
            },
        ),
    ];
    let text = str::to_owned;
    let problems = [
        (
            "other-signature",
            SpecProblem::OtherSignature { version: text("v2"), stable: text("v1"), tensor: text("pixels") },
        ),
        ("not-the-whole-route", SpecProblem::NotTheWholeRoute { stable: text("v1"), weight_ppm: 600_000 }),
        ("same-version", SpecProblem::SameVersion(text("v1"))),
        ("stable-is-no-arm", SpecProblem::StableIsNoArm(text("v1"))),
        ("twice", SpecProblem::Twice(text("control"))),
        ("out-of-range", SpecProblem::OutOfRange { found: -1, min: 1, max: i64::MAX }),
        ("steps-do-not-grow", SpecProblem::StepsDoNotGrow),
        ("arms-do-not-sum", SpecProblem::WeightsDoNotSum(900_000)),
        ("too-many", SpecProblem::TooMany { found: 33, max: 32 }),
        ("empty", SpecProblem::Empty),
        (
            "nothing-to-look-at",
            SpecProblem::NothingToLookAt { strategy: text("canary"), what: text("shadow") },
        ),
    ];
    let problems = problems.map(|(file, problem)| {
        (file, Rejection::InvalidRollout { rollout: name(), field: "spec.from".to_owned(), problem })
    });
    let all = refusals.into_iter().chain(problems);
    all.map(|(file, rejection)| (format!("outcome-0501-v1-{file}"), Err(rejection))).collect()
}

/// A running, a paused and a held rollout; one of each ending; rewards, and a
/// time whose rewards were taken back.
pub fn full_state(before: State) -> State {
    let mut log = Log { state: before, index: 300, log_time_micros: 1_000, ..Log::empty() };
    for (uuid, level) in [(1, 4), (2, 4), (9, 4)] {
        log.accept(join(uuid, level));
    }
    log.accept(raise(4));
    let of = |name: &str, plan: Plan| RolloutSpec { model: model(name), ..plan };
    let models = ["running", "paused", "held", "tested", "promoted", "rolled-back", "aborted", "undone"];
    for name in models {
        for (label, digest) in [("v1", 1), ("v2", 2), ("v3", 3)] {
            log.push_ready(name, label, digest);
        }
        let plan = match name {
            "running" => plans::canary(),
            "paused" => plans::blue_green(),
            "held" => plans::bandit(),
            "tested" => plans::ab_test(),
            _ => plans::canary(),
        };
        log.accept(start(name, of(name, plan)));
    }
    let look = |log: &Log, name: &str| step(name, log.state.rollouts.get(name).unwrap().revision.get());
    log.wait(20);
    for name in ["running", "promoted", "undone"] {
        let step = look(&log, name);
        log.accept(advance(step, 1));
        log.accept(promote(name));
    }
    for name in ["promoted", "undone"] {
        let step = look(&log, name);
        log.accept(advance(step, 2));
        log.accept(promote(name));
    }
    log.accept(undo("undone"));
    log.accept(pause("paused"));
    let step = look(&log, "rolled-back");
    log.accept(roll_back(step));
    log.accept(abort("aborted"));

    let reward = |log: &Log, name: &str, version: u64, slice: u32, cluster: u8| {
        let rollout = log.state.rollouts.get(name).unwrap();
        RewardSum {
            rollout: rollout.name.clone(),
            started_at: rollout.started_at,
            arm: Ordinal::new(version),
            epoch: rollout.epochs.last().unwrap().epoch,
            cluster,
            slice,
            totals: plans::totals(5),
        }
    };
    let sums = vec![reward(&log, "held", 1, 3, 0), reward(&log, "held", 2, 9, 0)];
    log.accept(feedback(1_000, 1, sums));
    let step = look(&log, "held");
    log.accept(publish(step, &[(1, 30), (2, 70)]));
    let sums = vec![reward(&log, "held", 2, 12, 0), reward(&log, "tested", 2, 1, 200)];
    log.accept(feedback(1_000, 2, sums));
    log.accept(drop_learning("held", 2, 4));
    let step = look(&log, "held");
    log.accept(hold(step));
    log.accept(set_arms("tested", vec![arm("control", "v1", 20), arm("treatment", "v3", 80)]));

    for (label, digest) in [("v1", 1), ("v2", 2)] {
        log.push_ready("completed", label, digest);
    }
    log.accept(start("completed", of("completed", plans::ab_test())));
    let step = look(&log, "completed");
    log.accept(conclude(step, None));
    for (label, digest) in [("v1", 1), ("v2", 2)] {
        log.push_ready("won", label, digest);
    }
    log.accept(start("won", of("won", plans::bandit())));
    log.accept(promote_winner("won", "v2"));
    log.refuse(delete_version("running", "v2"));
    let newest = log.state.members.iter().last().unwrap().node_id.get();
    log.accept(feedback(newest, 1, vec![]));
    log.accept(remove(newest));
    log.state
}
