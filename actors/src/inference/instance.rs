//! One instance: an actor that owns a worker's thread. The actor dies with the
//! thread and the thread with the actor, and nobody's request is lost over it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::InferError;
use super::devices::Device;
use super::queue::Job;
use super::run_slot::RunSlot;
use super::runtime::panic_text;
use super::served_version::ServedVersion;
use super::session::ModelSession;
use super::worker::Worker;

/// A request that this many instances died over, of themselves, is not tried
/// again: it may be what they die of. Those that were killed do not count.
const LOST_INSTANCES_MAX: u32 = 2;
/// How often the time of a run is looked at, within these bounds: a twentieth of
/// the time it may take.
const WATCH_PERIOD_MIN: Duration = Duration::from_millis(10);
const WATCH_PERIOD_MAX: Duration = Duration::from_secs(1);

/// How an instance came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The queue is drained: nothing is left to do.
    Drained,
    /// A run took too long and was ended.
    TimedOut,
    /// Killed, panicked, or its session could not be opened.
    Died(String),
}

/// What the version's actor keeps of an instance.
pub(crate) struct InstanceLife {
    ending: Mutex<Option<Ending>>,
    /// Its session is open: it has taken up work.
    pub at_work: AtomicBool,
    /// Where its session runs.
    pub device: Device,
}

impl InstanceLife {
    pub(crate) fn new(device: Device) -> Self {
        Self { ending: Mutex::new(None), at_work: AtomicBool::new(false), device }
    }

    /// Without a word from the instance itself it was killed.
    pub(crate) fn ending(&self) -> Ending {
        let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending.clone().unwrap_or_else(|| Ending::Died("it was killed".to_owned()))
    }

    /// It died or had to be ended; else it was killed.
    pub(crate) fn ended_by_itself(&self) -> bool {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn end(&self, ending: Ending) {
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(ending);
    }
}

pub(crate) struct InstanceActor;

pub(crate) struct InstanceArguments {
    pub version: Arc<ServedVersion>,
    pub life: Arc<InstanceLife>,
    /// Opened already, or to be opened by the thread.
    pub session: Option<ModelSession>,
}

pub(crate) enum InstanceMessage {
    /// Look at how long the present run takes.
    Watch,
    /// The thread is at its end.
    ThreadEnded(Ending),
}

/// Closing it hands the requests of the instance on.
pub(crate) struct InstanceState {
    version: Arc<ServedVersion>,
    life: Arc<InstanceLife>,
    slot: Arc<RunSlot>,
}

impl Actor for InstanceActor {
    type Msg = InstanceMessage;
    type State = InstanceState;
    type Arguments = InstanceArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let InstanceArguments { version, life, session } = arguments;
        let slot = Arc::new(RunSlot::new()?);
        let state =
            InstanceState { version: Arc::clone(&version), life: Arc::clone(&life), slot: Arc::clone(&slot) };
        let actor = myself.clone();
        version.live_threads.fetch_add(1, Relaxed);
        let spawned = thread::Builder::new().name(thread_name(&version)).spawn(move || {
            let ending = live(&version, &life, &slot, session);
            version.live_threads.fetch_sub(1, Relaxed);
            let _ = actor.cast(InstanceMessage::ThreadEnded(ending));
        });
        if let Err(error) = spawned {
            state.version.live_threads.fetch_sub(1, Relaxed);
            return Err(error.into());
        }
        let max_run_time = state.version.plan.max_run_time();
        let period = (max_run_time / 20).clamp(WATCH_PERIOD_MIN, WATCH_PERIOD_MAX);
        myself.send_interval(period, || InstanceMessage::Watch);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            InstanceMessage::Watch => {
                let max_run_time = state.version.plan.max_run_time();
                if state.slot.running_for().is_some_and(|time| time > max_run_time) {
                    state.give_up_run();
                    myself.stop(None);
                }
                Ok(())
            }
            InstanceMessage::ThreadEnded(ending) => {
                state.life.end(ending.clone());
                match ending {
                    Ending::Died(reason) => Err(reason.into()),
                    Ending::Drained | Ending::TimedOut => {
                        myself.stop(None);
                        Ok(())
                    }
                }
            }
        }
    }
}

impl InstanceState {
    /// The callers are answered now, whenever the thread comes back.
    fn give_up_run(&self) {
        self.life.end(Ending::TimedOut);
        self.version.answer_ended_run(self.close());
    }

    fn close(&self) -> Vec<Job> {
        let jobs = self.slot.close();
        self.version.queue.wake_all();
        jobs
    }
}

impl Drop for InstanceState {
    fn drop(&mut self) {
        let mut jobs = self.close();
        if self.life.ended_by_itself() {
            jobs.iter_mut().for_each(|job| job.lost_instances += 1);
        }
        let (again, lost): (Vec<Job>, Vec<Job>) =
            jobs.into_iter().partition(|job| job.lost_instances < LOST_INSTANCES_MAX);
        for job in lost {
            let text = format!(
                "{LOST_INSTANCES_MAX} instances of model '{}' ended while they ran this request; it is not tried again",
                self.version.model()
            );
            let _ = job.reply.send(Err(InferError::Internal(text)));
        }
        if !again.is_empty() {
            self.version.queue.put_back(again);
        }
    }
}

fn live(
    version: &Arc<ServedVersion>,
    life: &InstanceLife,
    slot: &Arc<RunSlot>,
    session: Option<ModelSession>,
) -> Ending {
    let mut session = match session {
        Some(session) => session,
        None => match open(version, life.device) {
            Ok(session) => session,
            Err(reason) => return Ending::Died(reason),
        },
    };
    life.at_work.store(true, Relaxed);
    let mut worker = Worker { version, slot, session: &mut session };
    match catch_unwind(AssertUnwindSafe(|| worker.work())) {
        Ok(()) => Ending::Drained,
        Err(panic) => Ending::Died(format!("its thread panicked: {}", panic_text(panic.as_ref()))),
    }
}

fn open(version: &ServedVersion, device: Device) -> Result<ModelSession, String> {
    let plan = &version.plan;
    let options = plan.session_options(device);
    catch_unwind(AssertUnwindSafe(|| ModelSession::open(&plan.runtime, &plan.file, &options)))
        .unwrap_or_else(|panic| Err(panic_text(panic.as_ref())))
}

/// Linux shows 15 bytes of it.
fn thread_name(version: &ServedVersion) -> String {
    format!("infer {}", version.model())
}
