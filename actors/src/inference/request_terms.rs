//! On which terms a request waits: its class and how long it may, from its own
//! parameters and the settings of the version. Pure.

use std::collections::HashMap;
use std::time::Duration;

use starling_proto::inference::InferParameter;
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_raft::state::models::VersionSettings;

use super::InferError;

/// How a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestTerms {
    /// 1: the most urgent. Always 1 where the version has one class.
    pub class: u32,
    /// How long it may wait; `None`: as long as its deadline allows.
    pub timeout: Option<Duration>,
}

impl RequestTerms {
    /// Reads `priority` (0: the default class) and `timeout` (in microseconds, 0:
    /// the version's own). Refuses what is no whole number of 0 or more, and a
    /// class that the version does not have.
    pub(crate) fn read(
        model: &str,
        settings: &VersionSettings,
        parameters: &HashMap<String, InferParameter>,
    ) -> Result<Self, InferError> {
        let asked = match parameters.get("priority") {
            Some(parameter) => whole_number("priority", parameter)?,
            None => 0,
        };
        let timeout_micros = match parameters.get("timeout") {
            Some(parameter) => whole_number("timeout", parameter)?,
            None => 0,
        };
        let timeout_micros = if timeout_micros == 0 { settings.queue_timeout_micros } else { timeout_micros };
        let timeout = Some(Duration::from_micros(timeout_micros)).filter(|timeout| !timeout.is_zero());
        Ok(Self { class: class(model, settings, asked)?, timeout })
    }
}

fn class(model: &str, settings: &VersionSettings, asked: u64) -> Result<u32, InferError> {
    let levels = settings.priority_levels;
    if levels <= 1 {
        return Ok(1);
    }
    match u32::try_from(asked) {
        Ok(0) if settings.default_priority_level == 0 => Ok(levels),
        Ok(0) => Ok(settings.default_priority_level.min(levels)),
        Ok(class) if class <= levels => Ok(class),
        _ => Err(InferError::InvalidArgument(format!(
            "parameter 'priority' is {asked}, but model '{model}' has {levels} priority levels: 1 is the most urgent, 0 stands for the default"
        ))),
    }
}

/// From an integer of either kind.
fn whole_number(key: &str, parameter: &InferParameter) -> Result<u64, InferError> {
    let number = match parameter.parameter_choice {
        Some(ParameterChoice::Int64Param(number)) => u64::try_from(number).ok(),
        Some(ParameterChoice::Uint64Param(number)) => Some(number),
        _ => None,
    };
    number.ok_or_else(|| {
        let unit = if key == "timeout" { " of microseconds" } else { "" };
        InferError::InvalidArgument(format!("parameter '{key}' must be a whole number{unit}, 0 or more"))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn three_classes() -> VersionSettings {
        VersionSettings { priority_levels: 3, ..VersionSettings::default() }
    }

    fn read(
        settings: &VersionSettings,
        key: &str,
        choice: ParameterChoice,
    ) -> Result<RequestTerms, InferError> {
        let parameter = InferParameter { parameter_choice: Some(choice) };
        RequestTerms::read("m", settings, &HashMap::from([(key.to_owned(), parameter)]))
    }

    fn class_of(settings: &VersionSettings, choice: ParameterChoice) -> u32 {
        read(settings, "priority", choice).unwrap().class
    }

    #[test]
    fn one_is_the_most_urgent_and_zero_the_default() {
        use ParameterChoice::{Int64Param, Uint64Param};
        assert_eq!(class_of(&three_classes(), Uint64Param(1)), 1);
        assert_eq!(class_of(&three_classes(), Int64Param(3)), 3);
        assert_eq!(class_of(&three_classes(), Uint64Param(0)), 3);
        let middle = VersionSettings { default_priority_level: 2, ..three_classes() };
        assert_eq!(class_of(&middle, Int64Param(0)), 2);
        assert_eq!(RequestTerms::read("m", &middle, &HashMap::new()).unwrap().class, 2);
    }

    #[test]
    fn a_class_that_is_not_there_is_refused_with_both_numbers() {
        let refused = read(&three_classes(), "priority", ParameterChoice::Uint64Param(4)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "parameter 'priority' is 4, but model 'm' has 3 priority levels: 1 is the most urgent, 0 stands for the default"
        );
        assert!(read(&three_classes(), "priority", ParameterChoice::Uint64Param(u64::MAX)).is_err());
    }

    #[test]
    fn where_there_is_one_class_every_priority_is_accepted_and_means_nothing() {
        for number in [0, 1, 7, u64::MAX] {
            assert_eq!(class_of(&VersionSettings::default(), ParameterChoice::Uint64Param(number)), 1);
        }
    }

    #[test]
    fn a_timeout_is_in_microseconds_and_zero_means_the_versions_own() {
        let timeout = |settings, choice| read(settings, "timeout", choice).unwrap().timeout;
        let own = VersionSettings { queue_timeout_micros: 9, ..VersionSettings::default() };
        assert_eq!(timeout(&own, ParameterChoice::Int64Param(250_000)), Some(Duration::from_millis(250)));
        assert_eq!(timeout(&own, ParameterChoice::Uint64Param(0)), Some(Duration::from_micros(9)));
        assert_eq!(timeout(&VersionSettings::default(), ParameterChoice::Uint64Param(0)), None);
    }

    #[test]
    fn what_is_no_whole_number_is_refused_by_name() {
        for key in ["priority", "timeout"] {
            for wrong in [
                ParameterChoice::Int64Param(-1),
                ParameterChoice::StringParam("1".into()),
                ParameterChoice::DoubleParam(1.5),
                ParameterChoice::BoolParam(true),
            ] {
                let refused = read(&three_classes(), key, wrong).unwrap_err();
                assert!(matches!(&refused, InferError::InvalidArgument(text) if text.contains(key)));
            }
        }
    }
}
