//! Bandits: traffic follows what is observed to be better.
//!
//! A controller keeps [`ArmRewards`] per arm, asks a [`Policy`] for a
//! [`Publication`] now and then, logs its parts per million if it
//! [differs enough](should_publish) from the last, and ends the bandit when its
//! [`StopRule`] names a winner. Nothing here is drawn: decisions are drawn by hash
//! from the published probabilities, so every propensity is exact.
//!
//! - [`bounds`](Bounds): floor and ceiling per arm.
//! - [`epsilon`], [`ucb`]: the policies that need means and counts only.
//! - [`thompson`]: the probability of being best, by quadrature over [`Belief`]s.
//! - [`prior`](RewardModel): from sums to beliefs.
//! - [`discount`]: forgetting, such that late and retracted rewards give the same
//!   state in any order.

mod belief;
mod discount;
pub mod epsilon;
mod error;
mod floor;
mod policy;
mod prior;
mod quadrature;
mod stop;
pub mod thompson;
pub mod ucb;

use std::fmt;

pub use belief::Belief;
pub use discount::{ArmRewards, Batch, Discount, Discounted};
pub use error::BanditError;
pub use floor::Bounds;
pub use policy::{ArmOutlook, Explore, Policy, Publication, should_publish};
pub use prior::{BetaPrior, NormalInverseGamma, NormalPrior, RewardModel};
pub use stop::{StopRule, StopVerdict, Waiting};

/// An arm, by the number that it has for as long as the bandit runs. Ties go to the
/// lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArmId(pub u32);

impl fmt::Display for ArmId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "arm {}", self.0)
    }
}
