//! What is read from real files, and why bad ones are turned away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::inference::testing::{model_file, runtime};

fn inspect(name: &str) -> Result<Signature, String> {
    runtime().inspect(&model_file(name)).map_err(|error| error.to_string())
}

/// `x FP32 [-1, 4] -> y FP32 [-1, 4] batchable`
fn text(signature: &Signature) -> String {
    let list = |specs: &[TensorSpec]| {
        let each = |spec: &TensorSpec| {
            let optional = if spec.optional { "?" } else { "" };
            format!("{}{optional} {} {:?}", spec.name, spec.data_type.name(), spec.shape)
        };
        specs.iter().map(each).collect::<Vec<_>>().join(", ")
    };
    let batchable = if signature.batchable { "batchable" } else { "one by one" };
    format!("{} -> {} {batchable}", list(&signature.inputs), list(&signature.outputs))
}

#[test]
fn signatures_are_read_as_the_models_mean_them() {
    let expected = [
        ("identity_fp32", "x FP32 [-1, 4] -> y FP32 [-1, 4] batchable"),
        ("identity_int64", "x INT64 [-1, 2] -> y INT64 [-1, 2] batchable"),
        ("identity_fp16", "x FP16 [-1, 2] -> y FP16 [-1, 2] batchable"),
        ("identity_bytes", "x BYTES [-1, 1] -> y BYTES [-1, 1] batchable"),
        ("identity_any_width", "x FP32 [-1, -1] -> y FP32 [-1, -1] batchable"),
        ("fixed_batch", "x FP32 [2, 3] -> y FP32 [2, 3] one by one"),
        ("matmul", "x FP32 [-1, 64] -> y FP32 [-1, 8] batchable"),
        (
            "mixed_inputs",
            "flag BOOL [-1, 2], count INT32 [-1, 2], code UINT8 [-1, 2], weight FP64 [-1, 2] -> \
             flag_out BOOL [-1, 2], count_out INT32 [-1, 2], code_out UINT8 [-1, 2], weight_out FP64 [-1, 2] batchable",
        ),
        ("lookup", "index INT64 [-1] -> y FP32 [-1, 2] batchable"),
        ("scalar", "x FP32 [] -> twice FP32 [], negative BOOL [] one by one"),
        ("default_input", "x FP32 [-1, 2], factor? FP32 [1] -> y FP32 [-1, 2] batchable"),
        ("sequence_even", "x FP32 [4, 2] -> y FP32 [-1, -1, -1] one by one"),
        ("sequence_ragged", "x FP32 [4, 2] -> y FP32 [] one by one"),
        ("nonzero", "x FP32 [-1, 3] -> y INT64 [2, -1] one by one"),
        ("no_inputs", " -> y INT64 [3] one by one"),
    ];
    for (name, signature) in expected {
        assert_eq!(text(&inspect(name).unwrap()), signature, "{name}");
    }
}

#[test]
fn exports_of_scikit_learn_give_a_label_and_a_matrix_of_probabilities() {
    assert_eq!(
        text(&inspect("classifier_int64").unwrap()),
        "X FP32 [-1, 2] -> output_label INT64 [-1], output_probability FP32 [-1, 3] batchable"
    );
    assert_eq!(
        text(&inspect("classifier_text").unwrap()),
        "X FP32 [-1, 2] -> output_label BYTES [-1], output_probability FP32 [-1, 3] batchable"
    );
}

#[test]
fn models_that_mix_rows_are_found_out_whatever_they_declare() {
    assert_eq!(text(&inspect("running_sum").unwrap()), "x FP32 [-1, 4] -> y FP32 [-1, 4] one by one");
    assert_eq!(text(&inspect("mean_over_rows").unwrap()), "x FP32 [-1, 4] -> y FP32 [1, 4] one by one");
}

#[test]
fn bad_files_are_refused_with_the_reason_of_the_runtime() {
    for (name, reason) in [
        ("truncated", "the file is no ONNX model: a field is longer than what it is in at byte 23"),
        ("not_onnx", "the file is no ONNX model: there is no such kind of field at byte "),
        (
            "future_opset",
            "ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions. Opset 9999 is under development",
        ),
        (
            "optional_input",
            "'x' is Option<Tensor<f32>(n, 2)>, which cannot be served: inputs must be tensors",
        ),
        ("unknown_operator", "example.nowhere:Frobnicate(-1) is not a registered function/op"),
        (
            "sequence_input",
            "'x' is Sequence<Tensor<f32>(n, 2)>, which cannot be served: inputs must be tensors",
        ),
    ] {
        let error = inspect(name).unwrap_err();
        assert!(error.contains(reason), "{name}: {error}");
        assert!(!error.contains("testdata"), "{name}: {error}");
    }
    let missing = inspect("no_such_file").unwrap_err();
    assert_eq!(missing, "the file cannot be read or written: No such file or directory (os error 2)");
}
