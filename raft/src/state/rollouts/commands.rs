//! What is asked of rollouts, by people and by the leader's controller, and what
//! happened to them.

use serde::Serialize;

use super::super::{LogIndex, LogTime, NodeId, Ordinal, RolloutName, VersionRef};
use super::learning::{FeedbackDelta, RewardSum};
use super::spec::{Arm, RolloutSpec};
use super::{Ending, Measure, Weights};

/// What is asked about rollouts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutCommand {
    /// Begin. The same again changes nothing.
    Start {
        /// What people will call it.
        name: RolloutName,
        /// What it is to do.
        spec: Box<RolloutSpec<VersionRef>>,
        /// Run it anew if one of that name is over.
        again: bool,
    },
    /// Stop going on; gates still can roll back.
    Pause {
        /// Which.
        name: RolloutName,
    },
    /// Go on after a pause or a hold.
    Resume {
        /// Which.
        name: RolloutName,
    },
    /// Approve of a stage that waits for it: it ends as soon as its gates pass.
    /// Of any other stage, of one that is held, and with `full`: end it now,
    /// whatever the gates say.
    Promote {
        /// Which.
        name: RolloutName,
        /// Skip all stages that are left.
        full: bool,
        /// Who gets everything: experiments only, and needed there.
        winner: Option<VersionRef>,
    },
    /// Give the stable version everything back.
    Abort {
        /// Which.
        name: RolloutName,
        /// For the history.
        why: String,
    },
    /// Go back to what was before it; abort it if it is not over.
    Undo {
        /// Which.
        name: RolloutName,
    },
    /// Replace the arms of an experiment.
    SetArms {
        /// Which.
        name: RolloutName,
        /// All of them; weights sum to the whole.
        arms: Vec<Arm<VersionRef>>,
    },
    /// Forget the rewards that were credited in a time.
    DropLearning {
        /// Which.
        name: RolloutName,
        /// First moment, in log time.
        from: LogTime,
        /// Last moment, in log time.
        to: LogTime,
    },
    /// The controller: the next stage.
    Advance {
        /// Which, and as it was when it was looked at.
        step: Step,
        /// The stage to enter; the one after the present.
        stage: u32,
    },
    /// The controller: a gate has failed.
    RollBack {
        /// Which, and as it was when it was looked at.
        step: Step,
    },
    /// The controller: a person has to decide.
    Hold {
        /// Which, and as it was when it was looked at.
        step: Step,
    },
    /// The controller: new weights of a bandit.
    Publish {
        /// Which, and as it was when it was looked at.
        step: Step,
        /// Of its arms.
        weights: Weights,
    },
    /// The controller: it is over, and `winner` has everything; absent: nobody
    /// wins, and the stable version has.
    Conclude {
        /// Which, and as it was when it was looked at.
        step: Step,
        /// Who gets everything.
        winner: Option<Ordinal>,
    },
    /// A node: rewards of its decisions.
    RecordFeedback(FeedbackDelta),
}

/// What the controller says with every step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which rollout.
    pub name: RolloutName,
    /// As it was when it was looked at: refused if it has changed since, so that
    /// a step happens once, whoever leads.
    pub expected_revision: LogIndex,
    /// For people.
    pub why: String,
    /// The numbers behind it.
    pub evidence: Vec<Measure>,
}

/// What happened to rollouts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum RolloutEvent {
    /// It owns the route from here on.
    RolloutStarted {
        /// What people call it.
        name: RolloutName,
        /// What it is to do.
        spec: Box<RolloutSpec>,
        /// Of its first stage.
        weights: Weights,
    },
    /// A person stopped it.
    RolloutPaused {
        /// Which.
        name: RolloutName,
    },
    /// It goes on.
    RolloutResumed {
        /// Which.
        name: RolloutName,
    },
    /// A person said that its stage may end.
    RolloutApproved {
        /// Which.
        name: RolloutName,
    },
    /// It entered a stage.
    RolloutAdvanced {
        /// Which.
        name: RolloutName,
        /// Index among its stages.
        stage: u32,
        /// From here on.
        weights: Weights,
        /// For people.
        why: String,
        /// The numbers behind it; none if a person did it.
        evidence: Vec<Measure>,
    },
    /// A person has to decide.
    RolloutHeld {
        /// Which.
        name: RolloutName,
        /// What it could not tell.
        why: String,
        /// The numbers behind it.
        evidence: Vec<Measure>,
    },
    /// A bandit's weights changed.
    RolloutPublished {
        /// Which.
        name: RolloutName,
        /// From here on.
        weights: Weights,
        /// For people.
        why: String,
        /// The numbers behind it.
        evidence: Vec<Measure>,
    },
    /// It is over.
    RolloutFinished {
        /// Which.
        name: RolloutName,
        /// How.
        ending: Ending,
        /// Who has the whole route from here on.
        weights: Weights,
        /// For people.
        why: String,
        /// The numbers behind it; none if a person did it.
        evidence: Vec<Measure>,
    },
    /// An experiment has other arms.
    RolloutArmsSet {
        /// Which.
        name: RolloutName,
        /// All of them.
        arms: Vec<Arm>,
        /// From here on.
        weights: Weights,
    },
    /// Rewards were forgotten.
    RolloutLearningDropped {
        /// Which.
        name: RolloutName,
        /// First slice.
        first_slice: u32,
        /// Last slice.
        last_slice: u32,
        /// How many rewards they were.
        rewards: i64,
    },
    /// Rewards of one node's decisions came.
    FeedbackRecorded {
        /// Whose decisions.
        node: NodeId,
        /// Counts its deltas.
        sequence: u64,
        /// What they sum to.
        sums: Vec<RewardSum>,
    },
}

impl RolloutEvent {
    /// The event's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RolloutStarted { .. } => "RolloutStarted",
            Self::RolloutPaused { .. } => "RolloutPaused",
            Self::RolloutResumed { .. } => "RolloutResumed",
            Self::RolloutApproved { .. } => "RolloutApproved",
            Self::RolloutAdvanced { .. } => "RolloutAdvanced",
            Self::RolloutHeld { .. } => "RolloutHeld",
            Self::RolloutPublished { .. } => "RolloutPublished",
            Self::RolloutFinished { .. } => "RolloutFinished",
            Self::RolloutArmsSet { .. } => "RolloutArmsSet",
            Self::RolloutLearningDropped { .. } => "RolloutLearningDropped",
            Self::FeedbackRecorded { .. } => "FeedbackRecorded",
        }
    }

    /// Which rollout, if it is of one.
    pub fn rollout(&self) -> Option<&RolloutName> {
        match self {
            Self::RolloutStarted { name, .. }
            | Self::RolloutPaused { name }
            | Self::RolloutResumed { name }
            | Self::RolloutApproved { name }
            | Self::RolloutAdvanced { name, .. }
            | Self::RolloutHeld { name, .. }
            | Self::RolloutPublished { name, .. }
            | Self::RolloutFinished { name, .. }
            | Self::RolloutArmsSet { name, .. }
            | Self::RolloutLearningDropped { name, .. } => Some(name),
            Self::FeedbackRecorded { .. } => None,
        }
    }
}
