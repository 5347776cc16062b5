//! Why a bandit publishes nothing: each error says which number, and what would do.

use thiserror::Error;

use super::ArmId;
use crate::apportion::ApportionError;
use crate::error::InferenceError;

/// A policy or sums from which no probabilities follow.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum BanditError {
    /// A number outside of its range.
    #[error("{what} is {got}, but must be {expected}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// What came.
        got: f64,
        /// What would do.
        expected: &'static str,
    },
    /// Floors that are more than the whole.
    #[error("a floor of {floor} for each of {arms} arms is more than the whole: lower it to {fits} or less")]
    FloorTooHigh {
        /// The share each arm should have at least.
        floor: f64,
        /// How many arms take part.
        arms: usize,
        /// The highest floor that fits.
        fits: f64,
    },
    /// Ceilings that are less than the whole.
    #[error(
        "a ceiling of {ceiling} for each of {arms} arms is less than the whole: raise it to {fits} or more"
    )]
    CeilingTooLow {
        /// The share each arm should have at most.
        ceiling: f64,
        /// How many arms take part.
        arms: usize,
        /// The lowest ceiling that fits.
        fits: f64,
    },
    /// Every arm is quarantined, or there is none.
    #[error("no arm may get traffic: let at least one take part")]
    NoArms,
    /// More arms than one bandit compares.
    #[error("{got} arms are too many for one bandit: {limit} at most")]
    TooManyArms {
        /// How many came.
        got: usize,
        /// How many would do.
        limit: usize,
    },
    /// Rewards of an arm that its model cannot have produced.
    #[error("the rewards of {arm} sum to {sum} over {count}: success or failure lies in 0 to 1")]
    NotSuccesses {
        /// Whose.
        arm: ArmId,
        /// The (discounted) sum.
        sum: f64,
        /// The (discounted) number.
        count: f64,
    },
    /// Beliefs about shares and beliefs about unbounded means.
    #[error("beliefs about rates and about means cannot be compared: use one model for all arms")]
    MixedBeliefs,
    /// Sums that do not add up.
    #[error(transparent)]
    Sums(#[from] InferenceError),
    /// Probabilities that could not be made parts per million.
    #[error(transparent)]
    Apportion(#[from] ApportionError),
}

/// Passes a finite number above 0 on.
pub(crate) fn positive(what: &'static str, got: f64) -> Result<f64, BanditError> {
    if got.is_finite() && got > 0.0 {
        return Ok(got);
    }
    Err(BanditError::OutOfRange { what, got, expected: "a finite number above 0" })
}

/// Passes a finite number on.
pub(crate) fn finite(what: &'static str, got: f64) -> Result<f64, BanditError> {
    if got.is_finite() {
        return Ok(got);
    }
    Err(BanditError::OutOfRange { what, got, expected: "a finite number" })
}

/// Passes a number from 0 to 1 on, both included.
pub(crate) fn share(what: &'static str, got: f64) -> Result<f64, BanditError> {
    if (0.0..=1.0).contains(&got) {
        return Ok(got);
    }
    Err(BanditError::OutOfRange { what, got, expected: "between 0 and 1" })
}
