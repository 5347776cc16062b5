//! One observation as a whole number of small units: floating-point sums depend on
//! their order, these do not.

use std::fmt;

use crate::error::InferenceError;

/// A value in units of 2⁻²⁴ (about 6e-8), from -2²⁴ to 2²⁴ (about 16.7 million).
///
/// The range is such that the squares of two thousand million observations fit
/// the 128 bits of their sum even if each is the largest there is. Larger metrics
/// are given in larger units (thousands, seconds instead of milliseconds).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fixed(i64);

impl Fixed {
    /// How many units make 1.
    pub const UNITS_PER_ONE: i64 = 1 << 24;
    /// The largest magnitude that is accepted.
    pub const MAGNITUDE_MAX: f64 = 16_777_216.0;
    /// Nothing: a failure, no click.
    pub const ZERO: Self = Self(0);
    /// One: a success, a click.
    pub const ONE: Self = Self(Self::UNITS_PER_ONE);

    /// Rounds to the nearest unit, ties to even. Refuses NaN, infinities and what
    /// is out of range. Scaling by a power of two is exact, so every platform
    /// rounds the same value to the same units.
    pub fn from_f64(value: f64) -> Result<Self, InferenceError> {
        if !value.is_finite() {
            return Err(InferenceError::NotFinite { what: "an observation", got: value });
        }
        if value.abs() > Self::MAGNITUDE_MAX {
            return Err(InferenceError::OutOfRange {
                what: "an observation",
                got: value,
                lower: -Self::MAGNITUDE_MAX,
                upper: Self::MAGNITUDE_MAX,
            });
        }
        let units = (value * Self::UNITS_PER_ONE as f64).round_ties_even();
        Ok(Self(units as i64))
    }

    /// Takes units as they were written by [`units`](Self::units); refuses what is
    /// out of range.
    pub fn from_units(units: i64) -> Result<Self, InferenceError> {
        let value = Self(units);
        if value.to_f64().abs() > Self::MAGNITUDE_MAX {
            return Err(InferenceError::OutOfRange {
                what: "an observation",
                got: value.to_f64(),
                lower: -Self::MAGNITUDE_MAX,
                upper: Self::MAGNITUDE_MAX,
            });
        }
        Ok(value)
    }

    /// 1 for true, 0 for false.
    #[must_use]
    pub const fn from_bool(success: bool) -> Self {
        if success { Self::ONE } else { Self::ZERO }
    }

    /// The whole number of units.
    #[must_use]
    pub const fn units(self) -> i64 {
        self.0
    }

    /// The value, exactly: 49 bits fit the mantissa.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / Self::UNITS_PER_ONE as f64
    }
}

impl fmt::Display for Fixed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_f64().fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn values_round_to_the_nearest_unit_and_ties_to_even() {
        let unit = 1.0 / 16_777_216.0;
        assert_eq!(Fixed::from_f64(1.0).unwrap(), Fixed::ONE);
        assert_eq!(Fixed::from_f64(-0.5).unwrap().units(), -(1 << 23));
        assert_eq!(Fixed::from_f64(0.5 * unit).unwrap().units(), 0);
        assert_eq!(Fixed::from_f64(1.5 * unit).unwrap().units(), 2);
        assert_eq!(Fixed::from_f64(0.1).unwrap().units(), 1_677_722);
    }

    #[test]
    fn what_is_no_number_or_out_of_range_is_refused_with_the_reason() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(matches!(Fixed::from_f64(value), Err(InferenceError::NotFinite { .. })));
        }
        assert!(Fixed::from_f64(16_777_216.0).is_ok());
        assert_eq!(
            Fixed::from_f64(2e7).unwrap_err().to_string(),
            "an observation is 20000000, but must lie in -16777216 to 16777216"
        );
        assert!(Fixed::from_units(i64::MAX).is_err());
        assert!(Fixed::from_units(1 << 48).is_ok());
    }
}
