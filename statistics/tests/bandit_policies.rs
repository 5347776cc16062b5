//! What a controller sees of a bandit: published parts, arms that come and go,
//! rewards taken back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use starling_statistics::bandits::epsilon::Epsilon;
use starling_statistics::bandits::{
    ArmId, ArmRewards, BanditError, Batch, BetaPrior, Bounds, Discount, Explore, NormalInverseGamma, Policy,
    Publication, RewardModel, should_publish,
};
use starling_statistics::sums::Moments;

type Rewards = BTreeMap<ArmId, ArmRewards>;

fn successes(batch: u64, arms: &[(u64, u64)]) -> Rewards {
    let mut rewards = Rewards::new();
    for (arm, (successes, count)) in arms.iter().enumerate() {
        let mut arm_rewards = ArmRewards::default();
        arm_rewards.add(Batch(batch), &Moments::of_successes(*successes, *count).unwrap()).unwrap();
        rewards.insert(ArmId(arm as u32), arm_rewards);
    }
    rewards
}

fn policy(explore: Explore, floor: f64) -> Policy {
    let model = RewardModel::Bernoulli(BetaPrior::UNIFORM);
    Policy::new(explore, model, Discount::NONE, Bounds::new(floor, 1.0).unwrap()).unwrap()
}

fn parts(publication: &Publication) -> Vec<u32> {
    publication.arms.iter().map(|outlook| outlook.probability_ppm).collect()
}

#[test]
fn thompson_publishes_the_probability_of_being_best_with_a_floor() {
    let rewards = successes(1, &[(20, 100), (30, 100), (25, 100)]);
    let publication = policy(Explore::Thompson, 0.05).publish(&rewards, |_| true, Batch(1)).unwrap();
    // The oracle of thompson.json for Beta(21,81), (31,71), (26,76).
    assert_eq!(parts(&publication), [50_000, 747_728, 202_272]);
    let arm = publication.arms[1];
    assert!((arm.posterior_mean - 31.0 / 102.0).abs() < 1e-12);
    assert!((arm.probability_best.unwrap() - 0.762_460_286).abs() < 1e-6);
    assert!(arm.expected_loss.unwrap() < publication.arms[0].expected_loss.unwrap());
    assert_eq!(arm.samples, 100);
}

#[test]
fn epsilon_greedy_and_ucb_publish_the_favourite_and_the_floor() {
    let rewards = successes(1, &[(20, 100), (30, 100), (25, 100)]);
    let greedy = Explore::EpsilonGreedy(Epsilon::constant(0.15).unwrap());
    let publication = policy(greedy, 0.0).publish(&rewards, |_| true, Batch(1)).unwrap();
    assert_eq!(parts(&publication), [50_000, 900_000, 50_000]);
    let ucb = policy(Explore::Ucb1 { alpha: 1.0 }, 0.01);
    let publication = ucb.publish(&rewards, |_| true, Batch(1)).unwrap();
    assert_eq!(parts(&publication), [10_000, 980_000, 10_000]);
}

#[test]
fn before_the_first_reward_every_policy_is_even() {
    for explore in [
        Explore::Thompson,
        Explore::TopTwoThompson { leader: 0.5 },
        Explore::Ucb1 { alpha: 1.0 },
        Explore::EpsilonGreedy(Epsilon::constant(0.1).unwrap()),
    ] {
        let rewards = successes(0, &[(0, 0); 3]);
        let publication = policy(explore, 0.01).publish(&rewards, |_| true, Batch(0)).unwrap();
        assert_eq!(parts(&publication), [333_334, 333_333, 333_333], "{explore:?}");
    }
}

#[test]
fn an_added_arm_starts_from_the_prior_and_a_removed_one_leaves_the_rest() {
    let thompson = policy(Explore::Thompson, 0.05);
    let mut rewards = successes(1, &[(50, 100), (52, 100)]);
    rewards.insert(ArmId(9), ArmRewards::default());
    let publication = thompson.publish(&rewards, |_| true, Batch(1)).unwrap();
    let added = publication.arms[2];
    assert_eq!((added.arm, added.samples, added.posterior_mean), (ArmId(9), 0, 0.5));
    assert!(added.probability_ppm > 300_000, "{added:?}");

    rewards.remove(&ArmId(0));
    let publication = thompson.publish(&rewards, |_| true, Batch(1)).unwrap();
    let arms: Vec<_> = publication.arms.iter().map(|outlook| outlook.arm).collect();
    assert_eq!(arms, [ArmId(1), ArmId(9)]);
    assert_eq!(parts(&publication).iter().sum::<u32>(), 1_000_000);
}

#[test]
fn a_quarantined_arm_gets_nothing_keeps_its_rewards_and_is_published_at_once() {
    let rewards = successes(1, &[(5, 500), (300, 500), (290, 500)]);
    let thompson = policy(Explore::Thompson, 0.005);
    let before = thompson.publish(&rewards, |_| true, Batch(1)).unwrap();
    let after = thompson.publish(&rewards, |arm| arm != ArmId(0), Batch(1)).unwrap();
    assert_eq!((before.arms[0].probability_ppm, after.arms[0].probability_ppm), (5_000, 0));
    assert_eq!((after.arms[0].samples, after.arms[0].probability_best), (500, None));
    let parts = |publication: &Publication| publication.probabilities_ppm().collect::<Vec<_>>();
    assert!(should_publish(&parts(&before), &parts(&after)));
    let nobody = thompson.publish(&rewards, |_| false, Batch(1));
    assert_eq!(nobody, Err(BanditError::NoArms));
}

#[test]
fn floors_and_ceilings_in_hundredths_are_met_to_the_part() {
    let model = RewardModel::Bernoulli(BetaPrior::UNIFORM);
    let rewards = successes(1, &[(900, 1_000), (100, 1_000), (100, 1_000), (100, 1_000)]);
    for hundredths in 1..=25u32 {
        let share = f64::from(hundredths) / 100.0;
        let bounds = Bounds::new(share, 1.0).unwrap();
        let policy = Policy::new(Explore::Thompson, model, Discount::NONE, bounds).unwrap();
        let publication = policy.publish(&rewards, |_| true, Batch(1)).unwrap();
        let lifted = hundredths * 10_000;
        assert_eq!(parts(&publication), [1_000_000 - 3 * lifted, lifted, lifted, lifted]);
    }
    for hundredths in 25..=99u32 {
        let bounds = Bounds::new(0.0, f64::from(hundredths) / 100.0).unwrap();
        let policy = Policy::new(Explore::Thompson, model, Discount::NONE, bounds).unwrap();
        let publication = policy.publish(&rewards, |_| true, Batch(1)).unwrap();
        assert_eq!(publication.arms[0].probability_ppm, hundredths * 10_000);
    }
}

#[test]
fn a_floor_that_does_not_fit_is_refused() {
    let rewards = successes(1, &[(1, 2), (1, 2), (1, 2)]);
    let refused = policy(Explore::Thompson, 0.4).publish(&rewards, |_| true, Batch(1));
    assert!(matches!(refused, Err(BanditError::FloorTooHigh { arms: 3, .. })));
}

#[test]
fn moves_below_one_per_cent_are_not_worth_an_epoch() {
    let (a, b, c) = (ArmId(0), ArmId(1), ArmId(2));
    let old = [(a, 500_000), (b, 500_000)];
    assert!(!should_publish(&old, &[(a, 509_999), (b, 490_001)]));
    assert!(should_publish(&old, &[(a, 510_000), (b, 490_000)]));
    assert!(should_publish(&old, &[(a, 500_000), (b, 495_000), (c, 5_000)]));
    assert!(!should_publish(&old, &[(a, 500_000), (b, 500_000), (c, 0)]));
    assert!(should_publish(&[], &old));
}

#[test]
fn taking_a_poisoned_batch_back_gives_the_publication_without_it() {
    let thompson = policy(Explore::Thompson, 0.01);
    let clean = successes(1, &[(30, 100), (60, 100)]);
    let mut poisoned = clean.clone();
    let lies = Moments::of_successes(900, 900).unwrap();
    let arm = poisoned.get_mut(&ArmId(0)).unwrap();
    arm.add(Batch(2), &lies).unwrap();
    let misled = thompson.publish(&poisoned, |_| true, Batch(3)).unwrap();
    assert!(misled.arms[0].probability_ppm > 900_000);
    poisoned.get_mut(&ArmId(0)).unwrap().take_back(Batch(2), &lies).unwrap();
    assert_eq!(poisoned, clean);
    assert_eq!(
        thompson.publish(&poisoned, |_| true, Batch(3)).unwrap(),
        thompson.publish(&clean, |_| true, Batch(3)).unwrap()
    );
}

proptest! {
    #[test]
    fn parts_sum_to_a_million_and_keep_floor_and_ceiling(
        arms in prop::collection::vec((0u64..5_000, 0u64..5_000, any::<bool>()), 1..10),
        floor in 0.0f64..0.1,
        ceiling in 0.5f64..1.0,
        top_two in any::<bool>(),
    ) {
        let takes_part = |arm: ArmId| arms[arm.0 as usize].2;
        let taking_part = arms.iter().filter(|(_, _, part)| *part).count();
        prop_assume!(taking_part > 1);
        let counts: Vec<_> = arms.iter().map(|(one, other, _)| (*one, one + other)).collect();
        let explore = if top_two { Explore::TopTwoThompson { leader: 0.5 } } else { Explore::Thompson };
        let unknown = RewardModel::GaussianUnknownNoise(NormalInverseGamma::VAGUE);
        let rate = RewardModel::Bernoulli(BetaPrior::JEFFREYS);
        for model in [rate, unknown] {
            let bounds = Bounds::new(floor, ceiling).unwrap();
            let policy = Policy::new(explore, model, Discount::NONE, bounds).unwrap();
            let publication = policy.publish(&successes(0, &counts), takes_part, Batch(0)).unwrap();
            prop_assert_eq!(parts(&publication).iter().sum::<u32>(), 1_000_000);
            for outlook in &publication.arms {
                let share = f64::from(outlook.probability_ppm) / 1e6;
                if !takes_part(outlook.arm) {
                    prop_assert_eq!(outlook.probability_ppm, 0);
                    continue;
                }
                prop_assert!(share >= floor && share <= ceiling, "{} {} {}", share, floor, ceiling);
                prop_assert!(outlook.expected_loss.unwrap() >= -1e-12);
            }
        }
    }
}
