//! The types a key can have: how each is read from text and from TOML, and
//! where in [`Settings`] it goes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::settings::Settings;
use super::units::{parse_bytes, parse_duration};

/// Where a value goes.
pub(crate) type Place<T> = fn(&mut Settings) -> &mut T;

/// A type, with the place that values of it go to.
#[derive(Clone, Copy)]
pub(crate) enum Field {
    Text(Place<String>),
    OptionalText(Place<Option<String>>),
    Path(Place<PathBuf>),
    OptionalPath(Place<Option<PathBuf>>),
    Port(Place<u16>),
    Flag(Place<bool>),
    /// Between the two, both included.
    Integer(u64, u64, Place<u64>),
    /// At least this many bytes.
    Bytes(u64, Place<u64>),
    /// Between the two, both included.
    Duration(Duration, Duration, Place<Duration>),
    Choice(&'static [&'static str], Place<String>),
    List(Place<Vec<String>>),
    Map(Place<BTreeMap<String, String>>),
}

impl Field {
    /// The type in words, for messages and the page of all keys.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Text(_) | Self::OptionalText(_) => "text".into(),
            Self::Path(_) | Self::OptionalPath(_) => "path".into(),
            Self::Port(_) => "port, 0 to 65535; 0: the system chooses".into(),
            Self::Flag(_) => "true or false".into(),
            Self::Integer(min, u64::MAX, _) => format!("whole number, {min} or more"),
            Self::Integer(min, max, _) => format!("whole number, {min} to {max}"),
            Self::Bytes(..) => "size, such as 64MiB or 65536".into(),
            Self::Duration(..) => "duration, such as 300ms, 5s, 10min".into(),
            Self::Choice(choices, _) => format!("one of {}", choices.join(", ")),
            Self::List(_) => "list, comma between".into(),
            Self::Map(_) => "pairs NAME=VALUE, comma between".into(),
        }
    }

    /// Whether a flag of this type may be given several times.
    pub(crate) fn repeats(&self) -> bool {
        matches!(self, Self::List(_) | Self::Map(_))
    }

    /// Reads text, as environment variables and flags have it. The error says
    /// what was expected.
    pub(crate) fn set_text(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        match self {
            Self::Text(place) => *place(settings) = text.to_owned(),
            Self::OptionalText(place) => *place(settings) = Some(text.to_owned()).filter(|t| !t.is_empty()),
            Self::Path(place) => *place(settings) = PathBuf::from(text),
            Self::OptionalPath(place) => {
                *place(settings) = Some(text).filter(|t| !t.is_empty()).map(PathBuf::from);
            }
            Self::Port(place) => *place(settings) = text.parse().map_err(|_| self.expected(text))?,
            Self::Flag(place) => *place(settings) = text.parse().map_err(|_| self.expected(text))?,
            Self::Integer(min, max, place) => {
                let number: u64 = text.parse().map_err(|_| self.expected(text))?;
                if number < *min || number > *max {
                    return Err(self.expected(text));
                }
                *place(settings) = number;
            }
            Self::Bytes(min, place) => {
                let bytes = parse_bytes(text).ok_or_else(|| self.expected(text))?;
                if bytes < *min {
                    return Err(format!("is '{text}', must be at least {min} bytes"));
                }
                *place(settings) = bytes;
            }
            Self::Duration(min, max, place) => {
                let duration = parse_duration(text).ok_or_else(|| self.expected(text))?;
                if duration < *min || duration > *max {
                    return Err(format!("is '{text}', must be between {min:?} and {max:?}"));
                }
                *place(settings) = duration;
            }
            Self::Choice(choices, place) => {
                if !choices.contains(&text) {
                    return Err(self.expected(text));
                }
                *place(settings) = text.to_owned();
            }
            Self::List(place) => {
                *place(settings) = items(text).map(str::to_owned).collect();
            }
            Self::Map(place) => {
                let pairs: Result<BTreeMap<_, _>, String> = items(text)
                    .map(|item| match item.split_once('=') {
                        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
                        _ => Err(self.expected(item)),
                    })
                    .collect();
                *place(settings) = pairs?;
            }
        }
        Ok(())
    }

    /// Reads a TOML value. A value of another TOML type is refused, even if
    /// its text would do.
    pub(crate) fn set_toml(&self, settings: &mut Settings, value: &toml::Value) -> Result<(), String> {
        use toml::Value;
        let wrong = || Err(format!("is {}, must be {}", describe_toml(value), self.describe()));
        match (self, value) {
            (Self::Flag(_), Value::Boolean(flag)) => self.set_text(settings, &flag.to_string()),
            (Self::Port(_) | Self::Integer(..) | Self::Bytes(..), Value::Integer(number)) => {
                self.set_text(settings, &number.to_string())
            }
            (Self::Choice(choices, _), Value::Integer(number))
                if choices.contains(&number.to_string().as_str()) =>
            {
                self.set_text(settings, &number.to_string())
            }
            (Self::List(place), Value::Array(array)) => {
                let mut list = Vec::with_capacity(array.len());
                for item in array {
                    let Value::String(item) = item else { return wrong() };
                    list.push(item.clone());
                }
                *place(settings) = list;
                Ok(())
            }
            (Self::Map(place), Value::Table(table)) => {
                let mut map = BTreeMap::new();
                for (name, item) in table {
                    let Value::String(item) = item else { return wrong() };
                    map.insert(name.clone(), item.clone());
                }
                *place(settings) = map;
                Ok(())
            }
            (Self::Flag(_) | Self::Port(_) | Self::Integer(..) | Self::Map(_), _) => wrong(),
            (_, Value::String(text)) => self.set_text(settings, text),
            _ => wrong(),
        }
    }

    fn expected(&self, text: &str) -> String {
        format!("is '{text}', must be {}", self.describe())
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn describe_toml(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => format!("the string \"{text}\""),
        toml::Value::Integer(number) => format!("the number {number}"),
        toml::Value::Float(number) => format!("the number {number}"),
        toml::Value::Boolean(flag) => flag.to_string(),
        toml::Value::Datetime(_) => "a date".into(),
        toml::Value::Array(_) => "a list".into(),
        toml::Value::Table(_) => "a table".into(),
    }
}
