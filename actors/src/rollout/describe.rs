//! From a look to a report: each version's numbers beside what is believed of it.

use std::sync::Arc;
use std::time::Duration;

use starling_raft::state::rollouts::spec::Strategy;
use starling_raft::state::{Model, NodeId, Ordinal, PartsPerMillion, Rollout};
use starling_statistics::verdict::{Reason, Settled, Verdict};

use super::experiment_look::mean_interval;
use super::gates::Judged;
use super::measures::{CopyCounts, Measures, weights_in_force};
use super::plan::{ArmsLook, Plan, label};
use super::report::{CopiesReport, GateReport, GateVerdict, RolloutReport, VersionReport};

/// How the rollout stands, by what was counted and what a look makes of it.
pub fn describe(
    rollout: &Arc<Rollout>,
    model: &Model,
    measures: &Measures,
    plan: &Plan,
    reported_by: Vec<NodeId>,
) -> RolloutReport {
    let version = |version| version_report(rollout, model, measures, plan, version);
    RolloutReport {
        rollout: Arc::clone(rollout),
        versions: rollout.versions().into_iter().map(version).collect(),
        gates: gate_reports(model, &plan.gates),
        next: plan.next.clone(),
        reported_by,
    }
}

/// What each gate says, in order.
pub fn gate_reports(model: &Model, gates: &[Judged]) -> Vec<GateReport> {
    gates.iter().map(|gate| gate_report(model, gate)).collect()
}

/// Gates of which nothing is asked pass; one that must be looked at once more
/// cannot tell yet.
pub fn verdict_of(gate: &Judged) -> GateVerdict {
    match (gate.is_asked, gate.settled) {
        (false, _) | (true, Settled::Pass) => GateVerdict::Pass,
        (true, Settled::Fail) => GateVerdict::Fail,
        (true, Settled::NotYet) => GateVerdict::Inconclusive,
    }
}

fn gate_report(model: &Model, gate: &Judged) -> GateReport {
    let finite = |bound: f64| bound.is_finite().then_some(bound);
    let samples_needed = match gate.judgement.verdict {
        Verdict::Inconclusive(Reason::TooFew { need, .. }) => need,
        _ => gate.gate.min_samples,
    };
    GateReport {
        gate: gate.gate.clone(),
        version: gate.version(),
        verdict: verdict_of(gate),
        value: gate.judgement.estimate,
        lower: finite(gate.judgement.interval.lower()),
        upper: finite(gate.judgement.interval.upper()),
        samples: gate.judgement.samples,
        samples_needed,
        says: gate.says(&label(model, gate.version())),
    }
}

fn version_report(
    rollout: &Rollout,
    model: &Model,
    measures: &Measures,
    plan: &Plan,
    version: Ordinal,
) -> VersionReport {
    let weight = weights_in_force(rollout).get(&version).copied().unwrap_or(0);
    let requests = measures.requests.get(&version);
    let rewards = measures.rewards_of(version);
    let quantile = |quantile: f64| -> Option<Duration> {
        let micros = requests?.latency.quantile_micros(quantile)?;
        Some(Duration::from_secs_f64(micros / 1e6))
    };
    let (reward_interval, probability_best) = beliefs(rollout, measures, plan, version);
    let is_copied = rollout.shadow().is_some_and(|shadow| shadow.version == version);
    let copies = measures.copies.get(&version).map(copies_report);
    VersionReport {
        version,
        label: label(model, version),
        arm: rollout.arm_name(version).map(str::to_owned),
        weight: PartsPerMillion::new(weight).unwrap_or_default(),
        requests: requests.map_or(0, |cell| cell.requests),
        errors: requests.map_or(0, |cell| cell.errors),
        latency_p50: quantile(0.5),
        latency_p99: quantile(0.99),
        rewards: rewards.count(),
        reward_mean: rewards.mean(),
        reward_interval,
        probability_best,
        copies: copies.or_else(|| is_copied.then(CopiesReport::default)),
    }
}

fn copies_report(copies: &CopyCounts) -> CopiesReport {
    CopiesReport {
        compared: copies.compared,
        agreed: copies.agreed,
        errors: copies.errors,
        dropped: copies.dropped,
    }
}

/// An interval of the mean reward, and the probability of being best.
fn beliefs(
    rollout: &Rollout,
    measures: &Measures,
    plan: &Plan,
    version: Ordinal,
) -> (Option<(f64, f64)>, Option<f64>) {
    if let Strategy::AbTest(experiment) = &rollout.spec.strategy {
        let sums = measures.rewards.get(&version);
        return (sums.and_then(|sums| mean_interval(experiment, sums)), None);
    }
    let ArmsLook::Bandit(look) = &plan.arms else { return (None, None) };
    let Some((_, outlook)) = look.arms.iter().find(|(arm, _)| *arm == version) else { return (None, None) };
    let (mean, deviation) = (outlook.posterior_mean, outlook.posterior_deviation);
    let interval = deviation.is_finite().then_some((mean - 2.0 * deviation, mean + 2.0 * deviation));
    (interval, outlook.probability_best)
}
