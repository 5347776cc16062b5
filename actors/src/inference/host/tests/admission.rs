//! What is refused before it runs: a full queue, a passed deadline, a caller who
//! has gone.

use starling_proto::inference::InferParameter;
use starling_proto::inference::infer_parameter::ParameterChoice;

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

#[tokio::test]
async fn the_most_urgent_of_those_who_wait_is_run_first() {
    let host = host().await;
    let settings = VersionSettings { priority_levels: 3, ..VersionSettings::default() };
    let version = load(&host, "slow_loop", settings).await;
    let running = spawn_infer(&version, slow(HALF_A_SECOND));
    until_waiting(&version, 1, 0).await;
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for (priority, before) in [(3, 0), (2, 1), (0, 2), (1, 3)] {
        let (version, order) = (Arc::clone(&version), Arc::clone(&order));
        let request = with_parameter(slow(1), "priority", ParameterChoice::Uint64Param(priority));
        waiting.push(tokio::spawn({
            let version = Arc::clone(&version);
            async move {
                version.infer(request, None).await.unwrap();
                order.lock().unwrap().push(priority);
            }
        }));
        until_waiting(&version, before + 2, before + 1).await;
    }
    running.await.unwrap().unwrap();
    futures::future::join_all(waiting).await;
    assert_eq!(*order.lock().unwrap(), [1, 2, 3, 0]);
    let request = with_parameter(slow(1), "priority", ParameterChoice::Uint64Param(4));
    let error = version.infer(request, None).await.unwrap_err();
    assert!(error.to_string().contains("'priority' is 4, but model 'slow_loop' has 3"), "{error}");
}

#[tokio::test]
async fn a_timeout_bounds_the_wait_and_not_the_run() {
    let first_host = host().await;
    let version = load(&first_host, "slow_loop", VersionSettings::default()).await;
    let timeout = |request| with_parameter(request, "timeout", ParameterChoice::Int64Param(100_000));
    let running = spawn_infer(&version, timeout(slow(HALF_A_SECOND)));
    until_waiting(&version, 1, 0).await;
    let error = version.infer(timeout(slow(1)), None).await.unwrap_err();
    assert!(
        matches!(&error, InferError::DeadlineExceeded(text) if text.contains("model 'slow_loop'")),
        "{error}"
    );
    assert_eq!(trips_made(&running.await.unwrap().unwrap()), HALF_A_SECOND);
    let own = VersionSettings { queue_timeout_micros: 100_000, ..VersionSettings::default() };
    let other_host = host().await;
    let version = load(&other_host, "slow_loop", own).await;
    let running = spawn_infer(&version, slow(HALF_A_SECOND));
    until_waiting(&version, 1, 0).await;
    let error = version.infer(slow(1), None).await.unwrap_err();
    assert!(error.to_string().contains("its timeout is 100ms"), "{error}");
    running.await.unwrap().unwrap();
}

fn with_parameter(mut request: ModelInferRequest, key: &str, choice: ParameterChoice) -> ModelInferRequest {
    let parameter = InferParameter { parameter_choice: Some(choice) };
    request.parameters.insert(key.to_owned(), parameter);
    request
}
