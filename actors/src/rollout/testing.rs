//! A rollout in a replicated state made by real commands, under a clock and
//! traffic of a test's choosing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use starling_raft::state::rollouts::learning::{FeedbackDelta, RewardSum, RewardTotals};
use starling_raft::state::rollouts::spec::{
    Arm, CanaryStep, Gate, GateTest, Micro, Millis, OnFailure, OnInconclusive, Pause, RolloutSpec, Strategy,
};
use starling_raft::state::{
    ClusterCommand, Command, EntryContext, Event, FeatureLevel, LogIndex, LogTime, NodeId, Ordinal,
    PartsPerMillion, Principal, Rejection, RequestId, Rollout, RolloutCommand, VersionRef, WallTime,
};
use uuid::Uuid;

use super::measures::{CopyCounts, Measures, Traffic};
use super::plan::{Memory, Plan, Scene, plan};
use crate::inference::routing_table::VersionId;
use crate::inference::test_states::TestState;
use crate::inference::traffic::{CellKey, Ending, TrafficRecorder};

pub(crate) const STABLE: Ordinal = Ordinal::new(1);
pub(crate) const CANDIDATE: Ordinal = Ordinal::new(2);
pub(crate) const THIRD: Ordinal = Ordinal::new(3);
const NAME: &str = "digits-v2";

/// One cluster with model `digits`, three ready versions, and everything at `v1`.
pub(crate) struct World {
    pub(crate) cluster: TestState,
    pub(crate) now_micros: u64,
    pub(crate) traffic: Traffic,
    pub(crate) memory: Memory,
    pub(crate) gone: BTreeSet<Ordinal>,
    pub(crate) unheard: Vec<NodeId>,
    node: NodeId,
    deltas: u64,
}

impl World {
    /// With a rollout that has just begun.
    pub(crate) fn start(spec: RolloutSpec<VersionRef>) -> Self {
        let mut cluster = TestState::default();
        let level = FeatureLevel::new(4);
        for _ in 0..3 {
            let ordinal = cluster.register("digits");
            cluster.ready("digits", ordinal);
        }
        let node = cluster.join();
        cluster.apply(Command::Cluster(ClusterCommand::RaiseFeatureLevel { level }));
        cluster.route("digits", &[("v1", 1_000_000)]);
        let mut world = Self {
            cluster,
            now_micros: 1_000_000,
            traffic: Traffic::default(),
            memory: Memory::default(),
            gone: BTreeSet::new(),
            unheard: Vec::new(),
            node,
            deltas: 0,
        };
        let start = RolloutCommand::Start { name: NAME.parse().unwrap(), spec: Box::new(spec), again: false };
        world.apply(start).unwrap();
        world
    }

    /// Commits a command now.
    pub(crate) fn apply(&mut self, command: RolloutCommand) -> Result<Vec<Event>, Rejection> {
        self.cluster.index += 1;
        let context = EntryContext {
            log_index: LogIndex::new(self.cluster.index),
            log_time: LogTime::from_micros(self.now_micros),
            wall_time: WallTime::from_unix_micros(self.now_micros),
            principal: Principal::local(),
            request_id: RequestId::new(Uuid::from_u128(u128::from(self.cluster.index) + (1 << 70))),
        };
        let (events, outcome) = self.cluster.state.apply(&context, &Command::Rollout(command));
        outcome.map(|_| events)
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now_micros += u64::try_from(time.as_micros()).unwrap();
    }

    pub(crate) fn rollout(&self) -> Arc<Rollout> {
        Arc::clone(self.cluster.state.rollouts.get(NAME).unwrap())
    }

    /// Requests to a version at the newest epoch: so many, of which so many fail,
    /// and the others take so long.
    pub(crate) fn requests(&mut self, version: Ordinal, requests: u64, errors: u64, latency: Duration) {
        let epoch = self.rollout().epochs.last().unwrap().epoch.get();
        let recorder = TrafficRecorder::default();
        let key = CellKey { version: VersionId { model_id: self.model_id(), ordinal: version }, epoch };
        for number in 0..requests {
            let ending = if number < errors { Ending::Failed } else { Ending::Answered(latency) };
            recorder.record(key, ending);
        }
        for (key, cell) in recorder.read(|_| true).cells() {
            self.traffic.requests.entry(*key).or_default().merge(cell);
        }
    }

    /// Copies that a shadow answered at the newest epoch.
    pub(crate) fn copies(&mut self, version: Ordinal, compared: u64, agreed: u64) {
        let epoch = self.rollout().epochs.last().unwrap().epoch.get();
        let key = CellKey { version: VersionId { model_id: self.model_id(), ordinal: version }, epoch };
        let copies = CopyCounts { compared, agreed, ..CopyCounts::default() };
        self.traffic.copies.entry(key).or_default().merge(&copies);
    }

    /// Rewards of 0 and 1 for decisions of the newest epoch, spread over clusters.
    pub(crate) fn conversions(&mut self, version: Ordinal, count: u64, successes: u64) {
        let rollout = self.rollout();
        let one = 1_i128 << 24;
        let mut sums = Vec::new();
        for cluster in 0..64_u64 {
            let of = |all: u64| (all * (cluster + 1) / 64 - all * cluster / 64) as i64;
            let (count, successes) = (of(count), of(successes));
            // Units differ: by about one standard deviation, as many up as down.
            let rate = successes as f64 / count.max(1) as f64;
            let spread = (count as f64 * rate * (1.0 - rate)).sqrt().round() as i64;
            let up = (cluster >> version.get()) & 1 == 0;
            let successes = if up { successes + spread } else { successes - spread };
            let successes = i128::from(successes.clamp(0, count));
            sums.push(RewardSum {
                rollout: rollout.name.clone(),
                started_at: rollout.started_at,
                arm: version,
                epoch: rollout.epochs.last().unwrap().epoch,
                cluster: cluster as u8,
                slice: rollout.slice_of(LogTime::from_micros(self.now_micros)),
                totals: RewardTotals { count, sum: successes * one, sum_of_squares: successes * one * one },
            });
        }
        self.deltas += 1;
        let delta = FeedbackDelta { node: self.node, sequence: self.deltas, sums };
        self.apply(RolloutCommand::RecordFeedback(delta)).unwrap();
    }

    fn model_id(&self) -> u64 {
        self.cluster.state.models.get("digits").unwrap().id
    }

    /// One look, remembered.
    pub(crate) fn look(&mut self) -> Plan {
        let rollout = self.rollout();
        let model = self.cluster.state.models.get("digits").unwrap();
        let measures = Measures::of(&rollout, model.id, &self.traffic);
        let plan = plan(&Scene {
            rollout: &rollout,
            model,
            measures: &measures,
            now: LogTime::from_micros(self.now_micros),
            gone: &self.gone,
            unheard: &self.unheard,
            memory: &self.memory,
        });
        self.memory = plan.memory.clone();
        plan
    }

    /// One look whose command, if any, is committed: it must be accepted.
    pub(crate) fn step(&mut self) -> Plan {
        let plan = self.look();
        if let Some(command) = plan.command.clone() {
            self.apply(command).unwrap();
        }
        plan
    }
}

pub(crate) fn ppm(parts: u32) -> PartsPerMillion {
    PartsPerMillion::new(parts).unwrap()
}

pub(crate) fn gate(test: GateTest) -> Gate {
    Gate { test, min_samples: 100, alpha: ppm(50_000) }
}

pub(crate) fn max_error_rate(parts: u32) -> Gate {
    gate(GateTest::ErrorRate { max: ppm(parts) })
}

pub(crate) fn p99_ratio(times: f64) -> Gate {
    gate(GateTest::LatencyRatio { quantile: ppm(990_000), max_ratio: Micro((times * 1e6) as i64) })
}

/// 10 %, then everything; a minute each.
pub(crate) fn canary(gates: Vec<Gate>) -> RolloutSpec<VersionRef> {
    let step = |weight| CanaryStep {
        weight: ppm(weight),
        pause: Pause::For(Millis::from_secs(60)),
        gates: Vec::new(),
    };
    let to = "v2".parse().unwrap();
    spec(Strategy::Canary { to, steps: vec![step(100_000), step(1_000_000)] }, gates)
}

pub(crate) fn spec(strategy: Strategy<VersionRef>, gates: Vec<Gate>) -> RolloutSpec<VersionRef> {
    RolloutSpec {
        model: "digits".parse().unwrap(),
        from: "v1".parse().unwrap(),
        strategy,
        gates,
        on_failure: OnFailure::Rollback,
        on_inconclusive: OnInconclusive::Hold,
        inconclusive_after: Millis::from_secs(300),
        retry_on_stable: false,
        interval: Millis::from_secs(10),
        webhooks: Vec::new(),
    }
}

/// Arms of the versions in order, named a, b, ….
pub(crate) fn arms(weights: &[u32]) -> Vec<Arm<VersionRef>> {
    let arm = |(place, weight): (usize, &u32)| Arm {
        name: ["a", "b", "c"][place].parse().unwrap(),
        version: format!("v{}", place + 1).parse().unwrap(),
        weight: ppm(*weight),
    };
    weights.iter().enumerate().map(arm).collect()
}
