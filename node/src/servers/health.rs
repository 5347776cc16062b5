//! grpc.health.v1: SERVING while this node can answer predictions. A node that
//! stops says NOT_SERVING before it closes anything.

use std::sync::Arc;

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService as TonicHealthService;

use super::Node;

const INFERENCE_SERVICE: &str = "inference.GRPCInferenceService";

pub(crate) use tonic_health::server::HealthReporter;

/// The service, as it is registered.
pub(crate) type HealthService = HealthServer<TonicHealthService>;

/// The service and what its answers are set by; NOT_SERVING at first.
pub(crate) async fn health_service() -> (HealthReporter, HealthService) {
    let reporter = HealthReporter::new();
    report(&reporter, false).await;
    let service = TonicHealthService::from_health_reporter(reporter.clone());
    (reporter, HealthServer::new(service))
}

/// Follows the node's readiness until the node goes away.
pub(crate) async fn follow_readiness(reporter: HealthReporter, node: Arc<Node>) {
    let mut ready = node.watch_ready();
    loop {
        let now = *ready.borrow_and_update();
        if node.stopping.is_cancelled() {
            return;
        }
        report(&reporter, now).await;
        if ready.changed().await.is_err() {
            return;
        }
    }
}

async fn report(reporter: &HealthReporter, ready: bool) {
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in ["", INFERENCE_SERVICE] {
        reporter.set_service_status(service, status).await;
    }
}

/// For a node that stops: nobody is told otherwise any more, and watchers end,
/// so that their connections can close.
pub(crate) async fn say_not_serving(reporter: &HealthReporter) {
    report(reporter, false).await;
    let mut reporter = reporter.clone();
    for service in ["", INFERENCE_SERVICE] {
        reporter.clear_service_status(service).await;
    }
}
