//! What is known of models: metadata, configuration, statistics, readiness, in
//! the JSON that clients of Triton and KServe read.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};
use starling_actors::inference::{InferError, Inference};
use starling_proto::inference::model_config::SchedulingChoice;
use starling_proto::inference::model_metadata_response::TensorMetadata;
use starling_proto::inference::{
    DataType, InferStatistics, ModelConfig, ModelStatistics, ModelStatisticsResponse, StatisticDuration,
    model_input, model_instance_group,
};

use super::error::RestError;
use super::json_response;
use super::target::Target;
use crate::servers::Node;

pub(super) async fn list(State(node): State<Arc<Node>>) -> Result<Response, RestError> {
    let state = node.running()?.consensus.applied().state;
    let models: Vec<&str> = state.models.iter().map(|model| model.name.as_str()).collect();
    Ok(json_response(StatusCode::OK, &json!({ "models": models })))
}

pub(super) async fn metadata(State(node): State<Arc<Node>>, target: Target) -> Result<Response, RestError> {
    let metadata = inference(&node)?.model_metadata(&target.model, &target.version)?;
    let tensors = |tensors: &[TensorMetadata]| -> Vec<Value> {
        tensors
            .iter()
            .map(|tensor| json!({ "name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape }))
            .collect()
    };
    let body = json!({
        "name": metadata.name,
        "versions": metadata.versions,
        "platform": metadata.platform,
        "inputs": tensors(&metadata.inputs),
        "outputs": tensors(&metadata.outputs),
        "properties": metadata.properties,
    });
    Ok(json_response(StatusCode::OK, &body))
}

pub(super) async fn ready(State(node): State<Arc<Node>>, target: Target) -> Result<Response, RestError> {
    let (status, ready) = match inference(&node)?.model_ready(&target.model, &target.version) {
        Ok(true) => (StatusCode::OK, true),
        Ok(false) => (StatusCode::SERVICE_UNAVAILABLE, false),
        Err(InferError::NotFound(text)) => return Err(RestError::new(StatusCode::NOT_FOUND, text)),
        Err(error) => return Err(error.into()),
    };
    if !ready {
        return Err(RestError::new(status, format!("model '{}' is not ready on this node", target.model)));
    }
    Ok(json_response(status, &json!({ "name": target.model, "ready": true })))
}

pub(super) async fn config(State(node): State<Arc<Node>>, target: Target) -> Result<Response, RestError> {
    let config = inference(&node)?.model_config(&target.model, &target.version)?.config.unwrap_or_default();
    Ok(json_response(StatusCode::OK, &config_json(&config)))
}

pub(super) async fn statistics(State(node): State<Arc<Node>>, target: Target) -> Result<Response, RestError> {
    let statistics = inference(&node)?.model_statistics(&target.model, &target.version)?;
    Ok(json_response(StatusCode::OK, &statistics_json(&statistics)))
}

pub(super) async fn all_statistics(State(node): State<Arc<Node>>) -> Result<Response, RestError> {
    let statistics = inference(&node)?.model_statistics("", "")?;
    Ok(json_response(StatusCode::OK, &statistics_json(&statistics)))
}

fn inference(node: &Node) -> Result<&Inference, RestError> {
    Ok(&node.running()?.inference)
}

/// perf_analyzer reads these keys without looking whether they are there.
fn statistics_json(statistics: &ModelStatisticsResponse) -> Value {
    let models: Vec<Value> = statistics.model_stats.iter().map(model_statistics_json).collect();
    json!({ "model_stats": models })
}

fn model_statistics_json(model: &ModelStatistics) -> Value {
    let batches: Vec<Value> = model
        .batch_stats
        .iter()
        .map(|batch| {
            json!({
                "batch_size": batch.batch_size,
                "compute_input": duration_json(batch.compute_input.as_ref()),
                "compute_infer": duration_json(batch.compute_infer.as_ref()),
                "compute_output": duration_json(batch.compute_output.as_ref()),
            })
        })
        .collect();
    let nothing = InferStatistics::default();
    let inference = model.inference_stats.as_ref().unwrap_or(&nothing);
    json!({
        "name": model.name,
        "version": model.version,
        "last_inference": model.last_inference,
        "inference_count": model.inference_count,
        "execution_count": model.execution_count,
        "inference_stats": {
            "success": duration_json(inference.success.as_ref()),
            "fail": duration_json(inference.fail.as_ref()),
            "queue": duration_json(inference.queue.as_ref()),
            "compute_input": duration_json(inference.compute_input.as_ref()),
            "compute_infer": duration_json(inference.compute_infer.as_ref()),
            "compute_output": duration_json(inference.compute_output.as_ref()),
            "cache_hit": duration_json(inference.cache_hit.as_ref()),
            "cache_miss": duration_json(inference.cache_miss.as_ref()),
        },
        "response_stats": {},
        "batch_stats": batches,
        "memory_usage": [],
    })
}

fn duration_json(duration: Option<&StatisticDuration>) -> Value {
    let (count, ns) = duration.map_or((0, 0), |duration| (duration.count, duration.ns));
    json!({ "count": count, "ns": ns })
}

fn config_json(config: &ModelConfig) -> Value {
    let inputs: Vec<Value> = config
        .input
        .iter()
        .map(|input| {
            json!({
                "name": input.name,
                "data_type": data_type_name(input.data_type),
                "format": model_input::Format::try_from(input.format).unwrap_or_default().as_str_name(),
                "dims": input.dims,
                "is_shape_tensor": input.is_shape_tensor,
                "allow_ragged_batch": input.allow_ragged_batch,
                "optional": input.optional,
                "is_non_linear_format_io": false,
            })
        })
        .collect();
    let outputs: Vec<Value> = config
        .output
        .iter()
        .map(|output| {
            json!({
                "name": output.name,
                "data_type": data_type_name(output.data_type),
                "dims": output.dims,
                "label_filename": output.label_filename,
                "is_shape_tensor": output.is_shape_tensor,
                "is_non_linear_format_io": false,
            })
        })
        .collect();
    let instances: Vec<Value> = config
        .instance_group
        .iter()
        .map(|group| {
            json!({
                "name": group.name,
                "kind": model_instance_group::Kind::try_from(group.kind).unwrap_or_default().as_str_name(),
                "count": group.count,
                "gpus": group.gpus,
            })
        })
        .collect();
    let parameters: Map<String, Value> = config
        .parameters
        .iter()
        .map(|(key, parameter)| (key.clone(), json!({ "string_value": parameter.string_value })))
        .collect();
    let mut body = json!({
        "name": config.name,
        "platform": config.platform,
        "backend": config.backend,
        "runtime": "",
        "version_policy": { "all": {} },
        "max_batch_size": config.max_batch_size,
        "input": inputs,
        "output": outputs,
        "batch_input": [],
        "batch_output": [],
        "instance_group": instances,
        "default_model_filename": config.default_model_filename,
        "cc_model_filenames": {},
        "metric_tags": {},
        "parameters": parameters,
        "model_warmup": [],
    });
    if let Some(SchedulingChoice::DynamicBatching(batching)) = &config.scheduling_choice {
        body["dynamic_batching"] = json!({
            "preferred_batch_size": batching.preferred_batch_size,
            "max_queue_delay_microseconds": batching.max_queue_delay_microseconds,
            "preserve_ordering": batching.preserve_ordering,
            "priority_levels": batching.priority_levels,
            "default_priority_level": batching.default_priority_level,
        });
    }
    if let Some(policy) = &config.model_transaction_policy {
        body["model_transaction_policy"] = json!({ "decoupled": policy.decoupled });
    }
    body
}

fn data_type_name(number: i32) -> &'static str {
    DataType::try_from(number).unwrap_or_default().as_str_name()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use starling_proto::inference::{ModelDynamicBatching, ModelInput};

    use super::*;

    #[test]
    fn statistics_have_every_key_that_perf_analyzer_reads() {
        let statistics = ModelStatisticsResponse {
            model_stats: vec![ModelStatistics {
                name: "m".into(),
                version: "1".into(),
                inference_count: 3,
                ..ModelStatistics::default()
            }],
        };
        let json = statistics_json(&statistics);
        let model = &json["model_stats"][0];
        assert_eq!((&model["version"], &model["inference_count"]), (&json!("1"), &json!(3)));
        for key in [
            "success",
            "fail",
            "queue",
            "compute_input",
            "compute_infer",
            "compute_output",
            "cache_hit",
            "cache_miss",
        ] {
            assert_eq!(model["inference_stats"][key], json!({ "count": 0, "ns": 0 }), "{key}");
        }
    }

    #[test]
    fn a_configuration_speaks_triton_names() {
        let config = ModelConfig {
            name: "m".into(),
            max_batch_size: 8,
            input: vec![ModelInput {
                name: "x".into(),
                data_type: DataType::TypeFp32 as i32,
                dims: vec![16],
                ..ModelInput::default()
            }],
            scheduling_choice: Some(SchedulingChoice::DynamicBatching(ModelDynamicBatching::default())),
            ..ModelConfig::default()
        };
        let json = config_json(&config);
        assert_eq!(json["input"][0]["data_type"], "TYPE_FP32");
        assert_eq!(json["input"][0]["format"], "FORMAT_NONE");
        assert_eq!(json["max_batch_size"], 8);
        assert!(json["dynamic_batching"].is_object());
    }
}
