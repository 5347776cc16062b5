//! What a controller calls: from each arm's rewards to the probabilities that are
//! published for the next batch, and what each arm is believed to be worth.

use std::collections::BTreeMap;

use super::ArmId;
use super::belief::Belief;
use super::discount::{ArmRewards, Batch, Discount, Discounted};
use super::epsilon::{Epsilon, epsilon_greedy};
use super::error::{BanditError, finite};
use super::floor::Bounds;
use super::prior::RewardModel;
use super::thompson::{standings, top_two_led};
use super::ucb::{Earned, highest_takes_all, ucb1};
use crate::apportion::{PARTS_PER_MILLION, apportion};

/// New probabilities are worth an epoch once one has moved by so much: 1 %.
pub const MOVED_PPM_MIN: u32 = 10_000;

/// How traffic is spread, given what is believed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Explore {
    /// Most to the highest mean, a share evenly to all.
    EpsilonGreedy(Epsilon),
    /// All to the arm that could still be the best. With a discount this is
    /// discounted UCB, whose `2 B √ξ` is `alpha · √2`.
    Ucb1 {
        /// Width of the confidence bound, 0 or more; 1 for rewards in 0 to 1.
        alpha: f64,
    },
    /// To each arm as likely as it is the best.
    Thompson,
    /// A share to the best, the rest to the second best.
    TopTwoThompson {
        /// The best arm's, in 0 to 1; a half is usual.
        leader: f64,
    },
}

/// What 0.07 times a million is off by, and more: no part is lost to it.
const ROUNDING_PPM: f64 = 1e-6;

/// A bandit's policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    explore: Explore,
    model: RewardModel,
    discount: Discount,
    bounds: Bounds,
}

/// What one arm is worth, and what it gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ArmOutlook {
    /// Which arm.
    pub arm: ArmId,
    /// Parts per million of the traffic.
    pub probability_ppm: u32,
    /// The expected mean reward.
    pub posterior_mean: f64,
    /// The standard deviation of that belief; infinite while nothing is known.
    pub posterior_deviation: f64,
    /// The probability that it is the best of those taking part; `None` if it does not.
    pub probability_best: Option<f64>,
    /// What choosing it for ever would cost per decision; `None` if it takes no part.
    pub expected_loss: Option<f64>,
    /// Rewards so far, each counted whole.
    pub samples: u64,
}

/// All arms in order; the parts per million sum to a million.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    /// One entry per arm.
    pub arms: Vec<ArmOutlook>,
}

impl Publication {
    /// Each arm's parts per million.
    pub fn probabilities_ppm(&self) -> impl Iterator<Item = (ArmId, u32)> {
        self.arms.iter().map(|outlook| (outlook.arm, outlook.probability_ppm))
    }
}

/// One arm, while probabilities are computed.
struct Candidate {
    rewards: Discounted,
    belief: Belief,
    samples: u64,
    takes_part: bool,
}

impl Policy {
    /// Puts a policy together; refuses a UCB whose width is no number of 0 or more.
    pub fn new(
        explore: Explore,
        model: RewardModel,
        discount: Discount,
        bounds: Bounds,
    ) -> Result<Self, BanditError> {
        if let Explore::Ucb1 { alpha } = explore
            && finite("the width of a confidence bound", alpha)? < 0.0
        {
            return Err(BanditError::OutOfRange {
                what: "the width of a confidence bound",
                got: alpha,
                expected: "0 or more",
            });
        }
        Ok(Self { explore, model, discount, bounds })
    }

    /// How fast this policy forgets.
    #[must_use]
    pub fn discount(&self) -> &Discount {
        &self.discount
    }

    /// What is published for the batch `now`.
    ///
    /// Arms are those of `rewards`: one that was added has none yet and starts from
    /// the prior; one that was removed is no longer there. `takes_part` says which
    /// of them may get traffic: the others (quarantined) get 0, need no floor, and
    /// keep their rewards. Refuses bounds that do not fit the arms taking part.
    pub fn publish(
        &self,
        rewards: &BTreeMap<ArmId, ArmRewards>,
        takes_part: impl Fn(ArmId) -> bool,
        now: Batch,
    ) -> Result<Publication, BanditError> {
        let mut candidates = Vec::with_capacity(rewards.len());
        for (arm, rewards) in rewards {
            let discounted = rewards.discounted(&self.discount, now)?;
            candidates.push(Candidate {
                belief: self.model.belief(*arm, &discounted)?,
                rewards: discounted,
                samples: rewards.samples(),
                takes_part: takes_part(*arm),
            });
        }
        let taking_part: Vec<&Candidate> =
            candidates.iter().filter(|candidate| candidate.takes_part).collect();
        self.bounds.fit(taking_part.len())?;
        let beliefs: Vec<Belief> = taking_part.iter().map(|candidate| candidate.belief).collect();
        let standings = standings(&beliefs)?;
        let best: Vec<f64> = standings.iter().map(|standing| standing.probability_best).collect();
        let wanted = self.spread(&taking_part, &best);
        let parts = self.parts_per_million(&wanted)?;

        let mut of_those_taking_part = standings.into_iter().zip(parts);
        let arms = rewards.keys().zip(&candidates).map(|(arm, candidate)| {
            let own = if candidate.takes_part { of_those_taking_part.next() } else { None };
            ArmOutlook {
                arm: *arm,
                probability_ppm: own.map_or(0, |(_, parts)| parts),
                posterior_mean: candidate.belief.mean(),
                posterior_deviation: candidate.belief.deviation(),
                probability_best: own.map(|(standing, _)| standing.probability_best),
                expected_loss: own.map(|(standing, _)| standing.expected_loss),
                samples: candidate.samples,
            }
        });
        Ok(Publication { arms: arms.collect() })
    }

    fn spread(&self, arms: &[&Candidate], probabilities_best: &[f64]) -> Vec<f64> {
        match self.explore {
            Explore::Thompson => probabilities_best.to_vec(),
            Explore::TopTwoThompson { leader } => top_two_led(probabilities_best, leader),
            Explore::EpsilonGreedy(epsilon) => {
                let pulls: f64 = arms.iter().map(|arm| arm.rewards.count()).sum();
                if pulls == 0.0 {
                    return vec![1.0 / arms.len() as f64; arms.len()];
                }
                let means: Vec<f64> = arms.iter().map(|arm| arm.belief.mean()).collect();
                epsilon_greedy(&means, epsilon.after(pulls))
            }
            Explore::Ucb1 { alpha } => {
                let earned: Vec<Earned> = arms
                    .iter()
                    .map(|arm| Earned { count: arm.rewards.count(), sum: arm.rewards.sum() })
                    .collect();
                highest_takes_all(&ucb1(&earned, alpha))
            }
        }
    }

    /// Gives every arm its floor first and shares out the rest, so that no rounding
    /// takes an arm below its floor; what rounding put above the ceiling goes to the
    /// first arms that have room.
    fn parts_per_million(&self, wanted: &[f64]) -> Result<Vec<u32>, BanditError> {
        let wrapped: Vec<Option<f64>> = wanted.iter().copied().map(Some).collect();
        let bounded = self.bounds.apply(&wrapped)?;
        let whole = f64::from(PARTS_PER_MILLION);
        let arms = bounded.len() as u32;
        let floor =
            ((self.bounds.floor() * whole - ROUNDING_PPM).ceil() as u32).min(PARTS_PER_MILLION / arms);
        let ceiling = ((self.bounds.ceiling() * whole + ROUNDING_PPM).floor() as u32)
            .max(PARTS_PER_MILLION.div_ceil(arms));

        let above: Vec<f64> =
            bounded.iter().map(|share| (share - f64::from(floor) / whole).max(0.0)).collect();
        let rest = PARTS_PER_MILLION - floor * arms;
        let mut parts = if above.iter().any(|share| *share > 0.0) {
            apportion(&above, rest)?
        } else {
            apportion(&vec![1.0; bounded.len()], rest)?
        };
        let mut excess = 0;
        for part in &mut parts {
            *part += floor;
            excess += part.saturating_sub(ceiling);
            *part = (*part).min(ceiling);
        }
        for part in &mut parts {
            let room = (ceiling - *part).min(excess);
            *part += room;
            excess -= room;
        }
        Ok(parts)
    }
}

/// Whether new probabilities are worth an epoch: one has moved by
/// [`MOVED_PPM_MIN`] or more, or other arms get traffic than before. The second
/// matters at once: a quarantined arm may have had only its floor.
#[must_use]
pub fn should_publish(old: &[(ArmId, u32)], new: &[(ArmId, u32)]) -> bool {
    let served = |arms: &[(ArmId, u32)]| -> BTreeMap<ArmId, u32> {
        arms.iter().copied().filter(|(_, parts)| *parts > 0).collect()
    };
    let (old, new) = (served(old), served(new));
    if !old.keys().eq(new.keys()) {
        return true;
    }
    old.values().zip(new.values()).any(|(old, new)| old.abs_diff(*new) >= MOVED_PPM_MIN)
}
