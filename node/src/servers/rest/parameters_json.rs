//! The parameters of a request, an input or an output as JSON has them: few, and
//! each of them one value. What is neither is not kept in memory.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use starling_proto::inference::InferParameter;
use starling_proto::inference::infer_parameter::ParameterChoice;

/// Parameters of one object; more are a mistake or an attack.
const PARAMETERS_MAX: usize = 1_024;
/// Clients keep this key to themselves.
const HEADERS: &str = "headers";

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    /// A string, a number or a boolean, as gRPC has it.
    Choice(ParameterChoice),
    /// Nothing that a parameter may be: this kind of value.
    Other(&'static str),
}

/// Some parameters, by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ParametersJson(HashMap<String, Scalar>);

impl ParametersJson {
    /// Whether one is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// A flag, taken out. The error names what came instead.
    pub(super) fn take_flag(&mut self, key: &str) -> Result<Option<bool>, String> {
        match self.0.remove(key) {
            None => Ok(None),
            Some(Scalar::Choice(ParameterChoice::BoolParam(flag))) => Ok(Some(flag)),
            Some(other) => Err(format!("parameter '{key}' is {other}, must be true or false")),
        }
    }

    /// A number of bytes, taken out.
    pub(super) fn take_size(&mut self, key: &str) -> Result<Option<usize>, String> {
        let size = match self.0.remove(key) {
            None => return Ok(None),
            Some(Scalar::Choice(ParameterChoice::Int64Param(size))) => usize::try_from(size).ok(),
            Some(_) => None,
        };
        size.map(Some).ok_or_else(|| format!("{key} must be a whole number"))
    }

    /// Those that are left, as gRPC has them.
    pub(super) fn into_parameters(self) -> Result<HashMap<String, InferParameter>, String> {
        let mut parameters = HashMap::with_capacity(self.0.len());
        for (key, value) in self.0 {
            match value {
                Scalar::Choice(choice) => {
                    parameters.insert(key, InferParameter { parameter_choice: Some(choice) });
                }
                Scalar::Other(_) if key == HEADERS => {}
                Scalar::Other(kind) => {
                    return Err(format!(
                        "parameter '{key}' is {kind}, must be a string, a number or a boolean"
                    ));
                }
            }
        }
        Ok(parameters)
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Choice(ParameterChoice::BoolParam(flag)) => write!(f, "{flag}"),
            Self::Choice(ParameterChoice::Int64Param(number)) => write!(f, "{number}"),
            Self::Choice(ParameterChoice::Uint64Param(number)) => write!(f, "{number}"),
            Self::Choice(ParameterChoice::DoubleParam(number)) => write!(f, "{number}"),
            Self::Choice(ParameterChoice::StringParam(text)) => write!(f, "{text:?}"),
            Self::Other(kind) => f.write_str(kind),
        }
    }
}

impl<'de> Deserialize<'de> for ParametersJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParametersVisitor)
    }
}

struct ParametersVisitor;

impl<'de> Visitor<'de> for ParametersVisitor {
    type Value = ParametersJson;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of parameters")
    }

    fn visit_unit<E: Error>(self) -> Result<ParametersJson, E> {
        Ok(ParametersJson::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ParametersJson, A::Error> {
        let mut parameters = HashMap::new();
        while let Some((key, value)) = map.next_entry()? {
            parameters.insert(key, value);
            if parameters.len() > PARAMETERS_MAX {
                return Err(A::Error::custom(format!("there are more than {PARAMETERS_MAX} parameters")));
            }
        }
        Ok(ParametersJson(parameters))
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number or a boolean")
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Scalar, E> {
        Ok(Scalar::Choice(ParameterChoice::BoolParam(flag)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Choice(ParameterChoice::Int64Param(number)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar, E> {
        let choice =
            i64::try_from(number).map_or(ParameterChoice::Uint64Param(number), ParameterChoice::Int64Param);
        Ok(Scalar::Choice(choice))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar::Choice(ParameterChoice::DoubleParam(number)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Choice(ParameterChoice::StringParam(text.to_owned())))
    }

    fn visit_unit<E: Error>(self) -> Result<Scalar, E> {
        Ok(Scalar::Other("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other("an object"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn read(json: &str) -> Result<HashMap<String, InferParameter>, String> {
        let parameters: ParametersJson = serde_json::from_str(json).map_err(|error| error.to_string())?;
        parameters.into_parameters()
    }

    #[test]
    fn each_kind_of_value_has_its_type() {
        let parameters =
            read(r#"{"b":true,"i":-1,"n":7,"u":18446744073709551615,"d":0.5,"s":"gold","headers":{}}"#)
                .unwrap();
        let choice = |key: &str| parameters[key].parameter_choice.clone().unwrap();
        assert_eq!(choice("b"), ParameterChoice::BoolParam(true));
        assert_eq!(choice("i"), ParameterChoice::Int64Param(-1));
        assert_eq!(choice("n"), ParameterChoice::Int64Param(7));
        assert_eq!(choice("u"), ParameterChoice::Uint64Param(u64::MAX));
        assert_eq!(choice("d"), ParameterChoice::DoubleParam(0.5));
        assert_eq!(choice("s"), ParameterChoice::StringParam("gold".into()));
        assert_eq!(parameters.len(), 6);
    }

    #[test]
    fn what_is_no_value_is_named() {
        for (json, expected) in [
            (r#"{"k":[1,[2]]}"#, "parameter 'k' is a list, must be a string, a number or a boolean"),
            (r#"{"k":{"a":1}}"#, "parameter 'k' is an object, must be a string, a number or a boolean"),
            (r#"{"k":null}"#, "parameter 'k' is null, must be a string, a number or a boolean"),
        ] {
            assert_eq!(read(json).unwrap_err(), expected);
        }
        assert!(read("[1]").unwrap_err().contains("an object of parameters"));
        assert_eq!(read("null").unwrap().len(), 0);
    }

    #[test]
    fn there_are_only_so_many() {
        let many: Vec<String> = (0..1_025).map(|number| format!("\"k{number}\":1")).collect();
        let error = read(&format!("{{{}}}", many.join(","))).unwrap_err();
        assert!(error.contains("more than 1024 parameters"), "{error}");
        assert_eq!(read(&format!("{{{}}}", many[1..].join(","))).unwrap().len(), 1_024);
    }
}
