//! ε-greedy with decay, and softmax: the two simplest ways to explore.

use super::error::{BanditError, positive, share};

/// How much is explored, and how that shrinks with experience.
///
/// After n pulls (of all arms together) the share is
/// `max(least, initial · halfway / (halfway + n))`: half of it is left after
/// `halfway` pulls, and it falls as 1/n from there, the rate that keeps regret
/// logarithmic (Auer, Cesa-Bianchi, Fischer 2002, section 4).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epsilon {
    initial: f64,
    least: f64,
    halfway: Option<f64>,
}

impl Epsilon {
    /// The same share for ever.
    pub fn constant(share_explored: f64) -> Result<Self, BanditError> {
        let initial = share("the share that is explored", share_explored)?;
        Ok(Self { initial, least: initial, halfway: None })
    }

    /// From `initial` down to `least`, half of `initial` after `halfway_pulls`.
    pub fn decaying(initial: f64, least: f64, halfway_pulls: f64) -> Result<Self, BanditError> {
        share("the share that is explored at first", initial)?;
        share("the share that is always explored", least)?;
        let halfway = positive("the pulls that halve exploration", halfway_pulls)?;
        Ok(Self { initial, least, halfway: Some(halfway) })
    }

    /// The share explored after so many pulls.
    #[must_use]
    pub fn after(&self, pulls: f64) -> f64 {
        let Some(halfway) = self.halfway else { return self.initial };
        (self.initial * halfway / (halfway + pulls)).max(self.least)
    }
}

/// `1 - ε` to the arm with the highest mean, ties to the first, and `ε / K` to each.
#[must_use]
pub fn epsilon_greedy(means: &[f64], epsilon: f64) -> Vec<f64> {
    let each = epsilon / means.len() as f64;
    let mut probabilities = vec![each; means.len()];
    if let Some(best) = first_highest(means) {
        probabilities[best] += 1.0 - epsilon;
    }
    probabilities
}

/// Proportional to `exp(mean / temperature)`: near 0 greedy, at infinity even.
pub fn softmax(means: &[f64], temperature: f64) -> Result<Vec<f64>, BanditError> {
    let temperature = positive("the temperature of a softmax", temperature)?;
    let highest = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = means.iter().map(|mean| ((mean - highest) / temperature).exp()).collect();
    let sum: f64 = weights.iter().sum();
    Ok(weights.into_iter().map(|weight| weight / sum).collect())
}

/// The position of the highest value, the first of equals; `None` of nothing.
#[must_use]
pub fn first_highest(values: &[f64]) -> Option<usize> {
    (0..values.len()).reduce(|best, next| if values[next] > values[best] { next } else { best })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_first_of_equal_arms_is_the_greedy_one() {
        assert_eq!(epsilon_greedy(&[0.2, 0.5, 0.5, 0.1], 0.2), [0.05, 0.8500000000000001, 0.05, 0.05]);
        assert_eq!(epsilon_greedy(&[1.0], 0.2), [1.0]);
        assert_eq!(first_highest(&[]), None);
    }

    #[test]
    fn exploration_halves_where_it_is_said_to_and_stops_at_the_least() {
        let epsilon = Epsilon::decaying(0.4, 0.01, 1_000.0).unwrap();
        assert_eq!(epsilon.after(0.0), 0.4);
        assert_eq!(epsilon.after(1_000.0), 0.2);
        assert_eq!(epsilon.after(3_000.0), 0.1);
        assert_eq!(epsilon.after(1e9), 0.01);
        assert_eq!(Epsilon::constant(0.1).unwrap().after(1e9), 0.1);
        assert!(Epsilon::constant(1.5).is_err() && Epsilon::decaying(0.1, 0.0, 0.0).is_err());
    }

    #[test]
    fn softmax_does_not_overflow() {
        assert_eq!(softmax(&[1e6, 0.0], 1.0).unwrap(), [1.0, 0.0]);
        assert_eq!(softmax(&[3.0, 3.0], 1e-3).unwrap(), [0.5, 0.5]);
        assert!(softmax(&[1.0], 0.0).is_err());
    }
}
