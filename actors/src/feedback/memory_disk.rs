//! A disk in memory that can crash at any operation: for tests. A crash keeps of
//! what was not synced any prefix, torn in the middle of a record or not at all.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::Disk;

#[derive(Debug, Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: usize,
}

#[derive(Debug, Default)]
struct Shared {
    files: BTreeMap<String, Content>,
    /// Operations until it fails; afterwards all do.
    left: Option<u32>,
}

/// Cloning shares the files.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryDisk {
    shared: Arc<Mutex<Shared>>,
}

impl MemoryDisk {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails after so many more operations that change anything.
    pub(crate) fn fail_after(&self, operations: u32) {
        self.shared().left = Some(operations);
    }

    /// What a machine finds after the power went: of each file all that was
    /// synced and `kept` of 255 parts of what was not.
    pub(crate) fn after_crash(&self, kept: u8) -> Self {
        let shared = self.shared();
        let files = shared.files.iter().map(|(name, content)| {
            let unsynced = content.bytes.len() - content.synced;
            let length = content.synced + unsynced * usize::from(kept) / 255;
            (name.clone(), Content { bytes: content.bytes[..length].to_vec(), synced: length })
        });
        let files = files.filter(|(_, content)| !content.bytes.is_empty()).collect();
        Self { shared: Arc::new(Mutex::new(Shared { files, left: None })) }
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Content>) -> T) -> io::Result<T> {
        let mut shared = self.shared();
        if let Some(left) = &mut shared.left {
            if *left == 0 {
                return Err(io::Error::other("the power is gone"));
            }
            *left -= 1;
        }
        Ok(change(&mut shared.files))
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.shared().files.keys().cloned().collect())
    }

    fn bytes(&self, name: &str) -> io::Result<u64> {
        Ok(self.read(name)?.len() as u64)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let shared = self.shared();
        shared
            .files
            .get(name)
            .map(|content| content.bytes.clone())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.change(|files| files.entry(name.to_owned()).or_default().bytes.extend_from_slice(bytes))
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.change(|files| {
            if let Some(content) = files.get_mut(name) {
                content.synced = content.bytes.len();
            }
        })
    }

    fn truncate(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        self.change(|files| {
            if let Some(content) = files.get_mut(name) {
                content.bytes.truncate(bytes as usize);
                content.synced = content.bytes.len();
            }
        })
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let content = Content { bytes: bytes.to_vec(), synced: bytes.len() };
        self.change(|files| files.insert(name.to_owned(), content)).map(|_| ())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.change(|files| files.remove(name)).map(|_| ())
    }
}
