//! What each gate of the present stage says of each version that is tried: pure,
//! three-valued, and right however often one looks.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use starling_raft::state::rollouts::Measure;
use starling_raft::state::rollouts::spec::{Gate, GateTest, Micro};
use starling_raft::state::rollouts::stages::Stage;
use starling_raft::state::{Ordinal, PartsPerMillion, Rollout};
use starling_statistics::confidence::AsymptoticSequence;
use starling_statistics::experiment::Guardrail;
use starling_statistics::verdict::{
    Bar, Demand, Hysteresis, Judgement, LatencyGate, OrderStatistics, Reason, Settled, Streak, Verdict,
    agreement, error_rate, latency_ratio, rate_difference,
};
use starling_statistics::{Alpha, Probability};

use super::measures::{Measures, weights_in_force};
use super::reward_scale::metric_of;
use crate::inference::latency_sketch::{LatencySketch, RELATIVE_ACCURACY};

/// Which gate, and of which version: the place among the rollout's own gates and
/// then the stage's.
pub type GateKey = (usize, Ordinal);

/// Verdicts in a row, by gate and version.
pub type Streaks = BTreeMap<GateKey, Streak>;

/// One gate of one version at one look.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Which.
    pub key: GateKey,
    /// The gate.
    pub gate: Gate,
    /// What it says at this look, with its numbers.
    pub judgement: Judgement,
    /// What the looks in a row amount to.
    pub settled: Settled,
    /// False: there is nothing to look at in this stage, and nothing waits for it.
    pub is_asked: bool,
}

/// Every gate of the stage for every version that is tried, in order. Each
/// verdict is held against those of the looks before; `streaks` is what they left.
pub fn judge(rollout: &Rollout, stage: &Stage, measures: &Measures, streaks: &Streaks) -> Vec<Judged> {
    let gates = rollout.spec.gates.iter().chain(&stage.gates);
    let tried = tried_versions(rollout);
    let mut judged = Vec::new();
    for (place, gate) in gates.enumerate() {
        for version in &tried {
            let key = (place, *version);
            let sight = Sight { rollout, stage, measures, version: *version };
            let is_asked = sight.has(&gate.test);
            let judgement = sight.judge(gate);
            let before = streaks.get(&key).copied().unwrap_or_default();
            let (_, settled) = hysteresis(&gate.test).after(before, &judgement.verdict);
            judged.push(Judged { key, gate: gate.clone(), judgement, settled, is_asked });
        }
    }
    judged
}

/// The verdicts in a row after this look.
pub fn streaks_after(before: &Streaks, judged: &[Judged]) -> Streaks {
    judged
        .iter()
        .map(|judged| {
            let streak = before.get(&judged.key).copied().unwrap_or_default();
            let (streak, _) = hysteresis(&judged.gate.test).after(streak, &judged.judgement.verdict);
            (judged.key, streak)
        })
        .collect()
}

/// Versions that gates look at: all but the stable one that get traffic or copies.
pub fn tried_versions(rollout: &Rollout) -> Vec<Ordinal> {
    rollout.versions().into_iter().filter(|version| *version != rollout.stable()).collect()
}

/// Two passes in a row go on. One failure is enough where it is proof at every
/// look; latencies of requests that waited together are no independent samples,
/// so there it takes two.
fn hysteresis(test: &GateTest) -> Hysteresis {
    const TWO: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);
    match test {
        GateTest::LatencyRatio { .. } => Hysteresis { passes: TWO, failures: TWO },
        _ => Hysteresis::default(),
    }
}

/// One version in one stage, beside the stable one.
struct Sight<'a> {
    rollout: &'a Rollout,
    stage: &'a Stage,
    measures: &'a Measures,
    version: Ordinal,
}

impl Sight<'_> {
    /// Whether the stage gives the gate something to look at. A version that has
    /// everything cannot be compared with one that has nothing.
    fn has(&self, test: &GateTest) -> bool {
        let is_copied = self.is_copied();
        let stable_has_traffic = weights_in_force(self.rollout).contains_key(&self.rollout.stable());
        match test {
            GateTest::ErrorRate { .. } => true,
            GateTest::ErrorRateDifference { .. } | GateTest::LatencyRatio { .. } => {
                is_copied || stable_has_traffic
            }
            GateTest::Agreement { .. } => is_copied,
            GateTest::RewardDifference { .. } => !is_copied && stable_has_traffic,
        }
    }

    /// It gets copies instead of traffic.
    fn is_copied(&self) -> bool {
        self.stage.shadow.as_ref().is_some_and(|shadow| shadow.version == self.version)
    }

    /// Errors and all, of what it got.
    fn errors(&self, version: Ordinal) -> (u64, u64) {
        if self.is_copied() && version == self.version {
            let copies = self.measures.copies.get(&version);
            return copies.map_or((0, 0), |copies| (copies.errors, copies.compared + copies.errors));
        }
        self.measures.requests.get(&version).map_or((0, 0), |cell| (cell.errors, cell.requests))
    }

    fn judge(&self, gate: &Gate) -> Judgement {
        let alpha = Alpha::new(share(gate.alpha)).unwrap_or(Alpha::FIVE_PERCENT);
        let bar = Bar { alpha, samples_min: gate.min_samples, demand: Demand::Proven };
        match gate.test {
            GateTest::ErrorRate { max } => {
                let (errors, requests) = self.errors(self.version);
                error_rate(errors, requests, probability(max), &bar)
            }
            GateTest::ErrorRateDifference { max } => {
                let (stable, own) = (self.errors(self.rollout.stable()), self.errors(self.version));
                rate_difference(stable, own, share(max), &bar)
            }
            GateTest::LatencyRatio { quantile, max_ratio } => {
                let gate =
                    LatencyGate { quantile: probability(quantile), max_ratio: max_ratio.0 as f64 / 1e6 };
                self.judge_latency(&gate, &Bar { demand: Demand::Plausible, ..bar })
            }
            GateTest::Agreement { min } => {
                let copies = self.measures.copies.get(&self.version);
                let (agreed, compared) = copies.map_or((0, 0), |copies| (copies.agreed, copies.compared));
                agreement(agreed, compared, probability(min), &bar)
            }
            GateTest::RewardDifference { max_drop } => self.judge_reward(max_drop, &bar),
        }
    }

    fn judge_latency(&self, gate: &LatencyGate, bar: &Bar) -> Judgement {
        let nothing = LatencySketch::default();
        if self.is_copied() {
            let copies = self.measures.copies.get(&self.version);
            let (live, own) =
                copies.map_or((&nothing, &nothing), |copies| (&copies.live_latency, &copies.latency));
            return latency_ratio(&Sketch(live), &Sketch(own), gate, bar);
        }
        let latency = |version| self.measures.requests.get(&version).map_or(&nothing, |cell| &cell.latency);
        let (stable, own) = (latency(self.rollout.stable()), latency(self.version));
        latency_ratio(&Sketch(stable), &Sketch(own), gate, bar)
    }

    fn judge_reward(&self, max_drop: Micro, bar: &Bar) -> Judgement {
        let margin = (max_drop.0 as f64 / 1e6).max(0.0);
        let guardrail = Guardrail { metric: metric_of(self.rollout.spec.reward()), margin, alpha: bar.alpha };
        let nothing = starling_statistics::sums::ArmSums::default();
        let sums = |version| self.measures.rewards.get(&version).unwrap_or(&nothing);
        let (stable, own) = (sums(self.rollout.stable()), sums(self.version));
        guardrail
            .judge(stable, own, bar.samples_min, &AsymptoticSequence::DEFAULT)
            .unwrap_or_else(|error| Judgement::open(-margin, 0, error))
    }
}

/// A latency sketch, as the statistics read it.
struct Sketch<'a>(&'a LatencySketch);

impl OrderStatistics for Sketch<'_> {
    fn count(&self) -> u64 {
        self.0.count()
    }

    fn at_rank(&self, rank: u64) -> f64 {
        self.0.at_rank_micros(rank).unwrap_or(f64::NAN)
    }

    fn relative_error(&self) -> f64 {
        RELATIVE_ACCURACY
    }
}

fn share(parts: PartsPerMillion) -> f64 {
    f64::from(parts.get()) / 1e6
}

fn probability(parts: PartsPerMillion) -> Probability {
    Probability::from_parts_per_million(parts.get())
}

impl Judged {
    /// Of which version.
    pub fn version(&self) -> Ordinal {
        self.key.1
    }

    /// Whether nothing needs to wait for it: it passed often enough, or there is
    /// nothing to look at.
    pub fn lets_pass(&self) -> bool {
        !self.is_asked || self.settled == Settled::Pass
    }

    /// Whether it has failed for good.
    pub fn fails(&self) -> bool {
        self.is_asked && self.settled == Settled::Fail
    }

    /// Whether it has seen enough and still cannot tell.
    pub fn is_open_with_enough(&self) -> bool {
        matches!(self.judgement.verdict, Verdict::Pass | Verdict::Inconclusive(Reason::StillOpen))
    }

    /// The numbers behind it, for an event.
    pub fn measure(&self) -> Measure {
        let bound = |bound: f64| bound.is_finite().then(|| micro(bound));
        let interval = &self.judgement.interval;
        Measure {
            what: self.what().to_owned(),
            version: Some(self.version()),
            value: micro(self.judgement.estimate.unwrap_or_default()),
            lower: bound(interval.lower()),
            upper: bound(interval.upper()),
            samples: self.judgement.samples,
        }
    }

    /// As the manifest calls it.
    pub fn what(&self) -> &'static str {
        match self.gate.test {
            GateTest::ErrorRate { .. } => "errorRate",
            GateTest::ErrorRateDifference { .. } => "errorRateDifference",
            GateTest::LatencyRatio { .. } => "latencyRatio",
            GateTest::Agreement { .. } => "agreement",
            GateTest::RewardDifference { .. } => "rewardDifference",
        }
    }

    /// For people: what it says, of what, and by which numbers.
    pub fn says(&self, label: &str) -> String {
        let what = self.what();
        if !self.is_asked {
            return format!("{what} of {label} has nothing to look at in this stage");
        }
        let judgement = &self.judgement;
        let at = match self.gate.test {
            GateTest::Agreement { .. } | GateTest::RewardDifference { .. } => "at least",
            _ => "at most",
        };
        let threshold = number(judgement.threshold);
        let seen = match judgement.estimate {
            Some(estimate) => format!(
                "is {} ({} to {}) of {} samples and must be {at} {threshold}",
                number(estimate),
                number(judgement.interval.lower()),
                number(judgement.interval.upper()),
                judgement.samples
            ),
            None => format!("is not known yet and must be {at} {threshold}"),
        };
        let says = match (&judgement.verdict, self.settled) {
            (Verdict::Pass, Settled::Pass) => "passes".to_owned(),
            (Verdict::Pass, _) => "passes, and has to once more".to_owned(),
            (Verdict::Fail, Settled::Fail) => "fails".to_owned(),
            (Verdict::Fail, _) => "fails, and is looked at once more".to_owned(),
            (Verdict::Inconclusive(reason), _) => format!("cannot tell: {reason}"),
        };
        format!("{what} of {label} {seen}: {says}")
    }
}

/// To at most six digits, and no more than it takes.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return if value > 0.0 { "any".to_owned() } else { "-any".to_owned() };
    }
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// In millionths; what is no number counts as 0.
pub fn micro(value: f64) -> Micro {
    // The cast saturates.
    Micro((value * 1e6).round() as i64)
}
