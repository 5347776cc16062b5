//! Every case of the oracle files about inference, against this crate. A case
//! that no check knows fails the test, and so does a file that lost a case.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod oracle_inference_cases;

use oracle_inference_cases::{Case, Known, check, counts, numbers};
use serde_json::Value;
use starling_statistics::confidence::{
    AsymptoticSequence, BernoulliSequence, BetaBinomialMixture, BettingSequence, EmpiricalBernstein,
    GammaExponentialMixture, MixtureSprt, NormalMixture, PolyStitching, RunningPValue, Sides,
};
use starling_statistics::correction::Correction;
use starling_statistics::distribution::{chi_squared_upper_tail, normal_cdf, normal_upper_tail, student_cdf};
use starling_statistics::fixed_sample::{
    Sample, Successes, clopper_pearson, non_inferiority, two_proportions, welch, wilson,
};
use starling_statistics::sample_ratio::{
    SequentialSampleRatio, StratumCounts, chi_square, stratified_chi_square, summed_chi_square,
};
use starling_statistics::sums::{ArmSums, Effect, Fixed, MeanEstimate, Moments, Stratum, stratified_effect};
use starling_statistics::{Alpha, Interval};

#[test]
fn confidence_sequences_equal_confseq_gbstats_and_quadrature() {
    check(
        "sequential.json",
        24,
        &[
            mixture_sprt,
            mixture_sprt_path,
            normal_mixture,
            poly_stitching,
            gamma_exponential,
            beta_binomial,
            bernoulli,
            empirical_bernstein,
            betting,
            asymptotic,
        ],
    );
}

#[test]
fn sample_ratio_checks_equal_scipy_and_ssrm() {
    check("srm.json", 9, &[sample_ratio_once, sample_ratio_sequentially]);
}

#[test]
fn stratified_sample_ratio_checks_equal_scipy() {
    check("stratified.json", 3, &[sample_ratio_stratified]);
}

#[test]
fn fixed_sample_tests_and_corrections_equal_scipy_and_statsmodels() {
    check(
        "abstats.json",
        13,
        &[welch_test, proportions, correction, guardrail, special_functions, not_part_of_a_rollout],
    );
}

#[test]
fn numbers_computed_for_this_project_are_met() {
    check("inference_more.json", 9, &[correction, effect_by_regression, rank_boundaries]);
}

fn mixture_sprt(case: &Case) -> Known {
    if !case.name.starts_with("msprt d=") {
        return false;
    }
    let mean = |arm: &str| MeanEstimate {
        mean: case.number(&format!("mean_{arm}")),
        variance: case.number(&format!("var_{arm}")) / case.number(&format!("n_{arm}")),
        count: case.count(&format!("n_{arm}")),
    };
    let effect = Effect::difference(&mean("a"), &mean("b")).unwrap();
    let test = MixtureSprt::new(case.number("tau2").sqrt()).unwrap();
    let look = test.look(&effect, case.alpha("alpha")).unwrap();
    case.expect("effect", effect.estimate);
    case.expect("V", effect.variance);
    case.expect("log_lambda", look.log_evidence);
    case.expect("lambda", look.log_evidence.exp());
    case.expect("p_instant", look.p_value);
    case.expect_interval("ci_lo", "ci_hi", look.interval);
    true
}

fn mixture_sprt_path(case: &Case) -> Known {
    if !case.name.starts_with("msprt running-min") {
        return false;
    }
    let (a, b) = (case.numbers("x_a"), case.numbers("x_b"));
    let test = MixtureSprt::new(case.number("tau2").sqrt()).unwrap();
    let mut p = RunningPValue::default();
    for (index, n) in counts(&case.input["checkpoints"]).into_iter().enumerate() {
        let mean = |values: &[f64]| values[..n as usize].iter().sum::<f64>() / n as f64;
        let effect = Effect::new(mean(&b) - mean(&a), 2.0 / n as f64, 2 * n).unwrap();
        p = p.after(test.look(&effect, Alpha::FIVE_PERCENT).unwrap().p_value);
        case.expect(&format!("effect.{index}"), effect.estimate);
        case.expect(&format!("p_always_valid.{index}"), p.get());
    }
    true
}

fn expect_bounds(case: &Case, bound: impl Fn(f64) -> f64) -> Known {
    for (index, v) in case.numbers("v").into_iter().enumerate() {
        case.expect(&format!("bound.{index}"), bound(v));
    }
    true
}

fn normal_mixture(case: &Case) -> Known {
    if !case.name.starts_with("normal_mixture") {
        return false;
    }
    let sides = if case.input["one_sided"].as_bool().unwrap() { Sides::One } else { Sides::Both };
    let mixture = NormalMixture::new(case.number("v_opt"), case.alpha("alpha_opt"), sides).unwrap();
    for (index, v) in case.numbers("v").into_iter().enumerate() {
        case.expect(&format!("log_mixture_s50.{index}"), mixture.log_evidence(50.0, v));
    }
    expect_bounds(case, |v| mixture.bound(v, case.alpha("alpha")).unwrap())
}

fn poly_stitching(case: &Case) -> Known {
    if !case.name.starts_with("poly_stitching") {
        return false;
    }
    let [v_min, c, s, eta] = ["v_min", "c", "s", "eta"].map(|key| case.number(key));
    let boundary = PolyStitching::new(v_min, c, s, eta).unwrap();
    expect_bounds(case, |v| boundary.bound(v, case.alpha("alpha")).unwrap())
}

fn gamma_exponential(case: &Case) -> Known {
    if !case.name.starts_with("gamma_exponential") {
        return false;
    }
    let alpha_opt = case.alpha("alpha_opt");
    let mixture = GammaExponentialMixture::new(case.number("v_opt"), alpha_opt, case.number("c")).unwrap();
    expect_bounds(case, |v| mixture.bound(v, case.alpha("alpha")).unwrap())
}

fn beta_binomial(case: &Case) -> Known {
    if !case.name.starts_with("beta_binomial") {
        return false;
    }
    assert_eq!(case.input["one_sided"].as_bool(), Some(false), "only the two-sided one is there");
    let [v_opt, g, h] = ["v_opt", "g", "h"].map(|key| case.number(key));
    let mixture = BetaBinomialMixture::new(v_opt, case.alpha("alpha_opt"), g, h).unwrap();
    expect_bounds(case, |v| mixture.bound(v, case.alpha("alpha")).unwrap())
}

fn bernoulli(case: &Case) -> Known {
    if !case.name.starts_with("bernoulli_cs") {
        return false;
    }
    assert_eq!(case.number("alpha_opt"), 0.05);
    let sequence = BernoulliSequence::new(case.number("t_opt")).unwrap();
    let interval = sequence.rate(case.count("successes"), case.count("n"), case.alpha("alpha")).unwrap();
    case.expect_interval("lo", "hi", interval);
    true
}

fn expect_along_the_way(case: &Case, mut observe: impl FnMut(f64) -> Interval) -> Known {
    let wanted = counts(&case.input["at_index"]);
    for (index, x) in case.numbers("x").into_iter().enumerate() {
        let interval = observe(x);
        if let Some(place) = wanted.iter().position(|wanted| *wanted == index as u64) {
            case.expect_interval(&format!("lo.{place}"), &format!("hi.{place}"), interval);
        }
    }
    true
}

fn empirical_bernstein(case: &Case) -> Known {
    if !case.name.starts_with("predmix empirical-Bernstein") {
        return false;
    }
    let mut sequence = EmpiricalBernstein::new(case.alpha("alpha"));
    expect_along_the_way(case, |x| {
        sequence.observe(x).unwrap();
        sequence.interval().unwrap()
    })
}

fn betting(case: &Case) -> Known {
    if !case.name.starts_with("hedged betting") {
        return false;
    }
    let mut sequence = BettingSequence::new(case.alpha("alpha"), case.number("breaks") as u16).unwrap();
    expect_along_the_way(case, |x| {
        sequence.observe(x).unwrap();
        sequence.interval().unwrap()
    })
}

/// The mean of a sample given by sums, as the reference takes its variance: of a
/// proportion p (1 - p), of a mean with n - 1.
fn summed_mean(case: &Case, arm: &str) -> MeanEstimate {
    let [n, sum] = ["n", "sum"].map(|key| case.number(&format!("{key}_{arm}")));
    let mean = sum / n;
    let variance = if case.input["metric"] == "proportion" {
        mean * (1.0 - mean)
    } else {
        (case.number(&format!("sumsq_{arm}")) - sum * sum / n) / (n - 1.0)
    };
    MeanEstimate { mean, variance: variance / n, count: n as u64 }
}

fn asymptotic(case: &Case) -> Known {
    if !case.name.starts_with("asymptotic CS") {
        return false;
    }
    let (control, treatment) = (summed_mean(case, "a"), summed_mean(case, "b"));
    let alpha = case.alpha("alpha");
    let sequence = AsymptoticSequence::new(case.number("tuning")).unwrap();

    let difference = Effect::difference(&control, &treatment).unwrap();
    let look = sequence.look(&difference, alpha).unwrap();
    case.expect("absolute.diff", difference.estimate);
    case.expect_interval("absolute.lo", "absolute.hi", look.interval);
    case.expect("absolute.p_always_valid", look.p_value);

    if case.expected.get("relative").is_some() {
        let lift = Effect::lift(&control, &treatment).unwrap();
        let look = sequence.look(&lift, alpha).unwrap();
        case.expect("relative.lift", lift.estimate);
        case.expect_interval("relative.lo", "relative.hi", look.interval);
        case.expect("relative.p_always_valid", look.p_value);
    } else {
        case.expect("var_a", control.variance * control.count as f64);
        case.expect("var_b", treatment.variance * treatment.count as f64);
    }
    true
}

fn sample_ratio_once(case: &Case) -> Known {
    if !case.name.starts_with("chi2 [") {
        return false;
    }
    let stratum = StratumCounts::new(counts(&case.input["observed"]), &case.numbers("weights")).unwrap();
    let test = chi_square(&stratum).unwrap();
    case.expect("chi2", test.statistic);
    case.expect("df", test.degrees_of_freedom as f64);
    case.expect("p", test.p_value);
    assert_eq!(Some(test.p_value < 0.001), case.expected["srm_at_0.001"].as_bool());
    true
}

fn sample_ratio_sequentially(case: &Case) -> Known {
    if !case.name.starts_with("ssrm") {
        return false;
    }
    let weights = case.numbers("p0");
    let test = SequentialSampleRatio::new(case.number("dirichlet_concentration")).unwrap();
    let mut so_far = vec![0; weights.len()];
    let mut p = RunningPValue::default();
    for (index, batch) in case.input["batches"].as_array().unwrap().iter().enumerate() {
        for (total, more) in so_far.iter_mut().zip(counts(batch)) {
            *total += more;
        }
        let strata = [StratumCounts::new(so_far.clone(), &weights).unwrap()];
        p = test.look(&strata, p);
        case.expect(&format!("bayes_factor.{index}"), test.log_evidence(&strata).exp());
        case.expect(&format!("p_always_valid.{index}"), p.get());
    }
    true
}

fn sample_ratio_stratified(case: &Case) -> Known {
    if !case.name.starts_with("stratified SRM") {
        return false;
    }
    let per_stratum = case.input["counts_per_epoch"].as_array().unwrap();
    let weights = case.input["weights_per_epoch"].as_array().unwrap();
    let strata: Vec<StratumCounts> = per_stratum
        .iter()
        .zip(weights)
        .map(|(units, weights)| StratumCounts::new(counts(units), &numbers(weights)).unwrap())
        .collect();

    let test = stratified_chi_square(&strata).unwrap();
    case.expect("quad", test.statistic);
    case.expect("df", test.degrees_of_freedom as f64);
    case.expect("p", test.p_value);
    let summed = summed_chi_square(&strata).unwrap();
    case.expect("sum_chi2", summed.statistic);
    case.expect("sum_df", summed.degrees_of_freedom as f64);
    case.expect("sum_p", summed.p_value);

    // The mistake that stratifying avoids: all units against the last weights.
    let mut all = vec![0; strata[0].counts().len()];
    for stratum in &strata {
        for (total, more) in all.iter_mut().zip(stratum.counts()) {
            *total += more;
        }
    }
    let pooled = StratumCounts::new(all, &numbers(weights.last().unwrap())).unwrap();
    case.expect("WRONG_p_using_last_weights", chi_square(&pooled).unwrap().p_value);
    true
}

/// Mean and variance of `{n, sum, sumsq}`. Not through [`Moments`], whose fixed
/// point rounds the made-up decimal sums more than the oracle tolerates.
fn sample(sums: &Value) -> Sample {
    let [n, sum, squares] = ["n", "sum", "sumsq"].map(|key| sums[key].as_f64().unwrap());
    Sample { mean: sum / n, variance: (squares - sum * sum / n) / (n - 1.0), count: n as u64 }
}

fn welch_test(case: &Case) -> Known {
    if case.name != "welch" {
        return false;
    }
    let (a, b) = (sample(&case.input["a"]), sample(&case.input["b"]));
    let test = welch(&a, &b, case.alpha("alpha")).unwrap();
    case.expect("diff", test.difference);
    case.expect("t", test.t);
    case.expect("df", test.degrees_of_freedom);
    case.expect("p", test.p_value);
    case.expect_interval("lo", "hi", test.interval);
    true
}

fn proportions(case: &Case) -> Known {
    if !case.name.starts_with("two-proportion") {
        return false;
    }
    let of = |arm: &str| {
        let [successes, trials] = ["c", "n"].map(|key| case.count(&format!("{key}_{arm}")));
        Successes::new(successes, trials).unwrap()
    };
    let test = two_proportions(of("a"), of("b")).unwrap();
    case.expect("z_pooled", test.z);
    case.expect("p", test.p_value);
    let interval = wilson(of("b"), Alpha::FIVE_PERCENT).unwrap();
    case.expect_interval("wilson_b.0", "wilson_b.1", interval);
    let interval = clopper_pearson(of("b"), Alpha::FIVE_PERCENT).unwrap();
    case.expect_interval("clopper_pearson_b.0", "clopper_pearson_b.1", interval);
    true
}

fn correction(case: &Case) -> Known {
    let Some(method) = case.name.strip_prefix("multiple testing ") else { return false };
    let correction = match method.split(' ').next().unwrap() {
        "bonferroni" => Correction::Bonferroni,
        "holm" => Correction::Holm,
        "fdr_bh" => Correction::BenjaminiHochberg,
        "fdr_by" => Correction::BenjaminiYekutieli,
        other => panic!("no such correction: {other}"),
    };
    let adjusted = correction.adjust(&case.numbers("p")).unwrap();
    assert_eq!(adjusted.len(), case.expected["p_adj"].as_array().unwrap().len());
    for (index, p) in adjusted.iter().enumerate() {
        case.expect(&format!("p_adj.{index}"), *p);
        assert_eq!(Some(*p <= case.number("alpha")), case.expected["reject"][index].as_bool());
    }
    true
}

fn guardrail(case: &Case) -> Known {
    if !case.name.starts_with("guardrail non-inferiority") {
        return false;
    }
    let (a, b) = (sample(&case.input["a"]), sample(&case.input["b"]));
    let test = non_inferiority(&a, &b, case.number("margin"), Alpha::FIVE_PERCENT).unwrap();
    case.expect("t", test.t);
    case.expect("p_one_sided", test.p_value);
    true
}

fn special_functions(case: &Case) -> Known {
    if case.name != "chi2.sf / t.cdf / norm.cdf tails" {
        return false;
    }
    for (index, pair) in case.input["chi2"].as_array().unwrap().iter().enumerate() {
        let pair = numbers(pair);
        let tail = chi_squared_upper_tail(pair[0], pair[1]).unwrap();
        case.expect(&format!("chi2_sf.{index}"), tail);
    }
    for (index, pair) in case.input["t"].as_array().unwrap().iter().enumerate() {
        let pair = numbers(pair);
        case.expect(&format!("t_cdf.{index}"), student_cdf(pair[0], pair[1]).unwrap());
    }
    for (index, z) in case.numbers("z").into_iter().enumerate() {
        case.expect(&format!("norm_cdf.{index}"), normal_cdf(z));
        case.expect(&format!("norm_sf.{index}"), normal_upper_tail(z));
    }
    true
}

/// What a later version may need: variance reduction, ratio metrics, rank tests on
/// raw samples, planning of sizes.
fn not_part_of_a_rollout(case: &Case) -> Known {
    [
        "CUPED (gbstats RegressionAdjustedStatistic)",
        "ratio metric delta method",
        "mann-whitney (canary analysis, Kayenta-style)",
        "sample size p=0.02 mde=0.002",
    ]
    .contains(&case.name.as_str())
}

fn effect_by_regression(case: &Case) -> Known {
    if !case.name.starts_with("effect stratified") {
        return false;
    }
    let mut arms = [ArmSums::default(), ArmSums::default()];
    for cell in case.input["cells"].as_array().unwrap() {
        let cell = numbers(cell);
        let [arm, stratum, cluster, n, sum, squares] = cell[..] else { panic!("six numbers") };
        let one = Fixed::UNITS_PER_ONE as f64;
        let moments =
            Moments::from_parts(n as u64, (sum * one) as i128, (squares * one * one) as i128).unwrap();
        arms[arm as usize].add(Stratum(stratum as u64), cluster as u8, &moments).unwrap();
    }
    let effect = stratified_effect(&arms[0], &arms[1]).unwrap();
    case.expect("effect", effect.estimate);
    case.expect("variance_over_1e-6", effect.variance / 1e-6);
    case.expect("pooled", {
        let mean = |arm: &ArmSums| arm.total().unwrap().mean().unwrap();
        mean(&arms[1]) - mean(&arms[0])
    });
    true
}

fn rank_boundaries(case: &Case) -> Known {
    if !case.name.starts_with("beta_binomial quantile") {
        return false;
    }
    let [v_opt, p] = ["v_opt", "p"].map(|key| case.number(key));
    let mixture = BetaBinomialMixture::new(v_opt, Alpha::FIVE_PERCENT, p, 1.0 - p).unwrap();
    for (index, v) in case.numbers("v").into_iter().enumerate() {
        case.expect(&format!("above.{index}"), mixture.bound(v, case.alpha("alpha")).unwrap());
        let below = mixture.bound_below(v, case.alpha("alpha")).unwrap();
        case.expect(&format!("below.{index}"), below);
    }
    true
}
