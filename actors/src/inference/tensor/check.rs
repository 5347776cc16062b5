//! A request, checked against the signature: after this, names, types, shapes
//! and lengths are right, and inputs stand in the model's order.

use bytes::Bytes;
use starling_proto::inference::{
    InferTensorContents, ModelInferRequest, model_infer_request::InferInputTensor,
};
use starling_raft::state::Signature;
use starling_raft::state::models::{DataType, TensorSpec};

use super::bytes_elements;
use super::data_type::element_bytes;
use crate::inference::InferError;

/// What one input holds. Not copied until its batch is put together.
#[derive(Debug)]
pub(crate) enum InputData {
    /// Little-endian, row-major, of the right length.
    Raw(Bytes),
    /// In the one field that its type has, with the right number of elements.
    Typed(InferTensorContents),
    /// Left out: the model has a default for it.
    Absent,
}

/// One input that fits its place in the signature.
#[derive(Debug)]
pub(crate) struct CheckedInput {
    pub shape: Vec<i64>,
    pub elements: usize,
    pub data: InputData,
}

impl CheckedInput {
    pub(crate) fn absent() -> Self {
        Self { shape: Vec::new(), elements: 1, data: InputData::Absent }
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self.data, InputData::Absent)
    }
}

/// A request that fits the signature.
#[derive(Debug)]
pub(crate) struct CheckedRequest {
    /// The client's own; echoed.
    pub id: String,
    /// One per input of the signature, in its order.
    pub inputs: Vec<CheckedInput>,
    /// Length of axis 0; 1 for a model without a batch axis.
    pub rows: usize,
    /// May run together with others of the same shapes beyond axis 0.
    pub concatenable: bool,
    /// Came raw, so it is answered raw.
    pub raw: bool,
    /// Outputs in the order asked for; `None`: all, in the model's order.
    pub wanted: Option<Vec<usize>>,
}

impl CheckedRequest {
    /// Whether both can share one run.
    pub(crate) fn fits_with(&self, other: &Self) -> bool {
        self.concatenable
            && other.concatenable
            && self
                .inputs
                .iter()
                .zip(&other.inputs)
                .all(|(ours, theirs)| ours.shape.get(1..) == theirs.shape.get(1..))
    }
}

/// Checks a request. Errors name the tensor, what was expected and what came.
pub(crate) fn check(
    model: &str,
    signature: &Signature,
    request: ModelInferRequest,
) -> Result<CheckedRequest, InferError> {
    let wanted = wanted_outputs(model, signature, &request)?;
    let raw = !request.raw_input_contents.is_empty();
    if raw && request.raw_input_contents.len() != request.inputs.len() {
        return Err(InferError::InvalidArgument(format!(
            "expected one raw_input_contents entry for each of the {} inputs of the request for model '{model}', got {}",
            request.inputs.len(),
            request.raw_input_contents.len()
        )));
    }
    let mut raw_contents = request.raw_input_contents.into_iter();
    let mut placed: Vec<Option<CheckedInput>> = signature.inputs.iter().map(|_| None).collect();
    for input in request.inputs {
        let (place, spec) = find_input(model, signature, &input)?;
        if placed[place].is_some() {
            return Err(InferError::InvalidArgument(format!(
                "inference input '{}' for model '{model}' came twice",
                input.name
            )));
        }
        let checker = InputChecker { model, spec };
        placed[place] = Some(checker.check(input, raw_contents.next())?);
    }
    let mut inputs = Vec::with_capacity(placed.len());
    for (spec, input) in signature.inputs.iter().zip(placed) {
        let Some(input) = input else {
            if spec.optional {
                inputs.push(CheckedInput::absent());
                continue;
            }
            return Err(InferError::InvalidArgument(format!(
                "missing inference input '{}' for model '{model}': {} {:?} was expected",
                spec.name,
                spec.data_type.name(),
                spec.shape
            )));
        };
        inputs.push(input);
    }
    let (rows, concatenable) = batch_axis(signature, &inputs);
    Ok(CheckedRequest { id: request.id, inputs, rows, concatenable, raw, wanted })
}

fn find_input<'a>(
    model: &str,
    signature: &'a Signature,
    input: &InferInputTensor,
) -> Result<(usize, &'a TensorSpec), InferError> {
    let found = signature.inputs.iter().enumerate().find(|(_, spec)| spec.name == input.name);
    found.ok_or_else(|| {
        InferError::InvalidArgument(format!(
            "unexpected inference input '{}' for model '{model}'; its inputs are {}",
            input.name,
            names(&signature.inputs)
        ))
    })
}

fn wanted_outputs(
    model: &str,
    signature: &Signature,
    request: &ModelInferRequest,
) -> Result<Option<Vec<usize>>, InferError> {
    if request.outputs.is_empty() {
        return Ok(None);
    }
    let mut wanted = Vec::with_capacity(request.outputs.len());
    for output in &request.outputs {
        if output.parameters.contains_key("shared_memory_region") {
            return Err(InferError::Unimplemented(format!(
                "output '{}' is wanted in shared memory, which is not supported; take it from the answer",
                output.name
            )));
        }
        let Some(place) = signature.outputs.iter().position(|spec| spec.name == output.name) else {
            return Err(InferError::InvalidArgument(format!(
                "unexpected inference output '{}' for model '{model}'; its outputs are {}",
                output.name,
                names(&signature.outputs)
            )));
        };
        wanted.push(place);
    }
    Ok(Some(wanted))
}

fn names(specs: &[TensorSpec]) -> String {
    let quoted: Vec<String> = specs.iter().map(|spec| format!("'{}'", spec.name)).collect();
    quoted.join(", ")
}

fn batch_axis(signature: &Signature, inputs: &[CheckedInput]) -> (usize, bool) {
    let specified = || signature.inputs.iter().zip(inputs);
    let empty = inputs.iter().any(|input| input.elements == 0);
    if !signature.batchable || empty {
        return (1, false);
    }
    // What replaces a default holds for the whole run, so it is nobody else's.
    let replaced = specified().any(|(spec, input)| spec.optional && !input.is_absent());
    let required = specified().filter(|(spec, _)| !spec.optional);
    let mut lengths = required.map(|(_, input)| input.shape.first().copied());
    let Some(Some(rows)) = lengths.next() else { return (1, false) };
    (rows as usize, lengths.all(|other| other == Some(rows)) && !replaced)
}

struct InputChecker<'a> {
    model: &'a str,
    spec: &'a TensorSpec,
}

impl InputChecker<'_> {
    fn check(&self, input: InferInputTensor, raw: Option<Bytes>) -> Result<CheckedInput, InferError> {
        if input.parameters.contains_key("shared_memory_region") {
            return Err(InferError::Unimplemented(format!(
                "input '{}' is in shared memory, which is not supported; send its contents",
                input.name
            )));
        }
        let expected = self.spec.data_type.name();
        if input.datatype != expected {
            return Err(self.refuse(format!(
                "inference input '{}' data-type is '{}', but model '{}' expects '{expected}'",
                input.name, input.datatype, self.model
            )));
        }
        let elements = self.elements(&input.shape)?;
        let data = match (raw, input.contents) {
            (Some(_), Some(_)) => {
                return Err(self.refuse(format!(
                    "contents field must not be specified when using raw_input_contents for '{}' for model '{}'",
                    input.name, self.model
                )));
            }
            (Some(raw), None) => {
                self.check_raw(&raw, elements)?;
                InputData::Raw(raw)
            }
            (None, contents) => {
                let contents = contents.unwrap_or_default();
                self.check_typed(&contents, elements)?;
                InputData::Typed(contents)
            }
        };
        Ok(CheckedInput { shape: input.shape, elements, data })
    }

    /// How many elements the shape holds, if the shape fits.
    fn elements(&self, shape: &[i64]) -> Result<usize, InferError> {
        let expected = &self.spec.shape;
        // The runtime reports an unknown rank as no axes at all; there the run
        // itself has the last word.
        let rank_fits = expected.is_empty() || expected.len() == shape.len();
        let fits = rank_fits && expected.iter().zip(shape).all(|(want, have)| *want == -1 || want == have);
        let negative = shape.iter().any(|length| *length < 0);
        if !fits || negative {
            return Err(self.refuse(format!(
                "unexpected shape for input '{}' for model '{}'. Expected {expected:?}, got {shape:?}",
                self.spec.name, self.model
            )));
        }
        let count = shape.iter().try_fold(1_usize, |count, length| count.checked_mul(*length as usize));
        let widest_element_bytes = 8;
        count.filter(|count| *count < isize::MAX as usize / widest_element_bytes).ok_or_else(|| {
            self.refuse(format!(
                "the shape {shape:?} of input '{}' for model '{}' has more elements than memory can hold",
                self.spec.name, self.model
            ))
        })
    }

    fn check_raw(&self, raw: &Bytes, elements: usize) -> Result<(), InferError> {
        let Some(size) = element_bytes(self.spec.data_type) else {
            return bytes_elements::check(raw, elements).map_err(|error| {
                self.refuse(format!(
                    "wrong raw contents of BYTES input '{}' for model '{}': {error}",
                    self.spec.name, self.model
                ))
            });
        };
        let expected = elements * size;
        if raw.len() != expected {
            return Err(self.refuse(format!(
                "input byte size mismatch for input '{}' for model '{}'. Expected {expected}, got {}",
                self.spec.name,
                self.model,
                raw.len()
            )));
        }
        Ok(())
    }

    fn check_typed(&self, contents: &InferTensorContents, elements: usize) -> Result<(), InferError> {
        let data_type = self.spec.data_type;
        let wire_type = data_type.name();
        let Some(field) = typed_field(data_type) else {
            return Err(self.refuse(format!(
                "input '{}' for model '{}' is {wire_type}, which has no typed contents: send it in raw_input_contents",
                self.spec.name, self.model
            )));
        };
        let filled = filled_fields(contents);
        if let Some((wrong, _)) = filled.iter().find(|(name, _)| *name != field) {
            return Err(self.refuse(format!(
                "contents of {wire_type} input '{}' for model '{}' must be in {field}, but {wrong} came",
                self.spec.name, self.model
            )));
        }
        let count = filled.first().map_or(0, |(_, count)| *count);
        if count == 0 && elements > 0 {
            return Err(self.refuse(format!(
                "unable to find data for input tensor '{}' for model '{}' in request: {elements} elements were expected in {field}",
                self.spec.name, self.model
            )));
        }
        if count != elements {
            return Err(self.refuse(format!(
                "unexpected number of elements for input '{}' for model '{}'. Expected {elements}, got {count}",
                self.spec.name, self.model
            )));
        }
        if let Some(value) = out_of_range(data_type, contents) {
            return Err(self.refuse(format!(
                "the value {value} in input '{}' for model '{}' does not fit {wire_type}",
                self.spec.name, self.model
            )));
        }
        Ok(())
    }

    fn refuse(&self, text: String) -> InferError {
        InferError::InvalidArgument(text)
    }
}

/// The field of the contents that a type uses; `None`: it travels raw only.
pub(crate) fn typed_field(data_type: DataType) -> Option<&'static str> {
    Some(match data_type {
        DataType::Bool => "bool_contents",
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "int_contents",
        DataType::Int64 => "int64_contents",
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => "uint_contents",
        DataType::Uint64 => "uint64_contents",
        DataType::Fp32 => "fp32_contents",
        DataType::Fp64 => "fp64_contents",
        DataType::Bytes => "bytes_contents",
        DataType::Fp16 | DataType::Bf16 => return None,
    })
}

/// Names and lengths of the fields that hold anything.
fn filled_fields(contents: &InferTensorContents) -> Vec<(&'static str, usize)> {
    let all = [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ];
    all.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// The first value that its narrow type cannot hold.
fn out_of_range(data_type: DataType, contents: &InferTensorContents) -> Option<i64> {
    let (min, max) = match data_type {
        DataType::Int8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
        DataType::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        DataType::Uint8 => (0, i64::from(u8::MAX)),
        DataType::Uint16 => (0, i64::from(u16::MAX)),
        _ => return None,
    };
    let signed = contents.int_contents.iter().map(|value| i64::from(*value));
    let unsigned = contents.uint_contents.iter().map(|value| i64::from(*value));
    signed.chain(unsigned).find(|value| *value < min || *value > max)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
