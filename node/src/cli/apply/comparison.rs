//! `comparison` in manifests: what counts as agreement of a shadow's answer with
//! the live one.

use starling_raft::state::PartsPerMillion;
use starling_raft::state::routes::shadows::{Agreement, Comparison};

use super::fields::{Field, FieldError, alternative};

/// Where a manifest says nothing: the same class in each row, and the same value
/// of outputs that have no rows.
pub const DEFAULT: Agreement = Agreement::TopOne;

const KNOWN: &[&str] = &["exact", "topOne", "tolerance", "distance"];
const DISTANCE_MAX_PPM: u32 = 10_000;

/// One way for all outputs (`exact`, `{ tolerance: … }`), or
/// `{ outputs: { NAME: … }, others: … }`.
pub fn comparison(field: &Field<'_>) -> Result<Comparison, FieldError> {
    let by_output = field
        .entries()
        .is_some_and(|entries| entries.iter().any(|(name, _)| *name == "outputs" || *name == "others"));
    if !by_output {
        return Ok(Comparison { outputs: Vec::new(), others: agreement(field)? });
    }
    let mut fields = field.fields()?;
    let (outputs, others) = (fields.get("outputs"), fields.get("others"));
    fields.finish()?;
    let entries = match &outputs {
        Some(outputs) => outputs.entries().ok_or_else(|| {
            outputs.wrong("must name outputs, such as { probabilities: { tolerance: {} } }")
        })?,
        None => Vec::new(),
    };
    let mut outputs = Vec::with_capacity(entries.len());
    for (name, field) in entries {
        outputs.push((name.to_owned(), agreement(&field)?));
    }
    outputs.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(Comparison { outputs, others: others.map_or(Ok(DEFAULT), |others| agreement(&others))? })
}

fn agreement(field: &Field<'_>) -> Result<Agreement, FieldError> {
    let (chosen, inner) = alternative(field, KNOWN)?;
    let Some(inner) = inner else { return default_of(chosen) };
    let mut fields = inner.fields()?;
    let agreement = match chosen {
        "tolerance" => {
            let absolute_nano = fields.or("absolute", 1_000, Field::nano)?;
            let relative_nano = fields.or("relative", 1_000_000, Field::nano)?;
            Agreement::Tolerance { absolute_nano, relative_nano }
        }
        "distance" => {
            let max = fields.get("max").map(|max| max.portion()).transpose()?;
            max.map_or_else(|| default_of(chosen), |max| Ok(Agreement::Distance { max }))?
        }
        _ => default_of(chosen)?,
    };
    fields.finish()?;
    Ok(agreement)
}

fn default_of(chosen: &str) -> Result<Agreement, FieldError> {
    Ok(match chosen {
        "exact" => Agreement::Exact,
        "tolerance" => Agreement::Tolerance { absolute_nano: 1_000, relative_nano: 1_000_000 },
        "distance" => Agreement::Distance { max: PartsPerMillion::new(DISTANCE_MAX_PPM).unwrap_or_default() },
        _ => Agreement::TopOne,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Result<Comparison, String> {
        comparison(&Field::new("comparison", &value)).map_err(|error| error.to_string())
    }

    #[test]
    fn outputs_may_be_compared_alike_or_each_in_its_own_way() {
        assert_eq!(read(json!("exact")).unwrap(), Comparison { outputs: vec![], others: Agreement::Exact });
        let tolerance = Agreement::Tolerance { absolute_nano: 1_000, relative_nano: 20_000_000 };
        assert_eq!(
            read(json!({ "tolerance": { "relative": 0.02 } })).unwrap(),
            Comparison { outputs: vec![], others: tolerance }
        );
        let max = PartsPerMillion::new(20_000).unwrap();
        assert_eq!(
            read(json!({ "outputs": { "z": { "distance": { "max": "2%" } }, "a": "topOne" }, "others": "exact" }))
                .unwrap(),
            Comparison {
                outputs: vec![
                    ("a".into(), Agreement::TopOne),
                    ("z".into(), Agreement::Distance { max })
                ],
                others: Agreement::Exact
            }
        );
    }

    #[test]
    fn mistakes_are_named_with_their_path() {
        assert_eq!(
            read(json!("exct")).unwrap_err(),
            "comparison: 'exct' is not known; known are exact, topOne, tolerance, distance; did you mean 'exact'?"
        );
        assert_eq!(
            read(json!({ "tolerance": { "absolut": 1 } })).unwrap_err(),
            "comparison.tolerance.absolut: is not known here; known are absolute, relative; did you mean 'absolute'?"
        );
        assert_eq!(
            read(json!({ "outputs": { "y": 5 } })).unwrap_err(),
            "comparison.outputs.y: is 5 and must be one of exact, topOne, tolerance, distance"
        );
    }
}
