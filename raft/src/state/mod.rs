//! The replicated state: what is asked ([`Command`]), what happened
//! ([`Event`]), and what all events fold into ([`State`]).
//!
//! Nothing in this folder reads a clock, a random number or the order of a hash
//! map, does I/O, or stores the result of floating-point arithmetic: every node
//! must fold the same log to the same state, bit for bit.

pub mod bucket;
pub mod clock;
pub mod cluster;
pub mod decision;
pub mod identifiers;
pub mod members;
pub mod models;
pub mod ownership;
pub mod placement;
pub mod rejection;
pub mod requests;
pub mod rollouts;
pub mod routes;

use serde::Serialize;

pub use clock::{LogTime, WallTime};
pub use cluster::{Cluster, ClusterCommand, ClusterEvent};
pub use identifiers::{
    ArmName, ArtefactDigest, ClusterId, Epoch, FeatureLevel, LogIndex, ModelName, NodeId, NodeUuid, Ordinal,
    PartsPerMillion, Principal, RequestId, RolloutName, RuleName, VersionLabel, VersionRef,
};
pub use members::{Addresses, Member, MemberCommand, MemberEvent, Members};
pub use models::{Model, ModelCommand, ModelEvent, Models, Phase, Signature, Version};
pub use rejection::Rejection;
pub use requests::RecentRequests;
pub use rollouts::{Rollout, RolloutCommand, RolloutEvent, Rollouts};
pub use routes::{Route, RouteCommand, RouteEvent, Routes};

/// What is asked of the cluster. Each variant belongs to one aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Concerns the cluster as a whole.
    Cluster(ClusterCommand),
    /// Concerns who belongs to it.
    Member(MemberCommand),
    /// Concerns models and their versions.
    Model(ModelCommand),
    /// Concerns which version answers.
    Route(RouteCommand),
    /// Concerns plans that change a route over time.
    Rollout(RolloutCommand),
}

impl Command {
    /// How long the entry that carries it is worth keeping.
    pub fn class(&self) -> EventClass {
        if self.is_telemetry() { EventClass::Telemetry } else { EventClass::Audit }
    }

    /// Such commands come all the time and say themselves whether they have come
    /// before, so their answers are not remembered.
    fn is_telemetry(&self) -> bool {
        matches!(self, Self::Rollout(RolloutCommand::RecordFeedback(_)))
    }

    /// The feature level that the cluster must have before this is accepted:
    /// below it, a member might not be able to read what it causes.
    pub fn feature_level(&self) -> FeatureLevel {
        match self {
            Self::Cluster(ClusterCommand::Found { .. }) => FeatureLevel::new(0),
            Self::Member(MemberCommand::SetLabels { .. }) => FeatureLevel::new(2),
            Self::Model(ModelCommand::RegisterVersion { settings, .. })
                if !settings.fit_feature_level_1() =>
            {
                FeatureLevel::new(2)
            }
            Self::Route(RouteCommand::Configure { .. }) => FeatureLevel::new(3),
            Self::Rollout(_) => FeatureLevel::new(4),
            Self::Cluster(_) | Self::Member(_) | Self::Model(_) | Self::Route(_) => FeatureLevel::new(1),
        }
    }
}

/// What happened. Events are kept for ever; commands are not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Event {
    /// The cluster as a whole changed.
    Cluster(ClusterEvent),
    /// A member came, changed or went.
    Member(MemberEvent),
    /// A model or version came, changed or went.
    Model(ModelEvent),
    /// A route changed.
    Route(RouteEvent),
    /// A rollout went on, or learnt.
    Rollout(RolloutEvent),
}

/// How long an event is kept in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventClass {
    /// Who changed what.
    Audit,
    /// Samples and deltas, of which there are many.
    Telemetry,
}

/// The answer to a command, the same on every node.
pub type Outcome = Result<Accepted, Rejection>;

/// A command that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The index of the log entry that carried the command.
    pub log_index: LogIndex,
    /// False: the state already was what the command asked for.
    pub changed: bool,
    /// The ordinal or node id that the command brought into being, or that is
    /// what it asked for already.
    pub created: Option<u64>,
}

/// What an entry says beside its command; the same for every event of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryContext {
    /// Index of the entry in the log.
    pub log_index: LogIndex,
    /// Leader's log time; never behind that of the entry before.
    pub log_time: LogTime,
    /// Leader's wall clock, for people.
    pub wall_time: WallTime,
    /// Who asked.
    pub principal: Principal,
    /// The client's id of this request; retries repeat it.
    pub request_id: RequestId,
}

/// Everything the log has said so far. Cloning shares all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The cluster's identity, feature level and clock.
    pub cluster: Cluster,
    /// Who belongs to it.
    pub members: Members,
    /// Models and their versions.
    pub models: Models,
    /// Which version answers.
    pub routes: Routes,
    /// Plans that change a route over time.
    pub rollouts: Rollouts,
    /// Answers to recent requests, for retries.
    pub requests: RecentRequests,
}

impl State {
    /// Decides a command without changing anything: the events it causes, or
    /// why it is refused. No events: the state already is what was asked for.
    pub fn decide(&self, context: &EntryContext, command: &Command) -> Result<Vec<Event>, Rejection> {
        self.require_feature_level(command)?;
        match command {
            Command::Cluster(command) => cluster::decide(self, command),
            Command::Member(command) => members::decide(self, context, command),
            Command::Model(command) => models::decide(self, command),
            Command::Route(command) => routes::decide(self, command),
            Command::Rollout(command) => rollouts::decide(self, context, command),
        }
    }

    /// Also asked before a command is written: a member that cannot read it
    /// would stop at it.
    pub(crate) fn require_feature_level(&self, command: &Command) -> Result<(), Rejection> {
        let (needed, current) = (command.feature_level(), self.cluster.feature_level);
        if needed <= current {
            return Ok(());
        }
        if self.cluster.id.is_none() {
            return Err(Rejection::NotFounded);
        }
        Err(Rejection::FeatureNotEnabled { needed, current })
    }

    /// Folds one event in. Events are facts: this cannot fail.
    pub fn evolve(&mut self, context: &EntryContext, event: &Event) {
        // Done already where the entry is applied; not where events alone are folded.
        self.cluster.advance_clock(context.log_time, context.wall_time);
        match event {
            Event::Cluster(event) => cluster::evolve(self, event),
            Event::Member(event) => members::evolve(self, event),
            Event::Model(event) => models::evolve(self, context, event),
            Event::Route(event) => routes::evolve(self, context, event),
            Event::Rollout(event) => rollouts::evolve(self, context, event),
        }
    }

    /// Applies one committed command: advances the clock, answers a retry with
    /// its first answer, else decides and evolves. Returns the events to be
    /// appended to the history, and the answer.
    pub fn apply(&mut self, context: &EntryContext, command: &Command) -> (Vec<Event>, Outcome) {
        self.cluster.advance_clock(context.log_time, context.wall_time);
        let now = self.cluster.log_time;
        self.requests.forget_old(now);
        if !command.is_telemetry()
            && let Some(first_answer) = self.requests.answer_to(context.request_id)
        {
            return (Vec::new(), first_answer.clone());
        }
        let decided = self.decide(context, command);
        let (events, outcome) = match decided {
            Ok(events) => {
                for event in &events {
                    self.evolve(context, event);
                }
                let created = events.iter().find_map(Event::created).or_else(|| self.created_before(command));
                let changed = !events.is_empty();
                let accepted = Accepted { log_index: context.log_index, changed, created };
                (events, Ok(accepted))
            }
            Err(rejection) => (Vec::new(), Err(rejection)),
        };
        if !command.is_telemetry() {
            self.requests.remember(context.request_id, now, outcome.clone());
        }
        (events, outcome)
    }

    /// What a command would have brought into being, had it not been there.
    fn created_before(&self, command: &Command) -> Option<u64> {
        match command {
            Command::Member(MemberCommand::Join { node_uuid, .. }) => {
                self.members.by_uuid(*node_uuid).map(|member| member.node_id.get())
            }
            Command::Model(ModelCommand::RegisterVersion { model, label: Some(label), .. }) => {
                let version = self.models.get(model.as_str())?.version(&VersionRef::Label(label.clone()))?;
                Some(version.ordinal.get())
            }
            _ => None,
        }
    }
}

impl Event {
    /// The event's name, as history and clients show it.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Cluster(event) => event.kind(),
            Event::Member(event) => event.kind(),
            Event::Model(event) => event.kind(),
            Event::Route(event) => event.kind(),
            Event::Rollout(event) => event.kind(),
        }
    }

    /// How long it is kept.
    pub fn class(&self) -> EventClass {
        match self {
            Event::Rollout(RolloutEvent::FeedbackRecorded { .. }) => EventClass::Telemetry,
            _ => EventClass::Audit,
        }
    }

    fn created(&self) -> Option<u64> {
        match self {
            Event::Member(MemberEvent::NodeJoined { node_id, .. }) => Some(node_id.get()),
            Event::Model(ModelEvent::VersionRegistered { ordinal, .. }) => Some(ordinal.get()),
            _ => None,
        }
    }
}
