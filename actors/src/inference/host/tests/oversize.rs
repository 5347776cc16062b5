//! Requests of more rows than a run may have.

use starling_raft::state::models::Oversize;

use super::*;
use crate::inference::testing::{fp32_bytes, host, int64_values, load};

fn four_rows_a_run() -> VersionSettings {
    VersionSettings { max_batch: 4, ..VersionSettings::default() }
}

/// Row n is full of n.
fn rows(count: usize) -> ModelInferRequest {
    let values: Vec<f32> = (0..count).flat_map(|row| [row as f32; 64]).collect();
    raw_request("x", "FP32", &[count as i64, 64], fp32_bytes(&values))
}

#[tokio::test]
async fn a_request_of_more_rows_is_run_in_parts_and_answered_as_one() {
    let host = host().await;
    let version = load(&host, "matmul", four_rows_a_run()).await;
    let before = version.statistics().execution_count;
    let answer = version.infer(rows(10), None).await.unwrap();
    assert_eq!(answer.response.outputs[0].shape, [10, 8]);
    let values = fp32_values(&answer.response.raw_output_contents[0]);
    let first_of_each_row: Vec<f32> = values.chunks(8).map(|row| row[0]).collect();
    assert_eq!(first_of_each_row, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    // Four, four and two; those behind others may have run together.
    let runs = version.statistics().execution_count - before;
    assert_eq!(runs, 3);
    assert_eq!(version.statistics().inference_count, 10);
    let alone = version.infer(rows(4), None).await.unwrap();
    assert_eq!(alone.response.raw_output_contents[0], answer.response.raw_output_contents[0].slice(..4 * 32));
}

#[tokio::test]
async fn where_the_settings_say_so_it_is_refused_in_the_words_of_triton() {
    let host = host().await;
    let settings = VersionSettings { oversize: Oversize::Refuse, ..four_rows_a_run() };
    let version = load(&host, "matmul", settings).await;
    let error = version.infer(rows(5), None).await.unwrap_err();
    assert!(matches!(error, InferError::InvalidArgument(_)), "{error:?}");
    assert_eq!(error.to_string(), "inference request batch-size must be <= 4 for 'matmul'");
    version.infer(rows(4), None).await.expect("as many as a run may have");
}

#[tokio::test]
async fn a_part_that_cannot_be_run_fails_the_request_and_leaves_nothing_behind() {
    let host = host().await;
    let version = load(&host, "lookup", four_rows_a_run()).await;
    let request =
        |indices: &[i64]| raw_request("index", "INT64", &[indices.len() as i64], int64_bytes(indices));
    let mut indices = [1; 32];
    version.infer(request(&indices), None).await.expect("all of them are there");
    indices[17] = 1_000_000;
    let error = version.infer(request(&indices), None).await.unwrap_err();
    assert!(error.to_string().contains("model 'lookup' cannot be run with this request"), "{error}");
    assert_eq!((version.version.queue.len(), version.in_flight()), (0, 0));
    version.infer(request(&[1, 2]), None).await.expect("others are served");
}

#[tokio::test]
async fn parts_of_a_caller_who_goes_leave_the_queue() {
    let host = host().await;
    let version = load(&host, "matmul", VersionSettings { max_batch: 1, ..four_rows_a_run() }).await;
    let gone = spawn_infer(&version, rows(20_000));
    eventually("some parts have run", || version.statistics().execution_count > 3).await;
    gone.abort();
    until_waiting(&version, 0, 0).await;
    version.infer(rows(1), None).await.expect("it is free again");
    assert!(version.statistics().execution_count < 20_000);
}

#[tokio::test]
async fn typed_contents_and_more_parts_than_may_wait_are_no_obstacle() {
    let host = host().await;
    let settings = VersionSettings { max_batch: 2, max_queue: 1, ..VersionSettings::default() };
    let version = load(&host, "identity_int64", settings).await;
    let width = version.signature.inputs[0].shape.get(1).copied().filter(|width| *width > 0).unwrap_or(1);
    let numbers: Vec<i64> = (0..100 * width).collect();
    let request = raw_request("x", "INT64", &[100, width], int64_bytes(&numbers));
    let answer = version.infer(request, None).await.unwrap();
    assert_eq!(int64_values(&answer.response.raw_output_contents[0]), numbers);
}
