//! One input of one run: the contents of all its requests, one after another in
//! an aligned buffer that is kept from run to run.

use std::sync::Arc;

use bytes::Bytes;
use half::{bf16, f16};
use ort::session::SessionInputValue;
use ort::value::TensorRef;
use starling_proto::inference::InferTensorContents;
use starling_raft::state::models::DataType;

use super::bytes_elements;
use super::check::{CheckedInput, CheckedRequest, InputData};
use super::string_tensor;

/// A buffer of more elements than this is freed after its run.
const KEPT_ELEMENTS_MAX: usize = 1 << 20;

#[derive(Debug)]
enum Values {
    Bool(Vec<bool>),
    Uint8(Vec<u8>),
    Uint16(Vec<u16>),
    Uint32(Vec<u32>),
    Uint64(Vec<u64>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Fp16(Vec<f16>),
    Bf16(Vec<bf16>),
    Fp32(Vec<f32>),
    Fp64(Vec<f64>),
    Bytes(Vec<Bytes>),
}

/// Does the same with the vector of whichever type.
macro_rules! each {
    ($values:expr, $vector:ident => $action:expr) => {
        match $values {
            Values::Bool($vector) => $action,
            Values::Uint8($vector) => $action,
            Values::Uint16($vector) => $action,
            Values::Uint32($vector) => $action,
            Values::Uint64($vector) => $action,
            Values::Int8($vector) => $action,
            Values::Int16($vector) => $action,
            Values::Int32($vector) => $action,
            Values::Int64($vector) => $action,
            Values::Fp16($vector) => $action,
            Values::Bf16($vector) => $action,
            Values::Fp32($vector) => $action,
            Values::Fp64($vector) => $action,
            Values::Bytes($vector) => $action,
        }
    };
}

/// One input of one run.
#[derive(Debug)]
pub(crate) struct InputColumn {
    /// False: the model's own default stands in for it.
    present: bool,
    shape: Vec<i64>,
    values: Values,
}

impl InputColumn {
    pub(crate) fn new(data_type: DataType) -> Self {
        let values = match data_type {
            DataType::Bool => Values::Bool(Vec::new()),
            DataType::Uint8 => Values::Uint8(Vec::new()),
            DataType::Uint16 => Values::Uint16(Vec::new()),
            DataType::Uint32 => Values::Uint32(Vec::new()),
            DataType::Uint64 => Values::Uint64(Vec::new()),
            DataType::Int8 => Values::Int8(Vec::new()),
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::Fp16 => Values::Fp16(Vec::new()),
            DataType::Bf16 => Values::Bf16(Vec::new()),
            DataType::Fp32 => Values::Fp32(Vec::new()),
            DataType::Fp64 => Values::Fp64(Vec::new()),
            DataType::Bytes => Values::Bytes(Vec::new()),
        };
        Self { present: true, shape: Vec::new(), values }
    }

    /// Takes the input at `place` of every request, one after another on axis 0.
    pub(crate) fn fill(&mut self, place: usize, requests: &[Arc<CheckedRequest>]) {
        self.clear();
        for request in requests {
            let input = &request.inputs[place];
            if input.is_absent() {
                return self.leave_out();
            }
            if self.shape.is_empty() {
                self.shape.extend_from_slice(&input.shape);
            } else {
                self.shape[0] += input.shape[0];
            }
            self.push(input);
        }
    }

    /// Made-up contents, different from row to row, for trials and warming up.
    pub(crate) fn fill_with_samples(&mut self, shape: &[i64], first_row: usize) {
        self.clear();
        self.shape.extend_from_slice(shape);
        let rows = shape.first().copied().unwrap_or(1).max(0) as usize;
        let per_row = shape.iter().skip(1).product::<i64>().max(0) as usize;
        for row in first_row..first_row + rows {
            for index in 0..per_row {
                self.push_sample(row, index);
            }
        }
    }

    /// Has nothing for the next run: the model's default is used.
    pub(crate) fn leave_out(&mut self) {
        self.clear();
        self.present = false;
    }

    /// Whether there is something for the next run.
    pub(crate) fn is_present(&self) -> bool {
        self.present
    }

    pub(crate) fn as_input(&self) -> ort::Result<SessionInputValue<'_>> {
        let shape = self.shape.as_slice();
        Ok(match &self.values {
            Values::Bool(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
            Values::Uint8(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
            Values::Uint16(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
            Values::Uint32(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
            Values::Uint64(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
            Values::Int8(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
            Values::Int16(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
            Values::Int32(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
            Values::Int64(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
            Values::Fp16(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
            Values::Bf16(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
            Values::Fp32(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
            Values::Fp64(values) => TensorRef::from_array_view((shape, values.as_slice()))?.into(),
            Values::Bytes(values) => string_tensor::build(shape, values)?.into(),
        })
    }

    fn clear(&mut self) {
        self.present = true;
        self.shape.clear();
        each!(&mut self.values, vector => {
            vector.clear();
            vector.shrink_to(KEPT_ELEMENTS_MAX);
        });
    }

    fn push(&mut self, input: &CheckedInput) {
        match &input.data {
            InputData::Raw(raw) => self.push_raw(raw),
            InputData::Typed(contents) => self.push_typed(contents),
            InputData::Absent => {}
        }
    }

    fn push_raw(&mut self, raw: &Bytes) {
        match &mut self.values {
            Values::Bool(values) => values.extend(raw.iter().map(|byte| *byte != 0)),
            Values::Uint8(values) => values.extend_from_slice(raw),
            Values::Uint16(values) => extend(values, raw, u16::from_le_bytes),
            Values::Uint32(values) => extend(values, raw, u32::from_le_bytes),
            Values::Uint64(values) => extend(values, raw, u64::from_le_bytes),
            Values::Int8(values) => extend(values, raw, i8::from_le_bytes),
            Values::Int16(values) => extend(values, raw, i16::from_le_bytes),
            Values::Int32(values) => extend(values, raw, i32::from_le_bytes),
            Values::Int64(values) => extend(values, raw, i64::from_le_bytes),
            Values::Fp16(values) => extend(values, raw, f16::from_le_bytes),
            Values::Bf16(values) => extend(values, raw, bf16::from_le_bytes),
            Values::Fp32(values) => extend(values, raw, f32::from_le_bytes),
            Values::Fp64(values) => extend(values, raw, f64::from_le_bytes),
            Values::Bytes(values) => values.extend(bytes_elements::split(raw)),
        }
    }

    /// The check has made sure that narrow integers fit and that the half floats
    /// do not come this way.
    fn push_typed(&mut self, contents: &InferTensorContents) {
        let signed = contents.int_contents.iter();
        let unsigned = contents.uint_contents.iter();
        match &mut self.values {
            Values::Bool(values) => values.extend_from_slice(&contents.bool_contents),
            Values::Uint8(values) => values.extend(unsigned.map(|value| *value as u8)),
            Values::Uint16(values) => values.extend(unsigned.map(|value| *value as u16)),
            Values::Uint32(values) => values.extend(unsigned),
            Values::Uint64(values) => values.extend_from_slice(&contents.uint64_contents),
            Values::Int8(values) => values.extend(signed.map(|value| *value as i8)),
            Values::Int16(values) => values.extend(signed.map(|value| *value as i16)),
            Values::Int32(values) => values.extend(signed),
            Values::Int64(values) => values.extend_from_slice(&contents.int64_contents),
            Values::Fp16(_) | Values::Bf16(_) => {}
            Values::Fp32(values) => values.extend_from_slice(&contents.fp32_contents),
            Values::Fp64(values) => values.extend_from_slice(&contents.fp64_contents),
            Values::Bytes(values) => values.extend(contents.bytes_contents.iter().cloned()),
        }
    }

    fn push_sample(&mut self, row: usize, index: usize) {
        let fraction = ((row * 7 + index * 3 + 1) % 11) as f32 * 0.1;
        let bit = ((row + index) % 2) as u8;
        match &mut self.values {
            Values::Bool(values) => values.push(bit == 1),
            Values::Uint8(values) => values.push(bit),
            Values::Uint16(values) => values.push(bit.into()),
            Values::Uint32(values) => values.push(bit.into()),
            Values::Uint64(values) => values.push(bit.into()),
            Values::Int8(values) => values.push(bit as i8),
            Values::Int16(values) => values.push(bit.into()),
            Values::Int32(values) => values.push(bit.into()),
            Values::Int64(values) => values.push(bit.into()),
            Values::Fp16(values) => values.push(f16::from_f32(fraction)),
            Values::Bf16(values) => values.push(bf16::from_f32(fraction)),
            Values::Fp32(values) => values.push(fraction),
            Values::Fp64(values) => values.push(fraction.into()),
            Values::Bytes(values) => values.push(Bytes::from_static(if bit == 0 { b"a" } else { b"b" })),
        }
    }
}

fn extend<T, const N: usize>(values: &mut Vec<T>, raw: &[u8], from_le_bytes: fn([u8; N]) -> T) {
    let (elements, _) = raw.as_chunks::<N>();
    values.extend(elements.iter().map(|element| from_le_bytes(*element)));
}
