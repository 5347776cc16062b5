//! What was decided, as parameters of the response; and what a request says in
//! its own parameters.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use starling_proto::inference::InferParameter;
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_raft::state::NodeId;

use super::router::Routed;
use super::routing_table::RoutedVersion;

/// Request or response parameters.
pub type Parameters = HashMap<String, InferParameter>;

/// What a response says unless it is asked to be quiet. `starling_rollout` is
/// absent where no rollout drew, `starling_arm` also for those who take no part in
/// it, `starling_retried` unless the answer is the stable version's after all.
#[derive(Debug)]
pub struct DecisionParameters {
    /// What was decided.
    pub routed: Routed,
    /// Who ran it.
    pub answered_by: NodeId,
    /// Which version answered in place of the one that was decided on.
    pub retried_on: Option<Arc<RoutedVersion>>,
}

/// The value of one of them.
#[derive(Debug, Clone, Copy)]
enum Said<'a> {
    Text(&'a str),
    Number(u64),
    Probability(f64),
    Flag(bool),
}

impl DecisionParameters {
    /// Room that they take in an encoded message, unless a label is long.
    pub const ENCODED_BYTES: usize = 256;

    /// Adds them to a response that somebody else encodes.
    pub fn write(&self, parameters: &mut Parameters) {
        self.each(|name, said| {
            parameters.insert(name.to_owned(), InferParameter { parameter_choice: Some(said.into()) });
        });
    }

    /// Each with its name, for those who encode them in their own way.
    pub fn list(&self) -> Vec<(&'static str, ParameterChoice)> {
        let mut list = Vec::with_capacity(9);
        self.each(|name, said| list.push((name, said.into())));
        list
    }

    /// Appends them to an encoded `ModelInferResponse`, to which they belong from
    /// then on: protobuf lets the entries of a map stand anywhere. Spares small
    /// predictions a dozen allocations.
    pub fn append_to_encoded(&self, message: &mut BytesMut) {
        self.each(|name, said| append_entry(name, said, message));
    }

    fn each(&self, mut see: impl FnMut(&'static str, Said<'_>)) {
        let routed = &self.routed;
        let answered = self.retried_on.as_ref().unwrap_or(&routed.version);
        see("starling_decision", Said::Text(&routed.decision.to_string()));
        see("starling_epoch", Said::Number(routed.decision.epoch.get()));
        see("starling_version", Said::Text(answered.version.label.as_str()));
        if let Some(rollout) = routed.rollout() {
            see("starling_rollout", Said::Text(rollout.name.as_str()));
        }
        if let Some(arm) = routed.arm_name() {
            see("starling_arm", Said::Text(arm));
        }
        see("starling_propensity", Said::Probability(routed.propensity));
        see("starling_sticky", Said::Flag(routed.sticky));
        see("starling_node", Said::Number(self.answered_by.get()));
        if self.retried_on.is_some() {
            see("starling_retried", Said::Flag(true));
        }
    }
}

impl From<Said<'_>> for ParameterChoice {
    fn from(said: Said<'_>) -> Self {
        match said {
            Said::Text(text) => Self::StringParam(text.to_owned()),
            Said::Number(number) => Self::Int64Param(i64::try_from(number).unwrap_or(i64::MAX)),
            Said::Probability(number) => Self::DoubleParam(number),
            Said::Flag(flag) => Self::BoolParam(flag),
        }
    }
}

/// One entry of `map<string, InferParameter> parameters = 4` of a response.
fn append_entry(name: &str, said: Said<'_>, message: &mut BytesMut) {
    const PARAMETERS: u32 = 4;
    const NAME: u32 = 1;
    const VALUE: u32 = 2;
    // Names and values are short: all lengths but a long label's are one byte.
    let value_length = match said {
        Said::Text(text) => 1 + encoded_len_varint(text.len() as u64) + text.len(),
        Said::Number(number) => 1 + encoded_len_varint(as_int64(number)),
        Said::Probability(_) => 1 + size_of::<f64>(),
        Said::Flag(_) => 2,
    };
    let name_length = 1 + encoded_len_varint(name.len() as u64) + name.len();
    let entry_length = name_length + 1 + encoded_len_varint(value_length as u64) + value_length;
    message.reserve(entry_length + 8);
    encode_key(PARAMETERS, WireType::LengthDelimited, message);
    encode_varint(entry_length as u64, message);
    encode_key(NAME, WireType::LengthDelimited, message);
    encode_varint(name.len() as u64, message);
    message.put_slice(name.as_bytes());
    encode_key(VALUE, WireType::LengthDelimited, message);
    encode_varint(value_length as u64, message);
    // The numbers of InferParameter's fields.
    match said {
        Said::Flag(flag) => {
            encode_key(1, WireType::Varint, message);
            encode_varint(u64::from(flag), message);
        }
        Said::Number(number) => {
            encode_key(2, WireType::Varint, message);
            encode_varint(as_int64(number), message);
        }
        Said::Text(text) => {
            encode_key(3, WireType::LengthDelimited, message);
            encode_varint(text.len() as u64, message);
            message.put_slice(text.as_bytes());
        }
        Said::Probability(number) => {
            encode_key(4, WireType::SixtyFourBit, message);
            message.put_f64_le(number);
        }
    }
}

fn as_int64(number: u64) -> u64 {
    number.min(i64::MAX as u64)
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

    use proptest::prelude::*;
    use prost::Message;
    use starling_proto::inference::ModelInferResponse;

    use super::*;
    use crate::inference::decision_ids::DecisionIds;
    use crate::inference::router::{RouteRequest, route};
    use crate::inference::routing_table::RoutingTable;
    use crate::inference::rule_matching::Attributes;
    use crate::inference::test_states::TestState;

    #[test]
    fn a_response_says_decision_epoch_version_propensity_sticky_and_node() {
        let mut cluster = TestState::default();
        let first = cluster.register("digits");
        cluster.ready("digits", first);
        let table = RoutingTable::default().updated(&cluster.state).unwrap();
        let ids = DecisionIds::new(NodeId::new(1_000), 1);
        let attributes = Attributes::default();
        let request = RouteRequest { model: "digits", version: "", key: Some("ada"), attributes };
        let routed = route(&table, request, || ids.next()).unwrap();
        let decision = routed.decision.to_string();
        let decided = DecisionParameters { routed, answered_by: NodeId::new(1_004), retried_on: None };
        let mut parameters = Parameters::new();
        decided.write(&mut parameters);
        let said = |name: &str| parameters.get(name).unwrap().parameter_choice.clone().unwrap();
        assert_eq!(parameters.len(), 6);
        assert_eq!(said("starling_decision"), ParameterChoice::StringParam(decision));
        assert_eq!(said("starling_epoch"), ParameterChoice::Int64Param(3));
        assert_eq!(said("starling_version"), ParameterChoice::StringParam("v1".into()));
        assert_eq!(said("starling_propensity"), ParameterChoice::DoubleParam(1.0));
        assert_eq!(said("starling_sticky"), ParameterChoice::BoolParam(true));
        assert_eq!(said("starling_node"), ParameterChoice::Int64Param(1_004));

        let others = Parameters::from([("mine".to_owned(), InferParameter::default())]);
        let response =
            ModelInferResponse { model_name: "digits".to_owned(), parameters: others, ..Default::default() };
        let mut encoded = BytesMut::from(&response.encode_to_vec()[..]);
        decided.append_to_encoded(&mut encoded);
        let decoded = ModelInferResponse::decode(encoded.freeze()).unwrap();
        assert_eq!(decoded.model_name, "digits");
        assert_eq!(decoded.parameters.len(), 7);
        assert_eq!(parameters.iter().find(|(name, said)| decoded.parameters.get(*name) != Some(said)), None);
    }

    proptest! {
        #[test]
        fn an_appended_entry_is_read_as_it_was_meant(
            text in ".{0,300}",
            number in any::<u64>(),
            probability in any::<f64>(),
            flag: bool,
        ) {
            let said =
                [Said::Text(&text), Said::Number(number), Said::Probability(probability), Said::Flag(flag)];
            for said in said {
                let mut encoded = BytesMut::new();
                append_entry("starling_word", said, &mut encoded);
                let decoded = ModelInferResponse::decode(encoded.freeze()).unwrap();
                let expected = InferParameter { parameter_choice: Some(said.into()) };
                prop_assert_eq!(
                    decoded.parameters["starling_word"].encode_to_vec(),
                    expected.encode_to_vec()
                );
            }
        }
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
