//! The lanes of one version, one per core of the data plane, and when they are
//! closed for good.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use super::core;
use super::lane::Lane;
use crate::inference::InferError;
use crate::inference::host::Answer;
use crate::inference::queue::{Arrival, Job, QueueRules};
use crate::inference::served_version::ServedVersion;
use crate::inference::session::ModelSession;

/// Sessions that may break before a version is not run on the cores any more.
const BROKEN_SESSIONS_MAX: u32 = 6;
/// A run this slow per row was not what its load promised.
const SLOW_ROW: Duration = Duration::from_millis(5);
/// So many of them in a row are no accident.
const SLOW_RUNS_MAX: u32 = 5;

/// A run of copies on the copier's thread is given up sooner than one of requests:
/// it holds up those of other shadows.
const COPY_RUN_TIME_MAX: Duration = Duration::from_secs(2);

pub(crate) struct Lanes {
    /// Of the cores; then, if there is one more, that of the copier, which is no
    /// core and gives way to them, and so says nothing of how fast the version is.
    lanes: Vec<Lane>,
    cores: usize,
    /// Everything is run by the dedicated instances from now on.
    closed: AtomicBool,
    slow_runs: SlowRuns,
    broken_sessions: AtomicU32,
}

/// What a version on the cores is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// However long runs take, they stay here.
    pub slow_rows: bool,
    /// Before a run, the core reads on while requests keep coming in.
    pub with_readers: bool,
}

/// Counts runs that were far slower than a local model's are.
pub(super) struct SlowRuns {
    in_a_row: AtomicU32,
    /// The operator has asked for local, slow or not.
    accepted: bool,
}

impl SlowRuns {
    fn new(accepted: bool) -> Self {
        Self { in_a_row: AtomicU32::new(0), accepted }
    }

    pub(super) fn note(&self, took: Duration, rows: usize) {
        if took / u32::try_from(rows.max(1)).unwrap_or(u32::MAX) < SLOW_ROW {
            if self.in_a_row.load(Relaxed) > 0 {
                self.in_a_row.store(0, Relaxed);
            }
            return;
        }
        self.in_a_row.fetch_add(1, Relaxed);
    }

    fn too_many(&self) -> bool {
        !self.accepted && self.in_a_row.load(Relaxed) >= SLOW_RUNS_MAX
    }
}

impl Lanes {
    /// One per session: one for each of the `cores`, and perhaps one for the copier.
    pub(crate) fn new(
        rules: &QueueRules,
        sessions: Vec<ModelSession>,
        cores: usize,
        patience: Patience,
    ) -> ort::Result<Self> {
        let lane = |session| Lane::new(rules.clone(), session, patience.with_readers);
        Ok(Self {
            lanes: sessions.into_iter().map(lane).collect::<ort::Result<_>>()?,
            cores,
            closed: AtomicBool::new(false),
            slow_runs: SlowRuns::new(patience.slow_rows),
            broken_sessions: AtomicU32::new(0),
        })
    }

    /// The lane of the core that asks, if it is one, and who is told of slow runs.
    fn here(&self) -> Option<(&Lane, Option<&SlowRuns>)> {
        if self.closed.load(Relaxed) {
            return None;
        }
        let index = core::here()?;
        Some((self.lanes.get(index)?, (index < self.cores).then_some(&self.slow_runs)))
    }

    /// Runs a checked request on this core, or in the ordinary queue where that
    /// is not possible.
    pub(crate) async fn answer(
        &self,
        version: &ServedVersion,
        arrival: Arrival,
    ) -> Result<Answer, InferError> {
        match self.here() {
            Some((lane, slow_runs)) => lane.answer(version, slow_runs, arrival).await,
            None => version.queue.answer(arrival).await,
        }
    }

    /// Looks after the lanes, off the path of requests: ends runs that take too
    /// long, and says which lanes need a new session. To be called every now and
    /// then.
    pub(crate) fn watch(&self, version: &ServedVersion) -> Vec<usize> {
        if self.closed.load(SeqCst) {
            return Vec::new();
        }
        let max_run_time = version.plan.max_run_time();
        // Without it, copies go to the dedicated instances; nothing else changes.
        for lane in &self.lanes[self.cores.min(self.lanes.len())..] {
            if lane.slot.running_for().is_some_and(|time| time > max_run_time.min(COPY_RUN_TIME_MAX)) {
                version.answer_ended_run(lane.slot.close());
            }
        }
        for lane in self.lanes.iter().take(self.cores) {
            if lane.slot.running_for().is_some_and(|time| time > max_run_time) {
                version.answer_ended_run(lane.slot.close());
                self.close(version, "a run had to be ended");
                return Vec::new();
            }
        }
        if self.slow_runs.too_many() {
            self.close(version, "its runs are far slower than those that were measured when it was loaded");
            return Vec::new();
        }
        let without_session = |lane: &Lane| lane.session.try_lock().is_ok_and(|place| place.is_none());
        let broken: Vec<usize> =
            (0..self.cores).filter(|index| without_session(&self.lanes[*index])).collect();
        let ever_broken = self.broken_sessions.fetch_add(broken.len() as u32, SeqCst) + broken.len() as u32;
        if ever_broken > BROKEN_SESSIONS_MAX {
            self.close(version, "its sessions break again and again");
            return Vec::new();
        }
        broken
    }

    /// Puts a session in place of one that broke.
    pub(crate) fn replace(&self, index: usize, session: ModelSession) {
        if self.closed.load(SeqCst) {
            return;
        }
        if let Some(lane) = self.lanes.get(index) {
            *lane.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
        }
    }

    /// From now on the dedicated instances run everything. Sessions that are not
    /// running are freed at once, the others when their run ends.
    pub(crate) fn close(&self, version: &ServedVersion, reason: &str) {
        if self.closed.swap(true, SeqCst) {
            return;
        }
        tracing::warn!(
            model = version.model(),
            version = %version.plan.key.ordinal,
            reason,
            "a version is no longer run on the cores that receive its requests, but by its dedicated instance"
        );
        for lane in &self.lanes {
            if let Ok(mut place) = lane.session.try_lock() {
                *place = None;
            }
        }
    }

    /// Takes nothing in any more.
    pub(crate) fn drain(&self) {
        for lane in &self.lanes {
            lane.queue.drain();
        }
    }

    /// Whether a request is in one of them.
    pub(crate) fn are_busy(&self) -> bool {
        self.lanes.iter().any(Lane::is_busy)
    }

    /// Answers what waits, and what comes, with the reason.
    pub(crate) fn fail(&self, reason: &str) {
        for lane in &self.lanes {
            lane.queue.fail(reason);
        }
    }

    #[cfg(test)]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    #[cfg(test)]
    pub(crate) fn sessions(&self) -> usize {
        let has_session = |lane: &&Lane| lane.session.try_lock().is_ok_and(|place| place.is_some());
        self.lanes.iter().take(self.cores).filter(has_session).count()
    }
}

/// The callers of a run that was ended because it took too long.
impl ServedVersion {
    pub(crate) fn answer_ended_run(&self, jobs: Vec<Job>) {
        let max_run_time = self.plan.max_run_time();
        let text = format!(
            "the run of model '{}' took longer than its max_run_time of {max_run_time:?} and was ended",
            self.model()
        );
        tracing::warn!(
            model = self.model(),
            version = %self.plan.key.ordinal,
            requests = jobs.len(),
            "a run took longer than its max_run_time and was ended"
        );
        for job in jobs {
            let _ = job.reply.send(Err(InferError::Internal(text.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_millis(6);

    #[test]
    fn many_slow_runs_in_a_row_are_too_many_and_one_fast_run_forgives_them() {
        let runs = SlowRuns::new(false);
        for _ in 0..4 {
            runs.note(SLOW, 1);
        }
        assert!(!runs.too_many());
        runs.note(SLOW, 8);
        for _ in 0..4 {
            runs.note(SLOW, 1);
        }
        assert!(!runs.too_many(), "a large batch is no slow row");
        runs.note(SLOW, 1);
        assert!(runs.too_many());
    }

    #[test]
    fn who_asks_for_local_gets_it_however_slow() {
        let runs = SlowRuns::new(true);
        for _ in 0..100 {
            runs.note(SLOW, 1);
        }
        assert!(!runs.too_many());
    }
}
