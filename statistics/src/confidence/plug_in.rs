//! How much to bet on the next value, from those before it: the predictable
//! plug-in of Waudby-Smith & Ramdas, JRSS-B 2024, arXiv:2010.09686, equation 26.

use crate::quantity::Alpha;

/// Running mean and spread, started by one imagined value: mean 1/2, variance 1/4.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PlugIn {
    pub(super) seen: u64,
    pub(super) sum: f64,
    squares: f64,
}

impl PlugIn {
    pub(super) const START: Self = Self { seen: 0, sum: 0.0, squares: 0.25 };

    /// The bet on the next value: √(2 ln(1/α) / (t ln(1 + t) σ²)).
    pub(super) fn bet(&self, alpha: Alpha) -> f64 {
        let t = self.seen as f64 + 1.0;
        let variance = self.squares / t;
        (2.0 * alpha.log_threshold() / (t * t.ln_1p() * variance)).sqrt()
    }

    pub(super) fn observe(&mut self, value: f64) {
        self.seen += 1;
        self.sum += value;
        let mean = (0.5 + self.sum) / (self.seen as f64 + 1.0);
        self.squares += (value - mean) * (value - mean);
    }

    /// The plain mean of what was seen; 0 of nothing.
    pub(super) fn mean(&self) -> f64 {
        if self.seen == 0 { 0.0 } else { self.sum / self.seen as f64 }
    }
}
