//! Probabilities that scikit-learn exports give as a sequence of maps, one map
//! of class to probability per row, made into a matrix of FP32.
//!
//! Columns stand in ascending order of the class (numbers by value, names byte
//! by byte), which is the order of scikit-learn's `classes_`. The answer names
//! the classes in a parameter of the output.

use std::hash::Hash;
use std::sync::Arc;

use ort::value::{DynMapValueType, DynValue, IntoTensorElementType};
use serde::Serialize;

use super::tensor::columns_out::OutputColumn;

/// Of maps from numbers.
pub(crate) fn numbered(value: &DynValue) -> ort::Result<OutputColumn> {
    matrix::<i64>(value)
}

/// Of maps from names.
pub(crate) fn named(value: &DynValue) -> ort::Result<OutputColumn> {
    matrix::<String>(value)
}

fn matrix<K>(value: &DynValue) -> ort::Result<OutputColumn>
where
    K: IntoTensorElementType + Clone + Hash + Ord + Serialize,
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
    let columns = classes.as_ref().map_or(0, Vec::len);
    let classes = classes.and_then(|classes| serde_json::to_string(&classes).ok()).map(Arc::from);
    Ok(OutputColumn { classes, ..OutputColumn::from_matrix(&values, rows, columns) })
}
