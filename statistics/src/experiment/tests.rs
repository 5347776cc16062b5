#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::sums::{Fixed, Stratum};

const CONVERSIONS: Metric = Metric::Conversion { direction: Direction::HigherIsBetter };
const ERRORS: Metric = Metric::Conversion { direction: Direction::LowerIsBetter };

/// Scatters units over the clusters without a pattern.
fn cluster_of(unit: u64) -> u8 {
    let mixed = (unit + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 56) as u8
}

/// Zeros and ones, dealt evenly over units: (stratum, ones, count).
fn rates(cells: &[(u64, u64, u64)]) -> ArmSums {
    let mut sums = ArmSums::default();
    for (stratum, ones, count) in cells {
        for unit in 0..*count {
            let one = (unit + 1) * ones / count > unit * ones / count;
            sums.observe(Stratum(*stratum), cluster_of(unit), Fixed::from_bool(one)).unwrap();
        }
    }
    sums
}

fn look(plan: &Plan, sums: &[ArmSums], exposures: &[(&[u64], &[f64])]) -> Outcome {
    let arms: Vec<Arm<'_>> = sums
        .iter()
        .map(|primary| Arm { primary, guardrails: Vec::new(), before: RunningPValue::default() })
        .collect();
    let exposures: Vec<StratumCounts> = exposures
        .iter()
        .map(|(counts, weights)| StratumCounts::new(counts.to_vec(), weights).unwrap())
        .collect();
    decide(plan, &arms, &exposures, RunningPValue::default()).unwrap()
}

#[test]
fn the_better_of_three_arms_wins() {
    let sums = [rates(&[(1, 1000, 10_000)]), rates(&[(1, 1200, 10_000)]), rates(&[(1, 1500, 10_000)])];
    let outcome = look(&Plan::new(CONVERSIONS), &sums, &[(&[10_000, 10_000, 10_000], &[1.0, 1.0, 1.0])]);
    assert_eq!(outcome.recommendation, Recommendation::Winner { arm: 2 });
    let winner = outcome.arms[1].comparison.clone().unwrap();
    assert!((winner.advantage - 0.05).abs() < 1e-12);
    assert!(winner.interval.lower() > 0.03 && winner.method == Method::Asymptotic, "{winner:?}");
    assert_eq!(outcome.recommendation.to_string(), "arm 2 wins");
}

#[test]
fn equal_arms_stay_open_and_worse_ones_do_harm() {
    let exposures: &[(&[u64], &[f64])] = &[(&[5000, 5000], &[1.0, 1.0])];
    let equal = [rates(&[(1, 500, 5000)]), rates(&[(1, 505, 5000)])];
    let outcome = look(&Plan::new(CONVERSIONS), &equal, exposures);
    assert_eq!(outcome.recommendation, Recommendation::NoDifferenceYet);
    assert_eq!(outcome.arms[0].p_value.get(), 1.0);

    let worse = [rates(&[(1, 500, 5000)]), rates(&[(1, 250, 5000)])];
    let outcome = look(&Plan::new(CONVERSIONS), &worse, exposures);
    assert_eq!(outcome.recommendation, Recommendation::Harm { arms: vec![1] });
    // The same numbers, when fewer is better, make a winner.
    let outcome = look(&Plan::new(ERRORS), &worse, exposures);
    assert_eq!(outcome.recommendation, Recommendation::Winner { arm: 1 });
}

#[test]
fn a_ramp_with_a_rising_base_rate_has_no_winner() {
    // 10 % conversions while the arm had 5 %, 30 % when it had half: pooling shows 8 points.
    let sums = [rates(&[(1, 950, 9500), (2, 1500, 5000)]), rates(&[(1, 50, 500), (2, 1500, 5000)])];
    let exposures: &[(&[u64], &[f64])] = &[(&[9500, 500], &[95.0, 5.0]), (&[5000, 5000], &[1.0, 1.0])];
    let outcome = look(&Plan::new(CONVERSIONS), &sums, exposures);
    assert_eq!(outcome.recommendation, Recommendation::NoDifferenceYet);
    assert!(outcome.arms[0].comparison.clone().unwrap().advantage.abs() < 1e-12);
    assert!(outcome.sample_ratio.get() > 0.9);
}

#[test]
fn units_gone_astray_silence_every_comparison() {
    let sums = [rates(&[(1, 1000, 10_000)]), rates(&[(1, 1500, 9000)])];
    let outcome = look(&Plan::new(CONVERSIONS), &sums, &[(&[10_000, 9000], &[1.0, 1.0])]);
    assert!(matches!(outcome.recommendation, Recommendation::SampleRatioMismatch { .. }), "{outcome:?}");
    let outcome =
        look(&Plan::new(CONVERSIONS), &sums, &[(&[9000, 9000], &[1.0, 1.0]), (&[1000, 3], &[1.0, 0.0])]);
    assert_eq!(outcome.recommendation.to_string(), "sample-ratio mismatch: 3 units in arms of weight 0");
}

#[test]
fn few_conversions_are_judged_exactly() {
    // A dozen units each: everything against nothing is clear, a little is not.
    let exposures: &[(&[u64], &[f64])] = &[(&[40, 40], &[1.0, 1.0])];
    let clear = [rates(&[(1, 40, 40)]), rates(&[(1, 0, 40)])];
    let outcome = look(&Plan::new(CONVERSIONS), &clear, exposures);
    assert_eq!(outcome.recommendation, Recommendation::Harm { arms: vec![1] });
    let comparison = outcome.arms[0].comparison.clone().unwrap();
    assert_eq!(comparison.method, Method::SmallCounts);
    assert!(comparison.p_value < 0.01 && comparison.interval.upper() < 0.0, "{comparison:?}");

    let unclear = [rates(&[(1, 4, 40)]), rates(&[(1, 8, 40)])];
    let outcome = look(&Plan::new(CONVERSIONS), &unclear, exposures);
    assert_eq!(outcome.recommendation, Recommendation::NoDifferenceYet);
    assert_eq!(outcome.arms[0].p_value.get(), 1.0);
}

#[test]
fn no_winner_before_the_minimum_of_samples() {
    let plan = Plan { samples_min: 1000, ..Plan::new(CONVERSIONS) };
    let sums = [rates(&[(1, 200, 900)]), rates(&[(1, 700, 900)])];
    let outcome = look(&plan, &sums, &[(&[900, 900], &[1.0, 1.0])]);
    assert_eq!(outcome.recommendation, Recommendation::NoDifferenceYet);
    assert_eq!(
        outcome.arms[0].better.verdict,
        Verdict::Inconclusive(crate::verdict::Reason::TooFew { have: 900, need: 1000 })
    );
}

#[test]
fn a_failed_guardrail_outweighs_a_better_primary_metric() {
    let plan = Plan {
        guardrails: vec![Guardrail { metric: ERRORS, margin: 0.005, alpha: Alpha::FIVE_PERCENT }],
        ..Plan::new(CONVERSIONS)
    };
    let (control, better) = (rates(&[(1, 1000, 10_000)]), rates(&[(1, 1500, 10_000)]));
    let exposures = [StratumCounts::new(vec![10_000, 10_000], &[1.0, 1.0]).unwrap()];
    let few_errors = rates(&[(1, 20, 10_000)]);
    for (errors, expected) in [
        (20, Recommendation::Winner { arm: 1 }),
        // Within the margin, but not yet surely.
        (60, Recommendation::NoDifferenceYet),
        (400, Recommendation::Harm { arms: vec![1] }),
    ] {
        let errors = rates(&[(1, errors, 10_000)]);
        let arms = [
            Arm { primary: &control, guardrails: vec![&few_errors], before: RunningPValue::default() },
            Arm { primary: &better, guardrails: vec![&errors], before: RunningPValue::default() },
        ];
        let outcome = decide(&plan, &arms, &exposures, RunningPValue::default()).unwrap();
        assert_eq!(outcome.recommendation, expected, "{:?}", outcome.arms[0].guardrails);
    }
}

#[test]
fn one_of_many_arms_needs_more_evidence_than_the_only_one() {
    let control = rates(&[(1, 1000, 10_000)]);
    let lucky = rates(&[(1, 1155, 10_000)]);
    let alone =
        look(&Plan::new(CONVERSIONS), &[control.clone(), lucky.clone()], &[(&[10_000, 10_000], &[1.0, 1.0])]);
    assert_eq!(alone.recommendation, Recommendation::Winner { arm: 1 });
    let mut many = vec![control; 10];
    many[4] = lucky;
    let among_ten = look(&Plan::new(CONVERSIONS), &many, &[(&[10_000; 10], &[1.0; 10])]);
    assert_eq!(among_ten.recommendation, Recommendation::NoDifferenceYet);
    assert!(among_ten.arms[3].p_adjusted > among_ten.arms[3].p_value.get());
}

#[test]
fn means_without_bounds_wait_for_a_hundred_observations() {
    let amounts = |count: u32, mean: f64| {
        let mut sums = ArmSums::default();
        for unit in 0..count {
            let value = Fixed::from_f64(mean + f64::from(unit % 11) - 5.0).unwrap();
            sums.observe(Stratum(1), cluster_of(u64::from(unit) + mean as u64), value).unwrap();
        }
        sums
    };
    let plan = Plan::new(Metric::Unbounded { direction: Direction::HigherIsBetter });
    let few = look(&plan, &[amounts(90, 20.0), amounts(90, 40.0)], &[(&[90, 90], &[1.0, 1.0])]);
    assert_eq!(few.recommendation, Recommendation::NoDifferenceYet);
    assert!(matches!(few.arms[0].comparison, Err(InferenceError::TooFew { have: 90, .. })));
    let enough = look(&plan, &[amounts(900, 20.0), amounts(900, 24.0)], &[(&[900, 900], &[1.0, 1.0])]);
    assert_eq!(enough.recommendation, Recommendation::Winner { arm: 1 });
}

#[test]
fn bounded_means_are_judged_in_their_own_unit() {
    let stars = |ones: u64| {
        let mut sums = ArmSums::default();
        for unit in 0..60_u64 {
            let value = if unit < ones { 5.0 } else { 1.0 };
            sums.observe(Stratum(1), unit as u8, Fixed::from_f64(value).unwrap()).unwrap();
        }
        sums
    };
    let metric = Metric::Bounded { lower: 1.0, upper: 5.0, direction: Direction::HigherIsBetter };
    let plan = Plan { samples_min: 50, ..Plan::new(metric) };
    let outcome = look(&plan, &[stars(5), stars(55)], &[(&[60, 60], &[1.0, 1.0])]);
    assert_eq!(outcome.recommendation, Recommendation::Winner { arm: 1 });
    let comparison = outcome.arms[0].comparison.clone().unwrap();
    assert!((comparison.advantage - 10.0 / 3.0).abs() < 1e-9, "{comparison:?}");
    let no_room = Metric::Bounded { lower: 5.0, upper: 5.0, direction: Direction::HigherIsBetter };
    assert!(no_room.check().is_err());
}

#[test]
fn what_one_arm_saw_alone_makes_no_comparison_large() {
    // Ten thousand of the control before the arm began, and thirty beside it.
    let control = rates(&[(1, 5000, 10_000), (2, 3, 30)]);
    let arm = rates(&[(2, 500, 1000)]);
    let outcome = look(&Plan::new(CONVERSIONS), &[control, arm], &[]);
    assert_eq!(outcome.arms[0].comparison.clone().unwrap().method, Method::SmallCounts);
    assert_eq!(outcome.arms[0].better.samples, 30);
}

#[test]
fn lists_that_do_not_fit_together_are_refused() {
    let sums = rates(&[(1, 1, 2)]);
    let arm = Arm { primary: &sums, guardrails: vec![], before: RunningPValue::default() };
    let plan = Plan::new(CONVERSIONS);
    let before = RunningPValue::default();
    assert!(decide(&plan, std::slice::from_ref(&arm), &[], before).is_err());
    let uneven = [StratumCounts::new(vec![1, 1, 1], &[1.0, 1.0, 1.0]).unwrap()];
    assert!(decide(&plan, &[arm.clone(), arm.clone()], &uneven, before).is_err());
    let guarded = Plan {
        guardrails: vec![Guardrail { metric: ERRORS, margin: 0.0, alpha: Alpha::FIVE_PERCENT }],
        ..plan
    };
    assert!(decide(&guarded, &[arm.clone(), arm], &[], before).is_err());
}
