//! The files on disk: `sha256/ab/cdef…` for what is whole and verified,
//! `incoming/` for what is not, `unpacked/` for folders made of artefacts. A name is derived from 32 bytes and nothing
//! else, so no request can name a file outside the store. Blocks.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::unpacked::ScratchFolder;
use crate::state::ArtefactDigest;

/// Where artefacts lie.
#[derive(Debug)]
pub(super) struct Shelf {
    whole: PathBuf,
    incoming: PathBuf,
    unpacked: PathBuf,
    /// Held while a file is put or touched, and while garbage is judged and
    /// deleted: what was just pushed again must not be deleted as old.
    keeping: Mutex<()>,
}

/// A file that is not whole yet. Dropping it deletes it.
#[derive(Debug)]
pub(super) struct PartialFile {
    pub(super) path: PathBuf,
}

impl Shelf {
    /// Makes the folders, and deletes what was never finished.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let (whole, incoming, unpacked) = (root.join("sha256"), root.join("incoming"), root.join("unpacked"));
        match fs::remove_dir_all(&incoming) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(&whole)?;
        fs::create_dir_all(&incoming)?;
        fs::create_dir_all(&unpacked)?;
        sync_directory(root)?;
        let shelf = Self { whole, incoming, unpacked, keeping: Mutex::new(()) };
        shelf.delete_stray_folders()?;
        Ok(shelf)
    }

    /// A crash may leave a folder whose artefact was deleted just before.
    fn delete_stray_folders(&self) -> io::Result<()> {
        for folder in fs::read_dir(&self.unpacked)? {
            let folder = folder?;
            let digest = folder.file_name().to_string_lossy().parse::<ArtefactDigest>();
            if digest.is_ok_and(|digest| self.find(digest).is_none()) {
                fs::remove_dir_all(folder.path())?;
            }
        }
        Ok(())
    }

    /// Where the folder made of an artefact lies, or would.
    pub(super) fn unpacked_place(&self, digest: ArtefactDigest) -> PathBuf {
        self.unpacked.join(digest.to_string())
    }

    /// An empty folder for work.
    pub(super) fn scratch(&self) -> io::Result<ScratchFolder> {
        ScratchFolder::make(&self.incoming)
    }

    /// Where the artefact lies, or would.
    fn place(&self, digest: ArtefactDigest) -> PathBuf {
        let name = digest.to_string();
        let (folder, file) = name.split_at(2);
        self.whole.join(folder).join(file)
    }

    /// Where the artefact lies, if it does.
    pub(super) fn find(&self, digest: ArtefactDigest) -> Option<PathBuf> {
        Some(self.place(digest)).filter(|path| path.is_file())
    }

    /// The folder of all files, for messages.
    pub(super) fn folder(&self) -> &Path {
        &self.whole
    }

    /// A name for a new partial file.
    pub(super) fn partial(&self) -> PartialFile {
        PartialFile { path: self.incoming.join(format!("{}.part", Uuid::new_v4())) }
    }

    /// Puts a partial file, which is synced and verified, in its place: whole
    /// after a crash, or not there.
    pub(super) fn put(&self, partial: PartialFile, digest: ArtefactDigest) -> io::Result<PathBuf> {
        let _keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.place(digest);
        if path.is_file() {
            touch(&path)?;
            return Ok(path);
        }
        let folder = path.parent().unwrap_or(&self.whole);
        if !folder.is_dir() {
            fs::create_dir_all(folder)?;
            sync_directory(&self.whole)?;
        }
        fs::rename(&partial.path, &path)?;
        sync_directory(folder)?;
        Ok(path)
    }

    /// Counts the artefact's age from now; false if it is not here.
    pub(super) fn renew(&self, digest: ArtefactDigest) -> io::Result<bool> {
        let _keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        match self.find(digest) {
            Some(path) => touch(&path).map(|()| true),
            None => Ok(false),
        }
    }

    /// Every artefact that is here.
    pub(super) fn list(&self) -> io::Result<Vec<ArtefactDigest>> {
        let mut digests = Vec::new();
        for folder in fs::read_dir(&self.whole)? {
            let folder = folder?;
            if !folder.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                let name =
                    [folder.file_name(), file?.file_name()].map(|name| name.to_string_lossy().into_owned());
                // What has another name is not ours to touch.
                digests.extend(name.concat().parse::<ArtefactDigest>());
            }
        }
        Ok(digests)
    }

    /// Deletes an artefact if it came, or was pushed again, longer than `grace` ago.
    pub(super) fn delete_if_older(&self, digest: ArtefactDigest, grace: Duration) -> io::Result<bool> {
        let _keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = self.find(digest) else { return Ok(false) };
        let modified = fs::metadata(&path)?.modified()?;
        let age = SystemTime::now().duration_since(modified).unwrap_or_default();
        if age < grace {
            return Ok(false);
        }
        fs::remove_file(&path)?;
        sync_directory(path.parent().unwrap_or(&self.whole))?;
        match fs::remove_dir_all(self.unpacked_place(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(true),
        }
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            // It was put in its place, or never made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "a partial artefact stays until the next start")
            }
            Ok(()) => {}
        }
    }
}

fn touch(path: &Path) -> io::Result<()> {
    File::open(path)?.set_modified(SystemTime::now())
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const DIGEST: &str = "ab5df625bc76dbd4e163bed2dd888df828f90159bb93556525c31821b6541d46";

    fn put(shelf: &Shelf, digest: ArtefactDigest) -> PathBuf {
        let partial = shelf.partial();
        fs::write(&partial.path, b"bytes").unwrap();
        shelf.put(partial, digest).unwrap()
    }

    #[test]
    fn a_file_lies_under_its_digest_and_is_found_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let digest: ArtefactDigest = DIGEST.parse().unwrap();
        let path = put(&Shelf::open(dir.path()).unwrap(), digest);
        assert_eq!(path, dir.path().join("sha256/ab").join(&DIGEST[2..]));

        let shelf = Shelf::open(dir.path()).unwrap();
        assert_eq!(shelf.find(digest), Some(path));
        assert_eq!(shelf.list().unwrap(), [digest]);
    }

    #[test]
    fn what_was_never_finished_is_gone_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        let partial = shelf.partial();
        fs::write(&partial.path, b"half").unwrap();
        let path = partial.path.clone();
        std::mem::forget(partial);
        assert!(path.is_file());
        Shelf::open(dir.path()).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_dropped_partial_file_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let partial = Shelf::open(dir.path()).unwrap().partial();
        fs::write(&partial.path, b"half").unwrap();
        let path = partial.path.clone();
        drop(partial);
        assert!(!path.exists());
    }

    #[test]
    fn only_what_is_old_and_was_not_pushed_again_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        let digest: ArtefactDigest = DIGEST.parse().unwrap();
        let path = put(&shelf, digest);
        let hour = Duration::from_secs(3600);
        assert!(!shelf.delete_if_older(digest, hour).unwrap());

        File::open(&path).unwrap().set_modified(SystemTime::now() - 2 * hour).unwrap();
        assert!(shelf.renew(digest).unwrap());
        assert!(!shelf.delete_if_older(digest, hour).unwrap());

        File::open(&path).unwrap().set_modified(SystemTime::now() - 2 * hour).unwrap();
        assert!(shelf.delete_if_older(digest, hour).unwrap());
        assert_eq!(shelf.find(digest), None);
    }

    #[test]
    fn a_folder_made_of_an_artefact_goes_with_it_and_a_stray_one_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let digest: ArtefactDigest = DIGEST.parse().unwrap();
        let shelf = Shelf::open(dir.path()).unwrap();
        put(&shelf, digest);
        let folder = shelf.unpacked_place(digest);
        shelf.scratch().unwrap().settle(&folder).unwrap();
        Shelf::open(dir.path()).unwrap();
        assert!(folder.is_dir());
        assert!(shelf.delete_if_older(digest, Duration::ZERO).unwrap());
        assert!(!folder.exists());

        fs::create_dir(&folder).unwrap();
        Shelf::open(dir.path()).unwrap();
        assert!(!folder.exists());
    }
}
