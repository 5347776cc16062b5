//! Shared libraries that others expect to find in the process, such as
//! libpython for operators that are written against it.

#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// The library is not there or cannot be loaded; in the words of the loader.
#[derive(Debug, thiserror::Error)]
#[error("the library {path} cannot be loaded: {reason} (config key `preload_libraries`)")]
pub struct CannotPreload {
    path: PathBuf,
    reason: String,
}

/// Loads a library for good and lets all later ones use its symbols. A name
/// without a slash is looked for as the system's loader does. Blocking.
pub fn load_globally(path: &Path) -> Result<(), CannotPreload> {
    // SAFETY: loading runs the initialisers of the library, which can do anything.
    // Whoever configures the node named it and answers for it. It is never
    // unloaded, so nothing that points into it can dangle.
    let loaded = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
    let library = loaded.map_err(|error| {
        let reason = match error {
            libloading::Error::DlOpen { source } => source.to_string(),
            other => other.to_string(),
        };
        CannotPreload { path: path.to_owned(), reason }
    })?;
    let _stays = ManuallyDrop::new(library);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_library_of_the_system_is_found_by_its_name() {
        load_globally(Path::new("libc.so.6")).unwrap();
    }

    #[test]
    fn one_that_is_missing_is_named_with_the_words_of_the_loader() {
        let error = load_globally(Path::new("/nowhere/libmissing.so")).unwrap_err().to_string();
        assert!(error.starts_with("the library /nowhere/libmissing.so cannot be loaded: "), "{error}");
        assert!(error.contains("cannot open shared object file: No such file or directory"), "{error}");
    }
}
