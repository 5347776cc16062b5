//! Replicated states for tests, made by applying real commands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use starling_raft::state::models::{DataType, TensorSpec, VersionSettings};
use starling_raft::state::rollouts::RolloutCommand;
use starling_raft::state::rollouts::spec::{
    Arm, CanaryStep, Correction, Experiment, Millis, OnFailure, OnInconclusive, Pause, Reward, RewardKind,
    RolloutSpec, Strategy,
};
use starling_raft::state::routes::rules::Rule;
use starling_raft::state::routes::shadows::Shadow;
use starling_raft::state::{
    Addresses, ArtefactDigest, ClusterCommand, ClusterId, Command, EntryContext, Event, FeatureLevel,
    LogIndex, LogTime, MemberCommand, ModelCommand, NodeId, NodeUuid, Ordinal, PartsPerMillion, Principal,
    RequestId, RouteCommand, Signature, State, VersionRef, WallTime,
};
use uuid::Uuid;

use super::routing_table::{RoutedVersion, RoutingTable};

/// A state and the index of its last entry. By default the cluster is founded
/// (entry 1) and has nothing.
#[derive(Debug, Clone)]
pub(crate) struct TestState {
    pub(crate) state: State,
    pub(crate) index: u64,
    /// All that happened.
    pub(crate) events: Vec<(EntryContext, Event)>,
}

impl Default for TestState {
    fn default() -> Self {
        let mut cluster = Self { state: State::default(), index: 0, events: Vec::new() };
        let cluster_id = ClusterId::new(Uuid::from_u128(1));
        cluster.apply(Command::Cluster(ClusterCommand::Found { cluster_id }));
        cluster
    }
}

impl TestState {
    /// Applies a command that must be accepted; answers with what it created.
    pub(crate) fn apply(&mut self, command: Command) -> Option<u64> {
        self.index += 1;
        let context = EntryContext {
            log_index: LogIndex::new(self.index),
            log_time: LogTime::from_micros(self.index),
            wall_time: WallTime::from_unix_micros(self.index),
            principal: Principal::local(),
            request_id: RequestId::new(Uuid::from_u128(u128::from(self.index))),
        };
        let (events, outcome) = self.state.apply(&context, &command);
        self.events.extend(events.into_iter().map(|event| (context.clone(), event)));
        outcome.expect("the command is accepted").created
    }

    /// Registers a version with the next default label.
    pub(crate) fn register(&mut self, model: &str) -> Ordinal {
        self.register_with(model, VersionSettings::default())
    }

    /// Registers a version that is run in a particular way.
    pub(crate) fn register_with(&mut self, model: &str, settings: VersionSettings) -> Ordinal {
        let created = self.apply(Command::Model(ModelCommand::RegisterVersion {
            model: model.parse().unwrap(),
            label: None,
            digest: ArtefactDigest::new([7; 32]),
            size_bytes: 3,
            signature: signature(),
            settings,
        }));
        Ordinal::new(created.unwrap())
    }

    /// Marks a version ready.
    pub(crate) fn ready(&mut self, model: &str, ordinal: Ordinal) {
        self.apply(Command::Model(ModelCommand::MarkReady { model: model.parse().unwrap(), ordinal }));
    }

    /// Marks a version failed.
    pub(crate) fn failed(&mut self, model: &str, ordinal: Ordinal, reason: &str) {
        let reason = reason.to_owned();
        let model = model.parse().unwrap();
        self.apply(Command::Model(ModelCommand::MarkFailed { model, ordinal, reason }));
    }

    /// Sets a route, such as `[("v1", 900_000), ("v2", 100_000)]`.
    pub(crate) fn route(&mut self, model: &str, weights: &[(&str, u32)]) {
        let weights = weights
            .iter()
            .map(|(version, ppm)| (version.parse().unwrap(), PartsPerMillion::new(*ppm).unwrap()))
            .collect();
        let model = model.parse().unwrap();
        self.apply(Command::Route(RouteCommand::Set { model, weights, expected_epoch: None }));
    }

    /// Sets rules and shadows.
    pub(crate) fn configure(
        &mut self,
        model: &str,
        rules: Vec<Rule<VersionRef>>,
        shadows: Vec<Shadow<VersionRef>>,
    ) {
        self.raise(3);
        let (rules, shadows) = (Some(rules), Some(shadows));
        let model = model.parse().unwrap();
        self.apply(Command::Route(RouteCommand::Configure { model, rules, shadows, expected_epoch: None }));
    }

    /// Begins a rollout.
    pub(crate) fn start_rollout(&mut self, name: &str, spec: RolloutSpec<VersionRef>) {
        self.raise(4);
        let (name, spec) = (name.parse().unwrap(), Box::new(spec));
        self.apply(Command::Rollout(RolloutCommand::Start { name, spec, again: true }));
    }

    /// Ends one.
    pub(crate) fn abort_rollout(&mut self, name: &str) {
        let (name, why) = (name.parse().unwrap(), String::new());
        self.apply(Command::Rollout(RolloutCommand::Abort { name, why }));
    }

    fn raise(&mut self, level: u32) {
        let level = FeatureLevel::new(level);
        self.apply(Command::Cluster(ClusterCommand::RaiseFeatureLevel { level }));
    }

    /// A new member.
    pub(crate) fn join(&mut self) -> NodeId {
        let created = self.apply(Command::Member(MemberCommand::Join {
            node_uuid: NodeUuid::new(Uuid::from_u128(u128::from(self.index) + 1_000_000)),
            addresses: Addresses::default(),
            labels: BTreeMap::new(),
            max_feature_level: FeatureLevel::new(4),
            starling_version: "0.1.0".to_owned(),
        }));
        NodeId::new(created.unwrap())
    }

    /// Keeps work away from a member.
    pub(crate) fn drain(&mut self, node_id: NodeId) {
        self.apply(Command::Member(MemberCommand::Drain { node_id }));
    }

    /// Says on how many nodes a model is to be loaded.
    pub(crate) fn replicas(&mut self, model: &str, replicas: u32) {
        let model = model.parse().unwrap();
        self.apply(Command::Model(ModelCommand::SetPlacement { model, replicas }));
    }

    /// Takes one version away.
    pub(crate) fn delete_version(&mut self, model: &str, ordinal: Ordinal) {
        let version = VersionRef::Ordinal(ordinal);
        self.apply(Command::Model(ModelCommand::DeleteVersion { model: model.parse().unwrap(), version }));
    }

    /// Takes a model away.
    pub(crate) fn delete(&mut self, model: &str) {
        self.apply(Command::Model(ModelCommand::DeleteModel { model: model.parse().unwrap() }));
    }
}

/// A canary whose first step gives the candidate so much.
pub(crate) fn canary(model: &str, from: &str, to: &str, first_ppm: u32) -> RolloutSpec<VersionRef> {
    let step = |weight| CanaryStep { weight, pause: Pause::UntilApproved, gates: Vec::new() };
    let steps = vec![step(PartsPerMillion::new(first_ppm).unwrap()), step(PartsPerMillion::WHOLE)];
    spec(model, from, Strategy::Canary { to: to.parse().unwrap(), steps })
}

/// An A/B test of conversions; the first arm is the control.
pub(crate) fn ab_test(model: &str, arms: &[(&str, &str, u32)]) -> RolloutSpec<VersionRef> {
    let from = arms[0].1;
    let arms = arms.iter().map(|(name, version, ppm)| Arm {
        name: name.parse().unwrap(),
        version: version.parse().unwrap(),
        weight: PartsPerMillion::new(*ppm).unwrap(),
    });
    let metric = Reward { kind: RewardKind::Conversion, higher_is_better: true, labels: Vec::new() };
    let experiment = Experiment {
        arms: arms.collect(),
        metric,
        alpha: PartsPerMillion::new(50_000).unwrap(),
        correction: Correction::Holm,
        decide_automatically: true,
        enrolment: PartsPerMillion::WHOLE,
        min_rewards: 100,
        max_duration: Millis::from_secs(3_600),
    };
    spec(model, from, Strategy::AbTest(experiment))
}

fn spec(model: &str, from: &str, strategy: Strategy<VersionRef>) -> RolloutSpec<VersionRef> {
    RolloutSpec {
        model: model.parse().unwrap(),
        from: from.parse().unwrap(),
        strategy,
        gates: Vec::new(),
        on_failure: OnFailure::Rollback,
        on_inconclusive: OnInconclusive::Hold,
        inconclusive_after: Millis::from_secs(3_600),
        retry_on_stable: false,
        interval: Millis::from_secs(1),
        webhooks: Vec::new(),
    }
}

/// Version 1 of a model that nothing else is known of, as the routing table has it.
pub(crate) fn routed_version(model: &str) -> Arc<RoutedVersion> {
    let mut cluster = TestState::default();
    let ordinal = cluster.register(model);
    let table = RoutingTable::default().updated(&cluster.state).unwrap();
    Arc::clone(table.model(model).unwrap().version(ordinal).unwrap())
}

/// `x: FP32 [-1, 4]` to `y: FP32 [-1, 2]`.
fn signature() -> Signature {
    let tensor = |name: &str, columns| TensorSpec {
        name: name.to_owned(),
        data_type: DataType::Fp32,
        shape: vec![-1, columns],
        optional: false,
    };
    Signature { inputs: vec![tensor("x", 4)], outputs: vec![tensor("y", 2)], batchable: true }
}
