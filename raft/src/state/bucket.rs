//! From a routing key to one of a million buckets: the same on every node.

use xxhash_rust::xxh3::Xxh3;

/// How many buckets there are: one per part per million.
pub const BUCKETS: u32 = 1_000_000;

const SEPARATOR: u8 = 0x1f;

/// A number in `0..BUCKETS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u32);

impl Bucket {
    /// `(xxh3_64(salt ‖ 0x1F ‖ key) × 1,000,000) >> 64`.
    pub fn of(salt: &[u8], key: &[u8]) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(salt);
        hasher.update(&[SEPARATOR]);
        hasher.update(key);
        Self::of_hash(hasher.digest())
    }

    /// From a hash that is uniform over `u64`.
    pub const fn of_hash(hash: u64) -> Self {
        Self(((hash as u128 * BUCKETS as u128) >> 64) as u32)
    }

    /// From a number; `None` if it is no bucket.
    pub const fn new(value: u32) -> Option<Self> {
        if value < BUCKETS { Some(Self(value)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}
