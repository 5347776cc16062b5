//! An inference as an HTTP/1.1 request: JSON numbers, or the binary tensor
//! extension.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use starling_proto::inference::ModelInferRequest;

use super::{PreparedRequest, head};
use crate::BenchError;

const HEADER_LENGTH: &str = "inference-header-content-length";

/// Tensors as JSON.
pub(super) fn prepare_json(server: &str, request: &ModelInferRequest) -> Result<PreparedRequest, BenchError> {
    let mut inputs = Vec::new();
    for (input, raw) in request.inputs.iter().zip(&request.raw_input_contents) {
        let data = json_data(&input.datatype, raw)
            .map_err(|reason| BenchError::Asked(format!("input '{}': {reason}", input.name)))?;
        inputs.push(json!({
            "name": input.name,
            "datatype": input.datatype,
            "shape": input.shape,
            "data": data,
        }));
    }
    let body = Bytes::from(json!({ "inputs": inputs }).to_string());
    let builder = post(server, request).header("content-type", "application/json");
    Ok(PreparedRequest { head: head(builder)?, body })
}

/// A JSON header, then the tensors' bytes; the answer is asked for in the same form.
pub(super) fn prepare_binary(
    server: &str,
    request: &ModelInferRequest,
) -> Result<PreparedRequest, BenchError> {
    let described = request.inputs.iter().zip(&request.raw_input_contents).map(|(input, raw)| {
        json!({
            "name": input.name,
            "datatype": input.datatype,
            "shape": input.shape,
            "parameters": { "binary_data_size": raw.len() },
        })
    });
    let inputs: Vec<Value> = described.collect();
    let mut body =
        json!({ "inputs": inputs, "parameters": { "binary_data_output": true } }).to_string().into_bytes();
    let header_bytes = body.len();
    for raw in &request.raw_input_contents {
        body.extend_from_slice(raw);
    }
    let builder = post(server, request)
        .header("content-type", "application/octet-stream")
        .header(HEADER_LENGTH, header_bytes);
    Ok(PreparedRequest { head: head(builder)?, body: body.into() })
}

fn post(server: &str, request: &ModelInferRequest) -> http::request::Builder {
    let model = &request.model_name;
    let path = match request.model_version.as_str() {
        "" => format!("/v2/models/{model}/infer"),
        version => format!("/v2/models/{model}/versions/{version}/infer"),
    };
    http::Request::builder().method(Method::POST).uri(path).header("host", server)
}

fn json_data(datatype: &str, raw: &[u8]) -> Result<Vec<Value>, String> {
    macro_rules! numbers {
        ($number:ty) => {{
            let (elements, _) = raw.as_chunks::<{ size_of::<$number>() }>();
            elements.iter().map(|element| json!(<$number>::from_le_bytes(*element))).collect()
        }};
    }
    Ok(match datatype {
        "BOOL" => raw.iter().map(|element| json!(*element != 0)).collect(),
        "UINT8" => raw.iter().map(|element| json!(element)).collect(),
        "INT8" => raw.iter().map(|element| json!(element.cast_signed())).collect(),
        "UINT16" => numbers!(u16),
        "UINT32" => numbers!(u32),
        "UINT64" => numbers!(u64),
        "INT16" => numbers!(i16),
        "INT32" => numbers!(i32),
        "INT64" => numbers!(i64),
        "FP32" => numbers!(f32),
        "FP64" => numbers!(f64),
        "BYTES" => texts(raw)?,
        other => return Err(format!("{other} has no JSON form; use gRPC or rest-binary")),
    })
}

/// Four bytes of length before each.
fn texts(mut raw: &[u8]) -> Result<Vec<Value>, String> {
    let mut texts = Vec::new();
    while !raw.is_empty() {
        let cut = || "a BYTES tensor is cut short".to_owned();
        let (length, rest) = raw.split_first_chunk::<4>().ok_or_else(cut)?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(cut)?;
        let text = std::str::from_utf8(text).map_err(|_| "bytes that are no UTF-8 have no JSON form")?;
        texts.push(json!(text));
        raw = rest;
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use starling_proto::inference::model_infer_request::InferInputTensor;

    use super::*;

    fn request() -> ModelInferRequest {
        let input = InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 2],
            ..InferInputTensor::default()
        };
        let raw: Vec<u8> = [0.5_f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        ModelInferRequest {
            model_name: "tiny".into(),
            inputs: vec![input],
            raw_input_contents: vec![raw.into()],
            ..ModelInferRequest::default()
        }
    }

    #[test]
    fn json_carries_the_numbers() {
        let prepared = prepare_json("localhost:8000", &request()).unwrap();
        let body: Value = serde_json::from_slice(&prepared.body).unwrap();
        let expected =
            json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, -2.0]}]});
        assert_eq!(body, expected);
        assert_eq!(prepared.head.uri(), "/v2/models/tiny/infer");
    }

    #[test]
    fn the_binary_form_is_a_header_of_the_stated_length_and_the_bytes() {
        let versioned = ModelInferRequest { model_version: "2".into(), ..request() };
        let prepared = prepare_binary("localhost:8000", &versioned).unwrap();
        let length: usize = prepared.head.headers()[HEADER_LENGTH].to_str().unwrap().parse().unwrap();
        let (header, tensors) = prepared.body.split_at(length);
        let header: Value = serde_json::from_slice(header).unwrap();
        assert_eq!(header["inputs"][0]["parameters"]["binary_data_size"], 8);
        assert_eq!(tensors, [0, 0, 0, 63, 0, 0, 0, 192]);
        assert_eq!(prepared.head.uri(), "/v2/models/tiny/versions/2/infer");
    }

    #[test]
    fn every_datatype_with_a_json_form_has_it() {
        let cases: [(&str, &[u8], Value); 8] = [
            ("BOOL", &[1, 0], json!([true, false])),
            ("UINT8", &[255], json!([255])),
            ("INT8", &[255], json!([-1])),
            ("UINT16", &[1, 1], json!([257])),
            ("INT16", &[255, 255], json!([-1])),
            ("INT64", &[5, 0, 0, 0, 0, 0, 0, 0], json!([5])),
            ("FP64", &[0, 0, 0, 0, 0, 0, 240, 63], json!([1.0])),
            ("BYTES", &[2, 0, 0, 0, b'h', b'i'], json!(["hi"])),
        ];
        for (datatype, raw, expected) in cases {
            assert_eq!(Value::from(json_data(datatype, raw).unwrap()), expected, "{datatype}");
        }
        assert_eq!(json_data("FP16", &[0, 0]).unwrap_err(), "FP16 has no JSON form; use gRPC or rest-binary");
    }
}
