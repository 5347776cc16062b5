//! The Open Inference Protocol over REST, with Triton's binary tensor data. The
//! codec ([`decode`], [`encode`], [`crate::tensor_json`]) is pure; handlers are thin.

mod compression;
mod decode;
mod encode;
mod error;
mod feedback;
mod infer;
mod models;
mod orca;
mod parameters_json;
mod repository;
mod target;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use http::{StatusCode, header};
use serde_json::json;
use tower_http::decompression::RequestDecompressionLayer;

use super::unsupported::Unsupported;
use super::{Node, grpc, metrics};

pub(super) use compression::{Negotiated, negotiate};
pub(super) use error::RestError;
pub(super) use infer::predict;
pub(super) use target::Target;

/// Predictions by the version that the route decides for.
pub(super) const INFER: &str = "/v2/models/{model}/infer";
/// Predictions by a version that the client names.
pub(super) const INFER_VERSION: &str = "/v2/models/{model}/versions/{version}/infer";

/// Everything on the REST port.
pub(super) fn router(node: &Arc<Node>) -> Router {
    let decompression = RequestDecompressionLayer::new().no_br().no_zstd().pass_through_unaccepted(true);
    Router::new()
        .route("/livez", get(metrics::livez))
        .route("/readyz", get(metrics::readyz))
        .route("/v1/feedback", post(feedback::record))
        .route("/v2", get(server_metadata))
        .route("/v2/", get(server_metadata))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models", get(models::list))
        .route("/v2/models/stats", get(models::all_statistics))
        .route("/v2/models/{model}", get(models::metadata))
        .route("/v2/models/{model}/ready", get(models::ready))
        .route("/v2/models/{model}/config", get(models::config))
        .route("/v2/models/{model}/stats", get(models::statistics))
        .route(INFER, post(infer::infer).layer(compression::layer()))
        .route("/v2/models/{model}/versions/{version}", get(models::metadata))
        .route("/v2/models/{model}/versions/{version}/ready", get(models::ready))
        .route("/v2/models/{model}/versions/{version}/config", get(models::config))
        .route("/v2/models/{model}/versions/{version}/stats", get(models::statistics))
        .route(INFER_VERSION, post(infer::infer).layer(compression::layer()))
        .route("/v2/repository/index", post(repository::index))
        .route("/v2/repository/models/{model}/load", post(repository::load))
        .route("/v2/repository/models/{model}/unload", post(repository::unload))
        .route("/v2/repository/{repository}/index", post(repository::index))
        .route("/v2/repository/{repository}/models/{model}/load", post(repository::load))
        .route("/v2/repository/{repository}/models/{model}/unload", post(repository::unload))
        .route("/v2/models/{model}/generate", any(no_generate))
        .route("/v2/models/{model}/generate_stream", any(no_generate))
        .route("/v2/models/{model}/versions/{version}/generate", any(no_generate))
        .route("/v2/models/{model}/versions/{version}/generate_stream", any(no_generate))
        .route("/v2/models/{model}/trace/setting", any(no_trace))
        .route("/v2/models/{model}/versions/{version}/trace/setting", any(no_trace))
        .route("/v2/trace/setting", any(no_trace))
        .route("/v2/logging", any(no_logging))
        .route("/v2/systemsharedmemory/{*rest}", any(no_shared_memory))
        .route("/v2/cudasharedmemory/{*rest}", any(no_shared_memory))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(decompression)
        .with_state(node.clone())
}

async fn server_metadata() -> Response {
    let metadata = grpc::server_metadata();
    let body = json!({
        "name": metadata.name,
        "version": metadata.version,
        "extensions": metadata.extensions,
    });
    json_response(StatusCode::OK, &body)
}

async fn live() -> Response {
    json_response(StatusCode::OK, &json!({ "live": true }))
}

async fn ready(State(node): State<Arc<Node>>) -> Response {
    let ready = node.ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_response(status, &json!({ "ready": ready }))
}

async fn no_generate() -> RestError {
    Unsupported::Generate.into()
}

async fn no_trace() -> RestError {
    Unsupported::Trace.into()
}

async fn no_logging() -> RestError {
    Unsupported::Logging.into()
}

async fn no_shared_memory() -> RestError {
    Unsupported::SharedMemory.into()
}

async fn unknown_path(uri: http::Uri) -> RestError {
    RestError::new(
        StatusCode::NOT_FOUND,
        format!("no such path: {}; the protocol of this port is v2, see GET /v2", uri.path()),
    )
}

async fn wrong_method(method: http::Method, uri: http::Uri) -> RestError {
    let text = format!("method {method} is not allowed for {}", uri.path());
    RestError::new(StatusCode::METHOD_NOT_ALLOWED, text)
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
