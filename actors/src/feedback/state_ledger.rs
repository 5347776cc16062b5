//! Whom rewards are credited to, by the replicated state: rollouts know to which
//! arm a bucket belonged at each of their epochs.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use starling_raft::state::decision::Decision;
use starling_raft::state::rollouts::spec::{Micro, Reward, RewardKind};
use starling_raft::state::{LogTime, Rollout, State};
use starling_statistics::sums::Fixed;

use super::ledger::{Credit, Ledger, NoCredit, RewardRule};

/// The ledger of one applied state.
pub struct StateLedger {
    state: Arc<State>,
    /// By the id of the model; made when the first reward is judged.
    by_model: OnceLock<HashMap<u64, Vec<Learner>>>,
}

/// A rollout of a model.
struct Learner {
    rollout: Arc<Rollout>,
    name: Arc<str>,
    /// `None`: it does not learn from rewards.
    rule: Option<Arc<RewardRule>>,
    slice: u32,
}

impl StateLedger {
    /// Of a state.
    pub fn new(state: Arc<State>) -> Self {
        Self { state, by_model: OnceLock::new() }
    }

    fn learners(&self, model_id: u64) -> Option<&[Learner]> {
        let by_model = self.by_model.get_or_init(|| learners(&self.state));
        by_model.get(&model_id).map(Vec::as_slice)
    }
}

impl Ledger for StateLedger {
    fn credit_to(&self, decision: &Decision) -> Result<Credit, NoCredit> {
        let epoch = decision.epoch;
        let learners = self.learners(decision.model_id).ok_or_else(|| {
            NoCredit::Unknown(format!("its model (id {}) is not there, or not any more", decision.model_id))
        })?;
        let Some(learner) = learners.iter().find(|learner| learner.had_epoch(decision)) else {
            return Err(no_learner(learners, decision));
        };
        let name = &learner.name;
        let outside = |why: &str| Err(NoCredit::NotInExperiment(why.to_owned()));
        let Some(rule) = &learner.rule else {
            return outside(&format!("rollout '{name}', which owned the route then, learns from no rewards"));
        };
        if decision.rule.is_some() {
            return outside("a rule of the route decided, and no experiment");
        }
        let enrolment = learner.rollout.enrolment();
        if decision.enrolment.is_some_and(|bucket| bucket.get() >= enrolment.get()) {
            return outside(&format!("its unit does not take part in rollout '{name}'"));
        }
        let Some(bucket) = decision.arm else {
            return outside("the request named its version, and no experiment decided");
        };
        let Some((arm, _)) = learner.rollout.arm_at(epoch, bucket) else {
            return Err(NoCredit::Unknown(format!(
                "no arm of rollout '{name}' had its bucket at epoch {epoch}"
            )));
        };
        Ok(Credit {
            rollout: Arc::clone(name),
            started_at: learner.rollout.started_at,
            arm,
            epoch,
            slice: learner.slice,
            clustered: learner.rollout.tells_clusters_apart(),
            rule: Arc::clone(rule),
        })
    }
}

impl Learner {
    fn new(rollout: &Arc<Rollout>, now: LogTime) -> Self {
        Self {
            name: rollout.name.as_str().into(),
            rule: rollout.spec.reward().map(|reward| Arc::new(rule_of(reward))),
            slice: rollout.slice_of(now),
            rollout: Arc::clone(rollout),
        }
    }

    fn had_epoch(&self, decision: &Decision) -> bool {
        self.rollout.epochs.binary_search_by_key(&decision.epoch, |known| known.epoch).is_ok()
    }
}

fn learners(state: &State) -> HashMap<u64, Vec<Learner>> {
    let now = state.cluster.log_time;
    let mut by_model: HashMap<u64, Vec<Learner>> =
        state.models.iter().map(|model| (model.id, Vec::new())).collect();
    for rollout in state.rollouts.iter() {
        let model = state.models.get(rollout.spec.model.as_str());
        if let Some(learners) = model.and_then(|model| by_model.get_mut(&model.id)) {
            learners.push(Learner::new(rollout, now));
        }
    }
    by_model
}

/// Nobody had that epoch: too long ago, or nobody ever.
fn no_learner(learners: &[Learner], decision: &Decision) -> NoCredit {
    let epoch = decision.epoch;
    let forgotten = learners.iter().find(|learner| {
        let started = learner.rollout.started_at.get() <= epoch.get();
        started && learner.rollout.epochs.first().is_some_and(|first| epoch < first.epoch)
    });
    match forgotten {
        Some(learner) => NoCredit::Late(format!(
            "rollout '{}' has had so many epochs since {epoch} that it does not know that one any more",
            learner.name
        )),
        None => {
            NoCredit::NotInExperiment(format!("no rollout owned the route of its model at epoch {epoch}"))
        }
    }
}

fn rule_of(reward: &Reward) -> RewardRule {
    let most = Fixed::from_f64(Fixed::MAGNITUDE_MAX).unwrap_or(Fixed::ONE);
    let least = Fixed::from_f64(-Fixed::MAGNITUDE_MAX).unwrap_or(Fixed::ZERO);
    let (floor, ceiling, only_ends) = match reward.kind {
        RewardKind::Conversion => (Fixed::ZERO, Fixed::ONE, true),
        RewardKind::Bounded { floor, ceiling } => (fixed(floor), fixed(ceiling), false),
        RewardKind::Unbounded => (least, most, false),
    };
    let labels = match reward.labels.is_empty() {
        true => [("true".to_owned(), Fixed::ONE), ("false".to_owned(), Fixed::ZERO)].into(),
        false => reward.labels.iter().map(|(label, counts)| (label.clone(), fixed(*counts))).collect(),
    };
    RewardRule { floor, ceiling, only_ends, labels }
}

/// What does not fit is refused with the plan; here it would be the largest that does.
fn fixed(micro: Micro) -> Fixed {
    let value = micro.0 as f64 / 1e6;
    Fixed::from_f64(value.clamp(-Fixed::MAGNITUDE_MAX, Fixed::MAGNITUDE_MAX)).unwrap_or(Fixed::ZERO)
}
