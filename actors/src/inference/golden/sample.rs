//! One golden sample, read from JSON.

use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use half::{bf16, f16};
use serde::Deserialize;
use serde_json::Value;
use starling_proto::inference::{ModelInferRequest, model_infer_request::InferInputTensor};
use starling_raft::state::models::DataType;

use super::NotReproduced;
use crate::inference::tensor::data_type::from_name;

/// A sample is read into memory.
const SAMPLE_BYTES_MAX: u64 = 16 << 20;
const RTOL_DEFAULT: f64 = 1e-5;

/// A request and what must come of it.
#[derive(Debug)]
pub(super) struct GoldenSample {
    /// Of its file.
    pub name: String,
    pub request: ModelInferRequest,
    pub expected: Vec<ExpectedOutput>,
    /// Allowed difference, as a part of the expected number.
    pub rtol: f64,
    /// Allowed difference besides.
    pub atol: f64,
}

#[derive(Debug)]
pub(super) struct ExpectedOutput {
    pub name: String,
    pub data_type: DataType,
    pub shape: Vec<i64>,
    pub raw: Bytes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    request: RequestDocument,
    response: ResponseDocument,
    rtol: Option<f64>,
    atol: Option<f64>,
}

#[derive(Deserialize)]
struct RequestDocument {
    inputs: Vec<TensorDocument>,
}

#[derive(Deserialize)]
struct ResponseDocument {
    outputs: Vec<TensorDocument>,
}

#[derive(Deserialize)]
struct TensorDocument {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    data: Value,
}

impl GoldenSample {
    pub(super) fn read(file: &Path) -> Result<Self, NotReproduced> {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let refuse = |reason: String| NotReproduced {
            sample: name.clone(),
            reason: format!("cannot be read: {reason}"),
        };
        let size_bytes = std::fs::metadata(file).map_err(|error| refuse(error.to_string()))?.len();
        if size_bytes > SAMPLE_BYTES_MAX {
            return Err(refuse(format!("it has {size_bytes} bytes; at most {SAMPLE_BYTES_MAX} are allowed")));
        }
        let text = std::fs::read(file).map_err(|error| refuse(error.to_string()))?;
        Self::parse(name.clone(), &text).map_err(refuse)
    }

    pub(super) fn parse(name: String, text: &[u8]) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let tolerance = |given: Option<f64>, default, key| match given.unwrap_or(default) {
            number if number.is_finite() && number >= 0.0 => Ok(number),
            number => Err(format!("{key} is {number}; it must be 0 or more")),
        };
        let (rtol, atol) =
            (tolerance(document.rtol, RTOL_DEFAULT, "rtol")?, tolerance(document.atol, 0.0, "atol")?);
        if document.response.outputs.is_empty() {
            return Err("its response has no outputs, so it would prove nothing".to_owned());
        }
        let mut request = ModelInferRequest { id: name.clone(), ..ModelInferRequest::default() };
        for input in document.request.inputs {
            let (_, raw) = input.encode()?;
            request.raw_input_contents.push(raw);
            request.inputs.push(InferInputTensor {
                name: input.name,
                datatype: input.datatype,
                shape: input.shape,
                ..InferInputTensor::default()
            });
        }
        let mut expected = Vec::with_capacity(document.response.outputs.len());
        for output in document.response.outputs {
            let (data_type, raw) = output.encode()?;
            expected.push(ExpectedOutput { name: output.name, data_type, shape: output.shape, raw });
        }
        Ok(Self { name, request, expected, rtol, atol })
    }
}

impl TensorDocument {
    fn encode(&self) -> Result<(DataType, Bytes), String> {
        let wrong = |reason: String| format!("tensor '{}': {reason}", self.name);
        let data_type = from_name(&self.datatype)
            .ok_or_else(|| wrong(format!("datatype '{}' is not known", self.datatype)))?;
        let mut raw = BytesMut::new();
        let mut count = 0_i64;
        encode_nested(&self.data, data_type, &mut raw, &mut count).map_err(wrong)?;
        let wanted = self.shape.iter().try_fold(1_i64, |product, length| product.checked_mul(*length));
        if wanted != Some(count) || self.shape.iter().any(|length| *length < 0) {
            return Err(wrong(format!("shape {:?} does not hold the {count} elements of data", self.shape)));
        }
        Ok((data_type, raw.freeze()))
    }
}

fn encode_nested(
    value: &Value,
    data_type: DataType,
    raw: &mut BytesMut,
    count: &mut i64,
) -> Result<(), String> {
    let Value::Array(values) = value else {
        *count += 1;
        return encode(value, data_type, raw).ok_or_else(|| format!("{value} is no {}", data_type.name()));
    };
    values.iter().try_for_each(|value| encode_nested(value, data_type, raw, count))
}

/// Appends one element; `None`: it does not fit the type.
fn encode(value: &Value, data_type: DataType, raw: &mut BytesMut) -> Option<()> {
    match data_type {
        DataType::Bool => raw.put_u8(value.as_bool()?.into()),
        DataType::Uint8 => raw.put_u8(value.as_u64()?.try_into().ok()?),
        DataType::Uint16 => raw.put_u16_le(value.as_u64()?.try_into().ok()?),
        DataType::Uint32 => raw.put_u32_le(value.as_u64()?.try_into().ok()?),
        DataType::Uint64 => raw.put_u64_le(value.as_u64()?),
        DataType::Int8 => raw.put_i8(value.as_i64()?.try_into().ok()?),
        DataType::Int16 => raw.put_i16_le(value.as_i64()?.try_into().ok()?),
        DataType::Int32 => raw.put_i32_le(value.as_i64()?.try_into().ok()?),
        DataType::Int64 => raw.put_i64_le(value.as_i64()?),
        DataType::Fp16 => raw.put_slice(&f16::from_f64(float(value)?).to_le_bytes()),
        DataType::Bf16 => raw.put_slice(&bf16::from_f64(float(value)?).to_le_bytes()),
        DataType::Fp32 => raw.put_f32_le(float(value)? as f32),
        DataType::Fp64 => raw.put_f64_le(float(value)?),
        DataType::Bytes => {
            let text = value.as_str()?;
            raw.put_u32_le(text.len().try_into().ok()?);
            raw.put_slice(text.as_bytes());
        }
    }
    Some(())
}

/// What is no number in JSON is written as null, or by name.
fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Null => Some(f64::NAN),
        Value::String(name) => match name.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        number => number.as_f64(),
    }
}
