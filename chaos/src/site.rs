//! What a run needs from the machine: the binary under test, ONNX Runtime, the
//! digit models, and a folder for the nodes' data and logs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Where the parts of a run are.
#[derive(Debug, Clone)]
pub struct Site {
    /// The `starling` binary.
    pub binary: PathBuf,
    /// ONNX Runtime's shared library; `None`: the binary looks for it itself.
    pub onnxruntime: Option<PathBuf>,
    /// The folder of digits-v1.onnx, digits-v2.onnx and held_back.bin.
    pub models: PathBuf,
}

impl Site {
    /// Finds what is not named by `STARLING_BIN` and `ORT_DYLIB_PATH` in the
    /// checkout that this program was built from, or in the current folder.
    pub fn find() -> Result<Self> {
        let root = checkout()?;
        let binary = match std::env::var_os("STARLING_BIN") {
            Some(path) => std::path::absolute(PathBuf::from(path))?,
            None => built_binary(&root)?,
        };
        if !binary.is_file() {
            bail!("{} is not there; build it with `make build`", binary.display());
        }
        let onnxruntime = match std::env::var_os("ORT_DYLIB_PATH") {
            Some(path) => Some(std::path::absolute(PathBuf::from(path))?),
            None => cached_onnxruntime(&root),
        };
        Ok(Self { binary, onnxruntime, models: root.join("models/digits") })
    }

    /// The weak model, exported with a ZipMap.
    pub fn digits_v1(&self) -> PathBuf {
        self.models.join("digits-v1.onnx")
    }

    /// A model that is bad in one way: `broken`, `slow` or `wrong`.
    pub fn digits(&self, fault: &str) -> PathBuf {
        self.models.join(format!("digits-{fault}.onnx"))
    }

    /// The folder of the manifests that the documentation explains.
    pub fn examples(&self) -> PathBuf {
        self.models.join("../../docs/examples")
    }

    /// The strong model, with plain tensors.
    pub fn digits_v2(&self) -> PathBuf {
        self.models.join("digits-v2.onnx")
    }
}

fn checkout() -> Result<PathBuf> {
    let here = std::env::current_dir().context("the current folder is gone")?;
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf);
    [Some(here), built_from]
        .into_iter()
        .flatten()
        .find(|folder| folder.join("models/digits/held_back.bin").is_file())
        .context("models/digits is not below the current folder; run this in a checkout of Starling")
}

// Beside this program, or one folder up where a test runs from `deps`.
fn built_binary(root: &Path) -> Result<PathBuf> {
    let this = std::env::current_exe().context("the path of this program is not known")?;
    let beside =
        this.ancestors().skip(1).take(2).map(|folder| folder.join("starling")).find(|path| path.is_file());
    Ok(beside.unwrap_or_else(|| root.join("target/debug/starling")))
}

fn cached_onnxruntime(root: &Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(root.join(".cache/onnxruntime")).ok()?;
    versions.flatten().map(|entry| entry.path().join("libonnxruntime.so")).find(|library| library.is_file())
}
