//! What this node answered as the entry node, per version and epoch: counted
//! once, on the request path, without contention.
//!
//! Threads count into shards; reading drains the shards into one ledger. The
//! ledger is bounded: of each model the newest [`EPOCHS_KEPT_MAX`] epochs stand
//! by themselves. Older ones of a rollout's present stage are folded into the
//! epoch that began it, so that its gates lose nothing; all others into one cell
//! per version.

use std::cell::Cell as ThreadCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starling_proto::peer::traffic_report::Cell as WireCell;
use starling_raft::state::Ordinal;

use super::latency_sketch::LatencySketch;
use super::routing_table::VersionId;

/// Epochs of one model that are told apart.
pub const EPOCHS_KEPT_MAX: usize = 8;
/// Epochs of one model that are told apart where the lives of a node are added up:
/// more than one life can have.
const EPOCHS_ADDED_UP_MAX: usize = 4 * EPOCHS_KEPT_MAX;
/// Cells of one ledger: a thousand rollouts, each with a few versions at a few
/// epochs. What would be more is counted as dropped.
pub const CELLS_MAX: usize = 16_384;
/// Stands for all epochs older than those that are told apart, and for requests
/// to a model without a route.
pub const OLDER_EPOCHS: u64 = 0;

const SHARDS: usize = 16;

/// By a model's id, the epoch that began the present stage of its rollout.
pub type StageStarts = HashMap<u64, u64>;

/// What is counted by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellKey {
    /// Which version answered.
    pub version: VersionId,
    /// By which epoch it was chosen.
    pub epoch: u64,
}

/// Counts of one version at one epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    /// All that were routed.
    pub requests: u64,
    /// Those that failed by no fault of the caller.
    pub errors: u64,
    /// Of those that succeeded.
    pub latency: LatencySketch,
}

/// What a ledger keeps per version and epoch: it must merge exactly, in any order.
pub trait Counts: Clone + Default {
    /// Cells of one ledger at most.
    const CELLS_MAX: usize;
    /// Adds all that another cell has counted.
    fn merge(&mut self, other: &Self);
    /// Requests that it stands for.
    fn requests(&self) -> u64;
}

/// Counts of one node, bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger<C = Cell> {
    cells: BTreeMap<CellKey, C>,
    dropped: u64,
}

impl<C> Default for Ledger<C> {
    fn default() -> Self {
        Self { cells: BTreeMap::new(), dropped: 0 }
    }
}

/// How a request ended, as far as traffic is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Answered after so long.
    Answered(Duration),
    /// Failed by no fault of the caller.
    Failed,
    /// The caller's fault, or the caller went away.
    CallersFault,
}

/// Counts on the request path.
#[derive(Debug)]
pub struct TrafficRecorder {
    shards: Vec<Mutex<HashMap<CellKey, Cell>>>,
    ledger: Mutex<Ledger>,
    dropped: AtomicU64,
}

impl Cell {
    fn count(&mut self, ending: Ending) {
        self.requests += 1;
        match ending {
            Ending::Answered(latency) => self.latency.record(latency),
            Ending::Failed => self.errors += 1,
            Ending::CallersFault => {}
        }
    }

    /// Adds all that another cell has counted.
    pub fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.latency.merge(&other.latency);
    }
}

impl Counts for Cell {
    const CELLS_MAX: usize = CELLS_MAX;

    fn merge(&mut self, other: &Self) {
        Self::merge(self, other);
    }

    fn requests(&self) -> u64 {
        self.requests
    }
}

impl<C: Counts> Ledger<C> {
    /// Adds cells, then folds what is too old.
    pub fn absorb(&mut self, cells: impl IntoIterator<Item = (CellKey, C)>) {
        for (key, cell) in cells {
            if self.cells.len() >= C::CELLS_MAX && !self.cells.contains_key(&key) {
                self.dropped = self.dropped.saturating_add(cell.requests());
                continue;
            }
            self.cells.entry(key).or_default().merge(&cell);
        }
        self.fold(EPOCHS_ADDED_UP_MAX, &StageStarts::new());
    }

    /// The cell to count in; `None`: there is no room for one more.
    pub fn cell(&mut self, key: CellKey) -> Option<&mut C> {
        if self.cells.len() >= C::CELLS_MAX && !self.cells.contains_key(&key) {
            self.dropped = self.dropped.saturating_add(1);
            return None;
        }
        Some(self.cells.entry(key).or_default())
    }

    /// Of each model the newest epochs stay by themselves, and so does what came
    /// before the present stage of its rollout.
    pub fn fold_old_epochs(&mut self, stages: &StageStarts) {
        self.fold(EPOCHS_KEPT_MAX, stages);
    }

    fn fold(&mut self, kept_max: usize, stages: &StageStarts) {
        let mut epochs: HashMap<u64, BTreeSet<u64>> = HashMap::new();
        for key in self.cells.keys().filter(|key| key.epoch != OLDER_EPOCHS) {
            epochs.entry(key.version.model_id).or_default().insert(key.epoch);
        }
        epochs.retain(|_, epochs| epochs.len() > kept_max);
        if epochs.is_empty() {
            return;
        }
        let mut into: Vec<(CellKey, u64)> = Vec::new();
        for key in self.cells.keys().filter(|key| key.epoch != OLDER_EPOCHS) {
            let Some(epochs) = epochs.get(&key.version.model_id) else { continue };
            let oldest_kept = epochs.iter().rev().nth(kept_max - 1).copied().unwrap_or(OLDER_EPOCHS);
            let stage = stages.get(&key.version.model_id).copied().filter(|stage| key.epoch >= *stage);
            let target = stage.unwrap_or(OLDER_EPOCHS);
            if key.epoch < oldest_kept && key.epoch != target {
                into.push((*key, target));
            }
        }
        for (key, epoch) in into {
            if let Some(cell) = self.cells.remove(&key) {
                self.cells.entry(CellKey { epoch, ..key }).or_default().merge(&cell);
            }
        }
    }

    /// Forgets models that are gone.
    pub fn retain_models(&mut self, exists: impl Fn(u64) -> bool) {
        self.cells.retain(|key, _| exists(key.version.model_id));
    }

    /// In order of version and epoch.
    pub fn cells(&self) -> impl Iterator<Item = (&CellKey, &C)> {
        self.cells.iter()
    }

    /// Requests that found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl Ledger<Cell> {
    /// For the wire.
    pub fn to_wire(&self) -> Vec<WireCell> {
        let to_wire = |(key, cell): (&CellKey, &Cell)| WireCell {
            model_id: key.version.model_id,
            ordinal: key.version.ordinal.get(),
            epoch: key.epoch,
            requests: cell.requests,
            errors: cell.errors,
            latency: Some(cell.latency.to_wire()),
        };
        self.cells.iter().map(to_wire).collect()
    }

    /// From the wire; what exceeds the bounds is folded or dropped.
    pub fn from_wire(cells: &[WireCell]) -> Self {
        let mut ledger = Self::default();
        ledger.absorb(cells.iter().map(|cell| {
            let version = VersionId { model_id: cell.model_id, ordinal: Ordinal::new(cell.ordinal) };
            let latency = cell.latency.as_ref().map(LatencySketch::from_wire).unwrap_or_default();
            let key = CellKey { version, epoch: cell.epoch };
            (key, Cell { requests: cell.requests, errors: cell.errors, latency })
        }));
        ledger
    }
}

impl Default for TrafficRecorder {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            ledger: Mutex::default(),
            dropped: AtomicU64::new(0),
        }
    }
}

impl TrafficRecorder {
    /// Counts one request. Called once per request, on the node that the client
    /// asked.
    pub fn record(&self, key: CellKey, ending: Ending) {
        let mut shard = lock(&self.shards[this_thread() % SHARDS]);
        if shard.len() >= CELLS_MAX && !shard.contains_key(&key) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        shard.entry(key).or_default().count(ending);
    }

    /// Everything since the start, without models that are gone.
    pub fn read(&self, exists: impl Fn(u64) -> bool) -> Ledger {
        self.read_by_stage(exists, &StageStarts::new())
    }

    /// The same, with what belongs to the present stages of rollouts kept apart
    /// from what came before them.
    pub fn read_by_stage(&self, exists: impl Fn(u64) -> bool, stages: &StageStarts) -> Ledger {
        let drained: Vec<_> = self.shards.iter().map(|shard| std::mem::take(&mut *lock(shard))).collect();
        let mut ledger = lock(&self.ledger);
        for cells in drained {
            ledger.absorb(cells);
        }
        ledger.fold_old_epochs(stages);
        ledger.dropped = ledger.dropped.saturating_add(self.dropped.swap(0, Ordering::Relaxed));
        ledger.retain_models(exists);
        ledger.clone()
    }
}

/// Counts stay usable when a thread that held the lock has panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A small number that is this thread's own, until there are many threads.
fn this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: ThreadCell<usize> = ThreadCell::new(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    NUMBER.with(ThreadCell::get)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::sync::Arc;

    use super::*;

    fn key(model_id: u64, ordinal: u64, epoch: u64) -> CellKey {
        CellKey { version: VersionId { model_id, ordinal: Ordinal::new(ordinal) }, epoch }
    }

    fn everything(_: u64) -> bool {
        true
    }

    #[test]
    fn requests_errors_and_latencies_are_counted_per_version_and_epoch() {
        let recorder = TrafficRecorder::default();
        recorder.record(key(1, 1, 5), Ending::Answered(Duration::from_micros(100)));
        recorder.record(key(1, 1, 5), Ending::Failed);
        recorder.record(key(1, 1, 5), Ending::CallersFault);
        recorder.record(key(1, 2, 5), Ending::Failed);
        let ledger = recorder.read(everything);
        let counts: Vec<_> = ledger
            .cells()
            .map(|(key, cell)| (key.version.ordinal.get(), cell.requests, cell.errors, cell.latency.count()))
            .collect();
        assert_eq!(counts, [(1, 3, 1, 1), (2, 1, 1, 0)]);
    }

    #[test]
    fn reading_twice_counts_once() {
        let recorder = TrafficRecorder::default();
        recorder.record(key(1, 1, 5), Ending::Failed);
        let first = recorder.read(everything);
        assert_eq!(recorder.read(everything), first);
        recorder.record(key(1, 1, 5), Ending::Failed);
        assert_eq!(recorder.read(everything).cells().next().unwrap().1.requests, 2);
    }

    #[test]
    fn many_threads_lose_nothing() {
        let recorder = Arc::new(TrafficRecorder::default());
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let recorder = Arc::clone(&recorder);
                std::thread::spawn(move || {
                    for _ in 0..1_000 {
                        recorder.record(key(1, 1, 5), Ending::Answered(Duration::from_micros(7)));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(recorder.read(everything).cells().next().unwrap().1.latency.count(), 8_000);
    }

    #[test]
    fn epochs_beyond_the_newest_are_folded_and_nothing_is_lost() {
        let recorder = TrafficRecorder::default();
        for epoch in 1..=20 {
            recorder.record(key(1, 1, epoch), Ending::Answered(Duration::from_micros(epoch)));
            recorder.read(everything);
        }
        let ledger = recorder.read(everything);
        let epochs: Vec<u64> = ledger.cells().map(|(key, _)| key.epoch).collect();
        assert_eq!(epochs, [0, 13, 14, 15, 16, 17, 18, 19, 20]);
        assert_eq!(ledger.cells().map(|(_, cell)| cell.requests).sum::<u64>(), 20);
    }

    #[test]
    fn what_belongs_to_the_present_stage_of_a_rollout_is_folded_into_its_first_epoch() {
        let recorder = TrafficRecorder::default();
        let stages = StageStarts::from([(1, 5)]);
        for epoch in 1..=20 {
            recorder.record(key(1, 1, epoch), Ending::Answered(Duration::from_micros(epoch)));
            recorder.read_by_stage(everything, &stages);
        }
        let ledger = Ledger::<Cell>::from_wire(&recorder.read_by_stage(everything, &stages).to_wire());
        let counts: Vec<_> = ledger.cells().map(|(key, cell)| (key.epoch, cell.requests)).collect();
        assert_eq!(counts[..3], [(0, 4), (5, 8), (13, 1)]);
        assert_eq!(counts.len(), 10);
    }

    #[test]
    fn folding_one_model_leaves_the_others_alone() {
        let mut ledger = Ledger::default();
        ledger.absorb((1..=20).map(|epoch| (key(1, 1, epoch), Cell::default())));
        ledger.absorb([(key(2, 1, 1), Cell::default())]);
        assert!(ledger.cells().any(|(cell, _)| *cell == key(2, 1, 1)));
    }

    #[test]
    fn a_full_ledger_counts_what_it_drops() {
        let mut ledger = Ledger::default();
        let cell = Cell { requests: 3, ..Cell::default() };
        ledger.absorb((0..CELLS_MAX as u64).map(|model_id| (key(model_id, 1, 1), cell.clone())));
        ledger.absorb([(key(CELLS_MAX as u64, 1, 1), cell.clone()), (key(0, 1, 1), cell)]);
        assert_eq!(ledger.cells().count(), CELLS_MAX);
        assert_eq!(ledger.dropped(), 3);
    }

    #[test]
    fn models_that_are_gone_are_forgotten() {
        let recorder = TrafficRecorder::default();
        recorder.record(key(1, 1, 5), Ending::Failed);
        recorder.record(key(2, 1, 5), Ending::Failed);
        assert_eq!(recorder.read(|model_id| model_id == 2).cells().count(), 1);
    }

    #[test]
    fn the_wire_changes_nothing() {
        let recorder = TrafficRecorder::default();
        recorder.record(key(1, 2, 5), Ending::Answered(Duration::from_millis(3)));
        recorder.record(key(1, 1, 5), Ending::Failed);
        let ledger = recorder.read(everything);
        assert_eq!(Ledger::<Cell>::from_wire(&ledger.to_wire()), ledger);
    }
}
