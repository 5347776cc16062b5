//! The id of a decision: which version a request got, and why, in one opaque
//! word. It can be explained, and its reward credited, without a look-up.
//!
//! Format 1, fixed for ever: the bytes `format (1)`, then as LEB128 varints
//! node, boot, sequence, model id, epoch, rule (0: none, else index + 1),
//! enrolment bucket, arm bucket (each 0: none, else bucket + 1), then one check
//! byte (low byte of the xxh3 of all before it); written as base64url without
//! padding. About 30 characters. Varints are the shortest possible and spare
//! bits are zero, so a decision has exactly one id.

use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh3::xxh3_64;

use super::bucket::Bucket;
use super::{Epoch, NodeId};

/// A decision, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decision {
    /// The node that decided: the decision's home.
    pub node: NodeId,
    /// How often that node had started.
    pub boot: u32,
    /// Counts the node's decisions since that start.
    pub sequence: u64,
    /// The model's id (see [`super::Model::id`]).
    pub model_id: u64,
    /// The route's epoch.
    pub epoch: Epoch,
    /// Index of the rule that matched, if one did.
    pub rule: Option<u16>,
    /// Decided whether the request takes part in an experiment.
    pub enrolment: Option<Bucket>,
    /// Decided which arm it got.
    pub arm: Option<Bucket>,
}

/// Why a text is no decision id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a decision id; it comes from the response parameter starling_decision")]
pub struct InvalidDecision(pub String);

const FORMAT: u8 = 1;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Format, four varints of 64 bits, one of 32, rule, two buckets, check byte.
const BYTES_MAX: usize = 1 + 4 * 10 + 5 + 3 + 2 * 3 + 1;
const TEXT_BYTES_MAX: usize = (BYTES_MAX * 4).div_ceil(3);
/// How much of a wrong text an error repeats.
const SHOWN_CHARACTERS_MAX: usize = 100;

impl Decision {
    /// Appends the id to a text, allocating nothing else.
    pub fn encode_into(&self, to: &mut String) {
        let mut bytes = Bytes { buffer: [0; BYTES_MAX], length: 0 };
        bytes.push(FORMAT);
        bytes.push_varint(self.node.get());
        bytes.push_varint(u64::from(self.boot));
        bytes.push_varint(self.sequence);
        bytes.push_varint(self.model_id);
        bytes.push_varint(self.epoch.get());
        bytes.push_varint(self.rule.map_or(0, |index| u64::from(index) + 1));
        bytes.push_varint(self.enrolment.map_or(0, |bucket| u64::from(bucket.get()) + 1));
        bytes.push_varint(self.arm.map_or(0, |bucket| u64::from(bucket.get()) + 1));
        let check = check_byte(bytes.written());
        bytes.push(check);
        push_base64(bytes.written(), to);
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(TEXT_BYTES_MAX);
        self.encode_into(&mut text);
        f.write_str(&text)
    }
}

impl FromStr for Decision {
    type Err = InvalidDecision;

    fn from_str(text: &str) -> Result<Self, InvalidDecision> {
        parse(text.as_bytes())
            .ok_or_else(|| InvalidDecision(text.chars().take(SHOWN_CHARACTERS_MAX).collect()))
    }
}

fn parse(text: &[u8]) -> Option<Decision> {
    let mut buffer = [0; BYTES_MAX];
    let bytes = decode_base64(text, &mut buffer)?;
    let (check, content) = bytes.split_last()?;
    if *check != check_byte(content) {
        return None;
    }
    let (format, mut rest) = content.split_first()?;
    if *format != FORMAT {
        return None;
    }
    let decision = Decision {
        node: NodeId::new(take_varint(&mut rest)?),
        boot: take_varint(&mut rest)?.try_into().ok()?,
        sequence: take_varint(&mut rest)?,
        model_id: take_varint(&mut rest)?,
        epoch: Epoch::new(take_varint(&mut rest)?),
        rule: take_rule(&mut rest)?,
        enrolment: take_bucket(&mut rest)?,
        arm: take_bucket(&mut rest)?,
    };
    rest.is_empty().then_some(decision)
}

fn take_rule(rest: &mut &[u8]) -> Option<Option<u16>> {
    match take_varint(rest)?.checked_sub(1) {
        None => Some(None),
        Some(index) => Some(Some(index.try_into().ok()?)),
    }
}

fn take_bucket(rest: &mut &[u8]) -> Option<Option<Bucket>> {
    match take_varint(rest)?.checked_sub(1) {
        None => Some(None),
        Some(bucket) => Some(Some(Bucket::new(bucket.try_into().ok()?)?)),
    }
}

/// The shortest form only: another one of the same number is refused.
fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    let mut shift = 0;
    loop {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        let beyond_64_bits = shift > 63 || (shift == 63 && bits > 1);
        let padded = *byte == 0 && shift > 0;
        if beyond_64_bits || padded {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
    }
}

fn check_byte(content: &[u8]) -> u8 {
    (xxh3_64(content) & 0xff) as u8
}

struct Bytes {
    buffer: [u8; BYTES_MAX],
    length: usize,
}

impl Bytes {
    fn push(&mut self, byte: u8) {
        self.buffer[self.length] = byte;
        self.length += 1;
    }

    fn push_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn written(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

fn push_base64(bytes: &[u8], to: &mut String) {
    for group in bytes.chunks(3) {
        let bits = match *group {
            [a, b, c] => u32::from(a) << 16 | u32::from(b) << 8 | u32::from(c),
            [a, b] => u32::from(a) << 16 | u32::from(b) << 8,
            [a] => u32::from(a) << 16,
            _ => 0,
        };
        for digit in 0..=group.len() {
            let index = (bits >> (18 - 6 * digit)) & 0x3f;
            to.push(char::from(ALPHABET[index as usize]));
        }
    }
}

/// `None`: a foreign character, an impossible length, or spare bits that are set.
fn decode_base64<'a>(text: &[u8], buffer: &'a mut [u8; BYTES_MAX]) -> Option<&'a [u8]> {
    if text.len() > TEXT_BYTES_MAX || text.len() % 4 == 1 {
        return None;
    }
    let mut length = 0;
    for group in text.chunks(4) {
        let mut bits = 0_u32;
        for (digit, character) in group.iter().enumerate() {
            bits |= u32::from(sextet(*character)?) << (18 - 6 * digit);
        }
        let whole_bytes = group.len() - 1;
        if bits & (0xff_ffff >> (8 * whole_bytes)) != 0 {
            return None;
        }
        let [_, decoded @ ..] = bits.to_be_bytes();
        buffer.get_mut(length..length + whole_bytes)?.copy_from_slice(&decoded[..whole_bytes]);
        length += whole_bytes;
    }
    Some(&buffer[..length])
}

fn sextet(character: u8) -> Option<u8> {
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}
