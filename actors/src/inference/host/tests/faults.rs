//! Instances that are killed, hang or cannot come back.

use futures::future::join_all;

use super::*;
use crate::inference::testing::{PATIENCE, fp32_bytes, host, key, load, model_file, runtime};
use crate::inference::worker::PANICKING_ID;

const A_FIFTH_OF_A_SECOND: i64 = 50_000;

#[tokio::test]
async fn instances_killed_under_load_cost_no_request() {
    let registry = prometheus::Registry::new();
    let host = VersionHost::start(runtime(), &registry).await.unwrap();
    let settings = VersionSettings { instances: 2, ..VersionSettings::default() };
    let version = load(&host, "matmul", settings).await;
    let clients = (0..16).map(|client| {
        let version = Arc::clone(&version);
        tokio::spawn(async move {
            for n in 0..100 {
                let value = (client * 100 + n) as f32;
                let request = raw_request("x", "FP32", &[1, 64], fp32_bytes(&[value; 64]));
                let answer = version.infer(request, None).await.unwrap();
                assert_eq!(fp32_values(&answer.response.raw_output_contents[0])[0], value);
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut kills = 0;
    while clients.iter().any(|client| !client.is_finished()) {
        kills += u64::from(version.kill_instance().await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for client in join_all(clients).await {
        client.unwrap();
    }
    assert!(kills > 0);
    assert_eq!(version.failure(), None);
    eventually("both instances are back", || restarts(&registry) >= kills.min(2)).await;
    assert_eq!(version.statistics().inference_count, 1_600);
}

fn restarts(registry: &prometheus::Registry) -> u64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == "starling_inference_instance_restarts_total");
    family.map_or(0, |family| family.get_metric()[0].get_counter().get_value() as u64)
}

#[tokio::test]
async fn the_request_of_a_killed_instance_is_run_by_the_next_one() {
    let host = host().await;
    let version = load(&host, "slow_loop", VersionSettings::default()).await;
    let running = spawn_infer(&version, slow(A_FIFTH_OF_A_SECOND));
    until_waiting(&version, 1, 0).await;
    assert!(version.kill_instance().await);
    assert_eq!(trips_made(&running.await.unwrap().unwrap()), A_FIFTH_OF_A_SECOND);
    assert_eq!(version.statistics().execution_count, 1);
}

#[tokio::test]
async fn a_request_that_two_instances_died_over_gets_an_error() {
    let host = host().await;
    let version = load(&host, "slow_loop", VersionSettings::default()).await;
    let poison = ModelInferRequest { id: PANICKING_ID.to_owned(), ..slow(1) };
    let error = version.infer(poison, None).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "2 instances of model 'slow_loop' ended while they ran this request; it is not tried again"
    );
    version.infer(slow(1), None).await.expect("others go on");
    assert_eq!(version.failure(), None);
}

#[tokio::test]
async fn a_run_beyond_its_time_is_ended_and_the_instance_replaced() {
    let host = host().await;
    let settings = VersionSettings { max_run_time_millis: 100, ..VersionSettings::default() };
    let version = load(&host, "slow_loop", settings).await;
    let asked_at = Instant::now();
    let hanging = spawn_infer(&version, slow(i64::MAX));
    until_waiting(&version, 1, 0).await;
    let behind = spawn_infer(&version, slow(1));
    let error = hanging.await.unwrap().unwrap_err();
    assert!(asked_at.elapsed() < Duration::from_secs(5), "{:?}", asked_at.elapsed());
    assert_eq!(
        error.to_string(),
        "the run of model 'slow_loop' took longer than its max_run_time of 100ms and was ended"
    );
    behind.await.unwrap().expect("the one behind it is run by the new instance");
    eventually("the thread of the ended run is gone", || {
        version.version.live_threads.load(std::sync::atomic::Ordering::Relaxed) == 1
    })
    .await;
}

#[tokio::test]
async fn a_version_whose_instances_cannot_come_back_says_so_and_can_be_loaded_again() {
    let host = host().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    std::fs::copy(model_file("matmul"), &file).unwrap();
    let signature = Arc::new(runtime().inspect(&file).unwrap());
    let settings = VersionSettings::default();
    let version = host.load(key("matmul"), file.clone(), Arc::clone(&signature), settings).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(version.kill_instance().await);
    let request = || raw_request("x", "FP32", &[1, 64], vec![0; 256]);
    let given_up = async {
        loop {
            // It is answered by the old instance until that one is gone.
            match version.infer(request(), None).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(error) => return error,
            }
        }
    };
    let error = tokio::time::timeout(PATIENCE, given_up).await.unwrap();
    assert!(matches!(error, InferError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().starts_with("version 1 of model 'matmul' cannot be kept running: "), "{error}");
    assert!(version.failure().is_some());

    std::fs::copy(model_file("matmul"), &file).unwrap();
    let again = host.load(key("matmul"), file, signature, settings).await.unwrap();
    again.infer(request(), None).await.expect("the new one answers");
    assert!(again.failure().is_none());
}
