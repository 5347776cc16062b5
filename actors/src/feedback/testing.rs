//! Decisions, feedback and a ledger for tests.

use std::sync::Arc;

use starling_raft::state::bucket::Bucket;
use starling_raft::state::decision::Decision;
use starling_raft::state::{Epoch, LogIndex, NodeId, Ordinal};
use starling_statistics::sums::Fixed;

use super::item::{Feedback, Said};
use super::ledger::{Credit, Ledger, NoCredit, RewardRule};

pub(super) const HOME: NodeId = NodeId::new(1_000);

/// The home's decision of this number, in its first life.
pub(super) fn decision(sequence: u64) -> Decision {
    Decision {
        node: HOME,
        boot: 1,
        sequence,
        model_id: 3,
        epoch: Epoch::new(5),
        rule: None,
        enrolment: None,
        arm: Bucket::new((sequence * 7_919 % 1_000_000) as u32),
    }
}

/// A success.
pub(super) fn feedback(sequence: u64) -> Feedback {
    Feedback {
        decision: decision(sequence),
        said: Said::Number(1.0),
        unit: None,
        retract: false,
        observed_unix_micros: None,
    }
}

/// All decisions belong to one rollout, which takes -1 to 1; even buckets are of
/// arm 2. Or none of them does.
#[derive(Debug, Clone, Default)]
pub(super) struct OneRollout {
    pub(super) instead: Option<NoCredit>,
}

impl Ledger for OneRollout {
    fn credit_to(&self, decision: &Decision) -> Result<Credit, NoCredit> {
        if let Some(answer) = &self.instead {
            return Err(answer.clone());
        }
        let bucket = decision.arm.map_or(0, Bucket::get);
        let rule = RewardRule {
            floor: Fixed::from_units(-Fixed::UNITS_PER_ONE).unwrap_or_default(),
            ceiling: Fixed::ONE,
            only_ends: false,
            labels: [("cat".to_owned(), Fixed::ONE)].into(),
        };
        Ok(Credit {
            rollout: "digits".into(),
            started_at: LogIndex::new(4),
            arm: Ordinal::new(if bucket.is_multiple_of(2) { 2 } else { 1 }),
            epoch: decision.epoch,
            slice: 1,
            clustered: true,
            rule: Arc::new(rule),
        })
    }
}
