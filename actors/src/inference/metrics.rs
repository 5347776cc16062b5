//! The Prometheus series of inference on this node, by model and version.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::InferError;
use super::error::Overload;
use super::host::VersionKey;

/// Let in, and not begun before its time was over.
const TOO_LATE: &str = "too_late";
const LABELS: [&str; 2] = ["model", "version"];
const SECONDS_BUCKETS: [f64; 16] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.5, 2.5, 10.0,
];
const ROWS_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0];

/// All series.
#[derive(Clone)]
pub(crate) struct InferenceMetrics {
    queue_seconds: HistogramVec,
    compute_seconds: HistogramVec,
    batch_rows: HistogramVec,
    in_flight: IntGaugeVec,
    instance_restarts: IntCounterVec,
    refusals: IntCounterVec,
    healthy: IntGaugeVec,
}

/// The series of one version.
pub(crate) struct VersionMetrics {
    pub queue_seconds: Histogram,
    pub compute_seconds: Histogram,
    pub batch_rows: Histogram,
    pub in_flight: IntGauge,
    pub instance_restarts: IntCounter,
    pub healthy: IntGauge,
    refusals: Vec<IntCounter>,
    too_late: IntCounter,
}

impl VersionMetrics {
    /// Counts a request that was not run for want of time or room.
    pub(crate) fn refused(&self, error: &InferError) {
        match error {
            InferError::Overloaded { reason, .. } => {
                let place = Overload::ALL.iter().position(|other| other == reason);
                if let Some(counter) = place.and_then(|place| self.refusals.get(place)) {
                    counter.inc();
                }
            }
            InferError::DeadlineExceeded(_) => self.too_late.inc(),
            _ => {}
        }
    }
}

impl InferenceMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &LABELS)
        };
        let metrics = Self {
            queue_seconds: histogram(
                "starling_inference_queue_seconds",
                "Time that an answered request waited in the queue of its version",
                &SECONDS_BUCKETS,
            )?,
            compute_seconds: histogram(
                "starling_inference_compute_seconds",
                "Time that a run of the session took",
                &SECONDS_BUCKETS,
            )?,
            batch_rows: histogram("starling_inference_batch_rows", "Rows of a run", &ROWS_BUCKETS)?,
            in_flight: IntGaugeVec::new(
                Opts::new("starling_inference_in_flight", "Requests queued or running"),
                &LABELS,
            )?,
            instance_restarts: IntCounterVec::new(
                Opts::new(
                    "starling_inference_instance_restarts_total",
                    "Instances started in place of one that ended",
                ),
                &LABELS,
            )?,
            healthy: IntGaugeVec::new(
                Opts::new(
                    "starling_inference_version_healthy",
                    "1 while an inference of the version through its queue has just worked on this node",
                ),
                &LABELS,
            )?,
            refusals: IntCounterVec::new(
                Opts::new(
                    "starling_inference_refused_total",
                    "Requests that were not run, by reason: queue_full, queue_time, deadline, displaced, memory, too_late",
                ),
                &["model", "version", "reason"],
            )?,
        };
        registry.register(Box::new(metrics.refusals.clone()))?;
        registry.register(Box::new(metrics.healthy.clone()))?;
        registry.register(Box::new(metrics.queue_seconds.clone()))?;
        registry.register(Box::new(metrics.compute_seconds.clone()))?;
        registry.register(Box::new(metrics.batch_rows.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.instance_restarts.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn of_version(&self, key: &VersionKey) -> VersionMetrics {
        let version = key.ordinal.to_string();
        let labels = [key.model.as_str(), version.as_str()];
        let refusals =
            |reason: &str| self.refusals.with_label_values(&[key.model.as_str(), version.as_str(), reason]);
        VersionMetrics {
            queue_seconds: self.queue_seconds.with_label_values(&labels),
            compute_seconds: self.compute_seconds.with_label_values(&labels),
            batch_rows: self.batch_rows.with_label_values(&labels),
            in_flight: self.in_flight.with_label_values(&labels),
            instance_restarts: self.instance_restarts.with_label_values(&labels),
            healthy: self.healthy.with_label_values(&labels),
            refusals: Overload::ALL.iter().map(|reason| refusals(reason.as_str())).collect(),
            too_late: refusals(TOO_LATE),
        }
    }

    /// Forgets the series of a version that is gone.
    pub(crate) fn forget_version(&self, key: &VersionKey) {
        let version = key.ordinal.to_string();
        let labels = [key.model.as_str(), version.as_str()];
        // A series that is not there is as good as forgotten.
        let _ = self.queue_seconds.remove_label_values(&labels);
        let _ = self.compute_seconds.remove_label_values(&labels);
        let _ = self.batch_rows.remove_label_values(&labels);
        let _ = self.in_flight.remove_label_values(&labels);
        let _ = self.instance_restarts.remove_label_values(&labels);
        let _ = self.healthy.remove_label_values(&labels);
        for reason in Overload::ALL.iter().map(|reason| reason.as_str()).chain([TOO_LATE]) {
            let _ = self.refusals.remove_label_values(&[key.model.as_str(), version.as_str(), reason]);
        }
    }
}
