//! Intervals and p-values that hold at every look, however often one looks and
//! whenever one stops.
//!
//! | what is known | use | of sums alone |
//! |---|---|---|
//! | an effect and its variance, 100 observations per arm and more | [`AsymptoticSequence`] | yes |
//! | the same, and the size of effect that matters | [`MixtureSprt`] | yes |
//! | successes of trials, however few; a mean of bounded values | [`BernoulliSequence`] | yes |
//! | a quantile, by ranks | [`quantile_ranks`] | yes |
//! | bounded values one by one, in an order all agree on | [`BettingSequence`], [`EmpiricalBernstein`] | no |
//! | a martingale with a known variance process | [`NormalMixture`], [`GammaExponentialMixture`], [`BetaBinomialMixture`], [`PolyStitching`] | yes |
//!
//! A method's level holds for one sequence of looks with one method. Whoever
//! changes methods on the way, or takes the better of two, must give each its
//! [share](crate::Alpha::share) of the level.

mod asymptotic;
mod bernoulli;
mod beta_binomial;
mod betting;
mod empirical_bernstein;
mod gamma_exponential;
mod mixture_sprt;
mod normal_mixture;
mod plug_in;
mod quantile;
mod stitching;

pub use asymptotic::AsymptoticSequence;
pub use bernoulli::BernoulliSequence;
pub use beta_binomial::BetaBinomialMixture;
pub use betting::BettingSequence;
pub use empirical_bernstein::EmpiricalBernstein;
pub use gamma_exponential::GammaExponentialMixture;
pub use mixture_sprt::MixtureSprt;
pub use normal_mixture::{NormalMixture, Sides};
pub use quantile::{RankInterval, largest_value_bounds_from, quantile_ranks};
pub use stitching::PolyStitching;

use crate::quantity::Interval;

/// What an always-valid test says at one look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// Logarithm of the evidence against "no effect": a value that exceeds
    /// ln(1 / alpha) at any time with chance alpha at most if there is none.
    pub log_evidence: f64,
    /// The p-value of this look alone, min(1, 1 / evidence). The smallest of all
    /// looks is as valid: see [`RunningPValue`].
    pub p_value: f64,
    /// Effects that are still believable.
    pub interval: Interval,
}

/// The smallest p-value of all looks so far: it never rises again, and is as valid
/// as each of them. The caller keeps the number between looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RunningPValue(f64);

impl Default for RunningPValue {
    fn default() -> Self {
        Self(1.0)
    }
}

impl RunningPValue {
    /// Continues from a number that was kept; what is not a p-value counts as 1.
    #[must_use]
    pub fn from_kept(p_value: f64) -> Self {
        if (0.0..=1.0).contains(&p_value) { Self(p_value) } else { Self(1.0) }
    }

    /// Takes one more look into account. NaN changes nothing.
    #[must_use]
    pub fn after(self, p_value: f64) -> Self {
        Self(self.0.min(p_value))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

/// min(1, 1 / evidence).
fn p_value_of(log_evidence: f64) -> f64 {
    (-log_evidence).exp().min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_p_value_never_rises_and_ignores_what_is_none() {
        let p = RunningPValue::default().after(0.4).after(0.7).after(f64::NAN);
        assert_eq!(p.get(), 0.4);
        assert_eq!(RunningPValue::from_kept(-3.0).get(), 1.0);
        assert_eq!(RunningPValue::from_kept(0.2).after(0.1).get(), 0.1);
    }
}
