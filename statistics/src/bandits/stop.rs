//! When a bandit is done: sure enough, cheap enough if wrong, and seen enough.
//!
//! The winner is then promoted by an ordinary rollout, not given everything at once.

use super::ArmId;
use super::error::{BanditError, finite, share};
use super::policy::{ArmOutlook, Publication};

/// What a winner must show; all three.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StopRule {
    probability_best: f64,
    expected_loss: f64,
    samples_min: u64,
}

/// What the rule says of a publication.
#[derive(Debug, Clone, PartialEq)]
pub enum StopVerdict {
    /// This arm has won.
    Winner(ArmOutlook),
    /// Not yet, and what is missing.
    Wait(Vec<Waiting>),
}

/// One thing that is missing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Waiting {
    /// No arm takes part.
    NoArms,
    /// An arm has too few rewards to be judged, or to be judged against.
    Samples {
        /// Which arm.
        arm: ArmId,
        /// Rewards so far.
        have: u64,
        /// Rewards needed.
        need: u64,
    },
    /// The leading arm is not surely enough the best.
    ProbabilityBest {
        /// The leading arm.
        arm: ArmId,
        /// Its probability of being the best.
        have: f64,
        /// The probability needed.
        need: f64,
    },
    /// Being wrong about the leading arm could still cost too much.
    ExpectedLoss {
        /// The leading arm.
        arm: ArmId,
        /// Its expected loss.
        have: f64,
        /// It must come below this.
        below: f64,
    },
}

impl StopRule {
    /// `probability_best`: at least so sure, in 0 to 1 (0.95 is usual);
    /// `expected_loss`: below so much reward per decision; `samples_min`: rewards
    /// that every arm taking part must have.
    pub fn new(probability_best: f64, expected_loss: f64, samples_min: u64) -> Result<Self, BanditError> {
        Ok(Self {
            probability_best: share("the probability of being best at which to stop", probability_best)?,
            expected_loss: finite("the expected loss at which to stop", expected_loss)?,
            samples_min,
        })
    }

    /// Judges the arm that is most probably the best, the first of equals.
    #[must_use]
    pub fn judge(&self, publication: &Publication) -> StopVerdict {
        let mut waiting = Vec::new();
        let mut leading: Option<(&ArmOutlook, f64, f64)> = None;
        for outlook in &publication.arms {
            let (Some(best), Some(loss)) = (outlook.probability_best, outlook.expected_loss) else {
                continue;
            };
            if outlook.samples < self.samples_min {
                let (arm, have) = (outlook.arm, outlook.samples);
                waiting.push(Waiting::Samples { arm, have, need: self.samples_min });
            }
            if leading.is_none_or(|(_, highest, _)| best > highest) {
                leading = Some((outlook, best, loss));
            }
        }
        let Some((leader, best, loss)) = leading else {
            return StopVerdict::Wait(vec![Waiting::NoArms]);
        };
        let arm = leader.arm;
        if best < self.probability_best {
            waiting.push(Waiting::ProbabilityBest { arm, have: best, need: self.probability_best });
        }
        if loss >= self.expected_loss {
            waiting.push(Waiting::ExpectedLoss { arm, have: loss, below: self.expected_loss });
        }
        if waiting.is_empty() { StopVerdict::Winner(*leader) } else { StopVerdict::Wait(waiting) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn outlook(arm: u32, best: Option<f64>, loss: f64, samples: u64) -> ArmOutlook {
        ArmOutlook {
            arm: ArmId(arm),
            probability_ppm: 0,
            posterior_mean: 0.0,
            posterior_deviation: 1.0,
            probability_best: best,
            expected_loss: best.map(|_| loss),
            samples,
        }
    }

    #[test]
    fn a_winner_is_sure_cheap_and_seen_often_enough() {
        let rule = StopRule::new(0.95, 0.01, 100).unwrap();
        let arms = vec![outlook(0, Some(0.03), 0.2, 100), outlook(1, Some(0.97), 0.001, 400)];
        let StopVerdict::Winner(winner) = rule.judge(&Publication { arms }) else { panic!("arm 1 has won") };
        assert_eq!(winner.arm, ArmId(1));
    }

    #[test]
    fn whatever_is_missing_is_named() {
        let rule = StopRule::new(0.95, 0.01, 100).unwrap();
        let arms =
            vec![outlook(0, Some(0.6), 0.02, 400), outlook(1, Some(0.4), 0.03, 99), outlook(2, None, 0.0, 5)];
        assert_eq!(
            rule.judge(&Publication { arms }),
            StopVerdict::Wait(vec![
                Waiting::Samples { arm: ArmId(1), have: 99, need: 100 },
                Waiting::ProbabilityBest { arm: ArmId(0), have: 0.6, need: 0.95 },
                Waiting::ExpectedLoss { arm: ArmId(0), have: 0.02, below: 0.01 },
            ])
        );
        let nobody = Publication { arms: vec![outlook(2, None, 0.0, 5)] };
        assert_eq!(rule.judge(&nobody), StopVerdict::Wait(vec![Waiting::NoArms]));
    }
}
