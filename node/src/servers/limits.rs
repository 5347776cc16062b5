//! Bodies over `max_request_bytes` are refused before they are read where they
//! say their length, and as soon as they pass it where they do not: compressed
//! ones by what they are decompressed. A body that stops coming is given up.

use std::fmt::Display;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame};

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// Over the limit.
    #[error("the request is larger than {limit_bytes} bytes (config key `max_request_bytes`)")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// In an encoding that is not understood.
    #[error("Content-Encoding {0} is not understood; send gzip, deflate or none")]
    Encoding(String),
    /// Its sender has stopped sending.
    #[error("nothing more of the request body came for {waited:?}")]
    Stalled {
        /// For how long it was waited.
        waited: Duration,
    },
    /// It broke off, or is not what its encoding says.
    #[error("the request body could not be read: {0}")]
    Broken(String),
}

/// Refuses by the head alone: by the announced length, and by the encoding that
/// is still named after decompression.
pub(super) fn check_head(headers: &HeaderMap, limit_bytes: usize) -> Result<(), BodyError> {
    let encoding = headers.get(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity");
    if let Some(encoding) = encoding {
        return Err(BodyError::Encoding(format!("{encoding:?}")));
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    match length.and_then(|length| length.parse::<u64>().ok()) {
        Some(length) if length > limit_bytes as u64 => Err(BodyError::TooLarge { limit_bytes }),
        _ => Ok(()),
    }
}

/// Reads a body, as it is after decompression, up to the limit. Each piece of it
/// must come within `patience`.
pub(super) async fn read<B>(mut body: B, limit_bytes: usize, patience: Duration) -> Result<Bytes, BodyError>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let mut first = Bytes::new();
    let mut gathered = BytesMut::new();
    let mut frame = match come_already(&mut body).await {
        Some(frame) => frame,
        None => within(patience, &mut body).await?,
    };
    while let Some(read) = frame {
        let read = read.map_err(|error| BodyError::Broken(error.to_string()))?;
        if let Ok(data) = read.into_data() {
            if first.len().max(gathered.len()) + data.len() > limit_bytes {
                return Err(BodyError::TooLarge { limit_bytes });
            }
            // A body that comes in one piece is not copied.
            if first.is_empty() && gathered.is_empty() {
                first = data;
            } else {
                if gathered.is_empty() {
                    gathered.extend_from_slice(&first);
                }
                gathered.extend_from_slice(&data);
            }
        }
        frame = if body.is_end_stream() { None } else { within(patience, &mut body).await? };
    }
    if gathered.is_empty() { Ok(first) } else { Ok(gathered.freeze()) }
}

/// The first frame of a body that came with its head: hyper hands it over once it
/// has been asked twice, and until then no timer is needed. `None`: it is to come.
async fn come_already<B>(body: &mut B) -> Option<Option<Result<Frame<Bytes>, B::Error>>>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let mut asked = false;
    poll_fn(|context| match Pin::new(&mut *body).poll_frame(context) {
        Poll::Ready(frame) => Poll::Ready(Some(frame)),
        Poll::Pending if asked => Poll::Ready(None),
        Poll::Pending => {
            asked = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

async fn within<B>(
    patience: Duration,
    body: &mut B,
) -> Result<Option<Result<Frame<Bytes>, B::Error>>, BodyError>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    match tokio::time::timeout(patience, body.frame()).await {
        Ok(frame) => Ok(frame),
        Err(_) => Err(BodyError::Stalled { waited: patience }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::convert::Infallible;

    use axum::body::Body;

    use super::*;

    fn in_pieces(pieces: &'static [&'static str]) -> Body {
        let pieces = pieces.iter().map(|piece| Ok::<_, Infallible>(Bytes::from_static(piece.as_bytes())));
        Body::from_stream(tokio_stream::iter(pieces))
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_body_that_stops_coming_is_given_up() {
        let stalled = Body::from_stream(tokio_stream::pending::<Result<Bytes, Infallible>>());
        let outcome = read(stalled, 5, Duration::from_millis(1)).await;
        assert!(matches!(outcome, Err(BodyError::Stalled { .. })), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_body_is_gathered_from_its_pieces() {
        assert_eq!(read(in_pieces(&["ab", "", "cd", "e"]), 5, PATIENCE).await.unwrap(), "abcde");
        assert_eq!(read(in_pieces(&["abcde"]), 5, PATIENCE).await.unwrap(), "abcde");
        assert_eq!(read(Body::empty(), 5, PATIENCE).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_body_is_refused_as_soon_as_it_passes_the_limit() {
        for pieces in [&["abcdef"][..], &["abc", "def"], &["abcde", "f"]] {
            let outcome = read(in_pieces(pieces), 5, PATIENCE).await;
            assert!(matches!(outcome, Err(BodyError::TooLarge { limit_bytes: 5 })), "{pieces:?}");
        }
    }

    #[test]
    fn a_body_that_says_its_length_is_refused_unread() {
        let headers = HeaderMap::from_iter([(header::CONTENT_LENGTH, "6".parse().unwrap())]);
        assert!(check_head(&headers, 5).is_err());
        assert!(check_head(&headers, 6).is_ok());
    }

    #[test]
    fn an_encoding_that_is_not_understood_is_named() {
        let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, "br".parse().unwrap())]);
        let error = check_head(&headers, 5).unwrap_err();
        assert!(error.to_string().contains("\"br\" is not understood"), "{error}");
        let none = HeaderMap::from_iter([(header::CONTENT_ENCODING, "identity".parse().unwrap())]);
        assert!(check_head(&none, 5).is_ok());
    }
}
