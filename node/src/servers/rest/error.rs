//! What a client gets instead of an answer: `{"error": "…"}` and a status.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use starling_actors::feedback::FeedbackError;
use starling_actors::inference::InferError;
use starling_actors::inference::error::bounded;

use crate::servers::errors::{feedback_http, infer_http};
use crate::servers::limits::BodyError;
use crate::servers::node::Starting;
use crate::servers::unsupported::Unsupported;

/// A refusal or failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::servers) struct RestError {
    status: StatusCode,
    text: String,
    retry_after: Option<Duration>,
}

impl RestError {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), retry_after: None }
    }

    /// The request is wrong.
    pub(super) fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl From<InferError> for RestError {
    fn from(error: InferError) -> Self {
        let (status, retry_after) = infer_http(&error);
        Self { status, text: error.to_string(), retry_after }
    }
}

impl From<FeedbackError> for RestError {
    fn from(error: FeedbackError) -> Self {
        let (status, retry_after) = feedback_http(&error);
        Self { status, text: error.to_string(), retry_after }
    }
}

impl From<Unsupported> for RestError {
    fn from(part: Unsupported) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, part.text())
    }
}

impl From<Starting> for RestError {
    fn from(starting: Starting) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, starting.to_string())
    }
}

impl From<BodyError> for RestError {
    fn from(error: BodyError) -> Self {
        let status = match error {
            BodyError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::Encoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            BodyError::Stalled { .. } => StatusCode::REQUEST_TIMEOUT,
            BodyError::Broken(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

impl RestError {
    /// As it is sent; a failure of this node is logged.
    pub(in crate::servers) fn into_answer(self) -> Response<Bytes> {
        if self.status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(reason = self.text, "prediction failed");
        }
        let body = json!({ "error": bounded(self.text) }).to_string();
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(retry_after) = self.retry_after {
            // The header has whole seconds; less than one would read as none.
            let seconds = retry_after.as_secs_f64().ceil().max(1.0) as u64;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        self.into_answer().map(Body::from)
    }
}
