//! Runs batches: on the thread of an instance, one after another without end, or
//! one at a time for whoever has a session at hand.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use starling_proto::inference::ModelInferResponse;

use super::InferError;
use super::batcher;
use super::host::Answer;
use super::queue::{ArrivalKind, Job};
use super::run_slot::RunSlot;
use super::run_statistics::Phases;
use super::served_version::ServedVersion;
use super::session::{ModelSession, Ran, RunError};
use super::tensor::check::CheckedRequest;
use super::tensor::respond::respond;

/// In tests, a request with this id makes its worker panic.
#[cfg(test)]
pub(crate) const PANICKING_ID: &str = "panic, please";

/// A session at work for one version.
pub(crate) struct Worker<'a> {
    pub version: &'a ServedVersion,
    pub slot: &'a RunSlot,
    pub session: &'a mut ModelSession,
}

/// What became of a batch.
pub(crate) enum Served {
    /// Its requests are answered; they had so many rows.
    Answered { rows: usize },
    /// The slot was closed before it ran.
    NotBegun(Vec<Job>),
    /// The slot was closed while it ran, and who closed it has its requests.
    Closed,
}

/// Some requests that ran together, and what came out.
struct Group {
    jobs: Range<usize>,
    began_input: Instant,
    outcome: Result<Ran, RunError>,
}

impl Worker<'_> {
    /// Works until the queue is drained or the slot is closed. Blocking.
    pub(crate) fn work(&mut self) {
        loop {
            let limits = self.version.batch_limits();
            let Some(jobs) = self.version.queue.take(limits, || self.slot.is_closed()) else { return };
            let began = Instant::now();
            match self.serve(jobs) {
                Served::Answered { rows } => self.version.queue.note_run(began.elapsed(), rows),
                Served::NotBegun(jobs) => return self.version.queue.put_back(jobs),
                Served::Closed => return,
            }
        }
    }

    /// Runs one batch and answers its requests. Blocking.
    pub(crate) fn serve(&mut self, jobs: Vec<Job>) -> Served {
        let taken = Instant::now();
        let requests: Vec<Arc<CheckedRequest>> = jobs.iter().map(|job| Arc::clone(&job.request)).collect();
        if let Err(jobs) = self.slot.begin(jobs) {
            return Served::NotBegun(jobs);
        }
        let groups = self.run(&requests, taken);
        let Some(jobs) = self.slot.finish() else { return Served::Closed };
        self.answer(jobs, groups);
        Served::Answered { rows: requests.iter().map(|request| request.rows).sum() }
    }

    /// All together; if that fails, one by one, so that a request which cannot be
    /// run fails nobody else.
    fn run(&mut self, requests: &[Arc<CheckedRequest>], taken: Instant) -> Vec<Group> {
        let outcome = self.run_together(requests);
        let succeeded = outcome.is_ok();
        if requests.len() == 1 || (succeeded && self.outputs_have_all_rows(requests, &outcome)) {
            return vec![Group { jobs: 0..requests.len(), began_input: taken, outcome }];
        }
        if succeeded && !self.version.concatenation_off.swap(true, Relaxed) {
            tracing::warn!(
                model = self.version.model(),
                version = %self.version.plan.key.ordinal,
                "outputs do not have the rows of their batch; requests are run one by one from now on"
            );
        }
        let mut groups = Vec::with_capacity(requests.len());
        for (index, request) in requests.iter().enumerate() {
            if self.slot.is_closed() {
                break;
            }
            self.slot.begin_again();
            let began_input = Instant::now();
            let outcome = self.run_together(std::slice::from_ref(request));
            groups.push(Group { jobs: index..index + 1, began_input, outcome });
        }
        groups
    }

    fn run_together(&mut self, requests: &[Arc<CheckedRequest>]) -> Result<Ran, RunError> {
        #[cfg(test)]
        assert!(requests.iter().all(|request| request.id != PANICKING_ID), "as asked for");
        self.session.fill(requests);
        self.session.run(&self.slot.options)
    }

    fn outputs_have_all_rows(
        &self,
        requests: &[Arc<CheckedRequest>],
        outcome: &Result<Ran, RunError>,
    ) -> bool {
        let rows: usize = requests.iter().map(|request| request.rows).sum();
        outcome.as_ref().is_ok_and(|ran| ran.columns.iter().all(|column| column.rows() == Some(rows)))
    }

    fn answer(&self, jobs: Vec<Job>, groups: Vec<Group>) {
        let mut jobs = jobs.into_iter();
        for group in groups {
            let jobs: Vec<Job> = jobs.by_ref().take(group.jobs.len()).collect();
            match group.outcome {
                Ok(ran) => self.answer_group(jobs, group.began_input, &ran),
                Err(error) => self.refuse_group(jobs, &error),
            }
        }
    }

    fn answer_group(&self, jobs: Vec<Job>, began_input: Instant, ran: &Ran) {
        let rows: usize = jobs.iter().map(|job| job.request.rows).sum();
        let responses = self.responses(&jobs, ran);
        let answered_at = Instant::now();
        let run_phases = Phases {
            compute_input: ran.began - began_input,
            compute_infer: ran.ended - ran.began,
            compute_output: answered_at - ran.ended,
            ..Phases::default()
        };
        let metrics = &self.version.metrics;
        if !jobs.iter().all(|job| job.kind.is_unasked()) {
            self.version.statistics.run(&run_phases, rows);
            metrics.compute_seconds.observe(run_phases.compute_infer.as_secs_f64());
            metrics.batch_rows.observe(rows as f64);
        }
        for (job, response) in jobs.into_iter().zip(responses) {
            let phases = Phases {
                queue: began_input - job.queued_at,
                compute_input: run_phases.compute_input + job.check,
                ..run_phases
            };
            if !job.kind.is_unasked() {
                metrics.queue_seconds.observe(phases.queue.as_secs_f64());
            }
            let _ = job.reply.send(Ok(Answer {
                response,
                queue: phases.queue,
                compute_input: phases.compute_input,
                compute_infer: phases.compute_infer,
                compute_output: phases.compute_output,
                batch_rows: rows,
                request_rows: job.request.rows,
                answered_at,
            }));
        }
    }

    fn responses(&self, jobs: &[Job], ran: &Ran) -> Vec<ModelInferResponse> {
        let ranges = batcher::row_ranges(jobs.iter().map(|job| job.request.rows));
        let alone = jobs.len() == 1;
        let respond_to = |(job, rows): (&Job, &Range<usize>)| {
            let rows = (!alone).then_some(rows);
            let mut response = respond(&self.version.effective, &job.request, &ran.columns, rows);
            response.model_name = self.version.model().to_owned();
            response.model_version.clone_from(&self.version.ordinal_text);
            response
        };
        jobs.iter().zip(&ranges).map(respond_to).collect()
    }

    fn refuse_group(&self, jobs: Vec<Job>, error: &RunError) {
        for job in jobs {
            let text = format!("model '{}' cannot be run with this request: {error}", self.version.model());
            let _ = job.reply.send(Err(match error {
                RunError::Invalid(_) => InferError::RefusedByModel(text),
                // What was made up may be wrong in any way; the instance works.
                RunError::Failed(_) if job.kind == ArrivalKind::Probe => InferError::RefusedByModel(text),
                RunError::Failed(_) => InferError::Internal(text),
            }));
        }
    }
}
