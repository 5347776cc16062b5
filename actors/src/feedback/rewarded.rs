//! Which decisions have their reward: a bit each, compressed, in chunks that are
//! files. A chunk on disk may be ahead of the checkpoint beside it and is never
//! behind: bits are set again when the journal is read.

use std::collections::BTreeMap;
use std::io;

use roaring::RoaringBitmap;

use super::disk::Disk;

/// Decisions of one chunk: 128 KiB at worst.
const CHUNK_BITS: u32 = 20;
/// Chunks that stay in memory after a checkpoint.
const CHUNKS_KEPT: usize = 256;
const FOLDER: &str = "rewarded";

/// The decisions of one life of this node whose numbers differ in the low bits only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ChunkId {
    boot: u32,
    chunk: u64,
}

#[derive(Debug, Default)]
struct Chunk {
    rewarded: RoaringBitmap,
    retracted: RoaringBitmap,
    is_saved: bool,
    last_used: u64,
}

/// What has become of one decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// It has its reward.
    pub rewarded: bool,
    /// Its reward does not count.
    pub retracted: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Rewarded {
    chunks: BTreeMap<ChunkId, Chunk>,
    /// On disk.
    files: BTreeMap<ChunkId, ()>,
    uses: u64,
}

impl Rewarded {
    /// Finds the files; reads none.
    pub fn open(disk: &impl Disk) -> io::Result<Self> {
        let names = disk.list()?;
        let files = names.iter().filter_map(|name| Some((ChunkId::of_file(name)?, ()))).collect();
        Ok(Self { files, ..Self::default() })
    }

    /// What is known of a decision.
    pub fn standing(&mut self, disk: &impl Disk, boot: u32, sequence: u64) -> io::Result<Standing> {
        let (id, bit) = place(boot, sequence);
        let chunk = self.chunk(disk, id)?;
        Ok(Standing { rewarded: chunk.rewarded.contains(bit), retracted: chunk.retracted.contains(bit) })
    }

    /// It has its reward from now on.
    pub fn set_rewarded(&mut self, disk: &impl Disk, boot: u32, sequence: u64) -> io::Result<()> {
        let (id, bit) = place(boot, sequence);
        let chunk = self.chunk(disk, id)?;
        chunk.rewarded.insert(bit);
        chunk.is_saved = false;
        Ok(())
    }

    /// Its reward does not count from now on.
    pub fn set_retracted(&mut self, disk: &impl Disk, boot: u32, sequence: u64) -> io::Result<()> {
        let (id, bit) = place(boot, sequence);
        let chunk = self.chunk(disk, id)?;
        chunk.retracted.insert(bit);
        chunk.is_saved = false;
        Ok(())
    }

    /// Writes what has changed; then only what was used of late stays in memory.
    pub fn save(&mut self, disk: &mut impl Disk) -> io::Result<()> {
        for (id, chunk) in &mut self.chunks {
            let is_empty = chunk.rewarded.is_empty() && chunk.retracted.is_empty();
            if chunk.is_saved || is_empty {
                continue;
            }
            disk.replace(&id.file(), &chunk.to_bytes()?)?;
            chunk.is_saved = true;
            self.files.insert(*id, ());
        }
        self.forget_unused();
        Ok(())
    }

    /// Drops chunks whose decisions are all up to `sequence` of a life.
    pub fn forget_up_to(&mut self, disk: &mut impl Disk, boot: u32, sequence: u64) -> io::Result<()> {
        let first_kept = ChunkId { boot, chunk: (sequence + 1) >> CHUNK_BITS };
        let is_old = |id: &ChunkId| id.boot == boot && *id < first_kept;
        self.chunks.retain(|id, _| !is_old(id));
        let old: Vec<ChunkId> = self.files.keys().copied().filter(is_old).collect();
        for id in old {
            disk.remove(&id.file())?;
            self.files.remove(&id);
        }
        Ok(())
    }

    fn chunk(&mut self, disk: &impl Disk, id: ChunkId) -> io::Result<&mut Chunk> {
        self.uses += 1;
        if !self.chunks.contains_key(&id) {
            let chunk = match self.files.contains_key(&id) {
                true => Chunk::from_bytes(&id.file(), &disk.read(&id.file())?)?,
                false => Chunk::default(),
            };
            self.chunks.insert(id, chunk);
        }
        let chunk = self.chunks.entry(id).or_default();
        chunk.last_used = self.uses;
        Ok(chunk)
    }

    fn forget_unused(&mut self) {
        if self.chunks.len() <= CHUNKS_KEPT {
            return;
        }
        let mut uses: Vec<u64> = self.chunks.values().map(|chunk| chunk.last_used).collect();
        uses.sort_unstable();
        let oldest_kept = uses[uses.len() - CHUNKS_KEPT];
        self.chunks.retain(|_, chunk| chunk.last_used >= oldest_kept);
    }
}

fn place(boot: u32, sequence: u64) -> (ChunkId, u32) {
    let bit = (sequence & ((1 << CHUNK_BITS) - 1)) as u32;
    (ChunkId { boot, chunk: sequence >> CHUNK_BITS }, bit)
}

impl ChunkId {
    fn file(self) -> String {
        format!("{FOLDER}/{:010}-{:013}", self.boot, self.chunk)
    }

    fn of_file(name: &str) -> Option<Self> {
        let (boot, chunk) = name.strip_prefix(FOLDER)?.strip_prefix('/')?.split_once('-')?;
        Some(Self { boot: boot.parse().ok()?, chunk: chunk.parse().ok()? })
    }
}

impl Chunk {
    /// Checksum, then both bitmaps.
    fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 4];
        self.rewarded.serialize_into(&mut bytes)?;
        self.retracted.serialize_into(&mut bytes)?;
        let crc = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        Ok(bytes)
    }

    fn from_bytes(file: &str, bytes: &[u8]) -> io::Result<Self> {
        let damaged = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{file} is damaged; restore it from a backup, or remove the folder `feedback`: \
                     rewards of decisions made until now are then too late"
                ),
            )
        };
        let (crc, mut rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
        if crc32c::crc32c(rest) != u32::from_le_bytes(*crc) {
            return Err(damaged());
        }
        let rewarded = RoaringBitmap::deserialize_from(&mut rest).map_err(|_| damaged())?;
        let retracted = RoaringBitmap::deserialize_from(&mut rest).map_err(|_| damaged())?;
        Ok(Self { rewarded, retracted, is_saved: true, last_used: 0 })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::memory_disk::MemoryDisk;
    use super::*;

    const REWARDED: Standing = Standing { rewarded: true, retracted: false };

    #[test]
    fn bits_are_kept_by_life_and_number_and_survive_a_restart() {
        let mut disk = MemoryDisk::default();
        let mut bits = Rewarded::open(&disk).unwrap();
        bits.set_rewarded(&disk, 1, 5).unwrap();
        bits.set_rewarded(&disk, 1, (1 << 40) + 5).unwrap();
        bits.set_retracted(&disk, 2, 5).unwrap();
        bits.save(&mut disk).unwrap();
        let mut bits = Rewarded::open(&disk).unwrap();
        assert_eq!(bits.standing(&disk, 1, 5).unwrap(), REWARDED);
        assert_eq!(bits.standing(&disk, 1, (1 << 40) + 5).unwrap(), REWARDED);
        assert_eq!(bits.standing(&disk, 1, 6).unwrap(), Standing::default());
        assert_eq!(bits.standing(&disk, 2, 5).unwrap(), Standing { rewarded: false, retracted: true });
    }

    #[test]
    fn whole_chunks_are_forgotten_and_no_bit_of_another() {
        let mut disk = MemoryDisk::default();
        let mut bits = Rewarded::open(&disk).unwrap();
        let (old, young) = ((1 << CHUNK_BITS) - 1, 1 << CHUNK_BITS);
        for (boot, sequence) in [(1, old), (1, young), (2, old)] {
            bits.set_rewarded(&disk, boot, sequence).unwrap();
        }
        bits.save(&mut disk).unwrap();
        bits.forget_up_to(&mut disk, 1, old - 1).unwrap();
        assert_eq!(bits.standing(&disk, 1, old).unwrap(), REWARDED);
        bits.forget_up_to(&mut disk, 1, old).unwrap();
        assert_eq!(bits.standing(&disk, 1, old).unwrap(), Standing::default());
        assert_eq!(bits.standing(&disk, 1, young).unwrap(), REWARDED);
        assert_eq!(bits.standing(&disk, 2, old).unwrap(), REWARDED);
        assert_eq!(disk.list().unwrap().len(), 2);
    }

    #[test]
    fn more_chunks_than_stay_in_memory_are_read_again() {
        let mut disk = MemoryDisk::default();
        let mut bits = Rewarded::open(&disk).unwrap();
        for chunk in 0..400_u64 {
            bits.set_rewarded(&disk, 1, chunk << CHUNK_BITS).unwrap();
        }
        bits.save(&mut disk).unwrap();
        assert_eq!(bits.chunks.len(), CHUNKS_KEPT);
        assert_eq!(bits.standing(&disk, 1, 0).unwrap(), REWARDED);
    }

    #[test]
    fn a_damaged_chunk_is_named() {
        let mut disk = MemoryDisk::default();
        let mut bits = Rewarded::open(&disk).unwrap();
        bits.set_rewarded(&disk, 1, 5).unwrap();
        bits.save(&mut disk).unwrap();
        disk.replace("rewarded/0000000001-0000000000000", b"????????").unwrap();
        let error = Rewarded::open(&disk).unwrap().standing(&disk, 1, 5).unwrap_err();
        assert!(error.to_string().contains("rewarded/0000000001-0000000000000 is damaged"), "{error}");
    }
}
