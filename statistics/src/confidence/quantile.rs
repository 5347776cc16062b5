//! Between which ranks a quantile lies, at every look: of latencies, which have no
//! bound and no useful variance.
//!
//! How many of n values are at or below the p-quantile is a sum of coins of rate p,
//! so the beta-binomial boundary says how far that number strays from n p, ever
//! (Howard & Ramdas, Bernoulli 2022, arXiv:1906.09712). The values at those ranks
//! enclose the quantile.

use super::beta_binomial::BetaBinomialMixture;
use crate::error::{InferenceError, positive};
use crate::quantity::{Alpha, Probability};

/// Ranks, counted from 1 for the smallest value, that enclose a quantile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RankInterval {
    /// The quantile is at or above the value of this rank; `None`: no lower bound yet.
    pub lower: Option<u64>,
    /// The quantile is at or below the value of this rank; `None`: no upper bound yet.
    pub upper: Option<u64>,
}

/// The ranks between which the `quantile` of `count` values lies, tightest when
/// about `tuned_for` values have been seen. `quantile` must be strictly inside (0, 1).
pub fn quantile_ranks(
    count: u64,
    quantile: Probability,
    alpha: Alpha,
    tuned_for: f64,
) -> Result<RankInterval, InferenceError> {
    let p = quantile.get();
    let spread = positive("the spread of a quantile's coin", p * (1.0 - p))?;
    let tuned_for = positive("the number of values to tune for", tuned_for)?;
    if count == 0 {
        return Ok(RankInterval { lower: None, upper: None });
    }
    let n = count as f64;
    let mixture = BetaBinomialMixture::new(tuned_for * spread, Alpha::FIVE_PERCENT, p, 1.0 - p)?;
    let fewest = n * p + mixture.bound_below(n * spread, alpha)?;
    let most = n * p + mixture.bound(n * spread, alpha)?;
    let lower = fewest.ceil().max(0.0) as u64;
    let upper = most.floor() as u64 + 1;
    Ok(RankInterval { lower: (lower >= 1).then_some(lower), upper: (upper <= count).then_some(upper) })
}

/// From how many values on the largest one is an upper bound of the `quantile`, at
/// every look: all of n values are below it with chance pⁿ, and the largest only grows.
/// `None` for the quantile 1, which nothing bounds.
#[must_use]
pub fn largest_value_bounds_from(quantile: Probability, alpha: Alpha) -> Option<u64> {
    let p = quantile.get();
    if p >= 1.0 {
        return None;
    }
    if p <= 0.0 {
        return Some(1);
    }
    Some((alpha.log_threshold() / -p.ln()).ceil().max(1.0) as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn few_values_bound_a_high_quantile_from_below_only() {
        let p99 = Probability::new(0.99).unwrap();
        let ranks = quantile_ranks(200, p99, Alpha::FIVE_PERCENT, 1000.0).unwrap();
        assert!(ranks.lower.unwrap() > 150 && ranks.upper.is_none(), "{ranks:?}");
        let ranks = quantile_ranks(100_000, p99, Alpha::FIVE_PERCENT, 1000.0).unwrap();
        let (lower, upper) = (ranks.lower.unwrap(), ranks.upper.unwrap());
        assert!(98_700 < lower && lower < 99_000 && 99_000 < upper && upper < 99_300, "{ranks:?}");
    }

    #[test]
    fn the_largest_value_bounds_the_p99_from_about_three_hundred_values_on() {
        let p99 = Probability::new(0.99).unwrap();
        assert_eq!(largest_value_bounds_from(p99, Alpha::FIVE_PERCENT), Some(299));
        assert_eq!(largest_value_bounds_from(Probability::new(1.0).unwrap(), Alpha::FIVE_PERCENT), None);
    }
}
