//! `starling model golden`: asks once and writes down what came, as a sample
//! that later versions are held against.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use starling_proto::inference::{ModelInferRequest, ModelInferResponse, ModelMetadataRequest};

use super::connection::inference;
use super::predict::{build_request, read_json};
use super::{CliError, input_tensors, output};

/// What to ask.
#[derive(Debug, Args)]
// `--version` names the model's version here.
#[command(
    disable_version_flag = true,
    after_help = "Example: starling model golden digits --input seven.json > golden/seven.json"
)]
pub struct GoldenArgs {
    /// The model
    model: String,
    /// A JSON file, as `starling predict` takes it; - reads standard input
    #[arg(short, long, value_name = "FILE")]
    input: PathBuf,
    /// This version (label or ordinal) instead of what the route chooses
    #[arg(long, default_value = "", hide_default_value = true)]
    version: String,
    /// Allowed difference, as a part of each expected number
    #[arg(long, default_value_t = 1e-5)]
    rtol: f64,
    /// Allowed difference besides
    #[arg(long, default_value_t = 0.0)]
    atol: f64,
}

/// Asks, and prints the sample.
pub async fn run(server: &str, args: GoldenArgs) -> Result<(), CliError> {
    let document = read_json(&args.input)?;
    let mut client = inference(server).await?;
    let metadata = ModelMetadataRequest { name: args.model.clone(), version: args.version.clone() };
    let metadata = client.model_metadata(metadata).await?.into_inner();
    let request = build_request(&args.model, &args.version, document, &metadata)
        .map_err(|reason| CliError::Local(format!("{}: {reason}", args.input.display())))?;
    let response = client.model_infer(request.clone()).await?.into_inner();
    let sample = sample(&request, &response, args.rtol, args.atol).map_err(CliError::No)?;
    output::print_line(&format!("{sample:#}"))
}

fn sample(
    request: &ModelInferRequest,
    response: &ModelInferResponse,
    rtol: f64,
    atol: f64,
) -> Result<Value, String> {
    let mut inputs = Vec::with_capacity(request.inputs.len());
    for (input, raw) in request.inputs.iter().zip(&request.raw_input_contents) {
        inputs.push(tensor(&input.name, &input.datatype, &input.shape, raw)?);
    }
    let mut outputs = Vec::with_capacity(response.outputs.len());
    for (output, raw) in response.outputs.iter().zip(&response.raw_output_contents) {
        outputs.push(tensor(&output.name, &output.datatype, &output.shape, raw)?);
    }
    Ok(
        json!({ "request": { "inputs": inputs }, "response": { "outputs": outputs }, "rtol": rtol, "atol": atol }),
    )
}

fn tensor(name: &str, datatype: &str, shape: &[i64], raw: &[u8]) -> Result<Value, String> {
    let data = input_tensors::to_json(raw, datatype, shape)
        .map_err(|reason| format!("tensor '{name}': {reason}"))?;
    if holds_replaced_text(&data) {
        return Err(format!("tensor '{name}' holds bytes that are no UTF-8, which JSON cannot say"));
    }
    Ok(json!({ "name": name, "datatype": datatype, "shape": shape, "data": data }))
}

fn holds_replaced_text(data: &Value) -> bool {
    match data {
        Value::Array(values) => values.iter().any(holds_replaced_text),
        Value::String(text) => text.contains(char::REPLACEMENT_CHARACTER),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_tensor_is_written_with_its_shape_and_type() {
        let raw: Vec<u8> = [1_f32, 2.5].iter().flat_map(|value| value.to_le_bytes()).collect();
        let written = tensor("y", "FP32", &[1, 2], &raw).unwrap();
        assert_eq!(
            written,
            json!({ "name": "y", "datatype": "FP32", "shape": [1, 2], "data": [[1.0, 2.5]] })
        );
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        let refused = tensor("label", "BYTES", &[1], b"\x01\0\0\0\xff").unwrap_err();
        assert_eq!(refused, "tensor 'label' holds bytes that are no UTF-8, which JSON cannot say");
    }
}
