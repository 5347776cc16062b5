//! From a tar to a folder. The tar comes from outside: a member is a plain file
//! or a folder inside, or the whole is refused.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use tar::EntryType;

use super::{BundleError, MEMBERS_MAX, inner_path};

/// Every header of a tar has it here.
const MAGIC: &[u8] = b"ustar";
const MAGIC_OFFSET: usize = 257;
/// Of a member that only carries the long name of the next one.
const EXTENSION_BYTES_MAX: u64 = 16 * 1024;

/// Whether a file is a tar. Blocking.
pub fn is_bundle(file: &Path) -> Result<bool, BundleError> {
    let mut head = Vec::with_capacity(MAGIC_OFFSET + MAGIC.len());
    let opened = File::open(file).map_err(|error| BundleError::io(file, error))?;
    let head_bytes = (MAGIC_OFFSET + MAGIC.len()) as u64;
    opened.take(head_bytes).read_to_end(&mut head).map_err(|error| BundleError::io(file, error))?;
    Ok(head.get(MAGIC_OFFSET..) == Some(MAGIC))
}

/// Writes the members of a tar into a folder, which is empty, and syncs them.
/// They need no more room than the tar itself. Blocking.
///
/// # Errors
/// A member that is no plain file, or whose name leads out of the folder; more
/// members than allowed. What was written until then stays.
pub fn unpack(bundle: &Path, folder: &Path) -> Result<(), BundleError> {
    check_extensions(bundle)?;
    let opened = File::open(bundle).map_err(|error| BundleError::io(bundle, error))?;
    let mut archive = tar::Archive::new(io::BufReader::new(opened));
    for (index, member) in archive.entries().map_err(damaged)?.enumerate() {
        if index >= MEMBERS_MAX {
            return Err(BundleError::TooMany { what: "files in the bundle", limit: MEMBERS_MAX });
        }
        let mut member = member.map_err(damaged)?;
        let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        let refuse = |reason: String| BundleError::Member { name: name.clone(), reason };
        let kind = member.header().entry_type();
        if kind == EntryType::Directory && matches!(name.as_str(), "." | "./") {
            continue;
        }
        let inner = inner_path(&name).map_err(|reason| refuse(format!("it {reason}")))?;
        match kind {
            EntryType::Directory => continue,
            EntryType::Regular => {}
            other => return Err(refuse(format!("it is {}", describe(other)))),
        }
        let place = folder.join(inner);
        let parent = place.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(|error| BundleError::io(parent, error))?;
        let mut file = File::create_new(&place).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => refuse("it is there twice".to_owned()),
            _ => BundleError::io(&place, error),
        })?;
        let announced = member.size();
        let written = io::copy(&mut member, &mut file).map_err(damaged)?;
        if written != announced {
            return Err(refuse(format!("{written} of its {announced} bytes are there")));
        }
        file.sync_all().map_err(|error| BundleError::io(&place, error))?;
    }
    Ok(())
}

/// Long names stand in members of their own, which are read into memory.
fn check_extensions(bundle: &Path) -> Result<(), BundleError> {
    let opened = File::open(bundle).map_err(|error| BundleError::io(bundle, error))?;
    let mut archive = tar::Archive::new(opened);
    for member in archive.entries_with_seek().map_err(damaged)?.raw(true) {
        let member = member.map_err(damaged)?;
        let kind = member.header().entry_type();
        let extends = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        if extends && member.size() > EXTENSION_BYTES_MAX {
            let reason = format!("its name takes more than {EXTENSION_BYTES_MAX} bytes");
            return Err(BundleError::Member { name: "a member".to_owned(), reason });
        }
    }
    Ok(())
}

fn damaged(error: io::Error) -> BundleError {
    BundleError::NoModel(format!("the bundle is damaged: {error}"))
}

fn describe(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Symlink | EntryType::Link => "a link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a pipe",
        EntryType::GNUSparse => "a sparse file",
        _ => "no plain file",
    }
}
