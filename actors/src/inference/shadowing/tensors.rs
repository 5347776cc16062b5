//! The outputs of an answer as tensors with raw contents, however they came.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use starling_proto::inference::{InferTensorContents, ModelInferRequest, ModelInferResponse};
use starling_raft::state::models::DataType;

use crate::inference::tensor::bytes_elements;
use crate::inference::tensor::data_type::{element_bytes, from_name};

/// A tensor of a message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor<'a> {
    /// As the message says it; may be no type of the protocol.
    pub(super) datatype: &'a str,
    pub(super) shape: &'a [i64],
    /// Little-endian, as in `raw_output_contents`; `None`: the message has none
    /// that fit type and shape.
    pub(super) raw: Option<Bytes>,
}

impl Tensor<'_> {
    pub(super) fn data_type(&self) -> Option<DataType> {
        from_name(self.datatype)
    }
}

/// The outputs of an answer, by name.
pub(super) fn outputs(response: &ModelInferResponse) -> BTreeMap<&str, Tensor<'_>> {
    let tensor = |(index, output)| {
        let output: &starling_proto::inference::model_infer_response::InferOutputTensor = output;
        let raw = response.raw_output_contents.get(index);
        (output.name.as_str(), tensor(&output.datatype, &output.shape, raw, output.contents.as_ref()))
    };
    response.outputs.iter().enumerate().map(tensor).collect()
}

/// The inputs of a request, in its order.
pub(super) fn inputs(request: &ModelInferRequest) -> Vec<(&str, Tensor<'_>)> {
    let tensor = |(index, input)| {
        let input: &starling_proto::inference::model_infer_request::InferInputTensor = input;
        let raw = request.raw_input_contents.get(index);
        (input.name.as_str(), tensor(&input.datatype, &input.shape, raw, input.contents.as_ref()))
    };
    request.inputs.iter().enumerate().map(tensor).collect()
}

fn tensor<'a>(
    datatype: &'a str,
    shape: &'a [i64],
    raw: Option<&Bytes>,
    contents: Option<&InferTensorContents>,
) -> Tensor<'a> {
    let data_type = from_name(datatype);
    let raw = match (raw, contents, data_type) {
        (Some(raw), _, _) => Some(Cow::Borrowed(raw)),
        (None, Some(contents), Some(data_type)) => encode(data_type, contents).map(Cow::Owned),
        _ => None,
    };
    let fits = |raw: &Cow<'_, Bytes>| data_type.is_some_and(|data_type| fits(data_type, shape, raw));
    Tensor { datatype, shape, raw: raw.filter(fits).map(Cow::into_owned) }
}

fn fits(data_type: DataType, shape: &[i64], raw: &Bytes) -> bool {
    let count = shape.iter().try_fold(1_usize, |count, length| {
        usize::try_from(*length).ok().and_then(|length| count.checked_mul(length))
    });
    let Some(count) = count else { return false };
    match element_bytes(data_type) {
        Some(size) => count.checked_mul(size) == Some(raw.len()),
        None => bytes_elements::check(raw, count).is_ok(),
    }
}

/// Typed contents as raw ones. `None`: the type has no typed contents, or a value
/// does not fit it.
fn encode(data_type: DataType, contents: &InferTensorContents) -> Option<Bytes> {
    let mut raw = BytesMut::new();
    match data_type {
        DataType::Bool => contents.bool_contents.iter().for_each(|value| raw.put_u8((*value).into())),
        DataType::Int8 => narrowed(&contents.int_contents, |value: i8| raw.put_i8(value))?,
        DataType::Int16 => narrowed(&contents.int_contents, |value: i16| raw.put_i16_le(value))?,
        DataType::Int32 => contents.int_contents.iter().for_each(|value| raw.put_i32_le(*value)),
        DataType::Int64 => contents.int64_contents.iter().for_each(|value| raw.put_i64_le(*value)),
        DataType::Uint8 => narrowed(&contents.uint_contents, |value: u8| raw.put_u8(value))?,
        DataType::Uint16 => narrowed(&contents.uint_contents, |value: u16| raw.put_u16_le(value))?,
        DataType::Uint32 => contents.uint_contents.iter().for_each(|value| raw.put_u32_le(*value)),
        DataType::Uint64 => contents.uint64_contents.iter().for_each(|value| raw.put_u64_le(*value)),
        DataType::Fp32 => contents.fp32_contents.iter().for_each(|value| raw.put_f32_le(*value)),
        DataType::Fp64 => contents.fp64_contents.iter().for_each(|value| raw.put_f64_le(*value)),
        DataType::Bytes => {
            for element in &contents.bytes_contents {
                raw.put_u32_le(u32::try_from(element.len()).ok()?);
                raw.put_slice(element);
            }
        }
        DataType::Fp16 | DataType::Bf16 => return None,
    }
    Some(raw.freeze())
}

fn narrowed<W: Copy, N: TryFrom<W>>(values: &[W], mut put: impl FnMut(N)) -> Option<()> {
    for value in values {
        put(N::try_from(*value).ok()?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn raw_of(datatype: &str, shape: &[i64], contents: InferTensorContents) -> Option<Vec<u8>> {
        tensor(datatype, shape, None, Some(&contents)).raw.map(|raw| raw.to_vec())
    }

    #[test]
    fn typed_contents_become_what_raw_ones_would_be() {
        let ints = || InferTensorContents { int_contents: vec![-1, 2], ..Default::default() };
        assert_eq!(raw_of("INT8", &[2], ints()).unwrap(), [0xff, 2]);
        assert_eq!(raw_of("INT16", &[2], ints()).unwrap(), [0xff, 0xff, 2, 0]);
        assert_eq!(raw_of("INT32", &[2], ints()).unwrap(), [0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0]);
        let uints = || InferTensorContents { uint_contents: vec![3], ..Default::default() };
        assert_eq!(raw_of("UINT8", &[1], uints()).unwrap(), [3]);
        assert_eq!(raw_of("UINT16", &[1], uints()).unwrap(), [3, 0]);
        assert_eq!(raw_of("UINT32", &[1, 1], uints()).unwrap(), [3, 0, 0, 0]);
        let bools = InferTensorContents { bool_contents: vec![true, false], ..Default::default() };
        assert_eq!(raw_of("BOOL", &[2], bools).unwrap(), [1, 0]);
        let texts =
            InferTensorContents { bytes_contents: vec!["ab".into(), "".into()], ..Default::default() };
        assert_eq!(raw_of("BYTES", &[2], texts).unwrap(), [2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0]);
        let floats = InferTensorContents { fp32_contents: vec![1.0], ..Default::default() };
        assert_eq!(raw_of("FP32", &[1], floats).unwrap(), [0, 0, 0x80, 0x3f]);
    }

    #[test]
    fn contents_that_do_not_fit_type_and_shape_are_none() {
        let ints = || InferTensorContents { int_contents: vec![300], ..Default::default() };
        assert_eq!(raw_of("INT8", &[1], ints()), None);
        assert_eq!(raw_of("INT32", &[2], ints()), None);
        assert_eq!(raw_of("FP16", &[1], ints()), None);
        assert_eq!(raw_of("INT33", &[1], ints()), None);
        assert_eq!(raw_of("INT32", &[-1], ints()), None);
        assert_eq!(tensor("FP32", &[2], Some(&Bytes::from_static(&[0; 7])), None).raw, None);
        assert_eq!(tensor("BYTES", &[1], Some(&Bytes::from_static(&[9, 0, 0, 0])), None).raw, None);
        assert_eq!(tensor("FP32", &[2], None, None).raw, None);
    }
}
