//! ONNX Runtime, found and loaded once per process, and what it says about a
//! model file.

use std::any::Any;
use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use starling_raft::state::Signature;

use super::devices::Device;
use super::library_search::{self, Candidates};
use super::{session_options, signature};

/// The loaded library, and what its sessions may use. Cheap to clone.
#[derive(Clone)]
pub struct OnnxRuntime {
    loaded: Arc<Loaded>,
    equipment: Arc<Equipment>,
}

/// What a node's sessions may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equipment {
    /// In order of preference; at least one.
    pub devices: Vec<Device>,
    /// Libraries of custom operators, registered with every session.
    pub custom_op_libraries: Vec<PathBuf>,
}

impl Default for Equipment {
    fn default() -> Self {
        Self { devices: vec![Device::Cpu], custom_op_libraries: Vec::new() }
    }
}

/// A device or a library that the configuration names cannot be used; says which
/// and why, in the words of whoever could not load it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CannotEquip(String);

struct Loaded {
    environment: Environment,
    path: PathBuf,
    version: String,
}

/// The library was not found or cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[error("ONNX Runtime was not found; looked at: {}. Set ORT_DYLIB_PATH to libonnxruntime.so, or `pip install onnxruntime`{}", .looked_at.join(", "), .reason)]
pub struct RuntimeNotFound {
    /// Every place, in order.
    pub looked_at: Vec<String>,
    /// Of a library that was found but not loadable; else empty.
    pub reason: String,
}

/// The file is no model that can be served; the runtime's own reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotAModel(pub String);

/// ONNX Runtime allows one environment per process, so everyone who asks gets
/// the first one.
static LOADED: Mutex<Option<OnnxRuntime>> = Mutex::new(None);

impl OnnxRuntime {
    /// Looks in `ORT_DYLIB_PATH`, beside the binary, in an installed
    /// `onnxruntime` Python package, in the system's library path; loads the
    /// first that is there. What `ORT_DYLIB_PATH` names is the only place looked
    /// at if it is set. Blocking: may ask `python3`, for 5 seconds at most.
    pub fn find_and_load() -> Result<Self, RuntimeNotFound> {
        load_once(library_search::candidates)
    }

    #[cfg(test)]
    pub(super) fn load_from_folder(folder: &Path) -> Result<Self, RuntimeNotFound> {
        load_once(|| library_search::in_folder(folder))
    }

    /// The same library with this equipment, every piece of which is tried here.
    /// Blocking.
    pub fn equip(&self, equipment: Equipment) -> Result<Self, CannotEquip> {
        let equipped = Self { loaded: Arc::clone(&self.loaded), equipment: Arc::new(equipment) };
        session_options::check_custom_operators(&equipped).map_err(CannotEquip)?;
        for device in equipped.devices() {
            session_options::check_device(&equipped, *device).map_err(CannotEquip)?;
        }
        Ok(equipped)
    }

    /// What sessions run on, in order of preference.
    pub fn devices(&self) -> &[Device] {
        &self.equipment.devices
    }

    pub(super) fn custom_op_libraries(&self) -> &[PathBuf] {
        &self.equipment.custom_op_libraries
    }

    /// The library's version and where it was found.
    pub fn describe(&self) -> (String, PathBuf) {
        (self.loaded.version.clone(), self.loaded.path.clone())
    }

    /// Loads a model from its file or folder, reads its signature, and tries it
    /// with one row and with two, so that `batchable` says what was seen and not
    /// only what was declared; then tries the golden samples of the folder.
    /// Blocking; the trial ends after 2 seconds, each sample after 30.
    pub fn inspect(&self, path: &Path) -> Result<Signature, NotAModel> {
        match catch_unwind(AssertUnwindSafe(|| signature::read(self, path))) {
            Ok(result) => result,
            Err(panic) => Err(NotAModel(format!("the model cannot be read: {}", panic_text(panic.as_ref())))),
        }
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.loaded.environment
    }
}

fn load_once(candidates: impl FnOnce() -> Candidates) -> Result<OnnxRuntime, RuntimeNotFound> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = loaded.as_ref() {
        return Ok(runtime.clone());
    }
    let runtime = load_first(candidates())?;
    *loaded = Some(runtime.clone());
    Ok(runtime)
}

fn load_first(candidates: Candidates) -> Result<OnnxRuntime, RuntimeNotFound> {
    let mut reason = String::new();
    for path in candidates.found {
        match load(&path) {
            Ok(runtime) => return Ok(runtime),
            Err(why) if reason.is_empty() => reason = format!(". {} was found, but: {why}", path.display()),
            Err(_) => {}
        }
    }
    Err(RuntimeNotFound { looked_at: candidates.looked_at, reason })
}

/// The binding panics where a library has the right name and the wrong content,
/// so a panic here is one more reason.
fn load(path: &Path) -> Result<OnnxRuntime, String> {
    let environment = catch_unwind(|| -> Result<Environment, String> {
        let builder = ort::init_from(path).map_err(|error| error.to_string())?;
        builder
            .with_name("starling")
            .with_telemetry(false)
            .build()
            .map_err(|error| format!("its environment cannot be made: {error}"))
    })
    .map_err(|panic| panic_text(panic.as_ref()))??;
    environment.set_log_level(LogLevel::Warning);
    let version = version_of(path);
    tracing::info!(path = %path.display(), version, "loaded ONNX Runtime");
    let loaded = Arc::new(Loaded { environment, path: path.to_owned(), version });
    Ok(OnnxRuntime { loaded, equipment: Arc::default() })
}

/// The names of the library's symbols carry its version, as in `VERS_1.32.0`;
/// they stand near the beginning of the file. Its C interface tells the version
/// as well, but the binding does not pass that on.
fn version_of(path: &Path) -> String {
    const MARK: &[u8] = b"VERS_";
    const SEARCHED_BYTES: u64 = 1 << 20;
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(SEARCHED_BYTES).read_to_end(&mut head));
    let marked = head.windows(MARK.len()).position(|window| window == MARK);
    let (Ok(_), Some(place)) = (read, marked) else { return "unknown".to_owned() };
    let digits = head[place + MARK.len()..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.');
    digits.map(|byte| char::from(*byte)).collect()
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        return (*text).to_owned();
    }
    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "an unknown panic".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::inference::testing::runtime;

    #[test]
    fn says_version_and_path() {
        let (version, path) = runtime().describe();
        assert!(version.starts_with("1."), "{version}");
        assert!(path.is_file(), "{}", path.display());
    }

    #[test]
    fn the_version_is_read_whatever_the_file_is_called() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libonnxruntime.so");
        assert_eq!(version_of(&path), "unknown");
        std::fs::write(&path, b"\x7fELF\0libc.so\0VERS_1.32.0\0OrtGetApiBase\0").unwrap();
        assert_eq!(version_of(&path), "1.32.0");
        std::fs::write(&path, b"\x7fELF\0libc.so\0").unwrap();
        assert_eq!(version_of(&path), "unknown");
    }

    #[test]
    fn a_library_that_is_something_else_gives_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libonnxruntime.so");
        std::fs::write(&path, b"no library").unwrap();
        let candidates =
            Candidates { looked_at: vec!["here".to_owned(), "there".to_owned()], found: vec![path.clone()] };
        let error = load_first(candidates).err().expect("must not load").to_string();
        assert!(error.contains("looked at: here, there. Set ORT_DYLIB_PATH"), "{error}");
        assert!(error.contains(&format!(". {} was found, but:", path.display())), "{error}");
    }

    #[test]
    fn nothing_found_lists_the_places_only() {
        let candidates = Candidates { looked_at: vec!["here".to_owned()], found: vec![] };
        let error = load_first(candidates).err().expect("must not load").to_string();
        assert_eq!(
            error,
            "ONNX Runtime was not found; looked at: here. Set ORT_DYLIB_PATH to libonnxruntime.so, or `pip install onnxruntime`"
        );
    }
}
