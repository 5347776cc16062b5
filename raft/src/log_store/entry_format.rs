//! The bytes of the log on disk: keys, votes, log ids, entries.
//!
//! Written out field by field, big-endian, so that neither a library's update
//! nor a reordered struct can change what is stored. Everything carries a
//! version byte and a CRC32C; golden tests hold the bytes in place.
//!
//! ```text
//! meta key   00 ‖ kind                       one value each: vote, purged, committed, marker, origin
//! log key    01 ‖ index:u64 ‖ chunk:u16      an entry is cut into chunks, numbered from 0
//!
//! meta value version:u8 ‖ crc:u32 ‖ kind:u8 ‖ body
//! chunk      version:u8 ‖ crc:u32 ‖ index:u64 ‖ term:u64 ‖ leader:u64 ‖ entry_len:u32
//!            ‖ chunk_count:u16 ‖ chunk:u16 ‖ len:u16 ‖ bytes
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::impls::leader_id_adv::LeaderId;
use openraft::{BasicNode, Entry, EntryPayload, LogId, Membership, Vote};

use crate::raft_types::{EnvelopeBytes, TypeConfig};

pub(super) type LogIdOfStarling = LogIdOf<TypeConfig>;
pub(super) type VoteOfStarling = VoteOf<TypeConfig>;
pub(super) type EntryOfStarling = EntryOf<TypeConfig>;

/// Version byte of everything this module writes.
const FORMAT_VERSION: u8 = 1;
/// Largest value given to sled, header included. Larger ones end up in side
/// files that sled never syncs.
pub(super) const VALUE_BYTES_MAX: usize = 4096;
const CHUNK_HEADER_BYTES: usize = 1 + 4 + 8 + 8 + 8 + 4 + 2 + 2 + 2;
const CHUNK_PAYLOAD_BYTES_MAX: usize = VALUE_BYTES_MAX - CHUNK_HEADER_BYTES;
/// Largest entry that can be stored. Artefacts do not go through the log.
pub(super) const ENTRY_BYTES_MAX: usize = 16 << 20;

const META_PREFIX: u8 = 0;
const LOG_PREFIX: u8 = 1;

const PAYLOAD_BLANK: u8 = 0;
const PAYLOAD_NORMAL: u8 = 1;
const PAYLOAD_MEMBERSHIP: u8 = 2;

/// Why stored bytes are not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormatError {
    #[error("{what} ends too early")]
    TooShort { what: &'static str },
    #[error("{what} has {extra_bytes} bytes too many")]
    TooLong { what: &'static str, extra_bytes: usize },
    #[error("{what} has format version {found}, this binary reads version {FORMAT_VERSION}")]
    Version { what: &'static str, found: u8 },
    #[error("{what} does not match its checksum")]
    Checksum { what: &'static str },
    #[error("{what} holds {found}, expected {expected}")]
    Misplaced { what: &'static str, found: u64, expected: u64 },
    #[error("{what} is not text")]
    NotText { what: &'static str },
    #[error("a stored membership is not valid: {why}")]
    Membership { why: String },
    #[error("entry {index} is {entry_bytes} bytes, the most is {ENTRY_BYTES_MAX}")]
    EntryTooLarge { index: u64, entry_bytes: usize },
}

/// The single values beside the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Meta {
    /// The last vote.
    Vote = 1,
    /// Everything up to and including this log id was purged.
    Purged = 2,
    /// The last log id known to be committed; may lag.
    Committed = 3,
    /// The cluster this log belongs to.
    Marker = 4,
    /// Index of the first entry of a log from which nothing was purged yet.
    Origin = 5,
}

impl Meta {
    /// Where the value is stored.
    pub(super) fn key(self) -> Vec<u8> {
        vec![META_PREFIX, self as u8]
    }
}

/// Key of one chunk.
pub(super) fn log_key(index: u64, chunk: u16) -> Vec<u8> {
    let mut key = Vec::with_capacity(11);
    key.push(LOG_PREFIX);
    key.extend_from_slice(&index.to_be_bytes());
    key.extend_from_slice(&chunk.to_be_bytes());
    key
}

/// Keys before which the first chunk of `index` sorts, and none of the entry before it.
pub(super) fn log_key_floor(index: u64) -> Vec<u8> {
    log_key(index, 0)
}

/// Sorts after every log key.
pub(super) fn log_key_ceiling() -> Vec<u8> {
    vec![LOG_PREFIX + 1]
}

/// Index and chunk number of a log key.
pub(super) fn parse_log_key(key: &[u8]) -> Result<(u64, u16), FormatError> {
    let mut reader = Reader::new("a log key", key);
    let prefix = reader.u8()?;
    if prefix != LOG_PREFIX {
        return Err(misplaced("a log key", prefix.into(), LOG_PREFIX.into()));
    }
    let parsed = (reader.u64()?, reader.u16()?);
    reader.end()?;
    Ok(parsed)
}

/// Stored form of a vote.
pub(super) fn encode_vote(vote: &VoteOfStarling) -> Vec<u8> {
    let mut body = Vec::with_capacity(17);
    put_vote(&mut body, vote);
    seal_meta(Meta::Vote, &body)
}

/// The vote that [`encode_vote`] wrote.
pub(super) fn decode_vote(value: &[u8]) -> Result<VoteOfStarling, FormatError> {
    let mut reader = open_meta(Meta::Vote, "the vote", value)?;
    let vote = reader.vote()?;
    reader.end()?;
    Ok(vote)
}

/// Stored form of a log id under `meta`.
pub(super) fn encode_log_id(meta: Meta, log_id: &LogIdOfStarling) -> Vec<u8> {
    let mut body = Vec::with_capacity(24);
    put_log_id(&mut body, log_id);
    seal_meta(meta, &body)
}

/// The log id that [`encode_log_id`] wrote.
pub(super) fn decode_log_id(meta: Meta, value: &[u8]) -> Result<LogIdOfStarling, FormatError> {
    let mut reader = open_meta(meta, "a log id", value)?;
    let log_id = reader.log_id()?;
    reader.end()?;
    Ok(log_id)
}

/// Stored form of the marker.
pub(super) fn encode_marker(marker: &[u8; 16]) -> Vec<u8> {
    seal_meta(Meta::Marker, marker)
}

/// The marker that [`encode_marker`] wrote.
pub(super) fn decode_marker(value: &[u8]) -> Result<[u8; 16], FormatError> {
    let mut reader = open_meta(Meta::Marker, "the marker", value)?;
    let marker = reader.array()?;
    reader.end()?;
    Ok(marker)
}

/// Stored form of the origin.
pub(super) fn encode_origin(index: u64) -> Vec<u8> {
    seal_meta(Meta::Origin, &index.to_be_bytes())
}

/// The origin that [`encode_origin`] wrote.
pub(super) fn decode_origin(value: &[u8]) -> Result<u64, FormatError> {
    let mut reader = open_meta(Meta::Origin, "the origin", value)?;
    let origin = reader.u64()?;
    reader.end()?;
    Ok(origin)
}

/// Bytes an entry takes on disk, about, and in memory.
pub(super) fn entry_size_bytes(entry: &EntryOfStarling) -> usize {
    let payload_bytes = match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(envelope) => envelope.0.len(),
        EntryPayload::Membership(membership) => {
            let nodes: usize = membership.nodes().map(|(_, node)| 16 + node.addr.len()).sum();
            let voters: usize = membership.get_joint_config().iter().map(|config| 8 * config.len()).sum();
            nodes + voters
        }
    };
    CHUNK_HEADER_BYTES + 11 + payload_bytes
}

/// Refuses an entry that could not be stored.
pub(super) fn check_entry_size(entry: &EntryOfStarling) -> Result<(), FormatError> {
    let entry_bytes = entry_size_bytes(entry);
    if entry_bytes > ENTRY_BYTES_MAX {
        return Err(FormatError::EntryTooLarge { index: entry.log_id.index, entry_bytes });
    }
    Ok(())
}

/// The chunks of an entry, in order. [`check_entry_size`] comes first.
pub(super) fn encode_entry(entry: &EntryOfStarling) -> Vec<(Vec<u8>, Vec<u8>)> {
    let body = encode_payload(&entry.payload);
    let chunk_count = body.len().div_ceil(CHUNK_PAYLOAD_BYTES_MAX).max(1);
    let mut chunks = Vec::with_capacity(chunk_count);
    for chunk in 0..chunk_count {
        let start = chunk * CHUNK_PAYLOAD_BYTES_MAX;
        let end = body.len().min(start + CHUNK_PAYLOAD_BYTES_MAX);
        let bytes = &body[start..end];

        let mut sealed = Vec::with_capacity(CHUNK_HEADER_BYTES + bytes.len());
        put_log_id_index_first(&mut sealed, &entry.log_id);
        sealed.extend_from_slice(&(body.len() as u32).to_be_bytes());
        sealed.extend_from_slice(&(chunk_count as u16).to_be_bytes());
        sealed.extend_from_slice(&(chunk as u16).to_be_bytes());
        sealed.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        sealed.extend_from_slice(bytes);
        chunks.push((log_key(entry.log_id.index, chunk as u16), seal(&sealed)));
    }
    chunks
}

/// One verified chunk of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) log_id: LogIdOfStarling,
    pub(super) entry_len: u32,
    pub(super) chunk_count: u16,
    pub(super) chunk: u16,
    pub(super) bytes: Vec<u8>,
}

/// Reads one chunk and verifies that it is the one its key names.
pub(super) fn decode_chunk(key: &[u8], value: &[u8]) -> Result<Chunk, FormatError> {
    const WHAT: &str = "a chunk of an entry";
    let (key_index, key_chunk) = parse_log_key(key)?;
    let mut reader = Reader::new(WHAT, unseal(WHAT, value)?);
    let index = reader.u64()?;
    let term = reader.u64()?;
    let node_id = reader.u64()?;
    let entry_len = reader.u32()?;
    let chunk_count = reader.u16()?;
    let chunk = reader.u16()?;
    let len = reader.u16()?;
    let bytes = reader.take(len.into())?.to_vec();
    reader.end()?;
    if index != key_index {
        return Err(misplaced("a chunk's index", index, key_index));
    }
    if chunk != key_chunk {
        return Err(misplaced("a chunk's number", chunk.into(), key_chunk.into()));
    }
    Ok(Chunk { log_id: LogId::new(LeaderId { term, node_id }, index), entry_len, chunk_count, chunk, bytes })
}

/// Puts the chunks of one entry together. `chunks` must be all of them, in order.
pub(super) fn join_chunks(chunks: &[Chunk]) -> Result<EntryOfStarling, FormatError> {
    let Some(first) = chunks.first() else {
        return Err(FormatError::TooShort { what: "an entry" });
    };
    if chunks.len() != usize::from(first.chunk_count) {
        return Err(misplaced("the number of chunks", chunks.len() as u64, first.chunk_count.into()));
    }
    let mut body = Vec::with_capacity(chunks.iter().map(|chunk| chunk.bytes.len()).sum());
    for (position, chunk) in chunks.iter().enumerate() {
        if usize::from(chunk.chunk) != position {
            return Err(misplaced("the order of chunks", chunk.chunk.into(), position as u64));
        }
        let same_entry = chunk.log_id == first.log_id
            && chunk.entry_len == first.entry_len
            && chunk.chunk_count == first.chunk_count;
        if !same_entry {
            return Err(FormatError::Checksum { what: "an entry put together from its chunks" });
        }
        body.extend_from_slice(&chunk.bytes);
    }
    if body.len() as u64 != u64::from(first.entry_len) {
        return Err(misplaced("the length of an entry", body.len() as u64, first.entry_len.into()));
    }
    Ok(Entry { log_id: first.log_id, payload: decode_payload(body)? })
}

fn encode_payload(payload: &EntryPayload<EnvelopeBytes, u64, BasicNode>) -> Vec<u8> {
    match payload {
        EntryPayload::Blank => vec![PAYLOAD_BLANK],
        EntryPayload::Normal(envelope) => {
            let mut body = Vec::with_capacity(1 + envelope.0.len());
            body.push(PAYLOAD_NORMAL);
            body.extend_from_slice(&envelope.0);
            body
        }
        EntryPayload::Membership(membership) => {
            let mut body = vec![PAYLOAD_MEMBERSHIP];
            put_membership(&mut body, membership);
            body
        }
    }
}

fn decode_payload(body: Vec<u8>) -> Result<EntryPayload<EnvelopeBytes, u64, BasicNode>, FormatError> {
    let body = Bytes::from(body);
    let mut reader = Reader::new("the payload of an entry", &body);
    match reader.u8()? {
        PAYLOAD_BLANK => {
            reader.end()?;
            Ok(EntryPayload::Blank)
        }
        PAYLOAD_NORMAL => Ok(EntryPayload::Normal(EnvelopeBytes(body.slice(1..)))),
        PAYLOAD_MEMBERSHIP => {
            let membership = reader.membership()?;
            reader.end()?;
            Ok(EntryPayload::Membership(membership))
        }
        other => Err(misplaced("the kind of a payload", other.into(), PAYLOAD_MEMBERSHIP.into())),
    }
}

fn put_membership(out: &mut Vec<u8>, membership: &Membership<u64, BasicNode>) {
    let configs = membership.get_joint_config();
    out.extend_from_slice(&(configs.len() as u32).to_be_bytes());
    for config in configs {
        out.extend_from_slice(&(config.len() as u32).to_be_bytes());
        for voter in config {
            out.extend_from_slice(&voter.to_be_bytes());
        }
    }
    out.extend_from_slice(&(membership.nodes().count() as u32).to_be_bytes());
    for (id, node) in membership.nodes() {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&(node.addr.len() as u32).to_be_bytes());
        out.extend_from_slice(node.addr.as_bytes());
    }
}

/// Appends a vote: term, node, 1 if it was granted by a quorum.
pub(super) fn put_vote(out: &mut Vec<u8>, vote: &VoteOfStarling) {
    out.extend_from_slice(&vote.leader_id.term.to_be_bytes());
    out.extend_from_slice(&vote.leader_id.node_id.to_be_bytes());
    out.push(u8::from(vote.committed));
}

/// Appends a log id: term, node, index.
pub(super) fn put_log_id(out: &mut Vec<u8>, log_id: &LogIdOfStarling) {
    out.extend_from_slice(&log_id.leader_id.term.to_be_bytes());
    out.extend_from_slice(&log_id.leader_id.node_id.to_be_bytes());
    out.extend_from_slice(&log_id.index.to_be_bytes());
}

fn put_log_id_index_first(out: &mut Vec<u8>, log_id: &LogIdOfStarling) {
    out.extend_from_slice(&log_id.index.to_be_bytes());
    out.extend_from_slice(&log_id.leader_id.term.to_be_bytes());
    out.extend_from_slice(&log_id.leader_id.node_id.to_be_bytes());
}

/// Puts version and checksum before `body`.
pub(super) fn seal(body: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(5 + body.len());
    sealed.push(FORMAT_VERSION);
    sealed.extend_from_slice(&crc32c::crc32c(body).to_be_bytes());
    sealed.extend_from_slice(body);
    sealed
}

/// The body that [`seal`] sealed.
pub(super) fn unseal<'a>(what: &'static str, sealed: &'a [u8]) -> Result<&'a [u8], FormatError> {
    let mut reader = Reader::new(what, sealed);
    let version = reader.u8()?;
    if version != FORMAT_VERSION {
        return Err(FormatError::Version { what, found: version });
    }
    let checksum = reader.u32()?;
    let body = reader.rest();
    if crc32c::crc32c(body) != checksum {
        return Err(FormatError::Checksum { what });
    }
    Ok(body)
}

fn seal_meta(meta: Meta, body: &[u8]) -> Vec<u8> {
    let mut kind_and_body = Vec::with_capacity(1 + body.len());
    kind_and_body.push(meta as u8);
    kind_and_body.extend_from_slice(body);
    seal(&kind_and_body)
}

fn open_meta<'a>(meta: Meta, what: &'static str, value: &'a [u8]) -> Result<Reader<'a>, FormatError> {
    let mut reader = Reader::new(what, unseal(what, value)?);
    let kind = reader.u8()?;
    if kind != meta as u8 {
        return Err(misplaced(what, kind.into(), meta as u64));
    }
    Ok(reader)
}

fn misplaced(what: &'static str, found: u64, expected: u64) -> FormatError {
    FormatError::Misplaced { what, found, expected }
}

/// Takes fields from the front of a slice.
pub(super) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(FormatError::TooShort { what: self.what });
        };
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let what = self.what;
        self.take(N)?.try_into().map_err(|_| FormatError::TooShort { what })
    }

    pub(super) fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(super) fn vote(&mut self) -> Result<VoteOfStarling, FormatError> {
        let term = self.u64()?;
        let node_id = self.u64()?;
        match self.u8()? {
            0 => Ok(Vote::new(term, node_id)),
            1 => Ok(Vote::new_committed(term, node_id)),
            other => Err(misplaced("the committed flag of a vote", other.into(), 1)),
        }
    }

    pub(super) fn log_id(&mut self) -> Result<LogIdOfStarling, FormatError> {
        let term = self.u64()?;
        let node_id = self.u64()?;
        let index = self.u64()?;
        Ok(LogId::new(LeaderId { term, node_id }, index))
    }

    fn membership(&mut self) -> Result<Membership<u64, BasicNode>, FormatError> {
        // Nothing is allocated ahead from a stored count: it may be wrong.
        let mut configs = Vec::new();
        for _ in 0..self.u32()? {
            let mut config = BTreeSet::new();
            for _ in 0..self.u32()? {
                config.insert(self.u64()?);
            }
            configs.push(config);
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..self.u32()? {
            let id = self.u64()?;
            let address_len = self.u32()? as usize;
            let address = std::str::from_utf8(self.take(address_len)?)
                .map_err(|_| FormatError::NotText { what: "the address of a member" })?;
            nodes.insert(id, BasicNode::new(address));
        }
        Membership::new(configs, nodes).map_err(|error| FormatError::Membership { why: error.to_string() })
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(super) fn end(&self) -> Result<(), FormatError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(FormatError::TooLong { what: self.what, extra_bytes: self.rest.len() })
    }
}

impl From<FormatError> for std::io::Error {
    fn from(error: FormatError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

#[cfg(test)]
mod tests;
