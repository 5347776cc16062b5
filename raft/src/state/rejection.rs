//! Why a command is refused: the same value on every node.

use super::identifiers::{
    Epoch, FeatureLevel, LogIndex, ModelName, NodeId, Ordinal, RolloutName, RuleName, VersionLabel,
};
use super::rollouts::SpecProblem;

/// A refusal. Replicated as a success is: a retry gets it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No such model.
    #[error("model '{0}' is not found; `starling get models` lists what there is")]
    UnknownModel(ModelName),
    /// No such version.
    #[error("model '{model}' has no version '{version}'; `starling get versions` lists what there is")]
    UnknownVersion {
        /// The model.
        model: ModelName,
        /// The label or ordinal that was asked for.
        version: String,
    },
    /// No such node.
    #[error("node {0} is not a member; `starling get nodes` lists who is")]
    UnknownNode(NodeId),
    /// The label belongs to other bytes or other settings.
    #[error(
        "model '{model}' already has a version '{label}' (ordinal {ordinal}) with other bytes or settings; versions are immutable, push under another label"
    )]
    LabelTaken {
        /// The model.
        model: ModelName,
        /// The label.
        label: VersionLabel,
        /// The version that has it.
        ordinal: Ordinal,
    },
    /// A route may name only ready versions.
    #[error(
        "version '{label}' of model '{model}' is not ready on the nodes that should serve it; wait for it, or see why with `starling get versions {model}`"
    )]
    VersionNotReady {
        /// The model.
        model: ModelName,
        /// The version's label.
        label: VersionLabel,
    },
    /// A version that a route names cannot be deleted.
    #[error("version '{label}' of model '{model}' is in its route; move the route away first")]
    VersionInRoute {
        /// The model.
        model: ModelName,
        /// The version's label.
        label: VersionLabel,
    },
    /// Weights must sum to the whole.
    #[error("the weights of model '{model}' sum to {}.{:04} % instead of 100 %", .sum_ppm / 10_000, .sum_ppm % 10_000)]
    WeightsDoNotSum {
        /// The model.
        model: ModelName,
        /// What they sum to.
        sum_ppm: u64,
    },
    /// There is nothing to configure yet.
    #[error("model '{0}' has no route yet: none of its versions is ready; see `starling get versions {0}`")]
    NoRoute(ModelName),
    /// The same name twice among the rules of one route.
    #[error("two rules of the route of model '{model}' are called '{rule}'")]
    RuleNamedTwice {
        /// The model.
        model: ModelName,
        /// The name.
        rule: RuleName,
    },
    /// The same version twice in one route.
    #[error("version '{version}' is named twice in the route of model '{model}'")]
    VersionNamedTwice {
        /// The model.
        model: ModelName,
        /// The label or ordinal.
        version: String,
    },
    /// Somebody else changed the route in between.
    #[error(
        "the route of model '{model}' is at epoch {found}, not {expected}: somebody changed it in between; read it again"
    )]
    EpochMismatch {
        /// The model.
        model: ModelName,
        /// What the command expected.
        expected: Epoch,
        /// What it is.
        found: Epoch,
    },
    /// The last node cannot be removed or drained.
    #[error("node {0} is the last one that can serve; add another first")]
    LastNode(NodeId),
    /// The cluster has another id.
    #[error("the cluster already has the id {0}")]
    AlreadyFounded(String),
    /// The cluster has no id yet.
    #[error("the cluster is not founded yet; try again")]
    NotFounded,
    /// A member cannot read that level.
    #[error(
        "feature level {wanted} cannot be raised to: node {node} can read {max} at most; update it first"
    )]
    FeatureLevelTooHigh {
        /// What was asked for.
        wanted: FeatureLevel,
        /// Who cannot.
        node: NodeId,
        /// What it can.
        max: FeatureLevel,
    },
    /// The command needs a higher feature level than the cluster's.
    #[error(
        "this command, or a setting in it, needs feature level {needed} and the cluster is at {current}; it rises by itself once every node runs a binary that knows it: `starling get nodes -o json` shows which does not"
    )]
    FeatureNotEnabled {
        /// Needed.
        needed: FeatureLevel,
        /// In force.
        current: FeatureLevel,
    },
    /// A node that cannot read what the cluster writes.
    #[error(
        "this cluster writes feature level {cluster}, the node can read {node} at most; update it before it joins"
    )]
    NodeTooOld {
        /// The cluster's level.
        cluster: FeatureLevel,
        /// The node's.
        node: FeatureLevel,
    },
    /// A limit that keeps the state small.
    #[error("{what} is limited to {limit}")]
    LimitReached {
        /// What.
        what: String,
        /// How many.
        limit: u64,
    },
    /// Somebody else sets the weights.
    #[error(
        "the weights of model '{model}' belong to rollout '{rollout}' until it is over; `starling rollout status {rollout}` shows it, `starling rollout abort {rollout}` ends it"
    )]
    RouteOwned {
        /// The model.
        model: ModelName,
        /// The rollout.
        rollout: RolloutName,
    },
    /// No such rollout.
    #[error("rollout '{0}' is not found; `starling rollout list` lists what there is")]
    UnknownRollout(RolloutName),
    /// The name is another plan's.
    #[error(
        "rollout '{rollout}' exists with another plan{}; give this one another name{}",
        if *.is_over { " and is over" } else { "" },
        if *.is_over { ", or start it anew with `starling rollout start --again`" } else { "" }
    )]
    RolloutExists {
        /// The rollout.
        rollout: RolloutName,
        /// Whether that one is over.
        is_over: bool,
    },
    /// Nothing can be done to it any more.
    #[error("rollout '{0}' is over; `starling rollout status {0}` says how it ended")]
    RolloutOver(RolloutName),
    /// Paused or held.
    #[error("rollout '{0}' is paused or held; `starling rollout resume {0}` lets it go on")]
    RolloutNotRunning(RolloutName),
    /// The stage's time, or its approval, has not come.
    #[error("stage {stage} of rollout '{rollout}' is not over yet")]
    StageNotOver {
        /// The rollout.
        rollout: RolloutName,
        /// Index among its stages.
        stage: u32,
    },
    /// An experiment does not know by itself who wins.
    #[error("rollout '{0}' has several arms: say which version gets everything with `--winner VERSION`")]
    WinnerNeeded(RolloutName),
    /// The version is none of the arms.
    #[error("version '{version}' is no arm of rollout '{rollout}'")]
    NoSuchArm {
        /// The rollout.
        rollout: RolloutName,
        /// Label or ordinal.
        version: String,
    },
    /// It has no arms.
    #[error("rollout '{0}' is no experiment of several arms")]
    NotAnExperiment(RolloutName),
    /// Somebody changed the route since the rollout ended.
    #[error(
        "the route of model '{model}' is no longer what rollout '{rollout}' made of it; set it with `starling route set {model}`"
    )]
    RouteMoved {
        /// The rollout.
        rollout: RolloutName,
        /// The model.
        model: ModelName,
    },
    /// Somebody changed the rollout since it was looked at.
    #[error("rollout '{rollout}' is at revision {found}, not {expected}: it changed in between")]
    RevisionMismatch {
        /// The rollout.
        rollout: RolloutName,
        /// What the command expected.
        expected: LogIndex,
        /// What it is.
        found: LogIndex,
    },
    /// The plan cannot be carried out.
    #[error("rollout '{rollout}': {field}: {problem}")]
    InvalidRollout {
        /// The rollout.
        rollout: RolloutName,
        /// The field's path in its manifest.
        field: String,
        /// What is wrong with it.
        problem: SpecProblem,
    },
}
