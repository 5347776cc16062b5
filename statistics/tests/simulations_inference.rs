//! Seeded simulations: how often the methods err when nobody helps them, over many
//! experiments that are looked at again and again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use starling_statistics::confidence::{
    AsymptoticSequence, BernoulliSequence, BetaBinomialMixture, BettingSequence, EmpiricalBernstein,
    GammaExponentialMixture, MixtureSprt, NormalMixture, PolyStitching, RunningPValue, Sides, quantile_ranks,
};
use starling_statistics::experiment::{Arm, Direction, Metric, Plan, Recommendation, decide};
use starling_statistics::sample_ratio::{SequentialSampleRatio, StratumCounts, chi_square};
use starling_statistics::sums::{ArmSums, Effect, Fixed, MeanEstimate, Stratum};
use starling_statistics::{Alpha, Probability};

const EXPERIMENTS: u64 = 2000;
const LOOKS: u64 = 100;
const ALPHA: Alpha = Alpha::FIVE_PERCENT;

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): small, and the same numbers for ever.
struct Random(u64);

impl Random {
    /// A generator of its own for each experiment of each simulation.
    fn seeded(simulation: u64, experiment: u64) -> Self {
        Self(simulation.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ (experiment << 20))
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in (0, 1).
    fn uniform(&mut self) -> f64 {
        ((self.bits() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    fn happens(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }
}

/// In which share of `runs` something ever happens.
fn share_of(runs: u64, simulation: u64, mut ever: impl FnMut(Random) -> bool) -> f64 {
    let times = (0..runs).filter(|run| ever(Random::seeded(simulation, *run))).count();
    times as f64 / runs as f64
}

/// Successes of trials, as an arm's mean.
fn proportion(successes: u64, trials: u64) -> MeanEstimate {
    let mean = successes as f64 / trials as f64;
    MeanEstimate { mean, variance: mean * (1.0 - mean) / trials as f64, count: trials }
}

#[test]
fn peeking_at_a_z_test_deceives_and_always_valid_tests_do_not() {
    const PER_LOOK: u64 = 200;
    let sprt = MixtureSprt::new(0.01).unwrap();
    let sequence = AsymptoticSequence::DEFAULT;
    let (mut by_z, mut by_sprt, mut by_sequence, mut by_interval) = (0, 0, 0, 0);
    for experiment in 0..EXPERIMENTS {
        let mut random = Random::seeded(1, experiment);
        let (mut a, mut b) = (0, 0);
        let (mut z_says, mut interval_says) = (false, false);
        let mut sprt_p = RunningPValue::default();
        let mut sequence_p = RunningPValue::default();
        for look in 1..=LOOKS {
            for _ in 0..PER_LOOK {
                a += u64::from(random.happens(0.1));
                b += u64::from(random.happens(0.1));
            }
            let n = look * PER_LOOK;
            let effect = Effect::difference(&proportion(a, n), &proportion(b, n)).unwrap();
            z_says |= effect.estimate.abs() > 1.959_964 * effect.variance.sqrt();
            sprt_p = sprt_p.after(sprt.look(&effect, ALPHA).unwrap().p_value);
            let look = sequence.look(&effect, ALPHA).unwrap();
            sequence_p = sequence_p.after(look.p_value);
            interval_says |= !look.interval.contains(0.0);
        }
        by_z += u64::from(z_says);
        by_sprt += u64::from(sprt_p.get() <= ALPHA.get());
        by_sequence += u64::from(sequence_p.get() <= ALPHA.get());
        by_interval += u64::from(interval_says);
    }
    let share = |times: u64| times as f64 / EXPERIMENTS as f64;
    // The control: this simulation can see what peeking does.
    assert!(share(by_z) > 0.30, "a z-test looked at 100 times: {}", share(by_z));
    assert!(share(by_sprt) <= 0.05, "mixture SPRT: {}", share(by_sprt));
    assert!(share(by_sequence) <= 0.05, "asymptotic sequence: {}", share(by_sequence));
    // The p-value and the interval are one test.
    assert_eq!(by_sequence, by_interval);
}

#[test]
fn watching_the_sample_ratio_raises_few_false_alarms() {
    const PER_LOOK: u64 = 200;
    let test = SequentialSampleRatio::DEFAULT;
    let mut by_chi_square = 0;
    let alarms = share_of(EXPERIMENTS, 2, |mut random| {
        // A ramp: the weights change after each third.
        let mut strata = [(0.1, [0, 0]), (0.25, [0, 0]), (0.5, [0, 0])];
        let mut p = RunningPValue::default();
        let mut chi_square_says = false;
        for look in 0..LOOKS {
            let (weight, counts) = &mut strata[(look * 3 / LOOKS) as usize];
            for _ in 0..PER_LOOK {
                counts[usize::from(random.happens(*weight))] += 1;
            }
            let seen: Vec<StratumCounts> = strata
                .iter()
                .filter(|(_, counts)| counts[0] > 0)
                .map(|(weight, counts)| {
                    StratumCounts::new(counts.to_vec(), &[1.0 - weight, *weight]).unwrap()
                })
                .collect();
            p = test.look(&seen, p);
            chi_square_says |= chi_square(seen.last().unwrap()).unwrap().p_value <= ALPHA.get();
        }
        by_chi_square += u64::from(chi_square_says);
        p.get() <= ALPHA.get()
    });
    assert!(alarms <= 0.05, "{alarms}");
    assert!(by_chi_square as f64 / EXPERIMENTS as f64 > 0.30, "the control: {by_chi_square}");
}

/// Looks that grow by an eighth each, from `first` to `last`.
fn growing_looks(first: u64, last: u64) -> Vec<u64> {
    let mut looks = vec![first];
    while let Some(look) = looks.last().map(|look| look + (look / 8).max(1)) {
        if look > last {
            break;
        }
        looks.push(look);
    }
    looks
}

#[test]
fn rates_are_covered_from_the_first_trial_on() {
    for (simulation, rate) in [(10, 0.005), (11, 0.1), (12, 0.5)] {
        let looks = growing_looks(1, 2000);
        let misses = share_of(600, simulation, |mut random| {
            let (mut successes, mut trials) = (0, 0);
            looks.iter().any(|look| {
                while trials < *look {
                    successes += u64::from(random.happens(rate));
                    trials += 1;
                }
                !BernoulliSequence::DEFAULT.rate(successes, trials, ALPHA).unwrap().contains(rate)
            })
        });
        assert!(misses <= 0.05, "rate {rate}: {misses}");
    }
}

#[test]
fn bounded_means_are_covered_by_every_method_for_them() {
    // The square of a uniform: mean 1/3, skewed.
    let mean = 1.0 / 3.0;
    let looks = growing_looks(1, 600);
    let (mut by_sums, mut by_bernstein, mut by_betting) = (0, 0, 0);
    const RUNS: u64 = 400;
    for run in 0..RUNS {
        let mut random = Random::seeded(20, run);
        let mut sum = 0.0;
        let mut bernstein = EmpiricalBernstein::new(ALPHA);
        let mut betting = BettingSequence::new(ALPHA, 60).unwrap();
        let mut missed = [false; 3];
        let mut seen = 0;
        for look in &looks {
            while seen < *look {
                let value = random.uniform().powi(2);
                sum += value;
                bernstein.observe(value).unwrap();
                betting.observe(value).unwrap();
                seen += 1;
            }
            let intervals = [
                BernoulliSequence::DEFAULT.bounded_mean(sum, seen, ALPHA).unwrap(),
                bernstein.interval().unwrap(),
                betting.interval().unwrap(),
            ];
            for (missed, interval) in missed.iter_mut().zip(intervals) {
                *missed |= !interval.contains(mean);
            }
        }
        by_sums += u64::from(missed[0]);
        by_bernstein += u64::from(missed[1]);
        by_betting += u64::from(missed[2]);
    }
    for (method, misses) in
        [("sums", by_sums), ("empirical Bernstein", by_bernstein), ("betting", by_betting)]
    {
        let share = misses as f64 / RUNS as f64;
        assert!(share <= 0.05, "{method}: {share}");
    }
}

#[test]
fn differences_of_skewed_means_are_covered_from_a_hundred_observations_on() {
    // Exponential amounts: nothing normal about them. The truth is a difference of 0.2.
    let looks = growing_looks(AsymptoticSequence::OBSERVATIONS_MIN, 5000);
    let sprt = MixtureSprt::new(0.2).unwrap();
    let (mut by_sequence, mut by_sprt) = (0, 0);
    const RUNS: u64 = 1000;
    for run in 0..RUNS {
        let mut random = Random::seeded(30, run);
        let (mut seen, mut sums) = (0, [(0.0, 0.0); 2]);
        let (mut sequence_missed, mut sprt_missed) = (false, false);
        for look in &looks {
            while seen < *look {
                for ((sum, squares), scale) in sums.iter_mut().zip([1.0, 1.2]) {
                    let value = scale * random.exponential();
                    *sum += value;
                    *squares += value * value;
                }
                seen += 1;
            }
            let n = seen as f64;
            let of = |(sum, squares): (f64, f64)| MeanEstimate {
                mean: sum / n,
                variance: (squares - sum * sum / n) / (n - 1.0) / n,
                count: seen,
            };
            let effect = Effect::difference(&of(sums[0]), &of(sums[1])).unwrap();
            let covered = |interval: starling_statistics::Interval| interval.contains(0.2);
            sequence_missed |= !covered(AsymptoticSequence::DEFAULT.look(&effect, ALPHA).unwrap().interval);
            sprt_missed |= !covered(sprt.look(&effect, ALPHA).unwrap().interval);
        }
        by_sequence += u64::from(sequence_missed);
        by_sprt += u64::from(sprt_missed);
    }
    assert!(by_sequence as f64 / RUNS as f64 <= 0.05, "asymptotic sequence: {by_sequence}");
    assert!(by_sprt as f64 / RUNS as f64 <= 0.05, "mixture SPRT: {by_sprt}");
}

/// The share of runs in which a walk of independent steps of mean 0 ever leaves
/// its bounds; `bounds` gives those after n steps, `None` where there is none.
fn walks_out(simulation: u64, step: impl Fn(&mut Random) -> f64, bounds: impl Fn(f64) -> (f64, f64)) -> f64 {
    const STEPS: usize = 2000;
    let bounds: Vec<(f64, f64)> = (1..=STEPS).map(|n| bounds(n as f64)).collect();
    share_of(1500, simulation, |mut random| {
        let mut at = 0.0;
        bounds.iter().any(|(lower, upper)| {
            at += step(&mut random);
            at < *lower || at > *upper
        })
    })
}

#[test]
fn walks_stay_within_their_boundaries_at_every_step() {
    let below = f64::NEG_INFINITY;
    let both = NormalMixture::new(200.0, ALPHA, Sides::Both).unwrap();
    let one = NormalMixture::new(200.0, ALPHA, Sides::One).unwrap();
    let stitched = PolyStitching::new(10.0, 0.0, 1.4, 2.0).unwrap();
    let gamma = GammaExponentialMixture::new(200.0, ALPHA, 1.0).unwrap();
    let coins = BetaBinomialMixture::new(50.0, ALPHA, 0.1, 0.9).unwrap();

    let out = [
        (
            "normal mixture, both sides",
            walks_out(40, Random::normal, |n| {
                let bound = both.bound(n, ALPHA).unwrap();
                (-bound, bound)
            }),
        ),
        (
            "normal mixture, one side",
            walks_out(41, Random::normal, |n| (below, one.bound(n, ALPHA).unwrap())),
        ),
        ("stitching", walks_out(42, Random::normal, |n| (below, stitched.bound(n, ALPHA).unwrap()))),
        (
            "gamma-exponential",
            walks_out(43, |random| random.exponential() - 1.0, |n| (below, gamma.bound(n, ALPHA).unwrap())),
        ),
        (
            "beta-binomial",
            walks_out(
                44,
                |random| if random.happens(0.1) { 0.9 } else { -0.1 },
                |n| {
                    let v = 0.09 * n;
                    // A hair of room for the rounding of the walk itself.
                    let room = 1e-9;
                    let lower = coins.bound_below(v, ALPHA).unwrap() - room;
                    (lower, coins.bound(v, ALPHA).unwrap() + room)
                },
            ),
        ),
    ];
    for (boundary, share) in out {
        assert!(share <= 0.05, "{boundary}: {share}");
        assert!(share > 0.0, "{boundary}: a bound that is never reached is not tight");
    }
}

#[test]
fn quantiles_lie_between_their_ranks_at_every_look() {
    for (simulation, p) in [(50, 0.5), (51, 0.99)] {
        let quantile = Probability::new(p).unwrap();
        let looks = growing_looks(10, 20_000);
        let ranks: Vec<_> =
            looks.iter().map(|look| quantile_ranks(*look, quantile, ALPHA, 2000.0).unwrap()).collect();
        let misses = share_of(1000, simulation, |mut random| {
            let (mut below, mut seen) = (0_u64, 0);
            looks.iter().zip(&ranks).any(|(look, ranks)| {
                while seen < *look {
                    below += u64::from(random.uniform() <= p);
                    seen += 1;
                }
                // The value of rank k is below the quantile if k values are.
                ranks.lower.is_some_and(|rank| rank > below) || ranks.upper.is_some_and(|rank| rank <= below)
            })
        });
        assert!(misses <= 0.05, "p{p}: {misses}");
    }
}

/// One experiment in which units come back, over a ramp with a rising base rate:
/// whether a difference is ever declared, and whether the sample ratio ever alarms.
fn ramp(mut random: Random, lift: f64) -> (bool, bool) {
    let plan = Plan::new(Metric::Conversion { direction: Direction::HigherIsBetter });
    let mut sums = [ArmSums::default(), ArmSums::default()];
    let mut exposures: Vec<([u64; 2], [f64; 2])> = Vec::new();
    let mut before = [RunningPValue::default(); 2];
    let mut ratio = RunningPValue::default();
    let (mut decided, mut alarmed) = (false, false);
    for (stratum, (weight, base)) in [(0.1, 0.1), (0.3, 0.2), (0.5, 0.3)].into_iter().enumerate() {
        exposures.push(([0, 0], [1.0 - weight, weight]));
        for _look in 0..7 {
            for _unit in 0..150 {
                let arm = usize::from(random.happens(weight));
                exposures[stratum].0[arm] += 1;
                let cluster = (random.bits() >> 56) as u8;
                // Units differ, and each sends several requests that are alike.
                let rate = base * (0.5 + random.uniform()) + lift * arm as f64;
                for _request in 0..1 + random.bits() % 4 {
                    let converts = Fixed::from_bool(random.happens(rate));
                    sums[arm].observe(Stratum(stratum as u64), cluster, converts).unwrap();
                }
            }
            let arms: Vec<Arm<'_>> = sums
                .iter()
                .zip(before)
                .map(|(primary, before)| Arm { primary, guardrails: Vec::new(), before })
                .collect();
            let strata: Vec<StratumCounts> = exposures
                .iter()
                .map(|(counts, weights)| StratumCounts::new(counts.to_vec(), weights).unwrap())
                .collect();
            let outcome = decide(&plan, &arms, &strata, ratio).unwrap();
            before[1] = outcome.arms[0].p_value;
            ratio = outcome.sample_ratio;
            decided |=
                matches!(outcome.recommendation, Recommendation::Winner { .. } | Recommendation::Harm { .. });
            alarmed |= matches!(outcome.recommendation, Recommendation::SampleRatioMismatch { .. });
        }
    }
    (decided, alarmed)
}

#[test]
fn a_ramp_with_returning_units_declares_what_is_there_and_nothing_else() {
    const RUNS: u64 = 600;
    let (mut invented, mut alarms, mut found) = (0, 0, 0);
    for run in 0..RUNS {
        let (decided, alarmed) = ramp(Random::seeded(60, run), 0.0);
        invented += u64::from(decided);
        alarms += u64::from(alarmed);
        found += u64::from(ramp(Random::seeded(61, run), 0.12).0);
    }
    let share = |times: u64| times as f64 / RUNS as f64;
    assert!(share(invented) <= 0.05, "invented {}", share(invented));
    assert!(share(alarms) <= 0.01, "alarms {}", share(alarms));
    assert!(share(found) >= 0.8, "found {}", share(found));
}
