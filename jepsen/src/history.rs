//! What clients did and saw: one operation per line, with the times of its call
//! and its return.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One call of one client. Times are nanoseconds since the run began, by one
/// monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Which client; it has one call at a time.
    pub client: usize,
    /// Which register.
    pub model: String,
    /// When the call began.
    pub called_ns: u64,
    /// When it returned; absent: the answer never came, so the call may take
    /// effect at any time after it began, or never.
    pub returned_ns: Option<u64>,
    /// What was asked.
    pub call: Call,
    /// What came back.
    pub answer: Answer,
}

/// What was asked. A register's value is the weight of its model's first
/// version, in parts per million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Linearizable.
    Read,
    /// Whatever the value is now.
    Write {
        /// The new value.
        value: u32,
    },
    /// Only if the route is still at this epoch.
    WriteAt {
        /// The epoch.
        epoch: u64,
        /// The new value.
        value: u32,
    },
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To a read.
    Value {
        /// The route's epoch.
        epoch: u64,
        /// Its value.
        value: u32,
    },
    /// The write changed the route, which now is at this epoch.
    Written {
        /// The epoch.
        epoch: u64,
    },
    /// The route already had this value.
    Unchanged,
    /// The route was at another epoch.
    OtherEpoch,
    /// Certainly had no effect.
    Refused,
    /// May have had an effect.
    Unknown,
}

/// Writes one JSON object per line.
pub fn write(path: &Path, history: &[Operation]) -> anyhow::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    for operation in history {
        serde_json::to_writer(&mut file, operation)?;
        file.write_all(b"\n")?;
    }
    file.flush()?;
    Ok(())
}

/// Reads what [`write`] wrote.
pub fn read(path: &Path) -> anyhow::Result<Vec<Operation>> {
    let file = BufReader::new(std::fs::File::open(path)?);
    file.lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}
