//! The confidence sequence of a success rate, or of the mean of bounded values,
//! from their sum: exact with any number of events, none included.
//!
//! Each rate p is kept as long as the beta-binomial martingale of
//! (arXiv:1810.08240, proposition 7) for "the rate is p" stays below 1 / α. A
//! value in [0, 1] of mean p has no larger moment generating function than a coin
//! of rate p (Hoeffding, JASA 1963), so the same holds for means of such values,
//! only wider than it need be when they vary little.

use super::beta_binomial::BetaBinomialMixture;
use crate::error::{InferenceError, finite, positive};
use crate::quantity::{Alpha, Interval};
use crate::root::crossing;

/// The sequence, tightest when about as many trials as it was tuned for have been seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BernoulliSequence {
    tuned_for: f64,
}

impl BernoulliSequence {
    /// Tuned for a hundred trials: little worse with a hundred thousand than the best
    /// there, while tuning for more makes the first hundreds worthless.
    pub const DEFAULT: Self = Self { tuned_for: 100.0 };

    /// `tuned_for` is the number of trials at which the interval should be
    /// tightest. Valid whatever it is.
    pub fn new(tuned_for: f64) -> Result<Self, InferenceError> {
        Ok(Self { tuned_for: positive("the number of trials to tune for", tuned_for)? })
    }

    /// The believable rates after `successes` of `trials`.
    pub fn rate(&self, successes: u64, trials: u64, alpha: Alpha) -> Result<Interval, InferenceError> {
        self.bounded_mean(successes as f64, trials, alpha)
    }

    /// The believable means after `count` values between 0 and 1 that add up to `sum`.
    pub fn bounded_mean(&self, sum: f64, count: u64, alpha: Alpha) -> Result<Interval, InferenceError> {
        if count == 0 {
            return Interval::new(0.0, 1.0);
        }
        let n = count as f64;
        finite("the sum of values between 0 and 1", sum)?;
        if !(0.0..=n).contains(&sum) {
            return Err(InferenceError::OutOfRange {
                what: "the sum of values between 0 and 1",
                got: sum,
                lower: 0.0,
                upper: n,
            });
        }
        let mean = sum / n;
        // Tuning cannot fail for rates strictly inside; at the ends every rate but
        // the end itself has been refuted or not by its neighbours.
        let excess =
            |p: f64| self.log_evidence(sum, n, p).map_or(f64::INFINITY, |log| log - alpha.log_threshold());
        let lower = if mean > 0.0 { crossing(mean, 0.0, excess) } else { 0.0 };
        let upper = if mean < 1.0 { crossing(mean, 1.0, excess) } else { 1.0 };
        Interval::new(lower.min(mean), upper.max(mean))
    }

    /// Logarithm of the evidence against the rate `p`.
    pub fn log_evidence_against(&self, sum: f64, count: u64, p: f64) -> Result<f64, InferenceError> {
        self.log_evidence(finite("the sum of values between 0 and 1", sum)?, count as f64, p)
    }

    fn log_evidence(&self, sum: f64, n: f64, p: f64) -> Result<f64, InferenceError> {
        let spread = p * (1.0 - p);
        let mixture = BetaBinomialMixture::new(self.tuned_for * spread, Alpha::FIVE_PERCENT, p, 1.0 - p)?;
        Ok(mixture.log_evidence(sum - n * p, n * spread))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn nothing_seen_is_nothing_known() {
        let interval = BernoulliSequence::DEFAULT.rate(0, 0, Alpha::FIVE_PERCENT).unwrap();
        assert_eq!((interval.lower(), interval.upper()), (0.0, 1.0));
    }

    #[test]
    fn all_and_none_mirror_each_other() {
        let none = BernoulliSequence::DEFAULT.rate(0, 50, Alpha::FIVE_PERCENT).unwrap();
        let all = BernoulliSequence::DEFAULT.rate(50, 50, Alpha::FIVE_PERCENT).unwrap();
        assert_eq!(none.lower(), 0.0);
        assert_eq!(all.upper(), 1.0);
        assert!((none.upper() - (1.0 - all.lower())).abs() < 1e-9);
    }

    #[test]
    fn more_successes_than_trials_are_refused() {
        assert!(BernoulliSequence::DEFAULT.rate(3, 2, Alpha::FIVE_PERCENT).is_err());
        assert!(BernoulliSequence::DEFAULT.bounded_mean(f64::NAN, 2, Alpha::FIVE_PERCENT).is_err());
    }
}
