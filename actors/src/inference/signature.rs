//! What a model file takes and gives: as it declares it, then as a trial shows it.

use std::path::Path;

use ort::session::{OverridableInitializer, Session};
use ort::value::{Outlet, ValueType};
use starling_raft::state::Signature;
use starling_raft::state::models::TensorSpec;

use super::golden;
use super::output_kind::OutputKind;
use super::session::ModelSession;
use super::session_options::SessionOptions;
use super::tensor::data_type::from_runtime;
use super::trial::{self, Finding};
use super::{OnnxRuntime, runtime::NotAModel};

/// Defaults beyond this number are the weights of the model.
const DEFAULT_INPUTS_MAX: usize = 64;

/// Loads the model from its file or folder, reads the declaration, completes it
/// by a trial, and tries its golden samples.
pub(super) fn read(runtime: &OnnxRuntime, path: &Path) -> Result<Signature, NotAModel> {
    let mut session = ModelSession::open(runtime, path, &SessionOptions::INSPECTION).map_err(NotAModel)?;
    let finding = trial::run(&mut session);
    let signature = complete(session.declared().clone(), session.output_kinds(), &finding);
    golden::try_on(&mut session, &signature, path).map_err(|error| NotAModel(error.to_string()))?;
    Ok(signature)
}

/// The declaration alone. `batchable` is what it allows at most.
pub(super) fn declared(session: &Session, kinds: &[OutputKind]) -> Result<Signature, String> {
    let inputs = session.inputs();
    let mut inputs_specs = Vec::with_capacity(inputs.len());
    for input in inputs {
        inputs_specs.push(tensor_spec(input.name(), input.dtype())?);
    }
    let mut outputs_specs = Vec::with_capacity(kinds.len());
    for (output, kind) in session.outputs().iter().zip(kinds) {
        let converted = kind.converted_spec(output.name(), output.dtype());
        outputs_specs.push(match converted {
            Some(spec) => spec,
            None => tensor_spec(output.name(), output.dtype())?,
        });
    }
    let dynamic_inputs = !inputs_specs.is_empty()
        && inputs_specs.iter().all(|spec| spec.shape.first() == Some(&-1))
        && one_symbol(inputs);
    // No axes at all may stand for an unknown rank: the trial decides.
    let dynamic_outputs = !outputs_specs.is_empty()
        && outputs_specs.iter().all(|spec| matches!(spec.shape.first(), None | Some(-1)));
    // The length of a sequence is no number of rows.
    let sequences = kinds.iter().any(|kind| matches!(kind, OutputKind::Sequence(_)));
    inputs_specs.extend(inputs_with_defaults(session));
    Ok(Signature {
        inputs: inputs_specs,
        outputs: outputs_specs,
        batchable: dynamic_inputs && dynamic_outputs && !sequences,
    })
}

/// Initializers that are inputs as well: a request may leave them out. Older
/// exporters list every weight so; then they are not offered.
fn inputs_with_defaults(session: &Session) -> Vec<TensorSpec> {
    let initializers = session.overridable_initializers();
    if initializers.len() > DEFAULT_INPUTS_MAX {
        return Vec::new();
    }
    let spec =
        |initializer: &OverridableInitializer| tensor_spec(initializer.name(), initializer.dtype()).ok();
    let specs = initializers.iter().filter_map(spec);
    specs.map(|spec| TensorSpec { optional: true, ..spec }).collect()
}

fn tensor_spec(name: &str, value_type: &ValueType) -> Result<TensorSpec, String> {
    let ValueType::Tensor { ty, shape, .. } = value_type else {
        return Err(format!("'{name}' is {value_type}, which cannot be served: inputs must be tensors"));
    };
    let Some(data_type) = from_runtime(*ty) else {
        return Err(format!(
            "'{name}' is a tensor of {ty}, which the Open Inference Protocol has no type for"
        ));
    };
    let shape = shape.iter().map(|length| (*length).max(-1)).collect();
    Ok(TensorSpec { name: name.to_owned(), data_type, shape, optional: false })
}

/// Two inputs whose first axes have different names are not one batch.
fn one_symbol(inputs: &[Outlet]) -> bool {
    let mut symbols = inputs.iter().filter_map(|input| match input.dtype() {
        ValueType::Tensor { dimension_symbols, .. } => dimension_symbols.first(),
        _ => None,
    });
    let named = symbols.by_ref().find(|symbol| !symbol.is_empty());
    named.is_none_or(|first| symbols.all(|symbol| symbol.is_empty() || symbol == first))
}

/// Fills in what only a run shows: ranks and numbers of classes, and whether
/// rows are independent of each other.
fn complete(mut signature: Signature, kinds: &[OutputKind], finding: &Finding) -> Signature {
    let seen_shapes = finding.output_shapes.iter().zip(kinds);
    for (spec, (seen, kind)) in signature.outputs.iter_mut().zip(seen_shapes) {
        match (kind, seen.as_slice()) {
            (OutputKind::Tensor | OutputKind::Sequence(_), [_, ..]) if spec.shape.is_empty() => {
                spec.shape = vec![-1; seen.len()]
            }
            (OutputKind::NumberedClasses | OutputKind::NamedClasses, [_, classes]) => {
                spec.shape[1] = *classes
            }
            _ => {}
        }
    }
    let every_output_has_rows = signature.outputs.iter().all(|spec| spec.shape.first() == Some(&-1));
    signature.batchable = signature.batchable && every_output_has_rows && finding.rows_are_independent;
    signature
}

#[cfg(test)]
mod tests;
