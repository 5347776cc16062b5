//! One look at a bandit: what each arm is believed to be worth, what would be
//! published, and whether it is done. Pure.

use std::collections::BTreeMap;

use starling_raft::state::rollouts::Weights;
use starling_raft::state::rollouts::spec::{Bandit, BanditPolicy};
use starling_raft::state::{LogTime, Ordinal, PartsPerMillion, Rollout};
use starling_statistics::bandits::epsilon::Epsilon;
use starling_statistics::bandits::{
    ArmId, ArmOutlook, ArmRewards, BanditError, Batch, Bounds, Discount, Explore, Policy, StopRule,
    StopVerdict, Waiting, should_publish,
};
use starling_statistics::sums::Moments;

use super::measures::{Measures, weights_in_force};
use super::reward_scale::{model_of, turned, turned_back};

/// A bandit's arms in the order of its plan.
#[derive(Debug, Clone, PartialEq)]
pub struct BanditLook {
    /// Which version each arm is, and what is believed of it.
    pub arms: Vec<(Ordinal, ArmOutlook)>,
    /// What follows from that.
    pub weights: Weights,
    /// Whether the weights differ enough from those in force.
    pub is_material: bool,
    /// The arm that has won.
    pub winner: Option<Ordinal>,
    /// What the stop rule waits for; empty without one.
    pub waiting: Vec<Waiting>,
    /// Rewards of all arms.
    pub rewards: u64,
}

/// Looks at the rewards as they weigh now.
pub fn look(
    rollout: &Rollout,
    bandit: &Bandit,
    measures: &Measures,
    now: LogTime,
) -> Result<BanditLook, BanditError> {
    let nothing = ArmRewards::default();
    let mut rewards: BTreeMap<ArmId, ArmRewards> = BTreeMap::new();
    let mut pooled = Moments::default();
    for (id, arm) in ids(bandit) {
        let own = turned(&bandit.reward, measures.slices.get(&arm).unwrap_or(&nothing))?;
        for (_, moments) in own.batches() {
            pooled.merge(moments)?;
        }
        rewards.insert(id, own);
    }
    let policy = policy_of(rollout, bandit, &pooled)?;
    let publication = policy.publish(&rewards, |_| true, Batch(rollout.slice_of(now).into()))?;

    let (winner, waiting) = match bandit.stop {
        None => (None, Vec::new()),
        Some(stop) => {
            let sure = f64::from(stop.probability_best.get()) / 1e6;
            // The plan names no loss that would be small enough.
            match StopRule::new(sure, f64::MAX, stop.min_rewards)?.judge(&publication) {
                StopVerdict::Winner(winner) => (version_of(bandit, winner.arm), Vec::new()),
                StopVerdict::Wait(waiting) => (None, waiting),
            }
        }
    };
    let in_force = weights_in_force(rollout);
    let old: Vec<(ArmId, u32)> =
        ids(bandit).map(|(id, version)| (id, in_force.get(&version).copied().unwrap_or(0))).collect();
    let new: Vec<(ArmId, u32)> = publication.probabilities_ppm().collect();
    let outlooks = ids(bandit).map(|(_, version)| version).zip(publication.arms);
    let arms: Vec<(Ordinal, ArmOutlook)> = outlooks
        .map(|(version, outlook)| {
            let posterior_mean = turned_back(&bandit.reward, outlook.posterior_mean);
            (version, ArmOutlook { posterior_mean, ..outlook })
        })
        .collect();
    Ok(BanditLook {
        weights: weights(&arms),
        is_material: should_publish(&old, &new),
        winner,
        waiting,
        rewards: pooled.count(),
        arms,
    })
}

/// Arms by their place in the plan.
fn ids(bandit: &Bandit) -> impl Iterator<Item = (ArmId, Ordinal)> {
    (0..).map(ArmId).zip(bandit.arms.iter().map(|arm| arm.version))
}

/// The version that an arm is.
pub fn version_of(bandit: &Bandit, arm: ArmId) -> Option<Ordinal> {
    bandit.arms.get(arm.0 as usize).map(|arm| arm.version)
}

fn weights(arms: &[(Ordinal, ArmOutlook)]) -> Weights {
    let mut weights: Weights = arms
        .iter()
        .filter(|(_, outlook)| outlook.probability_ppm > 0)
        .filter_map(|(version, outlook)| {
            Some((*version, PartsPerMillion::new(outlook.probability_ppm).ok()?))
        })
        .collect();
    weights.sort();
    weights
}

fn policy_of(rollout: &Rollout, bandit: &Bandit, pooled: &Moments) -> Result<Policy, BanditError> {
    let share = |parts: PartsPerMillion| f64::from(parts.get()) / 1e6;
    let (model, width) = model_of(&bandit.reward, pooled);
    let explore = match bandit.policy {
        BanditPolicy::EpsilonGreedy { epsilon, half_after: 0 } => {
            Explore::EpsilonGreedy(Epsilon::constant(share(epsilon))?)
        }
        BanditPolicy::EpsilonGreedy { epsilon, half_after } => {
            Explore::EpsilonGreedy(Epsilon::decaying(share(epsilon), 0.0, half_after as f64)?)
        }
        BanditPolicy::Ucb1 => Explore::Ucb1 { alpha: width },
        BanditPolicy::Thompson => Explore::Thompson,
        BanditPolicy::TopTwoThompson { leader } => Explore::TopTwoThompson { leader: share(leader) },
    };
    let discount = match bandit.half_life {
        None => Discount::NONE,
        Some(half_life) => Discount::half_life(half_life.0 as f64 / rollout.slice().0.max(1) as f64)?,
    };
    Policy::new(explore, model, discount, Bounds::new(share(bandit.floor), 1.0)?)
}
