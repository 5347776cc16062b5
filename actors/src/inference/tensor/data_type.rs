//! Element types as raw contents and the runtime have them.

use ort::value::TensorElementType;
use starling_raft::state::models::DataType;

/// Bytes of one element in raw contents; `None` for BYTES, whose elements carry
/// their own length.
pub fn element_bytes(data_type: DataType) -> Option<usize> {
    match data_type {
        DataType::Bool | DataType::Uint8 | DataType::Int8 => Some(1),
        DataType::Uint16 | DataType::Int16 | DataType::Fp16 | DataType::Bf16 => Some(2),
        DataType::Uint32 | DataType::Int32 | DataType::Fp32 => Some(4),
        DataType::Uint64 | DataType::Int64 | DataType::Fp64 => Some(8),
        DataType::Bytes => None,
    }
}

/// As the protocol names it; `None`: it names no type so.
pub(crate) fn from_name(name: &str) -> Option<DataType> {
    DataType::ALL.into_iter().find(|data_type| data_type.name() == name)
}

/// `None`: the protocol has no name for it.
pub(crate) fn from_runtime(element_type: TensorElementType) -> Option<DataType> {
    Some(match element_type {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::Uint8,
        TensorElementType::Uint16 => DataType::Uint16,
        TensorElementType::Uint32 => DataType::Uint32,
        TensorElementType::Uint64 => DataType::Uint64,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Float16 => DataType::Fp16,
        TensorElementType::Bfloat16 => DataType::Bf16,
        TensorElementType::Float32 => DataType::Fp32,
        TensorElementType::Float64 => DataType::Fp64,
        TensorElementType::String => DataType::Bytes,
        _ => return None,
    })
}
