//! Whether a version does what it is there for: a real inference through the
//! real queue has just worked, and nobody has been waiting for too long. Pure:
//! it is told what was seen and when.

use std::time::{Duration, Instant};

/// How a version is judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HealthRules {
    /// Without an answer for so long, a probe is sent.
    pub probe_interval: Duration,
    /// No request is in flight for longer than this: its run is ended before.
    pub oldest_max: Duration,
}

/// What was seen of a version.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    /// The latest answer to anybody.
    pub last_success: Option<Instant>,
    /// How long the oldest request has been in flight.
    pub oldest: Option<Duration>,
    /// The latest probe, if it has ended: when, and why it failed.
    pub probe: Option<(Instant, Result<(), String>)>,
}

impl Observed {
    /// The reason, if the version does not do what it is there for.
    pub(crate) fn failing(&self, rules: &HealthRules) -> Option<String> {
        if let Some(oldest) = self.oldest.filter(|oldest| *oldest > rules.oldest_max) {
            return Some(format!(
                "a request has been in flight for {oldest:.1?}, longer than the {:.1?} that waiting and running may take",
                rules.oldest_max
            ));
        }
        let (probed_at, outcome) = self.probe.as_ref()?;
        let reason = outcome.as_ref().err()?;
        let answered_since = self.last_success.is_some_and(|answered| answered > *probed_at);
        (!answered_since).then(|| format!("a probe through its queue failed: {reason}"))
    }

    /// Whether it is time for a probe.
    pub(crate) fn probe_is_due(&self, rules: &HealthRules, now: Instant) -> bool {
        let probed_at = self.probe.as_ref().map(|(probed_at, _)| *probed_at);
        let latest = self.last_success.into_iter().chain(probed_at).max();
        latest.is_none_or(|latest| now.saturating_duration_since(latest) >= rules.probe_interval)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const RULES: HealthRules = HealthRules { probe_interval: SECOND, oldest_max: Duration::from_secs(40) };

    fn failed(at: Instant) -> Option<(Instant, Result<(), String>)> {
        Some((at, Err("no answer".to_owned())))
    }

    #[test]
    fn a_version_of_which_nothing_is_known_is_probed_and_not_accused() {
        let now = Instant::now();
        let nothing = Observed::default();
        assert!(nothing.probe_is_due(&RULES, now));
        assert_eq!(nothing.failing(&RULES), None);
    }

    #[test]
    fn an_answer_to_anybody_is_as_good_as_a_probe() {
        let now = Instant::now();
        let answered = Observed { last_success: Some(now), ..Observed::default() };
        assert!(!answered.probe_is_due(&RULES, now + SECOND / 2));
        assert!(answered.probe_is_due(&RULES, now + SECOND));
    }

    #[test]
    fn a_failed_probe_counts_until_something_is_answered() {
        let now = Instant::now();
        let mut seen = Observed { last_success: Some(now), probe: failed(now + SECOND), oldest: None };
        assert_eq!(seen.failing(&RULES).unwrap(), "a probe through its queue failed: no answer");
        assert!(!seen.probe_is_due(&RULES, now + SECOND));
        assert!(seen.probe_is_due(&RULES, now + 2 * SECOND));
        seen.last_success = Some(now + 2 * SECOND);
        assert_eq!(seen.failing(&RULES), None);
        seen.probe = Some((now + 3 * SECOND, Ok(())));
        assert_eq!(seen.failing(&RULES), None);
    }

    #[test]
    fn a_request_that_is_in_flight_for_too_long_counts_whatever_the_probes_say() {
        let now = Instant::now();
        let seen =
            |oldest| Observed { last_success: Some(now), oldest: Some(oldest), probe: Some((now, Ok(()))) };
        assert_eq!(seen(RULES.oldest_max).failing(&RULES), None);
        let reason = seen(RULES.oldest_max + SECOND).failing(&RULES).unwrap();
        assert!(reason.contains("in flight for 41.0s") && reason.contains("40.0s"), "{reason}");
    }
}
