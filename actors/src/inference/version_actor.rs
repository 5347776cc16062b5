//! The actor of one version: loads it, keeps its instances alive, drains it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use starling_raft::state::models::InstanceMode;

use super::bundle::ModelFiles;
use super::devices::Device;
use super::golden;
use super::host::LoadedVersion;
use super::instance::{Ending, InstanceActor, InstanceArguments, InstanceLife, InstanceMessage};
use super::instance_failures::InstanceFailures;
use super::local::{Facts, Lanes, Mode, Patience, choose};
use super::metrics::InferenceMetrics;
use super::runtime::panic_text;
use super::served_version::{ServedVersion, VersionPlan};
use super::session::ModelSession;
use super::session_options::SessionOptions;
use super::supervisor::SupervisorMessage;
use super::warm_up::{warm_up, warm_up_another};

/// The first restart waits this long, each further one twice as long as the one
/// before, until an instance has taken up work again.
const RESTART_DELAY_MIN: Duration = Duration::from_millis(50);
const RESTART_DELAY_MAX: Duration = Duration::from_secs(10);
/// Instances that may end in a row without having taken up work.
const FRUITLESS_RESTARTS_MAX: u32 = 6;
/// Threads that hang in a run may pile up to here before no more are started.
const ABANDONED_THREADS_MAX: usize = 4;
/// How often the time of local runs is looked at, within these bounds: a
/// twentieth of the time a run may take.
const WATCH_PERIOD_MIN: Duration = Duration::from_millis(10);
const WATCH_PERIOD_MAX: Duration = Duration::from_secs(1);
/// Where one row takes as long, a core reads on while requests keep coming in
/// before it runs them: reading one takes a few microseconds.
const WORTH_READING_ON: Duration = Duration::from_micros(20);
/// While a version drains, until its local instances have answered.
const LANES_LOOK_AGAIN: Duration = Duration::from_millis(5);

pub(crate) struct VersionActor;

pub(crate) struct VersionArguments {
    pub plan: VersionPlan,
    pub metrics: InferenceMetrics,
    pub supervisor: ActorRef<SupervisorMessage>,
}

pub(crate) enum VersionMessage {
    /// Opens the session, warms it, starts the instances.
    Load,
    /// Starts an instance in place of one that ended on this device.
    Restart(Device),
    /// Takes nothing in any more; answers and ends once everything is answered.
    Drain(Option<RpcReplyPort<()>>),
    /// Look after the local instances.
    WatchLanes,
    /// Kills one instance as a fault would. Answers whether there was one.
    KillInstance(RpcReplyPort<bool>),
}

pub(crate) struct VersionState {
    phase: Phase,
    supervisor: ActorRef<SupervisorMessage>,
    instances: HashMap<ActorId, (ActorRef<InstanceMessage>, Arc<InstanceLife>)>,
    fruitless_restarts: u32,
    failures: InstanceFailures,
    draining: Option<Vec<RpcReplyPort<()>>>,
}

enum Phase {
    Planned(Option<Box<(VersionPlan, InferenceMetrics)>>),
    Served(Arc<ServedVersion>),
}

impl Actor for VersionActor {
    type Msg = VersionMessage;
    type State = VersionState;
    type Arguments = VersionArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        // Loading takes its time and so must not hold up the supervisor, which
        // waits for this function.
        myself.cast(VersionMessage::Load)?;
        Ok(VersionState {
            phase: Phase::Planned(Some(Box::new((arguments.plan, arguments.metrics)))),
            supervisor: arguments.supervisor,
            instances: HashMap::new(),
            fruitless_restarts: 0,
            failures: InstanceFailures::default(),
            draining: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            VersionMessage::Load => state.load(&myself).await,
            VersionMessage::Restart(device) => state.restart(&myself, device).await,
            VersionMessage::Drain(reply) => {
                state.drain(&myself, reply);
                Ok(())
            }
            VersionMessage::WatchLanes => {
                state.watch_lanes().await;
                Ok(())
            }
            VersionMessage::KillInstance(reply) => {
                let instance = state.instances.values().next();
                if let Some((actor, _)) = instance {
                    actor.kill();
                }
                let _ = reply.send(instance.is_some());
                Ok(())
            }
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let ended = match &event {
            SupervisionEvent::ActorTerminated(actor, _, _) | SupervisionEvent::ActorFailed(actor, _) => {
                actor.get_id()
            }
            _ => return Ok(()),
        };
        // With it goes the state of the instance, and so its requests come back.
        drop(event);
        if let Some((_, life)) = state.instances.remove(&ended) {
            state.instance_ended(&myself, &life);
        }
        Ok(())
    }
}

impl VersionState {
    async fn load(&mut self, myself: &ActorRef<VersionMessage>) -> Result<(), ActorProcessingErr> {
        let Phase::Planned(planned) = &mut self.phase else { return Ok(()) };
        let Some(planned) = planned.take() else { return Ok(()) };
        let (plan, metrics) = *planned;
        let key = plan.key.clone();
        // A failure ends the actor; the supervisor passes the reason on.
        let devices = plan.devices()?;
        let first_device = devices[0];
        let opened = tokio::task::spawn_blocking(move || open_and_warm(plan, first_device)).await??;
        let Opened { plan, session, max_batch, lanes } = opened;
        let instances = plan.instances() * devices.len();
        let mode = if lanes.is_some() { Mode::Local } else { Mode::Dedicated };
        if mode == Mode::Local {
            let period = (plan.max_run_time() / 20).clamp(WATCH_PERIOD_MIN, WATCH_PERIOD_MAX);
            myself.send_interval(period, || VersionMessage::WatchLanes);
        }
        let version = Arc::new(ServedVersion::new(plan, max_batch, metrics.of_version(&key), lanes));
        self.phase = Phase::Served(Arc::clone(&version));
        let mut further: Vec<_> = (1..instances).map(|_| session.another()).collect();
        further.push(Some(session));
        for device in devices.iter().cycle().take(instances) {
            self.start_instance(myself, &version, *device, further.pop().flatten()).await?;
        }
        golden::reproduce(&version).await?;
        tracing::info!(
            model = version.model(),
            version = %key.ordinal,
            max_batch,
            instances,
            ?devices,
            ?mode,
            "loaded a version"
        );
        let loaded = Arc::new(LoadedVersion::new(version, myself.clone()));
        self.supervisor.cast(SupervisorMessage::Loaded { key, loaded })?;
        Ok(())
    }

    async fn start_instance(
        &mut self,
        myself: &ActorRef<VersionMessage>,
        version: &Arc<ServedVersion>,
        device: Device,
        session: Option<ModelSession>,
    ) -> Result<(), ActorProcessingErr> {
        let life = Arc::new(InstanceLife::new(device));
        let arguments = InstanceArguments { version: Arc::clone(version), life: Arc::clone(&life), session };
        let (actor, _) = Actor::spawn_linked(None, InstanceActor, arguments, myself.get_cell()).await?;
        self.instances.insert(actor.get_id(), (actor, life));
        Ok(())
    }

    fn instance_ended(&mut self, myself: &ActorRef<VersionMessage>, life: &InstanceLife) {
        let Phase::Served(version) = &self.phase else { return };
        let ending = life.ending();
        if ending == Ending::Drained {
            self.finish_draining(myself);
            return;
        }
        if life.at_work.load(Relaxed) {
            self.fruitless_restarts = 0;
        } else {
            self.fruitless_restarts += 1;
        }
        // A kill is a drill or a fault of ours, and no word about the version.
        let too_many =
            life.ended_by_itself() && self.failures.note(Instant::now(), version.pulse.ages.last_success());
        if too_many || self.fruitless_restarts > FRUITLESS_RESTARTS_MAX {
            let reason = format!(
                "version {} of model '{}' cannot be kept running: {}",
                version.plan.key.ordinal,
                version.model(),
                match ending {
                    Ending::Died(reason) => reason,
                    Ending::TimedOut | Ending::Drained => "its runs do not end".to_owned(),
                }
            );
            tracing::error!(model = version.model(), version = %version.plan.key.ordinal, "{reason}");
            version.fail(&reason);
            self.finish_draining(myself);
            return;
        }
        let delay = match ending {
            Ending::TimedOut => Duration::ZERO,
            _ => restart_delay(self.fruitless_restarts),
        };
        tracing::warn!(
            model = version.model(),
            version = %version.plan.key.ordinal,
            ?ending,
            ?delay,
            "an instance ended; it is replaced"
        );
        let device = life.device;
        myself.send_after(delay, move || VersionMessage::Restart(device));
    }

    async fn restart(
        &mut self,
        myself: &ActorRef<VersionMessage>,
        device: Device,
    ) -> Result<(), ActorProcessingErr> {
        let Phase::Served(version) = &self.phase else { return Ok(()) };
        let version = Arc::clone(version);
        if version.failure().is_some() {
            return Ok(());
        }
        let abandoned = version.live_threads.load(Relaxed).saturating_sub(self.instances.len());
        if abandoned > ABANDONED_THREADS_MAX {
            myself.send_after(RESTART_DELAY_MAX, move || VersionMessage::Restart(device));
            return Ok(());
        }
        version.metrics.instance_restarts.inc();
        self.start_instance(myself, &version, device, None).await
    }

    fn drain(&mut self, myself: &ActorRef<VersionMessage>, reply: Option<RpcReplyPort<()>>) {
        self.draining.get_or_insert_default().extend(reply);
        let Phase::Served(version) = &self.phase else {
            // It was never loaded: the load has failed and the actor is stopping.
            self.answer_drained(myself);
            return;
        };
        if let Some(lanes) = &version.lanes {
            lanes.drain();
            if lanes.are_busy() {
                // What they cannot run themselves comes to the queue.
                myself.send_after(LANES_LOOK_AGAIN, || VersionMessage::Drain(None));
                return;
            }
        }
        version.queue.drain();
        self.finish_draining(myself);
    }

    /// Ends runs that take too long, and replaces sessions that broke.
    async fn watch_lanes(&self) {
        let Phase::Served(version) = &self.phase else { return };
        let Some(lanes) = &version.lanes else { return };
        for index in lanes.watch(version) {
            let of = Arc::clone(version);
            let opened = tokio::task::spawn_blocking(move || open_for_lane(&of.plan, of.max_batch)).await;
            match opened.unwrap_or_else(|panic| Err(panic.to_string())) {
                Ok(session) => {
                    version.metrics.instance_restarts.inc();
                    lanes.replace(index, session);
                }
                Err(reason) => lanes.close(version, &reason),
            }
        }
    }

    /// Ends the actor if it drains, nothing runs, and nothing waits for an
    /// instance that is yet to be started.
    fn finish_draining(&mut self, myself: &ActorRef<VersionMessage>) {
        let Phase::Served(version) = &self.phase else { return };
        if self.draining.is_some() && self.instances.is_empty() && version.queue.len() == 0 {
            self.answer_drained(myself);
        }
    }

    fn answer_drained(&mut self, myself: &ActorRef<VersionMessage>) {
        for reply in self.draining.take().into_iter().flatten() {
            let _ = reply.send(());
        }
        myself.stop(None);
    }
}

/// A version whose first sessions are open.
struct Opened {
    plan: VersionPlan,
    session: ModelSession,
    max_batch: usize,
    lanes: Option<Lanes>,
}

fn open_and_warm(plan: VersionPlan, device: Device) -> Result<Opened, String> {
    plan.check_settings()?;
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let options = plan.session_options(device);
        let mut session = ModelSession::open(&plan.runtime, &plan.file, &options)?;
        check_names(&plan, &session)?;
        let times = warm_up(&mut session, plan.batching(), plan.max_run_time());
        Ok((session, times))
    }));
    let (session, times) = opened.unwrap_or_else(|panic| Err(panic_text(panic.as_ref())))?;
    let on_a_core = local_session(&plan, &session, device);
    let (best, short) = (times.best(), times.best_short());
    let local_rows = max_batch(&plan, short.unwrap_or(best).rows);
    let facts = Facts {
        one_row: times.one_row(),
        full_batch: times.of(local_rows).filter(|_| short.is_some()),
        file_bytes: ModelFiles::at(&plan.file).and_then(|files| files.size_bytes()).unwrap_or(u64::MAX),
        shared: on_a_core.is_some(),
        cores: plan.cores,
        on_gpu: device.is_gpu(),
    };
    let (max_batch, lanes) = match choose(&plan.settings, facts) {
        Mode::Local => (local_rows, Some(open_lanes(&plan, on_a_core, local_rows, times.one_row())?)),
        Mode::Dedicated => (max_batch(&plan, best.rows), None),
    };
    Ok(Opened { plan, session, max_batch, lanes })
}

/// Rows that run together: as the settings say, else as measured.
fn max_batch(plan: &VersionPlan, measured_rows: usize) -> usize {
    match plan.settings.max_batch {
        _ if !plan.batching() => 1,
        0 => measured_rows,
        wanted => wanted as usize,
    }
}

/// What the cores can run instead of sessions of their own: a core has one thread
/// for it, and no device but itself.
fn local_session(plan: &VersionPlan, session: &ModelSession, device: Device) -> Option<ModelSession> {
    (plan.session_options(device) == SessionOptions::INSPECTION).then(|| session.another()).flatten()
}

fn open_lanes(
    plan: &VersionPlan,
    shared: Option<ModelSession>,
    max_batch: usize,
    one_row: Option<Duration>,
) -> Result<Lanes, String> {
    let one_more = |_| match shared.as_ref().and_then(ModelSession::another) {
        Some(session) => Ok(session),
        None => open_for_lane(plan, max_batch),
    };
    // The copier has one where it costs no memory.
    let for_copies = usize::from(shared.is_some());
    let sessions = (0..plan.cores + for_copies).map(one_more).collect::<Result<_, _>>()?;
    let patience = Patience {
        slow_rows: plan.settings.mode == InstanceMode::Local,
        with_readers: one_row.is_some_and(|time| time >= WORTH_READING_ON),
    };
    Lanes::new(&plan.queue_rules(1, max_batch), sessions, plan.cores, patience)
        .map_err(|error| error.to_string())
}

fn open_for_lane(plan: &VersionPlan, max_batch: usize) -> Result<ModelSession, String> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let mut session = ModelSession::open(&plan.runtime, &plan.file, &SessionOptions::INSPECTION)?;
        warm_up_another(&mut session, max_batch, plan.max_run_time());
        Ok(session)
    }));
    opened.unwrap_or_else(|panic| Err(panic_text(panic.as_ref())))
}

/// The file must be the one that the signature was read from.
fn check_names(plan: &VersionPlan, session: &ModelSession) -> Result<(), String> {
    let declared = session.declared();
    let same_inputs = declared.inputs.iter().map(|spec| (&spec.name, spec.data_type)).eq(plan
        .signature
        .inputs
        .iter()
        .map(|spec| (&spec.name, spec.data_type)));
    let same_outputs = declared.outputs.iter().map(|spec| &spec.name).eq(plan
        .signature
        .outputs
        .iter()
        .map(|spec| &spec.name));
    if same_inputs && same_outputs {
        return Ok(());
    }
    Err("the file has other inputs or outputs than its registered signature".to_owned())
}

fn restart_delay(fruitless_restarts: u32) -> Duration {
    let factor = 1_u32.checked_shl(fruitless_restarts).unwrap_or(u32::MAX);
    RESTART_DELAY_MIN.saturating_mul(factor).min(RESTART_DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_wait_longer_and_longer_up_to_a_bound() {
        let delays: Vec<u128> = (0..10).map(|restarts| restart_delay(restarts).as_millis()).collect();
        assert_eq!(delays, [50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
    }
}
