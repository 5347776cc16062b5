//! `when` in manifests: what a request must say of itself.

use starling_actors::inference::rule_matching::compile_pattern;
use starling_raft::state::routes::rules::{Attribute, Condition, Test};

use super::fields::{Field, FieldError};

/// A list of conditions, all of which must hold.
pub fn conditions(field: &Field<'_>) -> Result<Vec<Condition>, FieldError> {
    field.list()?.iter().map(condition).collect()
}

fn condition(field: &Field<'_>) -> Result<Condition, FieldError> {
    const SUCH_AS: &str = "such as { parameter: country, equals: DE }";
    let mut fields = field.fields()?;
    let (parameter, metadata) = (fields.get("parameter"), fields.get("metadata"));
    let (equals, one_of, matches) = (fields.get("equals"), fields.get("in"), fields.get("matches"));
    fields.finish()?;
    let attribute = match (parameter, metadata) {
        (Some(name), None) => Attribute::Parameter(name.text()?),
        (None, Some(name)) => Attribute::Metadata(name.text()?.to_lowercase()),
        _ => return Err(field.wrong(format!("needs one of parameter and metadata, {SUCH_AS}"))),
    };
    let test = match (equals, one_of, matches) {
        (Some(text), None, None) => Test::Equals(text.text()?),
        (None, Some(texts), None) => {
            Test::In(texts.list()?.iter().map(Field::text).collect::<Result<_, _>>()?)
        }
        (None, None, Some(field)) => {
            let pattern = field.text()?;
            compile_pattern(&pattern).map_err(|error| field.wrong(error.to_string()))?;
            Test::Matches(pattern)
        }
        _ => return Err(field.wrong(format!("needs one of equals, in and matches, {SUCH_AS}"))),
    };
    Ok(Condition { attribute, test })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;

    #[test]
    fn every_test_can_be_written() {
        let value = json!([
            { "parameter": "country", "equals": "DE" },
            { "metadata": "X-Tier", "in": ["gold", 7] },
            { "parameter": "user", "matches": "^a" },
        ]);
        assert_eq!(
            conditions(&Field::new("when", &value)).unwrap(),
            [
                Condition {
                    attribute: Attribute::Parameter("country".into()),
                    test: Test::Equals("DE".into())
                },
                Condition {
                    attribute: Attribute::Metadata("x-tier".into()),
                    test: Test::In(vec!["gold".into(), "7".into()])
                },
                Condition {
                    attribute: Attribute::Parameter("user".into()),
                    test: Test::Matches("^a".into())
                },
            ]
        );
    }

    #[test]
    fn mistakes_are_named_with_their_path() {
        let cases = [
            (
                json!([{ "equals": "DE" }]),
                "when[0]: needs one of parameter and metadata, such as { parameter: country, equals: DE }",
            ),
            (
                json!([{ "parameter": "a" }]),
                "when[0]: needs one of equals, in and matches, such as { parameter: country, equals: DE }",
            ),
            (
                json!([{ "parameter": "a", "equal": "DE" }]),
                "when[0].equal: is not known here; known are parameter, metadata, equals, in, matches; did you mean 'equals'?",
            ),
            (json!({}), "when: is an object and must be a list"),
        ];
        for (value, expected) in cases {
            assert_eq!(conditions(&Field::new("when", &value)).unwrap_err().to_string(), expected);
        }
    }
}
