//! One arm's sums of one metric, by stratum and cluster.
//!
//! A stratum is the time during which the weights did not change (epochs with
//! equal weights share one), so that a ramp is never pooled. A cluster is the
//! unit's hash modulo 256: all that one unit ever sent is in one cluster, so the
//! spread between clusters is honest however many requests a unit sends.

use std::collections::BTreeMap;

use super::moments::Moments;
use crate::error::InferenceError;
use crate::sums::Fixed;

/// How many clusters units are hashed into: a cluster is a `u8`.
pub const CLUSTERS: usize = 256;

/// Names a stretch of the experiment in which the weights did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stratum(pub u64);

/// The sums of one metric of one arm. Empty cells are not kept, so equal sums are
/// equal values and equal [bytes](Self::to_bytes).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArmSums {
    cells: BTreeMap<(Stratum, u8), Moments>,
}

impl ArmSums {
    /// Counts one more observation of a unit in `cluster`.
    pub fn observe(&mut self, stratum: Stratum, cluster: u8, value: Fixed) -> Result<(), InferenceError> {
        let mut one = Moments::default();
        one.observe(value)?;
        self.add(stratum, cluster, &one)
    }

    /// Adds sums of one cell that were counted elsewhere; unchanged on error.
    pub fn add(&mut self, stratum: Stratum, cluster: u8, sums: &Moments) -> Result<(), InferenceError> {
        if sums.count() == 0 {
            return Ok(());
        }
        self.cells.entry((stratum, cluster)).or_default().merge(sums)
    }

    /// Adds all that was counted elsewhere. On error some cells may have been
    /// added: throw the sums away.
    pub fn merge(&mut self, other: &Self) -> Result<(), InferenceError> {
        for ((stratum, cluster), sums) in &other.cells {
            self.add(*stratum, *cluster, sums)?;
        }
        Ok(())
    }

    /// Takes out what was counted before, such as a poisoned hour. Refuses, before
    /// anything is changed, what was never counted.
    pub fn take_back(&mut self, other: &Self) -> Result<(), InferenceError> {
        let mut left = self.clone();
        for (cell, sums) in &other.cells {
            let kept = left.cells.entry(*cell).or_default();
            kept.take_back(sums)?;
            if kept.count() == 0 {
                left.cells.remove(cell);
            }
        }
        *self = left;
        Ok(())
    }

    /// The cells that hold something, in order.
    pub fn cells(&self) -> impl Iterator<Item = (Stratum, u8, &Moments)> {
        self.cells.iter().map(|((stratum, cluster), sums)| (*stratum, *cluster, sums))
    }

    /// The sums over all clusters of each stratum.
    pub fn strata(&self) -> Result<BTreeMap<Stratum, Moments>, InferenceError> {
        let mut strata: BTreeMap<Stratum, Moments> = BTreeMap::new();
        for ((stratum, _), sums) in &self.cells {
            strata.entry(*stratum).or_default().merge(sums)?;
        }
        Ok(strata)
    }

    /// The sums over everything. Of an experiment whose weights changed, they are
    /// for counting only: compare arms by [`stratified_effect`](super::stratified_effect).
    pub fn total(&self) -> Result<Moments, InferenceError> {
        let mut total = Moments::default();
        for sums in self.cells.values() {
            total.merge(sums)?;
        }
        Ok(total)
    }

    /// The cells in order, each as stratum, cluster and sums in little-endian order.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.cells.len() * Self::BYTES_PER_CELL);
        for ((stratum, cluster), sums) in &self.cells {
            bytes.extend_from_slice(&stratum.0.to_le_bytes());
            bytes.push(*cluster);
            bytes.extend_from_slice(&sums.to_bytes());
        }
        bytes
    }

    /// Reads [`to_bytes`](Self::to_bytes).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InferenceError> {
        let malformed = || InferenceError::NotSums {
            got: bytes.len(),
            expected: "cells of 49 bytes each, none of them empty or named twice",
        };
        let (cells, rest) = bytes.as_chunks::<{ Self::BYTES_PER_CELL }>();
        if !rest.is_empty() {
            return Err(malformed());
        }
        let mut sums = Self::default();
        for cell in cells {
            let (stratum, rest) = cell.split_first_chunk::<8>().ok_or_else(malformed)?;
            let (cluster, rest) = rest.split_first().ok_or_else(malformed)?;
            let moments = rest.first_chunk::<{ Moments::BYTES }>().ok_or_else(malformed)?;
            let moments = Moments::from_bytes(moments)?;
            let key = (Stratum(u64::from_le_bytes(*stratum)), *cluster);
            if moments.count() == 0 || sums.cells.insert(key, moments).is_some() {
                return Err(malformed());
            }
        }
        Ok(sums)
    }

    const BYTES_PER_CELL: usize = 8 + 1 + Moments::BYTES;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn deltas() -> impl Strategy<Value = Vec<(u64, u8, f64)>> {
        prop::collection::vec((0u64..4, any::<u8>(), -1e6f64..1e6), 0..60)
    }

    fn sums_of(observations: &[(u64, u8, f64)]) -> ArmSums {
        let mut sums = ArmSums::default();
        for (stratum, cluster, value) in observations {
            sums.observe(Stratum(*stratum), *cluster, Fixed::from_f64(*value).unwrap()).unwrap();
        }
        sums
    }

    proptest! {
        #[test]
        fn any_order_and_any_grouping_of_deltas_gives_the_same_bytes(
            observations in deltas(),
            shuffled_by in any::<u64>(),
            parts in 1usize..6,
        ) {
            let whole = sums_of(&observations);
            let mut order = observations;
            order.sort_by_key(|(stratum, cluster, value)| {
                (value.to_bits() ^ shuffled_by ^ stratum ^ u64::from(*cluster)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            });
            let mut merged = ArmSums::default();
            for part in (0..parts).rev() {
                let share: Vec<_> = order.iter().skip(part).step_by(parts).copied().collect();
                merged.merge(&sums_of(&share)).unwrap();
            }
            prop_assert_eq!(merged.to_bytes(), whole.to_bytes());
            prop_assert_eq!(ArmSums::from_bytes(&whole.to_bytes()).unwrap(), whole);
        }

        #[test]
        fn what_is_taken_back_was_never_there(kept in deltas(), poisoned in deltas()) {
            let mut sums = sums_of(&poisoned);
            sums.merge(&sums_of(&kept)).unwrap();
            sums.take_back(&sums_of(&poisoned)).unwrap();
            prop_assert_eq!(sums.to_bytes(), sums_of(&kept).to_bytes());
        }
    }

    #[test]
    fn taking_back_what_was_never_counted_changes_nothing() {
        let mut sums = sums_of(&[(1, 2, 3.0), (1, 3, 4.0)]);
        let before = sums.clone();
        assert!(sums.take_back(&sums_of(&[(1, 2, 3.0), (9, 9, 1.0)])).is_err());
        assert_eq!(sums, before);
    }

    #[test]
    fn totals_and_strata_add_up_over_clusters() {
        let sums = sums_of(&[(1, 0, 1.0), (1, 7, 2.0), (2, 7, 5.0)]);
        assert_eq!(sums.total().unwrap().sum(), 8.0);
        let strata = sums.strata().unwrap();
        assert_eq!(strata[&Stratum(1)].sum(), 3.0);
        assert_eq!(strata[&Stratum(2)].count(), 1);
    }

    #[test]
    fn torn_bytes_are_refused() {
        let bytes = sums_of(&[(1, 0, 1.0)]).to_bytes();
        assert!(ArmSums::from_bytes(&bytes[1..]).is_err());
        assert!(ArmSums::from_bytes(&[bytes.clone(), bytes].concat()).is_err());
    }
}
