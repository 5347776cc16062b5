//! What the tests of this folder share: the library and the small models.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_proto::inference::{ModelInferRequest, model_infer_request::InferInputTensor};
use starling_raft::state::Ordinal;
use starling_raft::state::models::VersionSettings;

use super::queue::QueueDefaults;
use super::{LoadedVersion, OnnxRuntime, VersionHost, VersionKey};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// ONNX Runtime from `ORT_DYLIB_PATH` or the workspace's `.cache/onnxruntime`,
/// where `make` puts it.
/// A test that needs it fails where it is missing.
pub(crate) fn runtime() -> OnnxRuntime {
    use std::sync::OnceLock;
    static RUNTIME: OnceLock<OnnxRuntime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            if std::env::var_os("ORT_DYLIB_PATH").is_some() {
                return OnnxRuntime::find_and_load().unwrap_or_else(|error| panic!("{error}"));
            }
            let folder = workspace().join(".cache/onnxruntime");
            OnnxRuntime::load_from_folder(&folder).or_else(|_| OnnxRuntime::find_and_load()).unwrap_or_else(
                |error| {
                    panic!("these tests need ONNX Runtime in {} or ORT_DYLIB_PATH: {error}", folder.display())
                },
            )
        })
        .clone()
}

/// A file of `models/testdata`.
pub(crate) fn model_file(name: &str) -> PathBuf {
    workspace().join("models/testdata").join(format!("{name}.onnx"))
}

/// A host of its own, with a registry of its own.
pub(crate) async fn host() -> VersionHost {
    VersionHost::start(runtime(), &prometheus::Registry::new()).await.unwrap()
}

/// A host for a data plane of one core, which [`on_a_core`] is.
pub(crate) async fn host_for_a_core() -> VersionHost {
    VersionHost::start_with(runtime(), &prometheus::Registry::new(), QueueDefaults::default(), 1)
        .await
        .unwrap()
}

/// Runs the future on a thread that is core 0 of the data plane, beside the
/// runtime of the caller, as the node does it. Needs a runtime of several threads.
pub(crate) async fn on_a_core<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        super::local::core::enter(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _ = sender.send(runtime.block_on(future));
    });
    receiver.await.expect("the future panicked on its core")
}

/// Loads `models/testdata/NAME.onnx` as version 1 of model NAME.
pub(crate) async fn load(host: &VersionHost, name: &str, settings: VersionSettings) -> Arc<LoadedVersion> {
    let file = model_file(name);
    let signature = Arc::new(runtime().inspect(&file).unwrap());
    host.load(key(name), file, signature, settings).await.unwrap()
}

pub(crate) fn key(name: &str) -> VersionKey {
    VersionKey { model: name.parse().unwrap(), ordinal: Ordinal::new(1) }
}

/// A request with one raw input.
pub(crate) fn raw_request(name: &str, datatype: &str, shape: &[i64], raw: Vec<u8>) -> ModelInferRequest {
    ModelInferRequest {
        inputs: vec![InferInputTensor {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![raw.into()],
        ..ModelInferRequest::default()
    }
}

/// Little-endian, as raw contents are.
pub(crate) fn fp32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(crate) fn int64_bytes(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(crate) fn fp32_values(raw: &[u8]) -> Vec<f32> {
    raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

pub(crate) fn int64_values(raw: &[u8]) -> Vec<i64> {
    raw.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
}

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until the condition holds; fails after [`PATIENCE`].
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up_at = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < give_up_at, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
