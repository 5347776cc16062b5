//! What comes back for what went in, in every type and both forms.

use bytes::Bytes;
use starling_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use starling_proto::inference::{InferTensorContents, ModelInferRequest, ModelInferResponse};
use starling_raft::state::models::{InstanceMode, VersionSettings};

use crate::inference::InferError;
use crate::inference::testing::{
    fp32_bytes, fp32_values, host, host_for_a_core, int64_bytes, int64_values, load, on_a_core, raw_request,
};

/// Both kinds of instances give it, equal in every bit.
async fn answer(model: &str, request: ModelInferRequest) -> ModelInferResponse {
    let host = host().await;
    let version = load(&host, model, VersionSettings::default()).await;
    let dedicated = version.infer(request.clone(), None).await.unwrap().response;
    let local = local_answer(model, request).await;
    assert_eq!(local, dedicated);
    dedicated
}

async fn local_answer(model: &str, request: ModelInferRequest) -> ModelInferResponse {
    let host = host_for_a_core().await;
    let settings = VersionSettings { mode: InstanceMode::Local, ..VersionSettings::default() };
    let version = load(&host, model, settings).await;
    on_a_core(async move { version.infer(request, None).await.unwrap().response }).await
}

fn typed(name: &str, datatype: &str, shape: &[i64], contents: InferTensorContents) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        contents: Some(contents),
        ..InferInputTensor::default()
    }
}

#[tokio::test]
async fn a_matrix_product_is_computed_and_named() {
    let mut request = raw_request("x", "FP32", &[2, 64], fp32_bytes(&[[1.0; 64], [2.0; 64]].concat()));
    request.id = "request 7".to_owned();
    let response = answer("matmul", request).await;
    assert_eq!((response.model_name.as_str(), response.model_version.as_str()), ("matmul", "1"));
    assert_eq!(response.id, "request 7");
    assert_eq!(response.outputs.len(), 1);
    let output = &response.outputs[0];
    assert_eq!((output.name.as_str(), output.datatype.as_str()), ("y", "FP32"));
    assert_eq!(output.shape, [2, 8]);
    assert_eq!(output.contents, None);
    assert_eq!(
        fp32_values(&response.raw_output_contents[0]),
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0]
    );
}

#[tokio::test]
async fn typed_requests_are_answered_typed() {
    let request = ModelInferRequest {
        inputs: vec![
            typed(
                "weight",
                "FP64",
                &[1, 2],
                InferTensorContents { fp64_contents: vec![0.5, -2.0], ..Default::default() },
            ),
            typed(
                "code",
                "UINT8",
                &[1, 2],
                InferTensorContents { uint_contents: vec![0, 255], ..Default::default() },
            ),
            typed(
                "count",
                "INT32",
                &[1, 2],
                InferTensorContents { int_contents: vec![-1, 7], ..Default::default() },
            ),
            typed(
                "flag",
                "BOOL",
                &[1, 2],
                InferTensorContents { bool_contents: vec![true, false], ..Default::default() },
            ),
        ],
        ..ModelInferRequest::default()
    };
    let response = answer("mixed_inputs", request).await;
    assert!(response.raw_output_contents.is_empty());
    let contents: Vec<InferTensorContents> =
        response.outputs.into_iter().map(|output| output.contents.unwrap()).collect();
    assert_eq!(contents[0].bool_contents, [true, false]);
    assert_eq!(contents[1].int_contents, [-1, 7]);
    assert_eq!(contents[2].uint_contents, [0, 255]);
    assert_eq!(contents[3].fp64_contents, [0.5, -2.0]);
}

#[tokio::test]
async fn outputs_come_in_the_order_asked_for_and_no_others() {
    let mut request = ModelInferRequest::default();
    for (name, datatype, raw) in [
        ("flag", "BOOL", vec![1, 0]),
        ("count", "INT32", [5_i32.to_le_bytes(), (-5_i32).to_le_bytes()].concat()),
        ("code", "UINT8", vec![8, 9]),
        ("weight", "FP64", [1.5_f64.to_le_bytes(), 2.5_f64.to_le_bytes()].concat()),
    ] {
        let one = raw_request(name, datatype, &[1, 2], raw);
        request.inputs.extend(one.inputs);
        request.raw_input_contents.extend(one.raw_input_contents);
    }
    request.outputs = ["code_out", "flag_out"]
        .map(|name| InferRequestedOutputTensor { name: name.to_owned(), ..Default::default() })
        .to_vec();
    let response = answer("mixed_inputs", request).await;
    let names: Vec<&str> = response.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["code_out", "flag_out"]);
    assert_eq!(response.raw_output_contents, [Bytes::from_static(&[8, 9]), Bytes::from_static(&[1, 0])]);
}

#[tokio::test]
async fn bytes_travel_with_nul_and_without_utf8() {
    let raw = b"\x05\0\0\0a\0b\xff\xfe\x00\0\0\0".to_vec();
    let response = answer("identity_bytes", raw_request("x", "BYTES", &[2, 1], raw.clone())).await;
    assert_eq!(response.outputs[0].shape, [2, 1]);
    assert_eq!(response.raw_output_contents[0], raw);

    let contents = InferTensorContents {
        bytes_contents: vec![Bytes::from_static(b"ham"), Bytes::from_static(b"\0")],
        ..Default::default()
    };
    let request = ModelInferRequest {
        inputs: vec![typed("x", "BYTES", &[2, 1], contents.clone())],
        ..ModelInferRequest::default()
    };
    let response = answer("identity_bytes", request).await;
    assert_eq!(response.outputs[0].contents, Some(contents));
}

#[tokio::test]
async fn half_floats_and_long_integers_keep_their_bits() {
    let halves = vec![0x00, 0x3c, 0x01, 0x80];
    let response = answer("identity_fp16", raw_request("x", "FP16", &[1, 2], halves.clone())).await;
    assert_eq!(response.outputs[0].datatype, "FP16");
    assert_eq!(response.raw_output_contents[0], halves);

    let longs = int64_bytes(&[i64::MIN, i64::MAX]);
    let response = answer("identity_int64", raw_request("x", "INT64", &[1, 2], longs)).await;
    assert_eq!(int64_values(&response.raw_output_contents[0]), [i64::MIN, i64::MAX]);
}

#[tokio::test]
async fn tensors_without_elements_are_answered_with_such() {
    for shape in [[0, 4], [3, 0], [0, 0]] {
        let response = answer("identity_any_width", raw_request("x", "FP32", &shape, vec![])).await;
        assert_eq!(response.outputs[0].shape, shape);
        assert_eq!(response.raw_output_contents[0], b"".as_slice());
    }
}

#[tokio::test]
async fn a_fixed_batch_is_served_as_it_is() {
    let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let response = answer("fixed_batch", raw_request("x", "FP32", &[2, 3], fp32_bytes(&values))).await;
    assert_eq!(fp32_values(&response.raw_output_contents[0]), values);
}

#[tokio::test]
async fn a_classifier_of_scikit_learn_gives_labels_and_probabilities() {
    let points = || raw_request("X", "FP32", &[3, 2], fp32_bytes(&[0.0, 0.0, 10.0, 0.0, 0.0, 10.0]));
    let response = answer("classifier_int64", points()).await;
    assert_eq!(response.outputs[0].name, "output_label");
    assert_eq!(int64_values(&response.raw_output_contents[0]), [3, 5, 8]);
    assert_eq!(
        (response.outputs[1].name.as_str(), response.outputs[1].datatype.as_str()),
        ("output_probability", "FP32")
    );
    assert_eq!(response.outputs[1].shape, [3, 3]);
    let probabilities = fp32_values(&response.raw_output_contents[1]);
    for (row, chunk) in probabilities.chunks(3).enumerate() {
        assert!((chunk.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{probabilities:?}");
        assert!(chunk[row] > 0.9, "the right class is the surest: {probabilities:?}");
    }

    let response = answer("classifier_text", points()).await;
    assert_eq!(response.raw_output_contents[0], b"\x03\0\0\0ham\x04\0\0\0junk\x04\0\0\0spam".as_slice());
    assert_eq!(fp32_values(&response.raw_output_contents[1]), probabilities);
}

#[tokio::test]
async fn contents_that_the_model_cannot_take_are_refused_with_its_reason() {
    let host = host().await;
    let version = load(&host, "lookup", VersionSettings::default()).await;
    let error =
        version.infer(raw_request("index", "INT64", &[1], int64_bytes(&[9])), None).await.unwrap_err();
    let InferError::RefusedByModel(text) = error else { panic!("{error:?}") };
    assert!(text.starts_with("model 'lookup' cannot be run with this request: "), "{text}");
    assert!(text.contains("out of data bounds"), "{text}");
    let answer = version.infer(raw_request("index", "INT64", &[1], int64_bytes(&[3])), None).await.unwrap();
    assert_eq!(fp32_values(&answer.response.raw_output_contents[0]), [30.0, 31.0]);
}
