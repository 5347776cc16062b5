//! One metric of one arm against that of the control.
//!
//! While events are few, both arms' means are enclosed by the exact beta-binomial
//! sequence; from [`OBSERVATIONS_MIN`](AsymptoticSequence::OBSERVATIONS_MIN)
//! on by the asymptotic one, which is much tighter. Each has its share of the
//! level, so that the change of methods costs no validity.

use crate::confidence::{AsymptoticSequence, BernoulliSequence, RunningPValue};
use crate::error::{InferenceError, finite};
use crate::quantity::{Alpha, Interval};
use crate::sums::{ArmSums, Moments, stratified_effect};

/// The share of the level that the exact method has; the asymptotic one has the rest.
const SMALL_COUNT_SHARE: f64 = 0.2;

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Conversions, rewards.
    HigherIsBetter,
    /// Errors, latencies, costs.
    LowerIsBetter,
}

/// What kind of values a metric has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Metric {
    /// 0 or 1.
    Conversion {
        /// Which way is better.
        direction: Direction,
    },
    /// Between two known bounds.
    Bounded {
        /// The smallest value there can be.
        lower: f64,
        /// The largest value there can be.
        upper: f64,
        /// Which way is better.
        direction: Direction,
    },
    /// Anything; judged only from 100 observations per arm on.
    Unbounded {
        /// Which way is better.
        direction: Direction,
    },
}

impl Metric {
    /// Refuses bounds that leave no room.
    pub fn check(&self) -> Result<(), InferenceError> {
        let Self::Bounded { lower, upper, .. } = *self else { return Ok(()) };
        finite("the lower bound of a metric", lower)?;
        finite("the upper bound of a metric", upper)?;
        if lower < upper {
            return Ok(());
        }
        Err(InferenceError::OutOfRange {
            what: "the lower bound of a metric",
            got: lower,
            lower: f64::NEG_INFINITY,
            upper,
        })
    }

    fn direction(&self) -> Direction {
        match self {
            Self::Conversion { direction }
            | Self::Bounded { direction, .. }
            | Self::Unbounded { direction } => *direction,
        }
    }

    /// The smallest and the largest value, if they are known.
    fn bounds(&self) -> Option<(f64, f64)> {
        match self {
            Self::Conversion { .. } => Some((0.0, 1.0)),
            Self::Bounded { lower, upper, .. } => Some((*lower, *upper)),
            Self::Unbounded { .. } => None,
        }
    }

    /// Whether sums are enough for the central limit theorem. Of conversions the
    /// rarer outcome counts: ten thousand trials without a success say little.
    fn is_large(&self, sums: &Moments) -> bool {
        let need = AsymptoticSequence::OBSERVATIONS_MIN;
        let count = sums.count();
        if !matches!(self, Self::Conversion { .. }) {
            return count >= need;
        }
        let successes = sums.sum();
        let need = need as f64;
        successes >= need && count as f64 - successes >= need
    }
}

/// How an interval came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Exact, from both arms' beta-binomial sequences.
    SmallCounts,
    /// The asymptotic confidence sequence of the stratified, clustered effect.
    Asymptotic,
}

/// An arm against the control.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// By how much the arm is better, in the metric's unit: negative if it is
    /// worse, whichever way is better.
    pub advantage: f64,
    /// Advantages that are believable.
    pub interval: Interval,
    /// The p-value of this look for "no difference".
    pub p_value: f64,
    /// How they were computed.
    pub method: Method,
}

/// Compares an arm with the control at one look.
///
/// # Errors
/// [`InferenceError::TooFew`] if no stratum has both arms or an unbounded metric
/// has fewer than 100 observations in one; [`InferenceError::NoVariation`] if an
/// unbounded metric never varied; [`InferenceError::OutOfRange`] if a sum leaves
/// the bounds that the metric declares.
pub fn compare(
    metric: &Metric,
    control: &ArmSums,
    arm: &ArmSums,
    alpha: Alpha,
    sequence: &AsymptoticSequence,
) -> Result<Comparison, InferenceError> {
    metric.check()?;
    let (control_total, arm_total) = shared_totals(control, arm)?;
    let large = metric.is_large(&control_total) && metric.is_large(&arm_total);
    let comparison = match (large, metric.bounds()) {
        (true, bounds) => match (by_limit_theorem(control, arm, alpha, sequence), bounds) {
            // Bounded values that never varied are still bounded.
            (Err(_), Some(bounds)) => by_small_counts(bounds, control, arm, alpha)?,
            (comparison, _) => comparison?,
        },
        (false, Some(bounds)) => by_small_counts(bounds, control, arm, alpha)?,
        (false, None) => {
            return Err(InferenceError::TooFew {
                what: "observations of an unbounded metric",
                have: control_total.count().min(arm_total.count()),
                need: AsymptoticSequence::OBSERVATIONS_MIN,
            });
        }
    };
    if metric.direction() == Direction::HigherIsBetter {
        return Ok(comparison);
    }
    Ok(Comparison { advantage: -comparison.advantage, interval: comparison.interval.negated(), ..comparison })
}

/// What each of two arms has seen in the strata that both saw: all that a comparison
/// rests on, however much one of them has seen alone.
pub(super) fn shared_totals(control: &ArmSums, arm: &ArmSums) -> Result<(Moments, Moments), InferenceError> {
    let control_strata = control.strata()?;
    let (mut control_total, mut arm_total) = (Moments::default(), Moments::default());
    for (stratum, sums) in arm.strata()? {
        if let Some(control) = control_strata.get(&stratum) {
            control_total.merge(control)?;
            arm_total.merge(&sums)?;
        }
    }
    Ok((control_total, arm_total))
}

/// The smaller number of observations of the two, in the strata that both saw.
pub(super) fn shared_samples(control: &ArmSums, arm: &ArmSums) -> Result<u64, InferenceError> {
    let (control, arm) = shared_totals(control, arm)?;
    Ok(control.count().min(arm.count()))
}

fn by_limit_theorem(
    control: &ArmSums,
    arm: &ArmSums,
    alpha: Alpha,
    sequence: &AsymptoticSequence,
) -> Result<Comparison, InferenceError> {
    let share = 1.0 - SMALL_COUNT_SHARE;
    let effect = stratified_effect(control, arm)?;
    let look = sequence.look(&effect, alpha.share(share))?;
    // The sequence's evidence does not depend on how the level is shared except by
    // its tuning, so the p-value pays for its share.
    let p_value = (look.p_value / share).min(1.0);
    Ok(Comparison {
        advantage: effect.estimate,
        interval: look.interval,
        p_value,
        method: Method::Asymptotic,
    })
}

/// One stratum's sums, moved to [0, 1].
struct Pair {
    control: (f64, u64),
    arm: (f64, u64),
    weight: f64,
    /// Share of the level: 1/2, 1/6, 1/12, … in the order of strata, so that ever
    /// more strata never spend more than there is.
    share: f64,
}

fn by_small_counts(
    bounds: (f64, f64),
    control: &ArmSums,
    arm: &ArmSums,
    alpha: Alpha,
) -> Result<Comparison, InferenceError> {
    let (lower, upper) = bounds;
    let room = upper - lower;
    let of = |sums: &Moments| ((sums.sum() - lower * sums.count() as f64) / room, sums.count());
    let control_strata = control.strata()?;
    let mut pairs = Vec::new();
    for (stratum, sums) in arm.strata()? {
        let Some(control) = control_strata.get(&stratum) else { continue };
        let (n_a, n_b) = (control.count() as f64, sums.count() as f64);
        let place = (pairs.len() + 1) as f64;
        pairs.push(Pair {
            control: of(control),
            arm: of(&sums),
            weight: n_a * n_b / (n_a + n_b),
            share: 1.0 / (place * (place + 1.0)),
        });
    }
    let total: f64 = pairs.iter().map(|pair| pair.weight).sum();
    if pairs.is_empty() || total <= 0.0 {
        return Err(InferenceError::TooFew { what: "strata that both arms share", have: 0, need: 1 });
    }
    let mean = |(sum, count): (f64, u64)| sum / count as f64;
    let advantage: f64 =
        pairs.iter().map(|pair| pair.weight / total * (mean(pair.arm) - mean(pair.control))).sum();
    let exact = alpha.share(SMALL_COUNT_SHARE);
    let interval = enclose(&pairs, total, exact)?;
    let p_value = smallest_level_without_zero(&pairs, total)? / SMALL_COUNT_SHARE;
    Ok(Comparison {
        advantage: advantage * room,
        interval: Interval::new(interval.lower() * room, interval.upper() * room)?,
        p_value: RunningPValue::default().after(p_value).get(),
        method: Method::SmallCounts,
    })
}

/// The weighted difference, each of the means enclosed at its part of the level.
fn enclose(pairs: &[Pair], total: f64, alpha: Alpha) -> Result<Interval, InferenceError> {
    let (mut lower, mut upper) = (0.0, 0.0);
    for pair in pairs {
        let alpha = alpha.share(pair.share / 2.0);
        let sequence = BernoulliSequence::DEFAULT;
        let control = sequence.bounded_mean(pair.control.0, pair.control.1, alpha)?;
        let arm = sequence.bounded_mean(pair.arm.0, pair.arm.1, alpha)?;
        lower += pair.weight / total * (arm.lower() - control.upper());
        upper += pair.weight / total * (arm.upper() - control.lower());
    }
    Interval::new(lower, upper)
}

/// The smallest level at which 0 is no longer inside: the p-value that belongs to
/// the interval. To three digits, from above.
fn smallest_level_without_zero(pairs: &[Pair], total: f64) -> Result<f64, InferenceError> {
    /// Levels below this are not told apart: ln of about 1e-13.
    const LOG_LEVEL_MIN: f64 = -30.0;
    const LOG_LEVEL_MAX: f64 = -1e-3;
    const STEPS: f64 = 1024.0;
    let excludes_zero = |log_level: f64| {
        let alpha = Alpha::new(log_level.exp())?;
        Ok::<bool, InferenceError>(!enclose(pairs, total, alpha)?.contains(0.0))
    };
    if !excludes_zero(LOG_LEVEL_MAX)? {
        return Ok(1.0);
    }
    // A whole number of steps down, so that the search is short.
    let step = (LOG_LEVEL_MAX - LOG_LEVEL_MIN) / STEPS;
    let at = |steps: f64| LOG_LEVEL_MAX - step * steps;
    let (mut excluded, mut open) = (0.0, STEPS);
    while open - excluded > 1.0 {
        let middle = f64::midpoint(excluded, open).floor();
        if excludes_zero(at(middle))? {
            excluded = middle;
        } else {
            open = middle;
        }
    }
    Ok(at(excluded).exp())
}
