//! openraft's own conformance suite, on the log that ships and on the one in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io;

use futures::{Stream, StreamExt};
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, SnapshotMeta, StorageError, StoredMembership,
};
use starling_raft::log_store::memory::MemoryDisk;
use starling_raft::log_store::{self, LogStore, LogStoreOptions};
use starling_raft::raft_types::{Answer, TypeConfig};
use tempfile::TempDir;

/// A state machine that remembers where it stands and nothing else.
#[derive(Debug, Clone, Default)]
struct Position {
    applied: Option<LogIdOf<TypeConfig>>,
    membership: StoredMembershipOf<TypeConfig>,
    snapshot: Option<SnapshotMetaOf<TypeConfig>>,
}

impl Position {
    fn meta(&self) -> SnapshotMetaOf<TypeConfig> {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }
}

/// Takes the snapshot that the state machine keeps as its current one.
struct PositionBuilder {
    meta: SnapshotMetaOf<TypeConfig>,
}

impl RaftSnapshotBuilder<TypeConfig> for PositionBuilder {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, ()>, io::Error> {
        Ok(SnapshotOf::<TypeConfig, ()> { meta: self.meta.clone(), snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for Position {
    type SnapshotData = ();
    type SnapshotBuilder = PositionBuilder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<TypeConfig>>, StoredMembershipOf<TypeConfig>), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            self.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(Answer(None));
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> PositionBuilder {
        self.snapshot = Some(self.meta());
        PositionBuilder { meta: self.meta() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<TypeConfig>, _: ()) -> Result<(), io::Error> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<TypeConfig, ()>>, io::Error> {
        Ok(self.snapshot.clone().map(|meta| SnapshotOf::<TypeConfig, ()> { meta, snapshot: () }))
    }
}

/// A cache so small that nearly every read goes to the disk.
fn options() -> LogStoreOptions {
    LogStoreOptions { tail_cache_bytes: 300, ..LogStoreOptions::default() }
}

struct OnSled;

impl StoreBuilder<TypeConfig, LogStore, Position, TempDir> for OnSled {
    async fn build(&self) -> Result<(TempDir, LogStore, Position), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let opened = log_store::open(dir.path(), options()).unwrap();
        Ok((dir, opened.store, Position::default()))
    }
}

struct InMemory;

impl StoreBuilder<TypeConfig, LogStore, Position> for InMemory {
    async fn build(&self) -> Result<((), LogStore, Position), StorageError<TypeConfig>> {
        let opened = MemoryDisk::default().open_log(options()).unwrap();
        Ok(((), opened.store, Position::default()))
    }
}

#[test]
fn the_log_on_sled_passes_the_suite_of_openraft() {
    TypeConfig::run(Suite::test_all(OnSled)).unwrap();
}

#[test]
fn the_log_in_memory_passes_the_suite_of_openraft() {
    TypeConfig::run(Suite::test_all(InMemory)).unwrap();
}
