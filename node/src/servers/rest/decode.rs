//! From the body of an inference request to the message that gRPC clients send:
//! JSON, JSON followed by binary tensors, or the bytes of one tensor alone.
//! Pure; whatever comes, it answers or refuses.

use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;
use starling_proto::inference::ModelInferRequest;
use starling_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use starling_proto::inference::model_metadata_response::TensorMetadata;

use super::error::RestError;
use super::parameters_json::ParametersJson;
use crate::servers::unsupported::Unsupported;
use crate::tensor_json::TensorJson;

pub(super) const BINARY_DATA_SIZE: &str = "binary_data_size";
const BINARY_DATA: &str = "binary_data";
const SHARED_MEMORY_REGION: &str = "shared_memory_region";
const BINARY_DATA_OUTPUT: &str = "binary_data_output";

const NO_NUMBER_HINT: &str =
    " (JSON has no NaN and no Infinity; send such values as binary tensor data, binary_data_size)";

/// A request, and how its answer is wanted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Decoded {
    pub(super) request: ModelInferRequest,
    pub(super) form: OutputForm,
}

/// Which outputs are wanted as binary tensor data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct OutputForm {
    /// Of outputs that do not say.
    default_binary: bool,
    by_output: HashMap<String, bool>,
}

impl OutputForm {
    /// Whether this output is.
    pub(super) fn is_binary(&self, output: &str) -> bool {
        self.by_output.get(output).copied().unwrap_or(self.default_binary)
    }
}

#[derive(Deserialize)]
struct RequestJson {
    id: Option<String>,
    #[serde(default)]
    parameters: Option<ParametersJson>,
    inputs: Vec<InputJson>,
    #[serde(default)]
    outputs: Option<Vec<OutputJson>>,
}

#[derive(Deserialize)]
struct InputJson {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    #[serde(default)]
    parameters: Option<ParametersJson>,
    data: Option<TensorJson>,
}

#[derive(Deserialize)]
struct OutputJson {
    name: String,
    #[serde(default)]
    parameters: Option<ParametersJson>,
}

/// Decodes JSON, with binary tensors behind its first `json_bytes` if given.
/// Model name and version are left empty.
pub(super) fn decode(body: &Bytes, json_bytes: Option<usize>) -> Result<Decoded, RestError> {
    let json_end = json_bytes.unwrap_or(body.len());
    if json_end > body.len() {
        return Err(RestError::bad_request(format!(
            "Inference-Header-Content-Length is {json_end}, the body has {} bytes",
            body.len()
        )));
    }
    let json = &body[..json_end];
    let request: RequestJson = serde_json::from_slice(json).map_err(|error| {
        let hint = if names_no_number(json) { NO_NUMBER_HINT } else { "" };
        RestError::bad_request(format!("the body is not the JSON of an inference request: {error}{hint}"))
    })?;
    let mut binary = Binary { rest: body.slice(json_end..), allowed: json_bytes.is_some() };
    let mut inputs = Vec::with_capacity(request.inputs.len());
    let mut raw_input_contents = Vec::with_capacity(request.inputs.len());
    for input in request.inputs {
        let (input, raw) = decode_input(input, &mut binary)?;
        inputs.push(input);
        raw_input_contents.push(raw);
    }
    if !binary.rest.is_empty() {
        return Err(RestError::bad_request(format!(
            "{} bytes follow the last binary tensor",
            binary.rest.len()
        )));
    }
    let mut parameters = request.parameters.unwrap_or_default();
    let mut form = OutputForm {
        default_binary: parameters
            .take_flag(BINARY_DATA_OUTPUT)
            .map_err(RestError::bad_request)?
            .unwrap_or(false),
        by_output: HashMap::new(),
    };
    let mut outputs = Vec::new();
    for output in request.outputs.unwrap_or_default() {
        let mut parameters = output.parameters.unwrap_or_default();
        if let Some(binary) = parameters.take_flag(BINARY_DATA).map_err(RestError::bad_request)? {
            form.by_output.insert(output.name.clone(), binary);
        }
        let parameters = parameters.into_parameters().map_err(RestError::bad_request)?;
        outputs.push(InferRequestedOutputTensor { name: output.name, parameters });
    }
    let request = ModelInferRequest {
        id: request.id.unwrap_or_default(),
        parameters: parameters.into_parameters().map_err(RestError::bad_request)?,
        inputs,
        outputs,
        raw_input_contents,
        ..ModelInferRequest::default()
    };
    Ok(Decoded { request, form })
}

/// Whether it has what Python writes and JSON lacks.
fn names_no_number(json: &[u8]) -> bool {
    [&b"NaN"[..], b"Infinity"].iter().any(|word| json.windows(word.len()).any(|window| window == *word))
}

/// The bytes of the only input of a model, of batch size one; everything comes
/// back binary.
pub(super) fn decode_raw(body: Bytes, inputs: &[TensorMetadata]) -> Result<Decoded, RestError> {
    let [input] = inputs else {
        return Err(RestError::bad_request(format!(
            "a raw binary request needs a model with one input, this one has {}",
            inputs.len()
        )));
    };
    let (shape, contents) = raw_shape(input, body)?;
    let request = ModelInferRequest {
        inputs: vec![InferInputTensor {
            name: input.name.clone(),
            datatype: input.datatype.clone(),
            shape,
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![contents],
        ..ModelInferRequest::default()
    };
    let form = OutputForm { default_binary: true, by_output: HashMap::new() };
    Ok(Decoded { request, form })
}

/// The first dynamic axis is the batch; one more may follow from the size.
fn raw_shape(input: &TensorMetadata, body: Bytes) -> Result<(Vec<i64>, Bytes), RestError> {
    let wrong = |text: String| RestError::bad_request(format!("input '{}': {text}", input.name));
    if input.datatype == "BYTES" {
        let length = u32::try_from(body.len()).map_err(|_| wrong("is longer than 4 GiB".into()))?;
        let contents = [&length.to_le_bytes()[..], &body].concat();
        return Ok((vec![1; input.shape.len()], contents.into()));
    }
    let element_bytes =
        element_bytes(&input.datatype).ok_or_else(|| wrong(format!("has the type {}", input.datatype)))?;
    let mut shape = input.shape.clone();
    if shape.first() == Some(&-1) {
        shape[0] = 1;
    }
    let known: i64 = shape.iter().filter(|length| **length >= 0).product();
    let known_bytes = usize::try_from(known).unwrap_or(usize::MAX).saturating_mul(element_bytes);
    let open: Vec<usize> = (0..shape.len()).filter(|axis| shape[*axis] < 0).collect();
    match open[..] {
        [] if body.len() == known_bytes => {}
        [] => {
            return Err(wrong(format!(
                "shape {shape:?} has {known_bytes} bytes, the body has {}",
                body.len()
            )));
        }
        [axis] if known_bytes > 0 && body.len().is_multiple_of(known_bytes) => {
            shape[axis] = i64::try_from(body.len() / known_bytes).unwrap_or(i64::MAX);
        }
        _ => {
            return Err(wrong(format!(
                "its shape {:?} does not follow from {} bytes; send the shape as JSON",
                input.shape,
                body.len()
            )));
        }
    }
    Ok((shape, body))
}

fn element_bytes(datatype: &str) -> Option<usize> {
    match datatype {
        "BOOL" | "INT8" | "UINT8" => Some(1),
        "INT16" | "UINT16" | "FP16" | "BF16" => Some(2),
        "INT32" | "UINT32" | "FP32" => Some(4),
        "INT64" | "UINT64" | "FP64" => Some(8),
        _ => None,
    }
}

/// What follows the JSON.
struct Binary {
    rest: Bytes,
    allowed: bool,
}

fn decode_input(input: InputJson, binary: &mut Binary) -> Result<(InferInputTensor, Bytes), RestError> {
    let InputJson { name, datatype, shape, parameters, data } = input;
    let wrong = |text: String| RestError::bad_request(format!("input '{name}': {text}"));
    let mut parameters = parameters.unwrap_or_default();
    let raw = match (parameters.take_size(BINARY_DATA_SIZE).map_err(wrong)?, data) {
        (Some(_), Some(_)) => return Err(wrong("has both data and binary_data_size".into())),
        (None, None) if parameters.has(SHARED_MEMORY_REGION) => {
            return Err(Unsupported::SharedMemory.of(&format!("input '{name}'")).into());
        }
        (None, None) => return Err(wrong("has neither data nor binary_data_size".into())),
        (None, Some(data)) => Bytes::from(data.into_raw(&datatype, &shape).map_err(wrong)?),
        (Some(size), None) => {
            if !binary.allowed {
                return Err(wrong(
                    "binary_data_size needs the header Inference-Header-Content-Length".into(),
                ));
            }
            if size > binary.rest.len() {
                return Err(wrong(format!(
                    "binary_data_size is {size}, only {} bytes are left",
                    binary.rest.len()
                )));
            }
            binary.rest.split_to(size)
        }
    };
    let parameters = parameters.into_parameters().map_err(RestError::bad_request)?;
    Ok((InferInputTensor { name, datatype, shape, parameters, contents: None }, raw))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;
    use starling_proto::inference::infer_parameter::ParameterChoice;

    use super::*;

    fn decode_json(json: &str) -> Result<Decoded, RestError> {
        decode(&Bytes::copy_from_slice(json.as_bytes()), None)
    }

    #[test]
    fn a_json_request_becomes_raw_contents() {
        let decoded = decode_json(
            r#"{"id":"42","inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}],
                "parameters":{"routing_key":"u7","n":3,"f":0.5,"b":true},
                "outputs":[{"name":"y","parameters":{"binary_data":true}},{"name":"z"}]}"#,
        )
        .unwrap();
        let request = &decoded.request;
        assert_eq!((request.id.as_str(), request.inputs[0].name.as_str()), ("42", "x"));
        assert_eq!(request.raw_input_contents, vec![[1_f32.to_le_bytes(), 2_f32.to_le_bytes()].concat()]);
        assert_eq!(request.inputs[0].contents, None);
        let parameter = |key: &str| request.parameters[key].parameter_choice.clone().unwrap();
        assert_eq!(parameter("routing_key"), ParameterChoice::StringParam("u7".into()));
        assert_eq!(parameter("n"), ParameterChoice::Int64Param(3));
        assert_eq!(parameter("f"), ParameterChoice::DoubleParam(0.5));
        assert_eq!(parameter("b"), ParameterChoice::BoolParam(true));
        assert!(decoded.form.is_binary("y") && !decoded.form.is_binary("z"));
        assert!(request.outputs[0].parameters.is_empty());
    }

    #[test]
    fn keys_may_come_in_any_order() {
        let first = r#"{"inputs":[{"data":[7],"datatype":"UINT8","shape":[1],"name":"x"}]}"#;
        assert_eq!(decode_json(first).unwrap().request.raw_input_contents, vec![vec![7]]);
    }

    #[test]
    fn binary_tensors_follow_the_json_in_order() {
        let json = r#"{"inputs":[
            {"name":"a","shape":[2],"datatype":"UINT8","parameters":{"binary_data_size":2}},
            {"name":"b","shape":[1],"datatype":"UINT8","data":[9]},
            {"name":"c","shape":[1],"datatype":"INT16","parameters":{"binary_data_size":2}}],
            "parameters":{"binary_data_output":true}}"#;
        let body = Bytes::from([json.as_bytes(), &[1, 2, 3, 4]].concat());
        let decoded = decode(&body, Some(json.len())).unwrap();
        assert_eq!(decoded.request.raw_input_contents, vec![vec![1, 2], vec![9], vec![3, 4]]);
        assert!(decoded.request.inputs[0].parameters.is_empty());
        assert!(decoded.request.parameters.is_empty());
        assert!(decoded.form.is_binary("anything"));
        let short = body.slice(..body.len() - 1);
        assert!(decode(&short, Some(json.len())).unwrap_err().text().contains("input 'c'"));
        let long = Bytes::from([&body[..], &[5]].concat());
        assert_eq!(
            decode(&long, Some(json.len())).unwrap_err().text(),
            "1 bytes follow the last binary tensor"
        );
        assert!(decode(&body, Some(body.len() + 1)).unwrap_err().text().contains("Inference-Header"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let input =
            |rest: &str| format!(r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"UINT8"{rest}}}]}}"#);
        let cases = [
            (r#"{"inputs":["#.to_owned(), "not the JSON of an inference request"),
            ("{}".to_owned(), "missing field `inputs`"),
            (
                r#"{"inputs":[{"shape":[1],"datatype":"UINT8","data":[1]}]}"#.to_owned(),
                "missing field `name`",
            ),
            (input(""), "input 'x': has neither data nor binary_data_size"),
            (input(r#","data":[1],"parameters":{"binary_data_size":1}"#), "input 'x': has both"),
            (input(r#","parameters":{"binary_data_size":1}"#), "needs the header"),
            (input(r#","data":[1,2]"#), "input 'x': shape [1] has 1 elements, data has 2"),
            (
                input(r#","parameters":{"shared_memory_region":"r"}"#),
                "input 'x': shared memory is not supported",
            ),
            (input(r#","data":[NaN]"#), "JSON has no NaN and no Infinity"),
            (r#"{"inputs":[],"parameters":{"k":[1]}}"#.to_owned(), "parameter 'k'"),
            (r#"{"inputs":[],"parameters":{"binary_data_output":1}}"#.to_owned(), "binary_data_output"),
        ];
        for (json, expected) in cases {
            let error = decode_json(&json).unwrap_err();
            assert!(error.text().contains(expected), "{json} gave {}", error.text());
        }
    }

    fn metadata(datatype: &str, shape: &[i64]) -> TensorMetadata {
        TensorMetadata { name: "x".into(), datatype: datatype.into(), shape: shape.to_vec() }
    }

    #[test]
    fn a_raw_request_takes_its_shape_from_the_model() {
        let one = decode_raw(Bytes::from(vec![0; 8]), &[metadata("FP32", &[-1, 2])]).unwrap();
        assert_eq!(one.request.inputs[0].shape, [1, 2]);
        assert!(one.form.is_binary("y"));
        let open = decode_raw(Bytes::from(vec![0; 12]), &[metadata("FP32", &[-1, -1])]).unwrap();
        assert_eq!(open.request.inputs[0].shape, [1, 3]);
        let text = decode_raw(Bytes::from("ab"), &[metadata("BYTES", &[-1])]).unwrap();
        assert_eq!(text.request.raw_input_contents, vec![vec![2, 0, 0, 0, b'a', b'b']]);
        assert!(decode_raw(Bytes::from(vec![0; 7]), &[metadata("FP32", &[-1, 2])]).is_err());
        assert!(decode_raw(Bytes::new(), &[]).is_err());
    }

    const GOOD: &str = r#"{"id":"42","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2.5],[3,4]]},
        {"name":"t","shape":[1],"datatype":"BYTES","data":["a"],"parameters":{"binary_data_size":3}}],
        "parameters":{"routing_key":"u7","n":18446744073709551615,"f":0.5},"outputs":[{"name":"y"}]}"#;

    proptest! {
        #[test]
        fn json_with_bytes_changed_is_answered_or_refused(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            from in any::<prop::sample::Index>(),
            bytes in 0..40_usize,
        ) {
            let mut body = GOOD.as_bytes().to_vec();
            let from = from.index(body.len());
            let cut = from..(from + bytes).min(body.len());
            // Also what a client repeats: brackets, digits, quotes.
            let repeated = body[cut.clone()].repeat(3);
            body.splice(cut, repeated);
            for (place, value) in changes {
                let place = place.index(body.len());
                body[place] = value;
            }
            let _ = decode(&Bytes::from(body), None);
        }

        #[test]
        fn whatever_comes_is_answered_or_refused(body: Vec<u8>, json_bytes: Option<u8>) {
            let _ = decode(&Bytes::from(body), json_bytes.map(usize::from));
        }

        #[test]
        fn binary_tails_of_any_length_are_answered_or_refused(
            tail in proptest::collection::vec(any::<u8>(), 0..64),
            sizes in proptest::collection::vec(any::<i64>(), 0..4),
            shift in -3_i64..3,
        ) {
            let inputs: Vec<String> = sizes.iter().map(|size| format!(
                r#"{{"name":"x","shape":[{size}],"datatype":"UINT8","parameters":{{"binary_data_size":{}}}}}"#,
                size % 70,
            )).collect();
            let json = format!(r#"{{"inputs":[{}]}}"#, inputs.join(","));
            let json_bytes = usize::try_from(json.len() as i64 + shift).unwrap_or(0);
            let body = Bytes::from([json.as_bytes(), &tail].concat());
            if let Ok(decoded) = decode(&body, Some(json_bytes)) {
                let total: usize = decoded.request.raw_input_contents.iter().map(Bytes::len).sum();
                prop_assert_eq!(total + json_bytes, body.len());
            }
        }

        #[test]
        fn raw_bodies_of_any_size_are_answered_or_refused(
            body: Vec<u8>,
            shape in proptest::collection::vec(-2_i64..5, 0..4),
        ) {
            for datatype in ["FP32", "BYTES", "UINT8", "FP8"] {
                let _ = decode_raw(Bytes::from(body.clone()), &[metadata(datatype, &shape)]);
            }
        }
    }
}
