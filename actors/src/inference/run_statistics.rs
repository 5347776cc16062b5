//! Cumulative counts and times of one version: Triton's ModelStatistics and the
//! Prometheus series, both kept by atomic additions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use starling_proto::inference::{InferBatchStatistics, InferStatistics, ModelStatistics, StatisticDuration};

use super::InferError;

/// Counted one by one up to here; larger runs are rare.
const COUNTED_ROWS_MAX: usize = 1_024;
/// Clients choose the sizes of large runs, so those past this many different
/// ones are counted with the largest.
const OVERSIZES_MAX: usize = 64;

/// Where the time of one answered request went. The four add up to all of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Phases {
    pub queue: Duration,
    pub compute_input: Duration,
    pub compute_infer: Duration,
    pub compute_output: Duration,
}

impl Phases {
    pub(crate) fn total(&self) -> Duration {
        self.queue + self.compute_input + self.compute_infer + self.compute_output
    }
}

/// Requests that were not answered, by why: what Triton's metrics tell apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures {
    /// Refused before they ran: the queue was full, or their time was over.
    pub rejected: u64,
    /// Given up by their callers.
    pub cancelled: u64,
    /// The run failed.
    pub backend: u64,
    /// All others: wrong requests above all.
    pub other: u64,
}

#[derive(Default)]
struct FailureCounters {
    rejected: AtomicU64,
    cancelled: AtomicU64,
    backend: AtomicU64,
    other: AtomicU64,
}

impl FailureCounters {
    fn of(&self, error: &InferError) -> &AtomicU64 {
        match error {
            InferError::Overloaded { .. } | InferError::DeadlineExceeded(_) => &self.rejected,
            InferError::Cancelled => &self.cancelled,
            InferError::Internal(_) => &self.backend,
            _ => &self.other,
        }
    }
}

#[derive(Default)]
struct Counter {
    count: AtomicU64,
    nanos: AtomicU64,
}

impl Counter {
    fn add(&self, duration: Duration) {
        self.count.fetch_add(1, Relaxed);
        self.nanos.fetch_add(duration.as_nanos() as u64, Relaxed);
    }

    fn read(&self) -> Option<StatisticDuration> {
        Some(StatisticDuration { count: self.count.load(Relaxed), ns: self.nanos.load(Relaxed) })
    }
}

#[derive(Default)]
struct BatchCounters {
    compute_input: Counter,
    compute_infer: Counter,
    compute_output: Counter,
}

impl BatchCounters {
    fn add(&self, phases: &Phases) {
        self.compute_input.add(phases.compute_input);
        self.compute_infer.add(phases.compute_infer);
        self.compute_output.add(phases.compute_output);
    }

    fn read(&self, rows: usize) -> InferBatchStatistics {
        InferBatchStatistics {
            batch_size: rows as u64,
            compute_input: self.compute_input.read(),
            compute_infer: self.compute_infer.read(),
            compute_output: self.compute_output.read(),
        }
    }
}

/// Cumulative counts and times of one version.
pub(crate) struct RunStatistics {
    last_inference_millis: AtomicU64,
    rows: AtomicU64,
    runs: AtomicU64,
    success: Counter,
    fail: Counter,
    failures: FailureCounters,
    queue: Counter,
    compute_input: Counter,
    compute_infer: Counter,
    compute_output: Counter,
    /// By rows of the run.
    batches: Vec<BatchCounters>,
    /// By rows of the run, for what is beyond `batches`.
    oversize: Mutex<BTreeMap<usize, BatchCounters>>,
}

impl RunStatistics {
    pub(crate) fn new(max_batch: usize) -> Self {
        Self {
            last_inference_millis: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            runs: AtomicU64::new(0),
            success: Counter::default(),
            fail: Counter::default(),
            failures: FailureCounters::default(),
            queue: Counter::default(),
            compute_input: Counter::default(),
            compute_infer: Counter::default(),
            compute_output: Counter::default(),
            batches: (0..=max_batch.min(COUNTED_ROWS_MAX)).map(|_| BatchCounters::default()).collect(),
            oversize: Mutex::default(),
        }
    }

    /// One answered request.
    pub(crate) fn success(&self, phases: &Phases, rows: usize) {
        self.success.add(phases.total());
        self.queue.add(phases.queue);
        self.compute_input.add(phases.compute_input);
        self.compute_infer.add(phases.compute_infer);
        self.compute_output.add(phases.compute_output);
        self.rows.fetch_add(rows as u64, Relaxed);
    }

    /// One request that got an error, or whose caller went away, after this time.
    pub(crate) fn failure(&self, took: Duration, error: &InferError) {
        self.fail.add(took);
        self.failures.of(error).fetch_add(1, Relaxed);
    }

    /// Their counts, by why.
    pub(crate) fn failures(&self) -> Failures {
        Failures {
            rejected: self.failures.rejected.load(Relaxed),
            cancelled: self.failures.cancelled.load(Relaxed),
            backend: self.failures.backend.load(Relaxed),
            other: self.failures.other.load(Relaxed),
        }
    }

    /// One run of the session that gave answers.
    pub(crate) fn run(&self, phases: &Phases, rows: usize) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_inference_millis.store(now.as_millis() as u64, Relaxed);
        self.runs.fetch_add(1, Relaxed);
        match self.batches.get(rows) {
            Some(counters) => counters.add(phases),
            None => self.oversize_run(phases, rows),
        }
    }

    fn oversize_run(&self, phases: &Phases, rows: usize) {
        let mut oversize = self.oversize.lock().unwrap_or_else(PoisonError::into_inner);
        let known = oversize.contains_key(&rows) || oversize.len() < OVERSIZES_MAX;
        let counted_as = if known { rows } else { oversize.keys().next_back().copied().unwrap_or(rows) };
        oversize.entry(counted_as).or_default().add(phases);
    }

    /// In Triton's shape.
    pub(crate) fn read(&self, name: &str, version: u64) -> ModelStatistics {
        let used = |counters: &BatchCounters| counters.compute_infer.count.load(Relaxed) > 0;
        let mut batch_stats: Vec<InferBatchStatistics> = self
            .batches
            .iter()
            .enumerate()
            .filter(|(_, counters)| used(counters))
            .map(|(rows, counters)| counters.read(rows))
            .collect();
        let oversize = self.oversize.lock().unwrap_or_else(PoisonError::into_inner);
        batch_stats.extend(oversize.iter().map(|(rows, counters)| counters.read(*rows)));
        ModelStatistics {
            name: name.to_owned(),
            version: version.to_string(),
            last_inference: self.last_inference_millis.load(Relaxed),
            inference_count: self.rows.load(Relaxed),
            execution_count: self.runs.load(Relaxed),
            inference_stats: Some(InferStatistics {
                success: self.success.read(),
                fail: self.fail.read(),
                queue: self.queue.read(),
                compute_input: self.compute_input.read(),
                compute_infer: self.compute_infer.read(),
                compute_output: self.compute_output.read(),
                cache_hit: Some(StatisticDuration::default()),
                cache_miss: Some(StatisticDuration::default()),
            }),
            batch_stats,
            ..ModelStatistics::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::inference::error::Overload;

    #[test]
    fn failures_are_told_apart_by_why_and_add_up() {
        let statistics = RunStatistics::new(4);
        let full = InferError::Overloaded {
            reason: Overload::QueueFull,
            text: "full".to_owned(),
            retry_after: Duration::ZERO,
        };
        for error in [
            full,
            InferError::DeadlineExceeded("late".to_owned()),
            InferError::Cancelled,
            InferError::Internal("x".into()),
            InferError::InvalidArgument("x".into()),
            InferError::Unavailable("x".into()),
        ] {
            statistics.failure(Duration::from_micros(5), &error);
        }
        let failures = statistics.failures();
        assert_eq!(failures, Failures { rejected: 2, cancelled: 1, backend: 1, other: 2 });
        let fail = statistics.read("m", 1).inference_stats.unwrap().fail.unwrap();
        assert_eq!((fail.count, fail.ns), (6, 30_000));
    }

    #[test]
    fn sizes_that_clients_make_up_do_not_fill_the_memory() {
        let statistics = RunStatistics::new(4);
        for rows in 1..=10_000 {
            statistics.run(&Phases::default(), rows);
        }
        let read = statistics.read("m", 1);
        assert_eq!(read.execution_count, 10_000);
        assert_eq!(read.batch_stats.len(), 4 + OVERSIZES_MAX);
        let counted: u64 = read.batch_stats.iter().map(|batch| batch.compute_infer.unwrap().count).sum();
        assert_eq!(counted, 10_000);
    }
}
