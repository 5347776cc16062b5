//! One piece of feedback as people write it in JSON: over REST, and a line each
//! in the files of `starling feedback import`.

use serde::Deserialize;
use serde_json::Value;
use starling_proto::feedback::FeedbackItem;
use starling_proto::feedback::feedback_item::Said;

/// Characters of a wrong text that an error repeats.
const SHOWN_CHARACTERS_MAX: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    decision: String,
    value: Option<Value>,
    label: Option<String>,
    flag: Option<bool>,
    #[serde(default)]
    unit: String,
    #[serde(default)]
    retract: bool,
    observed_at: Option<String>,
}

/// Reads one object. The error says what is wrong with it.
pub(crate) fn item_of_text(text: &str) -> Result<FeedbackItem, String> {
    let item = serde_json::from_str::<Item>(text).map_err(|error| in_words(&error, text))?;
    item_of(item)
}

/// Reads one object that is parsed already.
pub(crate) fn item_of_value(value: Value) -> Result<FeedbackItem, String> {
    let item = Item::deserialize(value).map_err(|error| error.to_string())?;
    item_of(item)
}

fn item_of(item: Item) -> Result<FeedbackItem, String> {
    let mut saids = Vec::new();
    match item.value {
        None | Some(Value::Null) => {}
        Some(Value::Bool(flag)) => saids.push(Said::Flag(flag)),
        Some(Value::Number(number)) => {
            let number = number.as_f64().ok_or_else(|| format!("'value' is {number}, which is too large"))?;
            saids.push(Said::Value(number));
        }
        Some(other) => return Err(format!("'value' is {other}, must be a number, true or false")),
    }
    saids.extend(item.label.map(Said::Label));
    saids.extend(item.flag.map(Said::Flag));
    if saids.len() > 1 {
        return Err("only one of 'value', 'label' and 'flag' may be there".to_owned());
    }
    let observed_unix_us = match item.observed_at {
        None => 0,
        Some(text) => {
            let time: jiff::Timestamp = text.parse().map_err(|_| {
                format!("'observed_at' is '{}', must be a time as in 2026-11-25T12:00:00Z", shown(&text))
            })?;
            u64::try_from(time.as_microsecond()).unwrap_or_default()
        }
    };
    Ok(FeedbackItem {
        decision: item.decision,
        said: saids.pop(),
        unit: item.unit,
        retract: item.retract,
        observed_unix_us,
    })
}

fn in_words(error: &serde_json::Error, text: &str) -> String {
    match error.classify() {
        serde_json::error::Category::Data => error.to_string(),
        _ => format!("'{}' is no JSON object: {error}", shown(text)),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn values_flags_and_labels_are_read() {
        let said = |rest: &str| item_of_text(&format!("{{\"decision\": \"A\", {rest}}}")).unwrap().said;
        assert_eq!(said("\"value\": 0.5"), Some(Said::Value(0.5)));
        assert_eq!(said("\"value\": -3"), Some(Said::Value(-3.0)));
        assert_eq!(said("\"value\": true"), Some(Said::Flag(true)));
        assert_eq!(said("\"flag\": false"), Some(Said::Flag(false)));
        assert_eq!(said("\"label\": \"cat\""), Some(Said::Label("cat".into())));
        assert_eq!(said("\"retract\": true"), None);
        let item = item_of_text(
            "{\"decision\": \"A\", \"flag\": true, \"unit\": \"u\", \"observed_at\": \"1970-01-01T00:00:01Z\"}",
        );
        let item = item.unwrap();
        assert_eq!((item.unit.as_str(), item.observed_unix_us, item.retract), ("u", 1_000_000, false));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |text: &str| item_of_text(text).unwrap_err();
        assert!(wrong("cat").starts_with("'cat' is no JSON object"), "{}", wrong("cat"));
        assert!(wrong("{\"value\": 1}").contains("missing field `decision`"));
        assert!(wrong("{\"decision\": \"A\", \"reward\": 1}").contains("unknown field `reward`"));
        assert_eq!(
            wrong("{\"decision\": \"A\", \"value\": 1, \"label\": \"cat\"}"),
            "only one of 'value', 'label' and 'flag' may be there"
        );
        assert!(
            wrong("{\"decision\": \"A\", \"value\": \"cat\"}").contains("must be a number, true or false")
        );
        assert!(wrong("{\"decision\": \"A\", \"flag\": true, \"observed_at\": \"now\"}").contains("'now'"));
        assert!(item_of_value(serde_json::json!([1])).is_err());
    }
}
