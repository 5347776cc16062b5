//! From the outputs of a run to the answer of one of its requests.

use std::ops::Range;

use bytes::Bytes;
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_proto::inference::{
    InferParameter, InferTensorContents, ModelInferResponse, model_infer_response::InferOutputTensor,
};
use starling_raft::state::Signature;
use starling_raft::state::models::DataType;

use super::bytes_elements;
use super::check::{CheckedRequest, typed_field};
use super::columns_out::OutputColumn;

/// Names the classes that the columns of a matrix of probabilities stand for.
const CLASSES_PARAMETER: &str = "classes";

/// Answers one request with its rows of every output it wants. Raw if the
/// request was raw, or if an output has no typed field (the two kinds may not be
/// mixed within one answer).
pub(crate) fn respond(
    signature: &Signature,
    request: &CheckedRequest,
    columns: &[OutputColumn],
    rows: Option<&Range<usize>>,
) -> ModelInferResponse {
    let wanted = |index: usize| request.wanted.as_ref().map_or(index, |wanted| wanted[index]);
    let count = request.wanted.as_ref().map_or(columns.len(), Vec::len);
    let raw = request.raw || (0..count).any(|index| typed_field(columns[wanted(index)].data_type).is_none());
    let mut response = ModelInferResponse { id: request.id.clone(), ..ModelInferResponse::default() };
    response.outputs.reserve_exact(count);
    if raw {
        response.raw_output_contents.reserve_exact(count);
    }
    for index in 0..count {
        let column = &columns[wanted(index)];
        let mut shape = column.shape.clone();
        let contents = match rows {
            None => column.raw.clone(),
            Some(rows) => {
                shape[0] = rows.len() as i64;
                column.raw_rows(rows)
            }
        };
        let mut output = InferOutputTensor {
            name: signature.outputs[wanted(index)].name.clone(),
            datatype: column.data_type.name().to_owned(),
            shape,
            ..InferOutputTensor::default()
        };
        if let Some(classes) = &column.classes {
            let parameter =
                InferParameter { parameter_choice: Some(ParameterChoice::StringParam(classes.to_string())) };
            output.parameters.insert(CLASSES_PARAMETER.to_owned(), parameter);
        }
        if raw {
            response.raw_output_contents.push(contents);
        } else {
            output.contents = Some(typed(column.data_type, &contents));
        }
        response.outputs.push(output);
    }
    response
}

fn typed(data_type: DataType, raw: &Bytes) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    match data_type {
        DataType::Bool => contents.bool_contents = raw.iter().map(|byte| *byte != 0).collect(),
        DataType::Uint8 => contents.uint_contents = decode(raw, |bytes| u8::from_le_bytes(bytes).into()),
        DataType::Uint16 => contents.uint_contents = decode(raw, |bytes| u16::from_le_bytes(bytes).into()),
        DataType::Uint32 => contents.uint_contents = decode(raw, u32::from_le_bytes),
        DataType::Uint64 => contents.uint64_contents = decode(raw, u64::from_le_bytes),
        DataType::Int8 => contents.int_contents = decode(raw, |bytes| i8::from_le_bytes(bytes).into()),
        DataType::Int16 => contents.int_contents = decode(raw, |bytes| i16::from_le_bytes(bytes).into()),
        DataType::Int32 => contents.int_contents = decode(raw, i32::from_le_bytes),
        DataType::Int64 => contents.int64_contents = decode(raw, i64::from_le_bytes),
        DataType::Fp32 => contents.fp32_contents = decode(raw, f32::from_le_bytes),
        DataType::Fp64 => contents.fp64_contents = decode(raw, f64::from_le_bytes),
        DataType::Bytes => contents.bytes_contents = bytes_elements::split(raw).collect(),
        DataType::Fp16 | DataType::Bf16 => {}
    }
    contents
}

fn decode<T, const N: usize>(raw: &[u8], from_le_bytes: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (elements, _) = raw.as_chunks::<N>();
    elements.iter().map(|element| from_le_bytes(*element)).collect()
}
