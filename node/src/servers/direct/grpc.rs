//! The short way of a unary prediction over gRPC.

use std::sync::Arc;

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Incoming};
use prometheus::IntCounter;
use prost::Message;
use starling_actors::inference::{DecisionParameters, InferError, Prediction};
use starling_proto::inference::{ModelInferRequest, ModelInferResponse};
use starling_raft::state::Principal;
use tonic::Status;
use tracing::{Instrument, Span};

use super::body::{AnswerBody, Replayed};
use super::{REQUEST_ID, Routed};
use crate::servers::errors::infer_status;
use crate::servers::observe::RequestIds;
use crate::servers::{Node, Peer, words};

const PATH: &str = "/inference.GRPCInferenceService/ModelInfer";
const OPERATION: &str = "ModelInfer";
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
/// Larger ones gain nothing here. One of this size cannot grow beyond what the
/// bounded decoder of the ordinary way always allows, however it is made up.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// What the short way needs.
pub(crate) struct DirectGrpc {
    node: Arc<Node>,
    ids: Arc<RequestIds>,
    answered: IntCounter,
    limit_bytes: usize,
}

impl DirectGrpc {
    pub(in crate::servers) fn new(node: &Arc<Node>, ids: &Arc<RequestIds>) -> Self {
        Self {
            node: node.clone(),
            ids: ids.clone(),
            answered: node.metrics.requests.with_label_values(&["grpc", OPERATION, "Ok"]),
            limit_bytes: usize::try_from(node.settings.max_request_bytes)
                .map_or(MESSAGE_BYTES_MAX, |limit| limit.min(MESSAGE_BYTES_MAX)),
        }
    }

    /// Answers a prediction; gives back what it does not take.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> Result<Response<AnswerBody>, Box<Routed>> {
        if !is_plain_prediction(&request) {
            return Err(Box::new(request.map(Body::new)));
        }
        // Who may not ask is refused in one place.
        let Some(principal) = self.node.security.principal(Some(peer)) else {
            return Err(Box::new(request.map(Body::new)));
        };
        let (head, body) = request.into_parts();
        let message = match read_message(body, self.limit_bytes).await {
            Ok(message) => message,
            Err(replayed) => return Err(Box::new(Request::from_parts(head, Body::new(replayed)))),
        };
        let request_id = self.ids.of(&head.headers);
        // A span costs more than a small prediction, so there is one only where
        // its lines are wanted; errors name their request themselves.
        let span = match tracing::enabled!(tracing::Level::DEBUG) {
            true => {
                let id = request_id.to_str().unwrap_or_default();
                tracing::error_span!("request", request_id = id, operation = OPERATION)
            }
            false => Span::none(),
        };
        let outcome = self.predict(message, &head.headers, principal).instrument(span).await;
        let mut response = match outcome {
            Ok(response) => {
                self.answered.inc();
                response
            }
            Err(error) => self.refuse(&error, &request_id),
        };
        response.headers_mut().insert(REQUEST_ID, request_id);
        Ok(response)
    }

    async fn predict(
        &self,
        request: ModelInferRequest,
        headers: &HeaderMap,
        principal: Principal,
    ) -> Result<Response<AnswerBody>, InferError> {
        let context = words::request_context(headers, &request, principal)?;
        let running =
            self.node.running().map_err(|starting| InferError::Unavailable(starting.to_string()))?;
        let as_metadata = words::metadata_is_wanted(headers);
        let Prediction { response, decided, account, copies } =
            running.inference.predict(request, context).await?;
        let mut answer = Response::new(AnswerBody::Nothing);
        answer.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
        if let Some(decided) = decided.as_ref().filter(|_| as_metadata) {
            let list = decided.list();
            words::response_headers(list.iter().map(|(name, choice)| (*name, choice)), answer.headers_mut());
        }
        drop(account);
        *answer.body_mut() = AnswerBody::Message(encode(&response, decided.as_ref()));
        drop(copies);
        Ok(answer)
    }

    fn refuse(&self, error: &InferError, request_id: &HeaderValue) -> Response<AnswerBody> {
        if let InferError::Internal(reason) = error {
            tracing::error!(reason, ?request_id, "prediction failed");
        }
        let status: Status = infer_status(error);
        let code = format!("{:?}", status.code());
        self.node.metrics.requests.with_label_values(&["grpc", OPERATION, &code]).inc();
        status.into_http()
    }
}

fn is_plain_prediction(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    request.uri().path() == PATH
        && request.method() == Method::POST
        && headers.get(header::CONTENT_TYPE).is_some_and(is_grpc)
        && headers.get(GRPC_ENCODING).is_none_or(|encoding| encoding == "identity")
}

fn is_grpc(content_type: &HeaderValue) -> bool {
    let bytes = content_type.as_bytes();
    bytes == b"application/grpc" || bytes == b"application/grpc+proto"
}

/// The message of a body that holds exactly one; else the body again.
async fn read_message<B>(mut body: B, limit_bytes: usize) -> Result<ModelInferRequest, Replayed<B>>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let mut read = Bytes::new();
    loop {
        let frame = match body.frame().await {
            Some(Ok(frame)) => frame,
            None => break,
            // The rest of it says so again.
            Some(Err(_)) => return Err(Replayed { read, rest: body }),
        };
        let Ok(data) = frame.into_data() else { continue };
        // A body that comes in one piece is not copied.
        read = if read.is_empty() { data } else { joined(&read, &data) };
        if announced_bytes(&read).is_some_and(|bytes| bytes > limit_bytes) {
            return Err(Replayed { read, rest: body });
        }
    }
    match decode(&read) {
        Some(message) => Ok(message),
        None => Err(Replayed { read, rest: body }),
    }
}

fn joined(first: &Bytes, second: &Bytes) -> Bytes {
    match first.clone().try_into_mut() {
        Ok(mut whole) => {
            whole.extend_from_slice(second);
            whole.freeze()
        }
        Err(first) => {
            let mut whole = BytesMut::with_capacity(announced_bytes(&first).map_or(0, |bytes| {
                // Room for all of it, but no more than twice what has come.
                (bytes + PREFIX_BYTES).min(2 * (first.len() + second.len()))
            }));
            whole.extend_from_slice(&first);
            whole.extend_from_slice(second);
            whole.freeze()
        }
    }
}

fn announced_bytes(read: &[u8]) -> Option<usize> {
    let length = read.get(1..PREFIX_BYTES)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*length) as usize)
}

/// `None`: it is compressed, or not exactly one message.
fn decode(read: &Bytes) -> Option<ModelInferRequest> {
    let plain = *read.first()? == 0 && announced_bytes(read)? == read.len() - PREFIX_BYTES;
    if !plain {
        return None;
    }
    ModelInferRequest::decode(read.slice(PREFIX_BYTES..)).ok()
}

fn encode(response: &ModelInferResponse, decided: Option<&DecisionParameters>) -> Bytes {
    let mut message =
        BytesMut::with_capacity(PREFIX_BYTES + response.encoded_len() + DecisionParameters::ENCODED_BYTES);
    message.put_bytes(0, PREFIX_BYTES);
    response.encode_raw(&mut message);
    if let Some(decided) = decided {
        decided.append_to_encoded(&mut message);
    }
    let length = u32::try_from(message.len() - PREFIX_BYTES).unwrap_or(u32::MAX);
    message[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    message.freeze()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::convert::Infallible;

    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::super::body::GRPC_STATUS;
    use super::*;

    fn message() -> ModelInferRequest {
        ModelInferRequest {
            model_name: "m".into(),
            raw_input_contents: vec![Bytes::from_static(&[7; 300])],
            ..ModelInferRequest::default()
        }
    }

    fn framed(flag: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        [&[flag][..], &length.to_be_bytes(), payload].concat()
    }

    fn body(pieces: Vec<Vec<u8>>) -> impl HttpBody<Data = Bytes, Error = Infallible> + Unpin {
        let frames = pieces.into_iter().map(|piece| Ok(Frame::data(Bytes::from(piece))));
        StreamBody::new(tokio_stream::iter(frames.collect::<Vec<_>>()))
    }

    async fn read(pieces: Vec<Vec<u8>>, limit_bytes: usize) -> Result<ModelInferRequest, Bytes> {
        match read_message(body(pieces), limit_bytes).await {
            Ok(message) => Ok(message),
            Err(replayed) => Err(replayed.collect().await.unwrap().to_bytes()),
        }
    }

    #[tokio::test]
    async fn a_message_is_read_whole_or_in_pieces() {
        let whole = framed(0, &message().encode_to_vec());
        assert_eq!(read(vec![whole.clone()], 4096).await.unwrap(), message());
        for size in [1, 3, 7, 100] {
            let pieces = whole.chunks(size).map(<[u8]>::to_vec).collect();
            assert_eq!(read(pieces, 4096).await.unwrap(), message(), "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn what_is_not_one_plain_message_goes_on_with_every_byte() {
        let payload = message().encode_to_vec();
        let whole = framed(0, &payload);
        let two = [whole.clone(), whole.clone()].concat();
        for bytes in
            [framed(1, &payload), two, whole[..whole.len() - 1].to_vec(), framed(0, &[0xff; 9]), vec![0]]
        {
            let pieces = bytes.chunks(50).map(<[u8]>::to_vec).collect();
            assert_eq!(read(pieces, 4096).await.unwrap_err(), bytes);
        }
        assert_eq!(read(vec![], 4096).await.unwrap_err(), Bytes::new());
    }

    #[tokio::test]
    async fn a_message_over_the_limit_is_not_gathered() {
        let whole = framed(0, &message().encode_to_vec());
        let pieces: Vec<Vec<u8>> = whole.chunks(10).map(<[u8]>::to_vec).collect();
        let replayed = read_message(body(pieces), 100).await.unwrap_err();
        assert_eq!(replayed.read.len(), 10);
        assert_eq!(replayed.collect().await.unwrap().to_bytes(), whole);
    }

    #[tokio::test]
    async fn an_answer_is_a_message_and_trailers() {
        let response = ModelInferResponse { model_name: "m".into(), ..ModelInferResponse::default() };
        let collected = AnswerBody::Message(encode(&response, None)).collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()[GRPC_STATUS], "0");
        let bytes = collected.to_bytes();
        assert_eq!(bytes, framed(0, &response.encode_to_vec()));
    }
}
