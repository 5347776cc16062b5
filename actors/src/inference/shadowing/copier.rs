//! Runs copies: on a thread of its own that gives way to every other, so that a
//! core of the data plane never waits for it. Versions that run on the cores run
//! on this thread instead; all others in their own queue, behind every request.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use starling_proto::inference::ModelInferResponse;
use starling_raft::state::NodeId;
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use super::cells::{DropReason, ShadowCell, ShadowRecorder};
use super::comparison::compare;
use super::examples::{Disagreement, ShadowExamples};
use super::pending::PendingCopy;
use super::queue::{Inbox, Lines, Queued};
use crate::inference::InferError;
use crate::inference::forward::{Forwarded, Forwarder};
use crate::inference::local::core;
use crate::inference::local_versions::LocalVersions;
use crate::inference::routing_feed::RoutingFeed;
use crate::inference::routing_table::VersionId;
use crate::inference::traffic::CellKey;

/// As nice as a thread can be.
const NICENESS: i32 = 19;
/// After something has come, more is waited for: copies run together, and the
/// requests that they are of are answered first.
const GATHER: Duration = Duration::from_millis(1);
/// How often a busy node is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Copies that are at other nodes at once: one in so many of those that may run.
const FORWARDED_ONE_IN: usize = 4;

/// What the copier works with.
pub(super) struct Copier {
    pub(super) inbox: Arc<Inbox<PendingCopy>>,
    pub(super) recorder: Arc<ShadowRecorder>,
    pub(super) examples: Arc<ShadowExamples>,
    pub(super) local: Arc<LocalVersions>,
    pub(super) routing: Arc<RoutingFeed>,
    pub(super) forwarder: Forwarder,
    /// Requests wait on this node: nothing is copied.
    pub(super) node_is_busy: Arc<AtomicBool>,
    /// Of one shadow, at once.
    pub(super) concurrency: usize,
    /// From the start of a copy to its answer, and before that from its making to
    /// its start.
    pub(super) deadline: Duration,
    /// Of the data plane.
    pub(super) cores: usize,
}

/// What became of a copy that was begun.
enum Fate {
    Answered(ModelInferResponse),
    Failed(InferError),
    Dropped(DropReason),
}

impl Copier {
    /// Starts the thread, which ends once `stop` is cancelled. What waits then is
    /// dropped.
    pub(super) fn start(self, stop: CancellationToken) -> std::io::Result<()> {
        thread::Builder::new().name("shadow copies".to_owned()).spawn(move || {
            // Where the system refuses, copies are as urgent as anything.
            if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
                tracing::warn!(%error, "the copies for shadows cannot give way to requests");
            }
            core::enter(self.cores);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => LocalSet::new().block_on(&runtime, Rc::new(self).run(stop)),
                Err(error) => tracing::error!(%error, "no copies are made for shadows: no runtime"),
            }
        })?;
        Ok(())
    }

    async fn run(self: Rc<Self>, stop: CancellationToken) {
        let mut lines = Lines::new(Arc::clone(&self.inbox));
        let running = Rc::new(Running::default());
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.turn(&mut lines, &running) => {}
            }
        }
        lines.sort().iter().for_each(|copy| self.drop_copy(copy, DropReason::Stopped));
        while let Some(copy) = lines.next(|_| true) {
            self.drop_copy(&copy, DropReason::Stopped);
        }
    }

    /// Starts what may run, then waits until more may.
    async fn turn(self: &Rc<Self>, lines: &mut Lines<PendingCopy>, running: &Rc<Running>) {
        let busy = self.local.requests_wait();
        self.node_is_busy.store(busy, Relaxed);
        if busy {
            return tokio::time::sleep(LOOK_AGAIN).await;
        }
        lines.sort().iter().for_each(|copy| self.drop_copy(copy, DropReason::QueueFull));
        let mut started = false;
        while let Some(copy) = lines.next(|shadow| running.of(shadow) < self.concurrency) {
            if copy.original.answered_at.elapsed() > self.deadline {
                self.drop_copy(&copy, DropReason::TooLate);
                continue;
            }
            started = true;
            let begun = running.begin(copy.shadow());
            let copier = Rc::clone(self);
            tokio::task::spawn_local(async move {
                copier.run_copy(copy).await;
                drop(begun);
            });
        }
        if started {
            // They run in between.
            return tokio::task::yield_now().await;
        }
        tokio::select! {
            () = self.inbox.wait() => {}
            () = running.ended.notified(), if !lines.is_empty() => {}
        }
        tokio::time::sleep(GATHER).await;
    }

    async fn run_copy(&self, copy: PendingCopy) {
        let began = Instant::now();
        let fate = tokio::time::timeout(self.deadline, self.ask(&copy, began + self.deadline)).await;
        let late =
            || Fate::Failed(InferError::DeadlineExceeded(format!("no answer within {:?}", self.deadline)));
        match fate.unwrap_or_else(|_| late()) {
            Fate::Answered(answer) => self.compare(&copy, &answer, began.elapsed()),
            Fate::Dropped(reason) => self.drop_copy(&copy, reason),
            Fate::Failed(error) => {
                tracing::debug!(decision = %copy.original.decision, shadow = %copy.shadow.version.version.label, %error, "a shadow did not answer");
                self.recorder.count(key_of(&copy), ShadowCell::failed);
            }
        }
    }

    /// Here if the version is here, else at a node that has it.
    async fn ask(&self, copy: &PendingCopy, deadline: Instant) -> Fate {
        let request = copy.original.request.clone();
        let answer = match self.local.get(copy.shadow()) {
            Some(version) => version.infer_copy(request, deadline).await,
            None => match self.ask_a_peer(copy, deadline).await {
                Ok(answer) => answer,
                Err(reason) => return Fate::Dropped(reason),
            },
        };
        match answer {
            Ok(answer) => Fate::Answered(answer),
            Err(InferError::Overloaded { .. }) => Fate::Dropped(DropReason::VersionBusy),
            Err(error) => Fate::Failed(error),
        }
    }

    async fn ask_a_peer(
        &self,
        copy: &PendingCopy,
        deadline: Instant,
    ) -> Result<Result<ModelInferResponse, InferError>, DropReason> {
        let version = &copy.shadow.version;
        let is_serving = |node_id: NodeId| !self.routing.is_draining(node_id);
        let candidates = self.forwarder.candidates(version, is_serving);
        if candidates.is_empty() {
            return Err(DropReason::NoInstance);
        }
        thread_local! {
            static FORWARDED: Cell<usize> = const { Cell::new(0) };
        }
        let Some(_place) = Counted::enter(&FORWARDED, (self.concurrency / FORWARDED_ONE_IN).max(1)) else {
            return Err(DropReason::PeersBusy);
        };
        let decision = copy.original.decision.to_string();
        let forwarded = Forwarded {
            request: &copy.original.request,
            version,
            epoch: copy.original.decision.epoch.get(),
            decision: &decision,
            principal: &copy.original.principal,
            deadline: Some(deadline),
        };
        Ok(self.forwarder.ask_copy(forwarded, &candidates).await)
    }

    fn compare(&self, copy: &PendingCopy, answer: &ModelInferResponse, latency: Duration) {
        let original = &copy.original;
        let verdicts = compare(&original.answer, answer, &copy.shadow.comparison);
        self.recorder.count(key_of(copy), |cell| cell.compared(&verdicts, latency, original.latency));
        if verdicts.iter().all(|verdict| verdict.difference.is_none()) {
            return;
        }
        let disagreement = Disagreement {
            decision: original.decision,
            request: &original.request,
            live: &original.version,
            live_answer: &original.answer,
            shadow: &copy.shadow.version,
            shadow_answer: answer,
            verdicts: &verdicts,
        };
        self.examples.keep(&disagreement, Instant::now());
    }

    fn drop_copy(&self, copy: &PendingCopy, reason: DropReason) {
        self.recorder.count(key_of(copy), |cell| cell.dropped(reason, 1));
    }
}

fn key_of(copy: &PendingCopy) -> CellKey {
    CellKey { version: copy.shadow(), epoch: copy.original.decision.epoch.get() }
}

/// Copies that run, by shadow.
#[derive(Default)]
struct Running {
    by_shadow: RefCell<HashMap<VersionId, usize>>,
    ended: Notify,
}

impl Running {
    fn of(&self, shadow: VersionId) -> usize {
        self.by_shadow.borrow().get(&shadow).copied().unwrap_or(0)
    }

    fn begin(self: &Rc<Self>, shadow: VersionId) -> Begun {
        *self.by_shadow.borrow_mut().entry(shadow).or_default() += 1;
        Begun { running: Rc::clone(self), shadow }
    }
}

/// One of them, until it is dropped.
struct Begun {
    running: Rc<Running>,
    shadow: VersionId,
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut by_shadow = self.running.by_shadow.borrow_mut();
        if let Some(count) = by_shadow.get_mut(&self.shadow) {
            *count -= 1;
            if *count == 0 {
                by_shadow.remove(&self.shadow);
            }
        }
        self.running.ended.notify_one();
    }
}

/// One of a bounded number of this thread, until it is dropped.
struct Counted(&'static thread::LocalKey<Cell<usize>>);

impl Counted {
    fn enter(count: &'static thread::LocalKey<Cell<usize>>, max: usize) -> Option<Self> {
        if count.get() >= max {
            return None;
        }
        count.set(count.get() + 1);
        Some(Self(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
