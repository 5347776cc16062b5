//! From an answer to the body of an inference response: JSON, with binary
//! tensors behind it for the outputs that are wanted so. Pure.

use std::collections::HashMap;

use serde_json::Value;
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_proto::inference::{InferParameter, ModelInferResponse};

use super::decode::OutputForm;
use crate::tensor_json::write_json;

/// A body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Encoded {
    pub(super) body: Vec<u8>,
    /// Length of the JSON, where binary tensors follow it.
    pub(super) json_bytes: Option<usize>,
}

/// Encodes an answer whose outputs are raw. The error names the output.
pub(super) fn encode(response: &ModelInferResponse, form: &OutputForm) -> Result<Encoded, String> {
    if response.raw_output_contents.len() != response.outputs.len() {
        return Err(format!(
            "the answer has {} outputs and the contents of {}",
            response.outputs.len(),
            response.raw_output_contents.len()
        ));
    }
    let mut json = String::with_capacity(256);
    json.push('{');
    if !response.id.is_empty() {
        json.push_str(&format!("\"id\":{},", quoted(&response.id)));
    }
    json.push_str(&format!("\"model_name\":{}", quoted(&response.model_name)));
    json.push_str(&format!(",\"model_version\":{}", quoted(&response.model_version)));
    if !response.parameters.is_empty() {
        json.push_str(&format!(",\"parameters\":{}", parameters_json(&response.parameters)));
    }
    json.push_str(",\"outputs\":[");
    let mut binary: Vec<&[u8]> = Vec::new();
    for (index, (output, raw)) in response.outputs.iter().zip(&response.raw_output_contents).enumerate() {
        if index > 0 {
            json.push(',');
        }
        json.push_str(&format!(
            "{{\"name\":{},\"datatype\":{},\"shape\":{}",
            quoted(&output.name),
            quoted(&output.datatype),
            shape_json(&output.shape)
        ));
        if form.is_binary(&output.name) {
            let mut parameters = parameters_json(&output.parameters);
            parameters["binary_data_size"] = raw.len().into();
            json.push_str(&format!(",\"parameters\":{parameters}}}"));
            binary.push(raw);
            continue;
        }
        if !output.parameters.is_empty() {
            json.push_str(&format!(",\"parameters\":{}", parameters_json(&output.parameters)));
        }
        json.push_str(",\"data\":");
        write_json(&output.datatype, raw, &mut json)
            .map_err(|error| format!("output '{}': {error}", output.name))?;
        json.push('}');
    }
    json.push_str("]}");
    let json_bytes = (!binary.is_empty()).then_some(json.len());
    let mut body = json.into_bytes();
    body.reserve(binary.iter().map(|raw| raw.len()).sum());
    for raw in binary {
        body.extend_from_slice(raw);
    }
    Ok(Encoded { body, json_bytes })
}

fn quoted(text: &str) -> Value {
    Value::from(text)
}

fn shape_json(shape: &[i64]) -> Value {
    Value::from(shape)
}

/// In order of key, so that equal answers read equal.
fn parameters_json(parameters: &HashMap<String, InferParameter>) -> Value {
    let mut object = serde_json::Map::new();
    let mut keys: Vec<&String> = parameters.keys().collect();
    keys.sort();
    for key in keys {
        let value = match parameters[key].parameter_choice.as_ref() {
            Some(ParameterChoice::BoolParam(flag)) => Value::from(*flag),
            Some(ParameterChoice::Int64Param(number)) => Value::from(*number),
            Some(ParameterChoice::Uint64Param(number)) => Value::from(*number),
            Some(ParameterChoice::DoubleParam(number)) => Value::from(*number),
            Some(ParameterChoice::StringParam(text)) => Value::from(text.as_str()),
            None => Value::Null,
        };
        object.insert(key.clone(), value);
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use bytes::Bytes;
    use starling_proto::inference::model_infer_response::InferOutputTensor;

    use super::super::decode::decode;
    use super::*;

    fn response(datatype: &str, shape: &[i64], raw: Vec<u8>) -> ModelInferResponse {
        ModelInferResponse {
            model_name: "identity".into(),
            model_version: "1".into(),
            id: "42".into(),
            outputs: vec![InferOutputTensor {
                name: "OUTPUT0".into(),
                datatype: datatype.into(),
                shape: shape.to_vec(),
                ..InferOutputTensor::default()
            }],
            raw_output_contents: vec![raw.into()],
            ..ModelInferResponse::default()
        }
    }

    fn sixteen() -> Vec<u8> {
        (1..=16).flat_map(|value| (value as f32).to_le_bytes()).collect()
    }

    fn form(json: &str) -> OutputForm {
        decode(&Bytes::copy_from_slice(json.as_bytes()), None).unwrap().form
    }

    #[test]
    fn json_answers_are_those_of_triton() {
        let encoded = encode(&response("FP32", &[1, 16], sixteen()), &OutputForm::default()).unwrap();
        let expected = r#"{"id":"42","model_name":"identity","model_version":"1","outputs":[{"name":"OUTPUT0","datatype":"FP32","shape":[1,16],"data":[1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.0,9.0,10.0,11.0,12.0,13.0,14.0,15.0,16.0]}]}"#;
        assert_eq!(String::from_utf8(encoded.body).unwrap(), expected);
        assert_eq!(encoded.json_bytes, None);
    }

    #[test]
    fn binary_answers_are_those_of_triton() {
        let form = form(r#"{"inputs":[],"parameters":{"binary_data_output":true}}"#);
        let encoded = encode(&response("FP32", &[1, 16], sixteen()), &form).unwrap();
        assert_eq!(encoded.json_bytes, Some(156));
        assert_eq!(encoded.body.len(), 220);
        let expected = r#"{"id":"42","model_name":"identity","model_version":"1","outputs":[{"name":"OUTPUT0","datatype":"FP32","shape":[1,16],"parameters":{"binary_data_size":64}}]}"#;
        assert_eq!(&encoded.body[..156], expected.as_bytes());
        assert_eq!(&encoded.body[156..], sixteen());
    }

    #[test]
    fn each_output_comes_in_the_form_that_it_was_asked_for() {
        let form = form(
            r#"{"inputs":[],"parameters":{"binary_data_output":true},
                "outputs":[{"name":"OUTPUT0","parameters":{"binary_data":false}}]}"#,
        );
        let encoded = encode(&response("UINT8", &[1], vec![7]), &form).unwrap();
        assert!(String::from_utf8(encoded.body).unwrap().contains(r#""data":[7]"#));
        assert_eq!(encoded.json_bytes, None);
    }

    #[test]
    fn a_type_without_json_form_is_refused_by_name() {
        let error = encode(&response("FP16", &[1], vec![0, 0]), &OutputForm::default()).unwrap_err();
        assert!(error.contains("output 'OUTPUT0'") && error.contains("binary_data"), "{error}");
    }

    #[test]
    fn parameters_of_an_answer_are_json_values() {
        let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
        let mut response = response("UINT8", &[1], vec![7]);
        response.parameters.insert("starling_sticky".into(), parameter(ParameterChoice::BoolParam(true)));
        response.parameters.insert("starling_epoch".into(), parameter(ParameterChoice::Int64Param(9)));
        let body = String::from_utf8(encode(&response, &OutputForm::default()).unwrap().body).unwrap();
        assert!(body.contains(r#""parameters":{"starling_epoch":9,"starling_sticky":true}"#), "{body}");
    }
}
