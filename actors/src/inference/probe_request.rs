//! A request that a node makes up to see whether a version works. Pure.

use bytes::Bytes;
use half::{bf16, f16};
use starling_raft::state::Signature;
use starling_raft::state::models::{DataType, TensorSpec};

use super::tensor::bytes_elements;
use super::tensor::check::{CheckedInput, CheckedRequest, InputData};

/// Larger made-up inputs would cost more than the probe is worth.
const ELEMENTS_MAX: usize = 1 << 20;
const NUMBER: f32 = 0.5;

/// One row; other dynamic axes are 1 long. `None`: an input would be too large.
pub(crate) fn made_up(signature: &Signature) -> Option<CheckedRequest> {
    let inputs = signature.inputs.iter().map(input).collect::<Option<Vec<CheckedInput>>>()?;
    Some(CheckedRequest {
        id: String::new(),
        inputs,
        rows: 1,
        concatenable: signature.batchable,
        raw: true,
        wanted: None,
    })
}

fn input(spec: &TensorSpec) -> Option<CheckedInput> {
    if spec.optional {
        return Some(CheckedInput::absent());
    }
    let shape: Vec<i64> = spec.shape.iter().map(|length| if *length < 0 { 1 } else { *length }).collect();
    let elements = shape.iter().try_fold(1_usize, |count, length| count.checked_mul(*length as usize))?;
    if elements > ELEMENTS_MAX {
        return None;
    }
    Some(CheckedInput { shape, elements, data: InputData::Raw(contents(spec.data_type, elements)) })
}

/// Small values: most models take them for any meaning.
fn contents(data_type: DataType, elements: usize) -> Bytes {
    let repeat = |element: &[u8]| Bytes::from(element.repeat(elements));
    match data_type {
        DataType::Bool | DataType::Uint8 | DataType::Int8 => repeat(&[0]),
        DataType::Uint16 | DataType::Int16 => repeat(&[0; 2]),
        DataType::Uint32 | DataType::Int32 => repeat(&[0; 4]),
        DataType::Uint64 | DataType::Int64 => repeat(&[0; 8]),
        DataType::Fp16 => repeat(&f16::from_f32(NUMBER).to_le_bytes()),
        DataType::Bf16 => repeat(&bf16::from_f32(NUMBER).to_le_bytes()),
        DataType::Fp32 => repeat(&NUMBER.to_le_bytes()),
        DataType::Fp64 => repeat(&f64::from(NUMBER).to_le_bytes()),
        DataType::Bytes => bytes_elements::join(std::iter::repeat_n(b"a".as_slice(), elements)).0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn signature(data_type: DataType, shape: &[i64]) -> Signature {
        let spec = TensorSpec { name: "x".into(), data_type, shape: shape.to_vec(), optional: false };
        Signature { inputs: vec![spec], outputs: vec![], batchable: true }
    }

    #[test]
    fn dynamic_axes_are_one_long_and_contents_have_the_right_length() {
        let probe = made_up(&signature(DataType::Fp32, &[-1, 3, -1])).unwrap();
        assert_eq!(probe.inputs[0].shape, [1, 3, 1]);
        let InputData::Raw(raw) = &probe.inputs[0].data else { panic!("raw is expected") };
        assert_eq!(&raw[..], 0.5_f32.to_le_bytes().repeat(3));
        let probe = made_up(&signature(DataType::Bytes, &[2])).unwrap();
        let InputData::Raw(raw) = &probe.inputs[0].data else { panic!("raw is expected") };
        assert_eq!(&raw[..], b"\x01\0\0\0a\x01\0\0\0a");
    }

    #[test]
    fn inputs_beyond_all_measure_are_not_made_up() {
        assert!(made_up(&signature(DataType::Fp32, &[i64::MAX, 2])).is_none());
        assert!(made_up(&signature(DataType::Uint8, &[1 << 21])).is_none());
    }
}
