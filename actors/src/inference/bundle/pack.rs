//! From files to a tar, the same one for the same contents: sorted names, no
//! times, no owners.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::{BundleError, GOLDEN_FOLDER, GOLDEN_SAMPLES_MAX, MODEL, ModelFiles};

/// What is to be sent as one artefact.
#[derive(Debug, Clone)]
pub struct Contents {
    model: PathBuf,
    /// Files by their names in the bundle.
    members: BTreeMap<String, PathBuf>,
}

impl Contents {
    /// Of an ONNX file with the external data beside it, or of a folder, and of
    /// golden samples. What else lies there stays out. Blocking.
    ///
    /// # Errors
    /// As [`ModelFiles::at`]; two golden samples of one name.
    pub fn of(path: &Path, golden: &[PathBuf]) -> Result<Self, BundleError> {
        let (files, folder) = match path.is_dir() {
            true => (ModelFiles::at(path)?, path),
            false => (ModelFiles::beside(path)?, path.parent().unwrap_or_else(|| Path::new(""))),
        };
        let mut members = BTreeMap::from([(MODEL.to_owned(), files.model.clone())]);
        for external in &files.external {
            let name = utf8_name(external)?;
            if members.insert(name.clone(), folder.join(external)).is_some() {
                let reason = format!("the model itself is called {MODEL} there; rename its data");
                return Err(BundleError::Member { name, reason });
            }
        }
        for sample in files.golden.iter().chain(golden) {
            let file_name = sample.file_name().map(Path::new).unwrap_or(sample);
            let name = format!("{GOLDEN_FOLDER}/{}", utf8_name(&file_name.with_extension("json"))?);
            if members.insert(name.clone(), sample.clone()).is_some() {
                return Err(BundleError::Member {
                    name,
                    reason: "there are two files of this name".to_owned(),
                });
            }
        }
        if files.golden.len() + golden.len() > GOLDEN_SAMPLES_MAX {
            return Err(BundleError::TooMany { what: "golden samples", limit: GOLDEN_SAMPLES_MAX });
        }
        Ok(Self { model: files.model, members })
    }

    /// The model, if there is nothing else: it goes as it is.
    pub fn single_file(&self) -> Option<&Path> {
        (self.members.len() == 1).then_some(self.model.as_path())
    }

    /// Writes the tar. Blocking.
    pub fn write(&self, out: impl Write) -> Result<(), BundleError> {
        let mut builder = tar::Builder::new(BufWriter::new(out));
        for (name, path) in &self.members {
            append(&mut builder, name, path).map_err(|error| BundleError::io(path, error))?;
        }
        let finish = || builder.into_inner()?.flush();
        finish().map_err(|error| BundleError::io(Path::new("the bundle"), error))
    }
}

fn append(builder: &mut tar::Builder<impl Write>, name: &str, path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let size_bytes = file.metadata()?.len();
    let mut header = tar::Header::new_gnu();
    header.set_size(size_bytes);
    header.set_mode(0o644);
    // A file that grows meanwhile must not run into the next one.
    builder.append_data(&mut header, name, file.take(size_bytes))
}

fn utf8_name(path: &Path) -> Result<String, BundleError> {
    path.to_str().map(str::to_owned).ok_or_else(|| BundleError::Member {
        name: path.to_string_lossy().into_owned(),
        reason: "its name is not UTF-8".to_owned(),
    })
}
