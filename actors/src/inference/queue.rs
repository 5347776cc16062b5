//! The bounded queue of one version. It stands outside the actors' mailboxes,
//! which are unbounded, and outlives the instances that take from it.

mod refusals;
mod time_limits;
mod waiting;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::InferError;
use super::batcher::Batchable;
use super::host::Answer;
use super::load_gate::{LoadGate, QueueTime};
use super::local::core;
use super::request_terms::RequestTerms;
use super::run_pace::{Ahead, Crew, RunPace};
use super::tensor::check::CheckedRequest;
use time_limits::TimeLimits;
use waiting::Waiting;

/// Every so manieth batch begins with whoever has waited longest, whatever its
/// class: so the least urgent starve slowly, and not for ever.
const OLDEST_FIRST_EVERY: u64 = 16;

/// Less urgent than every class that a version may have.
pub(crate) const COPY_CLASS: u32 = u32::MAX;
/// Copies that wait in the queue of a version.
const COPIES_WAITING_MAX: usize = 256;

/// A request as it comes to the queue.
#[derive(Clone)]
pub(crate) struct Arrival {
    pub request: Arc<CheckedRequest>,
    /// What checking it took.
    pub check: Duration,
    pub terms: RequestTerms,
    pub deadline: Option<Instant>,
    pub kind: ArrivalKind,
}

/// What a request is to the bounds of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArrivalKind {
    /// From a caller: held against every bound.
    Asked,
    /// A further part of one that was let in: only its own time bounds it.
    Part,
    /// From this node, to see whether the queue works: let in and not counted.
    Probe,
    /// For a shadow: nobody waits for the answer. Let in only while no request
    /// waits, never runs together with one, and not counted.
    Copy,
}

impl ArrivalKind {
    /// Not one of a caller: it is in no statistics.
    pub(crate) fn is_unasked(self) -> bool {
        matches!(self, Self::Probe | Self::Copy)
    }
}

/// A request that waits or runs. Whoever holds it owes its sender an answer.
pub(crate) struct Job {
    id: u64,
    pub request: Arc<CheckedRequest>,
    pub reply: oneshot::Sender<Result<Answer, InferError>>,
    /// What checking it took.
    pub check: Duration,
    pub queued_at: Instant,
    pub kind: ArrivalKind,
    class: u32,
    limits: TimeLimits,
    /// Instances that went away while they held it.
    pub lost_instances: u32,
}

impl Batchable for Job {
    fn rows(&self) -> usize {
        self.request.rows
    }

    fn fits_with(&self, other: &Self) -> bool {
        let both_asked = (self.kind == ArrivalKind::Copy) == (other.kind == ArrivalKind::Copy);
        both_asked && self.request.fits_with(&other.request)
    }
}

/// How batches are made up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    pub max_rows: usize,
    /// How long the first request may wait for others; zero: not at all.
    pub max_delay: Duration,
}

/// The bounds of a queue, and who works it off.
#[derive(Debug, Clone)]
pub(crate) struct QueueRules {
    pub model: String,
    pub max_requests: usize,
    pub max_time: QueueTime,
    pub crew: Crew,
}

/// The bounds of queues whose version does not say.
#[derive(Debug, Clone, Copy)]
pub struct QueueDefaults {
    /// Requests that may wait.
    pub max_requests: usize,
    /// How long what waits may take.
    pub max_time: QueueTime,
}

impl Default for QueueDefaults {
    fn default() -> Self {
        Self { max_requests: 1_024, max_time: QueueTime::Adaptive }
    }
}

impl QueueDefaults {
    /// `max_queue`: from the settings of a version; 0: they say nothing. Whoever
    /// gives a number means it: no measured bound comes on top.
    pub(crate) fn bounds(self, max_queue: u32) -> (usize, QueueTime) {
        match (max_queue, self.max_time) {
            (0, max_time) => (self.max_requests, max_time),
            (given, QueueTime::Adaptive) => (given as usize, QueueTime::Unbounded),
            (given, max_time) => (given as usize, max_time),
        }
    }
}

/// The bounded queue of one version.
pub(crate) struct RequestQueue {
    model: String,
    max_requests: usize,
    state: Mutex<State>,
    arrived: Condvar,
}

struct State {
    waiting: Waiting,
    next_id: u64,
    batches: u64,
    /// Instances that wait for work.
    idle: usize,
    crew: Crew,
    pace: RunPace,
    gate: LoadGate,
    open: Open,
}

enum Open {
    Yes,
    /// What is in it is answered; nothing comes in.
    Draining,
    /// Nothing is answered any more, for this reason.
    Failed(String),
}

/// A place in the queue, and where its answer comes to. Dropping it takes the
/// request out, unless an instance has it already.
pub(crate) struct Ticket<'a> {
    queue: &'a RequestQueue,
    place: (u32, u64),
    limits: TimeLimits,
    /// An instance that waits for work, and has to be told.
    someone_is_idle: bool,
    answer: oneshot::Receiver<Result<Answer, InferError>>,
    answered: bool,
}

impl RequestQueue {
    pub(crate) fn new(rules: QueueRules) -> Self {
        let QueueRules { model, max_requests, max_time, crew } = rules;
        let state = State {
            waiting: Waiting::default(),
            next_id: 0,
            batches: 0,
            idle: 0,
            crew,
            pace: RunPace::default(),
            gate: LoadGate::new(max_time),
            open: Open::Yes,
        };
        Self { model, max_requests: max_requests.max(1), state: Mutex::new(state), arrived: Condvar::new() }
    }

    /// Waits for the answer to a checked request; refuses as `enter` does. An
    /// instance that has nothing to do begins once the others that have arrived on
    /// this core are in line: it would run with the first alone.
    pub(crate) async fn answer(&self, arrival: Arrival) -> Result<Answer, InferError> {
        let ticket = self.enter(arrival)?;
        if ticket.someone_is_idle {
            if core::here().is_some() && core::others_have_arrived() {
                core::let_others_get_in_line(true).await;
            }
            self.arrived.notify_one();
        }
        ticket.wait().await
    }

    /// Takes a checked request in; its answer comes to the ticket. Refuses at once
    /// what one of the bounds forbids, or what could not begin in time as it goes
    /// now. Wakes nobody.
    pub(crate) fn enter(&self, arrival: Arrival) -> Result<Ticket<'_>, InferError> {
        let (reply, answer) = oneshot::channel();
        let (place, limits, someone_is_idle) = self.push(arrival, reply)?;
        Ok(Ticket { queue: self, place, limits, someone_is_idle, answer, answered: false })
    }

    fn push(
        &self,
        arrival: Arrival,
        reply: oneshot::Sender<Result<Answer, InferError>>,
    ) -> Result<((u32, u64), TimeLimits, bool), InferError> {
        let queued_at = Instant::now();
        let RequestTerms { class, timeout } = arrival.terms;
        let limits = TimeLimits { deadline: arrival.deadline, timeout, queued_at };
        let start_by = limits.start_by();
        if start_by.is_some_and(|start_by| start_by <= queued_at) {
            return Err(limits.exceeded(&self.model, queued_at));
        }
        let mut state = self.lock();
        match &state.open {
            Open::Yes => {}
            // Parts of a request that was accepted before.
            Open::Draining if arrival.kind == ArrivalKind::Part => {}
            Open::Draining => {
                return Err(InferError::Unavailable(format!(
                    "model '{}' is being unloaded here",
                    self.model
                )));
            }
            Open::Failed(reason) => return Err(InferError::Unavailable(reason.clone())),
        }
        let displaced = match arrival.kind {
            ArrivalKind::Asked => self.admit(&mut state, class, start_by, queued_at)?,
            ArrivalKind::Part | ArrivalKind::Probe => None,
            ArrivalKind::Copy => self.admit_copy(&state, queued_at)?,
        };
        let id = state.next_id;
        state.next_id += 1;
        state.waiting.insert(Job {
            id,
            request: arrival.request,
            reply,
            check: arrival.check,
            queued_at,
            kind: arrival.kind,
            class,
            limits,
            lost_instances: 0,
        });
        let someone_is_idle = state.idle > 0;
        let retry_after = displaced.is_some().then(|| self.retry_after(&state, queued_at));
        drop(state);
        if let (Some(displaced), Some(retry_after)) = (displaced, retry_after) {
            let _ = displaced.reply.send(Err(refusals::displaced(&self.model, retry_after)));
        }
        Ok(((class, id), limits, someone_is_idle))
    }

    /// Whether one more of this class may wait; gives whom it displaces.
    fn admit(
        &self,
        state: &mut State,
        class: u32,
        start_by: Option<Instant>,
        now: Instant,
    ) -> Result<Option<Job>, InferError> {
        let crew = state.crew;
        let (requests, rows) = state.waiting.ahead_of(class);
        let wait = state.pace.wait(Ahead { requests, rows }, crew, now);
        let left = start_by.map(|start_by| start_by.saturating_duration_since(now));
        if let (Some(wait), Some(left)) = (wait, left)
            && wait > left
        {
            return Err(refusals::not_in_time(&self.model, wait, left));
        }
        let full_run = state.pace.of_run(crew.max_rows);
        if let (Some(wait), Some(full_run)) = (wait, full_run)
            && let Err(too_long) = state.gate.ask(wait, full_run, crew, now)
        {
            return Err(refusals::waits_too_long(&self.model, too_long, self.retry_after(state, now)));
        }
        if state.waiting.len() < self.max_requests {
            return Ok(None);
        }
        state.gate.refuse();
        match state.waiting.pop_less_urgent_than(class) {
            Some(displaced) => Ok(Some(displaced)),
            None => Err(refusals::full(&self.model, self.max_requests, self.retry_after(state, now))),
        }
    }

    /// A copy waits where no request does, and where few copies do. It moves none of
    /// the bounds that requests are held against.
    fn admit_copy(&self, state: &State, now: Instant) -> Result<Option<Job>, InferError> {
        let (requests, _) = state.waiting.ahead_of(COPY_CLASS - 1);
        let copies_max = self.max_requests.min(COPIES_WAITING_MAX);
        if requests > 0 || state.waiting.len() >= copies_max {
            return Err(refusals::full(&self.model, copies_max, self.retry_after(state, now)));
        }
        Ok(None)
    }

    /// Blocks until there is a batch to run. `None`: the caller should end, since
    /// `stopped` says so or the queue is drained.
    pub(crate) fn take(&self, limits: BatchLimits, stopped: impl Fn() -> bool) -> Option<Vec<Job>> {
        let mut state = self.lock();
        state.crew.max_rows = limits.max_rows;
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
        state.crew.max_rows = limits.max_rows;
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
        state.batches += 1;
        let oldest_first = state.batches.is_multiple_of(OLDEST_FIRST_EVERY);
        let mut batch = state.waiting.take_batch(limits.max_rows, oldest_first);
        batch.retain(|job| !job.reply.is_closed());
        let late = |job: &mut Job| job.limits.start_by().is_some_and(|start_by| start_by <= now);
        for job in batch.extract_if(.., late) {
            let exceeded = job.limits.exceeded(&self.model, now);
            let _ = job.reply.send(Err(exceeded));
        }
        if !batch.is_empty() {
            let instances = state.crew.instances;
            state.pace.begin(now, instances);
        }
        batch
    }

    /// Takes requests over that another queue had accepted, beyond the bounds if
    /// need be. They stand last in their class here.
    pub(crate) fn adopt(&self, mut jobs: Vec<Job>) {
        let mut state = self.lock();
        for job in &mut jobs {
            job.id = state.next_id;
            state.next_id += 1;
        }
        drop(state);
        self.put_back(jobs);
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
            state.waiting.insert(job);
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
        let jobs = state.waiting.take_all();
        drop(state);
        refuse_all(jobs, reason);
        self.arrived.notify_all();
    }

    /// Makes everyone in `take` look at `stopped` again.
    pub(crate) fn wake_all(&self) {
        drop(self.lock());
        self.arrived.notify_all();
    }

    /// Requests that wait, copies included.
    pub(crate) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Requests that wait, copies not included.
    pub(crate) fn asked_len(&self) -> usize {
        self.lock().waiting.ahead_of(COPY_CLASS - 1).0
    }

    /// Instances that wait for work.
    #[cfg(test)]
    pub(crate) fn idle_instances(&self) -> usize {
        self.lock().idle
    }

    /// A run of so many rows, with everything around it, took so long: from this
    /// the wait of others is estimated.
    pub(crate) fn note_run(&self, took: Duration, rows: usize) {
        self.lock().pace.end(rows, took);
    }

    /// How long a request that is let in may have to wait, as it goes now; `None`
    /// before anything has run.
    pub(crate) fn longest_wait(&self) -> Option<Duration> {
        let state = self.lock();
        let full_run = state.pace.of_run(state.crew.max_rows)?;
        let (requests, rows) = state.waiting.all();
        let wait = state.pace.wait(Ahead { requests, rows }, state.crew, Instant::now())?;
        // Estimates are wrong by a factor now and then.
        Some(state.gate.longest(full_run, state.crew).unwrap_or_default().max(wait * 2))
    }

    /// When half of what waits will have been answered, as it goes now.
    fn retry_after(&self, state: &State, now: Instant) -> Duration {
        let (requests, rows) = state.waiting.all();
        let wait = state.pace.wait(Ahead { requests, rows }, state.crew, now);
        wait.unwrap_or_default() / 2
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
    let left = limits.max_delay.checked_sub(state.waiting.oldest()?.elapsed())?;
    let full = state.waiting.rows_ready(limits.max_rows) >= limits.max_rows;
    (!full && !left.is_zero()).then_some(left)
}

fn refuse_all(jobs: Vec<Job>, reason: &str) {
    for job in jobs {
        let _ = job.reply.send(Err(InferError::Unavailable(reason.to_owned())));
    }
}

impl Ticket<'_> {
    /// Waits for the answer. A request whose time is over while it waits is not
    /// run; one that is running then is answered when its run ends.
    pub(crate) async fn wait(mut self) -> Result<Answer, InferError> {
        if let Some(start_by) = self.limits.start_by() {
            let waited = tokio::time::timeout_at(start_by.into(), &mut self.answer).await;
            if waited.is_err() && self.give_up() {
                return Err(self.limits.exceeded(&self.queue.model, Instant::now()));
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
        let removed = self.queue.lock().waiting.remove(self.place);
        self.answered |= removed;
        removed
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.queue.lock().waiting.remove(self.place);
        }
    }
}

#[cfg(test)]
mod tests;
