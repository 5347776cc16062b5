//! The frame around everything that is written for long: what is inside can be
//! told, and damage noticed, without decoding it.
//!
//! Layout, envelope version 1, integers big-endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 2 | magic `SL` |
//! | 2 | 1 | envelope version, 1 |
//! | 3 | 2 | type number of what is inside (see [`crate::codec`]) |
//! | 5 | 2 | its schema version |
//! | 7 | 1 | class: 0 audit, 1 telemetry; the other bits are zero |
//! | 8 | 4 | length of the payload in bytes |
//! | 12 | 4 | CRC32C of bytes 0–11 and the payload |
//! | 16 | … | payload: the context of the entry, then the stored value |
//!
//! The context's layout is fixed by the envelope version.

use bytes::Bytes;
use uuid::Uuid;

use crate::codec::{self, CodecError, Decode, Encode, Stored};
use crate::state::{
    Command, EntryContext, Event, EventClass, FeatureLevel, LogIndex, LogTime, Principal, RequestId, WallTime,
};

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 16;
/// Largest payload.
pub const PAYLOAD_BYTES_MAX: usize = codec::MESSAGE_BYTES_MAX;

const MAGIC: [u8; 2] = *b"SL";
const ENVELOPE_VERSION: u8 = 1;

/// Why bytes are no envelope, or not one that this binary can open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Fewer bytes than the header says, or than a header has.
    #[error("envelope is cut off: {needed} bytes are needed, {found} are there")]
    CutOff {
        /// By the header.
        needed: usize,
        /// What there is.
        found: usize,
    },
    /// More bytes than the header says.
    #[error("envelope is followed by {0} bytes that do not belong to it")]
    Leftover(usize),
    /// Not an envelope.
    #[error("envelope begins with {0:02x?} instead of 'SL'")]
    Magic([u8; 2]),
    /// Written by a newer binary.
    #[error("envelope has version {0}, this binary reads version 1; update starling on this node")]
    Version(u8),
    /// A class or flag of a newer binary.
    #[error(
        "envelope has class and flags {0:#04x}, which this binary does not know; update starling on this node"
    )]
    Class(u8),
    /// Longer than anything that is written.
    #[error("envelope claims a payload of {0} bytes, more than the limit of 16 MiB")]
    TooLong(usize),
    /// The bytes have changed since they were written.
    #[error("envelope is damaged: its checksum is {found:08x} instead of {expected:08x}")]
    Checksum {
        /// As written.
        expected: u32,
        /// As computed.
        found: u32,
    },
    /// What is inside cannot be read.
    #[error(transparent)]
    Content(#[from] CodecError),
}

/// A frame whose checksum was found right; what is inside is not decoded yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Type number of what is inside.
    pub number: u16,
    /// Its schema version.
    pub version: u16,
    /// How long it is kept.
    pub class: EventClass,
    /// Context and stored value.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at the beginning of `bytes`, and how many bytes it takes.
    pub fn read(bytes: &'a [u8]) -> Result<(Self, usize), EnvelopeError> {
        let cut_off = |needed| EnvelopeError::CutOff { needed, found: bytes.len() };
        let (header, rest) = bytes.split_first_chunk().ok_or_else(|| cut_off(HEADER_BYTES))?;
        let header = Header::read(header)?;
        let payload =
            rest.get(..header.payload_bytes).ok_or_else(|| cut_off(HEADER_BYTES + header.payload_bytes))?;
        header.check(payload)?;
        let frame = Self { number: header.number, version: header.version, class: header.class, payload };
        Ok((frame, HEADER_BYTES + header.payload_bytes))
    }

    /// The frame that `bytes` are, no more and no less.
    pub fn read_exact(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let (frame, used) = Self::read(bytes)?;
        if used < bytes.len() {
            return Err(EnvelopeError::Leftover(bytes.len() - used));
        }
        Ok(frame)
    }

    /// Appends the frame's bytes.
    pub fn write(&self, to: &mut Vec<u8>) {
        let begin = to.len();
        to.extend_from_slice(&MAGIC);
        to.push(ENVELOPE_VERSION);
        to.extend_from_slice(&self.number.to_be_bytes());
        to.extend_from_slice(&self.version.to_be_bytes());
        to.push(class_byte(self.class));
        to.extend_from_slice(&(self.payload.len() as u32).to_be_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&to[begin..]), self.payload);
        to.extend_from_slice(&checksum.to_be_bytes());
        to.extend_from_slice(self.payload);
    }
}

/// A frame's header, whose payload has not been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    number: u16,
    version: u16,
    class: EventClass,
    /// Bytes that follow the header.
    pub(crate) payload_bytes: usize,
    checksum: u32,
    checksum_so_far: u32,
}

impl Header {
    /// Checks everything but the checksum.
    pub(crate) fn read(bytes: &[u8; HEADER_BYTES]) -> Result<Self, EnvelopeError> {
        let [m0, m1, envelope, n0, n1, v0, v1, class, l0, l1, l2, l3, c0, c1, c2, c3] = *bytes;
        if [m0, m1] != MAGIC {
            return Err(EnvelopeError::Magic([m0, m1]));
        }
        if envelope != ENVELOPE_VERSION {
            return Err(EnvelopeError::Version(envelope));
        }
        let payload_bytes = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(EnvelopeError::TooLong(payload_bytes));
        }
        Ok(Self {
            number: u16::from_be_bytes([n0, n1]),
            version: u16::from_be_bytes([v0, v1]),
            class: class_of(class)?,
            payload_bytes,
            checksum: u32::from_be_bytes([c0, c1, c2, c3]),
            checksum_so_far: crc32c::crc32c(&bytes[..12]),
        })
    }

    fn check(&self, payload: &[u8]) -> Result<(), EnvelopeError> {
        let found = crc32c::crc32c_append(self.checksum_so_far, payload);
        if found == self.checksum {
            return Ok(());
        }
        Err(EnvelopeError::Checksum { expected: self.checksum, found })
    }
}

fn class_byte(class: EventClass) -> u8 {
    match class {
        EventClass::Audit => 0,
        EventClass::Telemetry => 1,
    }
}

fn class_of(byte: u8) -> Result<EventClass, EnvelopeError> {
    match byte {
        0 => Ok(EventClass::Audit),
        1 => Ok(EventClass::Telemetry),
        other => Err(EnvelopeError::Class(other)),
    }
}

/// A command with what the leader stamped on it: what a Raft entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandEnvelope {
    /// Leader's log time.
    pub log_time: LogTime,
    /// Leader's wall clock, for people.
    pub wall_time: WallTime,
    /// Who asked.
    pub principal: Principal,
    /// The client's id of this request; retries repeat it.
    pub request_id: RequestId,
    /// The cluster's feature level as the leader knew it: for people, since
    /// what is decided depends on the state's.
    pub feature_level: FeatureLevel,
    /// How long what it causes is kept.
    pub class: EventClass,
    /// What is asked.
    pub command: Command,
}

#[derive(Encode, Decode)]
struct CommandContextV1 {
    log_time_micros: u64,
    wall_time_micros: u64,
    principal: String,
    request_id: [u8; 16],
    feature_level: u32,
}

impl CommandEnvelope {
    /// The envelope's bytes.
    pub fn encode(&self) -> Bytes {
        let context = CommandContextV1 {
            log_time_micros: self.log_time.as_micros(),
            wall_time_micros: self.wall_time.as_unix_micros(),
            principal: self.principal.as_str().to_owned(),
            request_id: self.request_id.uuid().into_bytes(),
            feature_level: self.feature_level.get(),
        };
        encode(codec::freeze(&context), &codec::store_command(&self.command), self.class)
    }

    /// From exactly these bytes. An unknown type must stop the node.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let frame = Frame::read_exact(bytes)?;
        let (context, used) = codec::thaw_prefix::<CommandContextV1>("command context", frame.payload)?;
        let stored = frame.payload.get(used..).unwrap_or_default();
        Ok(Self {
            log_time: LogTime::from_micros(context.log_time_micros),
            wall_time: WallTime::from_unix_micros(context.wall_time_micros),
            principal: Principal::named(&context.principal),
            request_id: RequestId::new(Uuid::from_bytes(context.request_id)),
            feature_level: FeatureLevel::new(context.feature_level),
            class: frame.class,
            command: codec::restore_command(frame.number, frame.version, stored)?,
        })
    }

    /// What the state needs to know, for the entry at `log_index`.
    pub fn context(&self, log_index: LogIndex) -> EntryContext {
        EntryContext {
            log_index,
            log_time: self.log_time,
            wall_time: self.wall_time,
            principal: self.principal.clone(),
            request_id: self.request_id,
        }
    }
}

/// An event with its place in the log: what the history holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventEnvelope {
    /// Its entry, and what that said.
    pub context: EntryContext,
    /// Which of the entry's events it is, from 0.
    pub position: u32,
    /// How long it is kept.
    pub class: EventClass,
    /// What happened.
    pub event: Event,
}

/// Begins with index and position, so that a reader can skip without decoding.
#[derive(Encode, Decode)]
struct EventContextV1 {
    log_index: u64,
    position: u32,
    log_time_micros: u64,
    wall_time_micros: u64,
    principal: String,
    request_id: [u8; 16],
}

impl EventEnvelope {
    /// The envelope's bytes.
    pub fn encode(&self) -> Bytes {
        let context = EventContextV1 {
            log_index: self.context.log_index.get(),
            position: self.position,
            log_time_micros: self.context.log_time.as_micros(),
            wall_time_micros: self.context.wall_time.as_unix_micros(),
            principal: self.context.principal.as_str().to_owned(),
            request_id: self.context.request_id.uuid().into_bytes(),
        };
        encode(codec::freeze(&context), &codec::store_event(&self.event), self.class)
    }

    /// From exactly these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        Self::from_frame(&Frame::read_exact(bytes)?)
    }

    /// From a frame.
    pub fn from_frame(frame: &Frame<'_>) -> Result<Self, EnvelopeError> {
        let (context, used) = codec::thaw_prefix::<EventContextV1>("event context", frame.payload)?;
        let stored = frame.payload.get(used..).unwrap_or_default();
        let event = codec::restore_event(frame.number, frame.version, stored)?;
        Ok(Self {
            context: EntryContext {
                log_index: LogIndex::new(context.log_index),
                log_time: LogTime::from_micros(context.log_time_micros),
                wall_time: WallTime::from_unix_micros(context.wall_time_micros),
                principal: Principal::named(&context.principal),
                request_id: RequestId::new(Uuid::from_bytes(context.request_id)),
            },
            position: context.position,
            class: frame.class,
            event,
        })
    }
}

fn encode(mut payload: Vec<u8>, stored: &Stored, class: EventClass) -> Bytes {
    payload.extend_from_slice(&stored.payload);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    Frame { number: stored.number, version: stored.version, class, payload: &payload }.write(&mut bytes);
    bytes.into()
}
