//! Whom a decision's reward is credited to: what feedback asks of the
//! replicated state.

use std::collections::BTreeMap;
use std::sync::Arc;

use starling_raft::state::decision::Decision;
use starling_raft::state::{Epoch, LogIndex, Ordinal};
use starling_statistics::sums::Fixed;

use super::item::Said;

/// Looks up rollouts in one applied state.
pub trait Ledger: Send + Sync {
    /// Who gets a decision's reward, and what is taken for one.
    fn credit_to(&self, decision: &Decision) -> Result<Credit, NoCredit>;
}

/// The arm that gets a reward.
#[derive(Debug, Clone, PartialEq)]
pub struct Credit {
    /// The rollout, by name.
    pub rollout: Arc<str>,
    /// Which run of it.
    pub started_at: LogIndex,
    /// The arm.
    pub arm: Ordinal,
    /// Of the decision.
    pub epoch: Epoch,
    /// The slice of log time that it is now.
    pub slice: u32,
    /// Whether units are told apart.
    pub clustered: bool,
    /// What is a reward.
    pub rule: Arc<RewardRule>,
}

/// Why there is nobody to credit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoCredit {
    /// No rollout learns from it.
    NotInExperiment(String),
    /// It cannot have been made.
    Unknown(String),
    /// The rollout is not there any more.
    Late(String),
}

/// What a rollout takes for a reward.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardRule {
    /// Least.
    pub floor: Fixed,
    /// Greatest.
    pub ceiling: Fixed,
    /// Nothing in between.
    pub only_ends: bool,
    /// What labels count for.
    pub labels: BTreeMap<String, Fixed>,
}

/// Why what was said is no reward.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoReward {
    /// Nonsense in itself.
    #[error("{0}")]
    Invalid(String),
    /// Not for this rollout.
    #[error("{0}")]
    OutOfRange(String),
}

impl NoReward {
    /// Neither value, label nor flag.
    pub fn nothing_said() -> Self {
        Self::Invalid("there is no value, label or flag".to_owned())
    }
}

impl RewardRule {
    /// The reward in what was said.
    pub fn reward(&self, said: &Said) -> Result<Fixed, NoReward> {
        let reward = match said {
            Said::Nothing => return Err(NoReward::nothing_said()),
            Said::Flag(flag) => Fixed::from_bool(*flag),
            Said::Label(label) => return self.of_label(label),
            Said::Number(number) if !number.is_finite() => {
                return Err(NoReward::Invalid(format!("{number} is no finite number")));
            }
            Said::Number(number) => {
                Fixed::from_f64(*number).map_err(|error| NoReward::OutOfRange(error.to_string()))?
            }
        };
        if reward < self.floor || reward > self.ceiling {
            return Err(NoReward::OutOfRange(format!(
                "{reward} is not within {} to {}, which this rollout takes",
                self.floor, self.ceiling
            )));
        }
        if self.only_ends && reward != self.floor && reward != self.ceiling {
            return Err(NoReward::OutOfRange(format!(
                "{reward} is neither {} nor {}, and this rollout takes nothing between",
                self.floor, self.ceiling
            )));
        }
        Ok(reward)
    }

    fn of_label(&self, label: &str) -> Result<Fixed, NoReward> {
        if let Some(reward) = self.labels.get(label) {
            return Ok(*reward);
        }
        let known: Vec<&str> = self.labels.keys().take(10).map(String::as_str).collect();
        Err(NoReward::OutOfRange(match known.is_empty() {
            true => format!("label '{label}' counts for nothing: this rollout names no labels; send a value"),
            false => {
                format!("label '{label}' is none of those that this rollout names: {}", known.join(", "))
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn rule(floor: f64, ceiling: f64, only_ends: bool) -> RewardRule {
        let labels = [("cat", 1.0), ("dog", 0.25)];
        RewardRule {
            floor: Fixed::from_f64(floor).unwrap(),
            ceiling: Fixed::from_f64(ceiling).unwrap(),
            only_ends,
            labels: labels.map(|(label, value)| (label.to_owned(), Fixed::from_f64(value).unwrap())).into(),
        }
    }

    #[test]
    fn numbers_flags_and_labels_become_rewards() {
        let rule = rule(0.0, 10.0, false);
        let reward = |said| rule.reward(&said).unwrap().to_f64();
        assert_eq!(reward(Said::Number(2.5)), 2.5);
        assert_eq!(reward(Said::Number(-0.0)), 0.0);
        assert_eq!((reward(Said::Flag(true)), reward(Said::Flag(false))), (1.0, 0.0));
        assert_eq!((reward(Said::Label("cat".into())), reward(Said::Label("dog".into()))), (1.0, 0.25));
    }

    #[test]
    fn what_is_no_reward_is_refused_with_the_reason() {
        let bounded = rule(0.0, 10.0, false);
        let refused = |said| bounded.reward(&said).unwrap_err().to_string();
        assert_eq!(refused(Said::Number(f64::NAN)), "NaN is no finite number");
        assert_eq!(refused(Said::Number(f64::NEG_INFINITY)), "-inf is no finite number");
        assert_eq!(refused(Said::Number(10.5)), "10.5 is not within 0 to 10, which this rollout takes");
        assert!(refused(Said::Number(1e300)).contains("must lie in"));
        assert_eq!(refused(Said::Nothing), "there is no value, label or flag");
        assert_eq!(
            refused(Said::Label("cow".into())),
            "label 'cow' is none of those that this rollout names: cat, dog"
        );
        let conversion = rule(0.0, 1.0, true);
        assert_eq!(
            conversion.reward(&Said::Number(0.5)).unwrap_err().to_string(),
            "0.5 is neither 0 nor 1, and this rollout takes nothing between"
        );
        assert!(matches!(conversion.reward(&Said::Number(f64::NAN)), Err(NoReward::Invalid(_))));
    }
}
