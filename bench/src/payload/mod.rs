//! Requests that are encoded before the clock starts.

mod grpc;
mod random;
mod rest;

use std::time::Duration;

use bytes::Bytes;
use starling_proto::inference::ModelInferRequest;

use crate::BenchError;
use crate::load::Protocol;

pub use random::{Inputs, inputs_of, random_request};

/// Ready to be sent as often as wanted.
#[derive(Debug, Clone)]
pub(crate) struct PreparedRequest {
    pub(crate) head: http::Request<()>,
    pub(crate) body: Bytes,
}

/// The requests of a measurement, sent in turn.
#[derive(Debug, Clone)]
pub struct Payload {
    protocol: Protocol,
    /// Never empty.
    requests: Vec<PreparedRequest>,
}

impl Payload {
    /// Encodes requests for a server. With a deadline gRPC requests carry it as
    /// `grpc-timeout`, so that the server may refuse what it cannot do in time.
    /// Errors: no request, a tensor that the protocol cannot carry.
    pub fn new(
        protocol: Protocol,
        server: &str,
        requests: &[ModelInferRequest],
        deadline: Option<Duration>,
    ) -> Result<Self, BenchError> {
        if requests.is_empty() {
            return Err(BenchError::Asked("there is no request to send".to_owned()));
        }
        if deadline.is_some() && protocol != Protocol::Grpc {
            return Err(BenchError::Asked("only gRPC requests carry a deadline".to_owned()));
        }
        let prepare = |request: &ModelInferRequest| match protocol {
            Protocol::Grpc => grpc::prepare(server, request, deadline),
            Protocol::Rest => rest::prepare_json(server, request),
            Protocol::RestBinary => rest::prepare_binary(server, request),
        };
        let requests = requests.iter().map(prepare).collect::<Result<_, _>>()?;
        Ok(Self { protocol, requests })
    }

    /// Over which protocol it goes.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Bytes of the first request's body, framing included.
    pub fn body_bytes(&self) -> usize {
        self.requests[0].body.len()
    }

    pub(crate) fn request(&self, turn: usize) -> &PreparedRequest {
        &self.requests[turn % self.requests.len()]
    }
}

fn head(builder: http::request::Builder) -> Result<http::Request<()>, BenchError> {
    builder.body(()).map_err(|error| BenchError::Asked(format!("the request cannot be made: {error}")))
}
