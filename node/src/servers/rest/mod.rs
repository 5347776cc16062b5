//! The Open Inference Protocol over REST, with Triton's binary tensor data. The
//! codec ([`decode`], [`encode`], [`crate::tensor_json`]) is pure; handlers are thin.

mod decode;
mod encode;
mod error;
mod infer;
mod models;
mod repository;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{StatusCode, header};
use serde_json::json;
use tower::ServiceBuilder;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;
use tower_http::decompression::RequestDecompressionLayer;

use super::{Node, grpc, metrics};
use error::RestError;

/// Smaller answers are sent as they are, whatever the client takes.
const COMPRESSED_BYTES_MIN: u64 = 1024;

/// Everything on the REST port.
pub(super) fn router(node: &Arc<Node>) -> Router {
    let compression = ServiceBuilder::new()
        .layer(CompressionLayer::new().no_br().no_zstd().compress_when(SizeAbove::new(COMPRESSED_BYTES_MIN)))
        .layer(RequestDecompressionLayer::new().no_br().no_zstd());
    Router::new()
        .route("/livez", get(metrics::livez))
        .route("/readyz", get(metrics::readyz))
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
        .route("/v2/models/{model}/infer", post(infer::infer))
        .route("/v2/models/{model}/versions/{version}", get(models::metadata))
        .route("/v2/models/{model}/versions/{version}/ready", get(models::ready))
        .route("/v2/models/{model}/versions/{version}/config", get(models::config))
        .route("/v2/models/{model}/versions/{version}/stats", get(models::statistics))
        .route("/v2/models/{model}/versions/{version}/infer", post(infer::infer))
        .route("/v2/repository/index", post(repository::index))
        .route("/v2/repository/models/{model}/load", post(repository::load))
        .route("/v2/repository/models/{model}/unload", post(repository::unload))
        .route("/v2/repository/{repository}/index", post(repository::index))
        .route("/v2/repository/{repository}/models/{model}/load", post(repository::load_in))
        .route("/v2/repository/{repository}/models/{model}/unload", post(repository::unload_in))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(compression)
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

async fn unknown_path(uri: http::Uri) -> RestError {
    RestError::new(StatusCode::NOT_FOUND, format!("no such path: {}", uri.path()))
}

async fn wrong_method(method: http::Method, uri: http::Uri) -> RestError {
    let text = format!("method {method} is not allowed for {}", uri.path());
    RestError::new(StatusCode::METHOD_NOT_ALLOWED, text)
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
