//! From sums to beliefs: conjugate priors for rates and for means.
//!
//! - successes and failures: Beta;
//! - means with known noise: Normal;
//! - means with unknown noise: Normal-inverse-gamma, whose mean is Student's t
//!   (Murphy 2007, "Conjugate Bayesian analysis of the Gaussian distribution").
//!
//! Discounted sums are fractions of observations; all formulas take them as they are.

use super::ArmId;
use super::belief::Belief;
use super::discount::Discounted;
use super::error::{BanditError, finite, positive};

/// Sums of rates may leave 0 to 1 by this share of the count, from rounding.
const ROUNDING: f64 = 1e-9;

/// What is believed of a rate before the first reward.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BetaPrior {
    successes: f64,
    failures: f64,
}

impl BetaPrior {
    /// Every rate is as likely as any other.
    pub const UNIFORM: Self = Self { successes: 1.0, failures: 1.0 };
    /// Jeffreys' prior.
    pub const JEFFREYS: Self = Self { successes: 0.5, failures: 0.5 };

    /// As if so many successes and failures had been seen; both above 0.
    pub fn new(successes: f64, failures: f64) -> Result<Self, BanditError> {
        Ok(Self {
            successes: positive("the successes of a prior", successes)?,
            failures: positive("the failures of a prior", failures)?,
        })
    }
}

/// What is believed of a mean before the first reward, the noise of a single reward
/// being known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormalPrior {
    mean: f64,
    deviation: f64,
    noise: f64,
}

impl NormalPrior {
    /// `deviation`: how far the mean may lie from `mean`; `noise`: the standard
    /// deviation of single rewards. Both above 0.
    pub fn new(mean: f64, deviation: f64, noise: f64) -> Result<Self, BanditError> {
        Ok(Self {
            mean: finite("the mean of a prior", mean)?,
            deviation: positive("the deviation of a prior", deviation)?,
            noise: positive("the noise of rewards", noise)?,
        })
    }

    /// The belief after `count` rewards with this sum: precisions add up.
    pub fn after(&self, count: f64, sum: f64) -> Result<Belief, BanditError> {
        let (before, each) = (self.deviation.powi(-2), self.noise.powi(-2));
        let precision = before + count * each;
        let mean = (self.mean * before + sum * each) / precision;
        Belief::normal(mean, precision.sqrt().recip())
    }
}

/// What is believed of a mean and of the noise around it. `mean` counts like
/// `strength` observations; the noise is as if `2 · shape` observations had had a
/// sum of squares of `2 · scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormalInverseGamma {
    /// The most likely mean.
    pub mean: f64,
    /// How many observations that is worth (κ), above 0.
    pub strength: f64,
    /// Half the degrees of freedom of the noise (α), 1 or more.
    pub shape: f64,
    /// The scale of the noise (β), above 0.
    pub scale: f64,
}

impl NormalInverseGamma {
    /// Almost nothing is known: mean 0 and noise 1, worth one observation.
    pub const VAGUE: Self = Self { mean: 0.0, strength: 1.0, shape: 1.0, scale: 1.0 };

    /// Refuses numbers outside of the ranges that the fields name.
    pub fn new(mean: f64, strength: f64, shape: f64, scale: f64) -> Result<Self, BanditError> {
        let shape_fits = shape.is_finite() && shape >= 1.0;
        if !shape_fits {
            return Err(BanditError::OutOfRange {
                what: "the shape of a prior",
                got: shape,
                expected: "1 or more",
            });
        }
        Ok(Self {
            mean: finite("the mean of a prior", mean)?,
            strength: positive("the strength of a prior", strength)?,
            shape,
            scale: positive("the scale of a prior", scale)?,
        })
    }

    /// After `count` rewards with this mean and sum of squares around it.
    #[must_use]
    pub fn after(&self, count: f64, mean: f64, squares_around_mean: f64) -> Self {
        let strength = self.strength + count;
        let apart = mean - self.mean;
        Self {
            mean: self.mean + count / strength * apart,
            strength,
            shape: self.shape + count / 2.0,
            scale: self.scale
                + squares_around_mean / 2.0
                + self.strength * count * apart * apart / (2.0 * strength),
        }
    }

    /// What this says about the mean alone.
    pub fn belief(&self) -> Result<Belief, BanditError> {
        let scale = (self.scale / (self.shape * self.strength)).sqrt();
        Belief::student(self.mean, scale, 2.0 * self.shape)
    }
}

/// What kind of reward arms give, and what is believed before the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RewardModel {
    /// Success or failure, or a share in 0 to 1.
    Bernoulli(BetaPrior),
    /// Any number, of known noise.
    Gaussian(NormalPrior),
    /// Any number, of unknown noise.
    GaussianUnknownNoise(NormalInverseGamma),
}

impl RewardModel {
    /// What is believed of an arm after its rewards.
    pub fn belief(&self, arm: ArmId, rewards: &Discounted) -> Result<Belief, BanditError> {
        let (count, sum) = (rewards.count(), rewards.sum());
        match self {
            Self::Bernoulli(prior) => {
                let slack = ROUNDING * count.max(1.0);
                if sum < -slack || sum > count + slack {
                    return Err(BanditError::NotSuccesses { arm, sum, count });
                }
                let successes = sum.clamp(0.0, count);
                Belief::beta(prior.successes + successes, prior.failures + count - successes)
            }
            Self::Gaussian(prior) => prior.after(count, sum),
            Self::GaussianUnknownNoise(prior) => {
                let mean = rewards.mean().unwrap_or(prior.mean);
                prior.after(count, mean, rewards.squares_around_mean()).belief()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::discount::{ArmRewards, Batch, Discount};
    use super::*;
    use crate::sums::{Fixed, Moments};

    fn rewards(values: &[f64]) -> Discounted {
        let mut arm = ArmRewards::default();
        for value in values {
            let mut sums = Moments::default();
            sums.observe(Fixed::from_f64(*value).unwrap()).unwrap();
            arm.add(Batch(0), &sums).unwrap();
        }
        arm.discounted(&Discount::NONE, Batch(0)).unwrap()
    }

    #[test]
    fn without_rewards_the_prior_is_believed() {
        let nothing = rewards(&[]);
        let beta = RewardModel::Bernoulli(BetaPrior::JEFFREYS).belief(ArmId(0), &nothing).unwrap();
        assert_eq!(beta, Belief::beta(0.5, 0.5).unwrap());
        let normal = RewardModel::Gaussian(NormalPrior::new(3.0, 2.0, 1.0).unwrap());
        assert_eq!(normal.belief(ArmId(0), &nothing).unwrap(), Belief::normal(3.0, 2.0).unwrap());
        let student = RewardModel::GaussianUnknownNoise(NormalInverseGamma::VAGUE);
        assert_eq!(student.belief(ArmId(0), &nothing).unwrap(), Belief::student(0.0, 1.0, 2.0).unwrap());
    }

    #[test]
    fn shares_count_as_parts_of_successes_and_others_are_refused() {
        let model = RewardModel::Bernoulli(BetaPrior::UNIFORM);
        let belief = model.belief(ArmId(0), &rewards(&[1.0, 0.0, 0.25])).unwrap();
        assert_eq!(belief, Belief::beta(2.25, 2.75).unwrap());
        let refused = model.belief(ArmId(7), &rewards(&[1.0, 3.0])).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the rewards of arm 7 sum to 4 over 2: success or failure lies in 0 to 1"
        );
    }

    #[test]
    fn priors_that_are_none_are_refused() {
        assert!(BetaPrior::new(0.0, 1.0).is_err());
        assert!(NormalPrior::new(0.0, 1.0, 0.0).is_err());
        assert!(NormalInverseGamma::new(0.0, 1.0, 0.5, 1.0).is_err());
        assert!(NormalInverseGamma::new(f64::NAN, 1.0, 1.0, 1.0).is_err());
    }
}
