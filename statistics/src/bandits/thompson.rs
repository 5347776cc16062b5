//! Thompson sampling without sampling: the probability that each arm is the best,
//! by quadrature, so that it can be published and every node draws by hash.
//!
//! `P(a best) = ∫ f_a ∏_{j≠a} F_j` (Thompson 1933). All densities are taken on a
//! scale where they are smooth (log-odds for rates), on panels whose ends are the
//! places where any arm's density changes; each arm's distribution function is the
//! running integral of its density on the same panels. So a million observations
//! beside three, or Jeffreys' prior, are as exact as anything else.

use super::belief::{Belief, Density, Scale, panels};
use super::error::BanditError;
use super::quadrature::{NODES, RULE, Values};

/// How many arms are compared at most: effort grows with their number squared.
pub const ARMS_MAX: usize = 64;

/// Panels narrower than this share of the narrowest spread are joined with the
/// next: the rule is exact on panels several spreads wide.
const PANEL_SPREADS_MIN: f64 = 0.4;

/// How an arm stands against the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// The probability that its mean reward is the highest.
    pub probability_best: f64,
    /// What choosing it for ever is expected to cost per decision against choosing
    /// the best, in units of the reward: `E[max_j θ_j - θ_a]`.
    pub expected_loss: f64,
}

/// How each of the arms stands. The probabilities sum to 1.
pub fn standings(beliefs: &[Belief]) -> Result<Vec<Standing>, BanditError> {
    if beliefs.len() > ARMS_MAX {
        return Err(BanditError::TooManyArms { got: beliefs.len(), limit: ARMS_MAX });
    }
    let Some(first) = beliefs.first() else { return Err(BanditError::NoArms) };
    let scale = first.scale();
    if beliefs.iter().any(|belief| belief.scale() != scale) {
        return Err(BanditError::MixedBeliefs);
    }

    let mut arms: Vec<Arm> = beliefs.iter().map(Arm::new).collect();
    let mut points: Vec<f64> = arms.iter().flat_map(|arm| arm.points.iter().copied()).collect();
    points.sort_by(f64::total_cmp);
    let narrowest = beliefs.iter().map(Belief::spread).fold(f64::INFINITY, f64::min);
    points.dedup_by(|next, kept| *next - *kept <= PANEL_SPREADS_MIN * narrowest);

    let mut standings = vec![Standing { probability_best: 0.0, expected_loss: 0.0 }; beliefs.len()];
    for (low, high) in panels(&points) {
        add_panel(scale, low, high, &mut arms, &mut standings);
    }
    let sum: f64 = standings.iter().map(|standing| standing.probability_best).sum();
    for standing in &mut standings {
        standing.probability_best /= sum;
    }
    Ok(standings)
}

/// Top-two Thompson (Russo 2016): half of the decisions for the best arm, half for
/// whoever is best when the first is left out. It settles on a winner sooner, at
/// the price of more traffic to the second best.
#[must_use]
pub fn top_two(probabilities_best: &[f64]) -> Vec<f64> {
    top_two_led(probabilities_best, 0.5)
}

/// The same with another share than half for the best arm; `leader` counts as the
/// nearest number in 0 to 1.
#[must_use]
pub fn top_two_led(probabilities_best: &[f64], leader: f64) -> Vec<f64> {
    let leader = leader.clamp(0.0, 1.0);
    let arms = probabilities_best.len();
    if arms < 2 {
        return vec![1.0; arms];
    }
    let mut shares = vec![0.0; arms];
    for (a, share) in shares.iter_mut().enumerate() {
        let own = probabilities_best[a];
        for (_, other) in probabilities_best.iter().enumerate().filter(|(b, _)| *b != a) {
            *share += leader * own * second(*other, own, arms);
            *share += (1.0 - leader) * other * second(own, *other, arms);
        }
    }
    shares
}

/// The probability of being second to an arm that is first with probability
/// `first`; evenly among the others if that is certain.
fn second(own: f64, first: f64, arms: usize) -> f64 {
    if first < 1.0 { own / (1.0 - first) } else { 1.0 / (arms - 1) as f64 }
}

/// One arm, and how much of its density lies below the current panel.
struct Arm {
    density: Density,
    points: Vec<f64>,
    whole: f64,
    below: f64,
}

impl Arm {
    fn new(belief: &Belief) -> Self {
        let points = belief.points();
        let whole = belief.whole(&points);
        Self { density: belief.density(), points, whole, below: 0.0 }
    }

    /// Whether the density of this arm matters anywhere in the panel.
    fn reaches(&self, low: f64, high: f64) -> bool {
        let (first, last) = (self.points[0], self.points[self.points.len() - 1]);
        low < last && first < high
    }
}

fn add_panel(scale: Scale, low: f64, high: f64, arms: &mut [Arm], standings: &mut [Standing]) {
    let width = high - low;
    let places = RULE.nodes(low, high).map(|at| scale.place(at));
    let weights = RULE.weights(width);
    let mut densities: Vec<Values> = Vec::with_capacity(arms.len());
    let mut distributions: Vec<Values> = Vec::with_capacity(arms.len());
    for arm in arms.iter_mut() {
        if !arm.reaches(low, high) {
            densities.push([0.0; NODES]);
            distributions.push([arm.below.clamp(0.0, 1.0); NODES]);
            continue;
        }
        let density = places.map(|place| arm.density.at(&place) / arm.whole);
        let running = RULE.running(width, &density);
        distributions.push(running.map(|mass| (arm.below + mass).clamp(0.0, 1.0)));
        arm.below += RULE.integral(width, &density);
        densities.push(density);
    }
    let mut others_below = vec![1.0; arms.len()];
    for node in 0..NODES {
        products_of_others(&distributions, node, &mut others_below);
        for (arm, standing) in standings.iter_mut().enumerate() {
            let others = others_below[arm];
            standing.probability_best += weights[node] * densities[arm][node] * others;
            // E[(M - θ)+] = ∫ P(θ < x < M) dx, M being the best of the others.
            standing.expected_loss +=
                weights[node] * places[node].slope * distributions[arm][node] * (1.0 - others);
        }
    }
}

/// For each arm, the probability that all others lie below this node.
fn products_of_others(distributions: &[Values], node: usize, products: &mut [f64]) {
    let mut before = 1.0;
    for (product, distribution) in products.iter_mut().zip(distributions) {
        *product = before;
        before *= distribution[node];
    }
    let mut after = 1.0;
    for (product, distribution) in products.iter_mut().zip(distributions).rev() {
        *product *= after;
        after *= distribution[node];
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn betas(shapes: &[(f64, f64)]) -> Vec<Standing> {
        let beliefs: Vec<_> = shapes.iter().map(|(a, b)| Belief::beta(*a, *b).unwrap()).collect();
        standings(&beliefs).unwrap()
    }

    #[test]
    fn equal_arms_are_equally_likely_the_best() {
        for arms in [1, 2, 3, 10] {
            for standing in betas(&vec![(0.5, 0.5); arms]) {
                assert!((standing.probability_best - 1.0 / arms as f64).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn two_uniform_beliefs_have_the_loss_of_the_textbook() {
        // E|X - Y| = 1/3 for two uniform variables, half of it on either side.
        for standing in betas(&[(1.0, 1.0), (1.0, 1.0)]) {
            assert!((standing.expected_loss - 1.0 / 6.0).abs() < 1e-12);
        }
    }

    #[test]
    fn two_normal_beliefs_have_the_closed_form() {
        let beliefs = [Belief::normal(0.0, 3.0).unwrap(), Belief::normal(5.0, 4.0).unwrap()];
        let got = standings(&beliefs).unwrap();
        // The difference is normal with mean 5 and deviation 5.
        let (density, below) = (0.241_970_724_519_143_37, 0.158_655_253_931_457_05);
        assert!((got[0].probability_best - below).abs() < 1e-12);
        assert!((got[1].expected_loss - 5.0 * (density - below)).abs() < 1e-11);
        assert!((got[0].expected_loss - (5.0 + 5.0 * (density - below))).abs() < 1e-11);
    }

    #[test]
    fn a_million_observations_beside_three_are_exact() {
        // The large arm is a point at 0.6 for the small one: P(X > 0.6) of Beta(2.5, 1.5).
        let got = betas(&[(600_000.5, 400_000.5), (2.5, 1.5)]);
        let small = Belief::beta(2.5, 1.5).unwrap();
        assert!((got[1].probability_best - (1.0 - small.cdf(0.6))).abs() < 1e-6);
        // Losses differ by exactly the difference of the means, however small they are.
        let gap = 600_000.5 / 1_000_001.0 - 2.5 / 4.0;
        assert!((got[1].expected_loss - got[0].expected_loss - gap).abs() < 1e-10);
    }

    #[test]
    fn ten_unequal_arms_agree_with_their_losses() {
        let shapes: Vec<_> = (0..10).map(|arm| (0.5 + 3f64.powi(arm), 0.5 + 2.0 * 3f64.powi(arm))).collect();
        let got = betas(&shapes);
        assert!((got.iter().map(|arm| arm.probability_best).sum::<f64>() - 1.0).abs() < 1e-12);
        let best: Vec<f64> =
            got.iter().zip(&shapes).map(|(arm, (a, b))| arm.expected_loss + a / (a + b)).collect();
        for expected in &best {
            assert!((expected - best[0]).abs() < 1e-10, "E[max] is one number: {best:?}");
        }
    }

    #[test]
    fn a_certain_winner_leaves_the_second_half_to_the_others() {
        assert_eq!(top_two(&[1.0, 0.0, 0.0]), [0.5, 0.25, 0.25]);
        assert_eq!(top_two(&[1.0]), [1.0]);
        let near = |got: &[f64], wanted: &[f64]| got.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(near(&top_two_led(&[1.0, 0.0, 0.0], 0.8), &[0.8, 0.1, 0.1]));
        assert!(near(&top_two_led(&[0.7, 0.3], 1.0), &[0.7, 0.3]));
    }

    #[test]
    fn too_many_none_and_mixed_arms_are_refused() {
        let rate = Belief::beta(1.0, 1.0).unwrap();
        assert_eq!(standings(&[]), Err(BanditError::NoArms));
        assert!(matches!(standings(&[rate; 65]), Err(BanditError::TooManyArms { .. })));
        let mixed = [rate, Belief::normal(0.0, 1.0).unwrap()];
        assert_eq!(standings(&mixed), Err(BanditError::MixedBeliefs));
    }
}
