//! What Prometheus sees of predictions: names, help texts, and handles that
//! cost nothing to find on the request path.
//!
//! Only models and versions that exist become label values; a name that a
//! client made up is counted under empty labels.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use super::InferError;
use super::routing_table::{RoutedVersion, RoutingTable, VersionId};

const CODES: [&str; 9] = [
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",
    "UNAVAILABLE",
    "CANCELLED",
    "INTERNAL",
    "UNIMPLEMENTED",
];

/// Upper bounds in seconds: 100 µs to 10 s.
const DURATION_BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The series of one version.
#[derive(Debug)]
struct VersionMetrics {
    model: String,
    label: String,
    answered: IntCounter,
    duration: Histogram,
}

/// Series of predictions that this node answered as the entry node.
#[derive(Debug)]
pub struct RequestMetrics {
    requests: IntCounterVec,
    durations: HistogramVec,
    retried: IntCounterVec,
    by_version: ArcSwap<HashMap<VersionId, Arc<VersionMetrics>>>,
    /// Requests inside this node.
    pub in_flight: IntGauge,
    /// Requests sent to peers, by outcome.
    pub forwarded: IntCounterVec,
    /// Requests that peers were asked for, by the way they took.
    pub forward_ways: IntCounterVec,
    /// Log index that the routing table reflects.
    pub routed_index: IntGauge,
}

/// The name of the gRPC code that an error becomes.
pub fn code_of(error: &InferError) -> &'static str {
    match error {
        InferError::InvalidArgument(_) | InferError::RefusedByModel(_) => "INVALID_ARGUMENT",
        InferError::NotFound(_) => "NOT_FOUND",
        InferError::Overloaded { .. } => "RESOURCE_EXHAUSTED",
        InferError::DeadlineExceeded(_) => "DEADLINE_EXCEEDED",
        InferError::Unavailable(_) => "UNAVAILABLE",
        InferError::Cancelled => "CANCELLED",
        InferError::Internal(_) => "INTERNAL",
        InferError::Unimplemented(_) => "UNIMPLEMENTED",
    }
}

impl RequestMetrics {
    /// Registers the series. Fails if they are there already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "starling_inference_requests_total",
                "Predictions that clients asked this node for, by the gRPC code of the answer",
            ),
            &["model", "version", "code"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "starling_inference_request_duration_seconds",
                "From a prediction's arrival at this node to its answer, forwarding included; answered ones only",
            )
            .buckets(DURATION_BUCKETS.to_vec()),
            &["model", "version"],
        )?;
        let retried = IntCounterVec::new(
            Opts::new(
                "starling_retried_on_stable_total",
                "Predictions that this version failed in a rollout and the stable one was asked for again",
            ),
            &["model", "version"],
        )?;
        let in_flight = IntGauge::new(
            "starling_inference_requests_in_flight",
            "Predictions queued, running or forwarded, those for peers included",
        )?;
        let forwarded = IntCounterVec::new(
            Opts::new(
                "starling_forwarded_requests_total",
                "Predictions that a peer was asked for, by outcome",
            ),
            &["outcome"],
        )?;
        let forward_ways = IntCounterVec::new(
            Opts::new(
                "starling_forwarded_requests_by_way_total",
                "Predictions that a peer was asked for: short from core to core, ordinary by a call",
            ),
            &["way"],
        )?;
        let routed_index =
            IntGauge::new("starling_routing_applied_index", "Log index that this node routes by")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(retried.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        registry.register(Box::new(forwarded.clone()))?;
        registry.register(Box::new(forward_ways.clone()))?;
        registry.register(Box::new(routed_index.clone()))?;
        Ok(Self {
            requests,
            durations,
            retried,
            by_version: ArcSwap::default(),
            in_flight,
            forwarded,
            forward_ways,
            routed_index,
        })
    }

    /// Counts an answer.
    pub fn answered(&self, version: &RoutedVersion, latency: Duration) {
        let known = self.by_version.load();
        if let Some(metrics) = known.get(&version.id) {
            metrics.answered.inc();
            metrics.duration.observe(latency.as_secs_f64());
            return;
        }
        let metrics = self.add(version);
        metrics.answered.inc();
        metrics.duration.observe(latency.as_secs_f64());
    }

    /// Counts a request that was routed and not answered.
    pub fn failed(&self, version: &RoutedVersion, error: &InferError) {
        if !self.by_version.load().contains_key(&version.id) {
            self.add(version);
        }
        let labels = [version.key.model.as_str(), version.version.label.as_str(), code_of(error)];
        self.requests.with_label_values(&labels).inc();
    }

    /// Counts a request that the stable version is asked for again. The failure is
    /// counted as every other.
    pub fn retried_on_stable(&self, failed: &RoutedVersion) {
        let labels = [failed.key.model.as_str(), failed.version.label.as_str()];
        self.retried.with_label_values(&labels).inc();
    }

    /// Counts a request that was never routed.
    pub fn refused(&self, error: &InferError) {
        self.requests.with_label_values(&["", "", code_of(error)]).inc();
    }

    /// Drops the series of versions that are gone.
    pub fn retain(&self, table: &RoutingTable) {
        let is_there = |metrics: &VersionMetrics| {
            table.model(&metrics.model).is_some_and(|model| model.version_named(&metrics.label).is_some())
        };
        let gone: Vec<_> = self
            .by_version
            .load()
            .iter()
            .filter(|(_, metrics)| !is_there(metrics))
            .map(|(id, metrics)| (*id, Arc::clone(metrics)))
            .collect();
        if gone.is_empty() {
            return;
        }
        self.by_version.rcu(|by_version| {
            let mut by_version = HashMap::clone(by_version);
            for (id, _) in &gone {
                by_version.remove(id);
            }
            by_version
        });
        for (_, metrics) in &gone {
            for code in CODES {
                // Not every code has occurred; what is not there need not go.
                let _ = self.requests.remove_label_values(&[&metrics.model, &metrics.label, code]);
            }
            let _ = self.durations.remove_label_values(&[&metrics.model, &metrics.label]);
            let _ = self.retried.remove_label_values(&[&metrics.model, &metrics.label]);
        }
    }

    fn add(&self, version: &RoutedVersion) -> Arc<VersionMetrics> {
        let model = version.key.model.to_string();
        let label = version.version.label.to_string();
        let metrics = Arc::new(VersionMetrics {
            answered: self.requests.with_label_values(&[model.as_str(), label.as_str(), "OK"]),
            duration: self.durations.with_label_values(&[model.as_str(), label.as_str()]),
            model,
            label,
        });
        self.by_version.rcu(|by_version| {
            let mut by_version = HashMap::clone(by_version);
            by_version.insert(version.id, Arc::clone(&metrics));
            by_version
        });
        metrics
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use prometheus::TextEncoder;

    use super::*;
    use crate::inference::test_states::TestState;

    fn shown(registry: &Registry) -> String {
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn answers_and_refusals_are_counted_by_code_and_unknown_names_are_no_labels() {
        let registry = Registry::new();
        let metrics = RequestMetrics::register(&registry).unwrap();
        let mut cluster = TestState::default();
        cluster.register("digits");
        let table = RoutingTable::default().updated(&cluster.state).unwrap();
        let version = table.model("digits").unwrap().representative().unwrap();
        metrics.answered(version, Duration::from_micros(400));
        metrics.answered(version, Duration::from_micros(400));
        metrics.failed(version, &InferError::Cancelled);
        metrics.refused(&InferError::NotFound("no".into()));
        let text = shown(&registry);
        for line in [
            r#"starling_inference_requests_total{code="OK",model="digits",version="v1"} 2"#,
            r#"starling_inference_requests_total{code="CANCELLED",model="digits",version="v1"} 1"#,
            r#"starling_inference_requests_total{code="NOT_FOUND",model="",version=""} 1"#,
            r#"starling_inference_request_duration_seconds_bucket{model="digits",version="v1",le="0.0005"} 2"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_series_of_a_deleted_model_go_with_it() {
        let registry = Registry::new();
        let metrics = RequestMetrics::register(&registry).unwrap();
        let mut cluster = TestState::default();
        cluster.register("digits");
        let table = RoutingTable::default().updated(&cluster.state).unwrap();
        let version = table.model("digits").unwrap().representative().unwrap();
        metrics.answered(version, Duration::from_micros(400));
        cluster.delete("digits");
        metrics.retain(&table.updated(&cluster.state).unwrap());
        assert!(!shown(&registry).contains("digits"));
    }
}
