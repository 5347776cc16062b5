//! Sums that many nodes take and anyone may add up: integers only, so that every
//! order of merging gives the same bytes.
//!
//! - [`Fixed`]: one observation as a whole number of 2⁻²⁴.
//! - [`Moments`]: count, sum and sum of squares of one cell.
//! - [`ArmSums`]: one arm's cells, by stratum (epochs with equal weights) and by
//!   cluster (the unit's hash modulo 256).
//! - [`Effect`]: the difference between two arms, stratified and clustered.

mod arm;
mod effect;
mod fixed;
mod moments;

pub use arm::{ArmSums, CLUSTERS, Stratum};
pub use effect::{Effect, MeanEstimate, stratified_effect};
pub use fixed::Fixed;
pub use moments::Moments;
