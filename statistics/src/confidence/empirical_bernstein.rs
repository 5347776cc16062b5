//! The empirical Bernstein confidence sequence with predictable plug-in bets: the
//! mean of values in [0, 1], tight when they vary little.
//!
//! Waudby-Smith & Ramdas, JRSS-B 2024, arXiv:2010.09686, theorem 2. Not a function
//! of sums: each bet depends on the values before it, so all who compute it must
//! see the values in the same order, such as that of the log.

use super::plug_in::PlugIn;
use crate::error::InferenceError;
use crate::quantity::{Alpha, Interval};

/// No bet may risk more than half of what is there.
const BET_MAX: f64 = 0.5;

/// The sequence after some values: a few numbers, whatever their number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EmpiricalBernstein {
    alpha_per_side: Alpha,
    past: PlugIn,
    bets: f64,
    bet_values: f64,
    /// Σ (x - mean before)² ψ(bet), and the same of 1 - x.
    penalty_below: f64,
    penalty_above: f64,
}

impl EmpiricalBernstein {
    /// Before the first value.
    #[must_use]
    pub fn new(alpha: Alpha) -> Self {
        Self {
            alpha_per_side: alpha.share(0.5),
            past: PlugIn::START,
            bets: 0.0,
            bet_values: 0.0,
            penalty_below: 0.0,
            penalty_above: 0.0,
        }
    }

    /// Takes the next value, which must lie in [0, 1]; unchanged on error.
    pub fn observe(&mut self, value: f64) -> Result<(), InferenceError> {
        refuse_outside_of_unit(value)?;
        let bet = self.past.bet(self.alpha_per_side).min(BET_MAX);
        let psi = -(-bet).ln_1p() - bet;
        let first = self.past.seen == 0;
        let below = value - self.past.mean();
        let above = (1.0 - value) - if first { 0.0 } else { 1.0 - self.past.mean() };
        self.bets += bet;
        self.bet_values += bet * value;
        self.penalty_below += below * below * psi;
        self.penalty_above += above * above * psi;
        self.past.observe(value);
        Ok(())
    }

    /// The believable means.
    pub fn interval(&self) -> Result<Interval, InferenceError> {
        if self.past.seen == 0 {
            return Interval::new(0.0, 1.0);
        }
        let centre = self.bet_values / self.bets;
        let evidence = self.alpha_per_side.log_threshold();
        let lower = centre - (evidence + self.penalty_below) / self.bets;
        let upper = centre + (evidence + self.penalty_above) / self.bets;
        Interval::new(lower.max(0.0), upper.min(1.0))
    }
}

pub(super) fn refuse_outside_of_unit(value: f64) -> Result<(), InferenceError> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(InferenceError::OutOfRange {
        what: "a value of a bounded metric",
        got: value,
        lower: 0.0,
        upper: 1.0,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_is_out_of_range_is_refused_and_changes_nothing() {
        let mut sequence = EmpiricalBernstein::new(Alpha::FIVE_PERCENT);
        sequence.observe(0.3).unwrap();
        let before = sequence;
        for value in [-0.1, 1.1, f64::NAN] {
            assert!(sequence.observe(value).is_err());
        }
        assert_eq!(sequence, before);
    }
}
