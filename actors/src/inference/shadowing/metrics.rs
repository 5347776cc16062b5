//! The Prometheus series of shadows on this node, read from what is counted
//! anyway: nothing is done for them on the way of a request. Their labels are the
//! models and versions that exist.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::cells::{ShadowCell, ShadowRecorder};
use crate::inference::latency_sketch::LatencySketch;
use crate::inference::routing_feed::RoutingFeed;
use crate::inference::traffic::Counts;

/// Upper bounds in seconds: 100 µs to 10 s.
const SECONDS_BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

const COPIES: (&str, &str) =
    ("starling_shadow_copies_total", "Copies of requests whose fate is known: compared, failed or dropped");
const COMPARED: (&str, &str) =
    ("starling_shadow_compared_total", "Answers of a shadow held against the live one");
const AGREED: (&str, &str) =
    ("starling_shadow_agreed_total", "Answers of a shadow of which every output agreed");
const ERRORS: (&str, &str) =
    ("starling_shadow_errors_total", "Copies that a shadow refused, failed at, or did not answer in time");
const DROPPED: (&str, &str) = (
    "starling_shadow_dropped_total",
    "Copies that were not run, by reason: queue_full, queue_bytes, node_busy, version_busy, too_late, no_instance, peers_busy, stopped",
);
const SECONDS: (&str, &str) =
    ("starling_shadow_duration_seconds", "From the start of a copy to the answer of the shadow");

/// Registers itself with a registry, and reads when it is asked.
pub(super) struct ShadowCollector {
    recorder: Arc<ShadowRecorder>,
    routing: Arc<RoutingFeed>,
    descriptions: Vec<Desc>,
}

impl ShadowCollector {
    pub(super) fn new(
        recorder: &Arc<ShadowRecorder>,
        routing: &Arc<RoutingFeed>,
    ) -> Result<Self, prometheus::Error> {
        let describe = |(name, help): (&str, &str), labels: &[&str]| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())
        };
        let of_version = ["model", "version"];
        let descriptions = vec![
            describe(COPIES, &of_version)?,
            describe(COMPARED, &of_version)?,
            describe(AGREED, &of_version)?,
            describe(ERRORS, &of_version)?,
            describe(DROPPED, &["model", "version", "reason"])?,
            describe(SECONDS, &of_version)?,
        ];
        Ok(Self { recorder: Arc::clone(recorder), routing: Arc::clone(routing), descriptions })
    }

    /// All epochs of a version together, by the names of model and version.
    fn by_version(&self) -> BTreeMap<(String, String), ShadowCell> {
        let table = self.routing.table();
        let models: HashMap<u64, _> = table.models().map(|model| (model.model.id, model)).collect();
        let ledger = self.recorder.read(|model_id| models.contains_key(&model_id));
        let mut by_version: BTreeMap<(String, String), ShadowCell> = BTreeMap::new();
        for (key, cell) in ledger.cells() {
            let Some(model) = models.get(&key.version.model_id) else { continue };
            let Some(version) = model.version(key.version.ordinal) else { continue };
            let name = (model.model.name.to_string(), version.version.label.to_string());
            by_version.entry(name).or_default().merge(cell);
        }
        by_version
    }
}

impl Collector for ShadowCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let cells = self.by_version();
        if cells.is_empty() {
            return Vec::new();
        }
        let counters = |what: (&str, &str), count: fn(&ShadowCell) -> u64| {
            let series = cells.iter().map(|(name, cell)| counter(labels(name, None), count(cell)));
            family(what, MetricType::COUNTER, series.collect())
        };
        let dropped = cells.iter().flat_map(|(name, cell)| {
            let of_reason = |(reason, copies): (&super::cells::DropReason, &u64)| {
                counter(labels(name, Some(reason.as_str())), *copies)
            };
            cell.dropped.iter().map(of_reason).collect::<Vec<Metric>>()
        });
        let seconds = cells.iter().map(|(name, cell)| histogram(labels(name, None), &cell.latency));
        let mut families = vec![
            counters(COPIES, |cell| cell.copies),
            counters(COMPARED, |cell| cell.compared),
            counters(AGREED, |cell| cell.agreed),
            counters(ERRORS, |cell| cell.errors),
            family(DROPPED, MetricType::COUNTER, dropped.collect()),
            family(SECONDS, MetricType::HISTOGRAM, seconds.collect()),
        ];
        families.retain(|family| !family.get_metric().is_empty());
        families
    }
}

fn family((name, help): (&str, &str), of_type: MetricType, series: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(of_type);
    family.set_metric(series);
    family
}

fn labels((model, version): &(String, String), reason: Option<&str>) -> Vec<LabelPair> {
    let pair = |name: &str, value: &str| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    let mut labels = vec![pair("model", model), pair("version", version)];
    labels.extend(reason.map(|reason| pair("reason", reason)));
    labels
}

fn counter(labels: Vec<LabelPair>, count: u64) -> Metric {
    let mut value = prometheus::proto::Counter::default();
    value.set_value(count as f64);
    let mut metric = Metric::from_label(labels);
    metric.set_counter(value);
    metric
}

fn histogram(labels: Vec<LabelPair>, sketch: &LatencySketch) -> Metric {
    let bucket = |upper_bound: &f64| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*upper_bound);
        bucket.set_cumulative_count(sketch.count_at_most(Duration::from_secs_f64(*upper_bound)));
        bucket
    };
    let mut value = Histogram::default();
    value.set_sample_count(sketch.count());
    value.set_sample_sum(sketch.sum_micros() as f64 / 1e6);
    value.set_bucket(SECONDS_BUCKETS.iter().map(bucket).collect());
    let mut metric = Metric::from_label(labels);
    metric.set_histogram(value);
    metric
}
