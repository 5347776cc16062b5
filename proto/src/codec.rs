//! Protobuf as tonic has it, except that a prediction request which would take
//! many times more memory than it has bytes is refused before it is decoded.
//!
//! Two bytes on the wire are an input without a name, and some three hundred in
//! memory; a request of the allowed size could so fill a machine.

use std::any::TypeId;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::inference::ModelInferRequest;

/// Requests that take less than this are decoded, whatever they consist of.
const DECODED_BYTES_ALWAYS_ALLOWED: u64 = 64 << 20;
/// Others may take so many times their own bytes. INT64 in typed contents take
/// eight, and are not to be refused.
const EXPANSION_MAX: u64 = 12;

/// What a part takes in memory besides its own bytes, about.
const INPUT_BYTES: u64 = 320;
const OUTPUT_BYTES: u64 = 80;
const PARAMETER_BYTES: u64 = 160;
const SHARED_BYTES: u64 = 32;

/// The codec of all services.
#[derive(Debug, Clone)]
pub struct BoundedCodec<T, U>(ProstCodec<T, U>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(self.0.decoder())
    }
}

/// See [`BoundedCodec`].
#[derive(Debug, Clone)]
pub struct BoundedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Default + Send + 'static> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        use prost::bytes::Buf;
        if TypeId::of::<U>() == TypeId::of::<ModelInferRequest>() {
            check(buffer.chunk())?;
        }
        self.0.decode(buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

#[allow(clippy::result_large_err, reason = "tonic's decoders fail with a Status by value")]
fn check(message: &[u8]) -> Result<(), Status> {
    let allowed = DECODED_BYTES_ALWAYS_ALLOWED.max(EXPANSION_MAX * message.len() as u64);
    let wanted = decoded_bytes(message);
    if wanted <= allowed {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "the request has {} bytes and would take about {} MiB decoded: it has too many small parts; send fewer, and tensors in raw_input_contents",
        message.len(),
        wanted >> 20
    )))
}

/// What a `ModelInferRequest` takes in memory, about. Stops where it is no
/// message: decoding it will say so.
fn decoded_bytes(message: &[u8]) -> u64 {
    fields(message)
        .map(|field| match (field.number, field.kind) {
            (4, Kind::Delimited(content)) => PARAMETER_BYTES + content.len() as u64,
            (5, Kind::Delimited(input)) => INPUT_BYTES + input_bytes(input),
            (6, Kind::Delimited(output)) => OUTPUT_BYTES + output_bytes(output),
            (7, Kind::Delimited(_)) => SHARED_BYTES,
            (_, Kind::Delimited(content)) => content.len() as u64,
            _ => 0,
        })
        .sum()
}

fn input_bytes(input: &[u8]) -> u64 {
    fields(input)
        .map(|field| match (field.number, field.kind) {
            (3, Kind::Delimited(packed)) => 8 * packed.len() as u64,
            (3, Kind::Number) => 8,
            (4, Kind::Delimited(content)) => PARAMETER_BYTES + content.len() as u64,
            (5, Kind::Delimited(contents)) => contents_bytes(contents),
            (_, Kind::Delimited(content)) => content.len() as u64,
            _ => 0,
        })
        .sum()
}

fn output_bytes(output: &[u8]) -> u64 {
    fields(output)
        .map(|field| match (field.number, field.kind) {
            (2, Kind::Delimited(content)) => PARAMETER_BYTES + content.len() as u64,
            (_, Kind::Delimited(content)) => content.len() as u64,
            _ => 0,
        })
        .sum()
}

fn contents_bytes(contents: &[u8]) -> u64 {
    fields(contents)
        .map(|field| match (field.number, field.kind) {
            // A packed 64-bit number may have one byte, a 32-bit one as well.
            (3 | 5, Kind::Delimited(packed)) => 8 * packed.len() as u64,
            (2 | 4, Kind::Delimited(packed)) => 4 * packed.len() as u64,
            (8, Kind::Delimited(_)) => SHARED_BYTES,
            (_, Kind::Delimited(packed)) => packed.len() as u64,
            (_, Kind::Number) => 8,
        })
        .sum()
}

struct Field<'a> {
    number: u64,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Number,
    Delimited(&'a [u8]),
}

/// The fields of a message, as far as it is one.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = Field<'_>> {
    std::iter::from_fn(move || {
        let tag = varint(&mut rest)?;
        let kind = match tag & 7 {
            0 => varint(&mut rest).map(|_| Kind::Number)?,
            1 => take(&mut rest, 8).map(|_| Kind::Number)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                Kind::Delimited(take(&mut rest, length)?)
            }
            5 => take(&mut rest, 4).map(|_| Kind::Number)?,
            _ => return None,
        };
        Some(Field { number: tag >> 3, kind })
    })
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(bytes)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;
    use crate::inference::InferTensorContents;
    use crate::inference::model_infer_request::InferInputTensor;

    fn typed(contents: InferTensorContents) -> Vec<u8> {
        let input = InferInputTensor { contents: Some(contents), ..InferInputTensor::default() };
        ModelInferRequest { inputs: vec![input], ..ModelInferRequest::default() }.encode_to_vec()
    }

    #[test]
    fn a_request_of_tiny_parts_is_refused_before_it_fills_the_memory() {
        let tiny_inputs = [0x2a, 0].repeat(1 << 20);
        let error = check(&tiny_inputs).unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
        assert!(error.message().contains("too many small parts"), "{}", error.message());
        let tiny_texts = typed(InferTensorContents {
            bytes_contents: vec![bytes::Bytes::new(); 3 << 20],
            ..InferTensorContents::default()
        });
        assert!(check(&tiny_texts).is_err());
        let tiny_parameters = [0x22, 3, 0x0a, 1, b'k'].repeat(1 << 20);
        assert!(check(&tiny_parameters).is_err());
    }

    #[test]
    fn what_people_send_is_decoded() {
        let numbers = InferTensorContents { int64_contents: vec![1; 9 << 20], ..Default::default() };
        assert!(check(&typed(numbers)).is_ok());
        let raw = ModelInferRequest {
            inputs: vec![InferInputTensor::default()],
            raw_input_contents: vec![bytes::Bytes::from(vec![0; 32 << 20])],
            ..ModelInferRequest::default()
        };
        assert!(check(&raw.encode_to_vec()).is_ok());
        assert_eq!(decoded_bytes(&raw.encode_to_vec()), INPUT_BYTES + SHARED_BYTES);
        assert!(check(&[0x2a, 0].repeat(10_000)).is_ok());
    }

    #[test]
    fn what_is_no_message_is_left_to_the_decoder() {
        for bytes in [&[0xff; 64][..], &[0x2a, 0x7f], &[0x2b], &[0x80; 20], &[]] {
            assert!(check(bytes).is_ok());
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_walked_over_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            wrapped: bool,
        ) {
            // As it is, and as the content of an input.
            let length = bytes.len() as u8 & 0x7f;
            let message = if wrapped { [&[0x2a, length][..], &bytes].concat() } else { bytes };
            prop_assert!(check(&message).is_ok());
            let _ = ModelInferRequest::decode(&message[..]);
        }

        #[test]
        fn what_decodes_takes_about_what_was_added_up(
            names in prop::collection::vec("[a-z]{0,20}", 0..20),
            numbers in prop::collection::vec(any::<i64>(), 0..20),
        ) {
            let inputs = names.iter().map(|name| InferInputTensor {
                name: name.clone(),
                shape: numbers.clone(),
                ..InferInputTensor::default()
            });
            let request = ModelInferRequest { inputs: inputs.collect(), ..ModelInferRequest::default() };
            let taken: usize = names.iter().map(|name| 320 + name.len() + 8 * numbers.len()).sum();
            prop_assert!(decoded_bytes(&request.encode_to_vec()) >= taken as u64);
        }
    }
}
