//! Tensors as people write them in JSON, to and from the raw bytes of the wire.
//!
//! Pure: the shape is read off the nesting; what the signature leaves no doubt
//! about may be left out.

use half::{bf16, f16};
use serde_json::{Map, Value, json};

use crate::tensor_json::{TensorJson, write_json};

/// One input, ready for the wire.
#[derive(Debug, PartialEq)]
pub struct RawTensor {
    /// Sizes of the axes.
    pub shape: Vec<i64>,
    /// Row-major, little-endian.
    pub bytes: Vec<u8>,
}

/// Reads a JSON value as a tensor of `datatype`. `expected` is the signature's
/// shape, -1 for a dynamic axis: a flat list is folded into it where that is
/// possible in one way only, and one row may come without its batch axis.
pub fn from_json(value: Value, datatype: &str, expected: &[i64]) -> Result<RawTensor, String> {
    let is_scalar = !value.is_array();
    let list = if is_scalar { Value::Array(vec![value]) } else { value };
    let data: TensorJson = serde_json::from_value(list).map_err(|error| error.to_string())?;
    let written = if is_scalar { Vec::new() } else { data.nesting() };
    let count = i64::try_from(data.count()).unwrap_or(i64::MAX);
    let shape = fold_shape(written.clone(), count, expected);
    let bytes = match datatype {
        "FP16" => halves(data.into_raw("FP32", &written)?, |value| f16::from_f32(value).to_le_bytes()),
        "BF16" => halves(data.into_raw("FP32", &written)?, |value| bf16::from_f32(value).to_le_bytes()),
        datatype => data.into_raw(datatype, &written)?,
    };
    Ok(RawTensor { shape, bytes })
}

fn halves(singles: Vec<u8>, narrow: impl Fn(f32) -> [u8; 2]) -> Vec<u8> {
    let (singles, _) = singles.as_chunks::<4>();
    singles.iter().flat_map(|single| narrow(f32::from_le_bytes(*single))).collect()
}

fn fold_shape(written: Vec<i64>, count: i64, expected: &[i64]) -> Vec<i64> {
    if written.len() == expected.len() {
        return written;
    }
    let dynamic_batch = expected.first() == Some(&-1);
    let rest = expected.get(1..).unwrap_or_default();
    let one_row = written.len() + 1 == expected.len();
    let fits_row = one_row && rest.iter().zip(&written).all(|(wanted, has)| *wanted == -1 || wanted == has);
    if dynamic_batch && fits_row {
        return [&[1], &written[..]].concat();
    }
    let row: i64 = rest.iter().product();
    let fixed = rest.iter().all(|axis| *axis > 0);
    if dynamic_batch && fixed && written.len() == 1 && count % row == 0 {
        return [&[count / row], rest].concat();
    }
    written
}

/// Shows raw output bytes as nested JSON lists. Bytes that are no UTF-8 are
/// shown with replacement characters.
pub fn to_json(bytes: &[u8], datatype: &str, shape: &[i64]) -> Result<Value, String> {
    let elements = match datatype {
        "FP16" => written("FP32", &singles(bytes, |half| f16::from_le_bytes(half).to_f32()))?,
        "BF16" => written("FP32", &singles(bytes, |half| bf16::from_le_bytes(half).to_f32()))?,
        "BYTES" => strings(bytes)?,
        datatype => written(datatype, bytes)?,
    };
    let expected: i64 = shape.iter().product();
    if elements.len() as i64 != expected {
        return Err(format!("the node sent {} elements for shape {shape:?}", elements.len()));
    }
    Ok(nest(&mut elements.into_iter(), shape))
}

fn written(datatype: &str, bytes: &[u8]) -> Result<Vec<Value>, String> {
    let mut json = String::new();
    write_json(datatype, bytes, &mut json)?;
    serde_json::from_str(&json).map_err(|error| error.to_string())
}

fn singles(halves: &[u8], widen: impl Fn([u8; 2]) -> f32) -> Vec<u8> {
    let (halves, _) = halves.as_chunks::<2>();
    halves.iter().flat_map(|half| widen(*half).to_le_bytes()).collect()
}

fn nest(elements: &mut impl Iterator<Item = Value>, shape: &[i64]) -> Value {
    match shape.split_first() {
        None => elements.next().unwrap_or(Value::Null),
        Some((length, inner)) => (0..*length).map(|_| nest(elements, inner)).collect(),
    }
}

fn strings(mut bytes: &[u8]) -> Result<Vec<Value>, String> {
    let mut strings = Vec::new();
    while !bytes.is_empty() {
        let cut = || "the node sent a BYTES tensor that is cut short".to_owned();
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (text, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        strings.push(json!(String::from_utf8_lossy(text)));
        bytes = rest;
    }
    Ok(strings)
}

/// What the user wrote, by input name: `{"inputs": [{"name", "data", …}]}` as
/// the protocol has it, `{"name": [...]}`, or the bare list of the only input.
pub fn by_name(document: Value, input_names: &[&str]) -> Result<Map<String, Value>, String> {
    match document {
        Value::Object(mut object) => match object.remove("inputs") {
            Some(Value::Array(inputs)) => inputs.into_iter().map(named_input).collect(),
            Some(_) => Err("\"inputs\" must be a list of objects with name and data".to_owned()),
            None => Ok(object),
        },
        list => match input_names {
            [only] => Ok(Map::from_iter([((*only).to_owned(), list)])),
            several => Err(format!(
                "the model has {} inputs ({}); write an object with one list for each",
                several.len(),
                several.join(", ")
            )),
        },
    }
}

fn named_input(input: Value) -> Result<(String, Value), String> {
    let Value::Object(mut input) = input else {
        return Err("each of \"inputs\" must be an object with name and data".to_owned());
    };
    match (input.remove("name"), input.remove("data")) {
        (Some(Value::String(name)), Some(data)) => Ok((name, data)),
        _ => Err("each of \"inputs\" must be an object with name and data".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_shape_is_read_off_the_nesting_and_the_signature() {
        let cases = [
            (json!([[1, 2], [3, 4], [5, 6]]), vec![-1, 2], vec![3, 2]),
            (json!([1, 2]), vec![-1, 2], vec![1, 2]),
            (json!([1, 2, 3, 4]), vec![-1, 2], vec![2, 2]),
            (json!([1, 2, 3]), vec![-1], vec![3]),
            (json!(7), vec![], vec![]),
            (json!([1, 2, 3]), vec![-1, 2], vec![3]),
        ];
        for (value, expected, shape) in cases {
            assert_eq!(from_json(value.clone(), "FP32", &expected).unwrap().shape, shape, "{value}");
        }
    }

    #[test]
    fn every_datatype_survives_the_way_there_and_back() {
        let cases = [
            ("BOOL", json!([true, false])),
            ("UINT8", json!([0, 255])),
            ("UINT16", json!([0, 65_535])),
            ("UINT32", json!([0, 4_294_967_295_u64])),
            ("UINT64", json!([0, u64::MAX])),
            ("INT8", json!([-128, 127])),
            ("INT16", json!([-32_768, 32_767])),
            ("INT32", json!([i32::MIN, i32::MAX])),
            ("INT64", json!([i64::MIN, i64::MAX])),
            ("FP64", json!([0.1, -1e300])),
            ("BYTES", json!(["", "grüße"])),
        ];
        for (datatype, value) in cases {
            let tensor = from_json(value.clone(), datatype, &[-1]).unwrap();
            assert_eq!(to_json(&tensor.bytes, datatype, &tensor.shape).unwrap(), value, "{datatype}");
        }
        for datatype in ["FP16", "BF16", "FP32"] {
            let tensor = from_json(json!([0.5, -2.0]), datatype, &[-1]).unwrap();
            assert_eq!(to_json(&tensor.bytes, datatype, &[2]).unwrap(), json!([0.5, -2.0]), "{datatype}");
        }
    }

    #[test]
    fn floats_are_shown_with_the_digits_that_they_have() {
        let tensor = from_json(json!([0.1]), "FP32", &[-1]).unwrap();
        assert_eq!(to_json(&tensor.bytes, "FP32", &[1]).unwrap().to_string(), "[0.1]");
    }

    #[test]
    fn mistakes_are_named() {
        let refused = |value: Value, datatype: &str| from_json(value, datatype, &[-1]).unwrap_err();
        assert_eq!(refused(json!([256]), "UINT8"), "256 is out of the range of UINT8");
        assert_eq!(refused(json!([1.5]), "INT64"), "1.5 is no whole number, INT64 needs one");
        assert_eq!(refused(json!(["a"]), "FP32"), "datatype is FP32, data has strings");
        assert_eq!(refused(json!([[1, 2], [3]]), "FP32"), "data is nested unevenly");
        assert_eq!(refused(json!([[1], 2]), "FP32"), "data is nested unevenly");
    }

    #[test]
    fn three_ways_of_naming_inputs_are_understood() {
        let expected = Map::from_iter([("x".to_owned(), json!([1]))]);
        assert_eq!(by_name(json!([1]), &["x"]).unwrap(), expected);
        assert_eq!(by_name(json!({"x": [1]}), &["x"]).unwrap(), expected);
        assert_eq!(by_name(json!({"inputs": [{"name": "x", "data": [1]}]}), &["x"]).unwrap(), expected);
        assert!(by_name(json!([1]), &["x", "y"]).unwrap_err().contains("2 inputs (x, y)"));
    }
}
