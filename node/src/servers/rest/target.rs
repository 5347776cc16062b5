//! The model (and version) that a path names.

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use serde::Deserialize;

use super::error::RestError;

/// From the path, percent-decoded.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::servers) struct Target {
    pub(in crate::servers) model: String,
    /// Label or ordinal; empty: the route decides.
    #[serde(default)]
    pub(in crate::servers) version: String,
}

impl Target {
    /// Of a prediction's path, as the routes read it. `None`: none of theirs, or
    /// one that only they read in full.
    pub(in crate::servers) fn of_prediction(path: &str) -> Option<Self> {
        let named = path.strip_prefix("/v2/models/")?.strip_suffix("/infer")?;
        let Some((model, rest)) = named.split_once('/') else {
            return is_plain(named).then(|| Self { model: named.to_owned(), version: String::new() });
        };
        let version = rest.strip_prefix("versions/")?;
        let plain = is_plain(model) && is_plain(version);
        plain.then(|| Self { model: model.to_owned(), version: version.to_owned() })
    }
}

/// One part of a path, and nothing in it to decode.
fn is_plain(part: &str) -> bool {
    !part.is_empty() && !part.contains(['/', '%'])
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use axum::Router;
    use axum::body::Body;
    use axum::routing::post;
    use http::Request;
    use http_body_util::BodyExt;
    use tower::Service;

    use super::super::{INFER, INFER_VERSION};
    use super::*;

    async fn of_router(path: &str) -> String {
        let say = async |target: Target| format!("{target:?}");
        let mut router = Router::new().route(INFER, post(say)).route(INFER_VERSION, post(say));
        let Ok(answer) = router.call(Request::post(path).body(Body::empty()).unwrap()).await;
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_path_names_what_the_router_reads_in_it() {
        for (path, model, version) in [
            ("/v2/models/m/infer", "m", ""),
            ("/v2/models/m/versions/3/infer", "m", "3"),
            ("/v2/models/stats/infer", "stats", ""),
            ("/v2/models/versions/infer", "versions", ""),
            ("/v2/models/infer/versions/infer/infer", "infer", "infer"),
            ("/v2/models/a+b~.c/versions/v1-x/infer", "a+b~.c", "v1-x"),
        ] {
            let target = Target::of_prediction(path).unwrap();
            assert_eq!((target.model.as_str(), target.version.as_str()), (model, version), "{path}");
            assert_eq!(of_router(path).await, format!("{target:?}"), "{path}");
        }
    }

    #[test]
    fn what_is_no_plain_path_of_a_prediction_is_left_to_the_router() {
        for path in [
            "/v2/models/m",
            "/v2/models/m/infer/",
            "/v2/models//infer",
            "/v2/models/infer",
            "/v2/models/a%20b/infer",
            "/v2/models/m/versions//infer",
            "/v2/models/m/versions/infer",
            "/v2/models/m/versions/a/b/infer",
            "/v2/models/m/versions/%31/infer",
            "/v2/models/m/other/1/infer",
            "/v3/models/m/infer",
            "",
        ] {
            assert_eq!(Target::of_prediction(path), None, "{path}");
        }
    }
}
