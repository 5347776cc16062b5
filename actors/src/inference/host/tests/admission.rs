//! What is refused before it runs: a full queue, a passed deadline, a caller who
//! has gone.

use super::*;
use crate::inference::error::Overload;
use crate::inference::testing::{host, load};

const HALF_A_SECOND: i64 = 120_000;

#[tokio::test]
async fn a_full_queue_refuses_at_once_with_advice() {
    let host = host().await;
    let settings = VersionSettings { max_queue: 2, ..VersionSettings::default() };
    let version = load(&host, "slow_loop", settings).await;
    let running = spawn_infer(&version, slow(HALF_A_SECOND));
    until_waiting(&version, 1, 0).await;
    let waiting = [spawn_infer(&version, slow(1)), spawn_infer(&version, slow(2))];
    until_waiting(&version, 3, 2).await;

    let asked_at = Instant::now();
    let refusal = version.infer(slow(3), None).await.unwrap_err();
    assert!(asked_at.elapsed() < Duration::from_millis(100), "{:?}", asked_at.elapsed());
    let InferError::Overloaded { reason, text, retry_after } = refusal else { panic!("{refusal:?}") };
    assert_eq!(reason, Overload::QueueFull);
    assert_eq!(text, "the queue of model 'slow_loop' is full (2 requests wait); try again later");
    assert!(retry_after >= Duration::from_millis(1) && retry_after <= Duration::from_secs(30));

    assert_eq!(trips_made(&running.await.unwrap().unwrap()), HALF_A_SECOND);
    for (n, waiting) in waiting.into_iter().enumerate() {
        waiting.await.unwrap().unwrap_or_else(|error| panic!("{n}: {error}"));
    }
    version.infer(slow(3), None).await.expect("there is room again");
}

#[tokio::test]
async fn a_deadline_that_passes_in_the_queue_is_answered_then_and_not_run() {
    let host = host().await;
    let version = load(&host, "slow_loop", VersionSettings::default()).await;
    let running = spawn_infer(&version, slow(HALF_A_SECOND));
    until_waiting(&version, 1, 0).await;

    let asked_at = Instant::now();
    let error = version.infer(slow(1), Some(asked_at + Duration::from_millis(30))).await.unwrap_err();
    assert!(matches!(error, InferError::DeadlineExceeded(_)), "{error:?}");
    assert!(!running.is_finished(), "it was answered before its turn came");

    running.await.unwrap().unwrap();
    assert_eq!(version.statistics().execution_count, 1);
    assert_eq!(version.version.queue.len(), 0);
}

#[tokio::test]
async fn a_deadline_in_the_past_never_enters_the_queue() {
    let host = host().await;
    let version = load(&host, "matmul", VersionSettings::default()).await;
    let request = raw_request("x", "FP32", &[1, 64], vec![0; 256]);
    let error = version.infer(request.clone(), Some(Instant::now())).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the deadline of the request to model 'matmul' has passed, it has waited 0.0ns; it was not run"
    );
    assert_eq!(version.statistics().execution_count, 0);
    let in_time = Some(Instant::now() + Duration::from_secs(60));
    version.infer(request, in_time).await.expect("a deadline that does not pass changes nothing");
}

#[tokio::test]
async fn a_request_that_is_running_at_its_deadline_is_answered_when_its_run_ends() {
    let host = host().await;
    let version = load(&host, "slow_loop", VersionSettings::default()).await;
    let deadline = Instant::now() + Duration::from_millis(50);
    let answer = version.infer(slow(HALF_A_SECOND), Some(deadline)).await.unwrap();
    assert!(Instant::now() > deadline);
    assert_eq!(trips_made(&answer), HALF_A_SECOND);
}

#[tokio::test]
async fn a_caller_who_goes_takes_the_request_along() {
    let host = host().await;
    let version = load(&host, "slow_loop", VersionSettings::default()).await;
    let running = spawn_infer(&version, slow(HALF_A_SECOND));
    until_waiting(&version, 1, 0).await;
    let gone = spawn_infer(&version, slow(1));
    until_waiting(&version, 2, 1).await;
    gone.abort();
    until_waiting(&version, 1, 0).await;
    running.await.unwrap().unwrap();
    assert_eq!(version.statistics().execution_count, 1);
}
