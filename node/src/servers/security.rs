//! The one place that decides who asks. Every server passes every request
//! through [`SecurityLayer`], which leaves a [`Principal`] in its extensions.
//! Today: loopback is `local`, and beyond it only `--insecure` lets anyone in,
//! as `anonymous`. Tokens, certificates and roles come here.

use std::net::SocketAddr;
use std::task::{Context, Poll};

use axum::body::Body;
use futures::future::{Either, Ready, ready};
use http::{Request, Response, StatusCode, header};
use starling_raft::state::Principal;
use tonic::Status;
use tower::{Layer, Service};

/// Where a request comes from; the server that accepted it says so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The rules. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Security {
    insecure: bool,
}

impl Security {
    /// `insecure`: whoever can reach a port may do everything.
    pub(crate) fn new(insecure: bool) -> Self {
        Self { insecure }
    }

    /// For one server.
    pub(crate) fn layer(&self) -> SecurityLayer {
        SecurityLayer { security: self.clone() }
    }

    /// Who asks; `None`: not allowed to.
    pub(super) fn principal(&self, peer: Option<Peer>) -> Option<Principal> {
        let Peer(address) = peer?;
        if address.ip().to_canonical().is_loopback() {
            return Some(Principal::local());
        }
        self.insecure.then(|| Principal::named("anonymous"))
    }
}

/// Puts the principal into each request, or refuses it.
#[derive(Debug, Clone)]
pub(crate) struct SecurityLayer {
    security: Security,
}

impl<S> Layer<S> for SecurityLayer {
    type Service = SecurityService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SecurityService { security: self.security.clone(), inner }
    }
}

/// See [`SecurityLayer`].
#[derive(Debug, Clone)]
pub(crate) struct SecurityService<S> {
    security: Security,
    inner: S,
}

impl<S> Service<Request<Body>> for SecurityService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().copied();
        match self.security.principal(peer) {
            Some(principal) => {
                request.extensions_mut().insert(principal);
                Either::Left(self.inner.call(request))
            }
            None => Either::Right(ready(Ok(refusal(&request)))),
        }
    }
}

/// In the words of the protocol that was spoken.
fn refusal(request: &Request<Body>) -> Response<Body> {
    const TEXT: &str =
        "this node accepts requests from loopback only; start it with --insecure to change that";
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
        return Status::permission_denied(TEXT).into_http();
    }
    let mut response = Response::new(Body::from(format!("{{\"error\":\"{TEXT}\"}}")));
    *response.status_mut() = StatusCode::FORBIDDEN;
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn from(address: &str) -> Option<Peer> {
        Some(Peer(address.parse().unwrap()))
    }

    #[test]
    fn loopback_is_local_in_both_address_families() {
        let security = Security::new(false);
        for address in ["127.0.0.1:4", "127.8.0.1:4", "[::1]:4", "[::ffff:127.0.0.1]:4"] {
            assert_eq!(security.principal(from(address)), Some(Principal::local()), "{address}");
        }
    }

    #[test]
    fn others_are_refused_unless_the_node_is_insecure() {
        let other = from("192.0.2.7:4");
        assert_eq!(Security::new(false).principal(other), None);
        assert_eq!(Security::new(true).principal(other), Some(Principal::named("anonymous")));
    }

    #[test]
    fn a_request_of_unknown_origin_is_refused() {
        assert_eq!(Security::new(true).principal(None), None);
    }
}
