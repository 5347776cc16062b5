//! Did each arm get the share of units that it should have got? If not, something
//! loses or duplicates units, and no comparison of arms means anything.
//!
//! Everything is per stratum: each stratum's counts are held against the weights
//! that it had. Counts are distinct units (or buckets), never requests.
//!
//! - [`chi_square`]: one look, fixed weights (Fabijan et al., KDD 2019: alarm below 0.001).
//! - [`stratified_chi_square`]: one look, weights that changed.
//! - [`SequentialSampleRatio`]: every look. Lindon & Malek, NeurIPS 2022,
//!   arXiv:2011.03567. The same test on events (errors) instead of units tells
//!   whether an arm has more of them than its share of traffic, from two integers
//!   per arm and however few there are.
//! - [`leaks`]: an arm of weight 0 that got units nevertheless is a proven defect.

use crate::confidence::RunningPValue;
use crate::distribution::{chi_squared_upper_tail, ln_gamma};
use crate::error::{InferenceError, positive};

/// The units of one stratum by arm, and the weights that it had. Weights are
/// relative: 95 and 5 are as good as 0.95 and 0.05.
#[derive(Debug, Clone, PartialEq)]
pub struct StratumCounts {
    counts: Vec<u64>,
    /// Normalised to a sum of 1.
    shares: Vec<f64>,
}

impl StratumCounts {
    /// Pairs counts and weights by arm. Weights must be finite, not negative, not
    /// all 0.
    pub fn new(counts: Vec<u64>, weights: &[f64]) -> Result<Self, InferenceError> {
        if counts.len() != weights.len() {
            return Err(InferenceError::WrongLength {
                what: "the list of counts",
                got: counts.len(),
                expected: weights.len(),
            });
        }
        for weight in weights {
            if !(weight.is_finite() && *weight >= 0.0) {
                return Err(InferenceError::NotPositive { what: "an arm's weight", got: *weight });
            }
        }
        let total = positive("the sum of the weights", weights.iter().sum())?;
        Ok(Self { counts, shares: weights.iter().map(|weight| weight / total).collect() })
    }

    /// How many units in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The units by arm.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }
}

/// What a chi-square test says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChiSquare {
    /// The statistic.
    pub statistic: f64,
    /// Its degrees of freedom; 0 if there is nothing to compare.
    pub degrees_of_freedom: u64,
    /// Chance of a statistic as large if the ratio is right.
    pub p_value: f64,
}

impl ChiSquare {
    fn new(statistic: f64, degrees_of_freedom: u64) -> Result<Self, InferenceError> {
        let p_value = if degrees_of_freedom == 0 {
            1.0
        } else {
            chi_squared_upper_tail(statistic, degrees_of_freedom as f64)?
        };
        Ok(Self { statistic, degrees_of_freedom, p_value })
    }
}

/// Pearson's test of one stratum. Arms of weight 0 are left to [`leaks`].
pub fn chi_square(stratum: &StratumCounts) -> Result<ChiSquare, InferenceError> {
    let (statistic, arms) = pearson(stratum);
    ChiSquare::new(statistic, arms.saturating_sub(1))
}

/// The sum of Pearson's statistics over strata: notices errors of opposite
/// direction in different strata, at the price of more degrees of freedom.
pub fn summed_chi_square(strata: &[StratumCounts]) -> Result<ChiSquare, InferenceError> {
    let mut statistic = 0.0;
    let mut degrees = 0;
    for stratum in strata {
        let (of_stratum, arms) = pearson(stratum);
        statistic += of_stratum;
        degrees += arms.saturating_sub(1);
    }
    ChiSquare::new(statistic, degrees)
}

fn pearson(stratum: &StratumCounts) -> (f64, u64) {
    let mut statistic = 0.0;
    let mut arms = 0;
    let total: u64 = in_play(stratum).map(|(count, _)| count).sum();
    for (count, share) in in_play(stratum) {
        arms += 1;
        let expected = total as f64 * share;
        if expected > 0.0 {
            let off = count as f64 - expected;
            statistic += off * off / expected;
        }
    }
    (statistic, arms)
}

/// Counts and shares of the arms that have a weight.
fn in_play(stratum: &StratumCounts) -> impl Iterator<Item = (u64, f64)> {
    stratum
        .counts
        .iter()
        .zip(&stratum.shares)
        .filter(|(_, share)| **share > 0.0)
        .map(|(count, share)| (*count, *share))
}

/// One test over all strata: d = Σ (O_e - n_e w_e), C = Σ n_e (diag w_e - w_e w_eᵀ),
/// d' C⁻¹ d. An even loss in every stratum adds up; a ramp does not. All strata
/// must list the same arms in the same order.
pub fn stratified_chi_square(strata: &[StratumCounts]) -> Result<ChiSquare, InferenceError> {
    let arms = strata.first().map_or(0, |stratum| stratum.counts.len());
    let mut off = vec![0.0; arms];
    let mut covariance = vec![vec![0.0; arms]; arms];
    for stratum in strata {
        if stratum.counts.len() != arms {
            return Err(InferenceError::WrongLength {
                what: "a stratum's list of arms",
                got: stratum.counts.len(),
                expected: arms,
            });
        }
        let total = in_play(stratum).map(|(count, _)| count).sum::<u64>() as f64;
        for row in 0..arms {
            let share = stratum.shares[row];
            if share == 0.0 {
                continue;
            }
            off[row] += stratum.counts[row] as f64 - total * share;
            covariance[row][row] += total * share;
            for (cell, other) in covariance[row].iter_mut().zip(&stratum.shares) {
                *cell -= total * share * other;
            }
        }
    }
    let (statistic, rank) = quadratic_form(off, covariance);
    ChiSquare::new(statistic, rank)
}

/// d' C⁻ d and the rank of C, for a symmetric C without negative eigenvalues, by
/// elimination with the largest pivot first. The covariance of shares that sum to
/// 1 is singular by nature, and more so if some arms never met: what no pivot
/// reaches has no degree of freedom.
fn quadratic_form(mut d: Vec<f64>, mut c: Vec<Vec<f64>>) -> (f64, u64) {
    /// A pivot this much smaller than the first is rounding, not information.
    const PIVOT_RATIO_MIN: f64 = 1e-11;
    let mut left: Vec<usize> = (0..d.len()).collect();
    let mut statistic = 0.0;
    let mut rank = 0;
    let mut first_pivot = None;
    while let Some(position) =
        (0..left.len()).max_by(|a, b| c[left[*a]][left[*a]].total_cmp(&c[left[*b]][left[*b]]))
    {
        let pivot = left.swap_remove(position);
        let diagonal = c[pivot][pivot];
        let floor = *first_pivot.get_or_insert(diagonal) * PIVOT_RATIO_MIN;
        if diagonal <= floor || diagonal <= 0.0 {
            break;
        }
        statistic += d[pivot] * d[pivot] / diagonal;
        rank += 1;
        for row in &left {
            let factor = c[*row][pivot] / diagonal;
            d[*row] -= factor * d[pivot];
            for column in &left {
                c[*row][*column] -= factor * c[pivot][*column];
            }
        }
    }
    (statistic, rank)
}

/// An arm that got units while its weight was 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leak {
    /// Which stratum, by its place in the list.
    pub stratum: usize,
    /// Which arm, by its place in the lists.
    pub arm: usize,
    /// How many units it got.
    pub units: u64,
}

/// Every leak there is.
#[must_use]
pub fn leaks(strata: &[StratumCounts]) -> Vec<Leak> {
    let mut leaks = Vec::new();
    for (stratum, counts) in strata.iter().enumerate() {
        for (arm, (units, share)) in counts.counts.iter().zip(&counts.shares).enumerate() {
            if *share == 0.0 && *units > 0 {
                leaks.push(Leak { stratum, arm, units: *units });
            }
        }
    }
    leaks
}

/// The test for every look: a Dirichlet prior around the weights, worth
/// `concentration` imagined units, against the weights themselves. The evidence
/// depends on cumulative counts only, and strata multiply.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SequentialSampleRatio {
    concentration: f64,
}

impl SequentialSampleRatio {
    /// Sensitive to small deviations of many units: the one for sample ratios.
    pub const DEFAULT: Self = Self { concentration: 10_000.0 };
    /// Sensitive to large deviations of few: the one for errors of a canary.
    pub const FEW_EVENTS: Self = Self { concentration: 10.0 };

    /// A higher concentration looks for smaller deviations. Valid whatever it is.
    pub fn new(concentration: f64) -> Result<Self, InferenceError> {
        Ok(Self { concentration: positive("the concentration of the prior", concentration)? })
    }

    /// Logarithm of the Bayes factor against "the ratio is right". Infinite if a
    /// unit went where none could go.
    #[must_use]
    pub fn log_evidence(&self, strata: &[StratumCounts]) -> f64 {
        if !leaks(strata).is_empty() {
            return f64::INFINITY;
        }
        strata.iter().map(|stratum| self.log_evidence_of(stratum)).sum()
    }

    fn log_evidence_of(&self, stratum: &StratumCounts) -> f64 {
        let total = stratum.total() as f64;
        let mut log = ln_gamma(self.concentration) - ln_gamma(self.concentration + total);
        for (count, share) in in_play(stratum) {
            let prior = self.concentration * share;
            log += ln_gamma(prior + count as f64) - ln_gamma(prior) - count as f64 * share.ln();
        }
        log
    }

    /// The smallest p-value of all looks, this one included. `before` is that of
    /// the looks before.
    #[must_use]
    pub fn look(&self, strata: &[StratumCounts], before: RunningPValue) -> RunningPValue {
        before.after((-self.log_evidence(strata)).exp())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn stratum(counts: &[u64], weights: &[f64]) -> StratumCounts {
        StratumCounts::new(counts.to_vec(), weights).unwrap()
    }

    #[test]
    fn a_unit_in_an_arm_of_weight_zero_is_a_leak_and_beyond_doubt() {
        let strata = [stratum(&[90, 10], &[0.9, 0.1]), stratum(&[100, 1], &[1.0, 0.0])];
        assert_eq!(leaks(&strata), [Leak { stratum: 1, arm: 1, units: 1 }]);
        let p = SequentialSampleRatio::DEFAULT.look(&strata, RunningPValue::default());
        assert_eq!(p.get(), 0.0);
    }

    #[test]
    fn arms_that_never_met_are_not_compared() {
        // Arms 0 and 1 first, then 2 and 3: two comparisons, not three.
        let strata = [
            stratum(&[50, 50, 0, 0], &[1.0, 1.0, 0.0, 0.0]),
            stratum(&[0, 0, 60, 40], &[0.0, 0.0, 1.0, 1.0]),
        ];
        let test = stratified_chi_square(&strata).unwrap();
        assert_eq!(test.degrees_of_freedom, 2);
        assert!((test.statistic - 4.0).abs() < 1e-9, "{test:?}");
    }

    #[test]
    fn nothing_counted_raises_no_alarm() {
        assert_eq!(stratified_chi_square(&[]).unwrap().p_value, 1.0);
        assert_eq!(chi_square(&stratum(&[0, 0], &[1.0, 1.0])).unwrap().p_value, 1.0);
        let p = SequentialSampleRatio::DEFAULT.look(&[], RunningPValue::default());
        assert_eq!(p.get(), 1.0);
    }

    #[test]
    fn a_handful_of_errors_in_a_small_canary_convicts_it() {
        // 5 % of the traffic, all of the eight errors.
        let events = [stratum(&[0, 8], &[95.0, 5.0])];
        let p = SequentialSampleRatio::FEW_EVENTS.look(&events, RunningPValue::default());
        assert!(p.get() < 1e-3, "{p:?}");
    }

    #[test]
    fn weights_and_counts_that_do_not_fit_are_refused() {
        assert!(StratumCounts::new(vec![1], &[0.5, 0.5]).is_err());
        assert!(StratumCounts::new(vec![1, 2], &[0.0, 0.0]).is_err());
        assert!(StratumCounts::new(vec![1, 2], &[-1.0, 2.0]).is_err());
        assert!(StratumCounts::new(vec![1, 2], &[f64::NAN, 2.0]).is_err());
        let uneven = [stratum(&[1, 1], &[1.0, 1.0]), stratum(&[1], &[1.0])];
        assert!(stratified_chi_square(&uneven).is_err());
    }
}
