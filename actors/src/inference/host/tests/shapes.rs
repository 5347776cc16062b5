//! Models of every shape: scalars, defaults, sequences, all types, no inputs,
//! several files; and which of them run together.

use bytes::Bytes;
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_proto::inference::model_infer_request::InferInputTensor;
use starling_proto::inference::{ModelInferRequest, ModelInferResponse};
use starling_raft::state::models::VersionSettings;

use super::spawn_infer;
use crate::inference::testing::{fp32_bytes, fp32_values, host, int64_values, load, raw_request};
use crate::inference::{InferError, LoadedVersion};

async fn answer(model: &str, request: ModelInferRequest) -> ModelInferResponse {
    let host = host().await;
    let version = load(&host, model, VersionSettings::default()).await;
    version.infer(request, None).await.unwrap().response
}

fn with_input(
    mut request: ModelInferRequest,
    name: &str,
    datatype: &str,
    shape: &[i64],
    raw: Vec<u8>,
) -> ModelInferRequest {
    request.inputs.push(InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    });
    request.raw_input_contents.push(raw.into());
    request
}

#[tokio::test]
async fn a_scalar_goes_in_and_scalars_come_out() {
    let response = answer("scalar", raw_request("x", "FP32", &[], fp32_bytes(&[-1.5]))).await;
    assert!(response.outputs.iter().all(|output| output.shape.is_empty()));
    assert_eq!(response.raw_output_contents, [Bytes::from(fp32_bytes(&[-3.0])), Bytes::from_static(&[1])]);
}

#[tokio::test]
async fn every_type_keeps_its_bits() {
    let bytes = b"\x02\0\0\0\xff\0\x00\0\0\0";
    let inputs: [(&str, &[u8]); 14] = [
        ("bool", &[1, 0]),
        ("uint8", &[0, 255]),
        ("uint16", &[1, 0, 255, 255]),
        ("uint32", &[1, 0, 0, 0, 255, 255, 255, 255]),
        ("uint64", &[1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]),
        ("int8", &[128, 127]),
        ("int16", &[0, 128, 255, 127]),
        ("int32", &[0, 0, 0, 128, 255, 255, 255, 127]),
        ("int64", &[0, 0, 0, 0, 0, 0, 0, 128, 255, 255, 255, 255, 255, 255, 255, 127]),
        ("fp16", &[0, 60, 1, 0]),
        ("bf16", &[128, 63, 192, 127]),
        ("fp32", &[0, 0, 192, 127, 0, 0, 128, 255]),
        ("fp64", &[0, 0, 0, 0, 0, 0, 248, 127, 0, 0, 0, 0, 0, 0, 0, 128]),
        ("bytes", bytes),
    ];
    let request = inputs.iter().fold(ModelInferRequest::default(), |request, (name, raw)| {
        with_input(request, name, &name.to_uppercase(), &[1, 2], raw.to_vec())
    });
    let response = answer("all_types", request).await;
    for (((name, raw), output), got) in
        inputs.iter().zip(&response.outputs).zip(&response.raw_output_contents)
    {
        assert_eq!(output.name, format!("{name}_out"));
        assert_eq!(output.datatype, name.to_uppercase());
        assert_eq!(got, raw, "{name}");
    }
}

#[tokio::test]
async fn an_input_with_a_default_may_be_left_out() {
    let x = || raw_request("x", "FP32", &[1, 2], fp32_bytes(&[1.0, 2.0]));
    let response = answer("default_input", x()).await;
    assert_eq!(fp32_values(&response.raw_output_contents[0]), [3.0, 6.0]);
    let given = with_input(x(), "factor", "FP32", &[1], fp32_bytes(&[10.0]));
    let response = answer("default_input", given).await;
    assert_eq!(fp32_values(&response.raw_output_contents[0]), [10.0, 20.0]);
}

/// One instance, and time for everything to gather.
async fn gathering(model: &str) -> std::sync::Arc<LoadedVersion> {
    let host = host().await;
    let settings =
        VersionSettings { max_batch: 8, max_queue_delay_micros: 200_000, ..VersionSettings::default() };
    load(&host, model, settings).await
}

#[tokio::test]
async fn a_request_that_replaces_a_default_never_shares_its_run() {
    let version = gathering("default_input").await;
    let x = |value: f32| raw_request("x", "FP32", &[1, 2], fp32_bytes(&[value; 2]));
    let factor = |value: f32| with_input(x(1.0), "factor", "FP32", &[1], fp32_bytes(&[value]));
    let requests = [x(1.0), factor(10.0), factor(20.0), x(2.0)];
    let asked: Vec<_> = requests.into_iter().map(|request| spawn_infer(&version, request)).collect();
    let mut answers = Vec::new();
    for asked in asked {
        let answer = asked.await.unwrap().unwrap();
        answers.push(fp32_values(&answer.response.raw_output_contents[0])[0]);
    }
    assert_eq!(answers, [3.0, 10.0, 20.0, 6.0]);
}

#[tokio::test]
async fn models_of_a_fixed_batch_and_ragged_shapes_are_never_run_together() {
    for (model, shape) in [("fixed_batch", [2, 3]), ("sequence_even", [4, 2])] {
        let version = gathering(model).await;
        let elements = (shape[0] * shape[1]) as usize;
        let request = || raw_request("x", "FP32", &shape, fp32_bytes(&vec![1.0; elements]));
        let asked: Vec<_> = (0..4).map(|_| spawn_infer(&version, request())).collect();
        for asked in asked {
            assert_eq!(asked.await.unwrap().unwrap().batch_rows, 1, "{model}");
        }
    }
    // Widths differ, rows do not: only equal widths share a run.
    let version = gathering("identity_any_width").await;
    let request =
        |width: i64| raw_request("x", "FP32", &[1, width], fp32_bytes(&vec![width as f32; width as usize]));
    let asked: Vec<_> = [1, 2, 1, 3].map(|width| (width, spawn_infer(&version, request(width)))).into();
    for (width, asked) in asked {
        let answer = asked.await.unwrap().unwrap();
        assert_eq!(answer.response.outputs[0].shape, [1, width]);
        assert_eq!(fp32_values(&answer.response.raw_output_contents[0]), vec![width as f32; width as usize]);
        assert!(answer.batch_rows <= 2);
    }
}

#[tokio::test]
async fn a_sequence_of_equal_tensors_is_stacked_and_another_is_refused() {
    let x = || raw_request("x", "FP32", &[4, 2], fp32_bytes(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]));
    let response = answer("sequence_even", x()).await;
    assert_eq!(response.outputs[0].shape, [2, 2, 2]);
    assert_eq!(fp32_values(&response.raw_output_contents[0]), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);

    let host = host().await;
    let ragged = load(&host, "sequence_ragged", VersionSettings::default()).await;
    let error = ragged.infer(x(), None).await.unwrap_err();
    let InferError::RefusedByModel(text) = error else { panic!("{error:?}") };
    assert!(
        text.ends_with("an output is a sequence of tensors of different shapes ([1, 2] and [3, 2]), which are no one tensor"),
        "{text}"
    );
}

#[tokio::test]
async fn probabilities_say_which_classes_they_are_of() {
    for (model, classes) in [("classifier_int64", "[3,5,8]"), ("classifier_text", r#"["ham","junk","spam"]"#)]
    {
        let response = answer(model, raw_request("X", "FP32", &[1, 2], fp32_bytes(&[0.0, 0.0]))).await;
        assert!(response.outputs[0].parameters.is_empty());
        let parameter = response.outputs[1].parameters["classes"].parameter_choice.clone();
        assert_eq!(parameter, Some(ParameterChoice::StringParam(classes.to_owned())), "{model}");
    }
}

#[tokio::test]
async fn what_only_the_run_knows_and_what_needs_no_input_is_answered() {
    let response = answer("nonzero", raw_request("x", "FP32", &[1, 3], fp32_bytes(&[0.0, 5.0, 7.0]))).await;
    assert_eq!(response.outputs[0].shape, [2, 2]);
    assert_eq!(int64_values(&response.raw_output_contents[0]), [0, 0, 1, 2]);
    let response = answer("nonzero", raw_request("x", "FP32", &[1, 3], fp32_bytes(&[0.0; 3]))).await;
    assert_eq!(response.outputs[0].shape, [2, 0]);

    let response = answer("no_inputs", ModelInferRequest::default()).await;
    assert!(response.outputs[0].contents.is_some() || !response.raw_output_contents.is_empty());
    assert_eq!(response.outputs[0].shape, [3]);
}

#[tokio::test]
async fn a_model_of_several_files_computes_with_the_data_of_all() {
    let host = host().await;
    let folder = crate::inference::testing::model_file("external/model").parent().unwrap().to_owned();
    let signature = std::sync::Arc::new(crate::inference::testing::runtime().inspect(&folder).unwrap());
    let key = crate::inference::testing::key("external");
    let version = host.load(key, folder, signature, VersionSettings::default()).await.unwrap();
    let answer =
        version.infer(raw_request("x", "FP32", &[1, 2], fp32_bytes(&[1.0, 10.0])), None).await.unwrap();
    assert_eq!(fp32_values(&answer.response.raw_output_contents[0]), [31.0, 42.0]);
}
