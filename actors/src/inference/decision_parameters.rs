//! What was decided, as parameters of the response; and what a request says in
//! its own parameters.

use std::collections::HashMap;

use starling_proto::inference::InferParameter;
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_raft::state::NodeId;

use super::router::Routed;

/// Request or response parameters.
pub type Parameters = HashMap<String, InferParameter>;

/// What a response says unless it is asked to be quiet. `starling_rollout` and
/// `starling_arm` are absent where there is no rollout.
#[derive(Debug)]
pub struct DecisionParameters<'a> {
    /// What was decided.
    pub routed: &'a Routed,
    /// Who ran it.
    pub answered_by: NodeId,
}

impl DecisionParameters<'_> {
    /// Adds them.
    pub fn write(&self, parameters: &mut Parameters) {
        let routed = self.routed;
        let number = |value: u64| ParameterChoice::Int64Param(i64::try_from(value).unwrap_or(i64::MAX));
        let text = ParameterChoice::StringParam;
        let mut set = |name: &str, choice| {
            parameters.insert(name.to_owned(), InferParameter { parameter_choice: Some(choice) });
        };
        set("starling_decision", text(routed.decision.to_string()));
        set("starling_epoch", number(routed.decision.epoch.get()));
        set("starling_version", text(routed.version.version.label.to_string()));
        set("starling_propensity", ParameterChoice::DoubleParam(routed.propensity));
        set("starling_sticky", ParameterChoice::BoolParam(routed.sticky));
        set("starling_node", number(self.answered_by.get()));
    }
}

/// A string parameter.
pub fn text_parameter<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a str> {
    match parameters.get(name)?.parameter_choice.as_ref()? {
        ParameterChoice::StringParam(text) => Some(text),
        _ => None,
    }
}

/// A boolean parameter, or the string `true`.
pub fn boolean_parameter(parameters: &Parameters, name: &str) -> bool {
    match parameters.get(name).and_then(|parameter| parameter.parameter_choice.as_ref()) {
        Some(ParameterChoice::BoolParam(value)) => *value,
        Some(ParameterChoice::StringParam(text)) => text == "true",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::inference::decision_ids::DecisionIds;
    use crate::inference::router::{RouteRequest, route};
    use crate::inference::routing_table::RoutingTable;
    use crate::inference::test_states::TestState;

    #[test]
    fn a_response_says_decision_epoch_version_propensity_sticky_and_node() {
        let mut cluster = TestState::default();
        let first = cluster.register("digits");
        cluster.ready("digits", first);
        let table = RoutingTable::default().updated(&cluster.state).unwrap();
        let ids = DecisionIds::new(NodeId::new(1_000), 1);
        let request = RouteRequest { model: "digits", version: "", key: Some("ada") };
        let routed = route(&table, request, || ids.next()).unwrap();
        let mut parameters = Parameters::new();
        DecisionParameters { routed: &routed, answered_by: NodeId::new(1_004) }.write(&mut parameters);
        let said = |name: &str| parameters.get(name).unwrap().parameter_choice.clone().unwrap();
        assert_eq!(parameters.len(), 6);
        assert_eq!(said("starling_decision"), ParameterChoice::StringParam(routed.decision.to_string()));
        assert_eq!(said("starling_epoch"), ParameterChoice::Int64Param(3));
        assert_eq!(said("starling_version"), ParameterChoice::StringParam("v1".into()));
        assert_eq!(said("starling_propensity"), ParameterChoice::DoubleParam(1.0));
        assert_eq!(said("starling_sticky"), ParameterChoice::BoolParam(true));
        assert_eq!(said("starling_node"), ParameterChoice::Int64Param(1_004));
    }

    #[test]
    fn a_request_asks_for_quiet_by_boolean_or_text() {
        let with = |choice| {
            let parameter = InferParameter { parameter_choice: Some(choice) };
            Parameters::from([("starling_quiet".to_owned(), parameter)])
        };
        assert!(boolean_parameter(&with(ParameterChoice::BoolParam(true)), "starling_quiet"));
        assert!(boolean_parameter(&with(ParameterChoice::StringParam("true".into())), "starling_quiet"));
        assert!(!boolean_parameter(&with(ParameterChoice::StringParam("no".into())), "starling_quiet"));
        assert!(!boolean_parameter(&Parameters::new(), "starling_quiet"));
    }
}
