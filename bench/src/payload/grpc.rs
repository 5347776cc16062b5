//! A ModelInfer call as one HTTP/2 request.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use http::{Method, Version};
use prost::Message;
use starling_proto::inference::ModelInferRequest;

use super::{PreparedRequest, head};
use crate::BenchError;

const METHOD: &str = "/inference.GRPCInferenceService/ModelInfer";
const NOT_COMPRESSED: u8 = 0;
/// Flag and length before each message.
const FRAME_HEADER_BYTES: usize = 5;

/// Frames the encoded message as gRPC does.
pub(super) fn prepare(
    server: &str,
    request: &ModelInferRequest,
    deadline: Option<Duration>,
) -> Result<PreparedRequest, BenchError> {
    let length = request.encoded_len();
    let length_field = u32::try_from(length)
        .map_err(|_| BenchError::Asked(format!("a request of {length} bytes is more than gRPC carries")))?;
    let mut body = BytesMut::with_capacity(FRAME_HEADER_BYTES + length);
    body.put_u8(NOT_COMPRESSED);
    body.put_u32(length_field);
    request.encode_raw(&mut body);
    let mut builder = http::Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://{server}{METHOD}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc");
    if let Some(deadline) = deadline {
        builder = builder.header("grpc-timeout", timeout_text(deadline));
    }
    Ok(PreparedRequest { head: head(builder)?, body: body.freeze() })
}

/// At most eight digits: microseconds where they fit, else milliseconds.
fn timeout_text(deadline: Duration) -> String {
    const DIGITS_MAX: u128 = 99_999_999;
    match deadline.as_micros() {
        micros if micros <= DIGITS_MAX => format!("{micros}u"),
        _ => format!("{}m", deadline.as_millis().min(DIGITS_MAX)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_body_is_flag_length_and_message() {
        let request = ModelInferRequest { model_name: "tiny".into(), ..ModelInferRequest::default() };
        let prepared = prepare("localhost:8001", &request, None).unwrap();
        // Field 1, length 4.
        assert_eq!(&prepared.body[..], b"\0\0\0\0\x06\x0a\x04tiny");
        assert_eq!(prepared.head.uri().path(), "/inference.GRPCInferenceService/ModelInfer");
        assert!(!prepared.head.headers().contains_key("grpc-timeout"));
    }

    #[test]
    fn a_deadline_has_at_most_eight_digits() {
        assert_eq!(timeout_text(Duration::from_micros(1_500)), "1500u");
        assert_eq!(timeout_text(Duration::from_secs(100)), "100000m");
    }
}
