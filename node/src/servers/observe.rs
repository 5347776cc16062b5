//! The outermost layer of every server: gives a request its id, puts it on
//! every log line of the request, counts the answer by its code.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use tracing::Instrument;

use super::Node;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_BYTES_MAX: usize = 128;
const GRPC_STATUS: &str = "grpc-status";

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    Rest,
    Metrics,
}

impl Protocol {
    fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Rest => "rest",
            Self::Metrics => "metrics",
        }
    }
}

/// What the layer needs.
#[derive(Clone)]
pub(super) struct Observe {
    protocol: Protocol,
    node: Arc<Node>,
    ids: Arc<RequestIds>,
}

impl Observe {
    pub(super) fn new(protocol: Protocol, node: &Arc<Node>, ids: &Arc<RequestIds>) -> Self {
        Self { protocol, node: node.clone(), ids: ids.clone() }
    }
}

/// The layer.
pub(super) async fn observe(State(observe): State<Observe>, request: Request<Body>, next: Next) -> Response {
    let begun = Instant::now();
    let request_id = observe.ids.of(request.headers());
    let operation = operation(observe.protocol, &request);
    let http1 = request.version() <= Version::HTTP_11;
    // The level of an error, so that the id is there whatever the level of the log.
    let span =
        tracing::error_span!("request", request_id = %request_id.to_str().unwrap_or_default(), operation);
    let mut response = next.run(request).instrument(span.clone()).await;
    let code = code(observe.protocol, &response);
    observe.node.metrics.requests.with_label_values(&[observe.protocol.as_str(), &operation, &code]).inc();
    tracing::debug!(parent: &span, code, elapsed_us = begun.elapsed().as_micros() as u64, "answered");
    response.headers_mut().insert(REQUEST_ID, request_id);
    if http1 && observe.node.stopping.is_cancelled() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The gRPC method or the REST route: never a text that a client can vary.
fn operation(protocol: Protocol, request: &Request<Body>) -> String {
    if protocol == Protocol::Grpc {
        let known = request.extensions().get::<MatchedPath>().is_some();
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        return if known && method.len() <= 64 { method.to_owned() } else { "unknown".to_owned() };
    }
    match request.extensions().get::<MatchedPath>() {
        Some(path) => path.as_str().to_owned(),
        None => "unknown".to_owned(),
    }
}

fn code(protocol: Protocol, response: &Response) -> String {
    if protocol != Protocol::Grpc {
        return response.status().as_u16().to_string();
    }
    // Errors come without a body, so their code is here; success comes in trailers.
    let code = response.headers().get(GRPC_STATUS).and_then(|value| value.to_str().ok());
    let code = code.and_then(|code| code.parse::<i32>().ok()).unwrap_or(0);
    format!("{:?}", tonic::Code::from_i32(code))
}

/// Makes ids that are unique across restarts, for a few nanoseconds each.
pub(super) struct RequestIds {
    prefix: String,
    next: AtomicU64,
}

/// Prefix, dash, number: 16 digits each at most.
const MADE_BYTES_MAX: usize = 33;

impl RequestIds {
    pub(super) fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let prefix = since_epoch.as_micros() as u64 ^ (u64::from(std::process::id()) << 44);
        Self { prefix: format!("{prefix:x}-"), next: AtomicU64::new(0) }
    }

    /// The client's own id if it is a fair one, else a new one.
    pub(super) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        let given = headers.get(REQUEST_ID).filter(|value| {
            let bytes = value.as_bytes();
            !bytes.is_empty()
                && bytes.len() <= REQUEST_ID_BYTES_MAX
                && bytes.iter().all(|byte| byte.is_ascii_graphic())
        });
        let mut id = given.cloned().unwrap_or_else(|| self.make());
        // New in every answer: HTTP/2 need not remember it at the cost of headers that are not.
        id.set_sensitive(true);
        id
    }

    fn make(&self) -> HeaderValue {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut made = String::with_capacity(MADE_BYTES_MAX);
        made.push_str(&self.prefix);
        push_hex(number, &mut made);
        HeaderValue::try_from(made).unwrap_or(HeaderValue::from_static("none"))
    }
}

/// As `{:x}` does, without the machinery of formatting.
fn push_hex(number: u64, to: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        to.push(char::from(DIGITS[(number >> (place * 4) & 0xf) as usize]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_hexadecimal() {
        for number in [0, 1, 15, 16, 0xabc, u64::MAX] {
            let mut text = String::new();
            push_hex(number, &mut text);
            assert_eq!(text, format!("{number:x}"));
        }
    }

    #[test]
    fn a_fair_id_of_the_client_is_kept() {
        let ids = RequestIds::new();
        let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static("abc-1"))]);
        assert_eq!(ids.of(&headers), "abc-1");
    }

    #[test]
    fn an_id_with_spaces_is_replaced_and_new_ids_differ() {
        let ids = RequestIds::new();
        let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static("a b"))]);
        let first = ids.of(&headers);
        assert_ne!(first, "a b");
        assert_ne!(first, ids.of(&headers));
    }
}
