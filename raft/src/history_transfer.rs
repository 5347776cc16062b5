//! History segments on their way between two nodes: a node that installs a
//! snapshot fetches those that it lacks from the node that sent it.

use std::io::{self, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use starling_proto::peer::raft_client::RaftClient;
use starling_proto::peer::{FetchHistorySegmentRequest, FetchHistorySegmentResponse};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tonic::Status;

use crate::history::SegmentInfo;
use crate::network;
use crate::peers::{PeerUnavailable, Peers};
use crate::raft_types::SnapshotFile;
use crate::snapshots::Snapshot;
use crate::state::NodeId;
use crate::state_machine::{SharedHistory, lock};

const CHUNK_BYTES: usize = 1 << 20;
/// A sender that is silent for so long has gone.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a segment did not arrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(transparent)]
    Peer(#[from] PeerUnavailable),
    #[error("history segment {name} from node {sender}: {reason}")]
    Sender { name: String, sender: NodeId, reason: String },
    #[error("history segments of a snapshot: {0}")]
    Io(#[from] io::Error),
}

/// Fetches every segment that the snapshot lists and this node lacks. Segments
/// that have arrived stay, whatever happens to the rest.
pub(crate) async fn fetch_missing(
    peers: &Peers,
    sender: NodeId,
    history: &SharedHistory,
    snapshot: &SnapshotFile,
) -> Result<(), FetchError> {
    let path = snapshot.path.clone();
    let listed = blocking(move || Snapshot::read(&path)).await?.segments;
    let missing = lock(history).missing(&listed);
    for segment in missing {
        let partial = snapshot.path.with_extension(format!("{}.partial", segment.name));
        let fetched = fetch(peers, sender, &segment, &partial).await;
        let imported = match fetched {
            Ok(()) => {
                let (history, segment, partial) = (history.clone(), segment.clone(), partial.clone());
                blocking(move || lock(&history).import_segment(&segment, &partial)).await
            }
            Err(error) => {
                let _ = tokio::fs::remove_file(&partial).await;
                return Err(error);
            }
        };
        let _ = tokio::fs::remove_file(&partial).await;
        imported?;
        tracing::info!(segment = segment.name, %sender, "fetched a history segment");
    }
    Ok(())
}

async fn fetch(
    peers: &Peers,
    sender: NodeId,
    segment: &SegmentInfo,
    into: &PathBuf,
) -> Result<(), FetchError> {
    let failed = |reason: String| FetchError::Sender { name: segment.name.clone(), sender, reason };
    let mut client = network::sized(RaftClient::new(peers.channel(sender)?));
    let request = FetchHistorySegmentRequest { name: segment.name.clone(), offset: 0 };
    let stalled = |_| failed(format!("nothing came for {CHUNK_TIMEOUT:?}"));
    let answer = tokio::time::timeout(CHUNK_TIMEOUT, client.fetch_history_segment(request));
    let mut chunks =
        answer.await.map_err(stalled)?.map_err(|status| failed(status.message().to_owned()))?.into_inner();
    let mut file = File::create(into).await?;
    let mut received_bytes = 0;
    loop {
        let chunk = tokio::time::timeout(CHUNK_TIMEOUT, chunks.next()).await.map_err(stalled)?;
        let Some(chunk) = chunk else { break };
        let chunk = chunk.map_err(|status| failed(status.message().to_owned()))?.chunk;
        received_bytes += chunk.len() as u64;
        if received_bytes > segment.size_bytes {
            return Err(failed(format!("more than {} bytes came", segment.size_bytes)));
        }
        file.write_all(&chunk).await?;
    }
    file.flush().await?;
    Ok(())
}

/// The bytes of a sealed segment from `offset` on.
pub(crate) async fn serve(
    history: &SharedHistory,
    name: &str,
    offset: u64,
) -> Result<impl Stream<Item = Result<FetchHistorySegmentResponse, Status>> + Send + 'static, Status> {
    let path = lock(history).segment_path(name);
    let path = path.ok_or_else(|| Status::not_found(format!("there is no history segment {name} here")))?;
    let mut file = File::open(&path).await.map_err(|error| Status::internal(error.to_string()))?;
    file.seek(SeekFrom::Start(offset)).await.map_err(|error| Status::internal(error.to_string()))?;
    Ok(futures::stream::try_unfold(file, |mut file| async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        let length = file.read(&mut chunk).await.map_err(|error| Status::internal(error.to_string()))?;
        chunk.truncate(length);
        let response = FetchHistorySegmentResponse { chunk: Bytes::from(chunk) };
        Ok((length > 0).then_some((response, file)))
    }))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await?
}
