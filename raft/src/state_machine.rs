//! What committed entries do: decide, evolve, append to the history, answer,
//! publish. And snapshots of it, which never stop it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::{Stream, StreamExt};
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::watch;

use crate::codec;
use crate::consensus::AppliedState;
use crate::envelope::CommandEnvelope;
use crate::history::{History, HistoryRecord};
use crate::raft_types::{Answer, EnvelopeBytes, SnapshotFile, TypeConfig};
use crate::snapshots::{Snapshot, SnapshotDir};
use crate::state::{ClusterCommand, Command, LogIndex, LogTime, State};
use crate::wire::{Entry, LogId, SnapshotMeta, StoredMembership};

/// Entries applied before the new state is published and their proposers answered.
const ENTRIES_PER_BATCH_MAX: usize = 256;
/// Checkpoints whose digests are remembered.
const DIGESTS_KEPT: usize = 64;

/// SHA-256 of a state's canonical bytes.
pub type StateDigest = [u8; 32];

/// The one history of this node: appended to by the state machine, read by
/// whoever asks. Held for a write or an fsync at most.
pub type SharedHistory = Arc<Mutex<History>>;

/// What the rest of the node sees of the state machine. Cheap to clone.
#[derive(Clone)]
pub struct Applied {
    published: watch::Receiver<AppliedState>,
    seen: Arc<Seen>,
}

struct Seen {
    /// Log time of the last applied entry, and when this node applied it.
    clock: Mutex<(LogTime, Instant)>,
    digests: Mutex<BTreeMap<LogIndex, StateDigest>>,
    snapshots_installed: AtomicU64,
}

impl Applied {
    /// The newest state.
    pub fn state(&self) -> AppliedState {
        self.published.borrow().clone()
    }

    /// Changes of the state; intermediate ones may be skipped.
    pub fn watch(&self) -> watch::Receiver<AppliedState> {
        self.published.clone()
    }

    /// The log time that a leader stamps now: that of the last applied entry
    /// and what has passed since by the monotonic clock.
    pub fn log_time_now(&self) -> LogTime {
        let (log_time, applied_at) = *lock(&self.seen.clock);
        let passed = applied_at.elapsed().as_micros();
        log_time.plus_micros(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// The digest taken at the checkpoint at `index`, if this node took it and
    /// still remembers.
    pub fn digest_at(&self, index: LogIndex) -> Option<StateDigest> {
        lock(&self.seen.digests).get(&index).copied()
    }

    /// Snapshots that a leader sent and this process installed.
    pub fn snapshots_installed(&self) -> u64 {
        self.seen.snapshots_installed.load(Ordering::Relaxed)
    }
}

/// Openraft's state machine.
pub struct StateMachine {
    history: SharedHistory,
    snapshots: SnapshotDir,
    publish: watch::Sender<AppliedState>,
    seen: Arc<Seen>,
    state: State,
    last_applied: Option<LogId>,
    membership: StoredMembership,
}

impl StateMachine {
    /// Starts from the newest readable snapshot, or from nothing: Raft applies
    /// again what came after it. Blocks.
    pub fn open(snapshots: SnapshotDir, history: SharedHistory) -> io::Result<(Self, Applied)> {
        let (state, last_applied, membership) = match snapshots.load_newest()? {
            Some(snapshot) => (snapshot.state, snapshot.meta.last_log_id, snapshot.meta.last_membership),
            None => (State::default(), None, StoredMembership::default()),
        };
        let applied_state = AppliedState { index: index_of(last_applied), state: Arc::new(state.clone()) };
        let (publish, published) = watch::channel(applied_state);
        let seen = Arc::new(Seen {
            clock: Mutex::new((state.cluster.log_time, Instant::now())),
            digests: Mutex::default(),
            snapshots_installed: AtomicU64::new(0),
        });
        let applied = Applied { published, seen: seen.clone() };
        Ok((Self { history, snapshots, publish, seen, state, last_applied, membership }, applied))
    }

    async fn apply_batch(&mut self, batch: Vec<io::Result<EntryResponder<TypeConfig>>>) -> io::Result<()> {
        let mut records = Vec::new();
        let mut answers: Vec<(ApplyResponder<TypeConfig>, Answer)> = Vec::new();
        for item in batch {
            let (entry, responder) = item?;
            let answer = self.apply_entry(entry, &mut records).await?;
            answers.extend(responder.map(|responder| (responder, answer)));
        }
        lock(&self.history).append(&records)?;
        self.publish();
        for (responder, answer) in answers {
            responder.send(answer);
        }
        Ok(())
    }

    async fn apply_entry(&mut self, entry: Entry, records: &mut Vec<HistoryRecord>) -> io::Result<Answer> {
        let log_id = entry.log_id;
        let answer = match entry.payload {
            EntryPayload::Blank => Answer(None),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(log_id), membership);
                Answer(None)
            }
            EntryPayload::Normal(command) => self.apply_command(log_id, &command, records).await?,
        };
        self.last_applied = Some(log_id);
        Ok(answer)
    }

    async fn apply_command(
        &mut self,
        log_id: LogId,
        command: &EnvelopeBytes,
        records: &mut Vec<HistoryRecord>,
    ) -> io::Result<Answer> {
        // A command that this binary cannot read must stop the node: to skip it
        // would be to fold another state than the others.
        let envelope = CommandEnvelope::decode(&command.0).map_err(|error| {
            let reason = format!("entry {} of the log cannot be applied: {error}", log_id.index);
            io::Error::new(io::ErrorKind::InvalidData, reason)
        })?;
        let context = envelope.context(LogIndex::new(log_id.index));
        let (events, outcome) = self.state.apply(&context, &envelope.command);
        records.extend(events.into_iter().map(|event| HistoryRecord::new(&context, event)));
        let is_checkpoint = matches!(envelope.command, Command::Cluster(ClusterCommand::Checkpoint));
        let is_first_answer = outcome.as_ref().is_ok_and(|accepted| accepted.log_index == context.log_index);
        if is_checkpoint && is_first_answer {
            self.record_digest(context.log_index).await?;
        }
        Ok(Answer(Some(outcome)))
    }

    async fn record_digest(&self, index: LogIndex) -> io::Result<()> {
        let state = self.state.clone();
        let digest = tokio::task::spawn_blocking(move || codec::state_digest(&state)).await?;
        let mut digests = lock(&self.seen.digests);
        digests.insert(index, digest);
        while digests.len() > DIGESTS_KEPT {
            digests.pop_first();
        }
        Ok(())
    }

    fn publish(&self) {
        let index = index_of(self.last_applied);
        *lock(&self.seen.clock) = (self.state.cluster.log_time, Instant::now());
        self.publish.send_replace(AppliedState { index, state: Arc::new(self.state.clone()) });
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut batches = entries.ready_chunks(ENTRIES_PER_BATCH_MAX);
        while let Some(batch) = batches.next().await {
            self.apply_batch(batch).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            history: self.history.clone(),
            snapshots: self.snapshots.clone(),
            state: self.state.clone(),
            last_log_id: self.last_applied,
            membership: self.membership.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: SnapshotFile,
    ) -> io::Result<()> {
        let snapshots = self.snapshots.clone();
        let installed = tokio::task::spawn_blocking(move || snapshots.adopt(&snapshot)).await??;
        if installed.meta != *meta {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("snapshot says {} inside and {meta} outside", installed.meta),
            ));
        }
        self.state = installed.state;
        self.last_applied = installed.meta.last_log_id;
        self.membership = installed.meta.last_membership;
        self.seen.snapshots_installed.fetch_add(1, Ordering::Relaxed);
        tracing::info!(%meta, "installed a snapshot");
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotFile>>> {
        Ok(self.snapshots.current().map(|(meta, snapshot)| SnapshotOf::<TypeConfig, _> { meta, snapshot }))
    }
}

/// Writes one snapshot from a copy of the state, while the original goes on.
pub struct SnapshotBuilder {
    history: SharedHistory,
    snapshots: SnapshotDir,
    state: State,
    last_log_id: Option<LogId>,
    membership: StoredMembership,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, SnapshotFile>> {
        let history = self.history.clone();
        let snapshots = self.snapshots.clone();
        let meta = SnapshotMeta { last_log_id: self.last_log_id, last_membership: self.membership.clone() };
        let state = self.state.clone();
        let write = move || -> io::Result<(SnapshotMeta, SnapshotFile)> {
            // Raft purges the entries once the snapshot is reported: their events must be durable by then.
            let segments = {
                let mut history = lock(&history);
                history.seal()?;
                history.segments()
            };
            let snapshot = Snapshot { meta, state, segments };
            let file = snapshots.write(&snapshot)?;
            Ok((snapshot.meta, file))
        };
        let (meta, snapshot) = tokio::task::spawn_blocking(write).await??;
        tracing::info!(%meta, size_bytes = snapshot.size_bytes, "built a snapshot");
        Ok(SnapshotOf::<TypeConfig, _> { meta, snapshot })
    }
}

fn index_of(log_id: Option<LogId>) -> LogIndex {
    LogIndex::new(log_id.map_or(0, |log_id| log_id.index))
}

/// A panic while one of these was held leaves it whole: values are written at
/// once, and the history refuses what follows a failed write by itself.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use bytes::Bytes;
    use openraft::entry::RaftEntry;
    use starling_proto::peer;
    use uuid::Uuid;

    use super::*;
    use crate::history::HistoryOptions;
    use crate::state::{ClusterId, FeatureLevel, Principal, RequestId, WallTime};
    use crate::wire::log_id_from_wire;

    fn open(dir: &std::path::Path) -> (StateMachine, Applied) {
        let history = History::open(dir.join("history"), HistoryOptions::default()).unwrap();
        let snapshots = SnapshotDir::open(&dir.join("snapshots")).unwrap();
        StateMachine::open(snapshots, Arc::new(Mutex::new(history))).unwrap()
    }

    fn entry(index: u64, bytes: Bytes) -> io::Result<EntryResponder<TypeConfig>> {
        let log_id = log_id_from_wire(&peer::LogId { term: 1, node_id: 1000, index });
        Ok((Entry::new(log_id, EntryPayload::Normal(EnvelopeBytes(bytes))), None))
    }

    fn command(number: u128, command: ClusterCommand) -> Bytes {
        let envelope = CommandEnvelope {
            log_time: LogTime::from_micros(u64::try_from(number).unwrap()),
            wall_time: WallTime::from_unix_micros(1),
            principal: Principal::local(),
            request_id: RequestId::new(Uuid::from_u128(number)),
            feature_level: FeatureLevel::new(1),
            class: crate::state::EventClass::Audit,
            command: Command::Cluster(command),
        };
        envelope.encode()
    }

    fn founding_and_checkpoint() -> Vec<io::Result<EntryResponder<TypeConfig>>> {
        let cluster_id = ClusterId::new(Uuid::from_u128(7));
        vec![
            entry(1, command(1, ClusterCommand::Found { cluster_id })),
            entry(2, command(2, ClusterCommand::Checkpoint)),
        ]
    }

    #[tokio::test]
    async fn entries_applied_again_after_a_restart_leave_one_history_and_the_same_digest() {
        let dir = tempfile::tempdir().unwrap();
        let mut digests = Vec::new();
        for _ in 0..2 {
            let (mut machine, applied) = open(dir.path());
            machine.apply(futures::stream::iter(founding_and_checkpoint())).await.unwrap();
            assert_eq!(applied.state().index, LogIndex::new(2));
            digests.push(applied.digest_at(LogIndex::new(2)).unwrap());
            let events = lock(&machine.history).read(LogIndex::new(0), 100).unwrap();
            let kinds: Vec<&str> = events.iter().map(|record| record.event.kind()).collect();
            assert_eq!(kinds, ["ClusterFounded", "FeatureLevelRaised", "CheckpointTaken"]);
        }
        assert_eq!(digests[0], digests[1]);
    }

    #[tokio::test]
    async fn a_restart_goes_on_from_the_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let (mut machine, applied) = open(dir.path());
        machine.apply(futures::stream::iter(founding_and_checkpoint())).await.unwrap();
        machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        let (mut reopened, again) = open(dir.path());
        assert_eq!(again.state().state, applied.state().state);
        assert_eq!(reopened.applied_state().await.unwrap().0, machine.last_applied);
        assert_eq!(again.snapshots_installed(), 0);
    }

    #[tokio::test]
    async fn an_entry_that_cannot_be_read_stops_the_node_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (mut machine, applied) = open(dir.path());
        let unreadable = vec![entry(1, Bytes::from_static(b"written by a newer binary"))];
        let error = machine.apply(futures::stream::iter(unreadable)).await.unwrap_err();
        assert!(error.to_string().starts_with("entry 1 of the log cannot be applied"), "{error}");
        assert_eq!(applied.state().index, LogIndex::new(0));
    }

    #[tokio::test]
    async fn log_time_goes_on_by_the_monotonic_clock_from_the_last_entry() {
        let dir = tempfile::tempdir().unwrap();
        let (mut machine, applied) = open(dir.path());
        machine.apply(futures::stream::iter(founding_and_checkpoint())).await.unwrap();
        let first = applied.log_time_now();
        let later = applied.log_time_now();
        assert!(first >= LogTime::from_micros(2) && later >= first);
        assert!(first < LogTime::from_micros(60_000_000), "the wall clock has no part in it: {first:?}");
    }
}
