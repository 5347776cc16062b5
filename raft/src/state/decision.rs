//! The id of a decision: which version a request got, and why, in one opaque
//! word. It can be explained, and its reward credited, without a look-up.
//!
//! Format 1, fixed for ever: the bytes `format (1)`, then as LEB128 varints
//! node, boot, sequence, model id, epoch, rule (0: none, else index + 1),
//! enrolment bucket, arm bucket (each 0: none, else bucket + 1), then one check
//! byte (low byte of the xxh3 of all before it); written as base64url without
//! padding. About 30 characters.

use std::fmt;
use std::str::FromStr;

use super::bucket::Bucket;
use super::{Epoch, NodeId};

/// A decision, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decision {
    /// The node that decided: the decision's home.
    pub node: NodeId,
    /// How often that node had started.
    pub boot: u32,
    /// Counts the node's decisions since that start.
    pub sequence: u64,
    /// The model's id (see [`super::Model::id`]).
    pub model_id: u64,
    /// The route's epoch.
    pub epoch: Epoch,
    /// Index of the rule that matched, if one did.
    pub rule: Option<u16>,
    /// Decided whether the request takes part in an experiment.
    pub enrolment: Option<Bucket>,
    /// Decided which arm it got.
    pub arm: Option<Bucket>,
}

/// Why a text is no decision id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a decision id; it comes from the response parameter starling_decision")]
pub struct InvalidDecision(pub String);

const FORMAT: u8 = 1;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = (FORMAT, ALPHABET, f);
        unimplemented!("the state helper writes this")
    }
}

impl FromStr for Decision {
    type Err = InvalidDecision;

    fn from_str(text: &str) -> Result<Self, InvalidDecision> {
        Err(InvalidDecision(text.to_owned()))
    }
}
