//! Answers are compressed exactly where the request was.
//!
//! Every client of grpc-core says that it takes compressed answers, and
//! compressing all of them would cost more than most predictions. Whoever
//! compresses what it sends has a reason to want it both ways.

use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tonic::server::NamedService;
use tower::Service;

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPTED: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// A gRPC service behind that rule.
#[derive(Debug, Clone)]
pub(super) struct InKind<S>(pub(super) S);

impl<S: NamedService> NamedService for InKind<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for InKind<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        accept_what_was_sent(request.headers_mut());
        self.0.call(request)
    }
}

/// Leaves of the accepted encodings the one that the request itself has, if any.
fn accept_what_was_sent(headers: &mut HeaderMap) {
    let sent = headers.get(ENCODING).filter(|sent| *sent != "identity").cloned();
    match sent {
        Some(sent) if accepts(headers, &sent) => headers.insert(ACCEPTED, sent),
        _ => headers.remove(ACCEPTED),
    };
}

fn accepts(headers: &HeaderMap, encoding: &HeaderValue) -> bool {
    let accepted = headers.get(ACCEPTED).and_then(|accepted| accepted.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|one| one.trim().as_bytes() == encoding.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted_of(sent: Option<&'static str>, accepted: &'static str) -> Option<HeaderValue> {
        let mut headers = HeaderMap::from_iter([(ACCEPTED, HeaderValue::from_static(accepted))]);
        if let Some(sent) = sent {
            headers.insert(ENCODING, HeaderValue::from_static(sent));
        }
        accept_what_was_sent(&mut headers);
        headers.get(ACCEPTED).cloned()
    }

    #[test]
    fn only_a_compressed_request_gets_a_compressed_answer() {
        let all = "identity, deflate, gzip";
        assert_eq!(accepted_of(None, all), None);
        assert_eq!(accepted_of(Some("identity"), all), None);
        assert_eq!(accepted_of(Some("gzip"), all), Some(HeaderValue::from_static("gzip")));
        assert_eq!(accepted_of(Some("deflate"), all), Some(HeaderValue::from_static("deflate")));
        assert_eq!(accepted_of(Some("gzip"), "identity"), None);
    }
}
