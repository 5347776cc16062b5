//! Tensors as people write them in JSON, to and from the raw bytes of the wire.
//!
//! Pure: the shape is read off the nesting; what the signature leaves no doubt
//! about may be left out.

use half::{bf16, f16};
use serde_json::{Map, Value, json};

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
pub fn from_json(value: &Value, datatype: &str, expected: &[i64]) -> Result<RawTensor, String> {
    let mut shape = Vec::new();
    measure(value, &mut shape);
    let mut bytes = Vec::new();
    let mut count = 0;
    append(value, &shape, datatype, &mut bytes, &mut count)?;
    Ok(RawTensor { shape: fold_shape(shape, count, expected), bytes })
}

fn measure(value: &Value, shape: &mut Vec<i64>) {
    if let Value::Array(items) = value {
        shape.push(i64::try_from(items.len()).unwrap_or(i64::MAX));
        if let Some(first) = items.first() {
            measure(first, shape);
        }
    }
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

fn append(
    value: &Value,
    shape: &[i64],
    datatype: &str,
    bytes: &mut Vec<u8>,
    count: &mut i64,
) -> Result<(), String> {
    let Some((length, inner)) = shape.split_first() else {
        *count += 1;
        return append_element(value, datatype, bytes);
    };
    match value {
        Value::Array(items) if items.len() as i64 == *length => {
            items.iter().try_for_each(|item| append(item, inner, datatype, bytes, count))
        }
        Value::Array(items) => Err(format!("a row has {} elements where another has {length}", items.len())),
        other => Err(format!("{other} stands where a list of {length} was expected")),
    }
}

fn append_element(value: &Value, datatype: &str, bytes: &mut Vec<u8>) -> Result<(), String> {
    let wrong = || format!("{value} is not a {datatype}");
    let unsigned = |max: u64| value.as_u64().filter(|number| *number <= max).ok_or_else(wrong);
    let signed =
        |min: i64, max: i64| value.as_i64().filter(|number| (min..=max).contains(number)).ok_or_else(wrong);
    let float = || value.as_f64().ok_or_else(wrong);
    match datatype {
        "BOOL" => bytes.push(u8::from(value.as_bool().ok_or_else(wrong)?)),
        "UINT8" => bytes.push(unsigned(u64::from(u8::MAX))? as u8),
        "UINT16" => bytes.extend((unsigned(u64::from(u16::MAX))? as u16).to_le_bytes()),
        "UINT32" => bytes.extend((unsigned(u64::from(u32::MAX))? as u32).to_le_bytes()),
        "UINT64" => bytes.extend(unsigned(u64::MAX)?.to_le_bytes()),
        "INT8" => bytes.extend((signed(i64::from(i8::MIN), i64::from(i8::MAX))? as i8).to_le_bytes()),
        "INT16" => bytes.extend((signed(i64::from(i16::MIN), i64::from(i16::MAX))? as i16).to_le_bytes()),
        "INT32" => bytes.extend((signed(i64::from(i32::MIN), i64::from(i32::MAX))? as i32).to_le_bytes()),
        "INT64" => bytes.extend(signed(i64::MIN, i64::MAX)?.to_le_bytes()),
        "FP16" => bytes.extend(f16::from_f64(float()?).to_le_bytes()),
        "BF16" => bytes.extend(bf16::from_f64(float()?).to_le_bytes()),
        "FP32" => bytes.extend((float()? as f32).to_le_bytes()),
        "FP64" => bytes.extend(float()?.to_le_bytes()),
        "BYTES" => {
            let text = value.as_str().ok_or_else(wrong)?;
            let length = u32::try_from(text.len()).map_err(|_| wrong())?;
            bytes.extend(length.to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        other => return Err(format!("datatype {other} is not known to this client; update it")),
    }
    Ok(())
}

/// Shows raw output bytes as nested JSON lists. Bytes that are no UTF-8 are
/// shown with replacement characters.
pub fn to_json(bytes: &[u8], datatype: &str, shape: &[i64]) -> Result<Value, String> {
    let elements = elements(bytes, datatype)?;
    let expected: i64 = shape.iter().product();
    if elements.len() as i64 != expected {
        return Err(format!("the node sent {} elements for shape {shape:?}", elements.len()));
    }
    Ok(nest(&mut elements.into_iter(), shape))
}

fn nest(elements: &mut impl Iterator<Item = Value>, shape: &[i64]) -> Value {
    match shape.split_first() {
        None => elements.next().unwrap_or(Value::Null),
        Some((length, inner)) => (0..*length).map(|_| nest(elements, inner)).collect(),
    }
}

fn elements(bytes: &[u8], datatype: &str) -> Result<Vec<Value>, String> {
    macro_rules! fixed {
        ($type:ty, $show:expr) => {
            bytes
                .chunks_exact(size_of::<$type>())
                .filter_map(|chunk| chunk.try_into().ok())
                .map(|chunk| $show(<$type>::from_le_bytes(chunk)))
                .collect()
        };
    }
    Ok(match datatype {
        "BOOL" => bytes.iter().map(|byte| json!(*byte != 0)).collect(),
        "UINT8" => bytes.iter().map(|byte| json!(byte)).collect(),
        "UINT16" => fixed!(u16, |number| json!(number)),
        "UINT32" => fixed!(u32, |number| json!(number)),
        "UINT64" => fixed!(u64, |number| json!(number)),
        "INT8" => fixed!(i8, |number| json!(number)),
        "INT16" => fixed!(i16, |number| json!(number)),
        "INT32" => fixed!(i32, |number| json!(number)),
        "INT64" => fixed!(i64, |number| json!(number)),
        "FP16" => fixed!(f16, |number: f16| json!(number.to_f32())),
        "BF16" => fixed!(bf16, |number: bf16| json!(number.to_f32())),
        "FP32" => fixed!(f32, |number| json!(number)),
        "FP64" => fixed!(f64, |number| json!(number)),
        "BYTES" => strings(bytes)?,
        other => return Err(format!("datatype {other} is not known to this client; update it")),
    })
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
            assert_eq!(from_json(&value, "FP32", &expected).unwrap().shape, shape, "{value}");
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
            let tensor = from_json(&value, datatype, &[-1]).unwrap();
            assert_eq!(to_json(&tensor.bytes, datatype, &tensor.shape).unwrap(), value, "{datatype}");
        }
        for datatype in ["FP16", "BF16", "FP32"] {
            let tensor = from_json(&json!([0.5, -2.0]), datatype, &[-1]).unwrap();
            assert_eq!(to_json(&tensor.bytes, datatype, &[2]).unwrap(), json!([0.5, -2.0]), "{datatype}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let refused = |value: Value, datatype: &str| from_json(&value, datatype, &[-1]).unwrap_err();
        assert_eq!(refused(json!([256]), "UINT8"), "256 is not a UINT8");
        assert_eq!(refused(json!([1.5]), "INT64"), "1.5 is not a INT64");
        assert_eq!(refused(json!(["a"]), "FP32"), "\"a\" is not a FP32");
        assert_eq!(refused(json!([[1, 2], [3]]), "FP32"), "a row has 1 elements where another has 2");
        assert_eq!(refused(json!([[1], 2]), "FP32"), "2 stands where a list of 1 was expected");
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
