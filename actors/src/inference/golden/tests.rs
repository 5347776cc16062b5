//! Samples that hold, samples that do not, and what is said of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use serde_json::{Value, json};
use starling_proto::inference::model_infer_response::InferOutputTensor;
use starling_raft::state::models::VersionSettings;

use super::*;
use crate::inference::testing::{host, key, model_file, runtime};

/// `matmul` with an input of ones: output j is j + 1.
fn sample_of_matmul(third_output: f64) -> Value {
    json!({
        "request": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64], "data": vec![1.0; 64]}]},
        "response": {"outputs": [{
            "name": "y", "datatype": "FP32", "shape": [1, 8], "data": [[1, 2, third_output, 4, 5, 6, 7, 8]]
        }]}
    })
}

fn folder_with(sample: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(model_file("matmul"), folder.path().join("model.onnx")).unwrap();
    fs::create_dir(folder.path().join("golden")).unwrap();
    fs::write(folder.path().join("golden/ones.json"), sample.to_string()).unwrap();
    folder
}

const DIFFERENCE: &str = "golden sample 'ones.json' is not reproduced: output 'y' differs in 1 of 8 elements, most at [0, 2]: expected 3.5, got 3, an error of 5e-1; allowed are rtol 1e-5 and atol 0e0";

#[test]
fn a_push_with_a_sample_that_holds_is_taken_and_one_that_does_not_is_refused() {
    runtime().inspect(folder_with(&sample_of_matmul(3.0)).path()).unwrap();
    let refused = runtime().inspect(folder_with(&sample_of_matmul(3.5)).path()).unwrap_err();
    assert_eq!(refused.to_string(), DIFFERENCE);
    let mut generous = sample_of_matmul(3.5);
    generous["atol"] = json!(0.5);
    runtime().inspect(folder_with(&generous).path()).unwrap();
}

#[tokio::test]
async fn a_version_whose_samples_do_not_hold_is_not_loaded() {
    let host = host().await;
    let signature = Arc::new(runtime().inspect(&model_file("matmul")).unwrap());
    let wrong = folder_with(&sample_of_matmul(3.5));
    let load = |path: &Path| {
        host.load(key("matmul"), path.to_owned(), Arc::clone(&signature), VersionSettings::default())
    };
    let error = load(wrong.path()).await.err().unwrap().to_string();
    assert_eq!(error, format!("version 1 of model 'matmul' cannot be loaded: {DIFFERENCE}"));
    assert!(host.all().is_empty());

    let right = folder_with(&sample_of_matmul(3.0));
    let version = load(right.path()).await.unwrap();
    assert_eq!(version.statistics().execution_count, 1, "the sample has gone through the queue");
}

#[test]
fn samples_that_cannot_be_read_or_run_say_why() {
    let mut unknown_input = sample_of_matmul(3.0);
    unknown_input["request"]["inputs"][0]["name"] = json!("z");
    let mut short = sample_of_matmul(3.0);
    short["request"]["inputs"][0]["data"] = json!([1]);
    let mut nothing = sample_of_matmul(3.0);
    nothing["response"]["outputs"] = json!([]);
    let mut typo = sample_of_matmul(3.0);
    typo["rtoll"] = json!(1);
    let mut negative = sample_of_matmul(3.0);
    negative["rtol"] = json!(-1);
    for (sample, reason) in [
        (unknown_input, "cannot be run: unexpected inference input 'z'"),
        (short, "cannot be read: tensor 'x': shape [1, 64] does not hold the 1 elements of data"),
        (nothing, "cannot be read: its response has no outputs, so it would prove nothing"),
        (typo, "cannot be read: unknown field `rtoll`"),
        (negative, "cannot be read: rtol is -1; it must be 0 or more"),
    ] {
        let error = runtime().inspect(folder_with(&sample).path()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("golden sample 'ones.json' {reason}")), "{error}");
    }
}

fn compared(datatype: &str, expected: Value, got: Value) -> Result<(), String> {
    let tensor = |data: &Value| {
        let length = data.as_array().map_or(0, Vec::len);
        json!({"name": "y", "datatype": datatype, "shape": [length], "data": data})
    };
    let document = |data: &Value| json!({"request": {"inputs": []}, "response": {"outputs": [tensor(data)]}});
    let parse = |data: &Value| GoldenSample::parse("s".to_owned(), document(data).to_string().as_bytes());
    let (expected, got) = (parse(&expected)?, parse(&got)?);
    let output = got.expected.first().unwrap();
    let answer = ModelInferResponse {
        outputs: vec![InferOutputTensor {
            name: output.name.clone(),
            datatype: datatype.to_owned(),
            shape: output.shape.clone(),
            ..InferOutputTensor::default()
        }],
        raw_output_contents: vec![output.raw.clone()],
        ..ModelInferResponse::default()
    };
    compare::compare(&expected, &answer).map_err(|difference| difference.to_string())
}

#[test]
fn numbers_may_differ_a_little_and_everything_else_not_at_all() {
    assert_eq!(compared("FP32", json!([1.0, 0.0]), json!([1.000_001, 0.0])), Ok(()));
    assert_eq!(compared("FP64", json!([null, "Infinity"]), json!(["NaN", "Infinity"])), Ok(()));
    for (datatype, expected, got, reason) in [
        (
            "FP32",
            json!([1.0, 2.0]),
            json!([1.1, 3.0]),
            "differs in 2 of 2 elements, most at [1]: expected 2, got 3, ",
        ),
        ("FP64", json!([1.0]), json!([null]), "differs in 1 of 1 elements, most at [0]: expected 1, got NaN"),
        ("FP64", json!(["Infinity"]), json!([1e300]), "most at [0]: expected inf, got 1000"),
        ("FP16", json!([1.0]), json!([2.0]), "expected 1, got 2, an error of 1e0"),
        (
            "INT8",
            json!([-1, 5]),
            json!([-2, 5]),
            "differs in 1 of 2 elements, most at [0]: expected -1, got -2",
        ),
        ("UINT64", json!([u64::MAX]), json!([1]), "expected 18446744073709551615, got 1"),
        ("BOOL", json!([true]), json!([false]), "expected true, got false"),
        (
            "BYTES",
            json!(["ham", "spam"]),
            json!(["ham", "junk"]),
            "most at [1]: expected \"spam\", got \"junk\"",
        ),
        ("INT32", json!([1, 2]), json!([1]), "output 'y' is INT32 [1], expected INT32 [2]"),
    ] {
        let difference = compared(datatype, expected, got).unwrap_err();
        assert!(difference.contains(reason), "{difference}");
    }
    assert_eq!(compared("INT8", json!([200]), json!([1])), Err("tensor 'y': 200 is no INT8".to_owned()));
    assert_eq!(
        compared("FP8", json!([1]), json!([1])),
        Err("tensor 'y': datatype 'FP8' is not known".to_owned())
    );
}
