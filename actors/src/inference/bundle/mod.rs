//! Models of several files: a folder here, a tar where it is sent and kept.
//!
//! ```text
//! model.onnx        the model; another name will do if it is the only .onnx file
//! weights/part-1    its external data, under the names that the model says
//! golden/seven.json requests with the answers that they must get
//! ```
//!
//! The same files make the same tar, and so the same digest. Nothing outside the
//! folder is ever read for a model: what points there is refused.

mod external_data;
mod pack;
mod unpack;

use std::io;
use std::path::{Component, Path, PathBuf};

use starling_raft::artefacts::ArtefactStore;
use starling_raft::state::ArtefactDigest;

pub use external_data::external_data;
pub use pack::Contents;
pub use unpack::{is_bundle, unpack};

/// The model's name in every bundle that is packed here.
const MODEL: &str = "model.onnx";
pub(crate) const GOLDEN_FOLDER: &str = "golden";
/// Files in one bundle.
const MEMBERS_MAX: usize = 10_000;
/// Golden samples of one version: each of them runs at every load.
const GOLDEN_SAMPLES_MAX: usize = 100;
/// Longest name of a file in a bundle, in bytes.
const NAME_BYTES_MAX: usize = 1_024;

/// Why files are no model that can be kept.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The disk said no.
    #[error("{path} cannot be read or written: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        source: io::Error,
    },
    /// The bytes of a model cannot be followed.
    #[error("the file is no ONNX model: {reason} at byte {offset}")]
    NotOnnx {
        /// What was found.
        reason: &'static str,
        /// Where.
        offset: u64,
    },
    /// Data of a tensor that lies elsewhere and cannot be had.
    #[error("tensor '{tensor}' keeps its data in the file '{location}', {reason}")]
    ExternalData {
        /// The first tensor that does.
        tensor: String,
        /// As the model names it.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of a bundle that may not be there.
    #[error("'{name}' may not be in a bundle: {reason}")]
    Member {
        /// As the tar names it.
        name: String,
        /// Why.
        reason: String,
    },
    /// Which file is the model cannot be told.
    #[error("{0}")]
    NoModel(String),
    /// More than allowed.
    #[error("there are more than {limit} {what}; at most {limit} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many may be.
        limit: usize,
    },
}

impl BundleError {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// The files of one model, found and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFiles {
    /// The ONNX file.
    pub model: PathBuf,
    /// Files that it refers to, by the path it uses, relative to its folder.
    pub external: Vec<PathBuf>,
    /// Golden samples, by name.
    pub golden: Vec<PathBuf>,
}

impl ModelFiles {
    /// Of a folder, or of a single file, which must be whole in itself. Blocking.
    ///
    /// # Errors
    /// No model or several, or external data that is missing or lies outside.
    pub fn at(path: &Path) -> Result<Self, BundleError> {
        if path.is_dir() {
            let model = model_in(path)?;
            let external = check_external_data(&model, Some(path))?;
            return Ok(Self { model, external, golden: golden_in(path)? });
        }
        check_external_data(path, None)?;
        Ok(Self { model: path.to_owned(), external: Vec::new(), golden: Vec::new() })
    }

    /// Of the model with its external data. Blocking.
    pub fn size_bytes(&self) -> Result<u64, BundleError> {
        let folder = self.model.parent().unwrap_or_else(|| Path::new(""));
        let external = self.external.iter().map(|file| folder.join(file));
        let size_of = |file: PathBuf| match file.metadata() {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) => Err(BundleError::io(&file, error)),
        };
        external.chain([self.model.clone()]).map(size_of).sum()
    }

    /// Of an ONNX file and what it refers to beside it. Blocking.
    pub fn beside(model: &Path) -> Result<Self, BundleError> {
        let folder =
            model.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let external = check_external_data(model, Some(folder))?;
        Ok(Self { model: model.to_owned(), external, golden: Vec::new() })
    }
}

/// Where an artefact can be read as a model: the file itself, or, of a bundle,
/// the folder that it is unpacked into, once. Blocking.
pub(crate) fn settle(
    artefacts: &ArtefactStore,
    digest: ArtefactDigest,
    file: PathBuf,
) -> Result<PathBuf, BundleError> {
    if !is_bundle(&file)? {
        return Ok(file);
    }
    let place = artefacts.unpacked_place(digest);
    if place.is_dir() {
        return Ok(place);
    }
    let scratch = artefacts.scratch_folder().map_err(|error| BundleError::io(&place, error))?;
    unpack(&file, scratch.path())?;
    scratch.settle(&place).map_err(|error| BundleError::io(&place, error))?;
    Ok(place)
}

/// `model.onnx`, else the only file of the folder that ends in `.onnx`.
fn model_in(folder: &Path) -> Result<PathBuf, BundleError> {
    let usual = folder.join(MODEL);
    if usual.is_file() {
        return Ok(usual);
    }
    let models = files_with_extension(folder, "onnx")?;
    match models.as_slice() {
        [model] => Ok(model.clone()),
        [] => Err(BundleError::NoModel("the folder has no model.onnx".to_owned())),
        _ => Err(BundleError::NoModel(format!(
            "the folder has {} files that end in .onnx; call the model model.onnx",
            models.len()
        ))),
    }
}

/// The golden samples of a model at its file or folder; a file has none.
pub(crate) fn golden_samples(path: &Path) -> Result<Vec<PathBuf>, BundleError> {
    if path.is_dir() { golden_in(path) } else { Ok(Vec::new()) }
}

fn golden_in(folder: &Path) -> Result<Vec<PathBuf>, BundleError> {
    let golden = folder.join(GOLDEN_FOLDER);
    if !golden.is_dir() {
        return Ok(Vec::new());
    }
    let samples = files_with_extension(&golden, "json")?;
    if samples.len() > GOLDEN_SAMPLES_MAX {
        return Err(BundleError::TooMany { what: "golden samples", limit: GOLDEN_SAMPLES_MAX });
    }
    Ok(samples)
}

fn files_with_extension(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, BundleError> {
    let read = |error| BundleError::io(folder, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.extension().is_some_and(|found| found == extension) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The files that a model refers to, each of which is in the folder.
fn check_external_data(model: &Path, folder: Option<&Path>) -> Result<Vec<PathBuf>, BundleError> {
    let mut files = Vec::new();
    for (location, tensor) in external_data(model)? {
        let refuse = |reason: String| BundleError::ExternalData {
            tensor: tensor.clone(),
            location: location.clone(),
            reason,
        };
        let path = inner_path(&location).map_err(|reason| refuse(format!("which {reason}")))?;
        let Some(folder) = folder else {
            return Err(refuse(
                "which did not come with it; push the folder that holds both, or the file where the other lies beside it"
                    .to_owned(),
            ));
        };
        lies_within(folder, &path).map_err(refuse)?;
        files.push(path);
    }
    files.sort();
    files.dedup();
    Ok(files)
}

fn lies_within(folder: &Path, path: &Path) -> Result<(), String> {
    let missing = |_| format!("which is not in the folder of the model: '{}' is missing", path.display());
    let found = folder.join(path).canonicalize().map_err(missing)?;
    let folder = folder.canonicalize().map_err(missing)?;
    if !found.starts_with(folder) {
        return Err("which is a link to somewhere outside the folder of the model".to_owned());
    }
    if !found.is_file() {
        return Err("which is no file".to_owned());
    }
    Ok(())
}

/// A name of a file inside a folder, without its `./`. The reason goes after
/// "which" or "it".
fn inner_path(name: &str) -> Result<PathBuf, &'static str> {
    if name.len() > NAME_BYTES_MAX {
        return Err("has a name that is too long");
    }
    if name.contains('\0') {
        return Err("has a name with a NUL in it");
    }
    let mut inner = PathBuf::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => inner.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err("leaves its folder by '..'"),
            Component::RootDir | Component::Prefix(_) => return Err("is an absolute path"),
        }
    }
    if inner.as_os_str().is_empty() {
        return Err("has no name");
    }
    Ok(inner)
}

#[cfg(test)]
mod tests;
