//! How long one look of the leader at a thousand rollouts takes: canaries, A/B
//! tests and bandits in equal parts, with what three nodes counted of them and as
//! many sums of rewards as each may well have.
//!
//! `cargo run --release -p starling-actors --example thousand_rollouts`

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use starling_actors::inference::cluster_traffic::ClusterTraffic;
use starling_actors::inference::routing_table::VersionId;
use starling_actors::inference::traffic::{CellKey, Ending, TrafficRecorder};
use starling_actors::rollout::measures::Traffic;
use starling_actors::rollout::rounds::{Rounds, View};
use starling_proto::peer::TrafficReport;
use starling_raft::state::models::{DataType, TensorSpec, VersionSettings};
use starling_raft::state::rollouts::spec::{
    Arm, Bandit, BanditPolicy, CanaryStep, Correction, Experiment, Gate, GateTest, Micro, Millis, OnFailure,
    OnInconclusive, Pause, Reward, RewardKind, RolloutSpec, Strategy,
};
use starling_raft::state::rollouts::{FeedbackDelta, RewardSum, RewardTotals};
use starling_raft::state::{
    Addresses, ArtefactDigest, ClusterCommand, ClusterId, Command, EntryContext, FeatureLevel, LogIndex,
    LogTime, MemberCommand, ModelCommand, NodeId, NodeUuid, Ordinal, PartsPerMillion, Principal, RequestId,
    Rollout, RolloutCommand, Signature, State, VersionRef, WallTime,
};
use uuid::Uuid;

const ROLLOUTS: usize = 1_000;
const NODES: u64 = 3;
const REQUESTS: u64 = 2_000;
const SECOND: u64 = 1_000_000;

struct Log {
    state: State,
    index: u64,
}

fn main() -> Result<()> {
    let mut log = Log { state: State::default(), index: 0 };
    let node = found(&mut log)?;
    for number in 0..ROLLOUTS {
        start(&mut log, number)?;
    }
    let rollouts: Vec<Arc<Rollout>> = log.state.rollouts.active().cloned().collect();
    reward(&mut log, node, &rollouts)?;
    let cluster = counted(&log.state, &rollouts);

    let mut rounds = Rounds::default();
    for pass in 1..=3 {
        let began = Instant::now();
        let counts = cluster.counts_of(|_| true);
        let traffic = Traffic { requests: counts.requests, ..Traffic::default() };
        let merged = began.elapsed();
        let due: Vec<Arc<Rollout>> = log.state.rollouts.active().cloned().collect();
        let view = View {
            state: &log.state,
            traffic: &traffic,
            now: LogTime::from_micros(400 * SECOND),
            unheard: &[],
            is_gone: &|_, _, _| false,
        };
        let looked = rounds.look(&view, &due, Instant::now());
        let commands = looked.iter().filter(|looked| looked.plan.command.is_some()).count();
        ensure!(looked.len() == ROLLOUTS, "{} were looked at", looked.len());
        println!(
            "pass {pass}: {} rollouts in {:?} ({merged:?} to add up what the nodes counted), {commands} commands",
            looked.len(),
            began.elapsed()
        );
    }
    Ok(())
}

impl Log {
    fn apply(&mut self, command: Command) -> Result<Option<u64>> {
        self.index += 1;
        let context = EntryContext {
            log_index: LogIndex::new(self.index),
            log_time: LogTime::from_micros(self.index),
            wall_time: WallTime::from_unix_micros(self.index),
            principal: Principal::local(),
            request_id: RequestId::new(Uuid::from_u128(u128::from(self.index))),
        };
        let (_, outcome) = self.state.apply(&context, &command);
        Ok(outcome?.created)
    }
}

fn found(log: &mut Log) -> Result<NodeId> {
    let cluster_id = ClusterId::new(Uuid::from_u128(1));
    log.apply(Command::Cluster(ClusterCommand::Found { cluster_id }))?;
    let level = FeatureLevel::new(4);
    log.apply(Command::Cluster(ClusterCommand::RaiseFeatureLevel { level }))?;
    let joined = log.apply(Command::Member(MemberCommand::Join {
        node_uuid: NodeUuid::new(Uuid::from_u128(2)),
        addresses: Addresses::default(),
        labels: Default::default(),
        max_feature_level: level,
        starling_version: "0.1.0".to_owned(),
    }))?;
    Ok(NodeId::new(joined.context("a member has an id")?))
}

fn start(log: &mut Log, number: usize) -> Result<()> {
    let model = format!("model-{number}");
    for _ in 0..4 {
        let created = log.apply(Command::Model(ModelCommand::RegisterVersion {
            model: model.parse()?,
            label: None,
            digest: ArtefactDigest::new([7; 32]),
            size_bytes: 3,
            signature: signature(),
            settings: VersionSettings::default(),
        }))?;
        let ordinal = Ordinal::new(created.context("a version has an ordinal")?);
        log.apply(Command::Model(ModelCommand::MarkReady { model: model.parse()?, ordinal }))?;
    }
    let spec = Box::new(spec(&model, number)?);
    let name = format!("rollout-{number}").parse()?;
    log.apply(Command::Rollout(RolloutCommand::Start { name, spec, again: false }))?;
    Ok(())
}

fn signature() -> Signature {
    let tensor =
        TensorSpec { name: "x".to_owned(), data_type: DataType::Fp32, shape: vec![-1, 4], optional: false };
    Signature { inputs: vec![tensor.clone()], outputs: vec![tensor], batchable: true }
}

fn spec(model: &str, number: usize) -> Result<RolloutSpec<VersionRef>> {
    let ppm = PartsPerMillion::new;
    let gate = |test| -> Result<Gate> { Ok(Gate { test, min_samples: 100, alpha: ppm(50_000)? }) };
    let reward = Reward { kind: RewardKind::Conversion, higher_is_better: true, labels: Vec::new() };
    let arms = (1..=4)
        .map(|arm| {
            let (name, version) = (format!("arm-{arm}").parse()?, format!("v{arm}").parse()?);
            Ok(Arm { name, version, weight: ppm(250_000)? })
        })
        .collect::<Result<Vec<Arm<VersionRef>>>>()?;
    let strategy = match number % 3 {
        0 => {
            let step = |weight| -> Result<CanaryStep> {
                let pause = Pause::For(Millis::from_secs(3_600));
                Ok(CanaryStep { weight: ppm(weight)?, pause, gates: Vec::new() })
            };
            Strategy::Canary { to: "v2".parse()?, steps: vec![step(100_000)?, step(1_000_000)?] }
        }
        1 => Strategy::AbTest(Experiment {
            arms,
            metric: reward,
            alpha: ppm(50_000)?,
            correction: Correction::Holm,
            decide_automatically: true,
            enrolment: PartsPerMillion::WHOLE,
            min_rewards: 1_000_000,
            max_duration: Millis::from_secs(3_600),
        }),
        _ => Strategy::Bandit(Bandit {
            arms,
            policy: BanditPolicy::Thompson,
            reward,
            floor: ppm(10_000)?,
            half_life: Some(Millis::from_secs(60)),
            publish_every: Millis::from_secs(1_000),
            enrolment: PartsPerMillion::WHOLE,
            stop: None,
        }),
    };
    Ok(RolloutSpec {
        model: model.parse()?,
        from: "v1".parse()?,
        strategy,
        gates: vec![
            gate(GateTest::ErrorRate { max: ppm(50_000)? })?,
            gate(GateTest::LatencyRatio { quantile: ppm(990_000)?, max_ratio: Micro(1_500_000) })?,
        ],
        on_failure: OnFailure::Rollback,
        on_inconclusive: OnInconclusive::Hold,
        inconclusive_after: Millis::from_secs(3_600),
        retry_on_stable: false,
        interval: Millis::from_secs(1),
        webhooks: Vec::new(),
    })
}

/// Rewards of tests in 256 clusters, of bandits in 32 slices.
fn reward(log: &mut Log, node: NodeId, rollouts: &[Arc<Rollout>]) -> Result<()> {
    let one = 1_i128 << 24;
    let learning = rollouts.iter().filter(|rollout| !rollout.spec.arms().is_empty());
    for (sequence, rollout) in (1..).zip(learning) {
        let clusters = if rollout.tells_clusters_apart() { 256 } else { 1 };
        let slices = if rollout.tells_clusters_apart() { 1 } else { 32 };
        let mut sums = Vec::new();
        for arm in rollout.spec.arms() {
            for place in 0..clusters * slices {
                let successes = i128::from(4 + place % 5);
                sums.push(RewardSum {
                    rollout: rollout.name.clone(),
                    started_at: rollout.started_at,
                    arm: arm.version,
                    epoch: rollout.epochs.last().context("it has an epoch")?.epoch,
                    cluster: (place % clusters) as u8,
                    slice: place / clusters + 1,
                    totals: RewardTotals {
                        count: 12,
                        sum: successes * one,
                        sum_of_squares: successes * one * one,
                    },
                });
            }
        }
        let delta = FeedbackDelta { node, sequence, sums };
        // As late as the slices need.
        log.state.cluster.log_time = LogTime::from_micros(400 * SECOND);
        log.apply(Command::Rollout(RolloutCommand::RecordFeedback(delta)))?;
    }
    Ok(())
}

/// Latencies over two orders of magnitude, on every node.
fn counted(state: &State, rollouts: &[Arc<Rollout>]) -> ClusterTraffic {
    let mut cluster = ClusterTraffic::default();
    for node_id in 1..=NODES {
        let recorder = TrafficRecorder::default();
        for rollout in rollouts {
            let Some(model) = state.models.get(rollout.spec.model.as_str()) else { continue };
            let Some(epoch) = rollout.epochs.last().map(|known| known.epoch.get()) else { continue };
            for ordinal in rollout.versions() {
                let key = CellKey { version: VersionId { model_id: model.id, ordinal }, epoch };
                for request in 0..REQUESTS / NODES {
                    let micros = 200 + (request * 7_919) % 20_000;
                    recorder.record(key, Ending::Answered(Duration::from_micros(micros)));
                }
            }
        }
        let cells = recorder.read(|_| true).to_wire();
        cluster.accept(&TrafficReport { node_id, boot: 1, sequence: 1, cells, ..TrafficReport::default() });
    }
    cluster
}
