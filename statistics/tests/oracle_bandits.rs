//! Every case of the oracle files about bandits, against this crate. A case that no
//! check knows fails the test, and so does a file that lost a case.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use starling_statistics::apportion::apportion;
use starling_statistics::bandits::epsilon::{first_highest, softmax};
use starling_statistics::bandits::thompson::{standings, top_two};
use starling_statistics::bandits::ucb::{Earned, sliding_window_ucb, ucb1};
use starling_statistics::bandits::{
    ArmId, ArmRewards, Batch, Belief, BetaPrior, Bounds, Discount, NormalInverseGamma, NormalPrior,
    RewardModel,
};
use starling_statistics::sums::{Fixed, Moments};

#[derive(Deserialize)]
struct Oracle {
    schema: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    input: Value,
    expected: Value,
    tol: f64,
}

impl Case {
    fn close(&self, what: &str, got: f64, expected: &Value) {
        let expected = expected.as_f64().unwrap_or_else(|| panic!("{}: no {what}", self.name));
        assert!(
            (got - expected).abs() <= self.tol * expected.abs().max(1.0),
            "{}: {what} is {got}, expected {expected}",
            self.name
        );
    }

    fn all_close(&self, what: &str, got: &[f64]) {
        let expected = self.expected[what].as_array().unwrap_or_else(|| panic!("no {what}"));
        assert_eq!(got.len(), expected.len(), "{}: {what}", self.name);
        for (got, expected) in got.iter().zip(expected) {
            self.close(what, *got, expected);
        }
    }

    /// Numbers of arms in order against an object with their letters as keys.
    fn by_letter(&self, what: &str, got: &[f64]) {
        let expected = self.expected[what].as_object().unwrap_or_else(|| panic!("no {what}"));
        assert_eq!(got.len(), expected.len(), "{}: {what}", self.name);
        for (got, (arm, expected)) in got.iter().zip(expected) {
            self.close(&format!("{what} of {arm}"), *got, expected);
        }
    }

    fn number(&self, key: &str) -> f64 {
        self.input[key].as_f64().unwrap_or_else(|| panic!("{}: no {key}", self.name))
    }

    fn numbers(&self, key: &str) -> Vec<f64> {
        numbers(&self.input[key])
    }

    fn pairs(&self, key: &str) -> Vec<(f64, f64)> {
        let pairs = self.input[key].as_array().unwrap().iter().map(numbers);
        pairs.map(|pair| (pair[0], pair[1])).collect()
    }

    /// Decisions and rewards in order: the arm's letter and what it earned.
    fn history(&self) -> Vec<(String, f64)> {
        let decisions = self.input["decisions"].as_array().unwrap();
        let arms = decisions.iter().map(|arm| arm.as_str().unwrap().to_owned());
        arms.zip(self.numbers("rewards")).collect()
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// Runs `check` on every case; it says whether it knew the case.
fn each_case(file: &str, cases: usize, check: impl Fn(&Case) -> bool) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracles").join(file);
    let oracle: Oracle = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(oracle.schema, "starling-oracle/1");
    assert_eq!(oracle.cases.len(), cases, "{file} has lost or gained cases");
    for case in &oracle.cases {
        assert!(check(case), "{file}: no check for {}", case.name);
    }
}

/// What each arm earned, in the order of their letters.
fn earned<'a>(history: impl IntoIterator<Item = &'a (String, f64)>) -> BTreeMap<String, Earned> {
    let mut arms = BTreeMap::new();
    for (arm, reward) in history {
        let earned = arms.entry(arm.clone()).or_insert(Earned { count: 0.0, sum: 0.0 });
        earned.count += 1.0;
        earned.sum += reward;
    }
    arms
}

fn moments(value: f64) -> Moments {
    let mut sums = Moments::default();
    sums.observe(Fixed::from_f64(value).unwrap()).unwrap();
    sums
}

fn best(beliefs: &[Belief]) -> Vec<f64> {
    standings(beliefs).unwrap().iter().map(|standing| standing.probability_best).collect()
}

#[test]
fn weights_become_buckets_by_largest_remainder() {
    each_case("apportion.json", 18, |case| {
        let parts = apportion(&case.numbers("weights"), case.number("N") as u32).unwrap();
        let parts: Vec<f64> = parts.into_iter().map(f64::from).collect();
        case.all_close("counts", &parts);
        true
    });
}

#[test]
fn simple_bandits_agree_with_mabwiser() {
    each_case("bandits_simple.json", 6, |case| {
        let arms: Vec<Earned> = earned(&case.history()).into_values().collect();
        if case.name.starts_with("ucb1") {
            let counts: Vec<f64> = arms.iter().map(|arm| arm.count).collect();
            let sums: Vec<f64> = arms.iter().map(|arm| arm.sum).collect();
            let index = ucb1(&arms, case.number("alpha"));
            case.by_letter("counts", &counts);
            case.by_letter("sums", &sums);
            case.by_letter("ucb", &index);
            let letter = ["a", "b", "c"][first_highest(&index).unwrap()];
            assert_eq!(case.expected["argmax"], letter);
        } else if case.name.starts_with("softmax") {
            let means: Vec<f64> = arms.iter().map(Earned::mean).collect();
            case.by_letter("propensity", &softmax(&means, case.number("tau")).unwrap());
        } else if case.name.starts_with("beta-bernoulli posterior") {
            let (mut successes, mut failures) = (Vec::new(), Vec::new());
            for rewards in rewards_of(&case.history(), usize::MAX).into_values() {
                let (a, b) = shapes(&rewards, &Discount::NONE, Batch(0), BetaPrior::UNIFORM);
                successes.push(a);
                failures.push(b);
            }
            case.by_letter("alpha", &successes);
            case.by_letter("beta", &failures);
        } else {
            return false;
        }
        true
    });
}

/// Each arm's rewards by batches of `batch` decisions.
fn rewards_of(history: &[(String, f64)], batch: usize) -> BTreeMap<String, ArmRewards> {
    let mut arms: BTreeMap<String, ArmRewards> = BTreeMap::new();
    for (position, (arm, reward)) in history.iter().enumerate() {
        let batch = Batch((position / batch) as u64);
        arms.entry(arm.clone()).or_default().add(batch, &moments(*reward)).unwrap();
    }
    arms
}

fn shapes(rewards: &ArmRewards, discount: &Discount, now: Batch, prior: BetaPrior) -> (f64, f64) {
    let discounted = rewards.discounted(discount, now).unwrap();
    match RewardModel::Bernoulli(prior).belief(ArmId(0), &discounted).unwrap() {
        Belief::Beta { a, b } => (a, b),
        other => panic!("a rate is believed as {other:?}"),
    }
}

#[test]
fn bandits_that_forget_agree_with_their_references() {
    each_case("bandits_nonstationary.json", 4, |case| {
        let history = case.history();
        if case.name.starts_with("dTS") {
            discounted_thompson(case, &history);
        } else if case.name.starts_with("SW-UCB") {
            let window = case.number("window");
            let within: Vec<Earned> =
                earned(&history[history.len() - window as usize..]).into_values().collect();
            let (pulls, max, xi) = (history.len() as f64, case.number("B"), case.number("xi"));
            let counts: Vec<f64> = within.iter().map(|arm| arm.count).collect();
            let means: Vec<f64> = within.iter().map(Earned::mean).collect();
            case.by_letter("N", &counts);
            case.by_letter("mean", &means);
            case.by_letter("index", &sliding_window_ucb(&within, pulls, window, max, xi));
        } else {
            return false;
        }
        true
    });
}

fn discounted_thompson(case: &Case, history: &[(String, f64)]) {
    let batch = case.number("batch") as usize;
    let discount = Discount::per_batch(case.number("gamma")).unwrap();
    let prior = case.numbers("prior");
    let prior = BetaPrior::new(prior[0], prior[1]).unwrap();
    let after_each = case.expected["alpha_beta_after_each_batch"].as_array().unwrap();
    assert_eq!(after_each.len(), history.len() / batch);
    let mut beliefs = Vec::new();
    for (now, expected) in after_each.iter().enumerate() {
        let seen = rewards_of(&history[..(now + 1) * batch], batch);
        beliefs.clear();
        assert_eq!(seen.len(), expected.as_object().unwrap().len());
        for (arm, rewards) in &seen {
            let (a, b) = shapes(rewards, &discount, Batch(now as u64), prior);
            case.close(&format!("successes of {arm} after batch {now}"), a, &expected[arm][0]);
            case.close(&format!("failures of {arm} after batch {now}"), b, &expected[arm][1]);
            beliefs.push(Belief::beta(a, b).unwrap());
        }
    }
    case.by_letter("p_best_final", &best(&beliefs));
}

#[test]
fn probabilities_of_being_best_agree_with_scipy() {
    each_case("thompson.json", 15, |case| {
        if case.name.starts_with("P(best)") {
            probability_best(case);
        } else if case.name.starts_with("beta ppf/cdf") {
            let belief = Belief::beta(case.number("a"), case.number("b")).unwrap();
            let quantiles: Vec<f64> =
                case.numbers("u").into_iter().map(|u| belief.quantile(u).unwrap()).collect();
            let below: Vec<f64> = case.numbers("x").into_iter().map(|x| belief.cdf(x)).collect();
            case.all_close("ppf", &quantiles);
            case.all_close("cdf", &below);
        } else if case.name.starts_with("normal-inverse-gamma") {
            normal_inverse_gamma(case);
        } else if case.name.starts_with("normal-normal") {
            let standard_error = case.number("se");
            let prior = NormalPrior::new(case.number("prior_mean"), case.number("prior_sd"), standard_error);
            let belief = prior.unwrap().after(1.0, case.number("xbar")).unwrap();
            case.close("mean", belief.mean(), &case.expected["mean"]);
            case.close("sd", belief.deviation(), &case.expected["sd"]);
        } else {
            return false;
        }
        true
    });
}

fn probability_best(case: &Case) {
    let beliefs: Vec<Belief> = if case.input["alpha_beta"].is_array() {
        let shapes = case.pairs("alpha_beta");
        shapes.into_iter().map(|(a, b)| Belief::beta(a, b).unwrap()).collect()
    } else {
        let moments = case.pairs("mean_sd");
        moments.into_iter().map(|(mean, sd)| Belief::normal(mean, sd).unwrap()).collect()
    };
    let floor = case.input["floor"].as_f64().unwrap_or(0.05);
    let best = best(&beliefs);
    let wrapped: Vec<_> = best.iter().copied().map(Some).collect();
    case.all_close("p_best", &best);
    case.all_close("top_two", &top_two(&best));
    case.all_close("floored", &Bounds::new(floor, 1.0).unwrap().apply(&wrapped).unwrap());
}

fn normal_inverse_gamma(case: &Case) {
    let values = case.numbers("x");
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let around: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let prior = NormalInverseGamma::new(
        case.number("m0"),
        case.number("kappa0"),
        case.number("a0"),
        case.number("b0"),
    );
    let after = prior.unwrap().after(count, mean, around);
    case.close("m", after.mean, &case.expected["m"]);
    case.close("kappa", after.strength, &case.expected["kappa"]);
    case.close("a", after.shape, &case.expected["a"]);
    case.close("b", after.scale, &case.expected["b"]);
    let belief = after.belief().unwrap();
    let Belief::Student { scale, degrees, .. } = belief else { panic!("{belief:?}") };
    case.close("degrees", degrees, &case.expected["student_t_df"]);
    case.close("scale", scale, &case.expected["marginal_scale"]);
    let probabilities = [1e-6, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999_999];
    case.all_close("mean_ppf", &probabilities.map(|u| belief.quantile(u).unwrap()));
}

/// Ten arms, a million rewards beside three, Jeffreys' prior, heavy tails.
#[test]
fn hard_comparisons_and_expected_losses_agree_with_scipy() {
    each_case("bandits_more.json", 8, |case| {
        let beliefs: Vec<Belief> = if case.input["alpha_beta"].is_array() {
            let shapes = case.pairs("alpha_beta");
            shapes.into_iter().map(|(a, b)| Belief::beta(a, b).unwrap()).collect()
        } else {
            let arms = case.input["location_scale_degrees"].as_array().unwrap().iter().map(numbers);
            arms.map(|arm| Belief::student(arm[0], arm[1], arm[2]).unwrap()).collect()
        };
        let standings = standings(&beliefs).unwrap();
        let losses: Vec<f64> = standings.iter().map(|standing| standing.expected_loss).collect();
        case.all_close("p_best", &best(&beliefs));
        case.all_close("expected_loss", &losses);
        true
    });
}
