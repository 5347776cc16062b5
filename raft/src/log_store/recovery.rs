//! Reads the whole log back when it is opened and holds it against what this
//! node once promised.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use super::committer::{REMOVALS_PER_BATCH_MAX, write_high_water};
use super::disk::{Batch, Disk, DiskReader};
use super::entry_format::{
    Chunk, EntryOfStarling, LogIdOfStarling, Meta, decode_chunk, decode_log_id, decode_marker, decode_origin,
    decode_vote, entry_size_bytes, join_chunks, log_key_ceiling, log_key_floor, parse_log_key,
};
use super::high_water::HighWater;
use super::options::{LogStoreOptions, OpenError};
use super::read_back::is_complete;
use super::tail::Tail;

/// A log that holds what was promised.
pub(super) struct Recovered {
    pub(super) tail: Tail,
    pub(super) high_water: HighWater,
}

/// Verifies every entry and compares the log with the high-water record.
/// Takes out what an interrupted write or purge left behind.
pub(super) fn recover(
    disk: &mut impl Disk,
    dir: &Path,
    options: &LogStoreOptions,
) -> Result<Recovered, OpenError> {
    let recorded = match disk.read_high_water() {
        Ok(slots) => HighWater::newest(&slots),
        Err(source) => return Err(OpenError::Unreadable { dir: dir.to_owned(), source }),
    };
    let found = read_log(disk.reader().as_ref(), options.tail_cache_bytes)
        .map_err(|error| OpenError::Damaged { dir: dir.to_owned(), what: error.to_string() })?;
    if !options.skip_loss_check
        && let Some(what) = what_is_lost(&found, recorded.as_ref())
    {
        return Err(OpenError::LostWrites { dir: dir.to_owned(), what });
    }

    let unreadable = |source| OpenError::Unreadable { dir: dir.to_owned(), source };
    for keys in found.leftovers.chunks(REMOVALS_PER_BATCH_MAX) {
        let mut batch = Batch::default();
        for key in keys {
            batch.remove(key.clone());
        }
        disk.write(batch).map_err(unreadable)?;
    }
    // What was found may have been written but not synced: it counts as
    // promised from here on, since Raft will act on it.
    disk.sync().map_err(unreadable)?;
    let mut high_water = HighWater {
        generation: recorded.map_or(0, |record| record.generation),
        vote: found.meta.vote,
        last_log_id: found.last_log_id,
        marker: found.meta.marker,
    };
    write_high_water(disk, &mut high_water).map_err(unreadable)?;

    let mut tail =
        Tail::recovered(found.start..found.end, found.last_log_id, found.newest, options.tail_cache_bytes);
    tail.vote = found.meta.vote;
    tail.purged = found.meta.purged;
    tail.committed = found.meta.committed;
    tail.marker = found.meta.marker;
    Ok(Recovered { tail, high_water })
}

/// The single values of the log.
struct MetaValues {
    vote: Option<super::entry_format::VoteOfStarling>,
    purged: Option<LogIdOfStarling>,
    committed: Option<LogIdOfStarling>,
    marker: Option<[u8; 16]>,
    origin: Option<u64>,
}

/// What the disk holds.
struct FoundLog {
    meta: MetaValues,
    start: u64,
    end: u64,
    last_log_id: Option<LogIdOfStarling>,
    newest: VecDeque<EntryOfStarling>,
    /// Log id of every run of entries by one leader, at its first entry.
    leaders: Vec<LogIdOfStarling>,
    /// Keys that an interrupted write or purge left behind.
    leftovers: Vec<Vec<u8>>,
}

impl FoundLog {
    fn is_empty(&self) -> bool {
        self.last_log_id.is_none() && self.meta.vote.is_none() && self.meta.marker.is_none()
    }

    /// Whether the log holds exactly this entry, or has purged past it.
    fn contains(&self, log_id: &LogIdOfStarling) -> bool {
        if let Some(purged) = self.meta.purged {
            if log_id.index < purged.index {
                return true;
            }
            if log_id.index == purged.index {
                return *log_id == purged;
            }
        }
        if !(self.start..self.end).contains(&log_id.index) {
            return false;
        }
        let leader = self.leaders.iter().rev().find(|first| first.index <= log_id.index);
        leader.is_some_and(|first| first.leader_id == log_id.leader_id)
    }
}

fn what_is_lost(found: &FoundLog, recorded: Option<&HighWater>) -> Option<String> {
    let Some(promised) = recorded else {
        let why =
            "its high-water file is missing or cannot be read, so nothing shows that all of it is there";
        return (!found.is_empty()).then(|| why.to_owned());
    };
    if promised.marker.is_some() && promised.marker != found.meta.marker {
        return Some("it no longer says which cluster it belongs to".to_owned());
    }
    if let Some(vote) = promised.vote
        && found.meta.vote.is_none_or(|found_vote| found_vote < vote)
    {
        let found_vote = found.meta.vote.map_or_else(|| "none".to_owned(), |vote| vote.to_string());
        return Some(format!("vote {vote} was given, the log holds {found_vote}"));
    }
    if let Some(last) = promised.last_log_id
        && !found.contains(&last)
    {
        let found_last = found.last_log_id.map_or_else(|| "nothing".to_owned(), |last| last.to_string());
        return Some(format!("entry {last} was acknowledged, the log ends with {found_last}"));
    }
    None
}

fn read_log(reader: &dyn DiskReader, cached_bytes_max: usize) -> io::Result<FoundLog> {
    let meta = read_meta(reader)?;
    let start = meta.purged.map(|purged| purged.index + 1).or(meta.origin).unwrap_or(0);
    let mut found = FoundLog {
        start,
        end: start,
        last_log_id: meta.purged,
        newest: VecDeque::new(),
        leaders: Vec::new(),
        leftovers: leftovers_of_a_purge(reader, start, meta.purged.is_some())?,
        meta,
    };
    let mut newest_bytes = 0;
    let mut chunks: Vec<Chunk> = Vec::new();
    // Chunks of an entry whose first chunk, written last, is missing.
    let mut headless: Vec<Vec<u8>> = Vec::new();
    reader.scan(&log_key_floor(start), &log_key_ceiling(), &mut |key, value| {
        let chunk = decode_chunk(key, value)?;
        let index = chunk.log_id.index;
        if chunks.is_empty() && chunk.chunk != 0 && index == found.end {
            headless.push(key.to_vec());
            return Ok(true);
        }
        if !headless.is_empty() || index != found.end {
            return Err(gap(found.end, index));
        }
        chunks.push(chunk);
        if !is_complete(&chunks) {
            return Ok(true);
        }
        let entry = join_chunks(&chunks)?;
        chunks.clear();
        found.end += 1;
        if found.leaders.last().is_none_or(|leader| leader.leader_id != entry.log_id.leader_id) {
            found.leaders.push(entry.log_id);
        }
        found.last_log_id = Some(entry.log_id);
        newest_bytes += entry_size_bytes(&entry);
        found.newest.push_back(entry);
        while newest_bytes > cached_bytes_max
            && let Some(oldest) = found.newest.pop_front()
        {
            newest_bytes -= entry_size_bytes(&oldest);
        }
        Ok(true)
    })?;
    if let Some(chunk) = chunks.first() {
        let (have, of) = (chunks.len(), chunk.chunk_count);
        return Err(io::Error::other(format!("entry {} has {have} of {of} chunks", chunk.log_id)));
    }
    found.leftovers.append(&mut headless);
    Ok(found)
}

fn read_meta(reader: &dyn DiskReader) -> io::Result<MetaValues> {
    let log_id = |meta: Meta| -> io::Result<Option<LogIdOfStarling>> {
        let Some(value) = reader.get(&meta.key())? else { return Ok(None) };
        Ok(Some(decode_log_id(meta, &value)?))
    };
    Ok(MetaValues {
        vote: reader.get(&Meta::Vote.key())?.map(|value| decode_vote(&value)).transpose()?,
        purged: log_id(Meta::Purged)?,
        committed: log_id(Meta::Committed)?,
        marker: reader.get(&Meta::Marker.key())?.map(|value| decode_marker(&value)).transpose()?,
        origin: reader.get(&Meta::Origin.key())?.map(|value| decode_origin(&value)).transpose()?,
    })
}

/// Entries below the start: a purge takes them out little by little, after its mark.
fn leftovers_of_a_purge(reader: &dyn DiskReader, start: u64, was_purged: bool) -> io::Result<Vec<Vec<u8>>> {
    let mut leftovers = Vec::new();
    reader.scan(&log_key_floor(0), &log_key_floor(start), &mut |key, _| {
        if !was_purged {
            let (index, _) = parse_log_key(key)?;
            return Err(gap(start, index));
        }
        leftovers.push(key.to_vec());
        Ok(true)
    })?;
    Ok(leftovers)
}

fn gap(expected: u64, found: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("entry {found} was found where {expected} should be"))
}
