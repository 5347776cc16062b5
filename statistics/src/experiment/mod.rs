//! What an A/B experiment of any number of arms comes to, from sums: the first arm
//! is the control, each other arm is held against it.
//!
//! The order of judging: if units went astray ([`sample_ratio`](crate::sample_ratio)),
//! nothing else counts; then a winner (better on the primary metric after the
//! correction over arms, all guardrails passed); then harm (a guardrail that failed,
//! or a primary metric that is worse). Otherwise the experiment goes on. All of it
//! holds at every look, so it may be watched continuously.

mod comparison;

use std::fmt;

use comparison::shared_samples;
pub use comparison::{Comparison, Direction, Method, Metric, compare};

use crate::confidence::{AsymptoticSequence, RunningPValue};
use crate::correction::Correction;
use crate::error::{InferenceError, finite};
use crate::quantity::Alpha;
use crate::sample_ratio::{Leak, SequentialSampleRatio, StratumCounts, leaks};
use crate::sums::ArmSums;
use crate::verdict::{Bar, Demand, Judgement, Verdict, non_inferior, superior};

/// What an experiment asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The metric that decides.
    pub primary: Metric,
    /// Chance of ever declaring a difference that is not there, over all arms.
    pub alpha: Alpha,
    /// How the level is shared among arms.
    pub correction: Correction,
    /// Observations of each arm below which no winner is declared.
    pub samples_min: u64,
    /// Metrics that must not get worse.
    pub guardrails: Vec<Guardrail>,
    /// Chance of ever raising a false alarm about the sample ratio.
    pub sample_ratio_alpha: Alpha,
    /// Where the intervals are tightest.
    pub sequence: AsymptoticSequence,
}

impl Plan {
    /// Decides by `primary` at 5 % with Holm's correction from 100 observations per
    /// arm on, without guardrails.
    #[must_use]
    pub fn new(primary: Metric) -> Self {
        Self {
            primary,
            alpha: Alpha::FIVE_PERCENT,
            correction: Correction::default(),
            samples_min: AsymptoticSequence::OBSERVATIONS_MIN,
            guardrails: Vec::new(),
            sample_ratio_alpha: Alpha::ONE_IN_A_THOUSAND,
            sequence: AsymptoticSequence::DEFAULT,
        }
    }
}

/// A metric that must not get worse by more than a margin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guardrail {
    /// The metric.
    pub metric: Metric,
    /// How much worse is still accepted, in the metric's unit, 0 or more.
    pub margin: f64,
    /// Chance of ever blaming an arm that is within the margin.
    pub alpha: Alpha,
}

impl Guardrail {
    /// Is the arm within the margin of the control? Also the gate of a canary on the
    /// difference of a metric. The margin must be 0 or more.
    pub fn judge(
        &self,
        control: &ArmSums,
        arm: &ArmSums,
        samples_min: u64,
        sequence: &AsymptoticSequence,
    ) -> Result<Judgement, InferenceError> {
        self.check()?;
        let samples = shared_samples(control, arm)?;
        let bar = Bar { alpha: self.alpha, samples_min, demand: Demand::Proven };
        Ok(match compare(&self.metric, control, arm, self.alpha, sequence) {
            Ok(seen) => non_inferior(seen.advantage, seen.interval, self.margin, samples, &bar),
            Err(error) => Judgement::open(-self.margin, samples, error),
        })
    }

    /// Refuses a margin that is negative or no number, and impossible bounds.
    pub fn check(&self) -> Result<(), InferenceError> {
        self.metric.check()?;
        if finite("a guardrail's margin", self.margin)? >= 0.0 {
            return Ok(());
        }
        Err(InferenceError::OutOfRange {
            what: "a guardrail's margin",
            got: self.margin,
            lower: 0.0,
            upper: f64::INFINITY,
        })
    }
}

/// What an arm has to show.
#[derive(Debug, Clone, PartialEq)]
pub struct Arm<'sums> {
    /// The sums of the primary metric.
    pub primary: &'sums ArmSums,
    /// The sums of each guardrail's metric, in the plan's order.
    pub guardrails: Vec<&'sums ArmSums>,
    /// The p-value that the look before returned for this arm.
    pub before: RunningPValue,
}

/// What is said of one arm but the control.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmResult {
    /// Which arm, by its place in the list; the control is 0.
    pub arm: usize,
    /// The difference to the control, or why there is none to speak of yet.
    pub comparison: Result<Comparison, InferenceError>,
    /// The smallest p-value of all looks, before the correction. Keep it for the next.
    pub p_value: RunningPValue,
    /// The same after the correction.
    pub p_adjusted: f64,
    /// Is the arm better than the control? Fail: it is worse.
    pub better: Judgement,
    /// Is the arm within the margin of each guardrail? In the plan's order.
    pub guardrails: Vec<Judgement>,
}

impl ArmResult {
    fn harmful(&self) -> bool {
        self.better.verdict == Verdict::Fail
            || self.guardrails.iter().any(|guardrail| guardrail.verdict == Verdict::Fail)
    }

    fn wins(&self) -> bool {
        let guardrails = self.guardrails.iter().map(|guardrail| &guardrail.verdict);
        self.better.verdict == Verdict::Pass && Verdict::of_all(guardrails) == Verdict::Pass
    }

    fn advantage(&self) -> f64 {
        self.comparison.as_ref().map_or(f64::NEG_INFINITY, |comparison| comparison.advantage)
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Recommendation {
    /// Do not believe any comparison: units are lost, doubled or misled. Find out why.
    SampleRatioMismatch {
        /// The always-valid p-value of the ratios; 0 if there is a leak.
        p_value: f64,
        /// Units in arms of weight 0.
        leaks: Vec<Leak>,
    },
    /// Promote this arm. Other arms may be harmful nevertheless: see their results.
    Winner {
        /// Which one.
        arm: usize,
    },
    /// Stop these arms; none of the others has won so far.
    Harm {
        /// Which ones.
        arms: Vec<usize>,
    },
    /// Go on.
    NoDifferenceYet,
}

impl fmt::Display for Recommendation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SampleRatioMismatch { p_value, leaks } if leaks.is_empty() => write!(
                formatter,
                "sample-ratio mismatch (p {p_value:.2e}): arms got other shares of units than set"
            ),
            Self::SampleRatioMismatch { leaks, .. } => {
                let units: u64 = leaks.iter().map(|leak| leak.units).sum();
                write!(formatter, "sample-ratio mismatch: {units} units in arms of weight 0")
            }
            Self::Winner { arm } => write!(formatter, "arm {arm} wins"),
            Self::Harm { arms } => write!(formatter, "arms {arms:?} do harm"),
            Self::NoDifferenceYet => formatter.write_str("no difference yet"),
        }
    }
}

/// What one look says.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What to do.
    pub recommendation: Recommendation,
    /// Each arm but the control.
    pub arms: Vec<ArmResult>,
    /// The smallest p-value of the sample ratio of all looks. Keep it for the next.
    pub sample_ratio: RunningPValue,
}

/// Looks at an experiment. `arms[0]` is the control. `exposures` are distinct units
/// per stratum and arm; `ratio_before` is what the look before returned.
///
/// # Errors
/// If lists that belong together differ in length, a margin is negative or not a
/// number, or a bounded metric has no room between its bounds. Too few samples are no error: the
/// arm's verdict says so.
pub fn decide(
    plan: &Plan,
    arms: &[Arm<'_>],
    exposures: &[StratumCounts],
    ratio_before: RunningPValue,
) -> Result<Outcome, InferenceError> {
    check(plan, arms, exposures)?;
    let sample_ratio = SequentialSampleRatio::DEFAULT.look(exposures, ratio_before);
    let mut results = compare_all(plan, arms)?;
    correct(plan, &mut results)?;

    let leaks = leaks(exposures);
    let winner =
        results.iter().filter(|result| result.wins()).max_by(|a, b| a.advantage().total_cmp(&b.advantage()));
    let harmful: Vec<usize> =
        results.iter().filter(|result| result.harmful()).map(|result| result.arm).collect();

    let recommendation = if !leaks.is_empty() || sample_ratio.get() <= plan.sample_ratio_alpha.get() {
        Recommendation::SampleRatioMismatch { p_value: sample_ratio.get(), leaks }
    } else if let Some(winner) = winner {
        Recommendation::Winner { arm: winner.arm }
    } else if harmful.is_empty() {
        Recommendation::NoDifferenceYet
    } else {
        Recommendation::Harm { arms: harmful }
    };
    Ok(Outcome { recommendation, arms: results, sample_ratio })
}

fn check(plan: &Plan, arms: &[Arm<'_>], exposures: &[StratumCounts]) -> Result<(), InferenceError> {
    if arms.len() < 2 {
        return Err(InferenceError::TooFew {
            what: "arms of an experiment",
            have: arms.len() as u64,
            need: 2,
        });
    }
    for stratum in exposures {
        if stratum.counts().len() != arms.len() {
            return Err(InferenceError::WrongLength {
                what: "a stratum's list of arms",
                got: stratum.counts().len(),
                expected: arms.len(),
            });
        }
    }
    for arm in arms {
        if arm.guardrails.len() != plan.guardrails.len() {
            return Err(InferenceError::WrongLength {
                what: "an arm's list of guardrail metrics",
                got: arm.guardrails.len(),
                expected: plan.guardrails.len(),
            });
        }
    }
    plan.primary.check()?;
    for guardrail in &plan.guardrails {
        guardrail.check()?;
    }
    Ok(())
}

fn compare_all(plan: &Plan, arms: &[Arm<'_>]) -> Result<Vec<ArmResult>, InferenceError> {
    let control = &arms[0];
    let bar = Bar { alpha: plan.alpha, samples_min: plan.samples_min, demand: Demand::Proven };
    let mut results = Vec::with_capacity(arms.len() - 1);
    for (index, arm) in arms.iter().enumerate().skip(1) {
        let comparison = compare(&plan.primary, control.primary, arm.primary, plan.alpha, &plan.sequence);
        let samples = shared_samples(control.primary, arm.primary)?;
        let better = match &comparison {
            Ok(seen) => superior(seen.advantage, seen.interval, 0.0, samples, &bar),
            Err(error) => Judgement::open(0.0, samples, error.clone()),
        };
        let p_now = comparison.as_ref().map_or(1.0, |comparison| comparison.p_value);
        results.push(ArmResult {
            arm: index,
            comparison,
            p_value: arm.before.after(p_now),
            p_adjusted: 1.0,
            better,
            guardrails: judge_guardrails(plan, control, arm)?,
        });
    }
    Ok(results)
}

fn judge_guardrails(plan: &Plan, control: &Arm<'_>, arm: &Arm<'_>) -> Result<Vec<Judgement>, InferenceError> {
    let sums = control.guardrails.iter().zip(&arm.guardrails);
    plan.guardrails
        .iter()
        .zip(sums)
        .map(|(guardrail, (control, arm))| guardrail.judge(control, arm, plan.samples_min, &plan.sequence))
        .collect()
}

/// Takes back verdicts on the primary metric that do not survive the correction.
/// The direction is that of the arm's own interval, so a p-value that was small
/// for the opposite reason, long ago, decides nothing alone.
fn correct(plan: &Plan, results: &mut [ArmResult]) -> Result<(), InferenceError> {
    let p_values: Vec<f64> = results.iter().map(|result| result.p_value.get()).collect();
    let adjusted = plan.correction.adjust(&p_values)?;
    for (result, p_adjusted) in results.iter_mut().zip(adjusted) {
        result.p_adjusted = p_adjusted;
        let decided = matches!(result.better.verdict, Verdict::Pass | Verdict::Fail);
        if decided && p_adjusted > plan.alpha.get() {
            result.better.verdict = Verdict::Inconclusive(crate::verdict::Reason::StillOpen);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
