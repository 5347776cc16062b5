//! What the parameters of a prediction request mean, for gRPC and REST alike.
//! `priority` and `timeout` are read where the request waits, which may be on
//! another node.
//! Keys that Starling does not know pass through; what it cannot honour is
//! refused rather than ignored.

use std::collections::HashMap;

use starling_actors::inference::{InferError, classification};
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_proto::inference::{InferParameter, ModelInferRequest};

use super::unsupported::Unsupported;

/// Every request of Triton's C++ client carries it, streams and unary calls alike.
const ENABLE_EMPTY_FINAL_RESPONSE: &str = "triton_enable_empty_final_response";
const RESERVED_PREFIX: &str = "triton_";
const SHARED_MEMORY_PREFIX: &str = "shared_memory_";
/// Of a sequence; clients that belong to none may send them empty.
const SEQUENCE: [&str; 3] = ["sequence_id", "sequence_start", "sequence_end"];

/// What was found in them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Parameters {
    /// `routing_key`.
    pub(super) routing_key: Option<String>,
    /// `starling_quiet`.
    pub(super) quiet: bool,
}

/// Checks and reads the parameters of a request, its inputs and outputs.
pub(super) fn read(request: &ModelInferRequest) -> Result<Parameters, InferError> {
    for input in &request.inputs {
        refuse_shared_memory(&input.name, &input.parameters)?;
    }
    for output in &request.outputs {
        refuse_shared_memory(&output.name, &output.parameters)?;
        if let Some(parameter) = output.parameters.get(classification::CLASSIFICATION) {
            classification::classes(&output.name, parameter)?;
        }
    }
    let mut found = Parameters::default();
    for (key, parameter) in &request.parameters {
        match key.as_str() {
            "routing_key" => found.routing_key = Some(text(key, parameter)?),
            "starling_quiet" => found.quiet = flag(key, parameter)?,
            ENABLE_EMPTY_FINAL_RESPONSE => {}
            key if SEQUENCE.contains(&key) => refuse_sequence(key, parameter)?,
            _ if key.starts_with(RESERVED_PREFIX) => {
                return Err(InferError::InvalidArgument(format!(
                    "parameter '{key}': keys that begin with 'triton_' are reserved"
                )));
            }
            _ => {}
        }
    }
    Ok(found)
}

fn refuse_shared_memory(
    tensor: &str,
    parameters: &HashMap<String, InferParameter>,
) -> Result<(), InferError> {
    if parameters.keys().any(|key| key.starts_with(SHARED_MEMORY_PREFIX)) {
        return Err(Unsupported::SharedMemory.of(&format!("tensor '{tensor}'")));
    }
    Ok(())
}

/// Nothing, zero and false are what a request outside of sequences says.
fn refuse_sequence(key: &str, parameter: &InferParameter) -> Result<(), InferError> {
    let is_nothing = match &parameter.parameter_choice {
        None => true,
        Some(ParameterChoice::BoolParam(flag)) => !flag,
        Some(ParameterChoice::Int64Param(number)) => *number == 0,
        Some(ParameterChoice::Uint64Param(number)) => *number == 0,
        Some(ParameterChoice::StringParam(text)) => text.is_empty(),
        Some(ParameterChoice::DoubleParam(_)) => false,
    };
    match is_nothing {
        true => Ok(()),
        false => Err(Unsupported::Sequences.of(&format!("parameter '{key}'"))),
    }
}

fn text(key: &str, parameter: &InferParameter) -> Result<String, InferError> {
    match &parameter.parameter_choice {
        Some(ParameterChoice::StringParam(text)) => Ok(text.clone()),
        Some(ParameterChoice::Int64Param(number)) => Ok(number.to_string()),
        Some(ParameterChoice::Uint64Param(number)) => Ok(number.to_string()),
        _ => Err(wrong(key, "a string or a whole number")),
    }
}

fn flag(key: &str, parameter: &InferParameter) -> Result<bool, InferError> {
    match parameter.parameter_choice {
        Some(ParameterChoice::BoolParam(flag)) => Ok(flag),
        _ => Err(wrong(key, "true or false")),
    }
}

fn wrong(key: &str, expected: &str) -> InferError {
    InferError::InvalidArgument(format!("parameter '{key}' must be {expected}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use starling_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};

    use super::*;

    fn request(key: &str, choice: ParameterChoice) -> ModelInferRequest {
        ModelInferRequest { parameters: parameters(key, choice), ..Default::default() }
    }

    fn parameters(key: &str, choice: ParameterChoice) -> HashMap<String, InferParameter> {
        HashMap::from([(key.to_owned(), InferParameter { parameter_choice: Some(choice) })])
    }

    #[test]
    fn reserved_keys_are_refused_but_for_the_one_that_every_client_sends() {
        let refused = read(&request("triton_x", ParameterChoice::Int64Param(1)));
        assert!(matches!(refused, Err(InferError::InvalidArgument(text)) if text.contains("triton_x")));
        let allowed = request(ENABLE_EMPTY_FINAL_RESPONSE, ParameterChoice::BoolParam(false));
        assert_eq!(read(&allowed).unwrap(), Parameters::default());
    }

    #[test]
    fn keys_that_are_not_known_pass() {
        assert!(read(&request("my_own", ParameterChoice::DoubleParam(0.5))).is_ok());
    }

    #[test]
    fn extensions_that_are_not_there_are_refused_by_name() {
        let input = InferInputTensor {
            name: "x".into(),
            parameters: parameters("shared_memory_region", ParameterChoice::StringParam("r".into())),
            ..Default::default()
        };
        let shared = ModelInferRequest { inputs: vec![input], ..Default::default() };
        assert!(matches!(read(&shared), Err(InferError::Unimplemented(t)) if t.contains("'x'")));
    }

    #[test]
    fn classes_are_a_whole_number() {
        let with = |choice| {
            let output = InferRequestedOutputTensor {
                name: "y".into(),
                parameters: parameters("classification", choice),
            };
            read(&ModelInferRequest { outputs: vec![output], ..Default::default() })
        };
        assert!(with(ParameterChoice::Int64Param(3)).is_ok());
        let refused = with(ParameterChoice::StringParam("3".into()));
        assert!(matches!(refused, Err(InferError::InvalidArgument(text)) if text.contains("'y'")));
    }

    #[test]
    fn a_request_of_a_sequence_is_refused_and_one_of_none_is_not() {
        for choice in [ParameterChoice::Int64Param(7), ParameterChoice::StringParam("a-b".into())] {
            let refused = read(&request("sequence_id", choice));
            assert!(matches!(refused, Err(InferError::Unimplemented(text)) if text.contains("sequence_id")));
        }
        assert!(read(&request("sequence_start", ParameterChoice::BoolParam(true))).is_err());
        assert!(read(&request("sequence_id", ParameterChoice::Uint64Param(0))).is_ok());
        assert!(read(&request("sequence_end", ParameterChoice::BoolParam(false))).is_ok());
    }
}
