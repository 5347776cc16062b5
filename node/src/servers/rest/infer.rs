//! `POST …/infer`: reads, predicts, answers.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use starling_raft::state::Principal;

use super::decode::{Decoded, decode, decode_raw};
use super::encode::encode;
use super::error::RestError;
use super::orca::LoadFormat;
use super::target::Target;
use crate::servers::{Node, limits, words};

const JSON_BYTES: HeaderName = HeaderName::from_static("inference-header-content-length");

pub(super) async fn infer(
    State(node): State<Arc<Node>>,
    target: Target,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RestError> {
    let limit_bytes = usize::try_from(node.settings.max_request_bytes).unwrap_or(usize::MAX);
    limits::check_head(&headers, limit_bytes)?;
    let inference = &node.running()?.inference;
    let body = limits::read(body, limit_bytes, node.settings.header_read_timeout).await?;
    let json_bytes = json_bytes(&headers)?;
    let Decoded { mut request, form } = match json_bytes {
        Some(0) => {
            let metadata = inference.model_metadata(&target.model, &target.version)?;
            decode_raw(body, &metadata.inputs)?
        }
        _ => decode(&body, json_bytes)?,
    };
    request.model_name = target.model;
    request.model_version = target.version;
    let context = words::request_context(&headers, &request, principal)?;
    let answer = inference.infer(request, context).await?;
    let encoded = encode(&answer, &form).map_err(|error| RestError::new(StatusCode::BAD_REQUEST, error))?;
    let mut response = Body::from(encoded.body).into_response();
    let content_type = match encoded.json_bytes {
        Some(json_bytes) => {
            response.headers_mut().insert(JSON_BYTES, HeaderValue::from(json_bytes));
            "application/octet-stream"
        }
        None => "application/json",
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    words::response_headers(&answer, response.headers_mut());
    if let Some(format) = LoadFormat::of(&headers) {
        format.write(inference.in_flight(), response.headers_mut());
    }
    Ok(response)
}

fn json_bytes(headers: &HeaderMap) -> Result<Option<usize>, RestError> {
    let Some(value) = headers.get(JSON_BYTES) else { return Ok(None) };
    match value.to_str().ok().and_then(|value| value.trim().parse().ok()) {
        Some(length) => Ok(Some(length)),
        None => Err(RestError::bad_request(format!(
            "header Inference-Header-Content-Length is {value:?}, must be a whole number"
        ))),
    }
}
