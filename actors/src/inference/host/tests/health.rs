//! Probes, and versions that are given up.

use super::*;
use crate::inference::health_monitor;
use crate::inference::local_versions::LocalVersions;
use crate::inference::routing_table::VersionId;
use crate::inference::testing::{PATIENCE, host, load};
use crate::inference::worker::PANICKING_ID;

fn short_runs() -> VersionSettings {
    VersionSettings { max_run_time_millis: 200, batching_disabled: true, ..VersionSettings::default() }
}

#[tokio::test]
async fn a_probe_is_an_inference_that_no_statistics_count() {
    let host = host().await;
    for model in ["matmul", "mixed_inputs", "identity_bytes", "fixed_batch"] {
        let version = load(&host, model, VersionSettings::default()).await;
        let before = version.statistics();
        assert_eq!(version.probe().await, Ok(()), "{model}");
        let after = version.statistics();
        assert_eq!(
            (after.inference_count, after.execution_count),
            (before.inference_count, before.execution_count),
            "{model}"
        );
    }
}

#[tokio::test]
async fn a_probe_of_a_version_whose_queue_has_failed_says_why() {
    let host = host().await;
    let version = load(&host, "matmul", VersionSettings::default()).await;
    version.fail("it is broken");
    assert_eq!(version.probe().await, Err("it is broken".to_owned()));
}

#[tokio::test]
async fn a_probe_behind_runs_that_hang_ends_and_fails() {
    let host = host().await;
    let version = load(&host, "slow_loop", short_runs()).await;
    let hanging: Vec<_> = (0..20).map(|_| spawn_infer(&version, slow(i64::MAX))).collect();
    eventually("they are there", || version.in_flight() >= 10).await;
    let asked_at = Instant::now();
    let outcome = tokio::time::timeout(PATIENCE, version.probe()).await.expect("a probe ends");
    assert!(outcome.is_err(), "{outcome:?} after {:?}", asked_at.elapsed());
    hanging.into_iter().for_each(|request| request.abort());
}

#[tokio::test]
async fn runs_that_hang_five_times_in_a_row_are_the_end_of_a_version() {
    let host = host().await;
    let version = load(&host, "slow_loop", short_runs()).await;
    for _ in 0..5 {
        assert_eq!(version.failure(), None);
        version.infer(slow(i64::MAX), None).await.unwrap_err();
    }
    eventually("it is given up", || version.failure().is_some()).await;
    let reason = version.failure().unwrap();
    assert!(reason.contains("version 1 of model 'slow_loop' cannot be kept running"), "{reason}");
    assert!(matches!(version.infer(slow(1), None).await, Err(InferError::Unavailable(_))));
}

#[tokio::test]
async fn requests_that_instances_die_of_are_not_the_end_while_others_are_answered() {
    let host = host().await;
    let version = load(&host, "slow_loop", VersionSettings::default()).await;
    for _ in 0..6 {
        let poison = ModelInferRequest { id: PANICKING_ID.to_owned(), ..slow(1) };
        version.infer(poison, None).await.unwrap_err();
        version.infer(slow(1), None).await.expect("others are served");
    }
    assert_eq!(version.failure(), None);
}

#[tokio::test]
async fn the_monitor_finds_an_idle_version_that_does_not_work_and_one_that_works_again() {
    let host = host().await;
    let version =
        load(&host, "slow_loop", VersionSettings { max_run_time_millis: 1_000, ..short_runs() }).await;
    let local = Arc::new(LocalVersions::default());
    let id = VersionId { model_id: 1, ordinal: version.key.ordinal };
    local.insert(id, &version);
    let mut changes = local.watch_health();
    let monitor = tokio::spawn(health_monitor::run(Arc::clone(&local), Duration::from_millis(100)));
    assert!(local.is_well(id));
    let hanging: Vec<_> = (0..4).map(|_| spawn_infer(&version, slow(i64::MAX))).collect();
    // All of them hang for longer than a request may take.
    tokio::time::timeout(PATIENCE, changes.changed()).await.unwrap().unwrap();
    assert!(!local.is_well(id), "{:?}", version.ailment());
    for request in hanging {
        request.await.unwrap().unwrap_err();
    }
    eventually("it works again", || local.is_well(id)).await;
    monitor.abort();
}
