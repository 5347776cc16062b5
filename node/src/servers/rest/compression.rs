//! Which answers are compressed: those of predictions, from a kilobyte on, where
//! the client takes gzip or deflate.

use std::convert::Infallible;
use std::future::ready;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};
use tower::{Layer, Service, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;

/// Smaller answers are sent as they are, whatever the client takes.
const COMPRESSED_BYTES_MIN: u64 = 1024;

/// For the routes of predictions only: clients that say they take compressed
/// answers and then decompress nothing else are in wide use.
pub(super) fn layer() -> CompressionLayer<SizeAbove> {
    CompressionLayer::new().no_br().no_zstd().compress_when(SizeAbove::new(COMPRESSED_BYTES_MIN))
}

/// What is sent: as it was made, or in another encoding.
#[derive(Debug)]
pub(in crate::servers) enum Negotiated {
    Plain(Response<Bytes>),
    Encoded(Response<Body>),
}

/// What the layer would make of an answer to a request with these headers.
pub(in crate::servers) async fn negotiate(headers: &HeaderMap, mut answer: Response<Bytes>) -> Negotiated {
    let Some(accepted) = headers.get(header::ACCEPT_ENCODING) else {
        // It would have been compressed for others.
        if answer.body().len() as u64 >= COMPRESSED_BYTES_MIN {
            answer.headers_mut().append(header::VARY, HeaderValue::from(header::ACCEPT_ENCODING));
        }
        return Negotiated::Plain(answer);
    };
    let mut request = Request::new(());
    request.headers_mut().insert(header::ACCEPT_ENCODING, accepted.clone());
    for accepted in headers.get_all(header::ACCEPT_ENCODING).iter().skip(1) {
        request.headers_mut().append(header::ACCEPT_ENCODING, accepted.clone());
    }
    let mut answer = Some(answer.map(Body::from));
    let mut service =
        layer().layer(service_fn(|_| ready(Ok::<_, Infallible>(answer.take().unwrap_or_default()))));
    let Ok(encoded) = service.call(request).await;
    Negotiated::Encoded(encoded.map(Body::new))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use axum::Router;
    use axum::routing::get;
    use http_body_util::BodyExt;

    use super::*;

    /// Status, headers, body: of the layer around a route, and of [`negotiate`].
    async fn both(accepted: &[&'static str], body: Vec<u8>) -> [String; 2] {
        let mut request = Request::new(Body::empty());
        for accepted in accepted {
            request.headers_mut().append(header::ACCEPT_ENCODING, HeaderValue::from_static(accepted));
        }
        let headers = request.headers().clone();
        let answer = Response::new(Bytes::from(body.clone()));
        let short = match negotiate(&headers, answer).await {
            Negotiated::Plain(plain) => plain.map(Body::from),
            Negotiated::Encoded(encoded) => encoded,
        };
        let mut router =
            Router::new().route("/", get(move || async { Response::new(Body::from(body)) }).layer(layer()));
        let Ok(ordinary) = Service::call(&mut router, request).await;
        [described(ordinary).await, described(short).await]
    }

    async fn described(response: Response<Body>) -> String {
        let (mut head, body) = response.into_parts();
        // The router says it, and of the other hyper does.
        head.headers.remove(header::CONTENT_LENGTH);
        let mut headers: Vec<String> =
            head.headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        headers.sort();
        format!("{} {} {:?}", head.status, headers.join(" "), body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn an_answer_is_as_the_layer_makes_it() {
        for accepted in [
            &[][..],
            &["gzip"],
            &["deflate"],
            &["br", "gzip;q=0.5"],
            &["identity"],
            &["identity;q=0"],
            &["*"],
        ] {
            for length in [0, 1023, 1024, 5000] {
                let [ordinary, short] = both(accepted, vec![b'a'; length]).await;
                assert_eq!(short, ordinary, "{accepted:?}, {length} bytes");
            }
        }
    }

    #[tokio::test]
    async fn small_answers_are_sent_as_they_are_and_large_ones_compressed_for_whom_takes_it() {
        let [_, small] = both(&["gzip"], vec![b'a'; 1023]).await;
        assert!(!small.contains("content-encoding"), "{small}");
        let [_, large] = both(&["gzip"], vec![b'a'; 1024]).await;
        assert!(large.contains("content-encoding=gzip"), "{large}");
        let [_, plain] = both(&[], vec![b'a'; 1024]).await;
        assert!(plain.starts_with("200 OK vary=accept-encoding "), "{plain}");
    }
}
