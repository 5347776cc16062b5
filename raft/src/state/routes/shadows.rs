//! Shadows: versions that get copies of requests, whose answers nobody waits for.

use serde::Serialize;

use super::super::{Ordinal, PartsPerMillion};
use super::rules::Condition;

/// Shadows of one route.
pub const SHADOWS_MAX: usize = 8;
/// Outputs of one shadow that are compared in a way of their own.
pub const COMPARED_OUTPUTS_MAX: usize = 64;

/// How an output of the shadow is held against the live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Agreement {
    /// The same bytes.
    Exact,
    /// Each number as near as this: absolute, or relative to the live one.
    Tolerance {
        /// In units of 10⁻⁹.
        absolute_nano: u64,
        /// In units of 10⁻⁹ of the live number.
        relative_nano: u64,
    },
    /// The same place has the greatest number in each row.
    TopOne,
    /// Rows are distributions, and their total variation distance is this at most.
    Distance {
        /// In parts per million.
        max: PartsPerMillion,
    },
}

/// What counts as agreement of two answers: every output agrees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// By output name, in order of name.
    pub outputs: Vec<(String, Agreement)>,
    /// Of all others.
    pub others: Agreement,
}

/// A version that gets copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shadow<V = Ordinal> {
    /// Who gets them. A version may stand here once.
    pub version: V,
    /// Of the requests that `when` picks, by hash of the decision.
    pub portion: PartsPerMillion,
    /// All must hold; none: every request.
    pub when: Vec<Condition>,
    /// What counts as agreement.
    pub comparison: Comparison,
}

impl<V> Shadow<V> {
    /// The same for a version that is known by something else.
    pub fn for_version<W>(&self, version: W) -> Shadow<W> {
        Shadow {
            version,
            portion: self.portion,
            when: self.when.clone(),
            comparison: self.comparison.clone(),
        }
    }
}
