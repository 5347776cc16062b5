//! What the store of feedback needs of a disk, and the disk that ships: a folder.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Ends in this until it is whole.
const ASIDE: &str = ".tmp";

/// Named files that only grow or are replaced as a whole. Names may have one
/// `/`. One owner at a time; an error leaves it unknown what was written.
pub trait Disk: Send {
    /// Names of all files, in order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Length of a file.
    fn bytes(&self, name: &str) -> io::Result<u64>;
    /// A whole file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Appends; makes the file if it is not there. Not durable before `sync`.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// What was appended to this file is durable, and so is its name.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Cuts a file, durably.
    fn truncate(&mut self, name: &str, bytes: u64) -> io::Result<()>;
    /// The file is this, durably: all of it or, after a crash, what it was.
    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Removes a file, if it is there.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// A folder, flushed by `fdatasync`.
#[derive(Debug)]
pub struct FolderDisk {
    folder: PathBuf,
    /// Being appended to; true: its name is not durable yet.
    open: HashMap<String, (File, bool)>,
    is_durable: bool,
}

impl FolderDisk {
    /// Makes the folder if need be. `is_durable`: flush, so that what is synced
    /// survives power loss; else it survives the death of the process only.
    pub fn open(folder: &Path, is_durable: bool) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let disk = Self { folder: folder.to_owned(), open: HashMap::new(), is_durable };
        for name in disk.names()?.iter().filter(|name| name.ends_with(ASIDE)) {
            fs::remove_file(disk.folder.join(name))?;
        }
        Ok(disk)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !entry.file_type()?.is_dir() {
                names.push(name);
                continue;
            }
            for inner in fs::read_dir(entry.path())? {
                names.push(format!("{name}/{}", inner?.file_name().to_string_lossy()));
            }
        }
        names.sort();
        Ok(names)
    }

    /// The folder that a file is in; made if need be.
    fn parent(&self, name: &str) -> io::Result<PathBuf> {
        let Some((folder, _)) = name.rsplit_once('/') else { return Ok(self.folder.clone()) };
        let parent = self.folder.join(folder);
        if !parent.is_dir() {
            fs::create_dir(&parent)?;
            self.flush(&File::open(&self.folder)?)?;
        }
        Ok(parent)
    }

    fn flush(&self, file: &File) -> io::Result<()> {
        if self.is_durable { file.sync_data() } else { Ok(()) }
    }
}

impl Disk for FolderDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.names()
    }

    fn bytes(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.folder.join(name))?.len())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.folder.join(name))
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if let Some((file, _)) = self.open.get_mut(name) {
            return file.write_all(bytes);
        }
        self.parent(name)?;
        let path = self.folder.join(name);
        let is_new = !path.exists();
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(bytes)?;
        self.open.insert(name.to_owned(), (file, is_new));
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let Some((file, is_new)) = self.open.get(name) else { return Ok(()) };
        self.flush(file)?;
        if *is_new {
            self.flush(&File::open(self.parent(name)?)?)?;
        }
        if let Some((_, is_new)) = self.open.get_mut(name) {
            *is_new = false;
        }
        Ok(())
    }

    fn truncate(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        self.open.remove(name);
        let file = OpenOptions::new().write(true).open(self.folder.join(name))?;
        file.set_len(bytes)?;
        self.flush(&file)
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.open.remove(name);
        let parent = self.parent(name)?;
        let aside = self.folder.join(format!("{name}{ASIDE}"));
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        self.flush(&file)?;
        fs::rename(&aside, self.folder.join(name))?;
        self.flush(&File::open(parent)?)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.remove(name);
        match fs::remove_file(self.folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}
