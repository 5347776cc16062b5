//! Count, sum and sum of squares of one cell, exactly.

use super::fixed::Fixed;
use crate::error::InferenceError;

/// What n observations leave behind for estimating their mean and spread.
///
/// Additions of integers commute and associate, so whichever node counted what
/// and whoever merged first, the same observations give equal `Moments` and
/// equal [bytes](Self::to_bytes). They can also be taken back, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Moments {
    count: u64,
    /// Units of 2⁻²⁴.
    sum: i128,
    /// Units of 2⁻⁴⁸; never negative.
    squares: i128,
}

impl Moments {
    /// Length of [`to_bytes`](Self::to_bytes).
    pub const BYTES: usize = 40;

    /// Puts together sums that were kept elsewhere: `sum` in units of 2⁻²⁴,
    /// `squares` in units of 2⁻⁴⁸. Refuses sums that no observations have.
    pub fn from_parts(count: u64, sum: i128, squares: i128) -> Result<Self, InferenceError> {
        let empty_but_for_sums = count == 0 && (sum != 0 || squares != 0);
        if squares < 0 || empty_but_for_sums {
            return Err(InferenceError::NotSums {
                got: Self::BYTES,
                expected: "squares are not negative, and sums of nothing are 0",
            });
        }
        Ok(Self { count, sum, squares })
    }

    /// Of `successes` ones among `count` observations of 0 or 1.
    pub fn of_successes(successes: u64, count: u64) -> Result<Self, InferenceError> {
        if successes > count {
            return Err(InferenceError::OutOfRange {
                what: "the number of successes",
                got: successes as f64,
                lower: 0.0,
                upper: count as f64,
            });
        }
        let one = i128::from(Fixed::UNITS_PER_ONE);
        let successes = i128::from(successes);
        Ok(Self { count, sum: successes * one, squares: successes * one * one })
    }

    /// Counts one more observation.
    pub fn observe(&mut self, value: Fixed) -> Result<(), InferenceError> {
        let units = i128::from(value.units());
        self.merge(&Self { count: 1, sum: units, squares: units * units })
    }

    /// Adds what was counted elsewhere; unchanged on error.
    pub fn merge(&mut self, other: &Self) -> Result<(), InferenceError> {
        let overflow = || InferenceError::Overflow { what: "a metric" };
        let count = self.count.checked_add(other.count).ok_or_else(overflow)?;
        let sum = self.sum.checked_add(other.sum).ok_or_else(overflow)?;
        let squares = self.squares.checked_add(other.squares).ok_or_else(overflow)?;
        *self = Self { count, sum, squares };
        Ok(())
    }

    /// Takes out what was counted before, so that it was never there; unchanged on error.
    pub fn take_back(&mut self, other: &Self) -> Result<(), InferenceError> {
        let refused = || InferenceError::TakenTwice { have: self.count, taken: other.count };
        let count = self.count.checked_sub(other.count).ok_or_else(refused)?;
        let sum = self.sum.checked_sub(other.sum).ok_or_else(refused)?;
        let squares = self.squares.checked_sub(other.squares).ok_or_else(refused)?;
        *self = Self::from_parts(count, sum, squares).map_err(|_| refused())?;
        Ok(())
    }

    /// How many observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum in units of 2⁻²⁴.
    #[must_use]
    pub fn sum_units(&self) -> i128 {
        self.sum
    }

    /// The sum of squares in units of 2⁻⁴⁸.
    #[must_use]
    pub fn squares_units(&self) -> i128 {
        self.squares
    }

    /// The sum as a number.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum as f64 / Fixed::UNITS_PER_ONE as f64
    }

    /// The mean; `None` of nothing.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum() / self.count as f64)
    }

    /// The unbiased variance (n - 1 in the denominator); `None` below two observations.
    ///
    /// The sum of squares around the mean is taken in integers first, so a small
    /// spread around a large mean is not lost to rounding.
    #[must_use]
    pub fn variance(&self) -> Option<f64> {
        if self.count < 2 {
            return None;
        }
        let count = i128::from(self.count);
        let centre = self.sum.div_euclid(count);
        let remainder = self.sum.rem_euclid(count) as f64;
        // The result fits; what wraps on the way wraps back.
        let around_centre = self
            .squares
            .wrapping_sub(centre.wrapping_mul(self.sum).wrapping_mul(2))
            .wrapping_add(count.wrapping_mul(centre).wrapping_mul(centre));
        let unit = 1.0 / Fixed::UNITS_PER_ONE as f64;
        let n = self.count as f64;
        let around_mean = around_centre as f64 - remainder * (remainder / n);
        Some((around_mean * unit * unit / (n - 1.0)).max(0.0))
    }

    /// The three integers in little-endian order: equal sums, equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.count.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.sum.to_le_bytes());
        bytes[24..].copy_from_slice(&self.squares.to_le_bytes());
        bytes
    }

    /// Reads [`to_bytes`](Self::to_bytes).
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Self, InferenceError> {
        let mut count = [0; 8];
        let mut sum = [0; 16];
        let mut squares = [0; 16];
        count.copy_from_slice(&bytes[..8]);
        sum.copy_from_slice(&bytes[8..24]);
        squares.copy_from_slice(&bytes[24..]);
        Self::from_parts(u64::from_le_bytes(count), i128::from_le_bytes(sum), i128::from_le_bytes(squares))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn of(values: &[f64]) -> Moments {
        let mut moments = Moments::default();
        for value in values {
            moments.observe(Fixed::from_f64(*value).unwrap()).unwrap();
        }
        moments
    }

    #[test]
    fn mean_and_variance_of_a_handful_of_numbers() {
        let moments = of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert_eq!((moments.count(), moments.sum()), (8, 40.0));
        assert_eq!(moments.mean(), Some(5.0));
        assert!((moments.variance().unwrap() - 32.0 / 7.0).abs() < 1e-14);
        assert_eq!(of(&[]).mean(), None);
        assert_eq!(of(&[3.0]).variance(), None);
    }

    #[test]
    fn a_small_spread_around_a_large_mean_survives() {
        let moments = of(&[1e7, 1e7 + 0.5, 1e7 + 1.0]);
        assert_eq!(moments.variance(), Some(0.25));
    }

    #[test]
    fn successes_are_ones() {
        let mut counted = Moments::default();
        for success in [true, false, true] {
            counted.observe(Fixed::from_bool(success)).unwrap();
        }
        assert_eq!(counted, Moments::of_successes(2, 3).unwrap());
        assert!(Moments::of_successes(4, 3).is_err());
    }

    #[test]
    fn what_was_merged_can_be_taken_back_once() {
        let morning = of(&[1.0, 2.0]);
        let poisoned = of(&[1000.0, -3.5, 7.0]);
        let mut all = morning;
        all.merge(&poisoned).unwrap();
        all.take_back(&poisoned).unwrap();
        assert_eq!(all, morning);
        assert_eq!(
            all.take_back(&poisoned).unwrap_err().to_string(),
            "cannot take 3 observations out of 2: they were never counted here"
        );
        assert_eq!(all, morning);
    }

    #[test]
    fn bytes_come_back_and_nonsense_is_refused() {
        let moments = of(&[-1.25, 3.0]);
        assert_eq!(Moments::from_bytes(&moments.to_bytes()).unwrap(), moments);
        assert!(Moments::from_bytes(&[0xff; 40]).is_err());
    }

    #[test]
    fn a_sum_that_would_not_fit_is_refused_and_changes_nothing() {
        let mut moments = Moments::from_parts(1, 0, i128::MAX).unwrap();
        let before = moments;
        assert!(matches!(moments.observe(Fixed::ONE), Err(InferenceError::Overflow { .. })));
        assert_eq!(moments, before);
    }
}
