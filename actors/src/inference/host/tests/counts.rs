//! Statistics and metrics say what happened, and add up.

use super::*;
use crate::inference::testing::{fp32_bytes, key, load, runtime};

#[tokio::test]
async fn statistics_add_up() {
    let registry = prometheus::Registry::new();
    let host = VersionHost::start(runtime(), &registry).await.unwrap();
    let version = load(&host, "identity_fp32", VersionSettings { max_batch: 4, ..Default::default() }).await;
    for rows in [1, 3, 3, 9] {
        let request = raw_request("x", "FP32", &[rows, 4], fp32_bytes(&vec![1.0; 4 * rows as usize]));
        let answer = version.infer(request, None).await.unwrap();
        assert_eq!(answer.batch_rows, rows.min(4) as usize);
    }
    version.infer(raw_request("x", "FP32", &[1, 5], vec![0; 20]), None).await.unwrap_err();

    let statistics = version.statistics();
    assert_eq!((statistics.name.as_str(), statistics.version.as_str()), ("identity_fp32", "1"));
    assert_eq!((statistics.inference_count, statistics.execution_count), (16, 6));
    assert!(statistics.last_inference > 1_700_000_000_000);
    let sizes: Vec<(u64, u64)> = statistics
        .batch_stats
        .iter()
        .map(|batch| (batch.batch_size, batch.compute_infer.unwrap().count))
        .collect();
    assert_eq!(sizes, [(1, 2), (3, 2), (4, 2)]);

    let inference = statistics.inference_stats.unwrap();
    let success = inference.success.unwrap();
    assert_eq!((success.count, inference.fail.unwrap().count), (4, 1));
    let parts = [inference.queue, inference.compute_input, inference.compute_infer, inference.compute_output];
    assert!(parts.iter().all(|part| part.unwrap().count == 4));
    assert_eq!(success.ns, parts.iter().map(|part| part.unwrap().ns).sum::<u64>());
    assert_eq!(version.in_flight(), 0);
}

#[tokio::test]
async fn metrics_are_there_while_the_version_is() {
    let registry = prometheus::Registry::new();
    let host = VersionHost::start(runtime(), &registry).await.unwrap();
    let version = load(&host, "matmul", VersionSettings::default()).await;
    version.infer(raw_request("x", "FP32", &[2, 64], vec![0; 512]), None).await.unwrap();
    let series = |name: &str| {
        let families = registry.gather();
        let family = families.into_iter().find(|family| family.name() == name);
        family.map(|family| {
            let metric = &family.get_metric()[0];
            let labels: Vec<String> = metric
                .get_label()
                .iter()
                .map(|label| format!("{}={}", label.name(), label.value()))
                .collect();
            (
                labels.join(","),
                metric.get_histogram().get_sample_count(),
                metric.get_histogram().get_sample_sum(),
            )
        })
    };
    let (labels, count, sum) = series("starling_inference_batch_rows").unwrap();
    assert_eq!((labels.as_str(), count, sum), ("model=matmul,version=1", 1, 2.0));
    for name in ["starling_inference_queue_seconds", "starling_inference_compute_seconds"] {
        let (_, count, sum) = series(name).unwrap();
        assert!(count == 1 && sum > 0.0 && sum < 10.0, "{name}: {count} {sum}");
    }
    assert!(series("starling_inference_in_flight").is_some());
    assert!(series("starling_inference_instance_restarts_total").is_some());
    host.unload(&key("matmul")).await;
    eventually("its series are forgotten", || series("starling_inference_batch_rows").is_none()).await;
}
