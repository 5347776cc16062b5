//! BYTES contents: each element is its length in four bytes, little-endian,
//! then itself. Elements may hold any byte, NUL included.

use bytes::{BufMut, Bytes, BytesMut};

pub(crate) const LENGTH_BYTES: usize = 4;

/// Where the framing breaks.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadFraming {
    #[error("element {element} has no complete length of 4 bytes at byte {offset}")]
    Length { element: usize, offset: usize },
    #[error("element {element} says it has {said} bytes, but {left} are left")]
    Content { element: usize, said: usize, left: usize },
    #[error("expected {expected} elements, got {got}")]
    Count { expected: usize, got: usize },
}

/// Checks the framing and the number of elements.
pub(crate) fn check(raw: &[u8], expected: usize) -> Result<(), BadFraming> {
    let mut offset = 0;
    let mut element = 0;
    while offset < raw.len() {
        let Some(said) = length_at(raw, offset) else { return Err(BadFraming::Length { element, offset }) };
        let left = raw.len() - offset - LENGTH_BYTES;
        if said > left {
            return Err(BadFraming::Content { element, said, left });
        }
        offset += LENGTH_BYTES + said;
        element += 1;
    }
    if element != expected {
        return Err(BadFraming::Count { expected, got: element });
    }
    Ok(())
}

/// The elements, sharing the memory of `raw`. Stops where the framing breaks.
pub(crate) fn split(raw: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    let mut offset = 0;
    std::iter::from_fn(move || {
        let start = offset + LENGTH_BYTES;
        let end = start.checked_add(length_at(raw, offset)?)?;
        if end > raw.len() {
            return None;
        }
        offset = end;
        Some(raw.slice(start..end))
    })
}

/// Where each element begins, and where the last ends.
pub(crate) fn starts(raw: &Bytes) -> Vec<usize> {
    let mut starts = vec![0];
    let mut end = 0;
    for element in split(raw) {
        end += LENGTH_BYTES + element.len();
        starts.push(end);
    }
    starts
}

fn length_at(raw: &[u8], offset: usize) -> Option<usize> {
    let length = raw.get(offset..)?.first_chunk::<LENGTH_BYTES>()?;
    Some(u32::from_le_bytes(*length) as usize)
}

/// Frames elements; also says where each begins, and where the last ends.
pub(crate) fn join<'a>(elements: impl Iterator<Item = &'a [u8]> + Clone) -> (Bytes, Vec<usize>) {
    let size = elements.clone().map(|element| LENGTH_BYTES + element.len()).sum();
    let mut raw = BytesMut::with_capacity(size);
    let mut starts = Vec::with_capacity(elements.clone().count() + 1);
    for element in elements {
        starts.push(raw.len());
        raw.put_u32_le(element.len() as u32);
        raw.put_slice(element);
    }
    starts.push(raw.len());
    (raw.freeze(), starts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn elements_with_nul_and_without_utf8_survive() {
        let elements: [&[u8]; 4] = [b"ham", b"", b"a\0b", &[0xff, 0xfe]];
        let (raw, starts) = join(elements.iter().copied());
        assert_eq!(&raw[..7], b"\x03\0\0\0ham");
        assert_eq!(starts, [0, 7, 11, 18, 24]);
        assert_eq!(self::starts(&raw), starts);
        assert_eq!(check(&raw, 4), Ok(()));
        assert_eq!(split(&raw).collect::<Vec<_>>(), elements);
    }

    #[test]
    fn broken_framing_is_named() {
        assert_eq!(check(&[3, 0, 0], 1), Err(BadFraming::Length { element: 0, offset: 0 }));
        assert_eq!(check(&[9, 0, 0, 0, b'x'], 1), Err(BadFraming::Content { element: 0, said: 9, left: 1 }));
        assert_eq!(check(&[1, 0, 0, 0, b'x'], 2), Err(BadFraming::Count { expected: 2, got: 1 }));
        assert_eq!(check(&[], 0), Ok(()));
        assert_eq!(
            check(&[0xff, 0xff, 0xff, 0xff], 1).unwrap_err().to_string(),
            "element 0 says it has 4294967295 bytes, but 0 are left"
        );
    }
}
