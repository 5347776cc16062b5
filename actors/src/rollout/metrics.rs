//! What Prometheus sees of rollouts. Requests are what this node counted itself,
//! so a sum over nodes is the cluster's; weights, phases and rewards come from the
//! replicated state and are the same on every node; what gates say and what is
//! believed of arms only the leader shows.
//!
//! Series of a rollout go when it is over. Labels are names that were accepted,
//! and no more than [`ROLLOUTS_MAX`] rollouts have series.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
};
use starling_raft::state::rollouts::RolloutPhase;
use starling_raft::state::{Ordinal, Rollout, RolloutName, State};

use super::describe::verdict_of;
use super::measures::{Measures, Traffic, stage_began, weights_in_force};
use super::plan::{ArmsLook, label};
use super::report::GateVerdict;
use super::rounds::Looked;
use crate::inference::traffic::{Cell, Ledger};

/// Rollouts that have series of their own, in order of model.
pub const ROLLOUTS_MAX: usize = 1_000;

const OF_ARM: [&str; 4] = ["model", "version", "rollout", "arm"];
const PHASES: [&str; 3] = ["running", "paused", "held"];
/// Upper bounds in seconds, as of all predictions.
const DURATION_BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// All series of rollouts.
pub struct RolloutMetrics {
    requests: IntCounterVec,
    errors: IntCounterVec,
    durations: HistogramVec,
    rewards: GaugeVec,
    reward_sum: GaugeVec,
    weight: GaugeVec,
    posterior_mean: GaugeVec,
    probability_best: GaugeVec,
    phase: IntGaugeVec,
    stage: IntGaugeVec,
    gate: IntGaugeVec,
    /// Steps that this node proposed, by how that ended.
    pub steps: IntCounterVec,
    /// Webhooks, by how each ended.
    pub webhooks: IntCounterVec,
    /// Of one pass over the rollouts that are due.
    pub pass: Histogram,
    shown: Mutex<HashMap<RolloutName, Shown>>,
}

/// What is shown of one rollout.
#[derive(Debug, Default)]
struct Shown {
    model: String,
    arms: HashMap<Ordinal, ShownArm>,
    gates: BTreeSet<(String, &'static str)>,
}

#[derive(Debug, Default)]
struct ShownArm {
    labels: [String; 4],
    /// Counted so far of the stage that began with this epoch.
    stage: u64,
    counted: Cell,
}

impl RolloutMetrics {
    /// Registers the series. Fails if they are there already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), &OF_ARM);
        let counters =
            |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let metrics = Self {
            requests: counters(
                "starling_rollout_requests_total",
                "Predictions that clients asked this node for, by the rollout's arm that was to answer",
                &OF_ARM,
            )?,
            errors: counters(
                "starling_rollout_errors_total",
                "Those of them that failed by no fault of the caller",
                &OF_ARM,
            )?,
            durations: HistogramVec::new(
                HistogramOpts::new(
                    "starling_rollout_request_duration_seconds",
                    "Time of the answers, to one percent",
                )
                .buckets(DURATION_BUCKETS.to_vec()),
                &OF_ARM,
            )?,
            rewards: gauges("starling_rollout_rewards", "Rewards that count")?,
            reward_sum: gauges("starling_rollout_reward_sum", "Sum of the rewards that count")?,
            weight: gauges("starling_rollout_weight", "Share of the traffic, 0 to 1")?,
            posterior_mean: gauges(
                "starling_rollout_posterior_mean",
                "Mean reward that a bandit's arm is believed to have; on the leader",
            )?,
            probability_best: gauges(
                "starling_rollout_probability_best",
                "Of a bandit's arm to be the best; on the leader",
            )?,
            phase: IntGaugeVec::new(
                Opts::new("starling_rollout_phase", "1 for the phase that a rollout is in"),
                &["model", "rollout", "phase"],
            )?,
            stage: IntGaugeVec::new(
                Opts::new("starling_rollout_stage", "The stage that a rollout is in, from 1"),
                &["model", "rollout"],
            )?,
            gate: IntGaugeVec::new(
                Opts::new(
                    "starling_rollout_gate",
                    "What a gate says: 1 pass, 0 cannot tell, -1 fail; on the leader",
                ),
                &["model", "version", "rollout", "gate"],
            )?,
            steps: counters(
                "starling_rollout_steps_total",
                "Steps that this node proposed while it led, by step and outcome",
                &["step", "outcome"],
            )?,
            webhooks: counters(
                "starling_rollout_webhooks_total",
                "Notifications by outcome: delivered, retried, given_up",
                &["outcome"],
            )?,
            pass: Histogram::with_opts(
                HistogramOpts::new(
                    "starling_rollout_pass_seconds",
                    "Time that one pass over the rollouts that are due took the leader",
                )
                .buckets(DURATION_BUCKETS.to_vec()),
            )?,
            shown: Mutex::default(),
        };
        for counters in [&metrics.requests, &metrics.errors, &metrics.steps, &metrics.webhooks] {
            registry.register(Box::new(counters.clone()))?;
        }
        for gauges in metrics.arm_gauges() {
            registry.register(Box::new(gauges.clone()))?;
        }
        for gauges in [&metrics.phase, &metrics.stage, &metrics.gate] {
            registry.register(Box::new(gauges.clone()))?;
        }
        registry.register(Box::new(metrics.durations.clone()))?;
        registry.register(Box::new(metrics.pass.clone()))?;
        for outcome in ["delivered", "retried", "given_up"] {
            metrics.webhooks.with_label_values(&[outcome]);
        }
        Ok(metrics)
    }

    fn arm_gauges(&self) -> [&GaugeVec; 5] {
        [&self.rewards, &self.reward_sum, &self.weight, &self.posterior_mean, &self.probability_best]
    }

    /// Takes in what this node has counted, and how far the log has come. Every
    /// second or so.
    pub fn observe(&self, state: &State, own: &Ledger) {
        let traffic = Traffic {
            requests: own.cells().map(|(key, cell)| (*key, cell.clone())).collect(),
            ..Traffic::default()
        };
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut active: BTreeSet<&RolloutName> = BTreeSet::new();
        for rollout in state.rollouts.active().take(ROLLOUTS_MAX) {
            active.insert(&rollout.name);
            let entry = shown.entry(rollout.name.clone()).or_default();
            self.show(state, rollout, &traffic, entry);
        }
        let over: Vec<RolloutName> = shown.keys().filter(|name| !active.contains(name)).cloned().collect();
        for name in over {
            if let Some(gone) = shown.remove(&name) {
                self.forget(&name, &gone);
            }
        }
    }

    fn show(&self, state: &State, rollout: &Rollout, traffic: &Traffic, shown: &mut Shown) {
        let Some(model) = state.models.get(rollout.spec.model.as_str()) else { return };
        shown.model = model.name.to_string();
        let measures = Measures::of(rollout, model.id, traffic);
        let weights = weights_in_force(rollout);
        for version in rollout.versions() {
            let arm = shown.arms.entry(version).or_insert_with(|| ShownArm {
                labels: [
                    model.name.to_string(),
                    label(model, version),
                    rollout.name.to_string(),
                    rollout.arm_name(version).unwrap_or_default().to_owned(),
                ],
                ..ShownArm::default()
            });
            let cell = measures.requests.get(&version).cloned().unwrap_or_default();
            self.count(arm, stage_began(rollout), cell);
            let labels = arm.labels.each_ref().map(String::as_str);
            let rewards = measures.rewards_of(version);
            self.rewards.with_label_values(&labels).set(rewards.count() as f64);
            self.reward_sum.with_label_values(&labels).set(rewards.sum());
            let weight = weights.get(&version).copied().unwrap_or(0);
            self.weight.with_label_values(&labels).set(f64::from(weight) / 1e6);
        }
        let (model, name) = (shown.model.as_str(), rollout.name.as_str());
        let phase = match rollout.phase {
            RolloutPhase::Paused { .. } => "paused",
            RolloutPhase::Held { .. } => "held",
            RolloutPhase::Running | RolloutPhase::Finished { .. } => "running",
        };
        for known in PHASES {
            self.phase.with_label_values(&[model, name, known]).set(i64::from(known == phase));
        }
        self.stage.with_label_values(&[model, name]).set(i64::from(rollout.stage) + 1);
    }

    /// Adds what came since it was counted last.
    fn count(&self, arm: &mut ShownArm, stage: u64, cell: Cell) {
        if arm.stage != stage {
            arm.counted = Cell::default();
            arm.stage = stage;
        }
        let labels = arm.labels.each_ref().map(String::as_str);
        let more = |now: u64, before: u64| now.saturating_sub(before);
        self.requests.with_label_values(&labels).inc_by(more(cell.requests, arm.counted.requests));
        self.errors.with_label_values(&labels).inc_by(more(cell.errors, arm.counted.errors));
        let durations = self.durations.with_label_values(&labels).local();
        for (seconds, count) in cell.latency.since(&arm.counted.latency) {
            (0..count).for_each(|_| durations.observe(seconds));
        }
        durations.flush();
        arm.counted = cell;
    }

    /// What the leader's look says.
    pub fn looked(&self, model: &starling_raft::state::Model, looked: &Looked) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(shown) = shown.get_mut(&looked.rollout.name) else { return };
        let name = looked.rollout.name.as_str();
        for gate in &looked.plan.gates {
            let version = label(model, gate.version());
            let verdict = match verdict_of(gate) {
                GateVerdict::Pass => 1,
                GateVerdict::Inconclusive => 0,
                GateVerdict::Fail => -1,
            };
            self.gate.with_label_values(&[&shown.model, &version, name, gate.what()]).set(verdict);
            shown.gates.insert((version, gate.what()));
        }
        let ArmsLook::Bandit(look) = &looked.plan.arms else { return };
        for (version, outlook) in &look.arms {
            let Some(arm) = shown.arms.get(version) else { continue };
            let labels = arm.labels.each_ref().map(String::as_str);
            self.posterior_mean.with_label_values(&labels).set(outlook.posterior_mean);
            let best = outlook.probability_best.unwrap_or_default();
            self.probability_best.with_label_values(&labels).set(best);
        }
    }

    /// This node does not lead any more: the next leader says what gates say.
    pub fn stop_leading(&self) {
        for gauges in [&self.posterior_mean, &self.probability_best] {
            gauges.reset();
        }
        self.gate.reset();
    }

    fn forget(&self, name: &RolloutName, gone: &Shown) {
        // A series that is not there is as good as forgotten.
        for arm in gone.arms.values() {
            let labels = arm.labels.each_ref().map(String::as_str);
            let _ = self.requests.remove_label_values(&labels);
            let _ = self.errors.remove_label_values(&labels);
            let _ = self.durations.remove_label_values(&labels);
            for gauges in self.arm_gauges() {
                let _ = gauges.remove_label_values(&labels);
            }
        }
        for (version, gate) in &gone.gates {
            let _ = self.gate.remove_label_values(&[&gone.model, version, name.as_str(), gate]);
        }
        for phase in PHASES {
            let _ = self.phase.remove_label_values(&[&gone.model, name.as_str(), phase]);
        }
        let _ = self.stage.remove_label_values(&[&gone.model, name.as_str()]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::time::Duration;

    use starling_raft::state::RolloutCommand;

    use super::super::testing::{CANDIDATE, STABLE, World, canary, max_error_rate};
    use super::*;

    fn ledger(world: &World) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.absorb(world.traffic.requests.iter().map(|(key, cell)| (*key, cell.clone())));
        ledger
    }

    /// Words of the dashboard that begin like a metric of rollouts.
    fn named_in_the_dashboard() -> BTreeSet<String> {
        let dashboard = include_str!("../../../deploy/grafana/rollouts.json");
        let parsed: serde_json::Value = serde_json::from_str(dashboard).unwrap();
        assert_eq!(parsed["panels"].as_array().unwrap().len(), 12);
        let words = dashboard.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words
            .filter(|word| word.starts_with("starling_"))
            .map(|word| word.trim_end_matches("_bucket").to_owned())
            .collect()
    }

    #[test]
    fn every_metric_that_the_dashboard_names_exists() {
        let registry = Registry::new();
        let metrics = RolloutMetrics::register(&registry).unwrap();
        let world = World::start(canary(vec![max_error_rate(10_000)]));
        metrics.observe(&world.cluster.state, &ledger(&world));
        let of_arm = ["digits", "v2", "digits-v2", "candidate"];
        metrics.posterior_mean.with_label_values(&of_arm);
        metrics.probability_best.with_label_values(&of_arm);
        metrics.gate.with_label_values(&["digits", "v2", "digits-v2", "errorRate"]);
        metrics.steps.with_label_values(&["advance", "taken"]);
        let known: BTreeSet<String> =
            registry.gather().iter().map(|family| family.name().to_owned()).collect();
        let named = named_in_the_dashboard();
        assert!(named.len() >= 13, "{named:?}");
        assert_eq!(named.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
    }

    #[test]
    fn requests_count_once_over_stages_and_all_series_go_with_the_rollout() {
        let registry = Registry::new();
        let metrics = RolloutMetrics::register(&registry).unwrap();
        let mut world = World::start(canary(vec![max_error_rate(10_000)]));
        let labels = ["digits", "v2", "digits-v2", "candidate"];
        for _ in 0..3 {
            world.requests(CANDIDATE, 1_000, 1, Duration::from_millis(1));
            world.requests(STABLE, 10, 0, Duration::from_millis(1));
            metrics.observe(&world.cluster.state, &ledger(&world));
            metrics.observe(&world.cluster.state, &ledger(&world));
        }
        assert_eq!(metrics.requests.with_label_values(&labels).get(), 3_000);
        assert_eq!(metrics.errors.with_label_values(&labels).get(), 3);
        assert_eq!(metrics.durations.with_label_values(&labels).get_sample_count(), 2_997);
        assert_eq!(metrics.weight.with_label_values(&labels).get(), 0.1);
        world.pass(Duration::from_secs(60));
        world.step();
        world.step();
        assert_eq!(world.rollout().stage, 1);
        world.requests(CANDIDATE, 500, 0, Duration::from_millis(1));
        metrics.observe(&world.cluster.state, &ledger(&world));
        assert_eq!(metrics.requests.with_label_values(&labels).get(), 3_500);
        assert_eq!(metrics.stage.with_label_values(&["digits", "digits-v2"]).get(), 2);

        let name = world.rollout().name.clone();
        world.apply(RolloutCommand::Abort { name, why: String::new() }).unwrap();
        metrics.observe(&world.cluster.state, &ledger(&world));
        let left = registry.gather().into_iter().filter(|family| {
            family
                .get_metric()
                .iter()
                .any(|metric| metric.get_label().iter().any(|label| label.name() == "rollout"))
        });
        assert_eq!(left.count(), 0);
    }
}
