//! Content-addressed files: `data/artefacts/sha256/ab/cdef…`, written aside,
//! fsynced, renamed; copied between peers in chunks and verified before use.

#[cfg(test)]
mod copies_tests;
mod replicate;
mod shelf;
mod transfer;
mod unpacked;
mod upload;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use starling_proto::peer::artefacts_server::ArtefactsServer;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};

use self::shelf::Shelf;
use self::transfer::Wanted;
pub use self::unpacked::ScratchFolder;
pub use self::upload::Upload;
use crate::artefact_service::ArtefactService;
use crate::peers::{PeerChannel, PeerUnavailable};
use crate::state::{ArtefactDigest, NodeId, State};

/// More wait for their turn.
const TRANSFERS_AT_ONCE: usize = 4;
/// After a transfer that failed before its caller's time was over.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// Why an artefact is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum ArtefactError {
    /// The disk said no.
    #[error("artefact store at {path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        source: io::Error,
    },
    /// The bytes are not what they were said to be.
    #[error("artefact has SHA-256 {found} instead of {expected}; send it again")]
    DigestMismatch {
        /// What was announced.
        expected: ArtefactDigest,
        /// What came.
        found: ArtefactDigest,
    },
    /// More bytes than allowed.
    #[error("artefact is larger than {limit_bytes} bytes (config key `max_artefact_bytes`)")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// Nobody who answers has it.
    #[error("artefact {digest} could not be fetched from any peer: {reason}")]
    NotFetched {
        /// Which.
        digest: ArtefactDigest,
        /// What each peer said.
        reason: String,
    },
    /// Too few voters hold the bytes.
    #[error("artefact {digest} is held by {holders} of {voters} voters, a majority is needed: {reason}")]
    NoMajority {
        /// Which.
        digest: ArtefactDigest,
        /// How many hold it.
        holders: usize,
        /// How many vote.
        voters: usize,
        /// What the others said.
        reason: String,
    },
}

/// What the store asks of the flock.
pub trait Flockmates: Send + Sync + 'static {
    /// This node.
    fn this_node(&self) -> NodeId;
    /// Who votes now.
    fn voters(&self) -> Vec<NodeId>;
    /// Who is believed alive; with or without this node.
    fn live(&self) -> Vec<NodeId>;
    /// A channel to one of them.
    fn channel(&self, node_id: NodeId) -> Result<PeerChannel, PeerUnavailable>;
}

/// The store. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct ArtefactStore {
    shared: Arc<Shared>,
}

struct Shared {
    shelf: Arc<Shelf>,
    limit_bytes: u64,
    flockmates: OnceLock<Arc<dyn Flockmates>>,
    /// Transfers under way, by what they fetch; `Some` once they have ended.
    transfers: Mutex<HashMap<ArtefactDigest, watch::Receiver<TransferEnd>>>,
    slots: Semaphore,
}

type TransferEnd = Option<Result<(), String>>;

impl ArtefactStore {
    /// Opens the store in `data_dir`, making its folders if need be; removes
    /// what an interrupted upload or transfer left. Blocks, for short.
    pub fn open(data_dir: &Path, max_artefact_bytes: u64) -> Result<Self, ArtefactError> {
        let root = data_dir.join("artefacts");
        let open = || {
            std::fs::create_dir_all(&root)?;
            Shelf::open(&root)
        };
        let shelf = open().map_err(|error| io_error(&root, error))?;
        Ok(Self {
            shared: Arc::new(Shared {
                shelf: Arc::new(shelf),
                limit_bytes: max_artefact_bytes,
                flockmates: OnceLock::new(),
                transfers: Mutex::default(),
                slots: Semaphore::new(TRANSFERS_AT_ONCE),
            }),
        })
    }

    /// Tells the store whom it can copy from and to. Before that it knows only
    /// what is on this disk. Call it once.
    pub fn connect(&self, flockmates: Arc<dyn Flockmates>) {
        if self.shared.flockmates.set(flockmates).is_err() {
            tracing::error!("the artefact store was connected twice; the first connection stands");
        }
    }

    /// To be served on the peer port.
    pub fn server(&self) -> ArtefactsServer<ArtefactService> {
        ArtefactsServer::new(ArtefactService::new(self.clone()))
    }

    /// Begins an upload.
    pub async fn upload(&self) -> Result<Upload, ArtefactError> {
        Upload::begin(self.shared.shelf.clone(), self.shared.limit_bytes).await
    }

    /// Where the verified file is, if this node has it.
    pub fn path(&self, digest: ArtefactDigest) -> Option<PathBuf> {
        self.shared.shelf.find(digest)
    }

    /// Where the folder that is made of an artefact has its place. What is there
    /// is whole; it is deleted together with the artefact.
    pub fn unpacked_place(&self, digest: ArtefactDigest) -> PathBuf {
        self.shared.shelf.unpacked_place(digest)
    }

    /// An empty folder on the disk of the artefacts. Blocks, for short.
    pub fn scratch_folder(&self) -> io::Result<ScratchFolder> {
        self.shared.shelf.scratch()
    }

    /// The verified file; fetched from whichever peers have it if it is not
    /// here. Concurrent calls for one digest share one transfer. Cancelling ends
    /// the waiting, not the transfer.
    pub async fn ensure_local(
        &self,
        digest: ArtefactDigest,
        size_bytes: u64,
        timeout: Duration,
    ) -> Result<PathBuf, ArtefactError> {
        self.ensure_local_from(digest, size_bytes, Vec::new(), timeout).await
    }

    /// [`ArtefactStore::ensure_local`], from these nodes too, alive by gossip or not.
    pub(crate) async fn ensure_local_from(
        &self,
        digest: ArtefactDigest,
        size_bytes: u64,
        holders: Vec<NodeId>,
        timeout: Duration,
    ) -> Result<PathBuf, ArtefactError> {
        let deadline = Instant::now() + timeout;
        let not_fetched = |reason: String| ArtefactError::NotFetched { digest, reason };
        let limit_bytes = self.shared.limit_bytes;
        if size_bytes > limit_bytes {
            return Err(ArtefactError::TooLarge { limit_bytes });
        }
        loop {
            if let Some(path) = self.path(digest) {
                return Ok(path);
            }
            let flockmates =
                self.shared.flockmates.get().ok_or_else(|| {
                    not_fetched("this node takes part in no cluster yet; try again".to_owned())
                })?;
            let wanted = Wanted { digest, size_bytes, holders: holders.clone() };
            let mut transfer = self.transfer(flockmates, wanted, deadline);
            let end = match timeout_at(deadline, transfer.wait_for(Option::is_some)).await {
                Ok(Ok(end)) => end.clone().unwrap_or(Ok(())),
                Ok(Err(_)) => Err("the transfer was given up".to_owned()),
                Err(_) => return Err(not_fetched(format!("not complete within {timeout:?}"))),
            };
            let Err(reason) = end else { continue };
            if Instant::now() + RETRY_PAUSE >= deadline {
                return Err(not_fetched(reason));
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// The transfer of an artefact that is under way, or a new one.
    fn transfer(
        &self,
        flockmates: &Arc<dyn Flockmates>,
        wanted: Wanted,
        deadline: Instant,
    ) -> watch::Receiver<TransferEnd> {
        let mut transfers = self.shared.transfers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(transfer) = transfers.get(&wanted.digest) {
            return transfer.clone();
        }
        let (tell, transfer) = watch::channel(None);
        transfers.insert(wanted.digest, transfer.clone());
        let (store, flockmates) = (self.clone(), flockmates.clone());
        tokio::spawn(async move {
            let ending = EndOfTransfer { shared: &store.shared, digest: wanted.digest };
            let digest = wanted.digest;
            let end = match timeout_at(deadline, store.shared.slots.acquire()).await {
                Ok(_slot) => transfer::fetch(store.shared.shelf.clone(), flockmates, wanted, deadline).await,
                Err(_) => Err("too many other transfers are under way".to_owned()),
            };
            match &end {
                Ok(()) => tracing::info!(%digest, "artefact fetched from peers"),
                Err(reason) => tracing::warn!(%digest, reason, "artefact could not be fetched"),
            }
            // First out of the table, then told: who hears of a failure may start anew.
            drop(ending);
            tell.send_replace(Some(end));
        });
        transfer
    }

    /// Returns once a majority of voters hold the bytes (this node has them).
    pub async fn replicate_to_majority(
        &self,
        digest: ArtefactDigest,
        size_bytes: u64,
        timeout: Duration,
    ) -> Result<(), ArtefactError> {
        let Some(flockmates) = self.shared.flockmates.get() else {
            let reason = "this node takes part in no cluster yet; try again".to_owned();
            return Err(ArtefactError::NoMajority { digest, holders: 0, voters: 0, reason });
        };
        replicate::replicate(flockmates, digest, size_bytes, Instant::now() + timeout).await
    }

    /// Counts an artefact's age for [`ArtefactStore::collect_garbage`] from now.
    pub(crate) async fn renew(&self, digest: ArtefactDigest) -> Result<bool, ArtefactError> {
        let shelf = self.shared.shelf.clone();
        blocking(move || shelf.renew(digest))
            .await
            .map_err(|error| io_error(self.shared.shelf.folder(), error))
    }

    /// Deletes files to which no version in `state` refers and that came or
    /// were pushed again longer than `grace` ago. Answers how many. To be called
    /// on every node now and then, with a grace of an hour or more: an upload
    /// is there before its version is.
    pub async fn collect_garbage(&self, state: &State, grace: Duration) -> Result<usize, ArtefactError> {
        let failed = |error| io_error(self.shared.shelf.folder(), error);
        let shelf = self.shared.shelf.clone();
        let here = blocking(move || shelf.list()).await.map_err(failed)?;
        let unneeded: Vec<_> = here.into_iter().filter(|digest| !state.models.refers_to(*digest)).collect();
        let shelf = self.shared.shelf.clone();
        let deleted = blocking(move || {
            let mut deleted = 0;
            for digest in unneeded {
                if shelf.delete_if_older(digest, grace)? {
                    tracing::info!(%digest, "artefact deleted: no version refers to it");
                    deleted += 1;
                }
            }
            Ok(deleted)
        });
        deleted.await.map_err(failed)
    }
}

/// Takes the transfer out of the table however it ends.
struct EndOfTransfer<'a> {
    shared: &'a Shared,
    digest: ArtefactDigest,
}

impl Drop for EndOfTransfer<'_> {
    fn drop(&mut self) {
        self.shared.transfers.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.digest);
    }
}

fn io_error(path: &Path, source: io::Error) -> ArtefactError {
    ArtefactError::Io { path: path.to_owned(), source }
}

/// Disk work off the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(ended) => Err(io::Error::other(ended)),
    }
}
