//! Every way in which a request can be wrong, and what is said about it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use starling_proto::inference::model_infer_request::InferRequestedOutputTensor;
use starling_proto::inference::{InferParameter, infer_parameter::ParameterChoice};

use super::*;

fn spec(name: &str, data_type: DataType, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), data_type, shape: shape.to_vec(), optional: false }
}

fn signature() -> Signature {
    Signature {
        inputs: vec![spec("x", DataType::Fp32, &[-1, 2]), spec("n", DataType::Int64, &[-1, 1])],
        outputs: vec![spec("y", DataType::Fp32, &[-1, 2]), spec("z", DataType::Int64, &[-1])],
        batchable: true,
    }
}

fn one(data_type: DataType, shape: &[i64]) -> Signature {
    Signature {
        inputs: vec![spec("x", data_type, shape)],
        outputs: vec![spec("y", data_type, shape)],
        batchable: true,
    }
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

fn raw_request(inputs: Vec<(InferInputTensor, &[u8])>) -> ModelInferRequest {
    let (inputs, contents): (Vec<_>, Vec<_>) =
        inputs.into_iter().map(|(input, raw)| (input, Bytes::copy_from_slice(raw))).unzip();
    ModelInferRequest { inputs, raw_input_contents: contents, ..ModelInferRequest::default() }
}

fn typed_request(mut input: InferInputTensor, contents: InferTensorContents) -> ModelInferRequest {
    input.contents = Some(contents);
    ModelInferRequest { inputs: vec![input], ..ModelInferRequest::default() }
}

fn refusal(signature: &Signature, request: ModelInferRequest) -> String {
    match check("m", signature, request) {
        Err(InferError::InvalidArgument(text)) => text,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn good() -> ModelInferRequest {
    raw_request(vec![(input("x", "FP32", &[2, 2]), &[0; 16]), (input("n", "INT64", &[2, 1]), &[0; 16])])
}

#[test]
fn a_good_request_has_its_inputs_in_the_order_of_the_model() {
    let mut request = good();
    request.inputs.reverse();
    request.raw_input_contents.reverse();
    request.id = "seven".to_owned();
    let checked = check("m", &signature(), request).unwrap();
    assert_eq!(checked.id, "seven");
    assert_eq!(checked.inputs[0].shape, [2, 2]);
    assert_eq!(checked.inputs[1].shape, [2, 1]);
    assert_eq!((checked.rows, checked.concatenable, checked.raw), (2, true, true));
    assert_eq!(checked.wanted, None);
}

#[test]
fn unknown_missing_and_repeated_inputs_are_named() {
    let mut request = good();
    request.inputs[1].name = "k".to_owned();
    assert_eq!(
        refusal(&signature(), request),
        "unexpected inference input 'k' for model 'm'; its inputs are 'x', 'n'"
    );
    let request = raw_request(vec![(input("x", "FP32", &[1, 2]), &[0; 8])]);
    assert_eq!(
        refusal(&signature(), request),
        "missing inference input 'n' for model 'm': INT64 [-1, 1] was expected"
    );
    let twice =
        raw_request(vec![(input("x", "FP32", &[1, 2]), &[0; 8]), (input("x", "FP32", &[1, 2]), &[0; 8])]);
    assert_eq!(refusal(&signature(), twice), "inference input 'x' for model 'm' came twice");
}

#[test]
fn a_wrong_type_says_both() {
    let mut request = good();
    request.inputs[0].datatype = "INT32".to_owned();
    assert_eq!(
        refusal(&signature(), request),
        "inference input 'x' data-type is 'INT32', but model 'm' expects 'FP32'"
    );
}

#[test]
fn wrong_rank_shape_and_sign_say_both_shapes() {
    for shape in [&[2_i64, 3][..], &[4], &[2, 2, 1], &[], &[-2, 2], &[-1, 2]] {
        let mut request = good();
        request.inputs[0].shape = shape.to_vec();
        assert_eq!(
            refusal(&signature(), request),
            format!("unexpected shape for input 'x' for model 'm'. Expected [-1, 2], got {shape:?}")
        );
    }
}

#[test]
fn a_shape_that_overflows_is_refused() {
    let signature = one(DataType::Fp32, &[-1, -1]);
    let huge = [i64::MAX, i64::MAX];
    let request = raw_request(vec![(input("x", "FP32", &huge), &[0; 4])]);
    assert_eq!(
        refusal(&signature, request),
        "the shape [9223372036854775807, 9223372036854775807] of input 'x' for model 'm' has more elements than memory can hold"
    );
}

#[test]
fn raw_contents_of_the_wrong_length_say_both_numbers() {
    let mut request = good();
    request.raw_input_contents[0] = Bytes::from_static(&[0; 15]);
    assert_eq!(
        refusal(&signature(), request),
        "input byte size mismatch for input 'x' for model 'm'. Expected 16, got 15"
    );
    let mut request = good();
    request.raw_input_contents.pop();
    assert_eq!(
        refusal(&signature(), request),
        "expected one raw_input_contents entry for each of the 2 inputs of the request for model 'm', got 1"
    );
}

#[test]
fn both_kinds_of_contents_are_refused() {
    let mut request = good();
    request.inputs[1].contents = Some(InferTensorContents::default());
    assert_eq!(
        refusal(&signature(), request),
        "contents field must not be specified when using raw_input_contents for 'n' for model 'm'"
    );
}

#[test]
fn typed_contents_must_be_in_the_field_of_their_type_and_complete() {
    let signature = one(DataType::Fp32, &[-1, 2]);
    let tensor = || input("x", "FP32", &[1, 2]);
    let wrong_field = InferTensorContents { int64_contents: vec![1, 2], ..InferTensorContents::default() };
    assert_eq!(
        refusal(&signature, typed_request(tensor(), wrong_field)),
        "contents of FP32 input 'x' for model 'm' must be in fp32_contents, but int64_contents came"
    );
    let two_fields = InferTensorContents {
        fp32_contents: vec![1.0, 2.0],
        fp64_contents: vec![1.0],
        ..InferTensorContents::default()
    };
    assert_eq!(
        refusal(&signature, typed_request(tensor(), two_fields)),
        "contents of FP32 input 'x' for model 'm' must be in fp32_contents, but fp64_contents came"
    );
    let too_few = InferTensorContents { fp32_contents: vec![1.0], ..InferTensorContents::default() };
    assert_eq!(
        refusal(&signature, typed_request(tensor(), too_few)),
        "unexpected number of elements for input 'x' for model 'm'. Expected 2, got 1"
    );
    assert_eq!(
        refusal(&signature, typed_request(tensor(), InferTensorContents::default())),
        "unable to find data for input tensor 'x' for model 'm' in request: 2 elements were expected in fp32_contents"
    );
}

#[test]
fn narrow_integers_must_fit() {
    let contents = InferTensorContents { int_contents: vec![127, -129], ..InferTensorContents::default() };
    let request = typed_request(input("x", "INT8", &[1, 2]), contents);
    assert_eq!(
        refusal(&one(DataType::Int8, &[-1, 2]), request),
        "the value -129 in input 'x' for model 'm' does not fit INT8"
    );
    let contents = InferTensorContents { uint_contents: vec![256], ..InferTensorContents::default() };
    let request = typed_request(input("x", "UINT8", &[1, 1]), contents);
    assert_eq!(
        refusal(&one(DataType::Uint8, &[-1, 1]), request),
        "the value 256 in input 'x' for model 'm' does not fit UINT8"
    );
}

#[test]
fn half_floats_must_be_raw() {
    let contents = InferTensorContents { fp32_contents: vec![1.0], ..InferTensorContents::default() };
    let request = typed_request(input("x", "FP16", &[1, 1]), contents);
    assert_eq!(
        refusal(&one(DataType::Fp16, &[-1, 1]), request),
        "input 'x' for model 'm' is FP16, which has no typed contents: send it in raw_input_contents"
    );
}

#[test]
fn bytes_framing_is_checked() {
    let request = raw_request(vec![(input("x", "BYTES", &[2, 1]), b"\x01\0\0\0a\x05\0\0\0b")]);
    assert_eq!(
        refusal(&one(DataType::Bytes, &[-1, 1]), request),
        "wrong raw contents of BYTES input 'x' for model 'm': element 1 says it has 5 bytes, but 1 are left"
    );
}

#[test]
fn outputs_come_in_the_order_asked_for_and_unknown_ones_are_named() {
    let wanted = |names: &[&str]| {
        let mut request = good();
        request.outputs = names
            .iter()
            .map(|name| InferRequestedOutputTensor { name: (*name).to_owned(), ..Default::default() })
            .collect();
        request
    };
    assert_eq!(check("m", &signature(), wanted(&["z", "y"])).unwrap().wanted, Some(vec![1, 0]));
    assert_eq!(
        refusal(&signature(), wanted(&["q"])),
        "unexpected inference output 'q' for model 'm'; its outputs are 'y', 'z'"
    );
}

#[test]
fn shared_memory_is_said_to_be_unsupported() {
    let parameter =
        || InferParameter { parameter_choice: Some(ParameterChoice::StringParam("r".to_owned())) };
    let mut request = good();
    request.inputs[0].parameters.insert("shared_memory_region".to_owned(), parameter());
    assert!(matches!(check("m", &signature(), request), Err(InferError::Unimplemented(_))));
    let mut request = good();
    let mut output = InferRequestedOutputTensor { name: "y".to_owned(), ..Default::default() };
    output.parameters.insert("shared_memory_region".to_owned(), parameter());
    request.outputs = vec![output];
    assert!(matches!(check("m", &signature(), request), Err(InferError::Unimplemented(_))));
}

#[test]
fn a_tensor_without_elements_is_good_but_runs_alone() {
    let request = raw_request(vec![(input("x", "FP32", &[0, 2]), &[])]);
    let checked = check("m", &one(DataType::Fp32, &[-1, 2]), request).unwrap();
    assert_eq!((checked.inputs[0].elements, checked.rows, checked.concatenable), (0, 1, false));
}

#[test]
fn only_equal_shapes_beyond_axis_0_fit_together() {
    let signature = one(DataType::Fp32, &[-1, -1]);
    let of_shape = |shape: &[i64]| {
        let bytes = vec![0; 4 * shape.iter().product::<i64>() as usize];
        check("m", &signature, raw_request(vec![(input("x", "FP32", shape), &bytes)])).unwrap()
    };
    assert!(of_shape(&[1, 4]).fits_with(&of_shape(&[3, 4])));
    assert!(!of_shape(&[1, 4]).fits_with(&of_shape(&[1, 5])));
    assert!(!of_shape(&[1, 4]).fits_with(&of_shape(&[0, 4])));
}
