//! `starling predict`: one prediction, from JSON to JSON.

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use serde_json::{Map, Value, json};
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_proto::inference::model_infer_request::InferInputTensor;
use starling_proto::inference::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
};
use tonic::metadata::MetadataValue;

use super::connection::inference;
use super::output::{self, OutputFormat};
use super::{CliError, input_tensors};

/// What to predict.
#[derive(Debug, Args)]
// `--version` names the model's version here.
#[command(
    disable_version_flag = true,
    after_help = "\
The input file holds the values of the only input as nested lists, or an object
with one list per input, or a request of the Open Inference Protocol.
Example: echo '[[5.1, 3.5, 1.4, 0.2]]' | starling predict iris --input -"
)]
pub struct PredictArgs {
    /// The model
    model: String,
    /// A JSON file; - reads standard input
    #[arg(short, long, value_name = "FILE")]
    input: PathBuf,
    /// This version (label or ordinal) instead of what the route chooses
    #[arg(long, default_value = "", hide_default_value = true)]
    version: String,
    /// Same key, same version: who or what the prediction is for
    #[arg(long)]
    key: Option<String>,
    /// How to show the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// Asks for the signature, then for the prediction.
pub async fn run(server: &str, args: PredictArgs) -> Result<(), CliError> {
    let document = read_json(&args.input)?;
    let mut client = inference(server).await?;
    let metadata_request = ModelMetadataRequest { name: args.model.clone(), version: args.version.clone() };
    let metadata = client.model_metadata(metadata_request).await?.into_inner();
    let request = build_request(&args.model, &args.version, document, &metadata)
        .map_err(|reason| CliError::Local(format!("{}: {reason}", args.input.display())))?;
    let mut request = tonic::Request::new(request);
    if let Some(key) = &args.key {
        let value = MetadataValue::try_from(key.as_str())
            .map_err(|_| CliError::Local("--key must be printable ASCII".into()))?;
        request.metadata_mut().insert("x-starling-key", value);
    }
    let response = client.model_infer(request).await?.into_inner();
    let shown = show(&response).map_err(CliError::No)?;
    output::print_document(args.output, &shown)
}

/// A JSON file; - is standard input.
pub(super) fn read_json(path: &Path) -> Result<Value, CliError> {
    let cannot_read =
        |error: std::io::Error| CliError::Local(format!("{} cannot be read: {error}", path.display()));
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map_err(cannot_read)?;
    } else {
        text = std::fs::read_to_string(path).map_err(cannot_read)?;
    }
    serde_json::from_str(&text)
        .map_err(|error| CliError::Local(format!("{} is not JSON: {error}", path.display())))
}

/// Makes what the user wrote fit the signature. Errors: worded for the user.
pub(super) fn build_request(
    model: &str,
    version: &str,
    document: Value,
    metadata: &ModelMetadataResponse,
) -> Result<ModelInferRequest, String> {
    let names: Vec<&str> = metadata.inputs.iter().map(|input| input.name.as_str()).collect();
    let mut inputs = Vec::new();
    let mut raw_input_contents = Vec::new();
    for (name, value) in input_tensors::by_name(document, &names)? {
        let spec = metadata.inputs.iter().find(|input| input.name == name);
        let spec =
            spec.ok_or_else(|| format!("the model has no input '{name}'; it has {}", names.join(", ")))?;
        let tensor = input_tensors::from_json(value, &spec.datatype, &spec.shape)
            .map_err(|reason| format!("input '{name}': {reason}"))?;
        inputs.push(InferInputTensor {
            name,
            datatype: spec.datatype.clone(),
            shape: tensor.shape,
            ..InferInputTensor::default()
        });
        raw_input_contents.push(Bytes::from(tensor.bytes));
    }
    Ok(ModelInferRequest {
        model_name: model.to_owned(),
        model_version: version.to_owned(),
        inputs,
        raw_input_contents,
        ..ModelInferRequest::default()
    })
}

fn show(response: &ModelInferResponse) -> Result<Value, String> {
    let mut outputs = Map::new();
    for (output, raw) in response.outputs.iter().zip(&response.raw_output_contents) {
        let value = input_tensors::to_json(raw, &output.datatype, &output.shape)
            .map_err(|reason| format!("output '{}': {reason}", output.name))?;
        outputs.insert(output.name.clone(), value);
    }
    let mut parameters: Vec<(&String, &InferParameter)> = response.parameters.iter().collect();
    parameters.sort_by_key(|(name, _)| *name);
    let parameters: Map<String, Value> =
        parameters.into_iter().map(|(name, parameter)| (name.clone(), show_parameter(parameter))).collect();
    Ok(json!({
        "model": response.model_name,
        "version": response.model_version,
        "outputs": outputs,
        "parameters": parameters,
    }))
}

fn show_parameter(parameter: &InferParameter) -> Value {
    match &parameter.parameter_choice {
        None => Value::Null,
        Some(ParameterChoice::BoolParam(value)) => json!(value),
        Some(ParameterChoice::Int64Param(value)) => json!(value),
        Some(ParameterChoice::StringParam(value)) => json!(value),
        Some(ParameterChoice::DoubleParam(value)) => json!(value),
        Some(ParameterChoice::Uint64Param(value)) => json!(value),
    }
}
