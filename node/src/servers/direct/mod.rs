//! The short ways of predictions: everything that the layers do, in one function,
//! without a router, a boxed future for each layer and a span.
//!
//! They take plain requests only. What is compressed or unusual, and over gRPC what
//! is large, cut off or no message, goes the ordinary way, with every byte that was
//! read, so that each refusal has one place.

mod body;
mod grpc;
mod rest;

pub(crate) use body::{AnswerBody, routed};
pub(super) use grpc::DirectGrpc;
pub(super) use rest::DirectRest;

use axum::body::Body;
use http::{HeaderName, Request, Response};
use hyper::body::Incoming;

use super::Peer;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request that goes the ordinary way.
pub(crate) type Routed = Request<Body>;

/// The short way of a port.
pub(crate) enum DirectPredictions {
    /// Over gRPC.
    Grpc(DirectGrpc),
    /// Over REST.
    Rest(DirectRest),
}

impl DirectPredictions {
    /// Answers a prediction; gives back what it does not take.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> Result<Response<AnswerBody>, Box<Routed>> {
        match self {
            Self::Grpc(direct) => direct.answer(request, peer).await,
            Self::Rest(direct) => direct.answer(request, peer).await,
        }
    }
}
