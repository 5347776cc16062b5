//! From an answer to the body of an inference response: JSON, with binary
//! tensors behind it for the outputs that are wanted so. Pure.

use std::collections::HashMap;
use std::fmt::{Display, Write as _};

use serde::Serialize;
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_proto::inference::{InferParameter, ModelInferResponse};

use super::decode::{BINARY_DATA_SIZE, OutputForm};
use crate::tensor_json::write_json;

/// Room for the JSON of an answer with its decision and one output.
const JSON_BYTES_USUAL: usize = 640;

/// A body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Encoded {
    pub(super) body: Vec<u8>,
    /// Length of the JSON, where binary tensors follow it.
    pub(super) json_bytes: Option<usize>,
}

/// What is said of the decision, beside the answer's own parameters.
pub(super) type Decided<'a> = &'a [(&'static str, ParameterChoice)];

/// Encodes an answer whose outputs are raw. The error names the output.
pub(super) fn encode(
    response: &ModelInferResponse,
    decided: Decided<'_>,
    form: &OutputForm,
) -> Result<Encoded, String> {
    if response.raw_output_contents.len() != response.outputs.len() {
        return Err(format!(
            "the answer has {} outputs and the contents of {}",
            response.outputs.len(),
            response.raw_output_contents.len()
        ));
    }
    let outputs = || response.outputs.iter().zip(&response.raw_output_contents);
    let wanted_binary = outputs().filter(|(output, _)| form.is_binary(&output.name));
    let binary_bytes: usize = wanted_binary.map(|(_, raw)| raw.len()).sum();
    let mut json = String::with_capacity(JSON_BYTES_USUAL + binary_bytes);
    json.push('{');
    if !response.id.is_empty() {
        json.push_str("\"id\":");
        push_quoted(&response.id, &mut json);
        json.push(',');
    }
    json.push_str("\"model_name\":");
    push_quoted(&response.model_name, &mut json);
    json.push_str(",\"model_version\":");
    push_quoted(&response.model_version, &mut json);
    if !response.parameters.is_empty() || !decided.is_empty() {
        json.push_str(",\"parameters\":");
        push_parameters(&response.parameters, decided, None, &mut json);
    }
    json.push_str(",\"outputs\":[");
    let mut any_binary = false;
    for (index, (output, raw)) in outputs().enumerate() {
        json.push_str(if index > 0 { ",{\"name\":" } else { "{\"name\":" });
        push_quoted(&output.name, &mut json);
        json.push_str(",\"datatype\":");
        push_quoted(&output.datatype, &mut json);
        json.push_str(",\"shape\":");
        push_shape(&output.shape, &mut json);
        let is_binary = form.is_binary(&output.name);
        any_binary |= is_binary;
        let binary_bytes = is_binary.then_some(raw.len());
        if is_binary || !output.parameters.is_empty() {
            json.push_str(",\"parameters\":");
            push_parameters(&output.parameters, &[], binary_bytes, &mut json);
        }
        if !is_binary {
            json.push_str(",\"data\":");
            write_json(&output.datatype, raw, &mut json)
                .map_err(|error| format!("output '{}': {error}", output.name))?;
        }
        json.push('}');
    }
    json.push_str("]}");
    let json_bytes = any_binary.then_some(json.len());
    let mut body = json.into_bytes();
    for (_, raw) in outputs().filter(|(output, _)| form.is_binary(&output.name)) {
        body.extend_from_slice(raw);
    }
    Ok(Encoded { body, json_bytes })
}

fn push_quoted(text: &str, json: &mut String) {
    let plain = text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
    if !plain {
        return push_value(&text, json);
    }
    json.push('"');
    json.push_str(text);
    json.push('"');
}

/// Of what serde can always write.
fn push_value(value: &impl Serialize, json: &mut String) {
    match serde_json::to_string(value) {
        Ok(text) => json.push_str(&text),
        Err(_) => json.push_str("null"),
    }
}

fn push_shape(shape: &[i64], json: &mut String) {
    json.push('[');
    for (axis, length) in shape.iter().enumerate() {
        if axis > 0 {
            json.push(',');
        }
        push_number(*length, json);
    }
    json.push(']');
}

fn push_number(number: impl Display, json: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(json, "{number}");
}

/// In order of key, so that equal answers read equal; with the size of what follows
/// the JSON, if it does.
fn push_parameters(
    parameters: &HashMap<String, InferParameter>,
    decided: Decided<'_>,
    binary_bytes: Option<usize>,
    json: &mut String,
) {
    let own = parameters.iter().filter(|(key, _)| binary_bytes.is_none() || *key != BINARY_DATA_SIZE);
    let own = own.map(|(key, parameter)| Written::Own(key, parameter.parameter_choice.as_ref()));
    let decided = decided.iter().map(|(key, choice)| Written::Own(key, Some(choice)));
    let mut written: Vec<Written<'_>> = own.chain(decided).chain(binary_bytes.map(Written::Size)).collect();
    written.sort_unstable_by_key(Written::key);
    json.push('{');
    for (index, parameter) in written.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        push_quoted(parameter.key(), json);
        json.push(':');
        parameter.push(json);
    }
    json.push('}');
}

/// A parameter of the answer, or the size of a tensor.
enum Written<'a> {
    Own(&'a str, Option<&'a ParameterChoice>),
    Size(usize),
}

impl<'a> Written<'a> {
    fn key(&self) -> &'a str {
        match self {
            Self::Own(key, _) => key,
            Self::Size(_) => BINARY_DATA_SIZE,
        }
    }

    fn push(&self, json: &mut String) {
        let choice = match self {
            Self::Size(bytes) => return push_number(bytes, json),
            Self::Own(_, choice) => *choice,
        };
        match choice {
            Some(ParameterChoice::BoolParam(true)) => json.push_str("true"),
            Some(ParameterChoice::BoolParam(false)) => json.push_str("false"),
            Some(ParameterChoice::Int64Param(number)) => push_number(number, json),
            Some(ParameterChoice::Uint64Param(number)) => push_number(number, json),
            Some(ParameterChoice::DoubleParam(number)) => push_value(number, json),
            Some(ParameterChoice::StringParam(text)) => push_quoted(text, json),
            None => json.push_str("null"),
        }
    }
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
        let encoded = encode(&response("FP32", &[1, 16], sixteen()), &[], &OutputForm::default()).unwrap();
        let expected = r#"{"id":"42","model_name":"identity","model_version":"1","outputs":[{"name":"OUTPUT0","datatype":"FP32","shape":[1,16],"data":[1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.0,9.0,10.0,11.0,12.0,13.0,14.0,15.0,16.0]}]}"#;
        assert_eq!(String::from_utf8(encoded.body).unwrap(), expected);
        assert_eq!(encoded.json_bytes, None);
    }

    #[test]
    fn binary_answers_are_those_of_triton() {
        let form = form(r#"{"inputs":[],"parameters":{"binary_data_output":true}}"#);
        let encoded = encode(&response("FP32", &[1, 16], sixteen()), &[], &form).unwrap();
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
        let encoded = encode(&response("UINT8", &[1], vec![7]), &[], &form).unwrap();
        assert!(String::from_utf8(encoded.body).unwrap().contains(r#""data":[7]"#));
        assert_eq!(encoded.json_bytes, None);
    }

    #[test]
    fn a_type_without_json_form_is_refused_by_name() {
        let error = encode(&response("FP16", &[1], vec![0, 0]), &[], &OutputForm::default()).unwrap_err();
        assert!(error.contains("output 'OUTPUT0'") && error.contains("binary_data"), "{error}");
    }

    #[test]
    fn parameters_of_an_answer_are_json_values() {
        let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
        let mut response = response("UINT8", &[1], vec![7]);
        response.parameters.insert("starling_sticky".into(), parameter(ParameterChoice::BoolParam(true)));
        response.parameters.insert("starling_epoch".into(), parameter(ParameterChoice::Int64Param(9)));
        let decided = [("starling_node", ParameterChoice::Int64Param(1_000))];
        let encoded = encode(&response, &decided, &OutputForm::default()).unwrap();
        let body = String::from_utf8(encoded.body).unwrap();
        let expected = r#""parameters":{"starling_epoch":9,"starling_node":1000,"starling_sticky":true}"#;
        assert!(body.contains(expected), "{body}");
    }

    #[test]
    fn what_json_needs_escaped_is_and_each_kind_of_value_is_itself() {
        let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
        let mut response = response("UINT8", &[2, 1], vec![7, 8]);
        response.id = "a\"\\\n\u{1}é".into();
        response.outputs[0].parameters = [
            ("a", ParameterChoice::DoubleParam(1.0)),
            ("b", ParameterChoice::DoubleParam(f64::NAN)),
            ("c", ParameterChoice::Uint64Param(u64::MAX)),
            ("d", ParameterChoice::StringParam("x\ty".into())),
        ]
        .map(|(key, choice)| (key.to_owned(), parameter(choice)))
        .into();
        response.outputs[0].parameters.insert("e".into(), InferParameter::default());
        let form = form(r#"{"inputs":[],"parameters":{"binary_data_output":true}}"#);
        let encoded = encode(&response, &[], &form).unwrap();
        let json = encoded.json_bytes.unwrap();
        let expected = concat!(
            r#"{"id":"a\"\\\n\u0001é","model_name":"identity","model_version":"1","outputs":[{"name":"OUTPUT0","#,
            r#""datatype":"UINT8","shape":[2,1],"parameters":{"a":1.0,"b":null,"binary_data_size":2,"#,
            r#""c":18446744073709551615,"d":"x\ty","e":null}}]}"#,
        );
        assert_eq!(std::str::from_utf8(&encoded.body[..json]).unwrap(), expected);
        assert_eq!(&encoded.body[json..], [7, 8]);
    }
}
