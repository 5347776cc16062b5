//! The model (and version) that a path names.

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use serde::Deserialize;

use super::error::RestError;

/// From the path, percent-decoded.
#[derive(Debug, Deserialize)]
pub(super) struct Target {
    pub(super) model: String,
    /// Label or ordinal; empty: the route decides.
    #[serde(default)]
    pub(super) version: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = RestError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, RestError> {
        let path: Result<Path<Self>, PathRejection> = Path::from_request_parts(parts, state).await;
        match path {
            Ok(Path(target)) => Ok(target),
            Err(rejection) => {
                Err(RestError::bad_request(format!("the path names no model: {}", rejection.body_text())))
            }
        }
    }
}
