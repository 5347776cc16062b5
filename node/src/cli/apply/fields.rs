//! Reading a manifest field by field: each mistake is named with the field's
//! path, and with what would be right.

use std::sync::LazyLock;

use serde_json::{Map, Number, Value};
use starling_raft::state::PartsPerMillion;
use starling_raft::state::rollouts::spec::{Micro, Millis};

use super::super::duration;
use super::super::percent::Percent;
use crate::nearest::did_you_mean;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct FieldError {
    /// Such as `spec.gates[0].errorRate.max`.
    pub path: String,
    /// In words that follow the path.
    pub problem: String,
}

/// One value and where it stands.
#[derive(Debug, Clone)]
pub struct Field<'a> {
    path: String,
    value: &'a Value,
}

/// The fields of one object; whatever nobody asks for is a mistake.
#[derive(Debug)]
pub struct Fields<'a> {
    path: String,
    values: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

type Read<T> = Result<T, FieldError>;

impl<'a> Field<'a> {
    /// The whole document, or a part of it.
    pub fn new(path: &str, value: &'a Value) -> Self {
        Self { path: path.to_owned(), value }
    }

    /// Such as `spec.gates[0]`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The same value under another path.
    pub fn at(&self, path: &str) -> Self {
        Self { path: path.to_owned(), value: self.value }
    }

    /// A field of this one that says nothing.
    pub fn nothing_at(&self, name: &str) -> Field<'static> {
        Field { path: format!("{}.{name}", self.path), value: &Value::Null }
    }

    /// A mistake in this field.
    pub fn wrong(&self, problem: impl Into<String>) -> FieldError {
        FieldError { path: self.path.clone(), problem: problem.into() }
    }

    /// Its fields. Nothing at all is an object without fields.
    pub fn fields(&self) -> Read<Fields<'a>> {
        static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        let values = match self.value {
            Value::Object(values) => values,
            Value::Null => &*NONE,
            other => return Err(self.wrong(format!("is {} and must be an object", shown(other)))),
        };
        Ok(Fields { path: self.path.clone(), values, known: Vec::new() })
    }

    /// Its entries by name, in order of name, whatever they are called.
    pub fn entries(&self) -> Option<Vec<(&'a str, Field<'a>)>> {
        let Value::Object(values) = self.value else { return None };
        let entry = |(name, value)| {
            let name: &'a String = name;
            (name.as_str(), Field { path: format!("{}.{name}", self.path), value })
        };
        Some(values.iter().map(entry).collect())
    }

    /// Its elements.
    pub fn list(&self) -> Read<Vec<Field<'a>>> {
        let Value::Array(values) = self.value else {
            return Err(self.wrong(format!("is {} and must be a list", shown(self.value))));
        };
        let element = |(index, value)| Field { path: format!("{}[{index}]", self.path), value };
        Ok(values.iter().enumerate().map(element).collect())
    }

    /// A text; numbers are taken as they are written.
    pub fn text(&self) -> Read<String> {
        match self.value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(value) => Ok(value.to_string()),
            other => Err(self.wrong(format!("is {} and must be a text", shown(other)))),
        }
    }

    /// What its text says, in the words of that type's own error if it cannot.
    pub fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(&self) -> Read<T> {
        self.text()?.parse().map_err(|error: T::Err| self.wrong(error.to_string()))
    }

    /// One of these words.
    pub fn one_of<T: Copy>(&self, words: &[(&'static str, T)]) -> Read<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let meant = did_you_mean(&text, known.iter().copied());
            self.wrong(format!("is '{text}' and must be one of {}{meant}", known.join(", ")))
        })
    }

    /// `true` or `false`.
    pub fn flag(&self) -> Read<bool> {
        match self.value {
            Value::Bool(value) => Ok(*value),
            other => Err(self.wrong(format!("is {} and must be true or false", shown(other)))),
        }
    }

    /// A whole number, not negative.
    pub fn count(&self) -> Read<u64> {
        let number = match self.value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.replace('_', "").parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| {
            self.wrong(format!("is {} and must be a whole number such as 1000", shown(self.value)))
        })
    }

    /// A time such as `500ms`, `5m`, `1h 30m` or `14d`.
    pub fn duration(&self) -> Read<Millis> {
        let Value::String(text) = self.value else {
            let unit = if self.value.is_number() { "; a unit is missing" } else { "" };
            return Err(self.wrong(format!(
                "is {} and must be a duration such as 500ms, 30s, 5m, 1h or 14d{unit}",
                shown(self.value)
            )));
        };
        duration::millis(text).map(Millis).map_err(|reason| self.wrong(reason))
    }

    /// A part of all, such as `10%`. A bare number counts percents, and must not
    /// look like a part of one.
    pub fn portion(&self) -> Read<PartsPerMillion> {
        if let Value::Number(number) = self.value
            && number.as_f64().is_some_and(|number| number > 0.0 && number < 1.0)
        {
            return Err(self.wrong(format!("is {number}: say {}", both_meanings(number))));
        }
        let percent: Percent = self.parsed()?;
        PartsPerMillion::new(percent.ppm()).map_err(|error| self.wrong(error.to_string()))
    }

    /// A probability: `5%`, or a number from 0 to 1.
    pub fn probability(&self) -> Read<PartsPerMillion> {
        let wrong = || {
            self.wrong(format!(
                "is {} and must be a probability from 0 to 1 such as 0.05, or a percentage such as 5%",
                shown(self.value)
            ))
        };
        let text = self.text()?;
        if text.ends_with('%') {
            return self.portion();
        }
        let Micro(micro) = decimal(&text).ok_or_else(wrong)?;
        let ppm = u32::try_from(micro).map_err(|_| wrong())?;
        PartsPerMillion::new(ppm).map_err(|_| wrong())
    }

    /// A number with at most six decimals.
    pub fn micro(&self) -> Read<Micro> {
        let text = self.text()?;
        decimal(&text).ok_or_else(|| {
            self.wrong(format!("is '{text}' and must be a number with at most 6 decimals, such as 1.2"))
        })
    }

    /// A number that is not negative, in units of 10⁻⁹.
    pub fn nano(&self) -> Read<u64> {
        let wrong = || self.wrong(format!("is {} and must be a number such as 1e-6", shown(self.value)));
        let number: f64 = self.text()?.parse().map_err(|_| wrong())?;
        let nano = (number * 1e9).round();
        if !(0.0..=9e15).contains(&nano) || (number > 0.0 && nano == 0.0) {
            return Err(wrong());
        }
        Ok(nano as u64)
    }
}

impl<'a> Fields<'a> {
    /// A field that may be absent.
    pub fn get(&mut self, name: &'static str) -> Option<Field<'a>> {
        self.known.push(name);
        let value = self.values.get(name).filter(|value| !value.is_null())?;
        Some(Field { path: format!("{}.{name}", self.path), value })
    }

    /// A field that must be there. `such_as`: an example of what to write.
    pub fn need(&mut self, name: &'static str, such_as: &str) -> Read<Field<'a>> {
        let path = format!("{}.{name}", self.path);
        self.get(name).ok_or_else(|| FieldError { path, problem: format!("is missing; write `{such_as}`") })
    }

    /// A field that is known by being there, even if empty: `thompson: {}`.
    pub fn named(&mut self, name: &'static str) -> Option<Field<'a>> {
        self.known.push(name);
        let value = self.values.get(name)?;
        Some(Field { path: format!("{}.{name}", self.path), value })
    }

    /// Reads a field, or takes the default.
    pub fn or<T>(
        &mut self,
        name: &'static str,
        default: T,
        read: impl FnOnce(&Field<'a>) -> Read<T>,
    ) -> Read<T> {
        self.get(name).map_or(Ok(default), |field| read(&field))
    }

    /// Refuses what nobody asked for. Before that, no other mistake inside the
    /// object should be told: a typing mistake often causes it.
    pub fn finish(&self) -> Read<()> {
        let Some(word) = self.values.keys().find(|word| !self.known.contains(&word.as_str())) else {
            return Ok(());
        };
        if self.known.is_empty() {
            let problem = "is not known here: nothing is to be said here".to_owned();
            return Err(FieldError { path: format!("{}.{word}", self.path), problem });
        }
        let meant = did_you_mean(word, self.known.iter().copied());
        let problem = format!("is not known here; known are {}{meant}", self.known.join(", "));
        Err(FieldError { path: format!("{}.{word}", self.path), problem })
    }
}

/// The one alternative that is chosen, among those that are known: as a word, or
/// as the only field of an object.
pub fn alternative<'a>(field: &Field<'a>, known: &[&'static str]) -> Read<(&'static str, Option<Field<'a>>)> {
    let unknown = |path: &str, word: &str| FieldError {
        path: path.to_owned(),
        problem: format!(
            "'{word}' is not known; known are {}{}",
            known.join(", "),
            did_you_mean(word, known.iter().copied())
        ),
    };
    if let Value::String(word) = field.value {
        let chosen = known.iter().find(|name| *name == word).ok_or_else(|| unknown(&field.path, word))?;
        return Ok((chosen, None));
    }
    let entries = field.entries().ok_or_else(|| {
        field.wrong(format!("is {} and must be one of {}", shown(field.value), known.join(", ")))
    })?;
    match entries.as_slice() {
        [(word, inner)] => {
            let chosen = known.iter().find(|name| *name == word);
            Ok((chosen.ok_or_else(|| unknown(&field.path, word))?, Some(inner.clone())))
        }
        others => Err(field.wrong(format!(
            "has {} entries and must have one of {}",
            others.len(),
            known.join(", ")
        ))),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::String(text) => format!("'{text}'"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string(),
    }
}

fn both_meanings(number: &Number) -> String {
    let part =
        decimal(&number.to_string()).and_then(|Micro(micro)| Percent::from_ppm(u32::try_from(micro).ok()?));
    match part {
        Some(part) => format!("{part} or {number}%"),
        None => format!("{number}%"),
    }
}

/// Exactly, in millionths.
fn decimal(text: &str) -> Option<Micro> {
    const DECIMALS: usize = 6;
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let digits_only = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits_only(whole) || !digits_only(fraction) || fraction.len() > DECIMALS {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    let fraction: i64 = format!("{fraction:0<DECIMALS$}").parse().ok()?;
    let micro = whole.checked_mul(1_000_000)?.checked_add(fraction)?;
    Some(Micro(if negative { -micro } else { micro }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;

    fn refusal<T: std::fmt::Debug>(value: &Value, read: impl Fn(&Field<'_>) -> Read<T>) -> String {
        read(&Field::new("spec.x", value)).unwrap_err().to_string()
    }

    #[test]
    fn numbers_are_exact() {
        let micro = |text: &str| decimal(text).map(|Micro(micro)| micro);
        assert_eq!(micro("1.2"), Some(1_200_000));
        assert_eq!(micro("-0.000001"), Some(-1));
        assert_eq!(micro("3"), Some(3_000_000));
        for text in ["", ".5", "1.", "1e3", "0.0000001", "9223372036854775807"] {
            assert_eq!(micro(text), None, "{text}");
        }
    }

    #[test]
    fn a_part_of_all_that_could_mean_two_things_is_refused() {
        let portion = |value: Value| Field::new("spec.x", &value).portion().unwrap().get();
        assert_eq!((portion(json!("2.5%")), portion(json!(10)), portion(json!(0))), (25_000, 100_000, 0));
        assert_eq!(refusal(&json!(0.01), |field| field.portion()), "spec.x: is 0.01: say 1% or 0.01%");
        let probability = |value: Value| Field::new("spec.x", &value).probability().unwrap().get();
        assert_eq!(
            (probability(json!(0.05)), probability(json!("5%")), probability(json!(1))),
            (50_000, 50_000, 1_000_000)
        );
        assert_eq!(
            refusal(&json!(5), |field| field.probability()),
            "spec.x: is 5 and must be a probability from 0 to 1 such as 0.05, or a percentage such as 5%"
        );
    }

    #[test]
    fn a_number_without_a_unit_is_no_duration() {
        assert_eq!(
            refusal(&json!(5), |field| field.duration()),
            "spec.x: is 5 and must be a duration such as 500ms, 30s, 5m, 1h or 14d; a unit is missing"
        );
        assert_eq!(
            refusal(&json!("soon"), |field| field.duration()),
            "spec.x: 'soon' is not a duration such as 500ms, 30s, 5m, 1h or 14d"
        );
    }

    #[test]
    fn what_nobody_asked_for_is_refused_with_the_nearest_word() {
        let value = json!({ "modl": 1 });
        let field = Field::new("spec", &value);
        let mut fields = field.fields().unwrap();
        assert!(fields.get("model").is_none());
        assert!(fields.get("from").is_none());
        assert_eq!(
            fields.finish().unwrap_err().to_string(),
            "spec.modl: is not known here; known are model, from; did you mean 'model'?"
        );
    }
}
