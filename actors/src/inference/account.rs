//! The time of one answered request, counted when it is over: what happens
//! between the run and the encoder belongs to the request as well.

use std::sync::Arc;
use std::time::Instant;

use super::host::Answer;
use super::run_statistics::Phases;
use super::served_version::ServedVersion;

/// Counts an answered request when it is dropped: hold it until the response is
/// handed to the encoder.
pub struct Account {
    version: Arc<ServedVersion>,
    phases: Phases,
    rows: usize,
    answered_at: Instant,
}

impl Account {
    pub(crate) fn open(version: Arc<ServedVersion>, answer: &Answer) -> Self {
        let phases = Phases {
            queue: answer.queue,
            compute_input: answer.compute_input,
            compute_infer: answer.compute_infer,
            compute_output: answer.compute_output,
        };
        Self { version, phases, rows: answer.request_rows, answered_at: answer.answered_at }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.phases.compute_output += self.answered_at.elapsed();
        self.version.statistics.success(&self.phases, self.rows);
    }
}
