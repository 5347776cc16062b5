//! An artefact on its way in: written aside and hashed as it comes.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::shelf::{PartialFile, Shelf};
use super::{ArtefactError, blocking, io_error};
use crate::state::ArtefactDigest;

/// An upload. Dropping it deletes the partial file.
pub struct Upload {
    shelf: Arc<Shelf>,
    partial: PartialFile,
    file: File,
    hash: Sha256,
    size_bytes: u64,
    limit_bytes: u64,
}

impl Upload {
    pub(super) async fn begin(shelf: Arc<Shelf>, limit_bytes: u64) -> Result<Self, ArtefactError> {
        let partial = shelf.partial();
        let file = File::create_new(&partial.path).await.map_err(|error| io_error(&partial.path, error))?;
        Ok(Self { shelf, partial, file, hash: Sha256::new(), size_bytes: 0, limit_bytes })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// `TooLarge` before the byte over the limit is written; `Io`.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), ArtefactError> {
        let size_bytes = self.size_bytes + chunk.len() as u64;
        if size_bytes > self.limit_bytes {
            return Err(ArtefactError::TooLarge { limit_bytes: self.limit_bytes });
        }
        self.hash.update(&chunk);
        self.file.write_all(&chunk).await.map_err(|error| io_error(&self.partial.path, error))?;
        self.size_bytes = size_bytes;
        Ok(())
    }

    /// The partial file, flushed, for inspection before it is kept. It is
    /// deleted with the upload.
    pub async fn flushed_path(&mut self) -> Result<PathBuf, ArtefactError> {
        self.file.flush().await.map_err(|error| io_error(&self.partial.path, error))?;
        Ok(self.partial.path.clone())
    }

    /// Checks the digest (if one was announced), fsyncs, renames. Answers with
    /// digest and size. Once it has answered, the artefact survives a crash.
    pub async fn keep(
        mut self,
        expected: Option<ArtefactDigest>,
    ) -> Result<(ArtefactDigest, u64), ArtefactError> {
        let found = ArtefactDigest::new(self.hash.finalize().into());
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(ArtefactError::DigestMismatch { expected, found });
        }
        let path = self.partial.path.clone();
        self.file.flush().await.map_err(|error| io_error(&path, error))?;
        self.file.sync_all().await.map_err(|error| io_error(&path, error))?;
        let (shelf, partial) = (self.shelf, self.partial);
        blocking(move || shelf.put(partial, found)).await.map_err(|error| io_error(&path, error))?;
        Ok((found, self.size_bytes))
    }
}
