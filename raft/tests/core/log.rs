//! A log of one's own: applies commands one after the other, as Raft would.

use std::collections::BTreeMap;

use starling_raft::state::models::{DataType, TensorSpec, VersionSettings};
use starling_raft::state::routes::rules::{Attribute, Condition, Rule, Test};
use starling_raft::state::routes::shadows::{Agreement, Comparison, Shadow};
use starling_raft::state::{
    Accepted, Addresses, ArtefactDigest, ClusterCommand, ClusterId, Command, EntryContext, Event,
    FeatureLevel, LogIndex, LogTime, MemberCommand, ModelCommand, ModelName, NodeId, NodeUuid, Ordinal,
    Outcome, PartsPerMillion, Principal, Rejection, RequestId, RouteCommand, Signature, State, VersionLabel,
    VersionRef, WallTime,
};
use uuid::Uuid;

pub const SECOND_MICROS: u64 = 1_000_000;

/// State, and where its log stands.
#[derive(Default)]
pub struct Log {
    pub state: State,
    pub index: u64,
    pub log_time_micros: u64,
    /// How far the leader's wall clock is set forward.
    pub wall_ahead_micros: u64,
    pub events: Vec<(EntryContext, Event)>,
}

impl Log {
    /// Empty: not even founded.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Founded (index 1), with its founder (index 2), which reads up to level 2.
    pub fn founded() -> Self {
        let mut log = Self::empty();
        log.accept(Command::Cluster(ClusterCommand::Found { cluster_id: cluster_id(1) }));
        log.accept(join(1, 2));
        log
    }

    /// Founded, with one more member: its id is 1003.
    pub fn of_two() -> Self {
        let mut log = Self::founded();
        log.accept(join(2, 2));
        log
    }

    /// Applies a command under a request id of its own.
    pub fn apply(&mut self, command: Command) -> (Vec<Event>, Outcome) {
        let request = request_id(1_000_000 + u128::from(self.index));
        self.apply_as(request, command)
    }

    pub fn apply_as(&mut self, request_id: RequestId, command: Command) -> (Vec<Event>, Outcome) {
        self.index += 1;
        self.log_time_micros += 1;
        let context = EntryContext {
            log_index: LogIndex::new(self.index),
            log_time: LogTime::from_micros(self.log_time_micros),
            wall_time: WallTime::from_unix_micros(
                1_700_000_000_000_000 + self.index + self.wall_ahead_micros,
            ),
            principal: Principal::local(),
            request_id,
        };
        let (events, outcome) = self.state.apply(&context, &command);
        self.events.extend(events.iter().map(|event| (context.clone(), event.clone())));
        (events, outcome)
    }

    /// Applies a command that must change something; gives its events.
    pub fn accept(&mut self, command: Command) -> Vec<Event> {
        let (events, outcome) = self.apply(command);
        assert!(outcome.expect("accepted").changed);
        events
    }

    /// Applies a command that must be accepted and change nothing; gives what it created before.
    pub fn find_unchanged(&mut self, command: Command) -> Option<u64> {
        let (events, outcome) = self.apply(command);
        let Accepted { changed, created, .. } = outcome.expect("accepted");
        assert_eq!((events, changed), (vec![], false));
        created
    }

    /// Applies a command that must be refused, without a trace in what it would have changed.
    pub fn refuse(&mut self, command: Command) -> Rejection {
        let before = self.state.clone();
        let (events, outcome) = self.apply(command);
        assert_eq!(events, vec![]);
        assert_eq!(self.state.members, before.members);
        assert_eq!(self.state.models, before.models);
        assert_eq!(self.state.routes, before.routes);
        assert_eq!(self.state.rollouts, before.rollouts);
        assert_eq!(self.state.cluster.feature_level, before.cluster.feature_level);
        outcome.expect_err("refused")
    }

    /// Registers version `label` of `model` with bytes `digest`, and marks it ready.
    pub fn push_ready(&mut self, model: &str, label: &str, digest: u8) -> Ordinal {
        self.accept(register(model, label, digest));
        let created = self.state.models.get(model).unwrap().next_ordinal.get() - 1;
        let ordinal = Ordinal::new(created);
        self.accept(mark_ready(model, created));
        ordinal
    }
}

pub fn cluster_id(number: u128) -> ClusterId {
    ClusterId::new(Uuid::from_u128(number))
}

pub fn node_uuid(number: u128) -> NodeUuid {
    NodeUuid::new(Uuid::from_u128(number))
}

pub fn request_id(number: u128) -> RequestId {
    RequestId::new(Uuid::from_u128(number))
}

pub fn model(name: &str) -> ModelName {
    name.parse().unwrap()
}

pub fn label(text: &str) -> VersionLabel {
    text.parse().unwrap()
}

pub fn ppm(value: u32) -> PartsPerMillion {
    PartsPerMillion::new(value).unwrap()
}

pub fn addresses(port: u16) -> Addresses {
    Addresses {
        peer: format!("10.0.0.1:{port}"),
        grpc: format!("10.0.0.1:{}", port + 1),
        rest: format!("10.0.0.1:{}", port + 2),
        metrics: format!("10.0.0.1:{}", port + 3),
    }
}

pub fn labels(zone: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("zone".to_owned(), zone.to_owned())])
}

pub fn join(uuid: u128, max_feature_level: u32) -> Command {
    join_at(uuid, max_feature_level, 8003)
}

pub fn join_at(uuid: u128, max_feature_level: u32, port: u16) -> Command {
    Command::Member(MemberCommand::Join {
        node_uuid: node_uuid(uuid),
        addresses: addresses(port),
        labels: labels("a"),
        max_feature_level: FeatureLevel::new(max_feature_level),
        starling_version: "0.1.0".to_owned(),
    })
}

pub fn drain(node_id: u64) -> Command {
    Command::Member(MemberCommand::Drain { node_id: NodeId::new(node_id) })
}

pub fn undrain(node_id: u64) -> Command {
    Command::Member(MemberCommand::Undrain { node_id: NodeId::new(node_id) })
}

pub fn remove(node_id: u64) -> Command {
    Command::Member(MemberCommand::Remove { node_id: NodeId::new(node_id) })
}

pub fn set_labels(node_id: u64, zone: &str) -> Command {
    Command::Member(MemberCommand::SetLabels { node_id: NodeId::new(node_id), labels: labels(zone) })
}

pub fn raise(level: u32) -> Command {
    Command::Cluster(ClusterCommand::RaiseFeatureLevel { level: FeatureLevel::new(level) })
}

pub fn signature() -> Signature {
    let tensor = |name: &str, data_type, shape: &[i64]| TensorSpec {
        name: name.to_owned(),
        data_type,
        shape: shape.to_vec(),
        optional: false,
    };
    Signature {
        inputs: vec![tensor("pixels", DataType::Fp32, &[-1, 64])],
        outputs: vec![tensor("label", DataType::Int64, &[-1]), tensor("p", DataType::Fp32, &[-1, 10])],
        batchable: true,
    }
}

pub fn register(name: &str, version: &str, digest: u8) -> Command {
    register_with(name, Some(version), digest, VersionSettings::default(), signature())
}

pub fn register_with(
    name: &str,
    version: Option<&str>,
    digest: u8,
    settings: VersionSettings,
    signature: Signature,
) -> Command {
    Command::Model(ModelCommand::RegisterVersion {
        model: model(name),
        label: version.map(label),
        digest: ArtefactDigest::new([digest; 32]),
        size_bytes: 1_000 + u64::from(digest),
        signature,
        settings,
    })
}

pub fn mark_ready(name: &str, ordinal: u64) -> Command {
    Command::Model(ModelCommand::MarkReady { model: model(name), ordinal: Ordinal::new(ordinal) })
}

pub fn mark_failed(name: &str, ordinal: u64, reason: &str) -> Command {
    Command::Model(ModelCommand::MarkFailed {
        model: model(name),
        ordinal: Ordinal::new(ordinal),
        reason: reason.to_owned(),
    })
}

pub fn delete_version(name: &str, version: &str) -> Command {
    Command::Model(ModelCommand::DeleteVersion { model: model(name), version: version.parse().unwrap() })
}

pub fn delete_model(name: &str) -> Command {
    Command::Model(ModelCommand::DeleteModel { model: model(name) })
}

pub fn set_placement(name: &str, replicas: u32) -> Command {
    Command::Model(ModelCommand::SetPlacement { model: model(name), replicas })
}

pub fn set_route(name: &str, weights: &[(&str, u32)]) -> Command {
    set_route_at(name, weights, None)
}

pub fn set_route_at(name: &str, weights: &[(&str, u32)], expected_epoch: Option<u64>) -> Command {
    Command::Route(RouteCommand::Set {
        model: model(name),
        weights: weights.iter().map(|(version, weight)| (version.parse().unwrap(), ppm(*weight))).collect(),
        expected_epoch: expected_epoch.map(starling_raft::state::Epoch::new),
    })
}

/// Rules and shadows in place of those that there are.
pub fn configure_route(
    name: &str,
    rules: Vec<Rule<VersionRef>>,
    shadows: Vec<Shadow<VersionRef>>,
    expected_epoch: Option<u64>,
) -> Command {
    Command::Route(RouteCommand::Configure {
        model: model(name),
        rules: Some(rules),
        shadows: Some(shadows),
        expected_epoch: expected_epoch.map(starling_raft::state::Epoch::new),
    })
}

/// A rule for requests whose parameter `tier` is its name.
pub fn rule(name: &str, portion: u32, version: &str) -> Rule<VersionRef> {
    let when = vec![Condition {
        attribute: Attribute::Parameter("tier".to_owned()),
        test: Test::Equals(name.to_owned()),
    }];
    Rule { name: name.parse().unwrap(), when, portion: ppm(portion), version: version.parse().unwrap() }
}

/// A shadow of every request whose outputs must be the same.
pub fn shadow(version: &str, portion: u32) -> Shadow<VersionRef> {
    let comparison = Comparison { outputs: vec![], others: Agreement::Exact };
    Shadow { version: version.parse().unwrap(), portion: ppm(portion), when: vec![], comparison }
}
