//! A snapshot file on its way between two nodes: a header, then chunks, and
//! nothing is kept that does not have the announced size and SHA-256.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use sha2::{Digest, Sha256};
use starling_proto::peer;
use starling_proto::peer::install_snapshot_request::{Header, Part};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Status;

use crate::raft_types::SnapshotFile;
use crate::wire::{self, SnapshotMeta, Vote, WireError};

const CHUNK_BYTES: usize = 1 << 20;
/// A sender that is silent for so long has gone.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a snapshot did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The stream ended, stalled or failed.
    #[error("the snapshot's sender has gone: {0}")]
    Sender(String),
    /// The stream is not what it should be.
    #[error(transparent)]
    Malformed(#[from] WireError),
    /// The bytes are not those that were announced.
    #[error("the snapshot arrived damaged: {0}; it is sent again")]
    Damaged(String),
    /// This node's disk.
    #[error("snapshot file {path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        source: io::Error,
    },
}

/// The messages that carry `file` to another node. Reads the file twice: once
/// for its digest now, once as the messages are taken.
pub async fn send(
    vote: Vote,
    meta: &SnapshotMeta,
    file: &SnapshotFile,
) -> io::Result<impl Stream<Item = peer::InstallSnapshotRequest> + Send + 'static> {
    let path = file.path.clone();
    let (sha256, size_bytes) = tokio::task::spawn_blocking(move || digest(&path)).await??;
    let meta = peer::SnapshotMeta {
        size_bytes,
        sha256: Bytes::copy_from_slice(&sha256),
        ..wire::snapshot_meta_to_wire(meta)
    };
    let header = Part::Header(Header { vote: Some(wire::vote_to_wire(&vote)), meta: Some(meta) });
    // Opened before it is sent: a file that is pruned from now on stays readable here.
    let opened = File::open(&file.path).await?;
    let chunks = futures::stream::unfold(opened, |mut opened| async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        match opened.read(&mut chunk).await {
            // The receiver notices that bytes are missing if this was an error.
            Ok(0) | Err(_) => None,
            Ok(length) => {
                chunk.truncate(length);
                Some((Part::Chunk(chunk.into()), opened))
            }
        }
    });
    let parts = futures::stream::once(async { header }).chain(chunks);
    Ok(parts.map(|part| peer::InstallSnapshotRequest { part: Some(part) }))
}

/// Takes a snapshot in, into `into`, which is complete, verified and durable
/// when this returns, and is removed if it fails.
pub async fn receive(
    mut messages: impl Stream<Item = Result<peer::InstallSnapshotRequest, Status>> + Unpin,
    into: &Path,
) -> Result<(Vote, SnapshotMeta, SnapshotFile), ReceiveError> {
    let header = match next_part(&mut messages).await? {
        Some(Part::Header(header)) => header,
        _ => return Err(WireError::Missing("snapshot header").into()),
    };
    let vote = wire::vote_from_wire(header.vote.as_ref())?;
    let announced = header.meta.ok_or(WireError::Missing("snapshot meta"))?;
    let size_bytes = announced.size_bytes;
    let sha256 = announced.sha256.clone();
    let meta = wire::snapshot_meta_from_wire(announced)?;
    if let Err(error) = receive_file(&mut messages, into, size_bytes, &sha256).await {
        let _ = tokio::fs::remove_file(into).await;
        return Err(error);
    }
    Ok((vote, meta, SnapshotFile { path: into.to_owned(), size_bytes }))
}

async fn receive_file(
    messages: &mut (impl Stream<Item = Result<peer::InstallSnapshotRequest, Status>> + Unpin),
    into: &Path,
    size_bytes: u64,
    sha256: &[u8],
) -> Result<(), ReceiveError> {
    let io = |source| ReceiveError::Io { path: into.to_owned(), source };
    let mut file = File::create(into).await.map_err(io)?;
    let mut hasher = Sha256::new();
    let mut received_bytes = 0;
    while let Some(part) = next_part(messages).await? {
        let Part::Chunk(chunk) = part else {
            return Err(WireError::Missing("snapshot chunk").into());
        };
        received_bytes += chunk.len() as u64;
        if received_bytes > size_bytes {
            return Err(ReceiveError::Damaged(format!("more than the announced {size_bytes} bytes came")));
        }
        hasher.update(&chunk);
        file.write_all(&chunk).await.map_err(io)?;
    }
    if received_bytes != size_bytes {
        return Err(ReceiveError::Damaged(format!("{received_bytes} of {size_bytes} bytes came")));
    }
    if hasher.finalize().as_slice() != sha256 {
        return Err(ReceiveError::Damaged("its SHA-256 is not the announced one".to_owned()));
    }
    file.flush().await.map_err(io)?;
    file.sync_all().await.map_err(io)
}

async fn next_part(
    messages: &mut (impl Stream<Item = Result<peer::InstallSnapshotRequest, Status>> + Unpin),
) -> Result<Option<Part>, ReceiveError> {
    match tokio::time::timeout(CHUNK_TIMEOUT, messages.next()).await {
        Err(_) => Err(ReceiveError::Sender(format!("nothing came for {CHUNK_TIMEOUT:?}"))),
        Ok(None) => Ok(None),
        Ok(Some(Err(status))) => Err(ReceiveError::Sender(status.to_string())),
        Ok(Some(Ok(message))) => {
            message.part.map(Some).ok_or(ReceiveError::Malformed(WireError::Missing("snapshot part")))
        }
    }
}

fn digest(path: &Path) -> io::Result<([u8; 32], u64)> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let size_bytes = io::copy(&mut file, &mut hasher)?;
    Ok((hasher.finalize().into(), size_bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    async fn messages_of(size: usize) -> (tempfile::TempDir, Vec<peer::InstallSnapshotRequest>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sent");
        std::fs::write(&path, vec![7; size]).unwrap();
        let file = SnapshotFile { path, size_bytes: size as u64 };
        let messages = send(Vote::new_committed(1, 1000), &SnapshotMeta::default(), &file).await.unwrap();
        (dir, messages.collect().await)
    }

    fn stream_of(
        messages: Vec<peer::InstallSnapshotRequest>,
    ) -> impl Stream<Item = Result<peer::InstallSnapshotRequest, Status>> + Unpin {
        futures::stream::iter(messages.into_iter().map(Ok))
    }

    #[tokio::test]
    async fn a_file_of_several_chunks_arrives_as_it_was() {
        let (dir, messages) = messages_of(CHUNK_BYTES * 2 + 5).await;
        let into = dir.path().join("received");
        let (vote, meta, file) = receive(stream_of(messages), &into).await.unwrap();
        assert_eq!(vote, Vote::new_committed(1, 1000));
        assert_eq!(meta, SnapshotMeta::default());
        assert_eq!(file.size_bytes, (CHUNK_BYTES * 2 + 5) as u64);
        assert_eq!(std::fs::read(into).unwrap(), vec![7; CHUNK_BYTES * 2 + 5]);
    }

    #[tokio::test]
    async fn a_flipped_bit_is_noticed_and_nothing_is_kept() {
        let (dir, mut messages) = messages_of(100).await;
        messages[1] = peer::InstallSnapshotRequest { part: Some(Part::Chunk(vec![6; 100].into())) };
        let into = dir.path().join("received");
        let error = receive(stream_of(messages), &into).await.unwrap_err();
        assert!(matches!(error, ReceiveError::Damaged(_)), "{error}");
        assert!(!into.exists());
    }

    #[tokio::test]
    async fn a_missing_chunk_is_noticed() {
        let (dir, mut messages) = messages_of(CHUNK_BYTES + 1).await;
        messages.pop();
        let error = receive(stream_of(messages), &dir.path().join("received")).await.unwrap_err();
        assert!(error.to_string().contains("1048576 of 1048577 bytes came"), "{error}");
    }
}
