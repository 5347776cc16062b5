//! What a model file takes and gives: as it declares it, then as a trial shows it.

use std::path::Path;

use ort::value::{Outlet, ValueType};
use starling_raft::state::Signature;
use starling_raft::state::models::{DataType, TensorSpec};

use super::session::ModelSession;
use super::session_options::SessionOptions;
use super::tensor::data_type::from_runtime;
use super::trial::{self, Finding};
use super::zip_map::OutputKind;
use super::{OnnxRuntime, runtime::NotAModel};

/// Loads the file, reads the declaration, completes it by a trial.
pub(super) fn read(runtime: &OnnxRuntime, file: &Path) -> Result<Signature, NotAModel> {
    let mut session = ModelSession::open(runtime, file, &SessionOptions::INSPECTION).map_err(NotAModel)?;
    let finding = trial::run(&mut session);
    Ok(complete(session.declared().clone(), session.output_kinds(), &finding))
}

/// The declaration alone. `batchable` is what it allows at most.
pub(super) fn declared(
    inputs: &[Outlet],
    outputs: &[Outlet],
    kinds: &[OutputKind],
) -> Result<Signature, String> {
    let inputs_specs = inputs.iter().map(tensor_spec).collect::<Result<Vec<_>, _>>()?;
    let mut outputs_specs = Vec::with_capacity(outputs.len());
    for (output, kind) in outputs.iter().zip(kinds) {
        outputs_specs.push(match kind {
            OutputKind::Tensor => tensor_spec(output)?,
            OutputKind::NumberedClasses | OutputKind::NamedClasses => probabilities_spec(output.name()),
        });
    }
    let dynamic_inputs = !inputs_specs.is_empty()
        && inputs_specs.iter().all(|spec| spec.shape.first() == Some(&-1))
        && one_symbol(inputs);
    // No axes at all may stand for an unknown rank: the trial decides.
    let dynamic_outputs = !outputs_specs.is_empty()
        && outputs_specs.iter().all(|spec| matches!(spec.shape.first(), None | Some(-1)));
    Ok(Signature {
        inputs: inputs_specs,
        outputs: outputs_specs,
        batchable: dynamic_inputs && dynamic_outputs,
    })
}

fn tensor_spec(outlet: &Outlet) -> Result<TensorSpec, String> {
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        return Err(format!(
            "'{}' is {}, which cannot be served: inputs must be tensors",
            outlet.name(),
            outlet.dtype()
        ));
    };
    let Some(data_type) = from_runtime(*ty) else {
        return Err(format!(
            "'{}' is a tensor of {ty}, which the Open Inference Protocol has no type for",
            outlet.name()
        ));
    };
    let shape = shape.iter().map(|length| (*length).max(-1)).collect();
    Ok(TensorSpec { name: outlet.name().to_owned(), data_type, shape, optional: false })
}

fn probabilities_spec(name: &str) -> TensorSpec {
    TensorSpec { name: name.to_owned(), data_type: DataType::Fp32, shape: vec![-1, -1], optional: false }
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
            (OutputKind::Tensor, [_, ..]) if spec.shape.is_empty() => spec.shape = vec![-1; seen.len()],
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
