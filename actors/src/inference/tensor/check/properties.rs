//! Whatever a request holds, checking it answers: a request that fits the
//! signature to the byte, or a refusal. It never panics.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use starling_proto::inference::model_infer_request::InferRequestedOutputTensor;

use super::*;

fn signature(inputs: &[(DataType, Vec<i64>)]) -> Signature {
    let specs = inputs.iter().enumerate().map(|(index, (data_type, shape))| TensorSpec {
        name: format!("x{index}"),
        data_type: *data_type,
        shape: shape.clone(),
        optional: false,
    });
    let inputs: Vec<TensorSpec> = specs.collect();
    Signature { outputs: inputs.clone(), inputs, batchable: true }
}

/// Two inputs, one of fixed size and one of text.
fn known() -> Signature {
    signature(&[(DataType::Fp32, vec![-1, 2]), (DataType::Bytes, vec![-1])])
}

fn good() -> ModelInferRequest {
    let input = |name: &str, datatype: &str, shape: &[i64]| InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    };
    ModelInferRequest {
        model_name: "m".into(),
        id: "7".into(),
        inputs: vec![input("x0", "FP32", &[1, 2]), input("x1", "BYTES", &[1])],
        outputs: vec![InferRequestedOutputTensor { name: "x1".into(), ..Default::default() }],
        raw_input_contents: vec![Bytes::from(vec![0; 8]), Bytes::from_static(&[2, 0, 0, 0, b'a', b'b'])],
        ..ModelInferRequest::default()
    }
}

/// What later stages rely on without looking again.
fn assert_fits(signature: &Signature, checked: &CheckedRequest) {
    assert_eq!(checked.inputs.len(), signature.inputs.len());
    for (spec, input) in signature.inputs.iter().zip(&checked.inputs) {
        assert!(input.shape.iter().all(|length| *length >= 0), "{:?}", input.shape);
        assert_eq!(input.elements, input.shape.iter().product::<i64>() as usize);
        match &input.data {
            InputData::Raw(raw) => match element_bytes(spec.data_type) {
                Some(size) => assert_eq!(raw.len(), input.elements * size),
                None => assert_eq!(bytes_elements::split(raw).count(), input.elements),
            },
            InputData::Typed(contents) => {
                let counts = filled_fields(contents);
                assert!(counts.len() <= 1, "{counts:?}");
                assert_eq!(counts.first().map_or(0, |(_, count)| *count), input.elements);
            }
            InputData::Absent => assert!(spec.optional),
        }
    }
    for place in checked.wanted.iter().flatten() {
        assert!(*place < signature.outputs.len());
    }
}

/// Lengths that are odd: negative, none, far too many.
fn length() -> impl Strategy<Value = i64> {
    prop_oneof![-2_i64..5, Just(i64::MAX), Just(i64::MIN), Just(1 << 32), any::<i64>()]
}

proptest! {
    #[test]
    fn messages_with_bytes_changed_are_checked_or_refused(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
        is_cut: bool,
    ) {
        let mut bytes = good().encode_to_vec();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(request) = ModelInferRequest::decode(&bytes[..])
            && let Ok(checked) = check("m", &known(), request)
        {
            assert_fits(&known(), &checked);
        }
    }

    #[test]
    fn random_bytes_are_no_reason_to_panic(bytes in vec(any::<u8>(), 0..256)) {
        if let Ok(request) = ModelInferRequest::decode(&bytes[..]) {
            let _ = check("m", &known(), request);
        }
    }

    #[test]
    fn shapes_and_raw_contents_of_any_kind_are_checked_or_refused(
        data_type in prop::sample::select(&DataType::ALL[..]),
        said in prop::sample::select(&["FP32", "BYTES", "UINT8", "INT64", "FP8", ""][..]),
        truthful: bool,
        expected in vec(-1_i64..4, 0..4),
        shape in vec(length(), 0..4),
        raw in vec(any::<u8>(), 0..64),
    ) {
        let signature = signature(&[(data_type, expected)]);
        let datatype = if truthful { data_type.name() } else { said };
        let input = InferInputTensor {
            name: "x0".into(),
            datatype: datatype.to_owned(),
            shape,
            ..InferInputTensor::default()
        };
        let request = ModelInferRequest {
            inputs: vec![input],
            raw_input_contents: vec![raw.into()],
            ..ModelInferRequest::default()
        };
        match check("m", &signature, request) {
            Ok(checked) => assert_fits(&signature, &checked),
            Err(error) => prop_assert!(matches!(error, InferError::InvalidArgument(_)), "{error:?}"),
        }
    }

    #[test]
    fn typed_contents_of_any_kind_are_checked_or_refused(
        data_type in prop::sample::select(&DataType::ALL[..]),
        rows in 0_i64..4,
        ints in vec(any::<i32>(), 0..4),
        uints in vec(any::<u32>(), 0..4),
        doubles in vec(any::<f64>(), 0..4),
        texts in vec(vec(any::<u8>(), 0..4), 0..4),
    ) {
        let signature = signature(&[(data_type, vec![-1])]);
        let contents = InferTensorContents {
            bool_contents: ints.iter().map(|value| *value > 0).collect(),
            int_contents: ints,
            uint_contents: uints,
            fp64_contents: doubles,
            bytes_contents: texts.into_iter().map(Bytes::from).collect(),
            ..InferTensorContents::default()
        };
        // All fields at once, and the right one alone.
        for contents in [contents.clone(), only(data_type, contents)] {
            let input = InferInputTensor {
                name: "x0".into(),
                datatype: data_type.name().to_owned(),
                shape: vec![rows],
                contents: Some(contents),
                ..InferInputTensor::default()
            };
            let request = ModelInferRequest { inputs: vec![input], ..ModelInferRequest::default() };
            if let Ok(checked) = check("m", &signature, request) {
                assert_fits(&signature, &checked);
            }
        }
    }
}

fn only(data_type: DataType, all: InferTensorContents) -> InferTensorContents {
    let nothing = InferTensorContents::default();
    match typed_field(data_type) {
        Some("bool_contents") => InferTensorContents { bool_contents: all.bool_contents, ..nothing },
        Some("int_contents") => InferTensorContents { int_contents: all.int_contents, ..nothing },
        Some("uint_contents") => InferTensorContents { uint_contents: all.uint_contents, ..nothing },
        Some("fp64_contents") => InferTensorContents { fp64_contents: all.fp64_contents, ..nothing },
        Some("bytes_contents") => InferTensorContents { bytes_contents: all.bytes_contents, ..nothing },
        _ => nothing,
    }
}
