//! One ONNX Runtime session and the buffers it is fed from.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ort::ErrorCode;
use ort::logging::LogLevel;
use ort::session::{RunOptions, SessionInputValue, SessionInputs};
use ort::value::Outlet;
use starling_raft::state::Signature;
use starling_raft::state::models::TensorSpec;

use super::OnnxRuntime;
use super::bundle::ModelFiles;
use super::output_kind::OutputKind;
use super::session_options::SessionOptions;
use super::shared_session::SharedSession;
use super::signature;
use super::tensor::check::CheckedRequest;
use super::tensor::columns_in::InputColumn;
use super::tensor::columns_out::OutputColumn;

/// Why a run gave nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum RunError {
    /// The model cannot take these contents.
    #[error("{0}")]
    Invalid(String),
    /// Anything else, termination included.
    #[error("{0}")]
    Failed(String),
}

impl From<ort::Error> for RunError {
    fn from(error: ort::Error) -> Self {
        match error.code() {
            ErrorCode::InvalidArgument => Self::Invalid(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// What came out of a run, and when it began and ended.
pub(crate) struct Ran {
    pub columns: Vec<OutputColumn>,
    pub began: Instant,
    pub ended: Instant,
}

/// One session. Fill it, then run it.
pub(crate) struct ModelSession {
    session: SharedSession,
    /// Another may run it at the same time.
    may_be_shared: bool,
    inputs: Vec<InputColumn>,
    outputs: Vec<OutputKind>,
    declared: Signature,
}

impl ModelSession {
    /// Loads a model from its file or folder. Blocking. Errors are ONNX Runtime's
    /// own reasons, with the path left out.
    pub(crate) fn open(runtime: &OnnxRuntime, path: &Path, options: &SessionOptions) -> Result<Self, String> {
        let without_path = |reason: String| reason.replace(&*path.to_string_lossy(), "the file");
        // Before the runtime sees it: the runtime would read whatever it names.
        let files = ModelFiles::at(path).map_err(|error| without_path(error.to_string()))?;
        let session = options.open(runtime, &files.model).map_err(without_path)?;
        let outputs = output_kinds(session.outputs())?;
        let declared = signature::declared(&session, &outputs)?;
        let may_be_shared = options.may_be_shared(runtime);
        Ok(Self {
            session: SharedSession::new(session),
            may_be_shared,
            inputs: input_columns(&declared),
            outputs,
            declared,
        })
    }

    /// The same session with buffers of its own, which may run at the same time.
    /// `None`: each needs a session of its own.
    pub(crate) fn another(&self) -> Option<Self> {
        self.may_be_shared.then(|| Self {
            session: self.session.another(),
            may_be_shared: true,
            inputs: input_columns(&self.declared),
            outputs: self.outputs.clone(),
            declared: self.declared.clone(),
        })
    }

    /// As the file declares it.
    pub(crate) fn declared(&self) -> &Signature {
        &self.declared
    }

    /// One per output, in the model's order.
    pub(crate) fn output_kinds(&self) -> &[OutputKind] {
        &self.outputs
    }

    /// Takes the contents of the requests for the next run.
    pub(crate) fn fill(&mut self, requests: &[Arc<CheckedRequest>]) {
        for (place, column) in self.inputs.iter_mut().enumerate() {
            column.fill(place, requests);
        }
    }

    /// Takes made-up rows for the next run; other dynamic axes are 1 long.
    pub(crate) fn fill_with_samples(&mut self, first_row: usize, rows: usize) {
        for (spec, column) in self.declared.inputs.iter().zip(&mut self.inputs) {
            if spec.optional {
                column.leave_out();
                continue;
            }
            column.fill_with_samples(&sample_shape(spec, rows), first_row);
        }
    }

    /// Runs what was filled in. Blocking; `options.terminate()` from another
    /// thread ends it early with an error.
    pub(crate) fn run(&mut self, options: &RunOptions) -> Result<Ran, RunError> {
        // By name, because those that the model has defaults for may be absent.
        let mut values: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(self.inputs.len());
        for (spec, column) in self.declared.inputs.iter().zip(&self.inputs) {
            if column.is_present() {
                values.push((Cow::Borrowed(&spec.name), column.as_input()?));
            }
        }
        let began = Instant::now();
        let outputs = self.session.run_with_options(SessionInputs::<0>::ValueMap(values), options)?;
        let ended = Instant::now();
        let mut columns = Vec::with_capacity(self.outputs.len());
        for (index, kind) in self.outputs.iter().enumerate() {
            columns.push(kind.column(&outputs[index])?);
        }
        Ok(Ran { columns, began, ended })
    }
}

/// Options for runs whose failures are returned and not also logged: clients
/// could fill the log with them.
pub(crate) fn quiet_run_options() -> ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.set_log_level(LogLevel::Fatal)?;
    Ok(options)
}

fn input_columns(declared: &Signature) -> Vec<InputColumn> {
    declared.inputs.iter().map(|spec| InputColumn::new(spec.data_type)).collect()
}

fn output_kinds(outputs: &[Outlet]) -> Result<Vec<OutputKind>, String> {
    let kind = |output: &Outlet| {
        OutputKind::of(output.dtype()).ok_or_else(|| {
            format!(
                "output '{}' is {}, which cannot be served: outputs must be tensors, sequences of tensors, or sequences of maps from a class to FP32",
                output.name(),
                output.dtype()
            )
        })
    };
    outputs.iter().map(kind).collect()
}

fn sample_shape(spec: &TensorSpec, rows: usize) -> Vec<i64> {
    let mut shape = spec.shape.clone();
    for (axis, length) in shape.iter_mut().enumerate() {
        if *length == -1 {
            *length = if axis == 0 { rows as i64 } else { 1 };
        }
    }
    shape
}
