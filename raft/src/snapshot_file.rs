//! The state in a file: what a node restarts from, and what one sends to another
//! that has fallen too far behind.
//!
//! Layout, format version 1, integers big-endian:
//!
//! - magic `STLSNP`, format version (2);
//! - chunks: length (4, at most 64 KiB), CRC32C of length and bytes (4), bytes;
//!   the last has length 0;
//! - SHA-256 of everything before it (32). Nothing follows.
//!
//! The chunks' bytes, put together: length of the preface (8), the preface
//! (`PrefaceV1`: what the shell wants kept, and the history segments that go
//! with the state), the state as [`crate::codec::encode_state`] writes it.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::codec::{self, CodecError, Decode, Encode};
use crate::history::SegmentInfo;
use crate::state::{LogIndex, State};

const MAGIC_AND_VERSION: &[u8; 8] = b"STLSNP\x00\x01";
const CHUNK_BYTES: usize = 64 << 10;
const DIGEST_BYTES: usize = 32;

/// What [`read_snapshot`] gives back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotContents {
    /// Opaque: last log id and membership, as the shell encoded them.
    pub meta_bytes: Vec<u8>,
    /// The state after the snapshot's last entry.
    pub state: State,
    /// The sealed history segments that hold the events up to it.
    pub segments: Vec<SegmentInfo>,
}

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file system's.
    #[error("snapshot {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not what was written.
    #[error(
        "snapshot {path} is damaged: {reason}; remove it, and the node recovers from its log or its peers"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Sound, but not to be understood.
    #[error("snapshot {path}: {source}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: CodecError,
    },
}

#[derive(Encode, Decode)]
struct PrefaceV1 {
    meta: Vec<u8>,
    segments: Vec<SegmentV1>,
}

#[derive(Encode, Decode)]
struct SegmentV1 {
    name: String,
    first_index: u64,
    last_index: u64,
    size_bytes: u64,
    sha256: [u8; 32],
}

impl From<&SegmentInfo> for SegmentV1 {
    fn from(live: &SegmentInfo) -> Self {
        Self {
            name: live.name.clone(),
            first_index: live.first_index.get(),
            last_index: live.last_index.get(),
            size_bytes: live.size_bytes,
            sha256: live.sha256,
        }
    }
}

impl From<SegmentV1> for SegmentInfo {
    fn from(frozen: SegmentV1) -> Self {
        Self {
            name: frozen.name,
            first_index: LogIndex::new(frozen.first_index),
            last_index: LogIndex::new(frozen.last_index),
            size_bytes: frozen.size_bytes,
            sha256: frozen.sha256,
        }
    }
}

/// Writes a snapshot beside `path`, syncs it, and gives it its name: under
/// `path` there is a whole snapshot or none. Returns its size in bytes.
///
/// # Errors
/// The file system's.
pub fn write_snapshot(
    path: &Path,
    meta_bytes: &[u8],
    state: &State,
    segments: &[SegmentInfo],
) -> Result<u64, SnapshotError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| SnapshotError::Io { path, source }
    };
    let mut aside = path.as_os_str().to_owned();
    aside.push(".tmp");
    let aside = PathBuf::from(aside);
    let preface =
        PrefaceV1 { meta: meta_bytes.to_vec(), segments: segments.iter().map(SegmentV1::from).collect() };
    let file = File::create(&aside).map_err(at(&aside))?;
    let size_bytes = write_chunks(&file, &codec::freeze(&preface), &codec::encode_state(state))
        .and_then(|size_bytes| file.sync_all().map(|()| size_bytes))
        .map_err(at(&aside))?;
    fs::rename(&aside, path).map_err(at(&aside))?;
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))?;
    Ok(size_bytes)
}

fn write_chunks(file: &File, preface: &[u8], state: &[u8]) -> io::Result<u64> {
    let mut hashed = Hashed { inner: BufWriter::new(file), hasher: Sha256::new(), bytes: 0 };
    hashed.write_all(MAGIC_AND_VERSION)?;
    let mut beginning = (preface.len() as u64).to_be_bytes().to_vec();
    beginning.extend_from_slice(preface);
    for chunk in beginning.chunks(CHUNK_BYTES).chain(state.chunks(CHUNK_BYTES)).chain([&[][..]]) {
        let length = (chunk.len() as u32).to_be_bytes();
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&length), chunk);
        hashed.write_all(&length)?;
        hashed.write_all(&checksum.to_be_bytes())?;
        hashed.write_all(chunk)?;
    }
    let Hashed { mut inner, hasher, bytes } = hashed;
    inner.write_all(&hasher.finalize())?;
    inner.flush()?;
    Ok(bytes + DIGEST_BYTES as u64)
}

struct Hashed<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Reads and verifies a whole snapshot. Needs memory for the state twice.
///
/// # Errors
/// Any change, cut or addition since it was written is `Damaged`.
pub fn read_snapshot(path: &Path) -> Result<SnapshotContents, SnapshotError> {
    let damaged = |reason: &str| SnapshotError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
    let content = |source| SnapshotError::Content { path: path.to_owned(), source };
    let bytes = match read_chunks(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(damaged("it is cut off")),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged(&error.to_string())),
        Err(source) => return Err(SnapshotError::Io { path: path.to_owned(), source }),
    };
    let (preface_bytes, rest) = bytes.split_first_chunk().ok_or_else(|| damaged("it is empty"))?;
    let preface_bytes = usize::try_from(u64::from_be_bytes(*preface_bytes)).unwrap_or(usize::MAX);
    let (preface, state) =
        rest.split_at_checked(preface_bytes).ok_or_else(|| damaged("its preface is cut off"))?;
    let preface: PrefaceV1 = codec::thaw("snapshot preface", preface).map_err(content)?;
    Ok(SnapshotContents {
        meta_bytes: preface.meta,
        state: codec::decode_state(state).map_err(content)?,
        segments: preface.segments.into_iter().map(SegmentInfo::from).collect(),
    })
}

fn read_chunks(path: &Path) -> io::Result<Vec<u8>> {
    let wrong = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
    let mut reader = BufReader::with_capacity(CHUNK_BYTES, File::open(path)?);
    let mut hasher = Sha256::new();
    let mut begin = [0; 8];
    reader.read_exact(&mut begin)?;
    if &begin != MAGIC_AND_VERSION {
        return Err(wrong("it does not begin as a snapshot of format 1 does"));
    }
    hasher.update(begin);
    let mut contents = Vec::new();
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    loop {
        let mut length_and_checksum = [0; 8];
        reader.read_exact(&mut length_and_checksum)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = length_and_checksum;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if length > CHUNK_BYTES {
            return Err(wrong("a chunk is longer than any that is written"));
        }
        chunk.resize(length, 0);
        reader.read_exact(&mut chunk)?;
        if crc32c::crc32c_append(crc32c::crc32c(&[l0, l1, l2, l3]), &chunk)
            != u32::from_be_bytes([c0, c1, c2, c3])
        {
            return Err(wrong("the checksum of a chunk is wrong"));
        }
        hasher.update(length_and_checksum);
        hasher.update(&chunk);
        if length == 0 {
            break;
        }
        contents.extend_from_slice(&chunk);
    }
    let mut digest = [0; DIGEST_BYTES];
    reader.read_exact(&mut digest)?;
    if hasher.finalize()[..] != digest {
        return Err(wrong("its SHA-256 is wrong"));
    }
    if reader.read(&mut [0])? != 0 {
        return Err(wrong("something follows its end"));
    }
    Ok(contents)
}
