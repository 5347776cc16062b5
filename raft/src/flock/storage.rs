//! Everything in the data directory, opened in the order in which each part
//! needs the one before.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::task::spawn_blocking;

use super::data_dir::{self, DataDirLock};
use super::{FlockConfig, StartError};
use crate::artefacts::ArtefactStore;
use crate::history::{History, HistoryOptions};
use crate::identity::IdentityStore;
use crate::log_store::{self, LogStoreOptions, OpenError, OpenLog};
use crate::snapshots::SnapshotDir;
use crate::state_machine::{Applied, SharedHistory, StateMachine};

/// What a node finds, or makes, on its disk.
pub(super) struct Storage {
    pub(super) data_dir: DataDirLock,
    pub(super) identity: IdentityStore,
    pub(super) log: OpenLog,
    pub(super) history: SharedHistory,
    pub(super) snapshots: SnapshotDir,
    pub(super) state_machine: StateMachine,
    pub(super) applied: Applied,
    pub(super) artefacts: ArtefactStore,
}

impl Storage {
    /// Locks and opens all of it, off the runtime's threads.
    pub(super) async fn open(config: &FlockConfig, log: LogStoreOptions) -> Result<Self, StartError> {
        let (dir, max_artefact_bytes) = (config.data_dir.clone(), config.max_artefact_bytes);
        let opened = spawn_blocking(move || Self::open_now(&dir, log, max_artefact_bytes)).await;
        opened.map_err(|panic| StartError::Other(panic.to_string()))?
    }

    fn open_now(dir: &Path, log: LogStoreOptions, max_artefact_bytes: u64) -> Result<Self, StartError> {
        let data_dir = data_dir::lock(dir)?;
        let identity = IdentityStore::open(dir)?;
        let log = log_store::open(&dir.join("log"), log).map_err(|error| log_unusable(dir, error))?;
        let history = History::open(dir.join("history"), HistoryOptions::default())
            .map_err(|error| unusable(dir, error))?;
        let history = Arc::new(Mutex::new(history));
        let snapshots = SnapshotDir::open(&dir.join("snapshots")).map_err(|error| unusable(dir, error))?;
        let (state_machine, applied) =
            StateMachine::open(snapshots.clone(), history.clone()).map_err(|error| unusable(dir, error))?;
        let artefacts = ArtefactStore::open(dir, max_artefact_bytes)
            .map_err(|error| StartError::DataDir { path: dir.to_owned(), reason: error.to_string() })?;
        Ok(Self { data_dir, identity, log, history, snapshots, state_machine, applied, artefacts })
    }
}

fn unusable(dir: &Path, error: io::Error) -> StartError {
    StartError::DataDir { path: dir.to_owned(), reason: error.to_string() }
}

fn log_unusable(dir: &Path, error: OpenError) -> StartError {
    if error.fences_the_node() {
        return StartError::Fenced(error.to_string());
    }
    match error {
        OpenError::InUse { .. } => StartError::DataDirLocked { path: dir.to_owned() },
        other => StartError::DataDir { path: dir.to_owned(), reason: other.to_string() },
    }
}
