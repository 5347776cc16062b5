//! What came of a measurement: rates, percentiles, errors, a time line.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::recorder::{Recorder, Slice};
use crate::server::ServerTimes;

/// The whole of it. Latencies are those of successful answers, from the intended
/// send time to the end of the answer.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Length of the window.
    pub seconds: f64,
    /// Successful answers within the window, per second.
    pub requests_per_second: f64,
    /// Requests of the window that were answered successfully, also after its end.
    pub answered: u64,
    /// Requests of the window that failed.
    pub failed: u64,
    /// The failed ones by code.
    pub errors: BTreeMap<String, ErrorCount>,
    /// `None`: nothing was answered.
    pub latency: Option<Latency>,
    /// Of an open loop: sent more than a millisecond after the intended time.
    pub sent_late: u64,
    /// Of an open loop: had no place among those in flight until the end. Their
    /// latency would have been the longest.
    pub not_sent: u64,
    /// Of an open loop: longest time from intended to sent.
    pub lag_max_us: f64,
    /// Processor time of the generator per answer.
    pub generator_cpu_us: f64,
    /// Requests by when they were meant to be sent.
    pub timeline: Vec<TimelineSlice>,
    /// Successful answers of any time, warm-up included.
    #[serde(skip)]
    pub answered_since_start: u64,
    /// Means on the server's side during the measurement, where it tells them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerTimes>,
    #[serde(skip)]
    slices: Vec<Slice>,
    #[serde(skip)]
    slice: Duration,
}

/// Failures of one code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorCount {
    /// How many.
    pub count: u64,
    /// The message of the first.
    pub example: String,
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Latency {
    pub min_us: f64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p95_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

/// A part of the window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TimelineSlice {
    /// Seconds from the begin of the window.
    pub at_seconds: f64,
    /// Successful answers to requests of this slice.
    pub answered: u64,
    /// Failed requests of this slice.
    pub failed: u64,
    /// `None`: nothing was answered.
    pub p50_us: Option<f64>,
    /// `None`: nothing was answered.
    pub p99_us: Option<f64>,
}

/// Some slices together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Successful answers to requests of these slices.
    pub answered: u64,
    /// Failed requests of these slices.
    pub failed: u64,
    /// To 1 %; `None`: nothing was answered.
    pub p99_us: Option<f64>,
}

impl Outcome {
    pub(crate) fn new(sum: Recorder, measured: Duration, slice: Duration) -> Self {
        let seconds = measured.as_secs_f64();
        let per_second = if seconds > 0.0 { sum.answered_in_window as f64 / seconds } else { 0.0 };
        let timeline = sum.slices.iter().enumerate().map(|(index, part)| TimelineSlice {
            at_seconds: slice.as_secs_f64() * index as f64,
            answered: part.answered,
            failed: part.failed,
            p50_us: quantile_us(&part.latencies, 0.50),
            p99_us: quantile_us(&part.latencies, 0.99),
        });
        let errors = sum.failures.iter().map(|(code, failures)| {
            (code.to_string(), ErrorCount { count: failures.count, example: failures.example.clone() })
        });
        Self {
            seconds,
            requests_per_second: per_second,
            answered: sum.answered,
            failed: sum.failed,
            errors: errors.collect(),
            latency: Latency::of(&sum.latencies),
            sent_late: sum.late,
            not_sent: sum.not_sent,
            lag_max_us: micros(sum.lag_max),
            generator_cpu_us: micros(sum.processor_time) / sum.answered_in_all.max(1) as f64,
            timeline: timeline.collect(),
            answered_since_start: sum.answered_in_all,
            server: None,
            slices: sum.slices,
            slice,
        }
    }

    /// The slices that begin from `from` until before `to`, counted from the begin
    /// of the window.
    pub fn window(&self, from: Duration, to: Duration) -> Window {
        let mut sum = Slice::empty();
        for (index, part) in (0_u32..).zip(&self.slices) {
            let begin = self.slice * index;
            if begin >= from && begin < to {
                sum.merge(part);
            }
        }
        Window { answered: sum.answered, failed: sum.failed, p99_us: quantile_us(&sum.latencies, 0.99) }
    }
}

impl Latency {
    fn of(latencies: &Histogram<u64>) -> Option<Self> {
        if latencies.is_empty() {
            return None;
        }
        let at = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1_000.0;
        Some(Self {
            min_us: latencies.min() as f64 / 1_000.0,
            mean_us: latencies.mean() / 1_000.0,
            p50_us: at(0.50),
            p90_us: at(0.90),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: latencies.max() as f64 / 1_000.0,
        })
    }
}

fn quantile_us(latencies: &Histogram<u64>, quantile: f64) -> Option<f64> {
    (!latencies.is_empty()).then(|| latencies.value_at_quantile(quantile) as f64 / 1_000.0)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000_000.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn slice_of(latencies_us: &[u64]) -> Slice {
        let mut slice = Slice::empty();
        for latency in latencies_us {
            slice.answered += 1;
            slice.latencies.record(latency * 1_000).unwrap();
        }
        slice
    }

    #[test]
    fn a_window_merges_the_slices_that_begin_in_it() {
        let second = Duration::from_secs(1);
        let mut sum = Recorder::new(second);
        sum.slices = vec![slice_of(&[100; 50]), slice_of(&[200; 50]), slice_of(&[900; 100])];
        let outcome = Outcome::new(sum, 3 * second, second);
        let first_two = outcome.window(Duration::ZERO, 2 * second);
        assert_eq!(first_two.answered, 100);
        assert!((first_two.p99_us.unwrap() - 200.0).abs() < 2.0);
        assert_eq!(outcome.window(5 * second, 9 * second).p99_us, None);
    }

    #[test]
    fn nothing_answered_has_no_latency_and_no_rate() {
        let second = Duration::from_secs(1);
        let outcome = Outcome::new(Recorder::new(second), Duration::ZERO, second);
        assert_eq!((outcome.latency, outcome.requests_per_second), (None, 0.0));
    }
}
