//! The leader's controller of rollouts.

use starling_raft::consensus::Consensus;
use starling_raft::state::rollouts::RolloutSpec;
use starling_raft::state::{Rejection, RolloutName, VersionRef};
use thiserror::Error;

use super::report::{DryRun, NextStep, RolloutReport};

/// Looks at every rollout that is not over, while this node leads.
pub struct RolloutController {
    consensus: Consensus,
}

/// Why a plan could not be tried.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DryRunError {
    /// Only the leader knows what all nodes count.
    #[error("this node does not lead and does not know what all nodes count; ask the leader")]
    NotLeading,
    /// It would be refused.
    #[error("{0}")]
    Refused(Rejection),
}

impl RolloutController {
    pub(crate) fn new(consensus: Consensus) -> Self {
        Self { consensus }
    }

    /// How a rollout stands; `None`: this node does not lead, or knows no rollout
    /// of that name. Answers at once from memory.
    pub fn report(&self, name: &str) -> Option<RolloutReport> {
        if !self.consensus.status().is_leader {
            return None;
        }
        let rollout = self.consensus.applied().state.rollouts.get(name)?.clone();
        let next = NextStep { what: "not known yet".to_owned(), waits_for: Vec::new(), not_before: None };
        Some(RolloutReport {
            rollout,
            versions: Vec::new(),
            gates: Vec::new(),
            next,
            reported_by: Vec::new(),
        })
    }

    /// What this plan would do, given what the cluster has counted so far. Changes
    /// nothing. Refused as its start would be.
    pub fn dry_run(&self, name: &RolloutName, spec: &RolloutSpec<VersionRef>) -> Result<DryRun, DryRunError> {
        let _ = (name, spec);
        Err(DryRunError::NotLeading)
    }
}
