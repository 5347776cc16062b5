//! What openraft is told about Starling: its types, declared once.

use std::fmt;

use bytes::Bytes;

use crate::state::Outcome;

/// A command in its envelope, as the log keeps it. Raft does not look inside.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvelopeBytes(pub Bytes);

impl fmt::Debug for EnvelopeBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnvelopeBytes({} bytes)", self.0.len())
    }
}

impl fmt::Display for EnvelopeBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry answers: nothing for Raft's own entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer(pub Option<Outcome>);

openraft::declare_raft_types!(
    /// Starling's instance of openraft.
    pub TypeConfig:
        D = EnvelopeBytes,
        R = Answer,
        NodeId = u64,
        Node = openraft::BasicNode,
);

/// A snapshot on disk; what the state machine and the network hand around as snapshot data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// The complete, verified file.
    pub path: std::path::PathBuf,
    /// Its size.
    pub size_bytes: u64,
}
