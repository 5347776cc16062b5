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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use starling_raft::state::bucket::Bucket;
    use starling_raft::state::{Epoch, NodeId, Ordinal};

    use super::*;
    use crate::feedback::item::Said;
    use crate::inference::test_states::{TestState, ab_test, canary};

    fn two_versions() -> TestState {
        let mut cluster = TestState::default();
        for _ in 0..2 {
            let ordinal = cluster.register("m");
            cluster.ready("m", ordinal);
        }
        cluster.route("m", &[("v1", 1_000_000)]);
        cluster
    }

    fn ledger(cluster: &TestState) -> StateLedger {
        StateLedger::new(Arc::new(cluster.state.clone()))
    }

    fn decision(cluster: &TestState, bucket: u32) -> Decision {
        Decision {
            node: NodeId::new(1_000),
            boot: 1,
            sequence: 1,
            model_id: cluster.state.models.get("m").unwrap().id,
            epoch: cluster.state.routes.get("m").unwrap().epoch,
            rule: None,
            enrolment: Bucket::new(3),
            arm: Bucket::new(bucket),
        }
    }

    fn why_not(ledger: &StateLedger, decision: Decision) -> String {
        match ledger.credit_to(&decision) {
            Err(NoCredit::NotInExperiment(why) | NoCredit::Unknown(why) | NoCredit::Late(why)) => why,
            Ok(credit) => panic!("it is credited: {credit:?}"),
        }
    }

    #[test]
    fn a_reward_goes_to_the_arm_that_owned_the_bucket_at_the_decisions_epoch() {
        let mut cluster = two_versions();
        cluster.start_rollout("ab", ab_test("m", &[("a", "v1", 500_000), ("b", "v2", 500_000)]));
        let table = cluster.state.routes.get("m").unwrap().table.clone();
        let started_at = cluster.state.rollouts.get("ab").unwrap().started_at;
        for bucket in [0, 123_456, 499_999, 500_000, 999_999] {
            let decision = decision(&cluster, bucket);
            let credit = ledger(&cluster).credit_to(&decision).unwrap();
            assert_eq!(Some(credit.arm), table.owner(Bucket::new(bucket).unwrap()));
            assert_eq!((&*credit.rollout, credit.started_at), ("ab", started_at));
            assert!(credit.clustered && credit.slice == 1);
        }
        // Also once it is over, and the route is another.
        let decision = decision(&cluster, 999_999);
        cluster.abort_rollout("ab");
        assert_ne!(cluster.state.routes.get("m").unwrap().epoch, decision.epoch);
        assert_eq!(ledger(&cluster).credit_to(&decision).unwrap().arm, Ordinal::new(2));
    }

    #[test]
    fn a_conversion_takes_zero_and_one_and_the_words_for_them() {
        let mut cluster = two_versions();
        cluster.start_rollout("ab", ab_test("m", &[("a", "v1", 500_000), ("b", "v2", 500_000)]));
        let rule = ledger(&cluster).credit_to(&decision(&cluster, 7)).unwrap().rule;
        assert_eq!(rule.reward(&Said::Flag(true)), Ok(Fixed::ONE));
        assert_eq!(rule.reward(&Said::Label("false".into())), Ok(Fixed::ZERO));
        assert!(rule.reward(&Said::Number(0.5)).is_err());
        assert!(rule.reward(&Said::Label("cat".into())).is_err());
    }

    #[test]
    fn what_no_experiment_decided_says_why() {
        let mut cluster = two_versions();
        let before = decision(&cluster, 7);
        cluster.start_rollout("ab", ab_test("m", &[("a", "v1", 500_000), ("b", "v2", 500_000)]));
        let ledger = ledger(&cluster);
        let epoch = before.epoch;
        assert_eq!(
            why_not(&ledger, before),
            format!("no rollout owned the route of its model at epoch {epoch}")
        );
        let inside = decision(&cluster, 7);
        let by_rule = Decision { rule: Some(0), ..inside };
        assert_eq!(why_not(&ledger, by_rule), "a rule of the route decided, and no experiment");
        let pinned = Decision { arm: None, enrolment: None, ..inside };
        assert_eq!(why_not(&ledger, pinned), "the request named its version, and no experiment decided");
        let deleted = Decision { model_id: 99, ..inside };
        assert_eq!(why_not(&ledger, deleted), "its model (id 99) is not there, or not any more");
        let never = Decision { epoch: Epoch::new(999), ..inside };
        assert_eq!(why_not(&ledger, never), "no rollout owned the route of its model at epoch 999");
    }

    #[test]
    fn a_canary_learns_from_no_rewards() {
        let mut cluster = two_versions();
        cluster.start_rollout("step", canary("m", "v1", "v2", 100_000));
        assert_eq!(
            why_not(&ledger(&cluster), decision(&cluster, 7)),
            "rollout 'step', which owned the route then, learns from no rewards"
        );
    }
}
