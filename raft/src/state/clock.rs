//! Log time, which only entries advance, and wall time, which is for people.

use serde::Serialize;

/// Microseconds of the log's own time: it advances by the leader's monotonic
/// clock since the entry it last applied, so a wall clock set forward fires
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct LogTime(u64);

/// Microseconds since the Unix epoch by the leader's wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct WallTime(u64);

impl LogTime {
    /// From microseconds.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// To microseconds.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// This time, later by `micros`.
    pub const fn plus_micros(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }
}

impl WallTime {
    /// From microseconds since the Unix epoch.
    pub const fn from_unix_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_unix_micros(self) -> u64 {
        self.0
    }
}
