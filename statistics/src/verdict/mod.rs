//! What a gate says: pass, fail, or not yet clear and why. Never pass because of
//! silence, never fail because of it.
//!
//! - [`error_rate`], [`agreement`], [`rate_difference`]: rates, exact with few events.
//! - [`non_inferior`], [`superior`]: an interval of a difference against a margin.
//! - [`latency_ratio`]: a quantile of one arm against the same of another.
//! - [`Hysteresis`]: a step follows only several verdicts in a row.

mod gates;
mod hysteresis;
mod latency;

use std::fmt;

pub use gates::{agreement, error_rate, non_inferior, rate_difference, superior};
pub use hysteresis::{Hysteresis, Settled, Streak};
pub use latency::{LatencyGate, OrderStatistics, latency_ratio};

use crate::error::InferenceError;
use crate::quantity::{Alpha, Interval};

/// What a gate says.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// What is asked for holds.
    Pass,
    /// What is asked for does not hold: beyond chance, at the gate's level.
    Fail,
    /// Neither is clear.
    Inconclusive(Reason),
}

/// Why a gate says neither.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// Not enough has been seen.
    TooFew {
        /// Samples that there are, of the arm that has fewer.
        have: u64,
        /// Samples that there must be.
        need: u64,
    },
    /// Enough has been seen, but the threshold is still believable from both sides.
    StillOpen,
    /// All that was seen is equal, so its spread is not known.
    NoVariation,
    /// The numbers could not be judged.
    Refused(InferenceError),
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFew { have, need } => write!(formatter, "{have} samples of {need}"),
            Self::StillOpen => formatter.write_str("the threshold is inside the interval"),
            Self::NoVariation => formatter.write_str("all samples are equal so far"),
            Self::Refused(error) => error.fmt(formatter),
        }
    }
}

impl From<InferenceError> for Reason {
    fn from(error: InferenceError) -> Self {
        match error {
            InferenceError::TooFew { have, need, .. } => Self::TooFew { have, need },
            InferenceError::NoVariation { .. } => Self::NoVariation,
            other => Self::Refused(other),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => formatter.write_str("pass"),
            Self::Fail => formatter.write_str("fail"),
            Self::Inconclusive(reason) => write!(formatter, "inconclusive: {reason}"),
        }
    }
}

impl Verdict {
    /// What several gates say together: fail if any fails, pass if all pass (none
    /// at all included), otherwise the first reason why it is open.
    pub fn of_all<'verdict>(verdicts: impl IntoIterator<Item = &'verdict Self>) -> Self {
        let mut together = Self::Pass;
        for verdict in verdicts {
            match (verdict, &together) {
                (Self::Fail, _) => return Self::Fail,
                (Self::Inconclusive(_), Self::Pass) => together = verdict.clone(),
                _ => {}
            }
        }
        together
    }
}

/// What it takes to pass. To fail always takes proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Demand {
    /// The whole interval is on the good side.
    #[default]
    Proven,
    /// The minimum of samples is there, the estimate is on the good side, and the
    /// contrary is not proven: for what would take very many samples to prove, such
    /// as the ratio of two 99th percentiles. Such a pass may be chance.
    Plausible,
}

/// How strict a gate is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bar {
    /// Chance of ever failing what is good (and, if proof is demanded, of ever
    /// passing what is bad).
    pub alpha: Alpha,
    /// Samples below which the gate does not pass, of each arm. A failure that is
    /// proven earlier is told at once.
    pub samples_min: u64,
    /// What it takes to pass.
    pub demand: Demand,
}

impl Bar {
    /// Proof at 5 %, from 100 samples on.
    pub const DEFAULT: Self = Self { alpha: Alpha::FIVE_PERCENT, samples_min: 100, demand: Demand::Proven };
}

/// A verdict and the numbers that led to it, to be written into the event that
/// follows from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// What the gate says.
    pub verdict: Verdict,
    /// The best guess, if there is one.
    pub estimate: Option<f64>,
    /// What is believable.
    pub interval: Interval,
    /// What it was held against.
    pub threshold: f64,
    /// How many samples there were, of the arm that has fewer.
    pub samples: u64,
}

impl Judgement {
    /// Nothing could be judged, and why.
    #[must_use]
    pub fn open(threshold: f64, samples: u64, reason: impl Into<Reason>) -> Self {
        Self {
            verdict: Verdict::Inconclusive(reason.into()),
            estimate: None,
            interval: Interval::UNKNOWN,
            threshold,
            samples,
        }
    }

    /// Judges a quantity that should be at most `threshold`.
    fn at_most(threshold: f64, estimate: f64, interval: Interval, samples: u64, bar: &Bar) -> Self {
        let good = match bar.demand {
            Demand::Proven => interval.upper() <= threshold,
            Demand::Plausible => estimate <= threshold,
        };
        let verdict = if interval.lower() > threshold {
            Verdict::Fail
        } else if samples < bar.samples_min {
            Verdict::Inconclusive(Reason::TooFew { have: samples, need: bar.samples_min })
        } else if good {
            Verdict::Pass
        } else {
            Verdict::Inconclusive(Reason::StillOpen)
        };
        Self { verdict, estimate: Some(estimate), interval, threshold, samples }
    }

    /// The same of a quantity that should be at least `threshold`.
    fn at_least(threshold: f64, estimate: f64, interval: Interval, samples: u64, bar: &Bar) -> Self {
        let mirrored = Self::at_most(-threshold, -estimate, interval.negated(), samples, bar);
        Self { estimate: Some(estimate), interval, threshold, ..mirrored }
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.verdict)?;
        if let Some(estimate) = self.estimate {
            write!(formatter, "; estimate {estimate:.6}, believable {}", self.interval)?;
        }
        write!(formatter, "; threshold {}, {} samples", self.threshold, self.samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Verdict {
        Verdict::Inconclusive(Reason::StillOpen)
    }

    #[test]
    fn several_gates_pass_only_together_and_fail_alone() {
        let table = [
            (vec![], Verdict::Pass),
            (vec![Verdict::Pass, Verdict::Pass], Verdict::Pass),
            (vec![Verdict::Pass, open()], open()),
            (vec![open(), Verdict::Pass, Verdict::Fail], Verdict::Fail),
        ];
        for (verdicts, together) in table {
            assert_eq!(Verdict::of_all(&verdicts), together, "{verdicts:?}");
        }
    }

    #[test]
    fn a_judgement_says_its_numbers() {
        let judgement = Judgement::open(0.01, 3, Reason::TooFew { have: 3, need: 100 });
        assert_eq!(judgement.to_string(), "inconclusive: 3 samples of 100; threshold 0.01, 3 samples");
    }
}
