//! Every type both ways, and what does not fit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use proptest::prelude::*;

use super::*;

fn raw(datatype: &str, shape: &[i64], json: &str) -> Result<Vec<u8>, String> {
    let data: TensorJson = serde_json::from_str(json).map_err(|error| error.to_string())?;
    data.into_raw(datatype, shape)
}

#[test]
fn every_type_has_its_bytes() {
    let cases: &[(&str, &str, Vec<u8>)] = &[
        ("BOOL", "[true,false]", vec![1, 0]),
        ("INT8", "[-128,127]", vec![0x80, 0x7f]),
        ("INT16", "[-2,258]", vec![0xfe, 0xff, 2, 1]),
        ("INT32", "[-1,65536]", vec![255, 255, 255, 255, 0, 0, 1, 0]),
        ("INT64", "[1,-1]", [1_i64.to_le_bytes(), (-1_i64).to_le_bytes()].concat()),
        ("UINT8", "[0,255]", vec![0, 255]),
        ("UINT16", "[0,65535]", vec![0, 0, 255, 255]),
        ("UINT32", "[1,4294967295]", vec![1, 0, 0, 0, 255, 255, 255, 255]),
        ("UINT64", "[1,18446744073709551615]", [1_u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat()),
        ("FP32", "[1,-0.5]", [1_f32.to_le_bytes(), (-0.5_f32).to_le_bytes()].concat()),
        ("FP64", "[1,0.1]", [1_f64.to_le_bytes(), 0.1_f64.to_le_bytes()].concat()),
        ("BYTES", r#"["a","é"]"#, vec![1, 0, 0, 0, b'a', 2, 0, 0, 0, 0xc3, 0xa9]),
    ];
    for (datatype, json, expected) in cases {
        assert_eq!(raw(datatype, &[2], json).as_ref(), Ok(expected), "{datatype}");
        let mut back = String::new();
        write_json(datatype, expected, &mut back).unwrap();
        let back_again = raw(datatype, &[2], &back);
        assert_eq!(back_again.as_ref(), Ok(expected), "{datatype} through {back}");
    }
}

#[test]
fn whole_numbers_beyond_the_reach_of_a_double_stay_exact() {
    let bytes = raw("UINT64", &[1], "[9007199254740993]").unwrap();
    assert_eq!(bytes, 9_007_199_254_740_993_u64.to_le_bytes());
    let mut json = String::new();
    write_json("UINT64", &bytes, &mut json).unwrap();
    assert_eq!(json, "[9007199254740993]");
}

#[test]
fn floats_are_read_to_the_last_bit() {
    let bytes = raw("FP64", &[1], "[-6.186066553078891e-217]").unwrap();
    assert_eq!(bytes, [178, 212, 176, 184, 208, 75, 11, 147]);
    let bytes = raw("FP64", &[1], "[2.2694463696961123e+109]").unwrap();
    assert_eq!(bytes, 6_242_925_388_372_648_109_u64.to_le_bytes());
}

#[test]
fn data_may_be_flat_or_nested_as_the_shape_says() {
    let expected = raw("UINT8", &[2, 3], "[1,2,3,4,5,6]").unwrap();
    assert_eq!(raw("UINT8", &[2, 3], "[[1,2,3],[4,5,6]]").unwrap(), expected);
    let transposed = raw("UINT8", &[2, 3], "[[1,2],[3,4],[5,6]]").unwrap_err();
    assert_eq!(transposed, "data is nested as [3, 2], shape says [2, 3]");
    assert!(raw("UINT8", &[3], "[[1,2],[3]]").unwrap_err().contains("unevenly"));
    assert!(raw("UINT8", &[3], "[1,[2,3]]").unwrap_err().contains("unevenly"));
    assert!(raw("UINT8", &[3], "[[1,2],3]").unwrap_err().contains("unevenly"));
}

#[test]
fn a_tensor_may_be_empty() {
    assert_eq!(raw("FP32", &[0, 4], "[]").unwrap(), Vec::<u8>::new());
    let mut json = String::new();
    write_json("FP32", &[], &mut json).unwrap();
    assert_eq!(json, "[]");
}

#[test]
fn what_does_not_fit_is_named() {
    let cases = [
        ("FP32", &[1, 16][..], "[1,2,3]", "shape [1, 16] has 16 elements, data has 3"),
        ("FP32", &[-1], "[1]", "shape [-1] must have lengths of 0 or more"),
        ("UINT8", &[1], "[256]", "256 is out of the range of UINT8"),
        ("INT32", &[1], "[1.5]", "1.5 is no whole number, INT32 needs one"),
        ("FP32", &[1], "[1e39]", "1000000000000000000000000000000000000000 is out of the range of FP32"),
        ("FP32", &[1], r#"["1"]"#, "datatype is FP32, data has strings"),
        ("BYTES", &[1], "[1]", "datatype is BYTES, data has numbers"),
        ("FP16", &[1], "[1]", "FP16 has no JSON form; send it as binary tensor data (binary_data_size)"),
        ("FP8", &[1], "[1]", "datatype 'FP8' is not known"),
    ];
    for (datatype, shape, json, expected) in cases {
        assert_eq!(raw(datatype, shape, json).unwrap_err(), expected);
    }
    for json in ["1", "null", r#"{"a":1}"#, "[null]", "[true,1]", r#"[1,"a"]"#] {
        assert!(raw("FP32", &[1], json).is_err(), "{json}");
    }
}

#[test]
fn floats_are_written_as_short_as_they_read_back() {
    let mut json = String::new();
    let raw: Vec<u8> = [1.0_f32, 0.1, f32::NAN].iter().flat_map(|value| value.to_le_bytes()).collect();
    write_json("FP32", &raw, &mut json).unwrap();
    assert_eq!(json, "[1.0,0.1,null]");
}

#[test]
fn bytes_that_are_not_text_are_refused_with_the_way_out() {
    let error = write_json("BYTES", &[1, 0, 0, 0, 0xff], &mut String::new()).unwrap_err();
    assert!(error.contains("binary_data"), "{error}");
}

fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

proptest! {
    #[test]
    fn what_was_written_reads_back_the_same(
        wide in proptest::collection::vec(any::<u64>(), 0..8),
        texts in proptest::collection::vec(".{0,8}", 0..8),
    ) {
        let narrow = |bytes: usize| -> Vec<u8> {
            wide.iter().flat_map(|value| value.to_le_bytes()[..bytes].to_vec()).collect()
        };
        let fp32 = |value: u64| (finite(f32::from_bits(value as u32).into()) as f32).to_le_bytes();
        let fp64 = |value: u64| finite(f64::from_bits(value)).to_le_bytes();
        let framed = |text: &String| [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
        let cases = [
            ("BOOL", wide.iter().map(|value| (value & 1) as u8).collect()),
            ("INT8", narrow(1)),
            ("INT16", narrow(2)),
            ("INT32", narrow(4)),
            ("INT64", narrow(8)),
            ("UINT8", narrow(1)),
            ("UINT16", narrow(2)),
            ("UINT32", narrow(4)),
            ("UINT64", narrow(8)),
            ("FP32", wide.iter().flat_map(|value| fp32(*value)).collect()),
            ("FP64", wide.iter().flat_map(|value| fp64(*value)).collect()),
            ("BYTES", texts.iter().flat_map(framed).collect::<Vec<u8>>()),
        ];
        for (datatype, bytes) in cases {
            let count = if datatype == "BYTES" { texts.len() } else { wide.len() };
            let mut json = String::new();
            write_json(datatype, &bytes, &mut json).unwrap();
            prop_assert_eq!(raw(datatype, &[count as i64], &json), Ok(bytes), "{} as {}", datatype, json);
        }
    }

    #[test]
    fn raw_bytes_of_any_kind_are_written_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        for datatype in ["BOOL", "INT16", "UINT64", "FP16", "FP32", "FP64", "BYTES", ""] {
            let mut json = String::new();
            if write_json(datatype, &bytes, &mut json).is_ok() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{}", json);
            }
        }
    }
}
