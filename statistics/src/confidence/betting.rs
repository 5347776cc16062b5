//! The hedged betting confidence sequence: a gambler bets against each possible
//! mean, upwards and downwards, and a mean stays believable until a bet against it
//! has multiplied the stake by 1 / α. The tightest known for values in [0, 1].
//!
//! Waudby-Smith & Ramdas, JRSS-B 2024, arXiv:2010.09686, theorem 3. Not a function
//! of sums: all who compute it must see the values in the same order.

use super::empirical_bernstein::refuse_outside_of_unit;
use super::plug_in::PlugIn;
use crate::error::InferenceError;
use crate::quantity::{Alpha, Interval};

/// The share of what may be lost at worst that a bet risks.
const RISKED: f64 = 0.5;
/// Means that are bet against: enough for a gate, few enough to keep.
const CELLS_MAX: u16 = 10_000;

/// The sequence after some values. It costs two logarithms per cell and value.
#[derive(Debug, Clone, PartialEq)]
pub struct BettingSequence {
    alpha: Alpha,
    past: PlugIn,
    /// Logarithm of the capital that bet upwards and downwards, per mean.
    log_capital: Vec<(f64, f64)>,
}

impl BettingSequence {
    /// Bets against the means 0, 1 / `cells`, …, 1. The interval is widened by one
    /// cell to either side, for the means in between. `cells`: 2 to 10,000.
    pub fn new(alpha: Alpha, cells: u16) -> Result<Self, InferenceError> {
        if !(2..=CELLS_MAX).contains(&cells) {
            return Err(InferenceError::OutOfRange {
                what: "the number of cells",
                got: f64::from(cells),
                lower: 2.0,
                upper: f64::from(CELLS_MAX),
            });
        }
        let log_capital = vec![(0.0, 0.0); usize::from(cells) + 1];
        Ok(Self { alpha, past: PlugIn::START, log_capital })
    }

    /// Takes the next value, which must lie in [0, 1]; unchanged on error.
    pub fn observe(&mut self, value: f64) -> Result<(), InferenceError> {
        refuse_outside_of_unit(value)?;
        let bet = self.past.bet(self.alpha.share(0.5));
        let cells = (self.log_capital.len() - 1) as f64;
        for (cell, (upwards, downwards)) in self.log_capital.iter_mut().enumerate() {
            let mean = cell as f64 / cells;
            // A division by 0 gives infinity, which bounds nothing: rightly so.
            *upwards += (bet.min(RISKED / mean) * (value - mean)).ln_1p();
            *downwards += (-bet.min(RISKED / (1.0 - mean)) * (value - mean)).ln_1p();
        }
        self.past.observe(value);
        Ok(())
    }

    /// The believable means. All of them, if every cell has been refuted: then the
    /// values did not have one mean.
    pub fn interval(&self) -> Result<Interval, InferenceError> {
        let threshold = self.alpha.log_threshold() + std::f64::consts::LN_2;
        let believable = |(upwards, downwards): &(f64, f64)| upwards.max(*downwards) <= threshold;
        let first = self.log_capital.iter().position(believable);
        let last = self.log_capital.iter().rposition(believable);
        let (Some(first), Some(last)) = (first, last) else {
            return Interval::new(0.0, 1.0);
        };
        let cells = (self.log_capital.len() - 1) as f64;
        let lower = (first as f64 - 1.0) / cells;
        let upper = (last as f64 + 1.0) / cells;
        Interval::new(lower.max(0.0), upper.min(1.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn only_ones_push_the_lower_bound_up() {
        let mut sequence = BettingSequence::new(Alpha::FIVE_PERCENT, 100).unwrap();
        for _ in 0..200 {
            sequence.observe(1.0).unwrap();
        }
        let interval = sequence.interval().unwrap();
        assert!(interval.lower() > 0.9 && interval.upper() == 1.0, "{interval}");
        assert!(sequence.observe(1.5).is_err());
        assert!(BettingSequence::new(Alpha::FIVE_PERCENT, 1).is_err());
    }
}
