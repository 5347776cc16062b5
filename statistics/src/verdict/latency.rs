//! Is the candidate at most so many times as slow as the stable version, at a
//! quantile?
//!
//! Both quantiles are enclosed by ranks ([`quantile_ranks`](crate::confidence::quantile_ranks)),
//! half of the level for each; the ratio lies between the quotients of the ends.
//! While the ranks of few requests reach beyond the largest one, the largest
//! itself is the bound as soon as pⁿ says it may be: a candidate that is ten times
//! slower is told after some hundred requests.
//!
//! To prove that a ratio of 99th percentiles is below 1.2 can take hundreds of
//! thousands of requests: use [`Demand::Plausible`](super::Demand::Plausible).

use super::{Bar, Judgement, Reason};
use crate::confidence::{largest_value_bounds_from, quantile_ranks};
use crate::error::{InferenceError, positive};
use crate::quantity::{Alpha, Interval, Probability};

/// Values in order, as a sketch or a sorted list has them.
pub trait OrderStatistics {
    /// How many values there are.
    fn count(&self) -> u64;

    /// The value of this rank, counted from 1 for the smallest, up to
    /// [`count`](Self::count). Latencies: positive, in any unit.
    fn at_rank(&self, rank: u64) -> f64;

    /// By which fraction of itself a value may be off; 0 of exact values.
    fn relative_error(&self) -> f64;
}

/// What latencies are held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencyGate {
    /// Which quantile, strictly inside (0, 1): 0.99 of a p99.
    pub quantile: Probability,
    /// The candidate's may be this many times that of the stable version.
    pub max_ratio: f64,
}

/// Judges the ratio of the two arms' quantiles.
#[must_use]
pub fn latency_ratio(
    stable: &dyn OrderStatistics,
    candidate: &dyn OrderStatistics,
    gate: &LatencyGate,
    bar: &Bar,
) -> Judgement {
    let samples = stable.count().min(candidate.count());
    if samples == 0 {
        let need = bar.samples_min.max(1);
        return Judgement::open(gate.max_ratio, 0, Reason::TooFew { have: 0, need });
    }
    let judged = || {
        let stable = enclose(stable, gate.quantile, bar.alpha.share(0.5))?;
        let candidate = enclose(candidate, gate.quantile, bar.alpha.share(0.5))?;
        let interval = Interval::new(
            candidate.interval.lower() / stable.interval.upper(),
            candidate.interval.upper() / stable.interval.lower(),
        )?;
        let estimate = candidate.value / stable.value;
        Ok(Judgement::at_most(gate.max_ratio, estimate, interval, samples, bar))
    };
    judged().unwrap_or_else(|error: InferenceError| Judgement::open(gate.max_ratio, samples, error))
}

struct Enclosed {
    value: f64,
    interval: Interval,
}

fn enclose(
    values: &dyn OrderStatistics,
    quantile: Probability,
    alpha: Alpha,
) -> Result<Enclosed, InferenceError> {
    let count = values.count();
    // One half for the ranks, one for the largest value.
    let half = alpha.share(0.5);
    let tuned_for = 1.0 / (1.0 - quantile.get()).max(f64::MIN_POSITIVE) * 20.0;
    let ranks = quantile_ranks(count, quantile, half, tuned_for)?;
    let error = values.relative_error();
    let nearest = ((quantile.get() * count as f64).ceil() as u64).clamp(1, count);

    let largest_bounds = largest_value_bounds_from(quantile, half).is_some_and(|from| count >= from);
    let upper_rank = if largest_bounds { ranks.upper.or(Some(count)) } else { ranks.upper };
    let upper = upper_rank.map_or(f64::INFINITY, |rank| values.at_rank(rank) * (1.0 + error));
    let lower = ranks.lower.map_or(0.0, |rank| values.at_rank(rank) * (1.0 - error));
    let value = positive("a quantile of latencies", values.at_rank(nearest))?;
    Ok(Enclosed { value, interval: Interval::new(lower.max(0.0), upper)? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::verdict::{Demand, Verdict};

    struct Sorted(Vec<f64>);

    impl OrderStatistics for Sorted {
        fn count(&self) -> u64 {
            self.0.len() as u64
        }

        fn at_rank(&self, rank: u64) -> f64 {
            self.0[rank as usize - 1]
        }

        fn relative_error(&self) -> f64 {
            0.0
        }
    }

    /// `count` latencies from 1 to 2 milliseconds, times `factor`.
    fn latencies(count: u64, factor: f64) -> Sorted {
        Sorted((0..count).map(|k| factor * (1.0 + (k as f64 + 0.5) / count as f64)).collect())
    }

    fn p99(stable: &Sorted, candidate: &Sorted, demand: Demand) -> Judgement {
        let gate = LatencyGate { quantile: Probability::new(0.99).unwrap(), max_ratio: 1.2 };
        latency_ratio(stable, candidate, &gate, &Bar { demand, ..Bar::DEFAULT })
    }

    #[test]
    fn ten_times_slower_fails_after_a_few_requests_if_stable_is_known() {
        let judgement = p99(&latencies(600, 1.0), &latencies(30, 10.0), Demand::Plausible);
        assert_eq!(judgement.verdict, Verdict::Fail, "{judgement}");
        // Of a stable version that is hardly known itself nothing is proven.
        let judgement = p99(&latencies(60, 1.0), &latencies(300, 10.0), Demand::Plausible);
        let too_few = Verdict::Inconclusive(Reason::TooFew { have: 60, need: 100 });
        assert_eq!(judgement.verdict, too_few, "{judgement}");
    }

    #[test]
    fn as_fast_passes_by_estimate_first_and_by_proof_later() {
        let few = p99(&latencies(500, 1.0), &latencies(500, 1.0), Demand::Plausible);
        assert_eq!(few.verdict, Verdict::Pass, "{few}");
        let proof = p99(&latencies(20_000, 1.0), &latencies(20_000, 1.0), Demand::Proven);
        assert_eq!(proof.verdict, Verdict::Pass, "{proof}");
        let unknown = p99(&latencies(200, 1.0), &latencies(200, 1.0), Demand::Proven);
        assert_eq!(unknown.verdict, Verdict::Inconclusive(Reason::StillOpen), "{unknown}");
    }

    #[test]
    fn slower_than_allowed_does_not_pass_even_before_it_is_proven() {
        let judgement = p99(&latencies(300, 1.0), &latencies(300, 1.3), Demand::Plausible);
        assert_eq!(judgement.verdict, Verdict::Inconclusive(Reason::StillOpen), "{judgement}");
        let judgement = p99(&latencies(50_000, 1.0), &latencies(50_000, 1.3), Demand::Plausible);
        assert_eq!(judgement.verdict, Verdict::Fail, "{judgement}");
    }

    #[test]
    fn no_latencies_are_neither_fast_nor_slow() {
        let judgement = p99(&latencies(500, 1.0), &latencies(0, 1.0), Demand::Plausible);
        let too_few = Verdict::Inconclusive(Reason::TooFew { have: 0, need: 100 });
        assert_eq!(judgement.verdict, too_few);
    }
}
