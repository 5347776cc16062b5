//! What an output of a model is, and how it becomes a tensor: tensors as they
//! are, sequences of tensors stacked, probabilities by class as a matrix.

use ort::value::{DynTensorValueType, DynValue, TensorElementType, ValueType};
use starling_raft::state::models::{DataType, TensorSpec};

use super::tensor::columns_out::OutputColumn;
use super::tensor::data_type::from_runtime;
use super::zip_map;

/// What an output of a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// A tensor.
    Tensor,
    /// A sequence of tensors of this type; of one shape, or it cannot be served.
    Sequence(DataType),
    /// A sequence of maps from a number to a probability.
    NumberedClasses,
    /// A sequence of maps from a name to a probability.
    NamedClasses,
}

impl OutputKind {
    /// `None`: an output of this type cannot be served.
    pub(crate) fn of(value_type: &ValueType) -> Option<Self> {
        let ValueType::Sequence(element) = value_type else {
            return value_type.is_tensor().then_some(Self::Tensor);
        };
        match **element {
            ValueType::Tensor { ty, .. } => from_runtime(ty).map(Self::Sequence),
            ValueType::Map { key: TensorElementType::Int64, value: TensorElementType::Float32 } => {
                Some(Self::NumberedClasses)
            }
            ValueType::Map { key: TensorElementType::String, value: TensorElementType::Float32 } => {
                Some(Self::NamedClasses)
            }
            _ => None,
        }
    }

    /// As it is declared; `None`: it is a tensor and says so itself.
    pub(crate) fn converted_spec(self, name: &str, value_type: &ValueType) -> Option<TensorSpec> {
        let (data_type, shape) = match self {
            Self::Tensor => return None,
            Self::Sequence(data_type) => (data_type, stacked_shape(value_type)),
            Self::NumberedClasses | Self::NamedClasses => (DataType::Fp32, vec![-1, -1]),
        };
        Some(TensorSpec { name: name.to_owned(), data_type, shape, optional: false })
    }

    /// Copies an output out of the runtime.
    pub(crate) fn column(self, value: &DynValue) -> ort::Result<OutputColumn> {
        match self {
            Self::Tensor => OutputColumn::from_tensor(value),
            Self::Sequence(data_type) => stack(data_type, value),
            Self::NumberedClasses => zip_map::numbered(value),
            Self::NamedClasses => zip_map::named(value),
        }
    }
}

/// The length of the sequence comes first. No axes: their number is not known.
fn stacked_shape(value_type: &ValueType) -> Vec<i64> {
    let ValueType::Sequence(element) = value_type else { return Vec::new() };
    match element.tensor_shape() {
        Some(shape) if !shape.is_empty() => {
            [-1].into_iter().chain(shape.iter().map(|length| (*length).max(-1))).collect()
        }
        _ => Vec::new(),
    }
}

fn stack(data_type: DataType, value: &DynValue) -> ort::Result<OutputColumn> {
    let tensors = value.try_extract_sequence::<DynTensorValueType>()?;
    let mut columns = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        columns.push(OutputColumn::from_tensor(&tensor.into_dyn())?);
    }
    OutputColumn::stack(data_type, &columns).map_err(|(first, other)| {
        // The request made it so; another one may be answered.
        ort::Error::new_with_code(
            ort::ErrorCode::InvalidArgument,
            format!("an output is a sequence of tensors of different shapes ({first:?} and {other:?}), which are no one tensor"),
        )
    })
}
