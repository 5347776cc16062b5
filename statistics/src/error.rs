//! Why numbers were refused: each error says which number, what came, and what would do.

use thiserror::Error;

/// An input from which nothing can be concluded.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum InferenceError {
    /// A level or a probability outside of its open or closed unit interval.
    #[error("{what} is {got}, but must lie between 0 and 1")]
    NotBetweenZeroAndOne {
        /// Which number.
        what: &'static str,
        /// What came.
        got: f64,
    },
    /// A scale, a variance or a tuning number that is zero, negative or not a number.
    #[error("{what} is {got}, but must be a finite number above 0")]
    NotPositive {
        /// Which number.
        what: &'static str,
        /// What came.
        got: f64,
    },
    /// Not a number, or infinite.
    #[error("{what} is {got}, but must be a finite number")]
    NotFinite {
        /// Which number.
        what: &'static str,
        /// What came.
        got: f64,
    },
    /// Outside of the range that was declared for it.
    #[error("{what} is {got}, but must lie in {lower} to {upper}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// What came.
        got: f64,
        /// Smallest value that is accepted.
        lower: f64,
        /// Largest value that is accepted.
        upper: f64,
    },
    /// Too little has been seen for this method.
    #[error("{what}: {have} are too few, {need} are needed")]
    TooFew {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        have: u64,
        /// How many there must be.
        need: u64,
    },
    /// Everything seen so far is equal, so no spread can be estimated from it.
    #[error("{what} shows no variation yet, so its spread cannot be estimated: wait for more samples")]
    NoVariation {
        /// What does not vary.
        what: &'static str,
    },
    /// Two lists that belong together differ in length.
    #[error("{what} has {got} entries, but {expected} are expected")]
    WrongLength {
        /// Which list.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The length that fits.
        expected: usize,
    },
    /// A sum left the range of its integer.
    #[error("the sum of {what} does not fit its integer: count fewer or smaller values")]
    Overflow {
        /// Which sum.
        what: &'static str,
    },
    /// More was taken out of a sum than had been put in.
    #[error("cannot take {taken} observations out of {have}: they were never counted here")]
    TakenTwice {
        /// How many are in the sum.
        have: u64,
        /// How many should go.
        taken: u64,
    },
    /// Bytes that no sum was written as.
    #[error("{got} bytes are not written sums: {expected}")]
    NotSums {
        /// How many bytes came.
        got: usize,
        /// What was expected of them.
        expected: &'static str,
    },
}

/// Passes a finite number on.
pub(crate) fn finite(what: &'static str, got: f64) -> Result<f64, InferenceError> {
    if got.is_finite() { Ok(got) } else { Err(InferenceError::NotFinite { what, got }) }
}

/// Passes a finite number above 0 on.
pub(crate) fn positive(what: &'static str, got: f64) -> Result<f64, InferenceError> {
    if got.is_finite() && got > 0.0 { Ok(got) } else { Err(InferenceError::NotPositive { what, got }) }
}
