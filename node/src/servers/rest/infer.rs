//! `POST …/infer`: reads, predicts, answers.

use std::fmt::Display;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::body::Body as HttpBody;
use starling_actors::inference::Prediction;
use starling_raft::state::Principal;

use super::decode::{Decoded, decode, decode_raw};
use super::encode::encode;
use super::error::RestError;
use super::orca::LoadFormat;
use super::target::Target;
use crate::servers::{Node, limits, words};

const JSON_BYTES: HeaderName = HeaderName::from_static("inference-header-content-length");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// An answer says so much at most, as a rule: its form, its decision, its request.
const ANSWER_HEADERS: usize = 12;

pub(super) async fn infer(
    State(node): State<Arc<Node>>,
    target: Target,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RestError> {
    predict(&node, target, principal, &headers, body).await.map(|response| response.map(Body::from))
}

/// Answers a prediction whose body is as it came over the wire, or decompressed.
/// Errors: whatever is wrong with the request or went wrong with it.
pub(in crate::servers) async fn predict<B>(
    node: &Node,
    target: Target,
    principal: Principal,
    headers: &HeaderMap,
    body: B,
) -> Result<Response<Bytes>, RestError>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let limit_bytes = usize::try_from(node.settings.max_request_bytes).unwrap_or(usize::MAX);
    limits::check_head(headers, limit_bytes)?;
    let inference = &node.running()?.inference;
    let body = limits::read(body, limit_bytes, node.settings.header_read_timeout).await?;
    let json_bytes = json_bytes(headers)?;
    let Decoded { mut request, form } = match json_bytes {
        Some(0) => {
            let metadata = inference.model_metadata(&target.model, &target.version)?;
            decode_raw(body, &metadata.inputs)?
        }
        _ => decode(&body, json_bytes)?,
    };
    request.model_name = target.model;
    request.model_version = target.version;
    let context = words::request_context(headers, &request, principal)?;
    let Prediction { response: answer, decided, account, copies } =
        inference.predict(request, context).await?;
    drop(account);
    let decided = decided.map(|decided| decided.list()).unwrap_or_default();
    let encoded =
        encode(&answer, &decided, &form).map_err(|error| RestError::new(StatusCode::BAD_REQUEST, error))?;
    drop(copies);
    let mut response = Response::new(Bytes::from(encoded.body));
    let answer_headers = response.headers_mut();
    answer_headers.reserve(ANSWER_HEADERS);
    let content_type = match encoded.json_bytes {
        Some(json_bytes) => {
            answer_headers.insert(JSON_BYTES, HeaderValue::from(json_bytes));
            BINARY
        }
        None => JSON,
    };
    answer_headers.insert(header::CONTENT_TYPE, content_type);
    words::response_headers(decided.iter().map(|(name, choice)| (*name, choice)), answer_headers);
    if let Some(format) = LoadFormat::of(headers) {
        format.write(inference.in_flight(), answer_headers);
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
