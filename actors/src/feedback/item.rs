//! One piece of feedback, and what is answered to it.

use starling_raft::state::decision::Decision;

/// Longest label, and longest unit.
pub const WORD_BYTES_MAX: usize = 256;
/// Items of one request.
pub const ITEMS_MAX: usize = 10_000;

/// What became known about one decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Feedback {
    /// About which.
    pub decision: Decision,
    /// What is said of it.
    pub said: Said,
    /// Whose behaviour it is, where that is not the routing key.
    pub unit: Option<String>,
    /// Take the decision's reward back.
    pub retract: bool,
    /// When it became known, by whoever says so; microseconds since 1970.
    pub observed_unix_micros: Option<u64>,
}

/// A reward, or what one is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// Nothing: in a retraction.
    Nothing,
    /// Finite.
    Number(f64),
    /// True counts 1.
    Flag(bool),
    /// What it counts for is said by the rollout.
    Label(String),
}

/// What became of a piece of feedback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Credited, on the home's disk.
    Recorded,
    /// In the outbox: the home judges later.
    Stored,
    /// The decision has its reward already.
    Duplicate,
    /// The reward does not count, or will not when it comes.
    Retracted,
    /// Kept; nobody is to be credited.
    NotInExperiment,
    /// Kept; not credited any more.
    Late,
    /// Not what the rollout takes.
    OutOfRange,
    /// Kept; there was no such decision.
    Unknown,
    /// Nonsense in itself.
    Invalid,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Recorded,
        Self::Stored,
        Self::Duplicate,
        Self::Retracted,
        Self::NotInExperiment,
        Self::Late,
        Self::OutOfRange,
        Self::Unknown,
        Self::Invalid,
    ];

    /// In metrics, REST and the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::Retracted => "retracted",
            Self::NotInExperiment => "not_in_experiment",
            Self::Late => "late",
            Self::OutOfRange => "out_of_range",
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
        }
    }

    /// Whoever sent it has done right and need do nothing.
    pub const fn is_fine(self) -> bool {
        matches!(
            self,
            Self::Recorded | Self::Stored | Self::Duplicate | Self::Retracted | Self::NotInExperiment
        )
    }
}

/// A verdict and what there is to say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What became of it.
    pub verdict: Verdict,
    /// Empty where the verdict says everything.
    pub reason: String,
    /// Committed by a majority: survives losing the home.
    pub counted: bool,
}

impl Answer {
    /// Without a reason.
    pub fn plain(verdict: Verdict) -> Self {
        Self::because(verdict, String::new())
    }

    /// With one.
    pub fn because(verdict: Verdict, reason: impl Into<String>) -> Self {
        Self { verdict, reason: reason.into(), counted: false }
    }
}
