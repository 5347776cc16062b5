//! The numbers that inference is about, as types that cannot hold nonsense.

use std::fmt;

use crate::error::{InferenceError, finite};

/// How often a method may be wrong, in (0, 1): the chance that an interval ever
/// misses the truth, or that a test ever raises a false alarm.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Alpha(f64);

impl Alpha {
    /// 5 %, the field's habit.
    pub const FIVE_PERCENT: Self = Self(0.05);
    /// 0.1 %, the habit for sample-ratio checks, which stop an experiment.
    pub const ONE_IN_A_THOUSAND: Self = Self(0.001);

    /// Accepts a level strictly between 0 and 1.
    pub fn new(level: f64) -> Result<Self, InferenceError> {
        if level > 0.0 && level < 1.0 {
            Ok(Self(level))
        } else {
            Err(InferenceError::NotBetweenZeroAndOne { what: "alpha", got: level })
        }
    }

    /// The level as a number.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }

    /// A part of this level, for a union bound. Shares of one level must sum to 1
    /// at most. A share of 0 or less is taken as the smallest level there is.
    #[must_use]
    pub fn share(self, share: f64) -> Self {
        Self((self.0 * share).clamp(f64::MIN_POSITIVE, self.0))
    }

    /// ln(1 / alpha): the evidence that a supermartingale must show.
    #[must_use]
    pub fn log_threshold(self) -> f64 {
        -self.0.ln()
    }
}

impl fmt::Display for Alpha {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A probability or a rate, in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Probability(f64);

impl Probability {
    /// Accepts a number from 0 to 1, both included.
    pub fn new(probability: f64) -> Result<Self, InferenceError> {
        if (0.0..=1.0).contains(&probability) {
            Ok(Self(probability))
        } else {
            Err(InferenceError::NotBetweenZeroAndOne { what: "probability", got: probability })
        }
    }

    /// From parts per million; more than the whole counts as the whole.
    #[must_use]
    pub fn from_parts_per_million(parts: u32) -> Self {
        Self(f64::from(parts.min(1_000_000)) / 1e6)
    }

    /// The probability as a number.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Probability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The values that are still believable. Either end may be infinite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    lower: f64,
    upper: f64,
}

impl Interval {
    /// Everything: what is known before the first sample.
    pub const UNKNOWN: Self = Self { lower: f64::NEG_INFINITY, upper: f64::INFINITY };

    /// Accepts ends in order, neither of them NaN.
    pub fn new(lower: f64, upper: f64) -> Result<Self, InferenceError> {
        if lower <= upper {
            return Ok(Self { lower, upper });
        }
        Err(InferenceError::OutOfRange {
            what: "the lower end of an interval",
            got: lower,
            lower: f64::NEG_INFINITY,
            upper,
        })
    }

    /// `centre` minus and plus `half_width`, which must not be negative.
    pub fn around(centre: f64, half_width: f64) -> Result<Self, InferenceError> {
        finite("the centre of an interval", centre)?;
        Self::new(centre - half_width, centre + half_width)
    }

    /// The smallest believable value.
    #[must_use]
    pub fn lower(&self) -> f64 {
        self.lower
    }

    /// The largest believable value.
    #[must_use]
    pub fn upper(&self) -> f64 {
        self.upper
    }

    /// Whether the value is still believable.
    #[must_use]
    pub fn contains(&self, value: f64) -> bool {
        self.lower <= value && value <= self.upper
    }

    /// The same statement about the negated quantity.
    #[must_use]
    pub fn negated(&self) -> Self {
        Self { lower: -self.upper, upper: -self.lower }
    }

    /// What both believe. Of one confidence sequence, the intersection over all
    /// looks is as valid as each look; `None` means that the two contradict each
    /// other, which happens with the sequence's alpha at most if its assumptions hold.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let lower = self.lower.max(other.lower);
        let upper = self.upper.min(other.upper);
        (lower <= upper).then_some(Self { lower, upper })
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.6} to {:.6}", self.lower, self.upper)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn levels_outside_of_zero_to_one_are_refused() {
        for level in [0.0, 1.0, -0.1, 1.5, f64::NAN, f64::INFINITY] {
            assert!(Alpha::new(level).is_err(), "{level}");
        }
        assert!(Probability::new(0.0).is_ok() && Probability::new(1.0).is_ok());
        assert!(Probability::new(1.000_001).is_err() && Probability::new(f64::NAN).is_err());
        assert_eq!(Alpha::new(2.0).unwrap_err().to_string(), "alpha is 2, but must lie between 0 and 1");
    }

    #[test]
    fn intervals_keep_their_ends_in_order_and_meet_or_do_not() {
        assert!(Interval::new(1.0, 0.0).is_err());
        assert!(Interval::new(f64::NAN, 0.0).is_err());
        let wide = Interval::new(0.0, 4.0).unwrap();
        let other = Interval::new(3.0, 9.0).unwrap();
        assert_eq!(wide.intersection(&other), Some(Interval::new(3.0, 4.0).unwrap()));
        assert_eq!(wide.intersection(&Interval::new(5.0, 6.0).unwrap()), None);
        assert_eq!(wide.negated(), Interval::new(-4.0, 0.0).unwrap());
    }
}
