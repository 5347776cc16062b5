//! The short way of a prediction over REST. It reads and answers by the very
//! function of the ordinary way ([`rest::predict`]), so both say the same, byte by
//! byte; what it leaves out are the router and the layers. Compressed requests,
//! paths with something to decode and callers that may not ask go the ordinary way.

use std::fmt::Display;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Body as HttpBody;
use prometheus::IntCounter;

use super::body::AnswerBody;
use super::{REQUEST_ID, Routed};
use crate::servers::observe::RequestIds;
use crate::servers::rest::{self, Negotiated, Target};
use crate::servers::{Node, Peer};

const PROTOCOL: &str = "rest";

/// What the short way needs.
pub(crate) struct DirectRest {
    node: Arc<Node>,
    ids: Arc<RequestIds>,
    by_route: Route,
    by_version: Route,
}

/// One path of predictions, and its good answers.
struct Route {
    path: &'static str,
    answered: IntCounter,
}

impl Route {
    fn new(node: &Node, path: &'static str) -> Self {
        Self { path, answered: node.metrics.requests.with_label_values(&[PROTOCOL, path, "200"]) }
    }

    fn count(&self, node: &Node, status: StatusCode) {
        if status == StatusCode::OK {
            return self.answered.inc();
        }
        node.metrics.requests.with_label_values(&[PROTOCOL, self.path, status.as_str()]).inc();
    }
}

impl DirectRest {
    pub(in crate::servers) fn new(node: &Arc<Node>, ids: &Arc<RequestIds>) -> Self {
        Self {
            node: node.clone(),
            ids: ids.clone(),
            by_route: Route::new(node, rest::INFER),
            by_version: Route::new(node, rest::INFER_VERSION),
        }
    }

    /// Answers a prediction; gives back what it does not take.
    pub(super) async fn answer<B>(
        &self,
        request: Request<B>,
        peer: Peer,
    ) -> Result<Response<AnswerBody>, Box<Routed>>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Display + Into<axum::BoxError>,
    {
        let Some(target) = plain_prediction(&request) else {
            return Err(Box::new(request.map(Body::new)));
        };
        // Who may not ask is refused in one place.
        let Some(principal) = self.node.security.principal(Some(peer)) else {
            return Err(Box::new(request.map(Body::new)));
        };
        let route = if target.version.is_empty() { &self.by_route } else { &self.by_version };
        let (head, body) = request.into_parts();
        let request_id = self.ids.of(&head.headers);
        let answer = match rest::predict(&self.node, target, principal, &head.headers, body).await {
            Ok(answer) => answer,
            // A span costs more than a small prediction, so there is one only where
            // something may be logged.
            Err(error) => {
                let id = request_id.to_str().unwrap_or_default();
                tracing::error_span!("request", request_id = id, operation = route.path)
                    .in_scope(|| error.into_answer())
            }
        };
        let mut response = match rest::negotiate(&head.headers, answer).await {
            Negotiated::Plain(answer) => answer.map(AnswerBody::Whole),
            Negotiated::Encoded(answer) => answer.map(AnswerBody::Routed),
        };
        route.count(&self.node, response.status());
        response.headers_mut().insert(REQUEST_ID, request_id);
        if head.version <= Version::HTTP_11 && self.node.stopping.is_cancelled() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

/// What is asked, if this is a prediction that needs no router and no layer.
fn plain_prediction<B>(request: &Request<B>) -> Option<Target> {
    // Where the lines of each request are wanted, their spans are as well.
    let plain = request.method() == Method::POST
        && !request.headers().contains_key(header::CONTENT_ENCODING)
        && !tracing::enabled!(tracing::Level::DEBUG);
    if !plain {
        return None;
    }
    Target::of_prediction(request.uri().path())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn plain_predictions_are_taken() {
        let request = Request::post("/v2/models/m/versions/1/infer").body(()).unwrap();
        let expected = Target { model: "m".into(), version: "1".into() };
        assert_eq!(plain_prediction(&request), Some(expected));
        let accepting =
            Request::post("/v2/models/m/infer").header("accept-encoding", "gzip").body(()).unwrap();
        assert!(plain_prediction(&accepting).is_some());
    }

    #[test]
    fn everything_else_goes_the_ordinary_way() {
        let get = Request::get("/v2/models/m/infer").body(()).unwrap();
        assert_eq!(plain_prediction(&get), None);
        let metadata = Request::post("/v2/models/m").body(()).unwrap();
        assert_eq!(plain_prediction(&metadata), None);
        for encoding in ["gzip", "identity", "br"] {
            let encoded =
                Request::post("/v2/models/m/infer").header("content-encoding", encoding).body(()).unwrap();
            assert_eq!(plain_prediction(&encoded), None, "{encoding}");
        }
    }
}
