//! Gates on rates and on differences.
//!
//! Rates are judged by the beta-binomial sequence, which is exact from the first
//! request on. It takes requests as independent: where few units send very many,
//! give it units, or a level that is smaller.

use super::{Bar, Judgement, Reason, Verdict};
use crate::confidence::BernoulliSequence;
use crate::error::InferenceError;
use crate::quantity::{Interval, Probability};

/// Are at most `max` of the requests errors?
#[must_use]
pub fn error_rate(errors: u64, requests: u64, max: Probability, bar: &Bar) -> Judgement {
    let judged = rate(errors, requests, bar)
        .map(|(estimate, interval)| Judgement::at_most(max.get(), estimate, interval, requests, bar));
    judged.unwrap_or_else(|error| Judgement::open(max.get(), requests, error))
}

/// Do at least `min` of the compared answers agree?
#[must_use]
pub fn agreement(agreed: u64, compared: u64, min: Probability, bar: &Bar) -> Judgement {
    let judged = rate(agreed, compared, bar)
        .map(|(estimate, interval)| Judgement::at_least(min.get(), estimate, interval, compared, bar));
    judged.unwrap_or_else(|error| Judgement::open(min.get(), compared, error))
}

/// Does the candidate's rate of something bad exceed the stable version's by at
/// most `margin`? Counts are (events, requests). Exact with few events, at the price
/// of half the level for each side. Both sides must come from the same stratum.
#[must_use]
pub fn rate_difference(stable: (u64, u64), candidate: (u64, u64), margin: f64, bar: &Bar) -> Judgement {
    let samples = stable.1.min(candidate.1);
    let half = Bar { alpha: bar.alpha.share(0.5), ..*bar };
    let judged = || {
        let (stable_rate, stable) = rate(stable.0, stable.1, &half)?;
        let (candidate_rate, candidate) = rate(candidate.0, candidate.1, &half)?;
        let interval = Interval::new(candidate.lower() - stable.upper(), candidate.upper() - stable.lower())?;
        Ok(Judgement::at_most(margin, candidate_rate - stable_rate, interval, samples, bar))
    };
    judged().unwrap_or_else(|error: InferenceError| Judgement::open(margin, samples, error))
}

/// Is what the candidate does at most `margin` worse? `difference` is candidate
/// minus stable of a metric of which more is better, `interval` a confidence
/// sequence of it; `margin` is 0 or more.
#[must_use]
pub fn non_inferior(difference: f64, interval: Interval, margin: f64, samples: u64, bar: &Bar) -> Judgement {
    Judgement::at_least(-margin, difference, interval, samples, bar)
}

/// Is the candidate better by more than `margin`? See [`non_inferior`].
#[must_use]
pub fn superior(difference: f64, interval: Interval, margin: f64, samples: u64, bar: &Bar) -> Judgement {
    let judgement = Judgement::at_least(margin, difference, interval, samples, bar);
    // At the threshold itself nothing is better.
    if judgement.verdict == Verdict::Pass && interval.lower() <= margin && difference <= margin {
        return Judgement { verdict: Verdict::Inconclusive(Reason::StillOpen), ..judgement };
    }
    judgement
}

fn rate(events: u64, trials: u64, bar: &Bar) -> Result<(f64, Interval), InferenceError> {
    if trials == 0 {
        return Err(InferenceError::TooFew { what: "requests", have: 0, need: bar.samples_min.max(1) });
    }
    let interval = BernoulliSequence::DEFAULT.rate(events, trials, bar.alpha)?;
    Ok((events as f64 / trials as f64, interval))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::quantity::Alpha;
    use crate::verdict::Demand;

    fn too_few(have: u64) -> Verdict {
        Verdict::Inconclusive(Reason::TooFew { have, need: 100 })
    }

    fn still_open() -> Verdict {
        Verdict::Inconclusive(Reason::StillOpen)
    }

    #[test]
    fn error_rates_pass_fail_or_stay_open() {
        let one_percent = Probability::new(0.01).unwrap();
        let table = [
            (0, 0, too_few(0)),
            (0, 50, too_few(50)),
            // Every request fails: told long before the minimum of samples.
            (12, 12, Verdict::Fail),
            (0, 200, still_open()),
            (10, 1000, still_open()),
            (0, 3000, Verdict::Pass),
            (100, 3000, Verdict::Fail),
        ];
        for (errors, requests, expected) in table {
            let judgement = error_rate(errors, requests, one_percent, &Bar::DEFAULT);
            assert_eq!(judgement.verdict, expected, "{errors} of {requests}: {judgement}");
        }
    }

    #[test]
    fn what_is_only_plausible_passes_if_that_is_all_that_is_asked() {
        let bar = Bar { demand: Demand::Plausible, ..Bar::DEFAULT };
        let one_percent = Probability::new(0.01).unwrap();
        assert_eq!(error_rate(0, 99, one_percent, &bar).verdict, too_few(99));
        assert_eq!(error_rate(0, 100, one_percent, &bar).verdict, Verdict::Pass);
        assert_eq!(error_rate(2, 100, one_percent, &bar).verdict, still_open());
        assert_eq!(error_rate(60, 100, one_percent, &bar).verdict, Verdict::Fail);
    }

    #[test]
    fn agreement_is_bounded_from_below() {
        let min = Probability::new(0.98).unwrap();
        let table = [
            (100, 100, still_open()),
            (2000, 2000, Verdict::Pass),
            (10, 40, Verdict::Fail),
            (980, 1000, still_open()),
            (9500, 10_000, Verdict::Fail),
        ];
        for (agreed, compared, expected) in table {
            let judgement = agreement(agreed, compared, min, &Bar::DEFAULT);
            assert_eq!(judgement.verdict, expected, "{agreed} of {compared}: {judgement}");
        }
    }

    #[test]
    fn a_candidate_that_errs_more_than_stable_fails_and_an_equal_one_passes_in_time() {
        let table = [
            ((1, 1000), (0, 0), too_few(0)),
            ((1, 1000), (30, 50), Verdict::Fail),
            ((10, 1000), (10, 1000), still_open()),
            ((100, 10_000), (100, 10_000), Verdict::Pass),
        ];
        for (stable, candidate, expected) in table {
            let judgement = rate_difference(stable, candidate, 0.01, &Bar::DEFAULT);
            assert_eq!(judgement.verdict, expected, "{stable:?} {candidate:?}: {judgement}");
        }
    }

    #[test]
    fn more_errors_than_requests_are_refused_and_not_judged() {
        let judgement = error_rate(3, 2, Probability::new(0.5).unwrap(), &Bar::DEFAULT);
        assert!(matches!(judgement.verdict, Verdict::Inconclusive(Reason::Refused(_))), "{judgement}");
    }

    #[test]
    fn differences_are_held_against_their_margin() {
        let bar = Bar { alpha: Alpha::FIVE_PERCENT, ..Bar::DEFAULT };
        let around = |centre: f64, half: f64| Interval::around(centre, half).unwrap();
        let non_inferiority =
            [(0.0, 0.005, Verdict::Pass), (-0.005, 0.02, still_open()), (-0.05, 0.02, Verdict::Fail)];
        for (difference, half, expected) in non_inferiority {
            let judgement = non_inferior(difference, around(difference, half), 0.01, 500, &bar);
            assert_eq!(judgement.verdict, expected, "{judgement}");
        }
        let superiority = [
            (0.05, 0.02, Verdict::Pass),
            (0.01, 0.02, still_open()),
            (0.0, 0.0, still_open()),
            (-0.05, 0.02, Verdict::Fail),
        ];
        for (difference, half, expected) in superiority {
            let judgement = superior(difference, around(difference, half), 0.0, 500, &bar);
            assert_eq!(judgement.verdict, expected, "{judgement}");
        }
    }
}
