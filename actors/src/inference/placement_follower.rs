//! Brings what this node has loaded in line with what is placed on it, and
//! announces what it has. What to do is decided by [`placement_plan`]; here it
//! is done.
//!
//! [`placement_plan`]: super::placement_plan

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use starling_raft::artefacts::ArtefactStore;
use starling_raft::consensus::Consensus;
use starling_raft::peers::Peers;
use starling_raft::state::NodeId;
use starling_raft::state::models::VersionSettings;
use tokio::sync::Semaphore;
use tokio::task::{Id as TaskId, JoinError, JoinSet};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::bundle;
use super::local_versions::LocalVersions;
use super::placement_plan::{LoadOrder, LocalPhase, PlacementInput, PlacementPlan, plan};
use super::readiness::ReadinessBoard;
use super::readiness_view::{LoadFailure, NodeReadiness};
use super::routing_table::VersionId;
use super::{InferError, InferenceConfig, LoadedVersion, VersionHost, VersionKey};

/// Versions fetched and loaded at once.
const LOADS_AT_ONCE: usize = 2;
/// A version that others serve is kept for so long: peers that have not heard
/// yet may still send requests for it.
const RELEASE_GRACE: Duration = Duration::from_secs(3);
/// Requests that were given to a version just before it was taken out enter its
/// queue within this time.
const QUIESCE: Duration = Duration::from_millis(250);
/// Afterwards an unload is no longer waited for.
const UNLOAD_TIMEOUT: Duration = Duration::from_secs(120);
/// A runtime may refuse for want of memory: it must say so again before it is
/// believed.
const REFUSALS_BELIEVED: u32 = 3;
/// Versions whose instances could not be kept running are looked for so often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const RETRY_WAIT_MIN: Duration = Duration::from_secs(1);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);

/// What it works with.
#[derive(Clone)]
pub struct PlacementFollower {
    /// Whose placement.
    pub this_node: NodeId,
    /// Says what is placed.
    pub consensus: Consensus,
    /// Says who is alive.
    pub peers: Peers,
    /// Has the files.
    pub artefacts: ArtefactStore,
    /// Loads them.
    pub host: VersionHost,
    /// Is told what takes requests.
    pub local: Arc<LocalVersions>,
    /// Is told what is loaded and what failed.
    pub board: Arc<ReadinessBoard>,
    /// Defaults and limits.
    pub config: InferenceConfig,
}

enum Phase {
    Loading,
    Loaded { max_batch: u32, release_at: Option<Instant> },
    Unloading,
    Failed { failure: LoadFailure, retry_at: Instant },
}

struct Entry {
    key: VersionKey,
    phase: Phase,
    backoff: Backoff,
    refusals: u32,
}

enum Done {
    Load(Result<Arc<LoadedVersion>, LoadFailure>),
    Unload,
}

/// What is going on, by version.
struct Work {
    loads: Arc<Semaphore>,
    entries: BTreeMap<VersionId, Entry>,
    tasks: JoinSet<Done>,
    task_versions: HashMap<TaskId, VersionId>,
}

impl Work {
    fn new() -> Self {
        Self {
            loads: Arc::new(Semaphore::new(LOADS_AT_ONCE)),
            entries: BTreeMap::new(),
            tasks: JoinSet::new(),
            task_versions: HashMap::new(),
        }
    }

    fn spawn(&mut self, id: VersionId, task: impl Future<Output = Done> + Send + 'static) {
        let handle = self.tasks.spawn(task);
        self.task_versions.insert(handle.id(), id);
    }

    fn phases(&self, now: Instant) -> BTreeMap<VersionId, (VersionKey, LocalPhase)> {
        let phase_of = |entry: &Entry| match &entry.phase {
            Phase::Loading => LocalPhase::Loading,
            Phase::Loaded { .. } => LocalPhase::Loaded,
            Phase::Unloading => LocalPhase::Unloading,
            Phase::Failed { retry_at, .. } => LocalPhase::Failed { retry_due: *retry_at <= now },
        };
        self.entries.iter().map(|(id, entry)| (*id, (entry.key.clone(), phase_of(entry)))).collect()
    }

    /// What is loaded and does not do what it is there for is a failure to others.
    fn readiness(&self, local: &LocalVersions) -> NodeReadiness {
        let mut readiness = NodeReadiness::default();
        for (id, entry) in &self.entries {
            match &entry.phase {
                Phase::Loaded { max_batch, .. } => match local.get(*id).and_then(|version| version.ailment())
                {
                    None => {
                        readiness.loaded.insert(*id, *max_batch);
                    }
                    Some(reason) => {
                        readiness.failed.insert(*id, LoadFailure { reason, refused: false });
                    }
                },
                Phase::Failed { failure, .. } => {
                    readiness.failed.insert(*id, failure.clone());
                }
                Phase::Loading | Phase::Unloading => {}
            }
        }
        readiness
    }

    /// When something is to be done although nothing has happened.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        let due = self.entries.values().filter_map(|entry| match &entry.phase {
            Phase::Loaded { release_at, .. } => *release_at,
            Phase::Failed { retry_at, .. } => Some(*retry_at),
            Phase::Loading | Phase::Unloading => None,
        });
        due.filter(|at| *at > now).min()
    }
}

impl PlacementFollower {
    /// Follows without end. Dropping it abandons loads; what is loaded stays.
    pub async fn run(self) {
        let mut applied = self.consensus.watch_applied();
        let mut live = self.peers.live();
        let mut view = self.board.watch_view();
        let mut health = self.local.watch_health();
        let mut work = Work::new();
        loop {
            let now = Instant::now();
            self.notice_broken(&mut work, now);
            let state = Arc::clone(&applied.borrow_and_update().state);
            let alive: BTreeSet<NodeId> = live.borrow_and_update().keys().copied().collect();
            let known = Arc::clone(&view.borrow_and_update());
            let plan = plan(&PlacementInput {
                this_node: self.this_node,
                state: &state,
                live: &alive,
                local: &work.phases(now),
                view: &known,
            });
            self.carry_out(&mut work, plan, now);
            self.board.announce(work.readiness(&self.local));
            let next_due = work.next_due(now).unwrap_or(now + LOOK_AGAIN).min(now + LOOK_AGAIN);
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { return },
                changed = live.changed() => if changed.is_err() { return },
                changed = view.changed() => if changed.is_err() { return },
                changed = health.changed() => if changed.is_err() { return },
                Some(finished) = work.tasks.join_next_with_id() => self.note(&mut work, finished),
                () = tokio::time::sleep_until(next_due) => {}
            }
        }
    }

    fn carry_out(&self, work: &mut Work, plan: PlacementPlan, now: Instant) {
        for id in &plan.forget {
            work.entries.remove(id);
        }
        for order in plan.load {
            self.begin_load(work, order);
        }
        for id in plan.withdraw {
            self.begin_unload(work, id);
        }
        let mut due = Vec::new();
        for (id, entry) in &mut work.entries {
            let Phase::Loaded { release_at, .. } = &mut entry.phase else { continue };
            if !plan.release.contains(id) {
                *release_at = None;
                continue;
            }
            if *release_at.get_or_insert(now + RELEASE_GRACE) <= now {
                due.push(*id);
            }
        }
        for id in due {
            self.begin_unload(work, id);
        }
    }

    /// A version that cannot be kept running answers nothing any more: it is
    /// loaded afresh, later and later.
    fn notice_broken(&self, work: &mut Work, now: Instant) {
        for (id, entry) in &mut work.entries {
            if !matches!(entry.phase, Phase::Loaded { .. }) {
                continue;
            }
            let Some(reason) = self.local.get(*id).and_then(|version| version.failure()) else { continue };
            tracing::error!(model = %entry.key.model, ordinal = %entry.key.ordinal, %reason, "version broke down");
            self.local.remove(*id);
            let retry_at = now + entry.backoff.next_wait();
            entry.phase = Phase::Failed { failure: LoadFailure { reason, refused: false }, retry_at };
        }
    }

    fn begin_load(&self, work: &mut Work, order: LoadOrder) {
        let (backoff, refusals) = match work.entries.remove(&order.id) {
            Some(failed) => (failed.backoff, failed.refusals),
            None => (Backoff::new(RETRY_WAIT_MIN, RETRY_WAIT_MAX), 0),
        };
        tracing::info!(model = %order.key.model, version = %order.version.label, "loading version");
        let entry = Entry { key: order.key.clone(), phase: Phase::Loading, backoff, refusals };
        work.entries.insert(order.id, entry);
        let artefacts = self.artefacts.clone();
        let host = self.host.clone();
        let timeout = self.config.load_timeout;
        let settings = with_node_defaults(order.version.settings, &self.config);
        let loads = Arc::clone(&work.loads);
        work.spawn(order.id, async move {
            let _permit = loads.acquire_owned().await;
            Done::Load(load(artefacts, host, order, settings, timeout).await)
        });
    }

    fn begin_unload(&self, work: &mut Work, id: VersionId) {
        let Some(entry) = work.entries.get_mut(&id) else { return };
        entry.phase = Phase::Unloading;
        tracing::info!(model = %entry.key.model, ordinal = %entry.key.ordinal, "unloading version");
        self.local.remove(id);
        let host = self.host.clone();
        let key = entry.key.clone();
        work.spawn(id, async move {
            tokio::time::sleep(QUIESCE).await;
            if tokio::time::timeout(UNLOAD_TIMEOUT, host.unload(&key)).await.is_err() {
                tracing::warn!(model = %key.model, ordinal = %key.ordinal, "version is still busy; its memory is freed later");
            }
            Done::Unload
        });
    }

    fn note(&self, work: &mut Work, finished: Result<(TaskId, Done), JoinError>) {
        let (task_id, done) = match finished {
            Ok(finished) => finished,
            Err(panicked) => {
                let failure = LoadFailure { reason: format!("loading panicked: {panicked}"), refused: false };
                (panicked.id(), Done::Load(Err(failure)))
            }
        };
        let Some(id) = work.task_versions.remove(&task_id) else { return };
        let Some(entry) = work.entries.get_mut(&id) else { return };
        match done {
            Done::Load(Ok(version)) => {
                tracing::info!(model = %entry.key.model, ordinal = %entry.key.ordinal, "version is loaded");
                self.local.insert(id, &version);
                let max_batch = u32::try_from(version.max_batch()).unwrap_or(u32::MAX);
                entry.phase = Phase::Loaded { max_batch, release_at: None };
                entry.refusals = 0;
            }
            Done::Load(Err(mut failure)) => {
                entry.refusals += u32::from(failure.refused);
                failure.refused &= entry.refusals >= REFUSALS_BELIEVED;
                let wait = entry.backoff.next_wait();
                tracing::warn!(
                    model = %entry.key.model, ordinal = %entry.key.ordinal, reason = %failure.reason,
                    retry_in = ?wait, "version could not be loaded"
                );
                entry.phase = Phase::Failed { failure, retry_at: Instant::now() + wait };
            }
            Done::Unload => {
                work.entries.remove(&id);
            }
        }
    }
}

async fn load(
    artefacts: ArtefactStore,
    host: VersionHost,
    order: LoadOrder,
    settings: VersionSettings,
    timeout: Duration,
) -> Result<Arc<LoadedVersion>, LoadFailure> {
    let version = &order.version;
    let again = |reason: String| LoadFailure { reason, refused: false };
    let file = artefacts
        .ensure_local(version.digest, version.size_bytes, timeout)
        .await
        .map_err(|error| again(error.to_string()))?;
    let digest = version.digest;
    let path = tokio::task::spawn_blocking(move || bundle::settle(&artefacts, digest, file))
        .await
        .map_err(|error| again(format!("unpacking panicked: {error}")))?
        .map_err(|error| again(error.to_string()))?;
    let signature = Arc::new(version.signature.clone());
    match tokio::time::timeout(timeout, host.load(order.key, path, signature, settings)).await {
        // Ready means that an inference through the queue has worked.
        Ok(Ok(loaded)) => match loaded.probe().await {
            Ok(()) => Ok(loaded),
            Err(reason) => {
                loaded.fail(&reason);
                Err(again(format!("it was loaded, but a probe through its queue failed: {reason}")))
            }
        },
        Ok(Err(error)) => {
            let refused = !matches!(error, InferError::Unavailable(_) | InferError::Cancelled);
            Err(LoadFailure { reason: error.to_string(), refused })
        }
        Err(_) => Err(again(format!("it was not loaded within {timeout:?} (config key `load_timeout`)"))),
    }
}

/// Zeroes in a version's settings stand for this node's defaults.
fn with_node_defaults(settings: VersionSettings, config: &InferenceConfig) -> VersionSettings {
    let max_run_time_millis = match settings.max_run_time_millis {
        0 => u64::try_from(config.max_run_time.as_millis()).unwrap_or(u64::MAX),
        set => set,
    };
    VersionSettings { max_run_time_millis, ..settings }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::decision_records::RecordLimits;
    use crate::inference::load_gate::QueueTime;
    use crate::inference::shadowing::ShadowLimits;

    #[test]
    fn a_version_that_says_nothing_gets_the_defaults_of_the_node() {
        let config = InferenceConfig {
            max_queue: 512,
            max_queue_time: QueueTime::Adaptive,
            max_run_time: Duration::from_secs(30),
            min_epoch_wait_max: Duration::from_secs(5),
            traffic_report_interval: Duration::from_secs(1),
            load_timeout: Duration::from_secs(60),
            data_plane_cores: 0,
            decision_records: RecordLimits::default(),
            health_probe_interval: Duration::from_secs(5),
            max_request_bytes_in_flight: 1 << 30,
            shadow: ShadowLimits::default(),
        };
        let filled = with_node_defaults(VersionSettings::default(), &config);
        assert_eq!(filled.max_run_time_millis, 30_000);
        let own = VersionSettings { max_queue: 7, max_run_time_millis: 9, ..VersionSettings::default() };
        assert_eq!(with_node_defaults(own, &config), own);
    }
}
