//! Local instances: what a core runs for those who ask it, and what it leaves to
//! the dedicated ones.

use futures::future::join_all;
use futures::poll;
use starling_raft::state::models::InstanceMode;

use super::*;
use crate::inference::error::Overload;
use crate::inference::testing::{
    PATIENCE, fp32_bytes, host, host_for_a_core, key, load, model_file, on_a_core, runtime,
};
use crate::inference::worker::PANICKING_ID;

fn local() -> VersionSettings {
    VersionSettings { mode: InstanceMode::Local, max_batch: 8, ..VersionSettings::default() }
}

fn row(values: &[f32]) -> ModelInferRequest {
    raw_request("x", "FP32", &[1, values.len() as i64], fp32_bytes(values))
}

fn values(answer: &Answer) -> Vec<f32> {
    fp32_values(&answer.response.raw_output_contents[0])
}

fn sessions_on_cores(version: &LoadedVersion) -> usize {
    version.version.lanes.as_ref().map_or(0, |lanes| lanes.sessions())
}

fn is_dedicated_now(version: &LoadedVersion) -> bool {
    version.version.lanes.as_ref().is_none_or(|lanes| lanes.is_closed())
}

/// All at once, from one core.
async fn infer_all(
    version: &Arc<LoadedVersion>,
    requests: Vec<ModelInferRequest>,
) -> Vec<Result<Answer, InferError>> {
    let version = Arc::clone(version);
    on_a_core(async move { join_all(requests.into_iter().map(|request| version.infer(request, None))).await })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_fast_model_is_local_where_there_are_cores_and_nowhere_else() {
    let with_a_core = host_for_a_core().await;
    let version = load(&with_a_core, "matmul", VersionSettings::default()).await;
    assert_eq!(sessions_on_cores(&version), 1);
    let without = host().await;
    let version = load(&without, "matmul", local()).await;
    assert_eq!(sessions_on_cores(&version), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_arrived_on_a_core_runs_together_up_to_the_batch_size() {
    let host = host_for_a_core().await;
    let version = load(&host, "identity_fp32", local()).await;
    let requests = (0..20).map(|n| row(&[n as f32, 0.0, 0.0, 1.0])).collect();
    let answers: Vec<Answer> = infer_all(&version, requests).await.into_iter().map(Result::unwrap).collect();
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(values(answer), [n as f32, 0.0, 0.0, 1.0]);
        assert_eq!(answer.response.outputs[0].shape, [1, 4]);
    }
    let rows: Vec<usize> = answers.iter().map(|answer| answer.batch_rows).collect();
    assert_eq!(rows, [[8; 16].as_slice(), [4; 4].as_slice()].concat());
    let statistics = version.statistics();
    assert_eq!((statistics.inference_count, statistics.execution_count), (20, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_from_a_thread_that_is_no_core_is_answered_as_well() {
    let host = host_for_a_core().await;
    let version = load(&host, "matmul", local()).await;
    let from_elsewhere = (0..8).map(|_| spawn_infer(&version, row(&[2.0; 64])));
    let from_elsewhere: Vec<_> = from_elsewhere.collect();
    for answer in infer_all(&version, vec![row(&[1.0; 64]); 8]).await {
        assert_eq!(values(&answer.unwrap())[7], 8.0);
    }
    for answer in from_elsewhere {
        assert_eq!(values(&answer.await.unwrap().unwrap())[7], 16.0);
    }
    assert_eq!(version.statistics().inference_count, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_threads_that_all_say_they_are_the_same_core_lose_nothing() {
    let host = host_for_a_core().await;
    let version = load(&host, "matmul", local()).await;
    let threads = (0..4).map(|thread| {
        let version = Arc::clone(&version);
        on_a_core(async move {
            for n in 0..100 {
                let requests = (0..4).map(|_| version.infer(row(&[(thread * 100 + n) as f32; 64]), None));
                for answer in join_all(requests).await {
                    assert_eq!(values(&answer.unwrap())[0], (thread * 100 + n) as f32);
                }
            }
        })
    });
    tokio::time::timeout(PATIENCE, join_all(threads)).await.expect("nobody is stranded");
    assert_eq!(version.statistics().inference_count, 1_600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_strands_nobody_and_is_not_run() {
    let host = host_for_a_core().await;
    let version = load(&host, "matmul", local()).await;
    let of_core = Arc::clone(&version);
    let answers = on_a_core(async move {
        let mut requests: Vec<_> =
            (0..4).map(|n| Box::pin(of_core.infer(row(&[n as f32; 64]), None))).collect();
        for request in &mut requests {
            assert!(poll!(request.as_mut()).is_pending(), "it waits for its turn");
        }
        drop(requests.remove(0));
        join_all(requests).await
    });
    let answers = tokio::time::timeout(PATIENCE, answers).await.expect("the others go on");
    let first: Vec<f32> = answers.into_iter().map(|answer| values(&answer.unwrap())[0]).collect();
    assert_eq!(first, [1.0, 2.0, 3.0]);
    assert_eq!(version.statistics().inference_count, 3);
    assert_eq!(version.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_its_batch_fails_alone() {
    let host = host_for_a_core().await;
    let version = load(&host, "lookup", local()).await;
    let requests = [1, 9, 2].map(|index| raw_request("index", "INT64", &[1], int64_bytes(&[index])));
    let answers = infer_all(&version, requests.to_vec()).await;
    assert_eq!(values(answers[0].as_ref().unwrap()), [10.0, 11.0]);
    assert!(matches!(answers[1], Err(InferError::RefusedByModel(_))), "{:?}", answers[1]);
    assert_eq!(values(answers[2].as_ref().unwrap()), [20.0, 21.0]);
    let statistics = version.statistics().inference_stats.unwrap();
    assert_eq!((statistics.success.unwrap().count, statistics.fail.unwrap().count), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_that_promises_rows_which_do_not_come_is_not_believed_twice() {
    let host = host_for_a_core().await;
    let file = model_file("mean_over_rows");
    let mut signature = runtime().inspect(&file).unwrap();
    signature.batchable = true;
    let version = host.load(key("mean_over_rows"), file, Arc::new(signature), local()).await.unwrap();
    for _ in 0..2 {
        let answers = infer_all(&version, vec![row(&[1.0; 4]), row(&[3.0; 4])]).await;
        assert_eq!(values(answers[0].as_ref().unwrap()), [1.0; 4]);
        assert_eq!(values(answers[1].as_ref().unwrap()), [3.0; 4]);
    }
    assert_eq!(version.statistics().execution_count, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_costs_its_own_request_only_and_the_session_is_replaced() {
    let host = host_for_a_core().await;
    let settings = VersionSettings { max_run_time_millis: 1_000, ..local() };
    let version = load(&host, "matmul", settings).await;
    let poison = ModelInferRequest { id: PANICKING_ID.to_owned(), ..row(&[0.0; 64]) };
    let error = infer_all(&version, vec![poison]).await.remove(0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "2 instances of model 'matmul' ended while they ran this request; it is not tried again"
    );
    let answer = infer_all(&version, vec![row(&[1.0; 64])]).await.remove(0);
    assert_eq!(values(&answer.unwrap())[0], 1.0);
    eventually("the core has a session again", || sessions_on_cores(&version) == 1).await;
    assert!(!is_dedicated_now(&version));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_beyond_its_time_is_ended_and_the_version_is_dedicated_from_then_on() {
    let host = host_for_a_core().await;
    let settings = VersionSettings { max_run_time_millis: 100, max_batch: 1, ..local() };
    let version = load(&host, "slow_loop", settings).await;
    assert_eq!(sessions_on_cores(&version), 1);
    let answers = infer_all(&version, vec![slow(i64::MAX), slow(7)]).await;
    assert_eq!(
        answers[0].as_ref().unwrap_err().to_string(),
        "the run of model 'slow_loop' took longer than its max_run_time of 100ms and was ended"
    );
    assert_eq!(trips_made(answers[1].as_ref().unwrap()), 7);
    assert!(is_dedicated_now(&version));
    assert_eq!(sessions_on_cores(&version), 0);
    let answer = infer_all(&version, vec![slow(8)]).await.remove(0).unwrap();
    assert_eq!(trips_made(&answer), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_turns_out_slow_is_dedicated_from_then_on() {
    let host = host_for_a_core().await;
    let settings = VersionSettings { max_run_time_millis: 2_000, ..VersionSettings::default() };
    let version = load(&host, "slow_loop", settings).await;
    assert_eq!(sessions_on_cores(&version), 1, "made-up rows make no trips");
    for _ in 0..5 {
        infer_all(&version, vec![slow(20_000)]).await.remove(0).unwrap();
    }
    eventually("its lanes are closed", || is_dedicated_now(&version)).await;
    assert_eq!(trips_made(&infer_all(&version, vec![slow(3)]).await.remove(0).unwrap()), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_a_passed_deadline_is_not_run() {
    let host = host_for_a_core().await;
    let version = load(&host, "matmul", VersionSettings { max_queue: 2, ..local() }).await;
    let answers = infer_all(&version, vec![row(&[1.0; 64]); 4]).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 2);
    assert!(
        matches!(&answers[3], Err(InferError::Overloaded { reason: Overload::QueueFull, .. })),
        "{:?}",
        answers[3]
    );
    let late = {
        let version = Arc::clone(&version);
        on_a_core(async move { version.infer(row(&[1.0; 64]), Some(Instant::now())).await })
    };
    assert!(matches!(late.await, Err(InferError::DeadlineExceeded { .. })));
    assert_eq!(version.statistics().inference_count, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_while_others_run_is_told_and_not_run() {
    let host = host_for_a_core().await;
    let settings = VersionSettings { max_batch: 1, ..local() };
    let version = load(&host, "slow_loop", settings).await;
    let of_core = Arc::clone(&version);
    let (long, late) = on_a_core(async move {
        let deadline = Some(Instant::now() + Duration::from_millis(20));
        futures::join!(of_core.infer(slow(50_000), None), of_core.infer(slow(1), deadline))
    })
    .await;
    assert_eq!(trips_made(&long.unwrap()), 50_000);
    assert!(matches!(late, Err(InferError::DeadlineExceeded { .. })), "{late:?}");
    assert_eq!(version.statistics().execution_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unloading_answers_what_the_cores_have_accepted() {
    let host = host_for_a_core().await;
    let version = load(&host, "slow_loop", VersionSettings { max_batch: 1, ..local() }).await;
    let of_core = Arc::clone(&version);
    let accepted = tokio::spawn(on_a_core(async move {
        join_all((0..3).map(|n| of_core.infer(slow(30_000 + n), None))).await
    }));
    eventually("they are in", || version.in_flight() == 3).await;
    tokio::time::timeout(PATIENCE, host.unload(&key("slow_loop"))).await.expect("it drains");
    for (n, answer) in accepted.await.unwrap().into_iter().enumerate() {
        assert_eq!(trips_made(&answer.unwrap()), 30_000 + n as i64);
    }
    let late = infer_all(&version, vec![slow(1)]).await.remove(0);
    assert!(matches!(late, Err(InferError::Unavailable(_))), "{late:?}");
    assert_eq!(version.version.live_threads.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_has_failed_answers_with_the_reason_on_the_cores_too() {
    let host = host_for_a_core().await;
    let version = load(&host, "matmul", local()).await;
    version.fail("it is broken");
    let error = infer_all(&version, vec![row(&[1.0; 64])]).await.remove(0).unwrap_err();
    assert_eq!(error.to_string(), "it is broken");
}

/// All that passes between arrival and the encoder belongs to one of the parts.
#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_the_statistics_cover_the_time_from_arrival_to_the_encoder() {
    for mode in [InstanceMode::Local, InstanceMode::Dedicated] {
        let host = host_for_a_core().await;
        let settings = VersionSettings { mode, ..VersionSettings::default() };
        let version = load(&host, "matmul", settings).await;
        let of_core = Arc::clone(&version);
        let total = on_a_core(async move {
            let mut total = Duration::ZERO;
            for _ in 0..500 {
                let arrived = Instant::now();
                let (answer, account) =
                    of_core.infer_on_account(row(&[1.0; 64]), arrived, None).await.unwrap();
                std::hint::black_box(answer);
                drop(account);
                total += arrived.elapsed();
            }
            total
        })
        .await;
        let statistics = version.statistics().inference_stats.unwrap();
        let parts =
            [statistics.queue, statistics.compute_input, statistics.compute_infer, statistics.compute_output];
        let nanos: u64 = parts.iter().map(|part| part.unwrap().ns).sum();
        assert_eq!(statistics.success.unwrap().ns, nanos);
        assert_eq!(statistics.success.unwrap().count, 500);
        let share = nanos as f64 / total.as_nanos() as f64;
        assert!((0.95..=1.0).contains(&share), "{mode:?}: the parts cover {share:.3} of the time");
    }
}
