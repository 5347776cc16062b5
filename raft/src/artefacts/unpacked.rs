//! What is made of artefacts beside them: `unpacked/DIGEST` is a folder that is
//! whole, and goes when its artefact goes.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// An empty folder to work in. Dropping it deletes it; so does the next start.
#[derive(Debug)]
pub struct ScratchFolder {
    path: PathBuf,
}

impl ScratchFolder {
    pub(super) fn make(incoming: &Path) -> io::Result<Self> {
        let path = incoming.join(format!("{}.folder", Uuid::new_v4()));
        fs::create_dir(&path)?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it to its place, whole or not at all. Its files must be synced. A
    /// folder that is there already stays. Blocking.
    pub fn settle(self, place: &Path) -> io::Result<()> {
        sync_folders(&self.path)?;
        match fs::rename(&self.path, place) {
            Err(_) if place.is_dir() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => File::open(place.parent().unwrap_or(place))?.sync_all(),
        }
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.path) {
            // It was moved to its place.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "a scratch folder stays until the next start");
            }
            Ok(()) => {}
        }
    }
}

fn sync_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn scratch_with(incoming: &Path, text: &str) -> ScratchFolder {
        let scratch = ScratchFolder::make(incoming).unwrap();
        fs::create_dir(scratch.path().join("inner")).unwrap();
        fs::write(scratch.path().join("inner/file"), text).unwrap();
        scratch
    }

    #[test]
    fn a_folder_settles_once_and_the_second_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("place");
        scratch_with(dir.path(), "first").settle(&place).unwrap();
        scratch_with(dir.path(), "second").settle(&place).unwrap();
        assert_eq!(fs::read_to_string(place.join("inner/file")).unwrap(), "first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_is_dropped_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        drop(scratch_with(dir.path(), "half"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
