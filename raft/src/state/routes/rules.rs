//! Rules: requests that say something of themselves get a version of their own.

use serde::Serialize;

use super::super::{Ordinal, PartsPerMillion, RuleName};

/// Rules of one route.
pub const RULES_MAX: usize = 64;
/// Conditions of one rule or shadow.
pub const CONDITIONS_MAX: usize = 8;
/// Texts of one `in`.
pub const TEXTS_MAX: usize = 64;
/// Bytes of a name, a text or a pattern.
pub const TEXT_BYTES_MAX: usize = 256;

/// Where a request says something of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Attribute {
    /// A request parameter, by its name.
    Parameter(String),
    /// gRPC metadata or an HTTP header, by its name in lower case.
    Metadata(String),
}

/// What it must say. A request that does not say it at all fails every test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Test {
    /// Exactly this.
    Equals(String),
    /// One of these.
    In(Vec<String>),
    /// Something in which this pattern is found. Checked where it is written, not
    /// here: what one binary compiles, another might not, and all must fold the
    /// same log. A pattern that does not compile is found nowhere.
    Matches(String),
}

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// Where to look.
    pub attribute: Attribute,
    /// What must be there.
    pub test: Test,
}

/// Sends the requests of a segment, or a part of them, to one version, whatever
/// the weights say. Of several that hold, the first does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule<V = Ordinal> {
    /// For people, and salts the draw of `portion`; unique within a route.
    pub name: RuleName,
    /// All must hold; none: every request.
    pub when: Vec<Condition>,
    /// Of the segment, by hash of the routing key.
    pub portion: PartsPerMillion,
    /// Who answers.
    pub version: V,
}

impl<V> Rule<V> {
    /// The same for a version that is known by something else.
    pub fn for_version<W>(&self, version: W) -> Rule<W> {
        Rule { name: self.name.clone(), when: self.when.clone(), portion: self.portion, version }
    }
}

/// Which bound conditions pass, if any.
pub(in super::super) fn too_large(conditions: &[Condition]) -> Option<(&'static str, usize)> {
    if conditions.len() > CONDITIONS_MAX {
        return Some(("the number of conditions of a rule or shadow", CONDITIONS_MAX));
    }
    let texts = |condition: &Condition| match &condition.test {
        Test::Equals(text) | Test::Matches(text) => vec![text.len()],
        Test::In(texts) => texts.iter().map(String::len).collect(),
    };
    for condition in conditions {
        let (Attribute::Parameter(name) | Attribute::Metadata(name)) = &condition.attribute;
        let lengths = texts(condition);
        if lengths.len() > TEXTS_MAX {
            return Some(("the number of texts of one condition", TEXTS_MAX));
        }
        if name.len() > TEXT_BYTES_MAX || lengths.iter().any(|length| *length > TEXT_BYTES_MAX) {
            return Some(("the length of a name or text of a condition, in bytes,", TEXT_BYTES_MAX));
        }
    }
    None
}
