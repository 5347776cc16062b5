//! Probabilities that scikit-learn exports give as a sequence of maps, one map
//! of class to probability per row, made into a matrix of FP32.
//!
//! Columns stand in ascending order of the class (numbers by value, names byte
//! by byte), which is the order of scikit-learn's `classes_`.

use std::hash::Hash;

use ort::value::{DynMapValueType, DynValue, IntoTensorElementType, TensorElementType, ValueType};

use super::tensor::columns_out::OutputColumn;

/// What an output of a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// A tensor.
    Tensor,
    /// A sequence of maps from a number to a probability.
    NumberedClasses,
    /// A sequence of maps from a name to a probability.
    NamedClasses,
}

/// `None`: an output of this type cannot be served.
pub(crate) fn kind(value_type: &ValueType) -> Option<OutputKind> {
    match value_type {
        ValueType::Tensor { .. } => Some(OutputKind::Tensor),
        ValueType::Sequence(element) => match **element {
            ValueType::Map { key: TensorElementType::Int64, value: TensorElementType::Float32 } => {
                Some(OutputKind::NumberedClasses)
            }
            ValueType::Map { key: TensorElementType::String, value: TensorElementType::Float32 } => {
                Some(OutputKind::NamedClasses)
            }
            _ => None,
        },
        _ => None,
    }
}

/// Copies an output out of the runtime.
pub(crate) fn column(kind: OutputKind, value: &DynValue) -> ort::Result<OutputColumn> {
    match kind {
        OutputKind::Tensor => OutputColumn::from_tensor(value),
        OutputKind::NumberedClasses => matrix::<i64>(value),
        OutputKind::NamedClasses => matrix::<String>(value),
    }
}

fn matrix<K>(value: &DynValue) -> ort::Result<OutputColumn>
where
    K: IntoTensorElementType + Clone + Hash + Ord,
{
    let maps = value.try_extract_sequence::<DynMapValueType>()?;
    let rows = maps.len();
    let mut classes: Option<Vec<K>> = None;
    let mut values = Vec::new();
    for map in maps {
        let mut row: Vec<(K, f32)> = map.try_extract_key_values::<K, f32>()?;
        row.sort_by(|(left, _), (right, _)| left.cmp(right));
        match &classes {
            None => classes = Some(row.iter().map(|(class, _)| class.clone()).collect()),
            Some(classes) => {
                let same = classes.iter().eq(row.iter().map(|(class, _)| class));
                if !same {
                    return Err(ort::Error::new("the rows of a sequence of maps have different classes"));
                }
            }
        }
        values.extend(row.into_iter().map(|(_, probability)| probability));
    }
    Ok(OutputColumn::from_matrix(&values, rows, classes.map_or(0, |classes| classes.len())))
}
