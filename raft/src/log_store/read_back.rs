//! Turns stored chunks back into entries.

use std::io;
use std::ops::Range;

use super::disk::DiskReader;
use super::entry_format::{
    Chunk, EntryOfStarling, decode_chunk, entry_size_bytes, join_chunks, log_key_floor,
};

/// The entries of `range` in the order of their index, until there are
/// `bytes_max` of them, and at least one. Purged ones are absent; whether the
/// rest is contiguous is for the caller to check.
pub(super) fn read_entries(
    reader: &dyn DiskReader,
    range: Range<u64>,
    bytes_max: usize,
) -> io::Result<Vec<EntryOfStarling>> {
    let mut entries = Vec::new();
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut taken_bytes = 0;
    reader.scan(&log_key_floor(range.start), &log_key_floor(range.end), &mut |key, value| {
        chunks.push(decode_chunk(key, value)?);
        if !is_complete(&chunks) {
            return Ok(true);
        }
        let entry = join_chunks(&chunks)?;
        chunks.clear();
        taken_bytes += entry_size_bytes(&entry);
        entries.push(entry);
        Ok(taken_bytes < bytes_max)
    })?;
    if let Some(chunk) = chunks.first() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("entry {} has {} of {} chunks", chunk.log_id, chunks.len(), chunk.chunk_count),
        ));
    }
    Ok(entries)
}

/// Whether these are all chunks of their entry, as far as their number says.
pub(super) fn is_complete(chunks: &[Chunk]) -> bool {
    chunks.first().is_some_and(|first| chunks.len() >= usize::from(first.chunk_count))
}
