//! Where the requests of a run are while it runs, so that they can be answered
//! or handed on when the instance is taken down under it.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ort::session::RunOptions;

use super::queue::Job;
use super::session::quiet_run_options;

/// One instance's place for what it runs.
pub(crate) struct RunSlot {
    state: Mutex<State>,
    closed: AtomicBool,
    /// Of every run of this instance; carries the flag that ends one.
    pub options: RunOptions,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    running_since: Option<Instant>,
}

impl RunSlot {
    pub(crate) fn new() -> ort::Result<Self> {
        Ok(Self { state: Mutex::default(), closed: AtomicBool::new(false), options: quiet_run_options()? })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// Puts the requests of a run in. Gives them back if the slot is closed.
    pub(crate) fn begin(&self, jobs: Vec<Job>) -> Result<(), Vec<Job>> {
        let mut state = self.lock();
        if self.is_closed() {
            return Err(jobs);
        }
        state.jobs = jobs;
        state.running_since = Some(Instant::now());
        Ok(())
    }

    /// Measures the time of the run from here: the requests are run anew.
    pub(crate) fn begin_again(&self) {
        self.lock().running_since = Some(Instant::now());
    }

    /// Takes the requests out to be answered. `None`: someone else has them.
    pub(crate) fn finish(&self) -> Option<Vec<Job>> {
        let mut state = self.lock();
        state.running_since = None;
        let jobs = std::mem::take(&mut state.jobs);
        (!self.is_closed()).then_some(jobs)
    }

    /// How long the present run has taken.
    pub(crate) fn running_for(&self) -> Option<Duration> {
        self.lock().running_since.map(|since| since.elapsed())
    }

    /// Ends the present run and takes its requests. Nothing runs here afterwards.
    pub(crate) fn close(&self) -> Vec<Job> {
        let mut state = self.lock();
        self.closed.store(true, SeqCst);
        if let Err(error) = self.options.terminate() {
            tracing::warn!(%error, "a run cannot be ended");
        }
        state.running_since = None;
        std::mem::take(&mut state.jobs)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
