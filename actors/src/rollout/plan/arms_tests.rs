#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use starling_raft::state::rollouts::spec::{
    Bandit, BanditPolicy, Correction, Experiment, Millis, Reward, RewardKind, RolloutSpec, StopRule, Strategy,
};
use starling_raft::state::rollouts::{Ending, RolloutPhase};
use starling_raft::state::{RolloutCommand, VersionRef};

use super::super::testing::{CANDIDATE, STABLE, THIRD, World, arms, max_error_rate, ppm, spec};
use super::{ArmsLook, Plan};

const MINUTE: Duration = Duration::from_secs(60);

fn conversions() -> Reward {
    Reward { kind: RewardKind::Conversion, higher_is_better: true, labels: vec![] }
}

fn experiment(weights: &[u32]) -> Experiment<VersionRef> {
    Experiment {
        arms: arms(weights),
        metric: conversions(),
        alpha: ppm(50_000),
        correction: Correction::Holm,
        decide_automatically: true,
        enrolment: ppm(1_000_000),
        min_rewards: 200,
        max_duration: Millis::from_secs(3_600),
    }
}

fn bandit(weights: &[u32]) -> Bandit<VersionRef> {
    Bandit {
        arms: arms(weights),
        policy: BanditPolicy::Thompson,
        reward: conversions(),
        floor: ppm(50_000),
        half_life: None,
        publish_every: Millis::from_secs(60),
        enrolment: ppm(1_000_000),
        stop: Some(StopRule { probability_best: ppm(990_000), min_rewards: 300 }),
    }
}

fn ab_test(experiment: Experiment<VersionRef>) -> RolloutSpec<VersionRef> {
    spec(Strategy::AbTest(experiment), vec![])
}

fn ending(world: &World) -> Option<Ending> {
    match world.rollout().phase {
        RolloutPhase::Finished { ending, .. } => Some(ending),
        _ => None,
    }
}

fn weight(world: &World, version: starling_raft::state::Ordinal) -> u32 {
    let route = world.cluster.state.routes.get("digits").unwrap();
    route.weights.iter().find(|(ordinal, _)| *ordinal == version).map_or(0, |(_, weight)| weight.get())
}

fn waits(plan: &Plan) -> String {
    assert_eq!(plan.command, None);
    plan.next.waits_for.join("; ")
}

#[test]
fn the_better_arm_of_a_test_wins_and_the_event_says_by_how_much() {
    let mut world = World::start(ab_test(experiment(&[500_000, 500_000])));
    assert_eq!(waits(&world.step()), "0 of 200 rewards of arm 'a'; 0 of 200 rewards of arm 'b'");
    world.conversions(STABLE, 2_000, 1_000);
    world.conversions(CANDIDATE, 2_000, 1_020);
    assert_eq!(waits(&world.step()), "a difference that is beyond chance");
    world.conversions(STABLE, 3_000, 1_500);
    world.conversions(CANDIDATE, 3_000, 2_100);
    let plan = world.step();
    assert!(plan.next.what.starts_with("v2 is promoted: v2 is better than v1: by 0.1"), "{}", plan.next.what);
    assert_eq!((ending(&world), weight(&world, CANDIDATE)), (Some(Ending::Promoted), 1_000_000));
    let evidence = &world.rollout().evidence;
    assert_eq!((evidence[0].what.as_str(), evidence[0].version), ("rewardDifference", Some(CANDIDATE)));
    assert!(evidence[0].lower.unwrap().0 > 0, "{evidence:?}");
}

#[test]
fn arms_that_are_all_worse_leave_everything_to_the_control() {
    let mut world = World::start(ab_test(experiment(&[400_000, 300_000, 300_000])));
    world.conversions(STABLE, 4_000, 3_600);
    world.conversions(CANDIDATE, 3_000, 1_500);
    world.conversions(THIRD, 3_000, 2_700);
    assert_eq!(waits(&world.step()), "a difference that is beyond chance");
    world.conversions(THIRD, 3_000, 1_200);
    world.step();
    assert_eq!((ending(&world), weight(&world, STABLE)), (Some(Ending::Completed), 1_000_000));
}

#[test]
fn a_person_is_told_of_the_winner_and_asked_when_time_is_up() {
    let mut world =
        World::start(ab_test(Experiment { decide_automatically: false, ..experiment(&[500_000, 500_000]) }));
    world.conversions(STABLE, 5_000, 2_500);
    world.conversions(CANDIDATE, 5_000, 3_500);
    let plan = world.step();
    assert_eq!(waits(&plan), "a person: `starling rollout promote digits-v2 --winner v2`");
    assert!(plan.next.what.starts_with("recommended: v2 is better than v1"), "{}", plan.next.what);
    world.pass(MINUTE * 60);
    assert!(matches!(world.step().command, Some(RolloutCommand::Hold { .. })));
}

#[test]
fn without_a_difference_time_ends_the_test() {
    let mut world = World::start(ab_test(experiment(&[500_000, 500_000])));
    world.conversions(STABLE, 1_000, 500);
    world.conversions(CANDIDATE, 1_000, 510);
    world.pass(MINUTE * 59);
    assert_eq!(world.step().next.not_before, Some(MINUTE));
    world.pass(MINUTE);
    world.step();
    let RolloutPhase::Finished { ending, why, .. } = world.rollout().phase.clone() else { panic!("over") };
    assert_eq!((ending, why.as_str()), (Ending::Completed, "time is up after 3600 s without a winner"));
}

#[test]
fn a_winner_waits_for_its_gates() {
    let mut plan = ab_test(experiment(&[500_000, 500_000]));
    plan.gates = vec![max_error_rate(10_000)];
    let mut world = World::start(plan);
    world.conversions(STABLE, 5_000, 2_500);
    world.conversions(CANDIDATE, 5_000, 3_500);
    assert!(waits(&world.step()).starts_with("errorRate of v2 is not known yet"));
    world.requests(CANDIDATE, 3_000, 0, Duration::from_millis(1));
    assert!(waits(&world.step()).contains("passes, and has to once more"));
    world.step();
    assert_eq!(ending(&world), Some(Ending::Promoted));
}

#[test]
fn a_bandit_publishes_no_sooner_than_it_may_and_never_on_silence() {
    let mut world = World::start(spec(Strategy::Bandit(bandit(&[500_000, 500_000])), vec![]));
    world.pass(MINUTE * 2);
    assert!(waits(&world.step()).ends_with("the first reward"));
    world.conversions(STABLE, 100, 40);
    world.conversions(CANDIDATE, 100, 60);
    assert!(matches!(world.step().command, Some(RolloutCommand::Publish { .. })));
    let after = weight(&world, CANDIDATE);
    assert!((900_000..=950_000).contains(&after), "{after}");
    world.conversions(STABLE, 100, 80);
    assert_eq!(world.step().next.not_before, Some(MINUTE));
    world.pass(MINUTE);
    assert!(matches!(world.step().command, Some(RolloutCommand::Publish { .. })));
    assert!(weight(&world, CANDIDATE) < after);
}

#[test]
fn the_best_arm_of_a_bandit_gets_everything_by_the_stop_rule() {
    let mut world = World::start(spec(Strategy::Bandit(bandit(&[400_000, 300_000, 300_000])), vec![]));
    world.conversions(STABLE, 400, 200);
    world.conversions(CANDIDATE, 400, 300);
    world.conversions(THIRD, 250, 100);
    let plan = world.step();
    let ArmsLook::Bandit(look) = &plan.arms else { panic!("it is a bandit") };
    assert_eq!(look.rewards, 1_050);
    assert!(plan.next.waits_for.contains(&"250 of 300 rewards of v3".to_owned()), "{:?}", plan.next);
    world.conversions(THIRD, 100, 40);
    let plan = world.step();
    assert!(
        plan.next.what.starts_with("v2 gets everything: v2 is the best arm with probability 1"),
        "{}",
        plan.next.what
    );
    assert_eq!((ending(&world), weight(&world, CANDIDATE)), (Some(Ending::Promoted), 1_000_000));
}

#[test]
fn a_bandit_that_forgets_follows_a_world_that_changes() {
    let mut forgetful = bandit(&[500_000, 500_000]);
    forgetful.half_life = Some(Millis::from_secs(60));
    forgetful.stop = None;
    let mut world = World::start(spec(Strategy::Bandit(forgetful), vec![]));
    for (stable, candidate) in [(20, 80), (20, 80), (80, 20), (80, 20), (80, 20)] {
        world.pass(MINUTE * 2);
        world.conversions(STABLE, 100, stable);
        world.conversions(CANDIDATE, 100, candidate);
        world.step();
    }
    assert_eq!(weight(&world, STABLE), 950_000);
}
