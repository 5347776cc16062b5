//! The server of service Artefacts: says what is here, copies on request, and
//! streams ranges to peers, no faster than they take them.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::Stream;
use starling_proto::peer::artefacts_server::Artefacts;
use starling_proto::peer::{
    FetchRequest, FetchResponse, HoldsRequest, HoldsResponse, ReplicateRequest, ReplicateResponse,
};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};

use crate::artefacts::{ArtefactError, ArtefactStore};
use crate::state::{ArtefactDigest, NodeId};

const CHUNK_BYTES: usize = 256 * 1024;
const FETCHES_AT_ONCE: usize = 32;
const DIGESTS_PER_QUESTION: usize = 1024;
const HOLDERS_MAX: usize = 64;
/// How long a copy may take that a peer has asked for; the peer may give up earlier.
const REPLICATE_DEADLINE: Duration = Duration::from_secs(600);

/// The service.
pub struct ArtefactService {
    store: ArtefactStore,
    fetches: Arc<Semaphore>,
}

impl ArtefactService {
    /// Serves what `store` has.
    pub fn new(store: ArtefactStore) -> Self {
        Self { store, fetches: Arc::new(Semaphore::new(FETCHES_AT_ONCE)) }
    }
}

#[tonic::async_trait]
impl Artefacts for ArtefactService {
    type FetchStream = Pin<Box<dyn Stream<Item = Result<FetchResponse, Status>> + Send>>;

    async fn holds(&self, request: Request<HoldsRequest>) -> Result<Response<HoldsResponse>, Status> {
        let asked = request.into_inner().sha256;
        if asked.len() > DIGESTS_PER_QUESTION {
            return Err(Status::invalid_argument(format!("ask for {DIGESTS_PER_QUESTION} digests at most")));
        }
        let mut held = Vec::new();
        for sha256 in asked {
            if self.store.path(digest(&sha256)?).is_some() {
                held.push(sha256);
            }
        }
        Ok(Response::new(HoldsResponse { sha256: held }))
    }

    async fn replicate(
        &self,
        request: Request<ReplicateRequest>,
    ) -> Result<Response<ReplicateResponse>, Status> {
        let ReplicateRequest { sha256, size_bytes, holders } = request.into_inner();
        let digest = digest(&sha256)?;
        let holders = holders.into_iter().take(HOLDERS_MAX).map(NodeId::new).collect();
        self.store
            .ensure_local_from(digest, size_bytes, holders, REPLICATE_DEADLINE)
            .await
            .map_err(|error| status(&error))?;
        // It is about to be spoken of: an old file of these bytes counts as new.
        self.store.renew(digest).await.map_err(|error| status(&error))?;
        Ok(Response::new(ReplicateResponse {}))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let FetchRequest { sha256, offset, length } = request.into_inner();
        let digest = digest(&sha256)?;
        let slot = self.fetches.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{FETCHES_AT_ONCE} fetches are under way; ask again"))
        })?;
        let path = self
            .store
            .path(digest)
            .ok_or_else(|| Status::not_found(format!("this node does not hold artefact {digest}")))?;
        let range = FileRange::open(path, offset, length, slot).await?;
        let chunks = futures::stream::try_unfold(range, |mut range| async move {
            let chunk = range.next_chunk().await?;
            Ok(chunk.map(|chunk| (FetchResponse { chunk }, range)))
        });
        Ok(Response::new(Box::pin(chunks)))
    }
}

/// What is left to send of one range.
struct FileRange {
    file: File,
    remaining_bytes: u64,
    _slot: OwnedSemaphorePermit,
}

impl FileRange {
    async fn open(
        path: PathBuf,
        offset: u64,
        length: u64,
        slot: OwnedSemaphorePermit,
    ) -> Result<Self, Status> {
        let mut file = File::open(path).await.map_err(unreadable)?;
        let size_bytes = file.metadata().await.map_err(unreadable)?.len();
        let available = size_bytes.checked_sub(offset).ok_or_else(|| {
            Status::out_of_range(format!("offset {offset} lies behind the end of {size_bytes} bytes"))
        })?;
        let remaining_bytes = if length == 0 { available } else { length.min(available) };
        file.seek(io::SeekFrom::Start(offset)).await.map_err(unreadable)?;
        Ok(Self { file, remaining_bytes, _slot: slot })
    }

    async fn next_chunk(&mut self) -> Result<Option<bytes::Bytes>, Status> {
        let wanted = self.remaining_bytes.min(CHUNK_BYTES as u64);
        if wanted == 0 {
            return Ok(None);
        }
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        let mut limited = (&mut self.file).take(wanted);
        let read = limited.read_buf(&mut chunk).await.map_err(unreadable)?;
        if read == 0 {
            return Err(Status::data_loss("the file became shorter while it was read"));
        }
        self.remaining_bytes -= read as u64;
        Ok(Some(chunk.freeze()))
    }
}

fn unreadable(error: io::Error) -> Status {
    Status::internal(format!("the artefact cannot be read: {error}"))
}

#[allow(clippy::result_large_err)]
fn digest(bytes: &[u8]) -> Result<ArtefactDigest, Status> {
    ArtefactDigest::try_from(bytes).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn status(error: &ArtefactError) -> Status {
    match error {
        ArtefactError::TooLarge { .. } => Status::resource_exhausted(error.to_string()),
        ArtefactError::DigestMismatch { .. } => Status::data_loss(error.to_string()),
        ArtefactError::NotFetched { .. } | ArtefactError::NoMajority { .. } => {
            Status::unavailable(error.to_string())
        }
        ArtefactError::Io { .. } => Status::internal(error.to_string()),
    }
}
