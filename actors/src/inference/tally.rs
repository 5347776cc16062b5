//! Counts one request when it ends, also when its caller goes away.

use std::time::Instant;

use super::InferError;
use super::answering::Answered;
use super::request_metrics::RequestMetrics;
use super::router::Routed;
use super::traffic::{CellKey, Ending, TrafficRecorder};

/// One request that has been routed and not ended yet. Dropped before it is
/// finished, it counts as cancelled.
pub(super) struct Tally<'a> {
    metrics: &'a RequestMetrics,
    recorder: &'a TrafficRecorder,
    routed: &'a Routed,
    started: Instant,
    counted: bool,
}

impl<'a> Tally<'a> {
    pub(super) fn new(
        metrics: &'a RequestMetrics,
        recorder: &'a TrafficRecorder,
        routed: &'a Routed,
        started: Instant,
    ) -> Self {
        Self { metrics, recorder, routed, started, counted: false }
    }

    pub(super) fn finish(mut self, answer: &Result<Answered, InferError>) {
        self.counted = true;
        match answer {
            Ok(_) => {
                let latency = self.started.elapsed();
                self.metrics.answered(&self.routed.version, latency);
                self.record(Ending::Answered(latency));
            }
            Err(error) => self.failed(error),
        }
    }

    fn failed(&self, error: &InferError) {
        self.metrics.failed(&self.routed.version, error);
        let callers_fault = match error {
            InferError::InvalidArgument(_) | InferError::Cancelled => true,
            // The version that it stands in for has the same signature.
            InferError::RefusedByModel(_) => !self.routed.is_on_trial(),
            _ => false,
        };
        self.record(if callers_fault { Ending::CallersFault } else { Ending::Failed });
    }

    fn record(&self, ending: Ending) {
        let epoch = self.routed.decision.epoch.get();
        self.recorder.record(CellKey { version: self.routed.version.id, epoch }, ending);
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        if !self.counted {
            self.failed(&InferError::Cancelled);
        }
    }
}
