//! One core's way of running a version: a queue, a session, and whoever comes
//! first runs for all. Every request goes on until its own answer is there, so
//! one that is cancelled strands nobody.
//!
//! A lane belongs to one thread and is uncontended, but nothing breaks if it is
//! not: who finds the session in use takes the request elsewhere.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, TryLockError};
use std::time::Instant;

use super::core;
use super::lanes::SlowRuns;
use crate::inference::InferError;
use crate::inference::host::Answer;
use crate::inference::queue::{Arrival, Job, QueueRules, RequestQueue};
use crate::inference::run_slot::RunSlot;
use crate::inference::runtime::panic_text;
use crate::inference::served_version::ServedVersion;
use crate::inference::session::ModelSession;
use crate::inference::worker::{Served, Worker};

pub(crate) struct Lane {
    pub(super) queue: RequestQueue,
    pub(super) slot: RunSlot,
    /// `None`: it broke and is being replaced, or the lane is closed.
    pub(super) session: Mutex<Option<ModelSession>>,
    /// Runs are long enough to let more requests come in before them.
    reads_on: bool,
    /// Requests that have come and are not answered, or on their way elsewhere.
    inside: AtomicUsize,
}

/// What a handler got done.
enum Turn {
    /// A batch ran, perhaps not its own.
    Ran,
    /// Nothing can be run here, or nothing waits.
    Over,
}

impl Lane {
    pub(super) fn new(rules: QueueRules, session: ModelSession, reads_on: bool) -> ort::Result<Self> {
        Ok(Self {
            queue: RequestQueue::new(rules),
            slot: RunSlot::new()?,
            session: Mutex::new(Some(session)),
            reads_on,
            inside: AtomicUsize::new(0),
        })
    }

    /// Runs a checked request with those that have arrived beside it. Refuses as
    /// the ordinary queue does.
    pub(crate) async fn answer(
        &self,
        version: &ServedVersion,
        slow_runs: Option<&SlowRuns>,
        arrival: Arrival,
    ) -> Result<Answer, InferError> {
        let _inside = Inside::enter(&self.inside);
        let mut ticket = self.queue.enter(arrival.clone())?;
        if core::others_have_arrived() {
            core::let_others_get_in_line(self.reads_on).await;
        }
        loop {
            if let Some(answer) = ticket.try_answer() {
                return answer;
            }
            match self.run_next(version, slow_runs) {
                Turn::Ran => {}
                Turn::Over => break,
            }
        }
        if ticket.give_up() {
            return version.queue.answer(arrival).await;
        }
        ticket.wait().await
    }

    fn run_next(&self, version: &ServedVersion, slow_runs: Option<&SlowRuns>) -> Turn {
        let mut place = match self.session.try_lock() {
            Ok(place) => place,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Turn::Over,
        };
        let Some(session) = place.as_mut() else { return Turn::Over };
        let Some(jobs) = self.queue.try_take(version.batch_limits()) else { return Turn::Over };
        let began = Instant::now();
        let mut worker = Worker { version, slot: &self.slot, session };
        match catch_unwind(AssertUnwindSafe(|| worker.serve(jobs))) {
            Ok(Served::Answered { rows }) => {
                let took = began.elapsed();
                self.queue.note_run(took, rows);
                if let Some(slow_runs) = slow_runs {
                    slow_runs.note(took, rows);
                }
                Turn::Ran
            }
            Ok(Served::Closed) => {
                *place = None;
                Turn::Over
            }
            Ok(Served::NotBegun(jobs)) => {
                *place = None;
                version.queue.adopt(jobs);
                Turn::Over
            }
            Err(panic) => {
                *place = None;
                let reason = panic_text(panic.as_ref());
                tracing::warn!(
                    model = version.model(),
                    version = %version.plan.key.ordinal,
                    reason,
                    "a local run panicked; its requests are tried again elsewhere and its session is replaced"
                );
                version.queue.adopt(self.jobs_of_broken_run());
                Turn::Over
            }
        }
    }

    fn jobs_of_broken_run(&self) -> Vec<Job> {
        let mut jobs = self.slot.finish().unwrap_or_default();
        jobs.iter_mut().for_each(|job| job.lost_instances += 1);
        jobs
    }

    /// Whether a request is in here.
    pub(super) fn is_busy(&self) -> bool {
        self.inside.load(SeqCst) > 0
    }
}

/// One request inside a lane.
struct Inside<'a>(&'a AtomicUsize);

impl<'a> Inside<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}
