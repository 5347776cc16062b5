//! What listens: gRPC, REST, metrics, and what every request passes first.

mod admin;
mod direct;
mod errors;
mod feedback;
mod grpc;
mod health;
mod limits;
mod metrics;
mod node;
mod observe;
mod parameters;
mod rest;
mod security;
mod unsupported;
mod words;

pub(crate) use admin::{PeerRolloutService, route_in, route_out};
pub(crate) use direct::{AnswerBody, DirectPredictions, routed};
pub(crate) use health::{HealthReporter, follow_readiness, health_service, say_not_serving};
pub(crate) use node::Node;
pub(crate) use security::{Peer, Security};

use std::sync::Arc;

use axum::Router;

/// What listens on the gRPC port: predictions, administration, health,
/// reflection; and the short way of predictions.
pub(crate) fn grpc(node: &Arc<Node>, health: health::HealthService) -> (Router, DirectPredictions) {
    let ids = Arc::new(observe::RequestIds::new());
    let router = grpc::routes(node, health).prepare().into_axum_router();
    let router = with_layers(router, node, observe::Observe::new(observe::Protocol::Grpc, node, &ids));
    (router, DirectPredictions::Grpc(direct::DirectGrpc::new(node, &ids)))
}

/// What listens on the REST port; and the short way of predictions.
pub(crate) fn rest(node: &Arc<Node>) -> (Router, DirectPredictions) {
    let ids = Arc::new(observe::RequestIds::new());
    let observe = observe::Observe::new(observe::Protocol::Rest, node, &ids);
    let router = with_layers(rest::router(node), node, observe);
    (router, DirectPredictions::Rest(direct::DirectRest::new(node, &ids)))
}

/// What listens on the metrics port.
pub(crate) fn metrics_router(node: &Arc<Node>) -> Router {
    let ids = Arc::new(observe::RequestIds::new());
    with_layers(metrics::router(node), node, observe::Observe::new(observe::Protocol::Metrics, node, &ids))
}

/// The layers of every server, outermost first: request id, span and count;
/// then who asks.
fn with_layers(router: Router, node: &Arc<Node>, observe: observe::Observe) -> Router {
    router.layer(node.security.layer()).layer(axum::middleware::from_fn_with_state(observe, observe::observe))
}
