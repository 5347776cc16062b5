//! `rules` and `shadows` in manifests: what comes beside the weights of a route.

use starling_proto::admin::{RouteRule, RouteShadow};
use starling_raft::state::routes::shadows::Comparison;
use starling_raft::state::{PartsPerMillion, RuleName, VersionRef};

use super::comparison::{self, comparison};
use super::conditions::conditions;
use super::fields::{Field, FieldError};
use crate::servers::route_out;

/// A list of rules, in the order in which they are tried.
pub fn rules(field: &Field<'_>) -> Result<Vec<RouteRule>, FieldError> {
    let mut rules: Vec<RouteRule> = Vec::new();
    for field in field.list()? {
        let rule = rule(&field)?;
        if rules.iter().any(|other| other.name == rule.name) {
            return Err(field.wrong(format!("is the second rule called '{}'; names must differ", rule.name)));
        }
        rules.push(rule);
    }
    Ok(rules)
}

fn rule(field: &Field<'_>) -> Result<RouteRule, FieldError> {
    let mut fields = field.fields()?;
    let name = fields.need("name", "name: gold-users");
    let when = fields.or("when", Vec::new(), conditions);
    let portion = fields.or("portion", PartsPerMillion::WHOLE, Field::portion);
    let version = fields.need("version", "version: v2");
    fields.finish()?;
    Ok(RouteRule {
        name: name?.parsed::<RuleName>()?.to_string(),
        when: route_out::conditions(&when?),
        portion_ppm: portion?.get(),
        version: version?.parsed::<VersionRef>()?.to_string(),
    })
}

/// A list of shadows.
pub fn shadows(field: &Field<'_>) -> Result<Vec<RouteShadow>, FieldError> {
    let mut shadows: Vec<RouteShadow> = Vec::new();
    for field in field.list()? {
        let shadow = shadow(&field)?;
        if shadows.iter().any(|other| other.version == shadow.version) {
            return Err(
                field.wrong(format!("is the second shadow of version '{}'; one is enough", shadow.version))
            );
        }
        shadows.push(shadow);
    }
    Ok(shadows)
}

fn shadow(field: &Field<'_>) -> Result<RouteShadow, FieldError> {
    let mut fields = field.fields()?;
    let version = fields.need("version", "version: v2");
    let when = fields.or("when", Vec::new(), conditions);
    let portion = fields.or("portion", PartsPerMillion::WHOLE, Field::portion);
    let alike = Comparison { outputs: Vec::new(), others: comparison::DEFAULT };
    let compared = fields.or("comparison", alike, comparison);
    fields.finish()?;
    Ok(RouteShadow {
        version: version?.parsed::<VersionRef>()?.to_string(),
        when: route_out::conditions(&when?),
        portion_ppm: portion?.get(),
        comparison: Some(route_out::comparison(&compared?)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::super::super::route_words::{rule_line, shadow_line};
    use super::*;

    #[test]
    fn rules_are_read_as_they_are_written() {
        let value = json!([
            {
                "name": "gold",
                "when": [
                    { "parameter": "tier", "equals": "gold" },
                    { "metadata": "x-country", "in": ["de", "at"] },
                    { "metadata": "user-agent", "matches": "^ios" },
                ],
                "portion": "10%",
                "version": "v2",
            },
            { "name": "everybody", "version": 1 },
        ]);
        let rules = rules(&Field::new("spec.rules", &value)).unwrap();
        let lines: Vec<String> = (1..).zip(&rules).map(|(number, rule)| rule_line(number, rule)).collect();
        assert_eq!(
            lines,
            [
                "rule 1 gold: 10% of parameter tier = gold and metadata x-country in [de, at] and metadata user-agent matches \"^ios\" -> v2",
                "rule 2 everybody: everything -> 1",
            ]
        );
    }

    #[test]
    fn shadows_are_read_as_they_are_written() {
        let value = json!([
            { "version": "v2" },
            { "version": "v3", "portion": "2.5%", "comparison": { "distance": { "max": "2%" } } },
        ]);
        let shadows = shadows(&Field::new("spec.shadows", &value)).unwrap();
        let lines: Vec<String> = shadows.iter().map(shadow_line).collect();
        assert_eq!(
            lines,
            ["shadow v2: everything, compared topOne", "shadow v3: 2.5% of everything, compared distance 2%"]
        );
    }

    #[test]
    fn mistakes_are_named_with_their_path() {
        let refused =
            |value: serde_json::Value| rules(&Field::new("spec.rules", &value)).unwrap_err().to_string();
        for (value, expected) in [
            (json!({}), "spec.rules: is an object and must be a list"),
            (json!([{ "version": "v2" }]), "spec.rules[0].name: is missing; write `name: gold-users`"),
            (json!([{ "name": "a" }]), "spec.rules[0].version: is missing; write `version: v2`"),
            (
                json!([{ "name": "a", "version": "v2", "portion": "150%" }]),
                "spec.rules[0].portion: '150%' is not a percentage from 0 to 100",
            ),
            (
                json!([{ "name": "a", "version": "v2", "wen": [] }]),
                "spec.rules[0].wen: is not known here; known are name, when, portion, version; did you mean 'when'?",
            ),
            (
                json!([{ "name": "a", "version": "v2", "when": [{ "parameter": "x", "matches": "a(" }] }]),
                "spec.rules[0].when[0].matches: 'a(' is not a regular expression: unclosed group",
            ),
            (
                json!([{ "name": "a", "version": "v1" }, { "name": "a", "version": "v2" }]),
                "spec.rules[1]: is the second rule called 'a'; names must differ",
            ),
        ] {
            let error = refused(value);
            assert!(error.starts_with(expected), "{error}");
        }
        let twice = json!([{ "version": "v2" }, { "version": "v2" }]);
        assert_eq!(
            shadows(&Field::new("spec.shadows", &twice)).unwrap_err().to_string(),
            "spec.shadows[1]: is the second shadow of version 'v2'; one is enough"
        );
    }
}
