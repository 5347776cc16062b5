//! Bodies of the short ways: what was read and goes on, and what is answered.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const OK: HeaderValue = HeaderValue::from_static("0");

/// A body of which something has been read already.
#[derive(Debug)]
pub(super) struct Replayed<B> {
    pub(super) read: Bytes,
    pub(super) rest: B,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Replayed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if !self.read.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.read)))));
        }
        Pin::new(&mut self.rest).poll_frame(context)
    }
}

/// What an answer's body is.
#[derive(Debug, Default)]
pub(crate) enum AnswerBody {
    /// Made by the router.
    Routed(Body),
    /// All of it.
    Whole(Bytes),
    /// One message, then trailers.
    Message(Bytes),
    /// Trailers that say that all went well.
    Trailers,
    /// Nothing more.
    #[default]
    Nothing,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let (frame, next) = match &mut *self {
            Self::Routed(body) => return Pin::new(body).poll_frame(context),
            Self::Whole(bytes) => (Frame::data(std::mem::take(bytes)), Self::Nothing),
            Self::Message(message) => (Frame::data(std::mem::take(message)), Self::Trailers),
            Self::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(GRPC_STATUS, OK);
                (Frame::trailers(trailers), Self::Nothing)
            }
            Self::Nothing => return Poll::Ready(None),
        };
        *self = next;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Routed(body) => body.is_end_stream(),
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Message(_) | Self::Trailers => false,
            Self::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Routed(body) => body.size_hint(),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            // Trailers follow, so there must be no announced length.
            Self::Message(_) | Self::Trailers | Self::Nothing => SizeHint::default(),
        }
    }
}

/// An answer of the router.
pub(crate) fn routed(answer: Result<Response<Body>, Infallible>) -> Response<AnswerBody> {
    let Ok(response) = answer;
    response.map(AnswerBody::Routed)
}
