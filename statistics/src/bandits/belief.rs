//! What is believed about one arm's mean reward: a distribution, its density on a
//! scale where it is smooth, and where along that scale it changes.

use super::error::{BanditError, finite, positive};
use super::quadrature::{RULE, Values};

/// Densities below this share of their peak are taken as nothing: e^-46 is 1e-20.
const LN_NEGLIGIBLE: f64 = -46.0;

/// Where panels end, in spreads from the peak; doubled from there on.
const STEPS: [f64; 7] = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0];

/// Doublings of the outermost step, after which even a heavy tail is cut off.
const DOUBLINGS_MAX: u32 = 24;

/// Halvings that narrow a panel down to neighbouring floats.
const HALVINGS: u32 = 60;

/// A distribution of an arm's mean reward.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Belief {
    /// About a rate: Beta(a, b).
    Beta {
        /// Prior and observed successes, above 0.
        a: f64,
        /// Prior and observed failures, above 0.
        b: f64,
    },
    /// About a mean whose noise is known.
    Normal {
        /// The middle.
        mean: f64,
        /// Standard deviation, above 0.
        deviation: f64,
    },
    /// About a mean whose noise was estimated: Student's t, moved and scaled.
    Student {
        /// The middle.
        location: f64,
        /// Scale, above 0; not the standard deviation.
        scale: f64,
        /// Degrees of freedom, 2 or more.
        degrees: f64,
    },
}

/// The scale on which a density is smooth. A rate is seen as its log-odds: there
/// even Beta(1/2, 1/2), infinite at both ends, is a bell with exponential tails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Log-odds of a rate.
    Logit,
    /// The mean itself.
    Identity,
}

/// A place on a scale, and all that densities need to know about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The mean reward.
    pub value: f64,
    /// How fast the mean reward changes along the scale.
    pub slope: f64,
    ln_value: f64,
    ln_rest: f64,
}

impl Scale {
    pub(crate) fn place(self, at: f64) -> Place {
        match self {
            Self::Identity => Place { value: at, slope: 1.0, ln_value: 0.0, ln_rest: 0.0 },
            Self::Logit => {
                let common = (-at.abs()).exp().ln_1p();
                let (ln_value, ln_rest) = (at.min(0.0) - common, -at.max(0.0) - common);
                Place { value: ln_value.exp(), slope: (ln_value + ln_rest).exp(), ln_value, ln_rest }
            }
        }
    }

    fn of_value(self, value: f64) -> f64 {
        match self {
            Self::Identity => value,
            Self::Logit => value.ln() - (-value).ln_1p(),
        }
    }
}

impl Belief {
    /// About a rate, of `a` successes and `b` failures (fractions are fine).
    pub fn beta(a: f64, b: f64) -> Result<Self, BanditError> {
        let a = positive("the successes of a beta distribution", a)?;
        let b = positive("the failures of a beta distribution", b)?;
        Ok(Self::Beta { a, b })
    }

    /// About a mean.
    pub fn normal(mean: f64, deviation: f64) -> Result<Self, BanditError> {
        let mean = finite("the mean of a normal distribution", mean)?;
        let deviation = positive("the deviation of a normal distribution", deviation)?;
        Ok(Self::Normal { mean, deviation })
    }

    /// About a mean, with the tails of an estimated noise. Below 2 degrees of
    /// freedom the expected loss would hang on the far tail alone.
    pub fn student(location: f64, scale: f64, degrees: f64) -> Result<Self, BanditError> {
        let location = finite("the location of a t distribution", location)?;
        let scale = positive("the scale of a t distribution", scale)?;
        if !(degrees.is_finite() && degrees >= 2.0) {
            return Err(BanditError::OutOfRange {
                what: "the degrees of freedom of a t distribution",
                got: degrees,
                expected: "2 or more",
            });
        }
        Ok(Self::Student { location, scale, degrees })
    }

    /// The expected mean reward.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match *self {
            Self::Beta { a, b } => a / (a + b),
            Self::Normal { mean, .. } => mean,
            Self::Student { location, .. } => location,
        }
    }

    /// How far the mean reward may be from [`mean`](Self::mean): one standard
    /// deviation; infinite for two degrees of freedom.
    #[must_use]
    pub fn deviation(&self) -> f64 {
        match *self {
            Self::Beta { a, b } => (a / (a + b) * (b / (a + b)) / (a + b + 1.0)).sqrt(),
            Self::Normal { deviation, .. } => deviation,
            Self::Student { scale, degrees, .. } => scale * (degrees / (degrees - 2.0)).sqrt(),
        }
    }

    /// The probability that the mean reward is `value` or less.
    #[must_use]
    pub fn cdf(&self, value: f64) -> f64 {
        let at = self.scale().of_value(value.clamp(self.least(), self.most()));
        let (points, density) = (self.points(), self.density());
        let below: f64 = panels(&points)
            .take_while(|(low, _)| *low < at)
            .map(|(low, high)| density.mass(low, high.min(at)))
            .sum();
        (below / self.whole(&points)).clamp(0.0, 1.0)
    }

    /// The value that the mean reward stays below with this probability, which must
    /// lie strictly between 0 and 1.
    pub fn quantile(&self, probability: f64) -> Result<f64, BanditError> {
        if !(probability > 0.0 && probability < 1.0) {
            return Err(BanditError::OutOfRange {
                what: "the probability of a quantile",
                got: probability,
                expected: "between 0 and 1",
            });
        }
        let (points, density) = (self.points(), self.density());
        let mut wanted = probability * self.whole(&points);
        let (mut low, mut high) = (points[0], points[points.len() - 1]);
        for (start, end) in panels(&points) {
            let mass = density.mass(start, end);
            if wanted <= mass {
                (low, high) = (start, end);
                break;
            }
            wanted -= mass;
        }
        let start = low;
        for _ in 0..HALVINGS {
            let middle = low + (high - low) / 2.0;
            if density.mass(start, middle) < wanted {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(self.scale().place(low + (high - low) / 2.0).value)
    }

    pub(crate) fn scale(&self) -> Scale {
        match self {
            Self::Beta { .. } => Scale::Logit,
            Self::Normal { .. } | Self::Student { .. } => Scale::Identity,
        }
    }

    /// The density along the scale.
    pub(crate) fn density(&self) -> Density {
        let peak = match *self {
            Self::Beta { a, b } => {
                let ln_both = (a + b).ln();
                (a.ln() - ln_both, b.ln() - ln_both)
            }
            Self::Normal { .. } | Self::Student { .. } => (0.0, 0.0),
        };
        Density { belief: *self, peak }
    }

    /// Where along the scale the density changes, in order, from where it begins
    /// to matter to where it no longer does.
    pub(crate) fn points(&self) -> Vec<f64> {
        let density = self.density();
        let (peak, spread) = (self.peak(), self.spread());
        let far = STEPS[STEPS.len() - 1];
        let steps = STEPS.into_iter().chain((1..=DOUBLINGS_MAX).map(|n| far * 2f64.powi(n as i32)));
        let mut points = vec![peak];
        for side in [-1.0, 1.0] {
            for step in steps.clone() {
                let at = peak + side * step * spread;
                points.push(at);
                if density.ln_at(&self.scale().place(at)) < LN_NEGLIGIBLE {
                    break;
                }
            }
        }
        points.sort_by(f64::total_cmp);
        points
    }

    /// The integral of [`density`](Self::density) over everything.
    pub(crate) fn whole(&self, points: &[f64]) -> f64 {
        let density = self.density();
        panels(points).map(|(low, high)| density.mass(low, high)).sum()
    }

    fn peak(&self) -> f64 {
        match *self {
            Self::Beta { a, b } => a.ln() - b.ln(),
            Self::Normal { mean, .. } => mean,
            Self::Student { location, .. } => location,
        }
    }

    /// The width of the peak along the scale.
    pub(crate) fn spread(&self) -> f64 {
        match *self {
            Self::Beta { a, b } => (1.0 / a + 1.0 / b).sqrt(),
            Self::Normal { deviation, .. } => deviation,
            Self::Student { scale, .. } => scale,
        }
    }

    fn least(&self) -> f64 {
        if self.scale() == Scale::Logit { 0.0 } else { f64::NEG_INFINITY }
    }

    fn most(&self) -> f64 {
        if self.scale() == Scale::Logit { 1.0 } else { f64::INFINITY }
    }
}

/// The density of a belief along its scale, as a share of its peak.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Density {
    belief: Belief,
    /// Logarithms of the most likely rate and of what it leaves.
    peak: (f64, f64),
}

impl Density {
    pub(crate) fn at(&self, place: &Place) -> f64 {
        self.ln_at(place).exp()
    }

    fn ln_at(&self, place: &Place) -> f64 {
        match self.belief {
            // With the factor that the change of scale brings, the exponents are a
            // and b rather than a - 1 and b - 1.
            Belief::Beta { a, b } => a * (place.ln_value - self.peak.0) + b * (place.ln_rest - self.peak.1),
            Belief::Normal { mean, deviation } => {
                let z = (place.value - mean) / deviation;
                -z * z / 2.0
            }
            Belief::Student { location, scale, degrees } => {
                let z = (place.value - location) / scale;
                -(degrees + 1.0) / 2.0 * (z * z / degrees).ln_1p()
            }
        }
    }

    fn mass(&self, low: f64, high: f64) -> f64 {
        let scale = self.belief.scale();
        let values: Values = RULE.nodes(low, high).map(|at| self.at(&scale.place(at)));
        RULE.integral(high - low, &values)
    }
}

/// Neighbouring points, as the ends of panels.
pub(crate) fn panels(points: &[f64]) -> impl Iterator<Item = (f64, f64)> {
    points.windows(2).map(|ends| (ends[0], ends[1]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use statrs::distribution::{Beta, ContinuousCDF, Normal, StudentsT};

    use super::*;

    #[test]
    fn distribution_functions_agree_with_another_implementation() {
        for (a, b) in [(0.5, 0.5), (1.0, 1.0), (0.1, 30.0), (400.0, 3.0), (2_000.0, 1_000.0)] {
            let (belief, other) = (Belief::beta(a, b).unwrap(), Beta::new(a, b).unwrap());
            for value in [0.0, 1e-9, 0.01, 0.3, 0.65, 0.67, 0.99, 1.0] {
                assert!((belief.cdf(value) - other.cdf(value)).abs() < 1e-10, "{a} {b} {value}");
            }
        }
        for degrees in [2.0, 3.5, 52.0] {
            let belief = Belief::student(1.0, 0.5, degrees).unwrap();
            let other = StudentsT::new(1.0, 0.5, degrees).unwrap();
            for value in [-40.0, -1.0, 0.9, 1.0, 2.5, 1e3] {
                assert!((belief.cdf(value) - other.cdf(value)).abs() < 1e-10, "{degrees} {value}");
            }
        }
        let (belief, other) = (Belief::normal(3.0, 2.0).unwrap(), Normal::new(3.0, 2.0).unwrap());
        for value in [f64::NEG_INFINITY, -5.0, 2.0, 3.0, 9.0, f64::INFINITY] {
            assert!((belief.cdf(value) - other.cdf(value)).abs() < 1e-10, "{value}");
        }
    }

    #[test]
    fn quantiles_are_where_the_distribution_function_says() {
        for belief in [
            Belief::beta(0.5, 3.5).unwrap(),
            Belief::beta(600_000.0, 400_000.0).unwrap(),
            Belief::normal(-1e6, 1e-3).unwrap(),
            Belief::student(0.0, 1.0, 2.0).unwrap(),
        ] {
            for probability in [1e-6, 0.025, 0.5, 0.975, 0.999] {
                let value = belief.quantile(probability).unwrap();
                assert!((belief.cdf(value) - probability).abs() < 1e-6, "{belief:?} {probability}");
            }
        }
        assert!(Belief::beta(1.0, 1.0).unwrap().quantile(0.0).is_err());
    }

    #[test]
    fn impossible_beliefs_are_refused() {
        assert!(Belief::beta(0.0, 1.0).is_err() && Belief::beta(1.0, f64::NAN).is_err());
        assert!(Belief::normal(0.0, 0.0).is_err() && Belief::normal(f64::INFINITY, 1.0).is_err());
        assert!(Belief::student(0.0, 1.0, 1.0).is_err());
    }
}
