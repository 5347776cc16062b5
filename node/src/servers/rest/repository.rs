//! The model repository extension: what there is, and why loading by hand has
//! nothing to do.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::error::RestError;
use super::json_response;
use super::target::Target;
use crate::servers::{Node, grpc, limits};

/// Bodies here are a few words.
const BODY_BYTES_MAX: usize = 1024 * 1024;
const BODY_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize, Default)]
struct IndexRequest {
    #[serde(default)]
    ready: bool,
}

#[derive(Deserialize, Default)]
struct LoadRequest {
    #[serde(default)]
    parameters: Map<String, Value>,
}

/// A bare list, as Triton answers it.
pub(super) async fn index(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RestError> {
    let IndexRequest { ready } = read(&headers, body).await?;
    let index = node.running()?.inference.repository_index(ready);
    let models: Vec<Value> = index
        .models
        .iter()
        .map(|model| {
            let mut entry = json!({ "name": model.name, "version": model.version, "state": model.state });
            if !model.reason.is_empty() {
                entry["reason"] = Value::from(model.reason.as_str());
            }
            entry
        })
        .collect();
    Ok(json_response(StatusCode::OK, &Value::from(models)))
}

pub(super) async fn load(
    State(node): State<Arc<Node>>,
    Target { model, .. }: Target,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RestError> {
    let LoadRequest { parameters } = read(&headers, body).await?;
    grpc::load(&node, &model, parameters.keys().next().map(String::as_str))?;
    Ok(json_response(StatusCode::OK, &json!({})))
}

pub(super) async fn unload(State(node): State<Arc<Node>>, target: Target) -> RestError {
    grpc::unload(&node, &target.model).into()
}

/// An empty body means no wishes.
async fn read<T: for<'a> Deserialize<'a> + Default>(headers: &HeaderMap, body: Body) -> Result<T, RestError> {
    limits::check_head(headers, BODY_BYTES_MAX)?;
    let body = limits::read(body, BODY_BYTES_MAX, BODY_PATIENCE).await?;
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body)
        .map_err(|error| RestError::bad_request(format!("the body is not JSON: {error}")))
}
