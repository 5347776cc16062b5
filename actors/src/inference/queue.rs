//! The bounded queue of one version. It stands outside the actors' mailboxes,
//! which are unbounded, and outlives the instances that take from it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::InferError;
use super::batcher::{self, Batchable};
use super::host::Answer;
use super::tensor::check::CheckedRequest;

/// Bounds of the advice given with a refusal.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// Weight of the newest run in the mean time per request: 1/8.
const MEAN_SHIFT: u32 = 3;

/// A request that waits or runs. Whoever holds it owes its sender an answer.
pub(crate) struct Job {
    id: u64,
    pub request: Arc<CheckedRequest>,
    pub reply: oneshot::Sender<Result<Answer, InferError>>,
    /// What checking it took.
    pub check: Duration,
    pub queued_at: Instant,
    deadline: Option<Instant>,
    /// Instances that went away while they held it.
    pub lost_instances: u32,
}

impl Batchable for Job {
    fn rows(&self) -> usize {
        self.request.rows
    }

    fn fits_with(&self, other: &Self) -> bool {
        self.request.fits_with(&other.request)
    }
}

/// How batches are made up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    pub max_rows: usize,
    /// How long the first request may wait for others; zero: not at all.
    pub max_delay: Duration,
}

/// The bounded queue of one version.
pub(crate) struct RequestQueue {
    model: String,
    limit: usize,
    state: Mutex<State>,
    arrived: Condvar,
    /// Of late, from being taken to being answered.
    mean_nanos_per_request: AtomicU64,
}

struct State {
    /// In ascending order of id.
    waiting: VecDeque<Job>,
    next_id: u64,
    /// Instances that wait for work.
    idle: usize,
    open: Open,
}

enum Open {
    Yes,
    /// What is in it is answered; nothing comes in.
    Draining,
    /// Nothing is answered any more, for this reason.
    Failed(String),
}

/// A place in the queue. Dropping it takes the request out, unless an instance
/// has it already.
pub(crate) struct Ticket<'a> {
    queue: &'a RequestQueue,
    id: u64,
    deadline: Option<Instant>,
    answer: oneshot::Receiver<Result<Answer, InferError>>,
    answered: bool,
}

impl RequestQueue {
    pub(crate) fn new(model: &str, limit: usize) -> Self {
        Self {
            model: model.to_owned(),
            limit: limit.max(1),
            state: Mutex::new(State { waiting: VecDeque::new(), next_id: 0, idle: 0, open: Open::Yes }),
            arrived: Condvar::new(),
            mean_nanos_per_request: AtomicU64::new(0),
        }
    }

    /// Waits for the answer to a checked request. Refuses at once if the queue is
    /// full or the deadline has passed; a request whose deadline passes while it
    /// waits is not run. One that is running when its deadline passes is answered
    /// when its run ends.
    pub(crate) async fn answer(
        &self,
        request: Arc<CheckedRequest>,
        check: Duration,
        deadline: Option<Instant>,
    ) -> Result<Answer, InferError> {
        self.enter(request, check, deadline)?.wait().await
    }

    /// Takes a checked request in; its answer comes to the ticket. Refuses as
    /// [`RequestQueue::answer`] does.
    pub(crate) fn enter(
        &self,
        request: Arc<CheckedRequest>,
        check: Duration,
        deadline: Option<Instant>,
    ) -> Result<Ticket<'_>, InferError> {
        let (reply, answer) = oneshot::channel();
        let id = self.push(request, check, deadline, reply)?;
        Ok(Ticket { queue: self, id, deadline, answer, answered: false })
    }

    fn push(
        &self,
        request: Arc<CheckedRequest>,
        check: Duration,
        deadline: Option<Instant>,
        reply: oneshot::Sender<Result<Answer, InferError>>,
    ) -> Result<u64, InferError> {
        let queued_at = Instant::now();
        if deadline.is_some_and(|deadline| deadline <= queued_at) {
            return Err(self.deadline_exceeded());
        }
        let mut state = self.lock();
        match &state.open {
            Open::Yes => {}
            Open::Draining => {
                return Err(InferError::Unavailable(format!(
                    "model '{}' is being unloaded here",
                    self.model
                )));
            }
            Open::Failed(reason) => return Err(InferError::Unavailable(reason.clone())),
        }
        if state.waiting.len() >= self.limit {
            drop(state);
            return Err(InferError::QueueFull {
                model: self.model.clone(),
                limit: self.limit,
                retry_after: self.retry_after(),
            });
        }
        let id = state.next_id;
        state.next_id += 1;
        state.waiting.push_back(Job { id, request, reply, check, queued_at, deadline, lost_instances: 0 });
        let someone_waits = state.idle > 0;
        drop(state);
        if someone_waits {
            self.arrived.notify_one();
        }
        Ok(id)
    }

    /// Blocks until there is a batch to run. `None`: the caller should end, since
    /// `stopped` says so or the queue is drained.
    pub(crate) fn take(&self, limits: BatchLimits, stopped: impl Fn() -> bool) -> Option<Vec<Job>> {
        let mut state = self.lock();
        loop {
            if stopped() {
                return None;
            }
            if state.waiting.is_empty() {
                if !matches!(state.open, Open::Yes) {
                    return None;
                }
                state.idle += 1;
                state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            }
            if let Some(pause) = pause_for_more(&state, limits) {
                state.idle += 1;
                let (woken, _) =
                    self.arrived.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner);
                state = woken;
                state.idle -= 1;
                continue;
            }
            let batch = self.take_live(&mut state, limits);
            if !batch.is_empty() {
                return Some(batch);
            }
        }
    }

    /// A batch to run now, if anything waits: for callers that must not block.
    pub(crate) fn try_take(&self, limits: BatchLimits) -> Option<Vec<Job>> {
        let mut state = self.lock();
        while !state.waiting.is_empty() {
            let batch = self.take_live(&mut state, limits);
            if !batch.is_empty() {
                return Some(batch);
            }
        }
        None
    }

    /// Takes one batch out. Those in it whose time has passed are told so, those
    /// whose callers are gone are dropped.
    fn take_live(&self, state: &mut State, limits: BatchLimits) -> Vec<Job> {
        let now = Instant::now();
        let mut batch = batcher::take_batch(&mut state.waiting, limits.max_rows);
        batch.retain(|job| !job.reply.is_closed());
        let late = |job: &mut Job| job.deadline.is_some_and(|deadline| deadline <= now);
        for job in batch.extract_if(.., late) {
            let _ = job.reply.send(Err(self.deadline_exceeded()));
        }
        batch
    }

    /// Takes requests over that another queue had accepted, beyond the bound if
    /// need be. They stand last here.
    pub(crate) fn adopt(&self, jobs: Vec<Job>) {
        let mut state = self.lock();
        if let Open::Failed(reason) = &state.open {
            let reason = reason.clone();
            drop(state);
            refuse_all(jobs, &reason);
            return;
        }
        for mut job in jobs {
            job.id = state.next_id;
            state.next_id += 1;
            state.waiting.push_back(job);
        }
        drop(state);
        self.arrived.notify_all();
    }

    /// Puts requests back to where they were taken from, beyond the bound if need
    /// be: they were accepted once.
    pub(crate) fn put_back(&self, jobs: Vec<Job>) {
        let mut state = self.lock();
        if let Open::Failed(reason) = &state.open {
            let reason = reason.clone();
            drop(state);
            refuse_all(jobs, &reason);
            return;
        }
        for job in jobs.into_iter().rev() {
            let place = state.waiting.partition_point(|waiting| waiting.id < job.id);
            state.waiting.insert(place, job);
        }
        drop(state);
        self.arrived.notify_all();
    }

    /// Refuses new requests; `take` ends once the old ones are taken.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        if matches!(state.open, Open::Yes) {
            state.open = Open::Draining;
        }
        drop(state);
        self.arrived.notify_all();
    }

    /// Answers everything that waits, and everything that comes, with the reason.
    pub(crate) fn fail(&self, reason: &str) {
        let mut state = self.lock();
        state.open = Open::Failed(reason.to_owned());
        let jobs = Vec::from(std::mem::take(&mut state.waiting));
        drop(state);
        refuse_all(jobs, reason);
        self.arrived.notify_all();
    }

    /// Makes everyone in `take` look at `stopped` again.
    pub(crate) fn wake_all(&self) {
        drop(self.lock());
        self.arrived.notify_all();
    }

    /// Requests that wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Keeps the mean from which the advice to try again is made.
    pub(crate) fn note_run(&self, took: Duration, requests: usize) {
        let newest = took.as_nanos() as u64 / requests.max(1) as u64;
        let mean = self.mean_nanos_per_request.load(Relaxed);
        let next = if mean == 0 { newest } else { mean - (mean >> MEAN_SHIFT) + (newest >> MEAN_SHIFT) };
        self.mean_nanos_per_request.store(next, Relaxed);
    }

    /// When half of a full queue will have been answered, as it goes now.
    fn retry_after(&self) -> Duration {
        let mean = self.mean_nanos_per_request.load(Relaxed);
        let half = Duration::from_nanos(mean.saturating_mul(self.limit as u64 / 2));
        half.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)
    }

    fn remove(&self, id: u64) -> bool {
        let mut state = self.lock();
        match state.waiting.binary_search_by_key(&id, |job| job.id) {
            Ok(place) => state.waiting.remove(place).is_some(),
            Err(_) => false,
        }
    }

    fn deadline_exceeded(&self) -> InferError {
        InferError::DeadlineExceeded { model: self.model.clone() }
    }

    fn lost(&self) -> InferError {
        InferError::Internal(format!("the request to model '{}' was lost; try again", self.model))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to wait before a batch is taken; `None`: take it now.
fn pause_for_more(state: &State, limits: BatchLimits) -> Option<Duration> {
    if limits.max_delay.is_zero() || !matches!(state.open, Open::Yes) {
        return None;
    }
    let first = state.waiting.front()?;
    let left = limits.max_delay.checked_sub(first.queued_at.elapsed())?;
    let full = batcher::rows_ready(&state.waiting, limits.max_rows) >= limits.max_rows;
    (!full && !left.is_zero()).then_some(left)
}

fn refuse_all(jobs: Vec<Job>, reason: &str) {
    for job in jobs {
        let _ = job.reply.send(Err(InferError::Unavailable(reason.to_owned())));
    }
}

impl Ticket<'_> {
    /// Waits for the answer, until the deadline if it has not been taken by then.
    pub(crate) async fn wait(mut self) -> Result<Answer, InferError> {
        if let Some(deadline) = self.deadline {
            let waited = tokio::time::timeout_at(deadline.into(), &mut self.answer).await;
            if waited.is_err() && self.give_up() {
                return Err(self.queue.deadline_exceeded());
            }
            if let Ok(answer) = waited {
                self.answered = true;
                return answer.unwrap_or_else(|_| Err(self.queue.lost()));
            }
        }
        let answer = (&mut self.answer).await;
        self.answered = true;
        answer.unwrap_or_else(|_| Err(self.queue.lost()))
    }

    /// The answer, if it is there.
    pub(crate) fn try_answer(&mut self) -> Option<Result<Answer, InferError>> {
        let answer = match self.answer.try_recv() {
            Ok(answer) => answer,
            Err(oneshot::error::TryRecvError::Empty) => return None,
            Err(oneshot::error::TryRecvError::Closed) => Err(self.queue.lost()),
        };
        self.answered = true;
        Some(answer)
    }

    /// True: the request was still waiting and is out now.
    pub(crate) fn give_up(&mut self) -> bool {
        let removed = self.queue.remove(self.id);
        self.answered |= removed;
        removed
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.queue.remove(self.id);
        }
    }
}

#[cfg(test)]
mod tests;
