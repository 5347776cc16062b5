//! The names and numbers by which things are called, each its own type, parsed
//! once at the edge.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest model name, in bytes.
pub const MODEL_NAME_BYTES_MAX: usize = 128;
/// Longest name of a rule, in bytes.
pub const RULE_NAME_BYTES_MAX: usize = 64;
/// Longest name of a rollout, in bytes.
pub const ROLLOUT_NAME_BYTES_MAX: usize = 128;
/// Longest name of an arm, in bytes.
pub const ARM_NAME_BYTES_MAX: usize = 64;
/// Longest version label, in bytes.
pub const VERSION_LABEL_BYTES_MAX: usize = 64;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the bare number.
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The bare number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// One running process. Given by the cluster (the index of its join entry
    /// plus an offset), never used twice.
    NodeId, u64
}
number! {
    /// Position in the replicated log.
    LogIndex, u64
}
number! {
    /// The log index that last changed a route.
    Epoch, u64
}
number! {
    /// Position of a version within its model: 1, 2, …; its `model_version` on the wire.
    Ordinal, u64
}
number! {
    /// What every voter can read and decide. Raised by an event, never lowered.
    FeatureLevel, u32
}

macro_rules! uuid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID.
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Uuid::parse_str(text).map(Self).map_err(|_| InvalidName::Uuid(text.to_owned()))
            }
        }
    };
}

uuid! {
    /// Made at bootstrap; every RPC carries it.
    ClusterId
}
uuid! {
    /// Made at a node's first start, before the cluster gives it a [`NodeId`].
    NodeUuid
}
uuid! {
    /// Made by the client (version 7); a retry repeats it.
    RequestId
}

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Empty, too long, or with characters outside `A-Z a-z 0-9 . _ -`.
    #[error(
        "{what} '{text}' must have 1 to {bytes_max} characters from A-Z a-z 0-9 . _ - and begin with a letter or digit"
    )]
    Characters {
        /// What kind of name was wanted.
        what: &'static str,
        /// What came, shortened.
        text: String,
        /// The longest allowed.
        bytes_max: usize,
    },
    /// A label of digits only would read as an ordinal.
    #[error(
        "version label '{0}' has digits only and would be taken for an ordinal; put a letter in front, as in 'v{0}'"
    )]
    DigitsOnly(String),
    /// Not a UUID.
    #[error("'{0}' is not a UUID")]
    Uuid(String),
    /// Not a SHA-256.
    #[error("'{0}' is not a SHA-256 in 64 hexadecimal digits")]
    Digest(String),
    /// More than the whole.
    #[error("{0} parts per million are more than the whole (1000000)")]
    PartsPerMillion(u32),
}

fn check_characters(what: &'static str, text: &str, bytes_max: usize) -> Result<(), InvalidName> {
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if begins_well && text.len() <= bytes_max && text.chars().all(allowed) {
        return Ok(());
    }
    let text = text.chars().take(bytes_max).collect();
    Err(InvalidName::Characters { what, text, bytes_max })
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// The name that clients call.
    ModelName
}

impl FromStr for ModelName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        check_characters("model name", text, MODEL_NAME_BYTES_MAX)?;
        Ok(Self(text.to_owned()))
    }
}

name! {
    /// What people call a rule of a route; unique within it.
    RuleName
}

impl FromStr for RuleName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        check_characters("rule name", text, RULE_NAME_BYTES_MAX)?;
        Ok(Self(text.to_owned()))
    }
}

name! {
    /// What people call a rollout; unique within the cluster.
    RolloutName
}

impl FromStr for RolloutName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        check_characters("rollout name", text, ROLLOUT_NAME_BYTES_MAX)?;
        Ok(Self(text.to_owned()))
    }
}

name! {
    /// What people call an arm; unique within its rollout.
    ArmName
}

impl FromStr for ArmName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        check_characters("arm name", text, ARM_NAME_BYTES_MAX)?;
        Ok(Self(text.to_owned()))
    }
}

name! {
    /// What people call a version; unique within its model.
    VersionLabel
}

impl FromStr for VersionLabel {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        check_characters("version label", text, VERSION_LABEL_BYTES_MAX)?;
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidName::DigitsOnly(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl VersionLabel {
    /// `v` and the ordinal; should somebody have taken that, `v3-2`, `v3-3`, …
    pub(super) fn automatic(ordinal: Ordinal, is_taken: impl Fn(&Self) -> bool) -> Self {
        let mut label = Self(format!("v{ordinal}"));
        let mut attempt = 2_u32;
        while is_taken(&label) {
            label = Self(format!("v{ordinal}-{attempt}"));
            attempt += 1;
        }
        label
    }
}

/// How a client names a version: by ordinal or by label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionRef {
    /// `2`
    Ordinal(Ordinal),
    /// `v2`
    Label(VersionLabel),
}

impl FromStr for VersionRef {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.parse::<u64>() {
            Ok(number) => Ok(Self::Ordinal(Ordinal::new(number))),
            Err(_) => text.parse().map(Self::Label),
        }
    }
}

impl fmt::Display for VersionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ordinal(ordinal) => ordinal.fmt(f),
            Self::Label(label) => label.fmt(f),
        }
    }
}

/// Who asked. `local` on loopback until tokens and certificates come.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Principal(String);

impl Principal {
    /// Whoever asks over loopback.
    pub fn local() -> Self {
        Self("local".to_owned())
    }

    /// Starling itself: a node's own controllers.
    pub fn node(node_id: NodeId) -> Self {
        Self(format!("node:{node_id}"))
    }

    /// A principal by its name, shortened to 256 characters.
    pub fn named(name: &str) -> Self {
        Self(name.chars().take(256).collect())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// SHA-256 of an artefact's bytes; its name everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArtefactDigest([u8; 32]);

impl ArtefactDigest {
    /// Wraps 32 bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<&[u8]> for ArtefactDigest {
    type Error = InvalidName;

    fn try_from(bytes: &[u8]) -> Result<Self, InvalidName> {
        bytes.try_into().map(Self).map_err(|_| InvalidName::Digest(hex::encode(bytes)))
    }
}

impl fmt::Display for ArtefactDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ArtefactDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ArtefactDigest {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidName::Digest(text.to_owned()))?;
        Ok(Self(bytes))
    }
}

impl Serialize for ArtefactDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A weight or probability: 0 to 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct PartsPerMillion(u32);

impl PartsPerMillion {
    /// Everything.
    pub const WHOLE: Self = Self(1_000_000);

    /// Checks the range.
    pub fn new(value: u32) -> Result<Self, InvalidName> {
        if value > Self::WHOLE.0 {
            return Err(InvalidName::PartsPerMillion(value));
        }
        Ok(Self(value))
    }

    /// The bare number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// What is left of everything.
    pub const fn rest(self) -> Self {
        Self(Self::WHOLE.0 - self.0)
    }
}
