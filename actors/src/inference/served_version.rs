//! What everyone who works on one loaded version shares: its queue, its
//! settings made whole, its counters.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use starling_proto::inference::ModelInferRequest;
use starling_raft::state::Signature;
use starling_raft::state::models::VersionSettings;

use super::devices::{self, Device};
use super::host::{Answer, VersionKey};
use super::in_flight_ages::Stretch;
use super::local::Lanes;
use super::metrics::VersionMetrics;
use super::queue::{Arrival, ArrivalKind, BatchLimits, COPY_CLASS, QueueDefaults, QueueRules, RequestQueue};
use super::request_terms::RequestTerms;
use super::run_pace::Crew;
use super::run_statistics::RunStatistics;
use super::session_options::SessionOptions;
use super::tensor::check;
use super::version_pulse::VersionPulse;
use super::{InferError, OnnxRuntime};

/// Stands in where the settings of a version say nothing.
const MAX_RUN_TIME_DEFAULT: Duration = Duration::from_secs(30);
/// Settings beyond these are mistakes, and would cost the node its memory.
const INSTANCES_MAX: u32 = 64;
const THREADS_MAX: u32 = 256;
const MAX_BATCH_MAX: u32 = 65_536;
/// With more at a core, some wait for others.
const REQUESTS_PER_CORE: usize = 2;

/// What is known of a version before it is loaded.
pub(crate) struct VersionPlan {
    pub key: VersionKey,
    pub runtime: OnnxRuntime,
    pub file: PathBuf,
    pub signature: Arc<Signature>,
    pub settings: VersionSettings,
    /// Of this node.
    pub queue_defaults: QueueDefaults,
    /// Of the data plane; 0: there is none.
    pub cores: usize,
}

impl VersionPlan {
    /// Refuses settings that no node can honour.
    pub(crate) fn check_settings(&self) -> Result<(), String> {
        let VersionSettings { instances, threads, max_batch, .. } = self.settings;
        for (name, value, max) in [
            ("instances", instances, INSTANCES_MAX),
            ("threads", threads, THREADS_MAX),
            ("max_batch", max_batch, MAX_BATCH_MAX),
        ] {
            if value > max {
                return Err(format!("{name} is {value}; at most {max} is allowed"));
            }
        }
        Ok(())
    }

    pub(crate) fn batching(&self) -> bool {
        self.signature.batchable && !self.settings.batching_disabled
    }

    /// Instances on each device. Where they share one session, there are two unless
    /// the settings say otherwise: one runs while the answers of the other go out.
    pub(crate) fn instances(&self) -> usize {
        match self.settings.instances {
            0 if self.cores > 1 && self.instances_share_a_session() => 2,
            given => given.max(1) as usize,
        }
    }

    fn instances_share_a_session(&self) -> bool {
        let on_cpu = self.devices().is_ok_and(|devices| devices == [Device::Cpu]);
        on_cpu && self.session_options(Device::Cpu).may_be_shared(&self.runtime)
    }

    /// How its sessions on a device are opened.
    pub(crate) fn session_options(&self, device: Device) -> SessionOptions {
        SessionOptions {
            threads: self.settings.threads.max(1) as usize,
            spinning: self.settings.spinning,
            device,
        }
    }

    /// Where its sessions run: each device has its own.
    pub(crate) fn devices(&self) -> Result<Vec<Device>, String> {
        devices::choose(self.runtime.devices(), self.settings.device).map_err(|error| error.to_string())
    }

    /// For a queue that so many instances work off.
    pub(crate) fn queue_rules(&self, instances: usize, max_rows: usize) -> QueueRules {
        let (max_requests, max_time) = self.queue_defaults.bounds(self.settings.max_queue);
        let model = self.key.model.to_string();
        QueueRules { model, max_requests, max_time, crew: Crew { instances, max_rows } }
    }

    pub(crate) fn max_run_time(&self) -> Duration {
        match self.settings.max_run_time_millis {
            0 => MAX_RUN_TIME_DEFAULT,
            millis => Duration::from_millis(millis),
        }
    }
}

/// A version that is loaded.
pub(crate) struct ServedVersion {
    pub plan: VersionPlan,
    pub ordinal_text: String,
    /// As requests see it: not batchable if batching is off.
    pub effective: Signature,
    /// Of the dedicated instances; local ones have queues of their own.
    pub queue: RequestQueue,
    /// A version that is run on the cores of the data plane has them.
    pub lanes: Option<Lanes>,
    pub max_batch: usize,
    pub statistics: RunStatistics,
    pub metrics: VersionMetrics,
    pub pulse: VersionPulse,
    /// Set when outputs did not have the rows of their batch.
    pub concatenation_off: AtomicBool,
    /// Those of instances that were given up while they ran included.
    pub live_threads: AtomicUsize,
    in_flight: AtomicUsize,
    failure: ArcSwapOption<String>,
}

impl ServedVersion {
    pub(crate) fn new(
        plan: VersionPlan,
        max_batch: usize,
        metrics: VersionMetrics,
        lanes: Option<Lanes>,
    ) -> Self {
        let effective = Signature { batchable: plan.batching(), ..(*plan.signature).clone() };
        let pulse = VersionPulse::new(&effective, plan.max_run_time());
        Self {
            ordinal_text: plan.key.ordinal.to_string(),
            effective,
            queue: RequestQueue::new(plan.queue_rules(
                plan.instances() * plan.devices().map_or(1, |devices| devices.len()),
                max_batch,
            )),
            lanes,
            max_batch,
            statistics: RunStatistics::new(max_batch),
            metrics,
            pulse,
            concatenation_off: AtomicBool::new(false),
            live_threads: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            failure: ArcSwapOption::empty(),
            plan,
        }
    }

    pub(crate) fn model(&self) -> &str {
        self.plan.key.model.as_str()
    }

    pub(crate) fn batch_limits(&self) -> BatchLimits {
        if self.concatenation_off.load(Relaxed) {
            return BatchLimits { max_rows: 1, max_delay: Duration::ZERO };
        }
        let max_delay = match self.plan.batching() {
            true => Duration::from_micros(self.plan.settings.max_queue_delay_micros),
            false => Duration::ZERO,
        };
        BatchLimits { max_rows: self.max_batch, max_delay }
    }

    /// Answers a request that `arrived` then. An error is counted here, an answer
    /// by its account.
    pub(crate) async fn infer(
        &self,
        request: ModelInferRequest,
        arrived: Instant,
        deadline: Option<Instant>,
    ) -> Result<Answer, InferError> {
        let mut in_flight = InFlight::enter(self, arrived);
        let outcome = self.check_and_run(request, arrived, deadline).await;
        in_flight.ended = true;
        match &outcome {
            Ok(_) => self.pulse.ages.succeed(Instant::now()),
            Err(error) => {
                self.statistics.failure(arrived.elapsed(), error);
                self.metrics.refused(error);
            }
        }
        outcome
    }

    async fn check_and_run(
        &self,
        request: ModelInferRequest,
        arrived: Instant,
        deadline: Option<Instant>,
    ) -> Result<Answer, InferError> {
        let terms = RequestTerms::read(self.model(), &self.plan.settings, &request.parameters)?;
        let checked = Arc::new(check::check(self.model(), &self.effective, request)?);
        let (check, kind) = (arrived.elapsed(), ArrivalKind::Asked);
        self.run(Arrival { request: checked, check, terms, deadline, kind }).await
    }

    /// Answers a copy of a request, for which nobody waits: only where no request
    /// does, and in no statistics. What the request says of its own urgency does
    /// not count.
    pub(crate) async fn infer_copy(
        &self,
        request: ModelInferRequest,
        deadline: Instant,
    ) -> Result<Answer, InferError> {
        let began = Instant::now();
        let terms = RequestTerms { class: COPY_CLASS, timeout: None };
        let checked = Arc::new(check::check(self.model(), &self.effective, request)?);
        let (check, kind) = (began.elapsed(), ArrivalKind::Copy);
        self.run(Arrival { request: checked, check, terms, deadline: Some(deadline), kind }).await
    }

    async fn run(&self, arrival: Arrival) -> Result<Answer, InferError> {
        match self.is_oversize(&arrival.request) {
            true => Box::pin(self.answer_oversize(arrival)).await,
            false => self.answer_whole(arrival).await,
        }
    }

    /// Of no more rows than a run may have.
    pub(crate) async fn answer_whole(&self, arrival: Arrival) -> Result<Answer, InferError> {
        match &self.lanes {
            Some(lanes) => lanes.answer(self, arrival).await,
            None => self.queue.answer(arrival).await,
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Whether more requests are here than those that run, or run next.
    pub(crate) fn requests_wait(&self) -> bool {
        if self.lanes.is_some() && self.in_flight() > self.plan.cores * REQUESTS_PER_CORE {
            return true;
        }
        let instances = self.plan.instances() * self.plan.devices().map_or(1, |devices| devices.len());
        self.in_flight() > instances && self.queue.asked_len() > instances * self.max_batch
    }

    /// Why it answers nothing any more, if so.
    pub(crate) fn failure(&self) -> Option<Arc<String>> {
        self.failure.load_full()
    }

    /// Gives the version up: what waits and what comes gets the reason.
    pub(crate) fn fail(&self, reason: &str) {
        self.failure.store(Some(Arc::new(reason.to_owned())));
        self.queue.fail(reason);
        if let Some(lanes) = &self.lanes {
            lanes.fail(reason);
        }
    }
}

/// Counts a request for as long as someone waits for its answer. Dropped before
/// it has ended, it counts as cancelled.
struct InFlight<'a> {
    version: &'a ServedVersion,
    arrived: Instant,
    stretch: Stretch,
    ended: bool,
}

impl<'a> InFlight<'a> {
    fn enter(version: &'a ServedVersion, arrived: Instant) -> Self {
        version.in_flight.fetch_add(1, Relaxed);
        version.metrics.in_flight.inc();
        Self { version, arrived, stretch: version.pulse.ages.enter(arrived), ended: false }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.version.in_flight.fetch_sub(1, Relaxed);
        self.version.metrics.in_flight.dec();
        self.version.pulse.ages.leave(self.stretch);
        if !self.ended {
            self.version.statistics.failure(self.arrived.elapsed(), &InferError::Cancelled);
        }
    }
}
