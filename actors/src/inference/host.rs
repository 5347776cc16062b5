//! The versions that are loaded on this node, each with its bounded queue, its
//! batcher and its supervised instances.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ractor::{Actor, ActorRef};
use starling_proto::inference::{ModelInferRequest, ModelInferResponse, ModelStatistics};
use starling_raft::state::models::VersionSettings;
use starling_raft::state::{ModelName, Ordinal, Signature};

use super::account::Account;
use super::metrics::InferenceMetrics;
use super::queue::QueueDefaults;
use super::run_statistics::Failures;
use super::served_version::ServedVersion;
use super::supervisor::{
    InferenceSupervisor, LoadRequest, SupervisorArguments, SupervisorMessage, VersionTable,
};
use super::version_actor::VersionMessage;
use super::{InferError, OnnxRuntime};

/// Loading reads a file, maps it and runs it a few times; beyond this it hangs.
const LOAD_TIME_MAX: Duration = Duration::from_secs(600);
/// Unloading waits for the longest queue of the slowest runs.
const UNLOAD_TIME_MAX: Duration = Duration::from_secs(600);
/// Between one actor and another of this process.
const ACTOR_ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Which version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionKey {
    /// Of which model.
    pub model: ModelName,
    /// Which of its versions.
    pub ordinal: Ordinal,
}

/// What came out, and what it took.
#[derive(Debug)]
pub struct Answer {
    /// `model_name`, `id`, `outputs` and contents are set; parameters are not.
    pub response: ModelInferResponse,
    /// From the queue's entry to its exit.
    pub queue: Duration,
    /// Checking, decoding and concatenating.
    pub compute_input: Duration,
    /// The run.
    pub compute_infer: Duration,
    /// Splitting and encoding.
    pub compute_output: Duration,
    /// Rows of the run that this request was part of.
    pub batch_rows: usize,
    pub(crate) request_rows: usize,
    /// Until when the four durations reach.
    pub(crate) answered_at: Instant,
}

/// A loaded, warmed version. Requests that it has accepted are answered even
/// while it is being unloaded.
pub struct LoadedVersion {
    /// Which.
    pub key: VersionKey,
    /// What it takes and gives.
    pub signature: Arc<Signature>,
    version: Arc<ServedVersion>,
    actor: ActorRef<VersionMessage>,
}

impl LoadedVersion {
    pub(crate) fn new(version: Arc<ServedVersion>, actor: ActorRef<VersionMessage>) -> Self {
        let key = version.plan.key.clone();
        let signature = Arc::clone(&version.plan.signature);
        Self { key, signature, version, actor }
    }

    /// Checks the request against the signature, waits its turn in the bounded
    /// queue, runs it (with others, where they can be concatenated), answers.
    ///
    /// Errors: `InvalidArgument` and `Unimplemented` name the tensor; `Overloaded`
    /// comes at once, or when a more urgent request takes the place of this one;
    /// `DeadlineExceeded` means that the request was not run, while
    /// one that is running when its deadline passes is answered when its run ends;
    /// `Unavailable` if the version is being unloaded or cannot be kept running;
    /// `Internal` if the run failed or was ended at `max_run_time`.
    ///
    /// Dropping the future takes the request out of the queue. A deadline needs a
    /// tokio runtime with time enabled.
    pub async fn infer(
        &self,
        request: ModelInferRequest,
        deadline: Option<Instant>,
    ) -> Result<Answer, InferError> {
        let (answer, account) = self.infer_on_account(request, Instant::now(), deadline).await?;
        drop(account);
        Ok(answer)
    }

    /// As [`LoadedVersion::infer`]; the request `arrived` a while ago, and is
    /// counted only when the account is dropped: everything between belongs to it.
    pub(crate) async fn infer_on_account(
        &self,
        request: ModelInferRequest,
        arrived: Instant,
        deadline: Option<Instant>,
    ) -> Result<(Answer, Account), InferError> {
        let answer = self.version.infer(request, arrived, deadline).await?;
        let account = Account::open(Arc::clone(&self.version), &answer);
        Ok((answer, account))
    }

    /// Answers a copy of a request for a shadow. Errors: as [`LoadedVersion::infer`];
    /// `Overloaded` also where a request waits. Called on the thread of the copier,
    /// a version that runs on the cores runs on that thread instead.
    pub(crate) async fn infer_copy(
        &self,
        request: ModelInferRequest,
        deadline: Instant,
    ) -> Result<ModelInferResponse, InferError> {
        Ok(self.version.infer_copy(request, deadline).await?.response)
    }

    /// Whether requests wait here, beside those that run and run next.
    pub(crate) fn requests_wait(&self) -> bool {
        self.version.requests_wait()
    }

    /// Dedicated instances on each device.
    pub fn instances(&self) -> usize {
        self.version.plan.instances()
    }

    /// Requests queued or running.
    pub fn in_flight(&self) -> usize {
        self.version.in_flight()
    }

    /// Cumulative counts and nanoseconds, in Triton's shape. Name and version
    /// are set.
    pub fn statistics(&self) -> ModelStatistics {
        self.version.statistics.read(self.key.model.as_str(), self.key.ordinal.get())
    }

    /// Requests that were not answered, by why.
    pub fn failures(&self) -> Failures {
        self.version.statistics.failures()
    }

    /// The batch size that it runs at most, in rows; 1: requests run one by one.
    pub fn max_batch(&self) -> usize {
        self.version.max_batch
    }

    /// Why it answers nothing any more: its instances could not be kept running.
    /// Loading it again starts afresh.
    pub fn failure(&self) -> Option<String> {
        self.version.failure().map(|reason| reason.to_string())
    }

    /// An inference through its queue, as a request would have it. Errors say why
    /// it did not work. Takes no longer than a request may.
    pub(crate) async fn probe(&self) -> Result<(), String> {
        self.version.pulse.probe(&self.version.queue).await
    }

    /// No request is in flight here for longer.
    pub(crate) fn patience(&self) -> Duration {
        self.version.pulse.patience(&self.version.queue)
    }

    /// When it answered last, and how long its oldest request has been in flight.
    pub(crate) fn liveness(&self, now: Instant) -> (Option<Instant>, Option<Duration>) {
        let ages = &self.version.pulse.ages;
        (ages.last_success(), ages.oldest(now))
    }

    /// Whether a real inference has just worked, as far as is known. Wait-free.
    pub fn is_well(&self) -> bool {
        self.version.pulse.is_well() && self.version.failure().is_none()
    }

    /// Why it does not do what it is there for, if so.
    pub fn ailment(&self) -> Option<String> {
        self.failure().or_else(|| self.version.pulse.ailment().map(|reason| reason.to_string()))
    }

    /// Notes why it does not do what it is there for. True: that is news.
    pub(crate) fn set_ailment(&self, ailment: Option<String>) -> bool {
        let is_well = ailment.is_none();
        let changed = self.version.pulse.set_ailment(ailment.clone());
        self.version.metrics.healthy.set(i64::from(is_well));
        let (model, version) = (&self.key.model, &self.key.ordinal);
        match ailment {
            _ if !changed => {}
            Some(reason) => {
                tracing::warn!(%model, %version, reason, "a version does not work here; it is left out")
            }
            None => tracing::info!(%model, %version, "a version works again"),
        }
        changed
    }

    /// Kills one of its instances as a fault would, for tests and drills; another
    /// takes its place. False: none is running.
    pub async fn kill_instance(&self) -> bool {
        let killed = self.actor.call(VersionMessage::KillInstance, Some(ACTOR_ANSWER_TIME_MAX)).await;
        matches!(killed, Ok(ractor::rpc::CallResult::Success(true)))
    }

    pub(crate) fn actor(&self) -> &ActorRef<VersionMessage> {
        &self.actor
    }

    pub(crate) fn fail(&self, reason: &str) {
        self.version.fail(reason);
    }
}

/// All loaded versions of this node. Cheap to clone.
#[derive(Clone)]
pub struct VersionHost {
    table: Arc<VersionTable>,
    supervisor: ActorRef<SupervisorMessage>,
}

impl VersionHost {
    /// Starts the supervision tree on the tokio runtime of the caller, with the
    /// usual bounds for queues. Every version is dedicated.
    pub async fn start(runtime: OnnxRuntime, registry: &prometheus::Registry) -> Result<Self, InferError> {
        Self::start_with(runtime, registry, QueueDefaults::default(), 0).await
    }

    /// The same, with these bounds for the queues of versions that do not say, and
    /// for a data plane of so many `cores`: small fast versions get a session on
    /// each. Its threads say which core they are by [`super::local::core::enter`].
    pub async fn start_with(
        runtime: OnnxRuntime,
        registry: &prometheus::Registry,
        queue_defaults: QueueDefaults,
        cores: usize,
    ) -> Result<Self, InferError> {
        let metrics = InferenceMetrics::register(registry).map_err(|error| {
            InferError::Internal(format!("the metrics of inference cannot be registered: {error}"))
        })?;
        let table = Arc::new(ArcSwap::from_pointee(HashMap::new()));
        let arguments =
            SupervisorArguments { runtime, metrics, queue_defaults, table: Arc::clone(&table), cores };
        let (supervisor, _) = Actor::spawn(None, InferenceSupervisor, arguments)
            .await
            .map_err(|error| InferError::Internal(format!("inference cannot start: {error}")))?;
        Ok(Self { table, supervisor })
    }

    /// Loads and warms a version; returns once it answers. Loading what is
    /// loaded returns it; loading what has failed tries again. The file must stay
    /// where it is for as long as the version is loaded: an instance that is
    /// replaced reads it again. Dropping the future does not stop the load.
    pub async fn load(
        &self,
        key: VersionKey,
        file: PathBuf,
        signature: Arc<Signature>,
        settings: VersionSettings,
    ) -> Result<Arc<LoadedVersion>, InferError> {
        let request = LoadRequest { key: key.clone(), file, signature, settings };
        let message = |reply| SupervisorMessage::Load { request, reply };
        match self.supervisor.call(message, Some(LOAD_TIME_MAX)).await {
            Ok(ractor::rpc::CallResult::Success(result)) => result,
            Ok(ractor::rpc::CallResult::Timeout) => Err(InferError::Internal(format!(
                "version {} of model '{}' was not loaded within {LOAD_TIME_MAX:?}",
                key.ordinal, key.model
            ))),
            _ => Err(InferError::Unavailable("inference is shut down on this node".to_owned())),
        }
    }

    /// Takes a version out of service; its sessions are freed once what it has
    /// accepted is answered. Returns when they are, or after ten minutes.
    pub async fn unload(&self, key: &VersionKey) {
        let message = |reply| SupervisorMessage::Unload { key: key.clone(), reply };
        // No answer means that its actor is gone, and the version with it.
        let _ = self.supervisor.call(message, Some(UNLOAD_TIME_MAX)).await;
    }

    /// One loaded version. Wait-free.
    pub fn get(&self, key: &VersionKey) -> Option<Arc<LoadedVersion>> {
        self.table.load().get(key).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<LoadedVersion>> {
        self.table.load().values().cloned().collect()
    }

    /// Answers what is accepted, then frees everything. What is not answered
    /// within `timeout` gets `Unavailable`. Nothing can be loaded afterwards.
    pub async fn shutdown(&self, timeout: Duration) {
        let versions = self.all();
        let unloads = versions.iter().map(|version| self.unload(&version.key));
        if tokio::time::timeout(timeout, futures::future::join_all(unloads)).await.is_err() {
            for version in &versions {
                version.fail("this node is shutting down");
            }
        }
        self.supervisor.stop(None);
    }
}

#[cfg(test)]
mod tests;
