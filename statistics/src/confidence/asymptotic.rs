//! The asymptotic confidence sequence: for any mean or difference of means, from
//! its estimate and variance.
//!
//! Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, Annals of Statistics 2024,
//! arXiv:2103.06476; algebraically Howard's normal mixture with the estimated
//! variance. With N observations, their variance s² = N V and
//! ρ² = (-2 ln α + ln(1 - 2 ln α)) / N*, the half-width is
//! √(s² · 2 (N ρ² + 1) / (N² ρ²) · ln(√(N ρ² + 1) / α)).

use super::{Look, p_value_of};
use crate::error::{InferenceError, positive};
use crate::quantity::{Alpha, Interval};
use crate::sums::Effect;

/// The sequence, tightest when about N* observations have been seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AsymptoticSequence {
    tuned_for: f64,
}

impl AsymptoticSequence {
    /// Observations per arm below which it should not be used. It rests on the
    /// central limit theorem; of rare events, count the events instead.
    pub const OBSERVATIONS_MIN: u64 = 100;
    /// Where it is usually tuned.
    pub const DEFAULT: Self = Self { tuned_for: 5000.0 };

    /// `tuned_for` is N*, the number of observations of both arms together at
    /// which the interval should be tightest. Valid whatever it is.
    pub fn new(tuned_for: f64) -> Result<Self, InferenceError> {
        Ok(Self { tuned_for: positive("the number of observations to tune for", tuned_for)? })
    }

    /// Looks at the effect as it stands now.
    pub fn look(&self, effect: &Effect, alpha: Alpha) -> Result<Look, InferenceError> {
        let n = positive("the number of observations", effect.count as f64)?;
        let log_threshold = alpha.log_threshold();
        let rho_squared = (2.0 * log_threshold + (1.0 + 2.0 * log_threshold).ln()) / self.tuned_for;
        let spread = n * rho_squared + 1.0;

        let log_evidence = rho_squared * n * effect.estimate * effect.estimate
            / (2.0 * effect.variance * spread)
            - 0.5 * spread.ln();
        let half_width =
            (effect.variance * 2.0 * spread / (n * rho_squared) * (0.5 * spread.ln() + log_threshold)).sqrt();
        Ok(Look {
            log_evidence,
            p_value: p_value_of(log_evidence),
            interval: Interval::around(effect.estimate, half_width)?,
        })
    }
}
