//! The metrics port: /metrics for Prometheus, /livez and /readyz for whoever
//! restarts and routes.

mod triton_names;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};

use super::Node;

/// Everything on the metrics port.
pub(super) fn router(node: &Arc<Node>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(node.clone())
}

async fn metrics(State(node): State<Arc<Node>>) -> Response {
    if let Ok(running) = node.running() {
        let members = running.consensus.applied().state.members.iter().count();
        let live = running.peers.live().borrow().len();
        node.metrics.observe_cluster(&running.consensus.status(), live, members);
    }
    node.metrics.ready.set(i64::from(node.ready()));
    match node.metrics.render() {
        Ok(mut text) => {
            if let Ok(running) = node.running() {
                triton_names::write(&running.inference.loaded_counts(), &mut text);
            }
            ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// 200 while the process is alive: a fatal error ends it.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// 200 while this node can answer predictions, 503 otherwise.
pub(super) async fn readyz(State(node): State<Arc<Node>>) -> Response {
    if node.ready() {
        return "ok\n".into_response();
    }
    let reason = match node.running() {
        _ if node.stopping.is_cancelled() => "this node is stopping\n".to_owned(),
        Ok(_) => {
            "this node has not caught up, or a version that a route names is not loaded yet\n".to_owned()
        }
        Err(starting) => format!("{starting}\n"),
    };
    (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
}
