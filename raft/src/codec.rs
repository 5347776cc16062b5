//! How commands, events, answers and the state become bytes, for ever: the one
//! file that names the serialisation library.
//!
//! The library writes values by position and says nothing about what they are,
//! so a changed struct would misread old bytes without a sign. Hence:
//!
//! - what is stored is never a type of [`crate::state`] but a frozen copy of it
//!   (`VersionRegisteredV1`), which is never changed, only followed by a `V2`;
//! - every stored type has a number and a schema version of its own, which stand
//!   before its bytes; numbers are only ever added, never used again;
//! - of several versions the oldest that says all of it is written, so that
//!   members which know only that one go on reading it;
//! - reading leads by pure steps from whichever version to the newest type;
//! - every (number, version) has a golden file, see `tests/golden/README.md`;
//! - every decode has a limit, counts what it would allocate against it, and
//!   refuses bytes that are left over.
//!
//! Layout: integers big-endian and of fixed width, lengths as `u64`, enums as a
//! `u32` index, in the order of the frozen struct's fields.

mod commands;
mod events;
mod outcomes;
mod pieces;
mod rollout_commands;
mod rollout_events;
mod rollout_pieces;
mod rollout_snapshots;
mod route_pieces;
mod snapshots;

use bincode::config::{BigEndian, Configuration, Fixint, Limit, NoLimit};
use bincode::error::DecodeError;
pub(crate) use bincode::{Decode, Encode};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::state::{Command, Event, Outcome, State};

/// Largest command, event or answer that is read.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Largest state that is read.
pub const STATE_BYTES_MAX: usize = 1 << 30;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Written by a newer binary, or not ours. It must not be skipped: this
    /// node would fold another state than the others.
    #[error(
        "stored {what} has type number {number:#06x}, which this binary does not know; update starling on this node"
    )]
    UnknownType {
        /// Command, event, answer or state.
        what: &'static str,
        /// The number.
        number: u16,
    },
    /// The type is known, this version of it is not.
    #[error(
        "stored {what} of type {number:#06x} has schema version {version}, which this binary does not know; update starling on this node"
    )]
    UnknownVersion {
        /// Command, event, answer or state.
        what: &'static str,
        /// The type's number.
        number: u16,
        /// The schema version.
        version: u16,
    },
    /// The bytes do not fit the type they claim to be.
    #[error("stored {what} is damaged: {reason}")]
    Damaged {
        /// What was read.
        what: &'static str,
        /// In the words of whoever noticed.
        reason: String,
    },
}

/// A stored value: which type, which version of it, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The type's number.
    pub number: u16,
    /// The schema version.
    pub version: u16,
    /// The frozen struct's bytes.
    pub payload: Vec<u8>,
}

/// A command as a stored value, for an envelope.
pub fn store_command(command: &Command) -> Stored {
    commands::store(command)
}

/// A command from a stored value.
pub fn restore_command(number: u16, version: u16, payload: &[u8]) -> Result<Command, CodecError> {
    commands::restore(number, version, payload)
}

/// An event as a stored value, for an envelope.
pub fn store_event(event: &Event) -> Stored {
    events::store(event)
}

/// An event from a stored value.
pub fn restore_event(number: u16, version: u16, payload: &[u8]) -> Result<Event, CodecError> {
    events::restore(number, version, payload)
}

/// A command's bytes: number, version, frozen struct.
pub fn encode_command(command: &Command) -> Bytes {
    join(commands::store(command))
}

/// A command from [`encode_command`]'s bytes.
pub fn decode_command(bytes: &[u8]) -> Result<Command, CodecError> {
    let (number, version, payload) = split("command", bytes)?;
    commands::restore(number, version, payload)
}

/// An event's bytes: number, version, frozen struct.
pub fn encode_event(event: &Event) -> Bytes {
    join(events::store(event))
}

/// An event from [`encode_event`]'s bytes.
pub fn decode_event(bytes: &[u8]) -> Result<Event, CodecError> {
    let (number, version, payload) = split("event", bytes)?;
    events::restore(number, version, payload)
}

/// An answer's bytes: number, version, frozen struct.
pub fn encode_outcome(outcome: &Outcome) -> Bytes {
    join(outcomes::store(outcome))
}

/// An answer from [`encode_outcome`]'s bytes.
pub fn decode_outcome(bytes: &[u8]) -> Result<Outcome, CodecError> {
    let (number, version, payload) = split("answer", bytes)?;
    outcomes::restore(number, version, payload)
}

/// The state's canonical bytes: equal states, equal bytes.
pub fn encode_state(state: &State) -> Vec<u8> {
    join(snapshots::store(state)).into()
}

/// A state from [`encode_state`]'s bytes.
pub fn decode_state(bytes: &[u8]) -> Result<State, CodecError> {
    let (number, version, payload) = split("state", bytes)?;
    snapshots::restore(number, version, payload)
}

/// SHA-256 of the state's canonical bytes: what `cluster verify` compares.
pub fn state_digest(state: &State) -> [u8; 32] {
    Sha256::digest(encode_state(state)).into()
}

/// Every (what, number, version) that this binary can read. Each has a golden file.
pub fn known_types() -> Vec<(&'static str, u16, u16)> {
    let commands = commands::KNOWN
        .iter()
        .chain(rollout_commands::KNOWN)
        .map(|(number, version)| ("command", *number, *version));
    let events = events::KNOWN
        .iter()
        .chain(rollout_events::KNOWN)
        .map(|(number, version)| ("event", *number, *version));
    let outcomes = outcomes::KNOWN.iter().map(|(number, version)| ("outcome", *number, *version));
    let states = snapshots::KNOWN.iter().map(|(number, version)| ("state", *number, *version));
    commands.chain(events).chain(outcomes).chain(states).collect()
}

type Layout<L> = Configuration<BigEndian, Fixint, L>;

const fn layout() -> Layout<NoLimit> {
    bincode::config::standard().with_big_endian().with_fixed_int_encoding()
}

const fn message_layout() -> Layout<Limit<MESSAGE_BYTES_MAX>> {
    layout().with_limit::<MESSAGE_BYTES_MAX>()
}

const fn state_layout() -> Layout<Limit<STATE_BYTES_MAX>> {
    layout().with_limit::<STATE_BYTES_MAX>()
}

/// A frozen struct's bytes.
#[expect(clippy::expect_used, reason = "wrong bytes must never be written in silence")]
pub(crate) fn freeze<T: Encode>(frozen: &T) -> Vec<u8> {
    bincode::encode_to_vec(frozen, layout())
        .expect("integers, texts and collections have no way to fail to be encoded into memory")
}

/// A frozen struct from exactly these bytes.
pub(crate) fn thaw<T: Decode<()>>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    let (frozen, used) = thaw_prefix(what, bytes)?;
    refuse_leftover(what, used, bytes.len())?;
    Ok(frozen)
}

/// A frozen struct from the beginning of these bytes, and how many it took.
pub(crate) fn thaw_prefix<T: Decode<()>>(what: &'static str, bytes: &[u8]) -> Result<(T, usize), CodecError> {
    bincode::decode_from_slice(bytes, message_layout()).map_err(|error| damaged(what, &error))
}

fn thaw_state<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    let (frozen, used) =
        bincode::decode_from_slice(bytes, state_layout()).map_err(|error| damaged("state", &error))?;
    refuse_leftover("state", used, bytes.len())?;
    Ok(frozen)
}

fn refuse_leftover(what: &'static str, used: usize, total: usize) -> Result<(), CodecError> {
    if used == total {
        return Ok(());
    }
    Err(CodecError::Damaged { what, reason: format!("{} bytes are left over", total - used) })
}

fn damaged(what: &'static str, error: &DecodeError) -> CodecError {
    CodecError::Damaged { what, reason: error.to_string() }
}

fn invalid(what: &'static str) -> impl Fn(crate::state::identifiers::InvalidName) -> CodecError {
    move |error| CodecError::Damaged { what, reason: error.to_string() }
}

fn stored<T: Encode>(number: u16, version: u16, frozen: &T) -> Stored {
    Stored { number, version, payload: freeze(frozen) }
}

fn join(stored: Stored) -> Bytes {
    let mut bytes = Vec::with_capacity(4 + stored.payload.len());
    bytes.extend_from_slice(&stored.number.to_be_bytes());
    bytes.extend_from_slice(&stored.version.to_be_bytes());
    bytes.extend_from_slice(&stored.payload);
    bytes.into()
}

fn split<'a>(what: &'static str, bytes: &'a [u8]) -> Result<(u16, u16, &'a [u8]), CodecError> {
    let short = || CodecError::Damaged { what, reason: format!("{} bytes are too few", bytes.len()) };
    let (number, rest) = bytes.split_first_chunk::<2>().ok_or_else(short)?;
    let (version, payload) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    Ok((u16::from_be_bytes(*number), u16::from_be_bytes(*version), payload))
}
