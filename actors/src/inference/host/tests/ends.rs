//! Loading, unloading, shutting down: nothing accepted is lost over it.

use super::*;
use crate::inference::testing::{host, key, load, model_file, runtime};

const A_FIFTH_OF_A_SECOND: i64 = 50_000;

#[tokio::test]
async fn unloading_answers_what_was_accepted_and_then_frees_it() {
    let host = host().await;
    let version = load(&host, "slow_loop", VersionSettings::default()).await;
    let accepted: Vec<_> = (0..3).map(|n| spawn_infer(&version, slow(A_FIFTH_OF_A_SECOND + n))).collect();
    until_waiting(&version, 3, 2).await;
    let unloading = tokio::spawn({
        let host = host.clone();
        async move { host.unload(&key("slow_loop")).await }
    });
    eventually("it is out of the table", || host.get(&key("slow_loop")).is_none()).await;
    eventually("it is draining", || {
        let late = futures::FutureExt::now_or_never(version.infer(slow(1), None));
        matches!(late, Some(Err(InferError::Unavailable(_))))
    })
    .await;
    for (n, accepted) in accepted.into_iter().enumerate() {
        assert_eq!(trips_made(&accepted.await.unwrap().unwrap()), A_FIFTH_OF_A_SECOND + n as i64);
    }
    unloading.await.unwrap();
    assert_eq!(version.version.live_threads.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_instance_killed_while_its_version_drains_still_costs_nothing() {
    let host = host().await;
    let version = load(&host, "slow_loop", VersionSettings::default()).await;
    let accepted = [spawn_infer(&version, slow(A_FIFTH_OF_A_SECOND)), spawn_infer(&version, slow(5))];
    until_waiting(&version, 2, 1).await;
    let unloading = tokio::spawn({
        let host = host.clone();
        async move { host.unload(&key("slow_loop")).await }
    });
    eventually("it is out of the table", || host.get(&key("slow_loop")).is_none()).await;
    assert!(version.kill_instance().await);
    for accepted in accepted {
        accepted.await.unwrap().unwrap();
    }
    unloading.await.unwrap();
}

#[tokio::test]
async fn loading_twice_gives_the_same_version_and_unloading_nothing_is_fine() {
    let host = host().await;
    host.unload(&key("matmul")).await;
    let (first, second) = tokio::join!(
        load(&host, "matmul", VersionSettings::default()),
        load(&host, "matmul", VersionSettings::default())
    );
    assert!(Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&first, &host.get(&key("matmul")).unwrap()));
    assert_eq!(host.all().len(), 1);
    host.unload(&key("matmul")).await;
    assert_eq!(host.all().len(), 0);
    let third = load(&host, "matmul", VersionSettings::default()).await;
    assert!(!Arc::ptr_eq(&first, &third));
}

#[tokio::test]
async fn a_file_that_is_no_model_or_another_one_is_refused_with_the_reason() {
    let host = host().await;
    let signature = Arc::new(runtime().inspect(&model_file("matmul")).unwrap());
    let load_file = |name: &str| {
        let file = model_file(name);
        host.load(key("matmul"), file, Arc::clone(&signature), VersionSettings::default())
    };
    let error = load_file("truncated").await.err().unwrap().to_string();
    assert_eq!(
        error,
        "version 1 of model 'matmul' cannot be loaded: the file is no ONNX model: a field is longer than what it is in at byte 23"
    );
    let error = load_file("identity_int64").await.err().unwrap().to_string();
    assert_eq!(
        error,
        "version 1 of model 'matmul' cannot be loaded: the file has other inputs or outputs than its registered signature"
    );
    let greedy = VersionSettings { instances: 65, ..VersionSettings::default() };
    let error = host.load(key("matmul"), model_file("matmul"), Arc::clone(&signature), greedy).await;
    assert_eq!(
        error.err().unwrap().to_string(),
        "version 1 of model 'matmul' cannot be loaded: instances is 65; at most 64 is allowed"
    );
    assert!(host.all().is_empty());
    load_file("matmul").await.expect("the right file loads");
}

#[tokio::test]
async fn shutting_down_answers_what_can_be_answered_in_time_and_refuses_the_rest() {
    let host = host().await;
    let quick = load(&host, "matmul", VersionSettings::default()).await;
    let stuck = load(&host, "slow_loop", VersionSettings::default()).await;
    let hanging = spawn_infer(&stuck, slow(i64::MAX));
    until_waiting(&stuck, 1, 0).await;
    let behind = spawn_infer(&stuck, slow(1));
    until_waiting(&stuck, 2, 1).await;
    host.shutdown(Duration::from_millis(100)).await;
    for refused in [hanging, behind] {
        let error = refused.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "this node is shutting down");
    }
    assert!(host.all().is_empty());
    let error = quick.infer(raw_request("x", "FP32", &[1, 64], vec![0; 256]), None).await.unwrap_err();
    assert!(matches!(error, InferError::Unavailable(_)), "{error:?}");
    let again = runtime().inspect(&model_file("matmul")).unwrap();
    let error = host
        .load(key("matmul"), model_file("matmul"), Arc::new(again), VersionSettings::default())
        .await
        .err()
        .unwrap();
    assert!(matches!(error, InferError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn two_hosts_in_one_process_do_not_meet() {
    let (one, other) = (host().await, host().await);
    let version = load(&one, "matmul", VersionSettings::default()).await;
    load(&other, "matmul", VersionSettings::default()).await;
    other.shutdown(Duration::from_secs(5)).await;
    version.infer(raw_request("x", "FP32", &[1, 64], vec![0; 256]), None).await.expect("it answers");
}
