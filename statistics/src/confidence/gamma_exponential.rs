//! The gamma-exponential mixture boundary: for martingales that may jump upwards
//! by more than their variance tells (sub-exponential with scale c).
//!
//! Howard, Ramdas, McAuliffe, Sekhon, Annals of Statistics 2021, arXiv:1810.08240,
//! proposition 9.

use statrs::function::gamma::gamma_lr;

use super::normal_mixture::{Sides, tuned_rho};
use crate::distribution::ln_gamma;
use crate::error::{InferenceError, positive};
use crate::quantity::Alpha;
use crate::root::{crossing, doubled_until_positive};

/// The boundary, one-sided, tightest near the variance it was tuned for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GammaExponentialMixture {
    rho: f64,
    c: f64,
    log_constant: f64,
}

impl GammaExponentialMixture {
    /// Tunes to the variance `v_opt`; `c` is the scale of the jumps, above 0.
    pub fn new(v_opt: f64, alpha_opt: Alpha, c: f64) -> Result<Self, InferenceError> {
        let rho = tuned_rho(v_opt, alpha_opt, Sides::One)?;
        let c = positive("the scale of the jumps", c)?;
        let shape = rho / (c * c);
        let log_constant = shape * shape.ln() - ln_gamma(shape) - gamma_lr(shape, shape).ln();
        Ok(Self { rho, c, log_constant })
    }

    /// Logarithm of the mixture supermartingale at the deviation `s`, at least 0,
    /// when the variance process is `v`.
    #[must_use]
    pub fn log_evidence(&self, s: f64, v: f64) -> f64 {
        let c_squared = self.c * self.c;
        let seen = (self.c * s + v) / c_squared;
        let shape = (v + self.rho) / c_squared;
        let rate = seen + self.rho / c_squared;
        self.log_constant + ln_gamma(shape) + gamma_lr(shape, rate).ln() - shape * rate.ln() + seen
    }

    /// The deviation that is exceeded, at any time, with chance `alpha` at most.
    pub fn bound(&self, v: f64, alpha: Alpha) -> Result<f64, InferenceError> {
        let v = positive("the variance process", v)?;
        let excess = |s: f64| self.log_evidence(s, v) - alpha.log_threshold();
        Ok(crossing(0.0, doubled_until_positive(v.sqrt(), excess), excess))
    }
}
