//! Answers as they are stored: in the state, for retries, and on the way back
//! to whoever asked. New refusals go to the end of the frozen enum, gated by a
//! feature level; none is ever changed or moved.

use super::pieces::{model_name, rollout_name, rule_name, version_label};
use super::{CodecError, Decode, Encode, Stored, freeze, thaw};
use crate::state::rollouts::SpecProblem;
use crate::state::{Accepted, Epoch, FeatureLevel, LogIndex, NodeId, Ordinal, Outcome, Rejection};

const OUTCOME: u16 = 0x0501;

/// Every (number, version) that can be read.
pub(super) const KNOWN: &[(u16, u16)] = &[(OUTCOME, 1)];

#[derive(Encode, Decode)]
pub(super) enum OutcomeV1 {
    Accepted { log_index: u64, changed: bool, created: Option<u64> },
    Rejected(RejectionV1),
}

#[derive(Encode, Decode)]
pub(super) enum RejectionV1 {
    UnknownModel(String),
    UnknownVersion { model: String, version: String },
    UnknownNode(u64),
    LabelTaken { model: String, label: String, ordinal: u64 },
    VersionNotReady { model: String, label: String },
    VersionInRoute { model: String, label: String },
    WeightsDoNotSum { model: String, sum_ppm: u64 },
    VersionNamedTwice { model: String, version: String },
    EpochMismatch { model: String, expected: u64, found: u64 },
    LastNode(u64),
    AlreadyFounded(String),
    NotFounded,
    FeatureLevelTooHigh { wanted: u32, node: u64, max: u32 },
    FeatureNotEnabled { needed: u32, current: u32 },
    NodeTooOld { cluster: u32, node: u32 },
    LimitReached { what: String, limit: u64 },
    // From feature level 3 on.
    NoRoute(String),
    RuleNamedTwice { model: String, rule: String },
    // From feature level 4 on.
    RouteOwned { model: String, rollout: String },
    UnknownRollout(String),
    RolloutExists { rollout: String, is_over: bool },
    RolloutOver(String),
    RolloutNotRunning(String),
    StageNotOver { rollout: String, stage: u32 },
    WinnerNeeded(String),
    NoSuchArm { rollout: String, version: String },
    NotAnExperiment(String),
    RouteMoved { rollout: String, model: String },
    RevisionMismatch { rollout: String, expected: u64, found: u64 },
    InvalidRollout { rollout: String, field: String, problem: SpecProblemV1 },
}

/// New ones go to the end, gated by a feature level.
#[derive(Encode, Decode)]
pub(super) enum SpecProblemV1 {
    OtherSignature { version: String, stable: String, tensor: String },
    NotTheWholeRoute { stable: String, weight_ppm: u32 },
    SameVersion(String),
    StableIsNoArm(String),
    Twice(String),
    OutOfRange { found: i64, min: i64, max: i64 },
    StepsDoNotGrow,
    WeightsDoNotSum(u64),
    TooMany { found: u64, max: u64 },
    Empty,
    NothingToLookAt { strategy: String, what: String },
}

/// Writes the newest version.
pub(super) fn store(outcome: &Outcome) -> Stored {
    Stored { number: OUTCOME, version: 1, payload: freeze(&OutcomeV1::from(outcome)) }
}

/// Reads whichever version.
pub(super) fn restore(number: u16, version: u16, payload: &[u8]) -> Result<Outcome, CodecError> {
    const WHAT: &str = "answer";
    match (number, version) {
        (OUTCOME, 1) => thaw::<OutcomeV1>(WHAT, payload)?.try_into(),
        (OUTCOME, _) => Err(CodecError::UnknownVersion { what: WHAT, number, version }),
        _ => Err(CodecError::UnknownType { what: WHAT, number }),
    }
}

impl From<&Outcome> for OutcomeV1 {
    fn from(live: &Outcome) -> Self {
        match live {
            Ok(Accepted { log_index, changed, created }) => {
                Self::Accepted { log_index: log_index.get(), changed: *changed, created: *created }
            }
            Err(rejection) => Self::Rejected(rejection.into()),
        }
    }
}

impl TryFrom<OutcomeV1> for Outcome {
    type Error = CodecError;

    fn try_from(frozen: OutcomeV1) -> Result<Self, CodecError> {
        match frozen {
            OutcomeV1::Accepted { log_index, changed, created } => {
                Ok(Ok(Accepted { log_index: LogIndex::new(log_index), changed, created }))
            }
            OutcomeV1::Rejected(rejection) => Ok(Err(rejection.try_into()?)),
        }
    }
}

impl From<&Rejection> for RejectionV1 {
    fn from(live: &Rejection) -> Self {
        match live.clone() {
            Rejection::UnknownModel(model) => Self::UnknownModel(model.to_string()),
            Rejection::UnknownVersion { model, version } => {
                Self::UnknownVersion { model: model.to_string(), version }
            }
            Rejection::UnknownNode(node_id) => Self::UnknownNode(node_id.get()),
            Rejection::LabelTaken { model, label, ordinal } => Self::LabelTaken {
                model: model.to_string(),
                label: label.to_string(),
                ordinal: ordinal.get(),
            },
            Rejection::VersionNotReady { model, label } => {
                Self::VersionNotReady { model: model.to_string(), label: label.to_string() }
            }
            Rejection::VersionInRoute { model, label } => {
                Self::VersionInRoute { model: model.to_string(), label: label.to_string() }
            }
            Rejection::WeightsDoNotSum { model, sum_ppm } => {
                Self::WeightsDoNotSum { model: model.to_string(), sum_ppm }
            }
            Rejection::VersionNamedTwice { model, version } => {
                Self::VersionNamedTwice { model: model.to_string(), version }
            }
            Rejection::EpochMismatch { model, expected, found } => {
                Self::EpochMismatch { model: model.to_string(), expected: expected.get(), found: found.get() }
            }
            Rejection::LastNode(node_id) => Self::LastNode(node_id.get()),
            Rejection::AlreadyFounded(cluster_id) => Self::AlreadyFounded(cluster_id),
            Rejection::NotFounded => Self::NotFounded,
            Rejection::FeatureLevelTooHigh { wanted, node, max } => {
                Self::FeatureLevelTooHigh { wanted: wanted.get(), node: node.get(), max: max.get() }
            }
            Rejection::FeatureNotEnabled { needed, current } => {
                Self::FeatureNotEnabled { needed: needed.get(), current: current.get() }
            }
            Rejection::NodeTooOld { cluster, node } => {
                Self::NodeTooOld { cluster: cluster.get(), node: node.get() }
            }
            Rejection::LimitReached { what, limit } => Self::LimitReached { what, limit },
            Rejection::NoRoute(model) => Self::NoRoute(model.to_string()),
            Rejection::RuleNamedTwice { model, rule } => {
                Self::RuleNamedTwice { model: model.to_string(), rule: rule.to_string() }
            }
            Rejection::RouteOwned { model, rollout } => {
                Self::RouteOwned { model: model.to_string(), rollout: rollout.to_string() }
            }
            Rejection::UnknownRollout(rollout) => Self::UnknownRollout(rollout.to_string()),
            Rejection::RolloutExists { rollout, is_over } => {
                Self::RolloutExists { rollout: rollout.to_string(), is_over }
            }
            Rejection::RolloutOver(rollout) => Self::RolloutOver(rollout.to_string()),
            Rejection::RolloutNotRunning(rollout) => Self::RolloutNotRunning(rollout.to_string()),
            Rejection::StageNotOver { rollout, stage } => {
                Self::StageNotOver { rollout: rollout.to_string(), stage }
            }
            Rejection::WinnerNeeded(rollout) => Self::WinnerNeeded(rollout.to_string()),
            Rejection::NoSuchArm { rollout, version } => {
                Self::NoSuchArm { rollout: rollout.to_string(), version }
            }
            Rejection::NotAnExperiment(rollout) => Self::NotAnExperiment(rollout.to_string()),
            Rejection::RouteMoved { rollout, model } => {
                Self::RouteMoved { rollout: rollout.to_string(), model: model.to_string() }
            }
            Rejection::RevisionMismatch { rollout, expected, found } => Self::RevisionMismatch {
                rollout: rollout.to_string(),
                expected: expected.get(),
                found: found.get(),
            },
            Rejection::InvalidRollout { rollout, field, problem } => {
                Self::InvalidRollout { rollout: rollout.to_string(), field, problem: problem.into() }
            }
        }
    }
}

impl TryFrom<RejectionV1> for Rejection {
    type Error = CodecError;

    fn try_from(frozen: RejectionV1) -> Result<Self, CodecError> {
        let live = match frozen {
            RejectionV1::UnknownModel(model) => Self::UnknownModel(model_name(&model)?),
            RejectionV1::UnknownVersion { model, version } => {
                Self::UnknownVersion { model: model_name(&model)?, version }
            }
            RejectionV1::UnknownNode(node_id) => Self::UnknownNode(NodeId::new(node_id)),
            RejectionV1::LabelTaken { model, label, ordinal } => Self::LabelTaken {
                model: model_name(&model)?,
                label: version_label(&label)?,
                ordinal: Ordinal::new(ordinal),
            },
            RejectionV1::VersionNotReady { model, label } => {
                Self::VersionNotReady { model: model_name(&model)?, label: version_label(&label)? }
            }
            RejectionV1::VersionInRoute { model, label } => {
                Self::VersionInRoute { model: model_name(&model)?, label: version_label(&label)? }
            }
            RejectionV1::WeightsDoNotSum { model, sum_ppm } => {
                Self::WeightsDoNotSum { model: model_name(&model)?, sum_ppm }
            }
            RejectionV1::VersionNamedTwice { model, version } => {
                Self::VersionNamedTwice { model: model_name(&model)?, version }
            }
            RejectionV1::EpochMismatch { model, expected, found } => Self::EpochMismatch {
                model: model_name(&model)?,
                expected: Epoch::new(expected),
                found: Epoch::new(found),
            },
            RejectionV1::LastNode(node_id) => Self::LastNode(NodeId::new(node_id)),
            RejectionV1::AlreadyFounded(cluster_id) => Self::AlreadyFounded(cluster_id),
            RejectionV1::NotFounded => Self::NotFounded,
            RejectionV1::FeatureLevelTooHigh { wanted, node, max } => Self::FeatureLevelTooHigh {
                wanted: FeatureLevel::new(wanted),
                node: NodeId::new(node),
                max: FeatureLevel::new(max),
            },
            RejectionV1::FeatureNotEnabled { needed, current } => Self::FeatureNotEnabled {
                needed: FeatureLevel::new(needed),
                current: FeatureLevel::new(current),
            },
            RejectionV1::NodeTooOld { cluster, node } => {
                Self::NodeTooOld { cluster: FeatureLevel::new(cluster), node: FeatureLevel::new(node) }
            }
            RejectionV1::LimitReached { what, limit } => Self::LimitReached { what, limit },
            RejectionV1::NoRoute(model) => Self::NoRoute(model_name(&model)?),
            RejectionV1::RuleNamedTwice { model, rule } => {
                Self::RuleNamedTwice { model: model_name(&model)?, rule: rule_name(&rule)? }
            }
            RejectionV1::RouteOwned { model, rollout } => {
                Self::RouteOwned { model: model_name(&model)?, rollout: rollout_name(&rollout)? }
            }
            RejectionV1::UnknownRollout(rollout) => Self::UnknownRollout(rollout_name(&rollout)?),
            RejectionV1::RolloutExists { rollout, is_over } => {
                Self::RolloutExists { rollout: rollout_name(&rollout)?, is_over }
            }
            RejectionV1::RolloutOver(rollout) => Self::RolloutOver(rollout_name(&rollout)?),
            RejectionV1::RolloutNotRunning(rollout) => Self::RolloutNotRunning(rollout_name(&rollout)?),
            RejectionV1::StageNotOver { rollout, stage } => {
                Self::StageNotOver { rollout: rollout_name(&rollout)?, stage }
            }
            RejectionV1::WinnerNeeded(rollout) => Self::WinnerNeeded(rollout_name(&rollout)?),
            RejectionV1::NoSuchArm { rollout, version } => {
                Self::NoSuchArm { rollout: rollout_name(&rollout)?, version }
            }
            RejectionV1::NotAnExperiment(rollout) => Self::NotAnExperiment(rollout_name(&rollout)?),
            RejectionV1::RouteMoved { rollout, model } => {
                Self::RouteMoved { rollout: rollout_name(&rollout)?, model: model_name(&model)? }
            }
            RejectionV1::RevisionMismatch { rollout, expected, found } => Self::RevisionMismatch {
                rollout: rollout_name(&rollout)?,
                expected: LogIndex::new(expected),
                found: LogIndex::new(found),
            },
            RejectionV1::InvalidRollout { rollout, field, problem } => {
                Self::InvalidRollout { rollout: rollout_name(&rollout)?, field, problem: problem.into() }
            }
        };
        Ok(live)
    }
}

impl From<SpecProblem> for SpecProblemV1 {
    fn from(live: SpecProblem) -> Self {
        match live {
            SpecProblem::OtherSignature { version, stable, tensor } => {
                Self::OtherSignature { version, stable, tensor }
            }
            SpecProblem::NotTheWholeRoute { stable, weight_ppm } => {
                Self::NotTheWholeRoute { stable, weight_ppm }
            }
            SpecProblem::SameVersion(version) => Self::SameVersion(version),
            SpecProblem::StableIsNoArm(version) => Self::StableIsNoArm(version),
            SpecProblem::Twice(what) => Self::Twice(what),
            SpecProblem::OutOfRange { found, min, max } => Self::OutOfRange { found, min, max },
            SpecProblem::StepsDoNotGrow => Self::StepsDoNotGrow,
            SpecProblem::WeightsDoNotSum(sum_ppm) => Self::WeightsDoNotSum(sum_ppm),
            SpecProblem::TooMany { found, max } => Self::TooMany { found, max },
            SpecProblem::Empty => Self::Empty,
            SpecProblem::NothingToLookAt { strategy, what } => Self::NothingToLookAt { strategy, what },
        }
    }
}

impl From<SpecProblemV1> for SpecProblem {
    fn from(frozen: SpecProblemV1) -> Self {
        match frozen {
            SpecProblemV1::OtherSignature { version, stable, tensor } => {
                Self::OtherSignature { version, stable, tensor }
            }
            SpecProblemV1::NotTheWholeRoute { stable, weight_ppm } => {
                Self::NotTheWholeRoute { stable, weight_ppm }
            }
            SpecProblemV1::SameVersion(version) => Self::SameVersion(version),
            SpecProblemV1::StableIsNoArm(version) => Self::StableIsNoArm(version),
            SpecProblemV1::Twice(what) => Self::Twice(what),
            SpecProblemV1::OutOfRange { found, min, max } => Self::OutOfRange { found, min, max },
            SpecProblemV1::StepsDoNotGrow => Self::StepsDoNotGrow,
            SpecProblemV1::WeightsDoNotSum(sum_ppm) => Self::WeightsDoNotSum(sum_ppm),
            SpecProblemV1::TooMany { found, max } => Self::TooMany { found, max },
            SpecProblemV1::Empty => Self::Empty,
            SpecProblemV1::NothingToLookAt { strategy, what } => Self::NothingToLookAt { strategy, what },
        }
    }
}
