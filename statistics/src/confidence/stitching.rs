//! The polynomial stitched boundary: in closed form, and growing only with the
//! iterated logarithm of the variance.
//!
//! Howard, Ramdas, McAuliffe, Sekhon, Annals of Statistics 2021, arXiv:1810.08240,
//! theorem 1: ℓ = s ln ln(η v / v_min) + ln(ζ(s) / (α ln^s η)),
//! u(v) = √(k₁² v ℓ + k₂² c² ℓ²) + k₂ c ℓ.

use crate::error::{InferenceError, finite, positive};
use crate::quantity::Alpha;

/// The boundary for sub-gamma martingales of scale c (0: sub-Gaussian), one-sided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PolyStitching {
    v_min: f64,
    c: f64,
    s: f64,
    eta: f64,
    log_constant: f64,
}

impl PolyStitching {
    /// `v_min`: variance from which it should be tight; `c`: scale of the jumps, 0 or
    /// more; `s`: above 1, usually 1.4; `eta`: above 1, usually 2.
    pub fn new(v_min: f64, c: f64, s: f64, eta: f64) -> Result<Self, InferenceError> {
        let v_min = positive("the smallest variance", v_min)?;
        if !(c.is_finite() && c >= 0.0) {
            return Err(InferenceError::NotPositive { what: "the scale of the jumps", got: c });
        }
        positive("the stitching exponent above 1", s - 1.0)?;
        positive("the stitching ratio above 1", eta - 1.0)?;
        let log_constant = zeta(s).ln() - s * eta.ln().ln();
        Ok(Self { v_min, c, s, eta, log_constant })
    }

    /// The deviation that is exceeded, at any time, with chance `alpha` at most.
    pub fn bound(&self, v: f64, alpha: Alpha) -> Result<f64, InferenceError> {
        let v = finite("the variance process", v)?.max(self.v_min);
        let root = self.eta.sqrt();
        let k1_squared = (root + 1.0 / root + 2.0) / 2.0;
        let k2 = f64::midpoint(root, 1.0);
        let log = self.s * (self.eta * v / self.v_min).ln().ln() + self.log_constant + alpha.log_threshold();
        let jumps = k2 * self.c * log;
        Ok((k1_squared * v * log + jumps * jumps).sqrt() + jumps)
    }
}

/// Riemann's zeta function above 1, by the Euler-Maclaurin formula: the first terms
/// one by one, then the integral of the rest with four corrections.
fn zeta(s: f64) -> f64 {
    const TERMS: u32 = 20;
    let n = f64::from(TERMS);
    let head: f64 = (1..TERMS).map(|k| f64::from(k).powf(-s)).sum();
    let power = n.powf(-s);
    let mut tail = n * power / (s - 1.0) + power / 2.0;
    // Bernoulli numbers over factorials: B₂/2!, B₄/4!, B₆/6!, B₈/8!.
    let mut derivative = s * power / n;
    for (k, coefficient) in
        [1.0 / 12.0, -1.0 / 720.0, 1.0 / 30_240.0, -1.0 / 1_209_600.0].into_iter().enumerate()
    {
        tail += coefficient * derivative;
        let order = 2.0 * k as f64 + 1.0;
        derivative *= (s + order) * (s + order + 1.0) / (n * n);
    }
    head + tail
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn zeta_of_two_and_four_are_powers_of_pi() {
        let pi = std::f64::consts::PI;
        assert!((zeta(2.0) - pi * pi / 6.0).abs() < 1e-14);
        assert!((zeta(4.0) - pi.powi(4) / 90.0).abs() < 1e-14);
    }

    #[test]
    fn parameters_outside_of_the_theorem_are_refused() {
        assert!(PolyStitching::new(1.0, 0.0, 1.0, 2.0).is_err());
        assert!(PolyStitching::new(1.0, 0.0, 1.4, 1.0).is_err());
        assert!(PolyStitching::new(1.0, -1.0, 1.4, 2.0).is_err());
        assert!(PolyStitching::new(1.0, 0.0, 1.4, 2.0).is_ok());
    }
}
