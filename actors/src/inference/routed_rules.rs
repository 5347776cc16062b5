//! The rules and shadows of a route as requests meet them: conditions ready,
//! versions found, portions drawn by hash. Pure.

use std::sync::Arc;

use starling_raft::state::bucket::Bucket;
use starling_raft::state::decision::Decision;
use starling_raft::state::routes::rules::{Condition, Rule};
use starling_raft::state::routes::shadows::{Comparison, Shadow};
use starling_raft::state::{ModelName, PartsPerMillion, RuleName};

use super::decision_ids::Ticket;
use super::routing_table::RoutedVersion;
use super::rule_matching::{Attributes, Conditions};

/// A part of those that conditions pick, drawn by hash.
#[derive(Debug)]
struct Portion {
    salt: Vec<u8>,
    of_million: PartsPerMillion,
}

impl Portion {
    fn bucket(&self, key: &[u8]) -> Bucket {
        Bucket::of(&self.salt, key)
    }

    fn takes(&self, key: &[u8]) -> bool {
        self.of_million == PartsPerMillion::WHOLE || self.bucket(key).get() < self.of_million.get()
    }
}

/// Salts the draw of a rule's portion: by its name, so that moving a rule up or
/// down changes nobody's draw.
pub fn rule_salt(model_id: u64, rule: &RuleName) -> Vec<u8> {
    salt(b'r', model_id, rule.as_str().as_bytes())
}

fn salt(purpose: u8, model_id: u64, name: &[u8]) -> Vec<u8> {
    [&[purpose][..], &model_id.to_le_bytes(), name].concat()
}

/// A rule.
#[derive(Debug)]
pub struct RoutedRule {
    /// Its place among the rules of its route, from 0.
    pub index: u16,
    /// For people.
    pub name: RuleName,
    /// Who answers.
    pub version: Arc<RoutedVersion>,
    conditions: Arc<Conditions>,
    portion: Portion,
}

impl RoutedRule {
    pub(super) fn new(
        index: u16,
        rule: &Rule,
        version: &Arc<RoutedVersion>,
        conditions: Arc<Conditions>,
    ) -> Self {
        let portion = Portion { salt: rule_salt(version.id.model_id, &rule.name), of_million: rule.portion };
        Self { index, name: rule.name.clone(), version: Arc::clone(version), conditions, portion }
    }

    /// Whether a request is its own; the key decides where the rule is for a
    /// portion only.
    pub fn takes(&self, attributes: Attributes<'_>, key: &[u8]) -> bool {
        self.is_met_by(attributes) && self.portion.takes(key)
    }

    /// Whether a request is of its segment.
    pub fn is_met_by(&self, attributes: Attributes<'_>) -> bool {
        self.conditions.hold(attributes)
    }

    /// Of its segment.
    pub fn portion(&self) -> PartsPerMillion {
        self.portion.of_million
    }

    /// Where a key falls in its segment: it takes those below its portion.
    pub fn bucket(&self, key: &[u8]) -> Bucket {
        self.portion.bucket(key)
    }
}

/// A version that gets copies of what it picks.
#[derive(Debug)]
pub struct RoutedShadow {
    /// Who gets them.
    pub version: Arc<RoutedVersion>,
    /// Of those that its conditions pick.
    pub portion: PartsPerMillion,
    /// What counts as agreement.
    pub comparison: Comparison,
    conditions: Arc<Conditions>,
    draw: Portion,
}

impl RoutedShadow {
    pub(super) fn new(shadow: &Shadow, version: &Arc<RoutedVersion>, conditions: Arc<Conditions>) -> Self {
        let ordinal = version.id.ordinal.get().to_le_bytes();
        let draw = Portion { salt: salt(b's', version.id.model_id, &ordinal), of_million: shadow.portion };
        Self {
            version: Arc::clone(version),
            portion: shadow.portion,
            comparison: shadow.comparison.clone(),
            conditions,
            draw,
        }
    }

    /// Whether it gets a copy of a request: drawn anew for each decision, so
    /// that a portion is one of requests, whatever their keys.
    pub fn picks(&self, attributes: Attributes<'_>, decision: &Decision) -> bool {
        let Decision { node, boot, sequence, .. } = *decision;
        self.conditions.hold(attributes) && self.draw.takes(&Ticket { node, boot, sequence }.as_key())
    }
}

/// The conditions of an older table, to be taken over where they are equal:
/// weights change often, and patterns take long to compile.
#[derive(Default)]
pub(super) struct KnownConditions<'a> {
    rules: &'a [RoutedRule],
    shadows: &'a [Arc<RoutedShadow>],
}

impl<'a> KnownConditions<'a> {
    pub(super) fn of(rules: &'a [RoutedRule], shadows: &'a [Arc<RoutedShadow>]) -> Self {
        Self { rules, shadows }
    }

    /// Those that were made from `source`, else new ones.
    pub(super) fn take(&self, source: &[Condition], model: &ModelName, whose: &str) -> Arc<Conditions> {
        let of_rules = self.rules.iter().map(|rule| &rule.conditions);
        let of_shadows = self.shadows.iter().map(|shadow| &shadow.conditions);
        match of_rules.chain(of_shadows).find(|known| known.source() == source) {
            Some(known) => Arc::clone(known),
            None => Arc::new(Conditions::new(source, &format!("{whose} of the route of model '{model}'"))),
        }
    }
}

#[cfg(test)]
mod tests;
