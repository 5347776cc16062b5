//! ONNX Runtime, found and loaded once per process, and what it says about a
//! model file.

use std::path::{Path, PathBuf};

use starling_raft::state::Signature;

/// The loaded library. Cheap to clone.
#[derive(Clone)]
pub struct OnnxRuntime {}

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

impl OnnxRuntime {
    /// Looks in `ORT_DYLIB_PATH`, beside the binary, in an installed
    /// `onnxruntime` Python package, in the system's library path; loads the
    /// first that is there.
    pub fn find_and_load() -> Result<Self, RuntimeNotFound> {
        todo!()
    }

    /// The library's version and where it was found.
    pub fn describe(&self) -> (String, PathBuf) {
        todo!()
    }

    /// Loads the file as a model and reads its signature. Blocking.
    pub fn inspect(&self, file: &Path) -> Result<Signature, NotAModel> {
        let _ = file;
        todo!()
    }
}
