//! The normal mixture boundary: how far a sub-Gaussian martingale strays, ever.
//!
//! Howard, Ramdas, McAuliffe, Sekhon, Annals of Statistics 2021, arXiv:1810.08240.

use crate::distribution::normal_cdf;
use crate::error::{InferenceError, positive};
use crate::quantity::Alpha;
use crate::root::{crossing, doubled_until_positive};

/// Whether a deviation in either direction counts, or only upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sides {
    /// Upwards only.
    One,
    /// In either direction.
    Both,
}

/// The boundary, tightest when the variance process is near `v_opt`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormalMixture {
    rho: f64,
    sides: Sides,
}

impl NormalMixture {
    /// Tunes to the variance `v_opt` (the sum of the increments' variances) for the
    /// level `alpha_opt`. Valid whatever they are.
    pub fn new(v_opt: f64, alpha_opt: Alpha, sides: Sides) -> Result<Self, InferenceError> {
        Ok(Self { rho: tuned_rho(v_opt, alpha_opt, sides)?, sides })
    }

    /// Logarithm of the mixture supermartingale at the deviation `s` when the
    /// variance process is `v`.
    #[must_use]
    pub fn log_evidence(&self, s: f64, v: f64) -> f64 {
        let spread = v + self.rho;
        let both = 0.5 * (self.rho / spread).ln() + s * s / (2.0 * spread);
        match self.sides {
            Sides::Both => both,
            Sides::One => both + std::f64::consts::LN_2 + normal_cdf(s / spread.sqrt()).ln(),
        }
    }

    /// The deviation that is exceeded, at any time, with chance `alpha` at most.
    pub fn bound(&self, v: f64, alpha: Alpha) -> Result<f64, InferenceError> {
        let v = positive("the variance process", v)?;
        let log_threshold = alpha.log_threshold();
        let both = ((v + self.rho) * ((1.0 + v / self.rho).ln() + 2.0 * log_threshold)).sqrt();
        if self.sides == Sides::Both {
            return Ok(both);
        }
        let excess = |s: f64| self.log_evidence(s, v) - log_threshold;
        Ok(crossing(0.0, doubled_until_positive(both, excess), excess))
    }
}

/// ρ for which the boundary is tightest at `v_opt`; of the one-sided mixture as if
/// the level were twice as large.
pub(super) fn tuned_rho(v_opt: f64, alpha_opt: Alpha, sides: Sides) -> Result<f64, InferenceError> {
    let v_opt = positive("the variance to tune for", v_opt)?;
    let level = match sides {
        Sides::Both => alpha_opt.get(),
        Sides::One => 2.0 * alpha_opt.get(),
    };
    let log = -2.0 * Alpha::new(level)?.get().ln();
    Ok(v_opt / (log + log.ln_1p()))
}
