//! Whether a request is one that a rule or a shadow is for: conditions, made
//! ready once for all requests. Pure.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use regex::{Regex, RegexBuilder};
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_raft::state::routes::rules::{Attribute, Condition, Test};

use super::Parameters;

/// A longer value fails every test: a pattern that is looked for in megabytes
/// would hold up a core.
pub const VALUE_BYTES_MAX: usize = 4_096;
/// Of one compiled pattern, and of what its search may remember.
const PATTERN_BYTES_MAX: usize = 256 << 10;

/// What a request says of itself, as far as conditions may ask. Nothing is read
/// of it before one does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    /// The request's parameters.
    pub parameters: Option<&'a Parameters>,
    /// gRPC metadata or HTTP headers.
    pub metadata: Option<&'a HeaderMap>,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// It does not parse.
    #[error(
        "'{pattern}' is not a regular expression: {reason}; the syntax is that of Rust's regex crate, much like RE2's"
    )]
    Syntax {
        /// What came.
        pattern: String,
        /// What is wrong, in one line.
        reason: String,
    },
    /// It would take too much memory on every node.
    #[error(
        "'{0}' is too large a regular expression: compiled, it may take {PATTERN_BYTES_MAX} bytes; repeat less, or write (?-u) where ASCII is enough"
    )]
    TooLarge(String),
}

/// Compiles a pattern within bounds. A search takes linear time.
pub fn compile_pattern(pattern: &str) -> Result<Regex, InvalidPattern> {
    let compiled =
        RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).build();
    compiled.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => InvalidPattern::TooLarge(pattern.to_owned()),
        error => {
            InvalidPattern::Syntax { pattern: pattern.to_owned(), reason: last_line(&error.to_string()) }
        }
    })
}

/// The parser draws the pattern over several lines; what is wrong stands in the last.
fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

/// Conditions that must all hold.
#[derive(Debug)]
pub struct Conditions {
    source: Vec<Condition>,
    tests: Vec<ReadyTest>,
}

#[derive(Debug)]
struct ReadyTest {
    place: Place,
    wanted: Wanted,
}

#[derive(Debug)]
enum Place {
    Parameter(String),
    Metadata(HeaderName),
    /// No header can have such a name.
    Nowhere,
}

#[derive(Debug)]
enum Wanted {
    Text(String),
    /// Sorted.
    OneOf(Vec<String>),
    Pattern(Box<Regex>),
    /// A pattern that does not compile is found nowhere.
    Nothing,
}

impl Conditions {
    /// Makes conditions ready. `whose` names them in the log, where a pattern
    /// does not compile.
    pub fn new(source: &[Condition], whose: &str) -> Self {
        let tests = source.iter().map(|condition| ReadyTest::new(condition, whose)).collect();
        Self { source: source.to_vec(), tests }
    }

    /// What they were made from.
    pub fn source(&self) -> &[Condition] {
        &self.source
    }

    /// Whether all hold; true if there are none.
    pub fn hold(&self, attributes: Attributes<'_>) -> bool {
        self.tests.iter().all(|test| test.holds(attributes))
    }
}

impl ReadyTest {
    fn new(condition: &Condition, whose: &str) -> Self {
        let place = match &condition.attribute {
            Attribute::Parameter(name) => Place::Parameter(name.clone()),
            Attribute::Metadata(name) => {
                HeaderName::from_bytes(name.as_bytes()).map_or(Place::Nowhere, Place::Metadata)
            }
        };
        let wanted = match &condition.test {
            Test::Equals(text) => Wanted::Text(text.clone()),
            Test::In(texts) => {
                let mut texts = texts.clone();
                texts.sort_unstable();
                Wanted::OneOf(texts)
            }
            Test::Matches(pattern) => match compile_pattern(pattern) {
                Ok(regex) => Wanted::Pattern(Box::new(regex)),
                Err(error) => {
                    tracing::warn!(%error, whose, "a condition never holds");
                    Wanted::Nothing
                }
            },
        };
        Self { place, wanted }
    }

    fn holds(&self, attributes: Attributes<'_>) -> bool {
        match &self.place {
            Place::Parameter(name) => {
                let parameter = attributes.parameters.and_then(|parameters| parameters.get(name));
                let choice = parameter.and_then(|parameter| parameter.parameter_choice.as_ref());
                choice.is_some_and(|choice| self.wanted.accepts(&text_of(choice)))
            }
            // Said several times, it is enough that one of them is right.
            Place::Metadata(name) => attributes.metadata.is_some_and(|metadata| {
                let values = metadata.get_all(name).iter();
                let mut texts = values.filter_map(|value| std::str::from_utf8(value.as_bytes()).ok());
                texts.any(|text| self.wanted.accepts(text))
            }),
            Place::Nowhere => false,
        }
    }
}

impl Wanted {
    fn accepts(&self, text: &str) -> bool {
        if text.len() > VALUE_BYTES_MAX {
            return false;
        }
        match self {
            Self::Text(wanted) => wanted == text,
            Self::OneOf(wanted) => wanted.binary_search_by(|one| one.as_str().cmp(text)).is_ok(),
            Self::Pattern(regex) => regex.is_match(text),
            Self::Nothing => false,
        }
    }
}

/// A parameter of any type as the text that conditions are written for: `true`,
/// whole numbers in decimal, others with the fewest digits that say them.
fn text_of(choice: &ParameterChoice) -> Cow<'_, str> {
    match choice {
        ParameterChoice::StringParam(text) => Cow::Borrowed(text),
        ParameterChoice::BoolParam(true) => Cow::Borrowed("true"),
        ParameterChoice::BoolParam(false) => Cow::Borrowed("false"),
        ParameterChoice::Int64Param(number) => Cow::Owned(number.to_string()),
        ParameterChoice::Uint64Param(number) => Cow::Owned(number.to_string()),
        ParameterChoice::DoubleParam(number) => Cow::Owned(number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use starling_proto::inference::InferParameter;

    use super::*;

    fn parameters(pairs: &[(&str, ParameterChoice)]) -> Parameters {
        let with = |choice: &ParameterChoice| InferParameter { parameter_choice: Some(choice.clone()) };
        pairs.iter().map(|(name, choice)| ((*name).to_owned(), with(choice))).collect()
    }

    fn metadata(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn parameter(name: &str, test: Test) -> Condition {
        Condition { attribute: Attribute::Parameter(name.to_owned()), test }
    }

    fn header(name: &str, test: Test) -> Condition {
        Condition { attribute: Attribute::Metadata(name.to_owned()), test }
    }

    fn equals(text: &str) -> Test {
        Test::Equals(text.to_owned())
    }

    fn one_of(texts: &[&str]) -> Test {
        Test::In(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    fn matches(pattern: &str) -> Test {
        Test::Matches(pattern.to_owned())
    }

    #[test]
    fn parameters_of_every_type_are_compared_as_text() {
        let said = parameters(&[
            ("vip", ParameterChoice::BoolParam(true)),
            ("visits", ParameterChoice::Int64Param(-7)),
            ("total", ParameterChoice::Uint64Param(u64::MAX)),
            ("tier", ParameterChoice::StringParam("gold".into())),
            ("half", ParameterChoice::DoubleParam(0.5)),
            ("tenth", ParameterChoice::DoubleParam(0.1)),
            ("one", ParameterChoice::DoubleParam(1.0)),
        ]);
        let attributes = Attributes { parameters: Some(&said), metadata: None };
        for (condition, expected) in [
            (parameter("vip", equals("true")), true),
            (parameter("vip", equals("1")), false),
            (parameter("visits", equals("-7")), true),
            (parameter("total", equals("18446744073709551615")), true),
            (parameter("tier", equals("gold")), true),
            (parameter("tier", equals("Gold")), false),
            (parameter("tier", one_of(&["silver", "gold"])), true),
            (parameter("tier", one_of(&["silver", "bronze"])), false),
            (parameter("tier", one_of(&[])), false),
            (parameter("tier", matches("^g")), true),
            (parameter("tier", matches("l")), true),
            (parameter("tier", matches("^old")), false),
            (parameter("half", equals("0.5")), true),
            (parameter("tenth", equals("0.1")), true),
            (parameter("one", equals("1")), true),
            (parameter("absent", equals("")), false),
            (parameter("absent", matches(".*")), false),
        ] {
            let holds = Conditions::new(std::slice::from_ref(&condition), "test").hold(attributes);
            assert_eq!(holds, expected, "{condition:?}");
        }
    }

    #[test]
    fn metadata_is_found_by_name_and_any_of_its_values_is_enough() {
        let said = metadata(&[("x-country", "de"), ("x-country", "at"), ("user-agent", "ios/17.2")]);
        let attributes = Attributes { parameters: None, metadata: Some(&said) };
        for (condition, expected) in [
            (header("x-country", equals("at")), true),
            (header("x-country", one_of(&["ch", "de"])), true),
            (header("x-country", equals("ch")), false),
            (header("user-agent", matches("^ios")), true),
            (header("no such header", matches("")), false),
            (parameter("x-country", equals("de")), false),
        ] {
            let holds = Conditions::new(std::slice::from_ref(&condition), "test").hold(attributes);
            assert_eq!(holds, expected, "{condition:?}");
        }
    }

    #[test]
    fn all_conditions_must_hold_and_none_hold_for_everybody() {
        let said = parameters(&[("tier", ParameterChoice::StringParam("gold".into()))]);
        let headers = metadata(&[("x-country", "de")]);
        let attributes = Attributes { parameters: Some(&said), metadata: Some(&headers) };
        let both = [parameter("tier", equals("gold")), header("x-country", equals("de"))];
        assert!(Conditions::new(&both, "test").hold(attributes));
        let one = [parameter("tier", equals("gold")), header("x-country", equals("at"))];
        assert!(!Conditions::new(&one, "test").hold(attributes));
        assert!(Conditions::new(&[], "test").hold(Attributes::default()));
        assert!(!Conditions::new(&both, "test").hold(Attributes::default()));
    }

    #[test]
    fn a_pattern_that_does_not_compile_is_found_nowhere() {
        let said = parameters(&[("tier", ParameterChoice::StringParam("(".into()))]);
        let attributes = Attributes { parameters: Some(&said), metadata: None };
        assert!(!Conditions::new(&[parameter("tier", matches("("))], "test").hold(attributes));
    }

    #[test]
    fn patterns_are_bounded_in_size_and_what_is_wrong_is_said_in_one_line() {
        assert!(compile_pattern(r"^\w+@\w+\.(com|org)$").is_ok());
        let error = compile_pattern("a(b").unwrap_err().to_string();
        assert!(error.starts_with("'a(b' is not a regular expression: unclosed group"), "{error}");
        assert_eq!(error.lines().count(), 1);
        let error = compile_pattern(r"(\w{50}){50}").unwrap_err();
        assert!(matches!(error, InvalidPattern::TooLarge(_)), "{error}");
    }

    #[test]
    fn a_value_of_many_bytes_is_not_searched() {
        let long = "a".repeat(VALUE_BYTES_MAX + 1);
        let condition = [parameter("text", matches("a"))];
        let fits = parameters(&[("text", ParameterChoice::StringParam(long[1..].to_owned()))]);
        let does_not = parameters(&[("text", ParameterChoice::StringParam(long))]);
        let holds = |said: &Parameters| {
            Conditions::new(&condition, "test").hold(Attributes { parameters: Some(said), metadata: None })
        };
        assert!(holds(&fits));
        assert!(!holds(&does_not));
    }
}
