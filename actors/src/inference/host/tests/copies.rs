//! Copies of requests for shadows: what they are to a version, and what they are
//! not.

use futures::future::join_all;
use starling_raft::state::models::InstanceMode;

use super::*;
use crate::inference::testing::{PATIENCE, fp32_bytes, host, host_for_a_core, load};

fn one_at_a_time() -> VersionSettings {
    VersionSettings { instances: 1, batching_disabled: true, ..VersionSettings::default() }
}

async fn copy(version: &LoadedVersion, request: ModelInferRequest) -> Result<ModelInferResponse, InferError> {
    version.infer_copy(request, Instant::now() + PATIENCE).await
}

#[tokio::test]
async fn a_copy_is_answered_and_stands_in_no_statistics() {
    let host = host().await;
    let version = load(&host, "identity_fp32", VersionSettings::default()).await;
    let answer = copy(&version, raw_request("x", "FP32", &[1, 4], fp32_bytes(&[1.0, 2.0, 3.0, 4.0]))).await;
    assert_eq!(fp32_values(&answer.unwrap().raw_output_contents[0]), [1.0, 2.0, 3.0, 4.0]);
    let refused = copy(&version, raw_request("x", "FP32", &[1, 5], vec![0; 20])).await;
    assert!(matches!(refused, Err(InferError::InvalidArgument(_))), "{refused:?}");
    let statistics = version.statistics();
    let inference = statistics.inference_stats.unwrap();
    assert_eq!((statistics.inference_count, statistics.execution_count), (0, 0));
    assert_eq!((inference.success.unwrap().count, inference.fail.unwrap().count), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_refused_where_a_request_waits_and_a_request_goes_before_it() {
    let host = host().await;
    let version = load(&host, "slow_loop", one_at_a_time()).await;
    let running = spawn_infer(&version, slow(100_000));
    until_waiting(&version, 1, 0).await;
    // It waits behind the run, where nobody else does.
    let copied = tokio::spawn({
        let version = Arc::clone(&version);
        async move { (copy(&version, slow(3)).await, version.statistics().execution_count) }
    });
    eventually("the copy waits", || version.version.queue.len() == 1).await;
    let asked = spawn_infer(&version, slow(2));
    eventually("a request waits", || version.version.queue.asked_len() == 1).await;
    let refused = copy(&version, slow(1)).await;
    assert!(matches!(refused, Err(InferError::Overloaded { .. })), "{refused:?}");
    for request in [running, asked] {
        request.await.unwrap().unwrap();
    }
    let (answer, runs) = copied.await.unwrap();
    assert_eq!(fp32_values(&answer.unwrap().raw_output_contents[0])[0] as i64, 3);
    assert_eq!(runs, 2, "both requests ran before the copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_time_is_over_leaves_the_queue() {
    let host = host().await;
    let version = load(&host, "slow_loop", one_at_a_time()).await;
    let running = spawn_infer(&version, slow(200_000));
    until_waiting(&version, 1, 0).await;
    let late = version.infer_copy(slow(1), Instant::now() + Duration::from_millis(5)).await;
    assert!(matches!(late, Err(InferError::DeadlineExceeded(_))), "{late:?}");
    assert_eq!(version.version.queue.len(), 0);
    running.await.unwrap().unwrap();
}

/// The copier is the one behind the last core.
async fn on_the_copier<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        crate::inference::local::core::enter(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _ = sender.send(runtime.block_on(future));
    });
    receiver.await.expect("the future panicked")
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_for_a_version_on_the_cores_run_on_the_thread_of_the_copier() {
    let host = host_for_a_core().await;
    let settings = VersionSettings { mode: InstanceMode::Local, max_batch: 8, ..VersionSettings::default() };
    let version = load(&host, "identity_fp32", settings).await;
    let of = Arc::clone(&version);
    let answers = on_the_copier(async move {
        let request = |n| raw_request("x", "FP32", &[1, 4], fp32_bytes(&[n as f32, 0.0, 0.0, 1.0]));
        join_all((0..8).map(|n| copy(&of, request(n)))).await
    })
    .await;
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(fp32_values(&answer.unwrap().raw_output_contents[0])[0], n as f32);
    }
    assert!(version.version.lanes.as_ref().is_some_and(|lanes| !lanes.is_closed()));
}
