//! What listens: gRPC, REST, metrics, and what every request passes first.

mod admin;
mod errors;
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

pub(crate) use health::{HealthReporter, follow_readiness, health_service, say_not_serving};
pub(crate) use node::Node;
pub(crate) use security::{Peer, Security};

use std::sync::Arc;

use axum::Router;

/// What listens on the gRPC port: predictions, administration, health, reflection.
pub(crate) fn grpc_router(node: &Arc<Node>, health: health::HealthService) -> Router {
    let router = grpc::routes(node, health).prepare().into_axum_router();
    with_layers(router, node, observe::Protocol::Grpc)
}

/// What listens on the REST port.
pub(crate) fn rest_router(node: &Arc<Node>) -> Router {
    with_layers(rest::router(node), node, observe::Protocol::Rest)
}

/// What listens on the metrics port.
pub(crate) fn metrics_router(node: &Arc<Node>) -> Router {
    with_layers(metrics::router(node), node, observe::Protocol::Metrics)
}

/// The layers of every server, outermost first: request id, span and count;
/// then who asks.
fn with_layers(router: Router, node: &Arc<Node>, protocol: observe::Protocol) -> Router {
    let observe = observe::Observe::new(protocol, node);
    router.layer(node.security.layer()).layer(axum::middleware::from_fn_with_state(observe, observe::observe))
}
