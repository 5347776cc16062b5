//! The Prometheus series of feedback on this node.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::item::{Answer, Verdict};

const SECONDS_BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// All series. Cheap to clone.
#[derive(Clone)]
pub(super) struct FeedbackMetrics {
    results: IntCounterVec,
    refused: IntCounter,
    pub(super) delivered: IntCounter,
    pub(super) deltas: IntCounter,
    pub(super) deltas_refused: IntCounter,
    pub(super) store_bytes: IntGauge,
    pub(super) outbox_bytes: IntGauge,
    pub(super) keep_seconds: Histogram,
    pub(super) commit_seconds: Histogram,
}

impl FeedbackMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histogram = |name: &str, help: &str| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS_BUCKETS.to_vec()))
        };
        let metrics = Self {
            results: IntCounterVec::new(
                Opts::new(
                    "starling_feedback_total",
                    "Feedback by what became of it; of all but `stored` and `invalid`, at the node that decided",
                ),
                &["result"],
            )?,
            refused: IntCounter::new(
                "starling_feedback_refused_total",
                "Requests with feedback that could not be kept and must be sent again",
            )?,
            delivered: IntCounter::new(
                "starling_feedback_delivered_total",
                "Stored feedback that was brought to the node that decided",
            )?,
            deltas: IntCounter::new(
                "starling_feedback_deltas_total",
                "Sums of rewards of this node that the log has taken",
            )?,
            deltas_refused: IntCounter::new(
                "starling_feedback_deltas_refused_total",
                "Sums of rewards of this node that the log will never take",
            )?,
            store_bytes: IntGauge::new(
                "starling_feedback_store_bytes",
                "Feedback about this node's decisions on its disk",
            )?,
            outbox_bytes: IntGauge::new(
                "starling_feedback_outbox_bytes",
                "Feedback that waits on this node's disk for nodes that cannot be reached",
            )?,
            keep_seconds: histogram(
                "starling_feedback_keep_seconds",
                "Time until feedback about this node's decisions was on its disk",
            )?,
            commit_seconds: histogram(
                "starling_feedback_commit_seconds",
                "Time that the log took for one node's sums of rewards",
            )?,
        };
        registry.register(Box::new(metrics.results.clone()))?;
        registry.register(Box::new(metrics.keep_seconds.clone()))?;
        registry.register(Box::new(metrics.commit_seconds.clone()))?;
        for counter in [&metrics.refused, &metrics.delivered, &metrics.deltas, &metrics.deltas_refused] {
            registry.register(Box::new(counter.clone()))?;
        }
        for gauge in [&metrics.store_bytes, &metrics.outbox_bytes] {
            registry.register(Box::new(gauge.clone()))?;
        }
        for verdict in Verdict::ALL {
            metrics.results.with_label_values(&[verdict.name()]);
        }
        Ok(metrics)
    }

    pub(super) fn count(&self, verdict: Verdict, items: u64) {
        self.results.with_label_values(&[verdict.name()]).inc_by(items);
    }

    pub(super) fn count_answers<'a>(&self, answers: impl IntoIterator<Item = &'a Answer>) {
        let mut counts = [0_u64; Verdict::ALL.len()];
        for answer in answers {
            let place = Verdict::ALL.iter().position(|verdict| *verdict == answer.verdict);
            if let Some(count) = place.and_then(|place| counts.get_mut(place)) {
                *count += 1;
            }
        }
        for (verdict, count) in Verdict::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
            self.count(verdict, count);
        }
    }

    pub(super) fn refused(&self) {
        self.refused.inc();
    }
}
