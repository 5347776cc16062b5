//! Which requests run together, and that nobody suffers from the company.

use futures::future::join_all;
use starling_raft::state::models::InstanceMode;

use super::*;
use crate::inference::local::core::ReadRequest;
use crate::inference::testing::{
    eventually, fp32_bytes, host, host_for_a_core, key, load, model_file, on_a_core, runtime,
};

const WAIT_FOR_OTHERS: u64 = 200_000;

fn gathering(max_batch: u32) -> VersionSettings {
    VersionSettings { max_batch, max_queue_delay_micros: WAIT_FOR_OTHERS, ..VersionSettings::default() }
}

fn row(values: &[f32]) -> ModelInferRequest {
    raw_request("x", "FP32", &[1, values.len() as i64], fp32_bytes(values))
}

async fn infer_all(
    version: &LoadedVersion,
    requests: Vec<ModelInferRequest>,
) -> Vec<Result<Answer, InferError>> {
    join_all(requests.into_iter().map(|request| version.infer(request, None))).await
}

fn values(answer: &Answer) -> Vec<f32> {
    fp32_values(&answer.response.raw_output_contents[0])
}

#[tokio::test]
async fn a_full_batch_runs_at_once_and_each_gets_its_own_rows() {
    let host = host().await;
    let version = load(&host, "identity_fp32", gathering(4)).await;
    assert_eq!(version.max_batch(), 4);
    let requests = (0..8).map(|n| row(&[n as f32, 0.0, 0.0, 1.0])).collect();
    for (n, answer) in infer_all(&version, requests).await.into_iter().enumerate() {
        let answer = answer.unwrap();
        assert_eq!(answer.batch_rows, 4);
        assert_eq!(answer.response.outputs[0].shape, [1, 4]);
        assert_eq!(values(&answer), [n as f32, 0.0, 0.0, 1.0]);
    }
    assert_eq!(version.statistics().execution_count, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_instance_begins_once_all_that_have_arrived_on_a_core_are_in_line() {
    let host = host_for_a_core().await;
    let settings =
        VersionSettings { mode: InstanceMode::Dedicated, max_batch: 16, ..VersionSettings::default() };
    let version = load(&host, "identity_fp32", settings).await;
    for _ in 0..20 {
        eventually("the instance waits for work", || version.version.queue.idle_instances() == 1).await;
        let of = Arc::clone(&version);
        let rows = on_a_core(async move {
            let asked = (0..5).map(|n| {
                let (of, read) = (Arc::clone(&of), ReadRequest::begin());
                tokio::spawn(async move {
                    let _read = read;
                    of.infer(row(&[n as f32; 4]), None).await.unwrap().batch_rows
                })
            });
            join_all(asked.collect::<Vec<_>>()).await
        });
        let rows: Vec<usize> = rows.await.into_iter().map(Result::unwrap).collect();
        assert_eq!(rows, [5; 5]);
    }
}

#[tokio::test]
async fn while_a_run_takes_long_requests_gather_without_any_delay_set() {
    const ROWS: usize = 20_000;
    let host = host().await;
    let settings = VersionSettings { max_batch: ROWS as u32, ..VersionSettings::default() };
    let version = load(&host, "identity_fp32", settings).await;
    let large = raw_request("x", "FP32", &[ROWS as i64, 4], vec![0; ROWS * 16]);
    let mut requests = vec![large];
    requests.extend((0..10).map(|n| row(&[n as f32; 4])));
    let answers = infer_all(&version, requests).await;
    assert_eq!(answers[0].as_ref().unwrap().batch_rows, ROWS, "it fills a batch");
    let largest = answers[1..].iter().map(|answer| answer.as_ref().unwrap().batch_rows).max();
    assert!(largest > Some(1), "{largest:?}");
    for (n, answer) in answers[1..].iter().enumerate() {
        assert_eq!(values(answer.as_ref().unwrap()), [n as f32; 4]);
    }
}

#[tokio::test]
async fn many_clients_are_answered_in_fewer_runs_than_requests() {
    let host = host().await;
    let version =
        load(&host, "matmul", VersionSettings { max_batch: 32, ..VersionSettings::default() }).await;
    let clients = (0..32).map(|client| {
        let version = Arc::clone(&version);
        async move {
            for n in 0..50 {
                let value = (client * 50 + n) as f32;
                let answer = version.infer(row(&[value; 64]), None).await.unwrap();
                assert_eq!(values(&answer)[0], value);
            }
        }
    });
    join_all(clients).await;
    let statistics = version.statistics();
    assert_eq!(statistics.inference_count, 1_600);
    assert!(statistics.execution_count < 1_200, "{} runs", statistics.execution_count);
}

#[tokio::test]
async fn only_equal_shapes_share_a_run() {
    let host = host().await;
    let version = load(&host, "identity_any_width", gathering(4)).await;
    let requests = vec![row(&[1.0, 2.0]), row(&[3.0]), row(&[4.0, 5.0]), row(&[6.0])];
    let answers = infer_all(&version, requests).await;
    let answers: Vec<Answer> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        answers.iter().map(values).collect::<Vec<_>>(),
        [vec![1.0, 2.0], vec![3.0], vec![4.0, 5.0], vec![6.0]]
    );
    assert_eq!(answers.iter().map(|answer| answer.batch_rows).collect::<Vec<_>>(), [2, 2, 2, 2]);
}

#[tokio::test]
async fn a_request_that_fails_its_batch_fails_alone() {
    let host = host().await;
    let version = load(&host, "lookup", gathering(4)).await;
    let requests =
        [1, 9, 2, 3].map(|index| raw_request("index", "INT64", &[1], int64_bytes(&[index]))).to_vec();
    let answers = infer_all(&version, requests).await;
    assert_eq!(values(answers[0].as_ref().unwrap()), [10.0, 11.0]);
    assert!(matches!(answers[1], Err(InferError::RefusedByModel(_))), "{:?}", answers[1]);
    assert_eq!(values(answers[2].as_ref().unwrap()), [20.0, 21.0]);
    assert_eq!(values(answers[3].as_ref().unwrap()), [30.0, 31.0]);
    let statistics = version.statistics().inference_stats.unwrap();
    assert_eq!((statistics.success.unwrap().count, statistics.fail.unwrap().count), (3, 1));
}

#[tokio::test]
async fn models_that_mix_rows_and_those_told_so_run_one_by_one() {
    let host = host().await;
    let mixing = load(&host, "running_sum", gathering(4)).await;
    assert_eq!(mixing.max_batch(), 1);
    let answers = infer_all(&mixing, vec![row(&[1.0; 4]), row(&[2.0; 4])]).await;
    assert_eq!(values(answers[1].as_ref().unwrap()), [2.0; 4]);

    let settings = VersionSettings { batching_disabled: true, ..gathering(4) };
    let told = load(&host, "identity_fp32", settings).await;
    for answer in infer_all(&told, vec![row(&[1.0; 4]), row(&[2.0; 4])]).await {
        assert_eq!(answer.unwrap().batch_rows, 1);
    }
}

#[tokio::test]
async fn a_signature_that_promises_rows_which_do_not_come_is_not_believed_twice() {
    let host = host().await;
    let file = model_file("mean_over_rows");
    let mut signature = runtime().inspect(&file).unwrap();
    signature.batchable = true;
    let version = host.load(key("mean_over_rows"), file, Arc::new(signature), gathering(2)).await.unwrap();
    for _ in 0..2 {
        let answers = infer_all(&version, vec![row(&[1.0; 4]), row(&[3.0; 4])]).await;
        assert_eq!(values(answers[0].as_ref().unwrap()), [1.0; 4]);
        assert_eq!(values(answers[1].as_ref().unwrap()), [3.0; 4]);
    }
    assert_eq!(version.statistics().execution_count, 4);
}

#[tokio::test]
async fn a_batch_size_is_measured_where_none_is_set() {
    let host = host().await;
    let version = load(&host, "matmul", VersionSettings::default()).await;
    assert!((1..=64).contains(&version.max_batch()), "{}", version.max_batch());
    assert!(version.max_batch().is_power_of_two());
}
