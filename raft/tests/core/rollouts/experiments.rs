//! A/B tests and bandits: arms, winners, and weights that follow rewards.

use starling_raft::state::bucket::Bucket;
use starling_raft::state::rollouts::{
    EPOCHS_KEPT_MAX, Ending, INTERVALS_KEPT_MAX, RolloutPhase, SpecProblem,
};
use starling_raft::state::{Ordinal, Rejection, VersionRef};

use crate::log::{Log, model, ppm, request_id};
use crate::plans::{
    PERCENT, WHOLE, ab_test, arm, bandit, canary, conclude, epoch, not_over, pause, promote, promote_winner,
    publish, set_arms, start,
};

fn ending(log: &Log) -> Ending {
    match log.trial().phase {
        RolloutPhase::Finished { ending, .. } => ending,
        phase => panic!("{phase:?}"),
    }
}

fn invalid(field: &str, problem: SpecProblem) -> Rejection {
    Rejection::InvalidRollout { rollout: "trial".parse().unwrap(), field: field.to_owned(), problem }
}

fn three_arms() -> Vec<starling_raft::state::rollouts::spec::Arm<VersionRef>> {
    vec![arm("old", "v1", 20), arm("new", "v2", 30), arm("third", "v3", 50)]
}

#[test]
fn arms_have_names_and_other_strategies_stable_and_candidate() {
    let trial = Log::running(ab_test()).trial();
    assert_eq!(trial.arm_name(Ordinal::new(1)), Some("control"));
    assert_eq!(trial.arm_name(Ordinal::new(2)), Some("treatment"));
    assert_eq!(trial.arm_name(Ordinal::new(3)), None);
    let trial = Log::running(canary()).trial();
    assert_eq!(trial.arm_name(Ordinal::new(1)), Some("stable"));
    assert_eq!(trial.arm_name(Ordinal::new(2)), Some("candidate"));
    assert_eq!(trial.arm_name(Ordinal::new(3)), None);
}

#[test]
fn the_winner_gets_everything_and_without_one_the_stable_version_does() {
    let mut log = Log::running(ab_test());
    let step = log.step();
    log.accept(conclude(step, Some(2)));
    assert_eq!((log.weights(), ending(&log)), (vec![(2, WHOLE)], Ending::Promoted));

    for winner in [None, Some(1)] {
        let mut log = Log::running(ab_test());
        let step = log.step();
        log.accept(conclude(step, winner));
        assert_eq!((log.weights(), ending(&log)), (vec![(1, WHOLE)], Ending::Completed));
    }
}

#[test]
fn only_an_arm_can_win_and_nobody_wins_while_it_is_paused() {
    let mut log = Log::running(ab_test());
    let step = log.step();
    let no_arm = Rejection::NoSuchArm { rollout: "trial".parse().unwrap(), version: "3".to_owned() };
    assert_eq!(log.refuse(conclude(step, Some(3))), no_arm);
    log.accept(pause("trial"));
    let step = log.step();
    let paused = Rejection::RolloutNotRunning("trial".parse().unwrap());
    assert_eq!(log.refuse(conclude(step, Some(2))), paused);
}

#[test]
fn a_person_who_promotes_an_experiment_names_the_winner() {
    let mut log = Log::running(ab_test());
    assert_eq!(log.refuse(promote("trial")), Rejection::WinnerNeeded("trial".parse().unwrap()));
    assert!(matches!(log.refuse(promote_winner("trial", "v3")), Rejection::NoSuchArm { .. }));
    log.accept(promote_winner("trial", "v2"));
    assert_eq!((log.weights(), ending(&log)), (vec![(2, WHOLE)], Ending::Promoted));

    let mut log = Log::running(ab_test());
    log.accept(promote_winner("trial", "v1"));
    assert_eq!((log.weights(), ending(&log)), (vec![(1, WHOLE)], Ending::Completed));
}

#[test]
fn arms_are_added_and_removed_while_it_runs() {
    let mut log = Log::running(ab_test());
    log.find_unchanged(set_arms("trial", vec![arm("control", "1", 50), arm("treatment", "v2", 50)]));
    log.accept(set_arms("trial", three_arms()));
    assert_eq!(log.weights(), [(1, 20 * PERCENT), (2, 30 * PERCENT), (3, 50 * PERCENT)]);
    assert_eq!(log.trial().arm_name(Ordinal::new(3)), Some("third"));
    let strata: Vec<_> = log.trial().epochs.iter().map(|known| known.stratum).collect();
    assert_eq!(strata, [0, 1], "other weights, another stratum");
    log.accept(set_arms("trial", vec![arm("old", "v1", 50), arm("third", "v3", 50)]));
    assert_eq!(log.weights(), [(1, 50 * PERCENT), (3, 50 * PERCENT)]);
}

#[test]
fn arms_that_cannot_be_are_refused_with_their_path() {
    let mut log = Log::running(ab_test());
    let refused = log.refuse(set_arms("trial", vec![arm("a", "v1", 50), arm("b", "v2", 49)]));
    assert_eq!(refused, invalid("arms", SpecProblem::WeightsDoNotSum(990_000)));
    let refused = log.refuse(set_arms("trial", vec![arm("a", "v2", 50), arm("b", "v3", 50)]));
    assert_eq!(refused, invalid("arms", SpecProblem::StableIsNoArm("v1".to_owned())));
    let unknown = Rejection::UnknownVersion { model: model("digits"), version: "v9".to_owned() };
    assert_eq!(log.refuse(set_arms("trial", vec![arm("a", "v1", 50), arm("b", "v9", 50)])), unknown);

    let mut log = Log::running(canary());
    let no_arms = Rejection::NotAnExperiment("trial".parse().unwrap());
    assert_eq!(log.refuse(set_arms("trial", three_arms())), no_arms);
}

#[test]
fn a_bandit_publishes_weights_of_its_arms_in_one_stratum() {
    let mut log = Log::running(bandit());
    log.wait(10);
    let step = log.step();
    log.accept(publish(step, &[(2, 70), (1, 30)]));
    assert_eq!(log.weights(), [(1, 30 * PERCENT), (2, 70 * PERCENT)]);
    let epochs: Vec<_> = log.trial().epochs.iter().map(|known| (known.epoch, known.stratum)).collect();
    assert_eq!(epochs, [(epoch(log.index - 1), 0), (epoch(log.index), 0)]);
}

#[test]
fn a_bandit_publishes_no_sooner_than_its_plan_says_whoever_leads() {
    let mut log = Log::running(bandit());
    log.wait(9);
    let step = log.step();
    assert_eq!(log.refuse(publish(step.clone(), &[(1, 30), (2, 70)])), not_over(0));
    log.wait(1);
    log.accept(publish(step, &[(1, 30), (2, 70)]));
    let step = log.step();
    assert_eq!(log.refuse(publish(step, &[(1, 20), (2, 80)])), not_over(0));
}

#[test]
fn weights_that_cannot_be_are_not_published() {
    let mut log = Log::running(bandit());
    log.wait(10);
    let step = log.step();
    let no_arm = Rejection::NoSuchArm { rollout: "trial".parse().unwrap(), version: "3".to_owned() };
    assert_eq!(log.refuse(publish(step.clone(), &[(1, 50), (3, 50)])), no_arm);
    let wrong_sum = |sum_ppm| Rejection::WeightsDoNotSum { model: model("digits"), sum_ppm };
    assert_eq!(log.refuse(publish(step.clone(), &[(1, 50), (2, 49)])), wrong_sum(990_000));
    assert_eq!(log.refuse(publish(step.clone(), &[(1, 50), (1, 50)])), wrong_sum(1_000_000));
    assert_eq!(log.refuse(publish(step.clone(), &[])), wrong_sum(0));
    let below = SpecProblem::OutOfRange { found: 0, min: 10_000, max: 1_000_000 };
    assert_eq!(log.refuse(publish(step.clone(), &[(1, 100)])), invalid("weights.new", below));
    log.accept(publish(step, &[(1, 99), (2, 1)]));
}

#[test]
fn weights_stand_still_while_a_bandit_is_paused_and_an_a_b_test_has_none_to_publish() {
    let mut log = Log::running(bandit());
    log.wait(10);
    log.accept(pause("trial"));
    let step = log.step();
    let paused = Rejection::RolloutNotRunning("trial".parse().unwrap());
    assert_eq!(log.refuse(publish(step, &[(1, 30), (2, 70)])), paused);

    let mut log = Log::running(ab_test());
    log.wait(10);
    let step = log.step();
    let fixed = Rejection::NotAnExperiment("trial".parse().unwrap());
    assert_eq!(log.refuse(publish(step, &[(1, 30), (2, 70)])), fixed);
}

#[test]
fn whose_a_bucket_was_is_known_for_every_epoch_that_is_kept() {
    let mut log = Log::running(bandit());
    let first = log.route().epoch;
    log.wait(10);
    let step = log.step();
    log.accept(publish(step, &[(1, 30), (2, 70)]));
    let trial = log.trial();
    let bucket = Bucket::new(40 * PERCENT).unwrap();
    assert_eq!(trial.arm_at(first, bucket), Some((Ordinal::new(1), 0)));
    assert_eq!(trial.arm_at(log.route().epoch, bucket), Some((Ordinal::new(2), 0)));
    assert_eq!(trial.arm_at(epoch(7), bucket), None);
}

#[test]
fn only_the_newest_epochs_are_kept() {
    let mut log = Log::running(bandit());
    let first = log.route().epoch;
    for round in 0..EPOCHS_KEPT_MAX as u32 {
        log.wait(10);
        let step = log.step();
        let percent = 30 + round % 2;
        log.accept(publish(step, &[(1, percent), (2, 100 - percent)]));
    }
    let trial = log.trial();
    assert_eq!(trial.epochs.len(), EPOCHS_KEPT_MAX);
    assert_eq!(trial.epoch(first), None);
    assert_eq!(trial.epochs.last().map(|known| known.epoch), Some(log.route().epoch));
    assert_eq!(trial.strata.len(), 1);
}

#[test]
fn tables_of_many_intervals_are_kept_for_fewer_epochs() {
    let mut log = Log::for_rollouts();
    for version in 4..=32 {
        log.push_ready("digits", &format!("v{version}"), version);
    }
    let arms = (1..=32_u32).map(|version| {
        let mut arm = arm(&format!("a{version}"), &format!("v{version}"), 0);
        arm.weight = ppm(31_250);
        arm
    });
    let mut plan = bandit();
    let starling_raft::state::rollouts::spec::Strategy::Bandit(bandit) = &mut plan.strategy else {
        unreachable!()
    };
    bandit.arms = arms.collect();
    log.accept(start("trial", plan));
    let mut seed = 7_u64;
    for _ in 0..100 {
        log.wait(10);
        let mut weights: Vec<(Ordinal, _)> = Vec::new();
        let mut left = 1_000_000 - 32 * PERCENT;
        for version in 1..=32_u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let part = if version == 32 { left } else { (seed >> 33) as u32 % (left / 8 + 1) };
            left -= part;
            weights.push((Ordinal::new(version), ppm(PERCENT + part)));
        }
        let command = starling_raft::state::RolloutCommand::Publish { step: log.step(), weights };
        let request = request_id(u128::from(seed));
        let (_, outcome) = log.apply_as(request, starling_raft::state::Command::Rollout(command));
        assert!(outcome.unwrap().changed);
    }
    let trial = log.trial();
    let intervals: usize = trial.epochs.iter().map(|known| known.table.intervals().len()).sum();
    assert!(intervals <= INTERVALS_KEPT_MAX, "{intervals}");
    assert!(trial.epochs.len() < 100, "{} epochs", trial.epochs.len());
    assert!(trial.epochs.len() >= 10, "{} epochs", trial.epochs.len());
}
