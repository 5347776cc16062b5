//! What a plan's reward is to the statistics: a metric with its direction, and for
//! bandits a model in which more is always better.

use starling_raft::state::rollouts::spec::{Reward, RewardKind};
use starling_statistics::bandits::{ArmRewards, BanditError, BetaPrior, NormalInverseGamma, RewardModel};
use starling_statistics::experiment::{Direction, Metric};
use starling_statistics::sums::{Fixed, Moments};

/// As a metric; without a plan's word any number may come, and more is better.
pub fn metric_of(reward: Option<&Reward>) -> Metric {
    let Some(reward) = reward else {
        return Metric::Unbounded { direction: Direction::HigherIsBetter };
    };
    let direction =
        if reward.higher_is_better { Direction::HigherIsBetter } else { Direction::LowerIsBetter };
    match reward.kind {
        RewardKind::Conversion => Metric::Conversion { direction },
        RewardKind::Bounded { floor, ceiling } => {
            Metric::Bounded { lower: floor.0 as f64 / 1e6, upper: ceiling.0 as f64 / 1e6, direction }
        }
        RewardKind::Unbounded => Metric::Unbounded { direction },
    }
}

/// What a bandit believes before the first reward, and how wide the confidence
/// bound of its optimism is. `pooled`: rewards of all arms, turned.
///
/// Of unbounded rewards nothing is known beforehand, so the prior is centred on
/// what all arms have in common: an arm has to show that it differs.
pub fn model_of(reward: &Reward, pooled: &Moments) -> (RewardModel, f64) {
    match reward.kind {
        RewardKind::Conversion => (RewardModel::Bernoulli(BetaPrior::UNIFORM), 1.0),
        RewardKind::Bounded { floor, ceiling } => {
            let (floor, ceiling) = (floor.0 as f64 / 1e6, ceiling.0 as f64 / 1e6);
            let sign = if reward.higher_is_better { 1.0 } else { -1.0 };
            let half = (ceiling - floor) / 2.0;
            let prior = normal_prior(sign * f64::midpoint(floor, ceiling), half * half);
            (RewardModel::GaussianUnknownNoise(prior), ceiling - floor)
        }
        RewardKind::Unbounded => {
            let variance = pooled.variance().filter(|variance| *variance > 0.0).unwrap_or(1.0);
            let prior = normal_prior(pooled.mean().unwrap_or(0.0), variance);
            (RewardModel::GaussianUnknownNoise(prior), 2.0 * variance.sqrt())
        }
    }
}

/// Worth one observation.
fn normal_prior(mean: f64, variance: f64) -> NormalInverseGamma {
    NormalInverseGamma { mean, scale: variance, ..NormalInverseGamma::VAGUE }
}

/// The rewards such that more is better.
pub fn turned(reward: &Reward, rewards: &ArmRewards) -> Result<ArmRewards, BanditError> {
    if reward.higher_is_better {
        return Ok(rewards.clone());
    }
    let mut turned = ArmRewards::default();
    for (batch, moments) in rewards.batches() {
        turned.add(batch, &turned_moments(reward, moments)?)?;
    }
    Ok(turned)
}

/// The mean of rewards that were turned, turned back.
pub fn turned_back(reward: &Reward, mean: f64) -> f64 {
    match (reward.higher_is_better, reward.kind) {
        (true, _) => mean,
        (false, RewardKind::Conversion) => 1.0 - mean,
        (false, _) => -mean,
    }
}

/// Of conversions 1 - x, of all else -x.
fn turned_moments(reward: &Reward, moments: &Moments) -> Result<Moments, BanditError> {
    let (count, sum, squares) = (moments.count(), moments.sum_units(), moments.squares_units());
    if reward.kind != RewardKind::Conversion {
        return Ok(Moments::from_parts(count, -sum, squares)?);
    }
    let one = i128::from(Fixed::UNITS_PER_ONE);
    let ones = i128::from(count) * one;
    Ok(Moments::from_parts(count, ones - sum, ones * one - 2 * one * sum + squares)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use starling_statistics::bandits::Batch;

    use super::*;

    fn reward(kind: RewardKind, higher_is_better: bool) -> Reward {
        Reward { kind, higher_is_better, labels: Vec::new() }
    }

    fn of(values: &[f64]) -> ArmRewards {
        let mut moments = Moments::default();
        for value in values {
            moments.observe(Fixed::from_f64(*value).unwrap()).unwrap();
        }
        let mut rewards = ArmRewards::default();
        rewards.add(Batch(3), &moments).unwrap();
        rewards
    }

    #[test]
    fn rewards_of_which_less_is_better_are_turned_exactly() {
        let conversions = turned(&reward(RewardKind::Conversion, false), &of(&[1.0, 0.0, 0.0])).unwrap();
        assert_eq!(conversions, of(&[0.0, 1.0, 1.0]));
        let amounts = turned(&reward(RewardKind::Unbounded, false), &of(&[2.5, -1.0])).unwrap();
        assert_eq!(amounts, of(&[-2.5, 1.0]));
        let kept = turned(&reward(RewardKind::Unbounded, true), &of(&[2.5, -1.0])).unwrap();
        assert_eq!(kept, of(&[2.5, -1.0]));
    }

    #[test]
    fn means_are_turned_back() {
        assert_eq!(turned_back(&reward(RewardKind::Conversion, false), 0.75), 0.25);
        assert_eq!(turned_back(&reward(RewardKind::Unbounded, false), 3.0), -3.0);
        assert_eq!(turned_back(&reward(RewardKind::Unbounded, true), 3.0), 3.0);
    }
}
