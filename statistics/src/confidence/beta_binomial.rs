//! The beta-binomial mixture boundary: for sums of values that take two values, or
//! lie between two.
//!
//! Howard, Ramdas, McAuliffe, Sekhon, Annals of Statistics 2021, arXiv:1810.08240,
//! proposition 7: increments of mean 0 in [-g, h]. It is exact where the normal
//! mixture is not: with few events.

use super::normal_mixture::{Sides, tuned_rho};
use crate::distribution::ln_beta;
use crate::error::{InferenceError, positive};
use crate::quantity::Alpha;
use crate::root::crossing;

/// The two-sided boundary, tightest near the variance it was tuned for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BetaBinomialMixture {
    g: f64,
    h: f64,
    r: f64,
    log_normaliser: f64,
}

impl BetaBinomialMixture {
    /// For increments in [-`g`, `h`], tuned to the variance `v_opt` at `alpha_opt`.
    pub fn new(v_opt: f64, alpha_opt: Alpha, g: f64, h: f64) -> Result<Self, InferenceError> {
        let g = positive("the reach downwards", g)?;
        let h = positive("the reach upwards", h)?;
        let rho = tuned_rho(v_opt, alpha_opt, Sides::Both)?;
        // The prior's weight must stay positive however early it is tuned for.
        let r = (rho - g * h).max(1e-3 * g * h);
        let log_normaliser = ln_beta(r / (g * (g + h)), r / (h * (g + h)));
        Ok(Self { g, h, r, log_normaliser })
    }

    /// Logarithm of the mixture martingale at the deviation `s` when the variance
    /// process is `v`; `s` lies between -v / h and v / g, as no sum can leave that.
    #[must_use]
    pub fn log_evidence(&self, s: f64, v: f64) -> f64 {
        let Self { g, h, r, log_normaliser } = *self;
        let range = g + h;
        v / (g * h) * range.ln() - (v + h * s) / (h * range) * g.ln() - (v - g * s) / (g * range) * h.ln()
            + ln_beta((r + v - g * s) / (g * range), (r + v + h * s) / (h * range))
            - log_normaliser
    }

    /// The deviation upwards that is exceeded, at any time, with chance `alpha` at
    /// most (together with the one [downwards](Self::bound_below)).
    pub fn bound(&self, v: f64, alpha: Alpha) -> Result<f64, InferenceError> {
        self.bound_towards(v, alpha, v / self.g)
    }

    /// The deviation downwards, a negative number; see [`bound`](Self::bound).
    pub fn bound_below(&self, v: f64, alpha: Alpha) -> Result<f64, InferenceError> {
        self.bound_towards(v, alpha, -v / self.h)
    }

    fn bound_towards(&self, v: f64, alpha: Alpha, end: f64) -> Result<f64, InferenceError> {
        let v = positive("the variance process", v)?;
        let excess = |s: f64| self.log_evidence(s, v) - alpha.log_threshold();
        if excess(end) < 0.0 {
            return Ok(end);
        }
        Ok(crossing(0.0, end, excess))
    }
}
