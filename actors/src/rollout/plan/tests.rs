#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use proptest::prelude::*;
use starling_raft::state::rollouts::spec::{
    CanaryStep, GateTest, Millis, OnFailure, OnInconclusive, Pause, Strategy, Validation,
};
use starling_raft::state::rollouts::{Ending, RolloutPhase};
use starling_raft::state::routes::shadows::{Agreement, Comparison};
use starling_raft::state::{NodeId, RolloutCommand};

use super::super::testing::{CANDIDATE, STABLE, World, canary, gate, max_error_rate, p99_ratio, ppm, spec};
use super::Plan;

const MS: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

fn kind(plan: &Plan) -> &'static str {
    match plan.command {
        None => "wait",
        Some(RolloutCommand::Advance { .. }) => "advance",
        Some(RolloutCommand::RollBack { .. }) => "roll back",
        Some(RolloutCommand::Hold { .. }) => "hold",
        Some(RolloutCommand::Publish { .. }) => "publish",
        Some(RolloutCommand::Conclude { .. }) => "conclude",
        Some(_) => "other",
    }
}

fn why(plan: &Plan) -> String {
    match &plan.command {
        Some(
            RolloutCommand::Advance { step, .. }
            | RolloutCommand::RollBack { step }
            | RolloutCommand::Hold { step }
            | RolloutCommand::Conclude { step, .. },
        ) => step.why.clone(),
        _ => String::new(),
    }
}

#[test]
fn a_good_candidate_is_promoted_step_by_step_and_each_step_names_its_numbers() {
    let mut world = World::start(canary(vec![max_error_rate(10_000)]));
    world.requests(CANDIDATE, 2_000, 0, MS);
    let early = world.step();
    assert_eq!((kind(&early), early.next.not_before), ("wait", Some(MINUTE)));
    assert_eq!(early.next.what, "v2 gets 100 %");
    world.pass(MINUTE);
    let advanced = world.step();
    assert_eq!(
        (kind(&advanced), why(&advanced).as_str()),
        ("advance", "stage 1 is over and its gates pass: errorRate")
    );
    let rollout = world.rollout();
    assert_eq!((rollout.stage, rollout.evidence[0].samples), (1, 2_000));
    assert_eq!(
        (rollout.evidence[0].what.as_str(), rollout.evidence[0].version),
        ("errorRate", Some(CANDIDATE))
    );

    world.pass(MINUTE);
    let waits = world.step().next.waits_for;
    assert_eq!(
        waits,
        ["errorRate of v2 is not known yet and must be at most 0.01: cannot tell: 0 samples of 100"]
    );
    world.requests(CANDIDATE, 3_000, 1, MS);
    assert_eq!(world.step().next.waits_for.len(), 1, "one pass is not enough");
    assert_eq!(kind(&world.step()), "conclude");
    let RolloutPhase::Finished { ending, .. } = world.rollout().phase.clone() else { panic!("it is over") };
    assert_eq!(ending, Ending::Promoted);
    assert_eq!(kind(&world.step()), "wait");
}

#[test]
fn a_candidate_that_errs_is_taken_back_in_every_phase() {
    type Prepare = fn(&mut World);
    let rows: [(&str, Prepare); 3] = [
        ("running", |_| {}),
        ("paused", |world| {
            let name = world.rollout().name.clone();
            world.apply(RolloutCommand::Pause { name }).unwrap();
        }),
        ("held", |world| {
            world.pass(MINUTE * 10);
            assert_eq!(kind(&world.step()), "hold");
        }),
    ];
    for (phase, prepare) in rows {
        let mut world = World::start(canary(vec![max_error_rate(10_000)]));
        prepare(&mut world);
        assert_eq!(kind(&world.step()), "wait", "{phase}: silence takes nothing back");
        world.requests(CANDIDATE, 12, 12, MS);
        let plan = world.step();
        assert_eq!(kind(&plan), "roll back", "{phase}");
        assert!(why(&plan).starts_with("errorRate of v2 is 1 ("), "{}", why(&plan));
        let RolloutPhase::Finished { ending, .. } = world.rollout().phase.clone() else { panic!("{phase}") };
        assert_eq!(ending, Ending::RolledBack, "{phase}");
    }
}

#[test]
fn a_plan_that_holds_on_failure_asks_a_person_once() {
    let mut plan = canary(vec![max_error_rate(10_000)]);
    plan.on_failure = OnFailure::Hold;
    let mut world = World::start(plan);
    world.requests(CANDIDATE, 12, 12, MS);
    assert_eq!(kind(&world.step()), "hold");
    let waits = world.step();
    assert_eq!(kind(&waits), "wait");
    assert!(waits.next.waits_for[0].starts_with("a person: `starling rollout resume digits-v2`"));
}

#[test]
fn a_version_that_nobody_can_serve_is_taken_back_whatever_the_phase() {
    let mut world = World::start(canary(vec![]));
    let name = world.rollout().name.clone();
    world.apply(RolloutCommand::Pause { name }).unwrap();
    world.gone.insert(CANDIDATE);
    let plan = world.step();
    assert_eq!((kind(&plan), why(&plan).as_str()), ("roll back", "no live node has v2 loaded any more"));
}

#[test]
fn too_few_samples_never_promote_and_end_as_the_plan_says() {
    let rows = [
        (OnInconclusive::Hold, "hold"),
        (OnInconclusive::Rollback, "roll back"),
        (OnInconclusive::Promote, "wait"),
    ];
    for (on_inconclusive, expected) in rows {
        let mut plan = canary(vec![max_error_rate(10_000)]);
        plan.on_inconclusive = on_inconclusive;
        let mut world = World::start(plan);
        world.requests(CANDIDATE, 99, 0, MS);
        world.pass(MINUTE * 5);
        assert_eq!(kind(&world.step()), "wait", "{on_inconclusive:?}: the gates may still tell");
        world.pass(MINUTE);
        let plan = world.step();
        assert_eq!(kind(&plan), expected, "{on_inconclusive:?}");
    }
}

#[test]
fn enough_samples_that_cannot_tell_go_on_only_if_the_plan_says_so() {
    let mut plan = canary(vec![max_error_rate(10_000)]);
    plan.on_inconclusive = OnInconclusive::Promote;
    let mut world = World::start(plan);
    world.requests(CANDIDATE, 1_000, 10, MS);
    world.pass(MINUTE * 6);
    let plan = world.step();
    assert_eq!(kind(&plan), "advance");
    assert!(
        why(&plan).starts_with("the gates could not tell for 300 s: errorRate of v2 is 0.01 ("),
        "{}",
        why(&plan)
    );
}

#[test]
fn a_node_that_has_not_reported_is_waited_for() {
    let mut world = World::start(canary(vec![]));
    world.pass(MINUTE);
    world.unheard.push(NodeId::new(3));
    let plan = world.step();
    assert_eq!((kind(&plan), plan.next.waits_for), ("wait", vec!["what node 3 has counted".to_owned()]));
    world.unheard.clear();
    assert_eq!(kind(&world.step()), "advance");
}

#[test]
fn a_stage_that_waits_for_approval_ends_after_it_and_not_before_its_gates_pass() {
    let step = |weight, pause| CanaryStep { weight: ppm(weight), pause, gates: vec![max_error_rate(10_000)] };
    let steps = vec![step(500_000, Pause::UntilApproved), step(1_000_000, Pause::For(Millis(0)))];
    let mut world = World::start(spec(Strategy::Canary { to: "v2".parse().unwrap(), steps }, vec![]));
    world.pass(MINUTE * 60);
    let waits = world.step();
    assert_eq!(
        (kind(&waits), waits.next.waits_for[0].as_str()),
        ("wait", "approval: `starling rollout promote digits-v2`")
    );
    let name = world.rollout().name.clone();
    world.apply(RolloutCommand::Promote { name, full: false, winner: None }).unwrap();
    assert_eq!(kind(&world.step()), "wait");
    world.requests(CANDIDATE, 2_000, 0, MS);
    assert_eq!([kind(&world.step()), kind(&world.step())], ["wait", "advance"]);
}

#[test]
fn ten_times_slower_is_taken_back_after_two_looks() {
    let mut world = World::start(canary(vec![p99_ratio(1.2)]));
    world.requests(STABLE, 2_000, 0, MS);
    world.requests(CANDIDATE, 200, 0, MS * 10);
    let once = world.step();
    assert_eq!(kind(&once), "wait");
    assert!(
        once.next.waits_for.iter().any(|line| line.ends_with("fails, and is looked at once more")),
        "{:?}",
        once.next
    );
    assert_eq!(kind(&world.step()), "roll back");
}

#[test]
fn what_cannot_be_compared_is_not_waited_for() {
    let mut world = World::start(canary(vec![p99_ratio(1.2)]));
    world.requests(STABLE, 2_000, 0, MS);
    world.requests(CANDIDATE, 500, 0, MS);
    world.pass(MINUTE);
    assert_eq!([kind(&world.step()), kind(&world.step())], ["wait", "advance"]);
    world.pass(MINUTE);
    // The stable version gets nothing any more.
    let plan = world.step();
    assert_eq!(kind(&plan), "conclude", "{:?}", plan.next);
}

#[test]
fn copies_are_validated_before_any_traffic_shifts() {
    let validate = Validation {
        hold: Millis::from_secs(60),
        min_requests: 1_000,
        portion: ppm(1_000_000),
        when: vec![],
        comparison: Comparison { outputs: vec![], others: Agreement::Exact },
    };
    let strategy = Strategy::BlueGreen {
        to: "v2".parse().unwrap(),
        validate: Some(validate),
        steps: vec![ppm(500_000), ppm(1_000_000)],
        every: Millis::from_secs(60),
        keep_warm: Millis::from_secs(60),
    };
    let gates = vec![gate(GateTest::Agreement { min: ppm(950_000) })];
    let mut world = World::start(spec(strategy, gates));
    world.pass(MINUTE);
    world.copies(CANDIDATE, 900, 899);
    assert!(world.step().next.waits_for.contains(&"900 of 1000 copies compared".to_owned()));
    world.copies(CANDIDATE, 600, 599);
    assert_eq!(kind(&world.step()), "advance");
    for expected in ["advance", "conclude"] {
        world.pass(MINUTE);
        // Nothing is copied any more: agreement is not asked.
        assert_eq!(kind(&world.step()), expected);
    }

    let mut world =
        World::start(spec(world.rollout_strategy(), vec![gate(GateTest::Agreement { min: ppm(950_000) })]));
    world.copies(CANDIDATE, 200, 20);
    assert_eq!(kind(&world.step()), "roll back");
}

impl World {
    fn rollout_strategy(&self) -> Strategy<starling_raft::state::VersionRef> {
        let resolved = self
            .rollout()
            .spec
            .resolved(|ordinal| Ok::<_, ()>(starling_raft::state::VersionRef::Ordinal(*ordinal)));
        resolved.unwrap().strategy
    }
}

proptest! {
    /// Whatever was counted, in whatever order the looks come: nothing goes on with
    /// a gate that has not passed, every command is accepted, and the same scene
    /// gives the same plan.
    #[test]
    fn nothing_goes_on_with_a_gate_that_has_not_passed(
        looks in prop::collection::vec((0_u64..400, 0_u64..8, 0_u64..40), 1..40),
    ) {
        let mut world = World::start(canary(vec![max_error_rate(20_000), p99_ratio(2.0)]));
        for (requests, errors, seconds) in looks {
            if world.rollout().is_over() {
                break;
            }
            world.requests(STABLE, requests * 2, 0, MS);
            world.requests(CANDIDATE, requests, errors.min(requests), MS);
            world.pass(Duration::from_secs(seconds));
            let memory = world.memory.clone();
            let plan = world.look();
            let after = std::mem::replace(&mut world.memory, memory);
            prop_assert_eq!(&world.look(), &plan);
            world.memory = after;
            let goes_on = matches!(kind(&plan), "advance" | "conclude");
            prop_assert!(!goes_on || plan.gates.iter().all(super::Judged::lets_pass));
            prop_assert!(!goes_on || plan.next.waits_for.is_empty());
            if let Some(command) = plan.command {
                let accepted = world.apply(command);
                prop_assert!(accepted.is_ok(), "{:?}", accepted);
            }
        }
    }
}
