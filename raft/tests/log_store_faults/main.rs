//! What the log promises when the disk fails, lies, forgets or is damaged.
//! Where the disk's behaviour does not matter, both disks are tested alike.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod failing;
mod keeping;
mod opening;

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use openraft::alias::{EntryOf, LogIdOf};
use openraft::impls::leader_id_adv::LeaderId;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{Entry, EntryPayload, LogId, RaftLogReader};
use starling_raft::log_store::memory::MemoryDisk;
use starling_raft::log_store::{self, LogStore, LogStoreOptions, OpenError, OpenLog};
use starling_raft::raft_types::{EnvelopeBytes, TypeConfig};
use tempfile::TempDir;

type Flushed = tokio::sync::oneshot::Receiver<io::Result<()>>;

/// Long enough for a busy machine; nothing waits this long when it works.
const PATIENCE: Duration = Duration::from_secs(30);

/// A disk that can be opened again.
enum AnyDisk {
    Sled(TempDir),
    Memory(MemoryDisk),
}

impl AnyDisk {
    fn both() -> [Self; 2] {
        [Self::Sled(tempfile::tempdir().unwrap()), Self::Memory(MemoryDisk::default())]
    }

    fn open(&self, options: LogStoreOptions) -> Result<OpenLog, OpenError> {
        match self {
            Self::Sled(dir) => log_store::open(dir.path(), options),
            Self::Memory(disk) => disk.open_log(options),
        }
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn log_id(term: u64, index: u64) -> LogIdOf<TypeConfig> {
    LogId::new(LeaderId { term, node_id: 1 }, index)
}

fn entry(term: u64, index: u64, bytes: usize) -> EntryOf<TypeConfig> {
    let filled = Bytes::from(vec![index as u8; bytes]);
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(EnvelopeBytes(filled)) }
}

async fn append_async(store: &LogStore, entries: Vec<EntryOf<TypeConfig>>) -> io::Result<Flushed> {
    let (sender, flushed) = <TypeConfig as TypeConfigExt>::oneshot();
    store.clone().append(entries, IOFlushed::signal(sender)).await?;
    Ok(flushed)
}

async fn append(store: &LogStore, entries: Vec<EntryOf<TypeConfig>>) -> io::Result<()> {
    let flushed = append_async(store, entries).await?;
    tokio::time::timeout(PATIENCE, flushed).await.unwrap().unwrap()
}

async fn indices(store: &LogStore) -> Vec<u64> {
    let entries = store.clone().try_get_log_entries(..).await.unwrap();
    entries.iter().map(|entry| entry.log_id.index).collect()
}

fn no_cache() -> LogStoreOptions {
    LogStoreOptions { tail_cache_bytes: 0, ..LogStoreOptions::default() }
}

fn error_of(opened: Result<OpenLog, OpenError>) -> OpenError {
    match opened {
        Ok(_) => panic!("the log was opened"),
        Err(error) => error,
    }
}
