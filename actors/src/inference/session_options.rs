//! How a session is opened: threads, device, libraries of custom operators. A
//! provider that cannot be had is an error here and never a quiet CPU.

use std::path::Path;

use ort::ep::{CUDA, ExecutionProviderDispatch, TensorRT};
use ort::session::Session;
use ort::session::builder::SessionBuilder;

use super::OnnxRuntime;
use super::devices::Device;

const CUDA_LIBRARY: &str = "libonnxruntime_providers_cuda.so";
const TENSORRT_LIBRARY: &str = "libonnxruntime_providers_tensorrt.so";

/// What one session gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionOptions {
    /// Intra-op threads, the caller's included; at least 1.
    pub threads: usize,
    /// Whether threads without work spin for a while before they sleep. It takes
    /// the cores from the servers between requests.
    pub spinning: bool,
    /// Where it runs.
    pub device: Device,
}

impl SessionOptions {
    /// One thread on the CPU: for looking at a model.
    pub(crate) const INSPECTION: Self = Self { threads: 1, spinning: false, device: Device::Cpu };

    /// Whether several may run one such session at the same time: on the CPU, each
    /// with its own thread, where all operators are the runtime's own.
    pub(crate) fn may_be_shared(&self, runtime: &OnnxRuntime) -> bool {
        self.device == Device::Cpu && self.threads <= 1 && runtime.custom_op_libraries().is_empty()
    }

    /// Opens a session of the model in `file`. Blocking. Errors are the runtime's
    /// own reasons, and may name the file.
    pub(crate) fn open(&self, runtime: &OnnxRuntime, file: &Path) -> Result<Session, String> {
        let mut builder = self.builder(runtime).map_err(|error| error.to_string())?;
        builder = with_custom_operators(builder, runtime)?;
        builder = with_device(builder, runtime, self.device)?;
        builder.commit_from_file(file).map_err(|error| error.to_string())
    }

    fn builder(&self, runtime: &OnnxRuntime) -> ort::Result<SessionBuilder> {
        Ok(Session::builder(runtime.environment())?
            .with_intra_threads(self.threads.max(1))?
            .with_intra_op_spinning(self.spinning)?
            .with_inter_op_spinning(self.spinning)?)
    }
}

/// Whether sessions can be opened on the device at all; the reason names the
/// library that is missing. Blocking.
pub(super) fn check_device(runtime: &OnnxRuntime, device: Device) -> Result<(), String> {
    with_device(plain_builder(runtime)?, runtime, device).map(drop)
}

/// Whether the library loads and registers its operators. Blocking.
pub(super) fn check_custom_operators(runtime: &OnnxRuntime) -> Result<(), String> {
    with_custom_operators(plain_builder(runtime)?, runtime).map(drop)
}

fn plain_builder(runtime: &OnnxRuntime) -> Result<SessionBuilder, String> {
    Session::builder(runtime.environment()).map_err(|error| error.to_string())
}

fn with_custom_operators(
    mut builder: SessionBuilder,
    runtime: &OnnxRuntime,
) -> Result<SessionBuilder, String> {
    for library in runtime.custom_op_libraries() {
        builder = builder.with_operator_library(library).map_err(|error| {
            format!("the library of custom operators {} cannot be loaded: {error}", library.display())
        })?;
    }
    Ok(builder)
}

fn with_device(
    builder: SessionBuilder,
    runtime: &OnnxRuntime,
    device: Device,
) -> Result<SessionBuilder, String> {
    let (providers, libraries): (Vec<ExecutionProviderDispatch>, &[&str]) = match device {
        Device::Cpu => return Ok(builder),
        Device::Cuda(number) => (vec![cuda(number)], &[CUDA_LIBRARY]),
        Device::TensorRt(number) => (vec![tensorrt(number), cuda(number)], &[TENSORRT_LIBRARY, CUDA_LIBRARY]),
    };
    builder.with_execution_providers(providers).map_err(|error| {
        let (_, runtime_library) = runtime.describe();
        let folder = runtime_library.parent().unwrap_or_else(|| Path::new("."));
        let missing = libraries.iter().find(|library| !folder.join(library).is_file());
        match missing {
            Some(library) => format!(
                "device {device} cannot be used: {library} is not in {}; install a build of ONNX Runtime with GPUs (`pip install onnxruntime-gpu`) and set ORT_DYLIB_PATH to it: {error}",
                folder.display()
            ),
            None => format!("device {device} cannot be used: {}", loader_words(&error.to_string())),
        }
    })
}

/// The runtime puts the place in its own source before what matters.
fn loader_words(error: &str) -> &str {
    error.find("Failed to load library").map_or(error, |start| &error[start..])
}

fn cuda(number: u32) -> ExecutionProviderDispatch {
    CUDA::default().with_device_id(number.cast_signed()).build().error_on_failure()
}

fn tensorrt(number: u32) -> ExecutionProviderDispatch {
    TensorRT::default().with_device_id(number.cast_signed()).build().error_on_failure()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::path::PathBuf;

    use super::*;
    use crate::inference::Equipment;
    use crate::inference::testing::{model_file, runtime};

    fn refusal(equipment: Equipment) -> String {
        runtime().equip(equipment).err().expect("must be refused").to_string()
    }

    /// The tests' ONNX Runtime is the one for CPUs.
    #[test]
    fn a_device_whose_provider_is_absent_is_refused_and_the_library_named() {
        for (device, library) in [(Device::Cuda(0), CUDA_LIBRARY), (Device::TensorRt(1), TENSORRT_LIBRARY)] {
            let reason = refusal(Equipment { devices: vec![Device::Cpu, device], ..Equipment::default() });
            let expected = format!("device {device} cannot be used: {library} is not in ");
            assert!(reason.starts_with(&expected), "{reason}");
        }
    }

    #[test]
    fn a_session_on_an_absent_device_fails_and_does_not_run_on_the_cpu() {
        let options = SessionOptions { device: Device::Cuda(0), ..SessionOptions::INSPECTION };
        let reason = options.open(&runtime(), &model_file("matmul")).unwrap_err();
        assert!(reason.starts_with("device cuda:0 cannot be used: "), "{reason}");
    }

    #[test]
    fn a_library_of_operators_that_is_missing_or_none_is_refused_with_the_words_of_the_loader() {
        let missing = PathBuf::from("/nowhere/libops.so");
        let reason = refusal(Equipment { custom_op_libraries: vec![missing], ..Equipment::default() });
        assert!(reason.contains("/nowhere/libops.so cannot be loaded: "), "{reason}");
        assert!(reason.contains("cannot open shared object file"), "{reason}");

        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("libtext.so");
        std::fs::write(&text, b"no library").unwrap();
        let reason = refusal(Equipment { custom_op_libraries: vec![text], ..Equipment::default() });
        assert!(reason.contains("libtext.so cannot be loaded: "), "{reason}");
    }

    /// As the runtime for GPUs says it on a machine without CUDA.
    #[test]
    fn the_library_that_a_provider_lacks_is_what_is_said() {
        let error = "/src/core/session/provider_bridge_ort.cc:2043 onnxruntime::Provider& onnxruntime::ProviderLibrary::Get() \
                     [ONNXRuntimeError] : 1 : FAIL : Failed to load library libonnxruntime_providers_cuda.so with error: \
                     libcublasLt.so.13: cannot open shared object file: No such file or directory";
        assert_eq!(
            loader_words(error),
            "Failed to load library libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object file: No such file or directory"
        );
        assert_eq!(loader_words("no such device"), "no such device");
    }

    #[test]
    fn threads_and_spinning_are_taken() {
        for (threads, spinning) in [(1, false), (2, true), (0, false)] {
            let options = SessionOptions { threads, spinning, device: Device::Cpu };
            options.open(&runtime(), &model_file("matmul")).unwrap();
        }
    }
}
