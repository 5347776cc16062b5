//! Frames: a length, a kind, the number of the request, and a protobuf message.
//! Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use super::Over;

/// Length of the body (4 bytes), kind (1), number of the request (8); big-endian.
pub(super) const HEAD_BYTES: usize = 13;

/// What a frame says. Numbers are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// First of all: a `ForwardHello`.
    Hello = 1,
    /// Its answer: requests may come. No body.
    Welcome = 2,
    /// A `ForwardRequest`.
    Request = 3,
    /// The answer to a request is of no use any more. No body.
    Cancel = 4,
    /// A `ModelInferResponse`.
    Answer = 5,
    /// A `ForwardRefusal`, of a request or of the greeting.
    Refusal = 6,
    /// No new requests, please; those under way are answered. No body.
    Leaving = 7,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Hello, Self::Welcome, Self::Request, Self::Cancel, Self::Answer, Self::Refusal, Self::Leaving];
}

/// One frame as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    /// 0 where no request is meant.
    pub(super) id: u64,
    pub(super) body: Bytes,
}

/// A frame with a message.
pub(super) fn framed(kind: Kind, id: u64, message: &impl Message) -> Bytes {
    let body_bytes = message.encoded_len();
    let mut frame = begun(kind, id, body_bytes);
    message.encode_raw(&mut frame);
    frame.freeze()
}

/// A frame without a body.
pub(super) fn bare(kind: Kind, id: u64) -> Bytes {
    begun(kind, id, 0).freeze()
}

/// A frame of which the body is still to be written: so many bytes.
pub(super) fn begun(kind: Kind, id: u64, body_bytes: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + body_bytes);
    frame.put_u32(u32::try_from(body_bytes).unwrap_or(u32::MAX));
    frame.put_u8(kind as u8);
    frame.put_u64(id);
    frame
}

/// Takes a frame off the front of what was read, if there is a whole one.
pub(super) fn take(read: &mut BytesMut, body_bytes_max: usize) -> Result<Option<Frame>, Over> {
    let Some(mut head) = read.get(..HEAD_BYTES) else { return Ok(None) };
    let (body_bytes, kind, id) = (head.get_u32() as usize, head.get_u8(), head.get_u64());
    if body_bytes > body_bytes_max {
        return Err(Over::Frame(format!("{body_bytes} bytes, and {body_bytes_max} are allowed")));
    }
    let Some(kind) = Kind::ALL.into_iter().find(|known| *known as u8 == kind) else {
        return Err(Over::Frame(format!("kind {kind} is not known")));
    };
    if read.len() < HEAD_BYTES + body_bytes {
        return Ok(None);
    }
    read.advance(HEAD_BYTES);
    Ok(Some(Frame { kind, id, body: read.split_to(body_bytes).freeze() }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use starling_proto::peer::ForwardHello;

    use super::*;

    fn hello() -> ForwardHello {
        ForwardHello { cluster_id: "c".into(), from: 7, to: 8 }
    }

    #[test]
    fn frames_are_read_in_whatever_pieces_they_come() {
        let sent = [framed(Kind::Hello, 0, &hello()), bare(Kind::Cancel, u64::MAX)].concat();
        for size in [1, 5, 13, sent.len()] {
            let (mut read, mut frames) = (BytesMut::new(), Vec::new());
            for piece in sent.chunks(size) {
                read.extend_from_slice(piece);
                while let Some(frame) = take(&mut read, 100).unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames.len(), 2, "in pieces of {size}");
            assert_eq!((frames[0].kind, frames[0].id), (Kind::Hello, 0));
            assert_eq!(ForwardHello::decode(frames[0].body.clone()).unwrap(), hello());
            assert_eq!(frames[1], Frame { kind: Kind::Cancel, id: u64::MAX, body: Bytes::new() });
            assert!(read.is_empty());
        }
    }

    #[test]
    fn a_frame_is_refused_by_its_head() {
        let mut too_long = BytesMut::from(&[0, 0, 0, 101, 3, 0, 0, 0, 0, 0, 0, 0, 1][..]);
        assert!(take(&mut too_long, 100).unwrap_err().to_string().contains("101 bytes"));
        let mut unknown = BytesMut::from(&[0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1][..]);
        assert!(take(&mut unknown, 100).unwrap_err().to_string().contains("kind 8"));
    }
}
