//! One output of one run, already in the wire's bytes. Answers are slices of it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use half::{bf16, f16};
use ort::value::{DynValue, PrimitiveTensorElementType, ValueType};
use starling_raft::state::models::DataType;

use super::data_type::{element_bytes, from_runtime};
use super::{bytes_elements, string_tensor};

/// One output of one run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OutputColumn {
    pub data_type: DataType,
    pub shape: Vec<i64>,
    /// All elements, as raw contents have them.
    pub raw: Bytes,
    /// BYTES only: where in `raw` each element begins, and where the last ends.
    pub starts: Option<Vec<usize>>,
    /// Of a matrix of probabilities: what its columns stand for, as a JSON list.
    pub classes: Option<Arc<str>>,
}

impl OutputColumn {
    /// Copies a tensor out of the runtime. Fails on what is no tensor of a type
    /// that the protocol knows.
    pub(crate) fn from_tensor(value: &DynValue) -> ort::Result<Self> {
        let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
            return Err(ort::Error::new(format!("expected a tensor, got {}", value.dtype())));
        };
        let Some(data_type) = from_runtime(*ty) else {
            return Err(ort::Error::new(format!("the protocol has no tensors of {ty}")));
        };
        let shape = shape.to_vec();
        if data_type == DataType::Bytes {
            let count = shape.iter().product::<i64>().max(0) as usize;
            let elements = string_tensor::read(value, count)?;
            let (raw, starts) = bytes_elements::join(elements.iter());
            return Ok(Self { data_type, shape, raw, starts: Some(starts), classes: None });
        }
        let raw = match data_type {
            DataType::Bool => encode(value, |flag: &bool| [u8::from(*flag)])?,
            DataType::Uint8 => encode(value, |number: &u8| number.to_le_bytes())?,
            DataType::Uint16 => encode(value, |number: &u16| number.to_le_bytes())?,
            DataType::Uint32 => encode(value, |number: &u32| number.to_le_bytes())?,
            DataType::Uint64 => encode(value, |number: &u64| number.to_le_bytes())?,
            DataType::Int8 => encode(value, |number: &i8| number.to_le_bytes())?,
            DataType::Int16 => encode(value, |number: &i16| number.to_le_bytes())?,
            DataType::Int32 => encode(value, |number: &i32| number.to_le_bytes())?,
            DataType::Int64 => encode(value, |number: &i64| number.to_le_bytes())?,
            DataType::Fp16 => encode(value, |number: &f16| number.to_le_bytes())?,
            DataType::Bf16 => encode(value, |number: &bf16| number.to_le_bytes())?,
            DataType::Fp32 => encode(value, |number: &f32| number.to_le_bytes())?,
            DataType::Fp64 => encode(value, |number: &f64| number.to_le_bytes())?,
            DataType::Bytes => Bytes::new(),
        };
        Ok(Self { data_type, shape, raw, starts: None, classes: None })
    }

    /// A matrix of FP32, row by row.
    pub(crate) fn from_matrix(values: &[f32], rows: usize, columns: usize) -> Self {
        Self {
            data_type: DataType::Fp32,
            shape: vec![rows as i64, columns as i64],
            raw: to_bytes(values, |value| value.to_le_bytes()),
            starts: None,
            classes: None,
        }
    }

    /// One after another along a new first axis. The error has the two shapes
    /// that differ.
    pub(crate) fn stack(data_type: DataType, columns: &[Self]) -> Result<Self, (Vec<i64>, Vec<i64>)> {
        let inner = columns.first().map(|first| first.shape.clone()).unwrap_or_default();
        if let Some(other) = columns.iter().find(|column| column.shape != inner) {
            return Err((inner, other.shape.clone()));
        }
        let shape = [columns.len() as i64].into_iter().chain(inner).collect();
        let raw: Bytes = columns.iter().flat_map(|column| &column.raw).copied().collect();
        let starts = (data_type == DataType::Bytes).then(|| bytes_elements::starts(&raw));
        Ok(Self { data_type, shape, raw, starts, classes: None })
    }

    /// Length of axis 0; `None`: there is no axis.
    pub(crate) fn rows(&self) -> Option<usize> {
        self.shape.first().map(|rows| (*rows).max(0) as usize)
    }

    /// The raw contents of some rows, sharing memory with the whole.
    pub(crate) fn raw_rows(&self, rows: &Range<usize>) -> Bytes {
        let per_row = self.shape.iter().skip(1).product::<i64>().max(0) as usize;
        let (first, end) = (rows.start * per_row, rows.end * per_row);
        match (&self.starts, element_bytes(self.data_type)) {
            (Some(starts), _) => self.raw.slice(starts[first]..starts[end]),
            (None, Some(size)) => self.raw.slice(first * size..end * size),
            (None, None) => Bytes::new(),
        }
    }
}

fn encode<T: PrimitiveTensorElementType, const N: usize>(
    value: &DynValue,
    to_le_bytes: impl Fn(&T) -> [u8; N],
) -> ort::Result<Bytes> {
    let (_, values) = value.try_extract_tensor::<T>()?;
    Ok(to_bytes(values, to_le_bytes))
}

fn to_bytes<T, const N: usize>(values: &[T], to_le_bytes: impl Fn(&T) -> [u8; N]) -> Bytes {
    let mut raw = vec![0_u8; values.len() * N];
    let (elements, _) = raw.as_chunks_mut::<N>();
    for (element, value) in elements.iter_mut().zip(values) {
        *element = to_le_bytes(value);
    }
    Bytes::from(raw)
}
