//! The mixture sequential probability ratio test.
//!
//! Robbins, Annals of Mathematical Statistics 1970; for A/B tests: Johari, Pekelis,
//! Walsh, arXiv:1512.04922. The likelihood ratio is averaged over effects drawn from
//! N(0, τ²); exact for normal data, and for the difference of means of many.

use super::{Look, p_value_of};
use crate::error::{InferenceError, positive};
use crate::quantity::{Alpha, Interval};
use crate::sums::Effect;

/// The test, tuned to effects of about the size τ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MixtureSprt {
    tau_squared: f64,
}

impl MixtureSprt {
    /// `typical_effect` is τ, in the metric's unit: the size of effects that matter.
    /// The test is valid whatever it is, and quickest near it.
    pub fn new(typical_effect: f64) -> Result<Self, InferenceError> {
        let tau = positive("the typical effect", typical_effect)?;
        Ok(Self { tau_squared: tau * tau })
    }

    /// Looks at the effect as it stands now.
    pub fn look(&self, effect: &Effect, alpha: Alpha) -> Result<Look, InferenceError> {
        let (d, v, tau_squared) = (effect.estimate, effect.variance, self.tau_squared);
        let log_evidence =
            0.5 * (v / (v + tau_squared)).ln() + tau_squared * d * d / (2.0 * v * (v + tau_squared));
        let half_width = (v * (v + tau_squared) / tau_squared
            * (2.0 * alpha.log_threshold() + ((v + tau_squared) / v).ln()))
        .sqrt();
        Ok(Look {
            log_evidence,
            p_value: p_value_of(log_evidence),
            interval: Interval::around(d, half_width)?,
        })
    }
}
