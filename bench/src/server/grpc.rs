//! The questions over gRPC.

use starling_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use starling_proto::inference::{
    ModelMetadataRequest, ModelReadyRequest, ModelStatisticsRequest, StatisticDuration,
};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::{ServedModel, Signature, Spent, Statistics, TensorSpec};
use crate::BenchError;

const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

async fn client(model: &ServedModel) -> Result<GrpcInferenceServiceClient<Channel>, BenchError> {
    let endpoint = Endpoint::from_shared(format!("http://{}", model.server))
        .map_err(|_| BenchError::Address(model.server.clone()))?
        .connect_timeout(CONNECT_TIMEOUT);
    let channel = endpoint.connect().await.map_err(|error| model.unreachable(innermost(&error)))?;
    Ok(GrpcInferenceServiceClient::new(channel))
}

fn refusal(model: &ServedModel, status: &Status) -> BenchError {
    // A connection that broke comes as a status with a source; a server's never has one.
    if std::error::Error::source(status).is_some() {
        return model.unreachable(innermost(status));
    }
    // tonic's words for bytes that are no gRPC, such as a page of an HTTP server.
    if status.message().contains("invalid compression flag") {
        return BenchError::Protocol {
            server: model.server.clone(),
            protocol: "gRPC",
            reason: status.message().to_owned(),
        };
    }
    BenchError::Refused { code: status.code(), message: status.message().to_owned() }
}

/// tonic wraps the operating system's words several times.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

pub(super) async fn signature(model: &ServedModel) -> Result<Signature, BenchError> {
    let mut client = client(model).await?;
    let (name, version) = (model.model.clone(), model.version.clone());
    let request = ModelMetadataRequest { name: name.clone(), version: version.clone() };
    let metadata = client.model_metadata(request).await.map_err(|status| refusal(model, &status))?;
    let ready = client.model_ready(ModelReadyRequest { name: name.clone(), version: version.clone() }).await;
    if !ready.map_err(|status| refusal(model, &status))?.into_inner().ready {
        return Err(model.not_ready());
    }
    let inputs = metadata.into_inner().inputs.into_iter().map(|input| TensorSpec {
        name: input.name,
        datatype: input.datatype,
        shape: input.shape,
    });
    Ok(Signature { model: name, version, inputs: inputs.collect() })
}

pub(super) async fn statistics(model: &ServedModel) -> Result<Statistics, BenchError> {
    let mut client = client(model).await?;
    let request = ModelStatisticsRequest { name: model.model.clone(), version: model.version.clone() };
    let answer = client.model_statistics(request).await.map_err(|status| refusal(model, &status))?;
    let mut sum = Statistics::default();
    for of_version in answer.into_inner().model_stats {
        sum.executions += of_version.execution_count;
        sum.inferences += of_version.inference_count;
        let times = of_version.inference_stats.unwrap_or_default();
        sum.success = add(sum.success, times.success);
        sum.queue = add(sum.queue, times.queue);
        sum.input = add(sum.input, times.compute_input);
        sum.infer = add(sum.infer, times.compute_infer);
        sum.output = add(sum.output, times.compute_output);
    }
    Ok(sum)
}

fn add(sum: Spent, more: Option<StatisticDuration>) -> Spent {
    let more = more.unwrap_or_default();
    Spent { count: sum.count + more.count, nanos: sum.nanos + more.ns }
}
