//! The questions over REST.

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tonic::Code;

use super::{ServedModel, Signature, Spent, Statistics, TensorSpec};
use crate::BenchError;

const ANSWER_BYTES_MAX: usize = 16 << 20;

#[derive(Deserialize)]
struct Metadata {
    inputs: Vec<Input>,
}

#[derive(Deserialize)]
struct Input {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: String,
}

#[derive(Deserialize)]
struct StatisticsBody {
    model_stats: Vec<OfVersion>,
}

#[derive(Deserialize)]
struct OfVersion {
    #[serde(default)]
    inference_count: u64,
    #[serde(default)]
    execution_count: u64,
    #[serde(default)]
    inference_stats: Times,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Times {
    success: Time,
    queue: Time,
    compute_input: Time,
    compute_infer: Time,
    compute_output: Time,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Time {
    count: u64,
    ns: u64,
}

pub(super) async fn signature(model: &ServedModel) -> Result<Signature, BenchError> {
    let (status, body) = get(model, "").await?;
    if !status.is_success() {
        return Err(refusal(status, &body));
    }
    let metadata: Metadata = parse(model, &body)?;
    let (ready, _) = get(model, "/ready").await?;
    if !ready.is_success() {
        return Err(model.not_ready());
    }
    let inputs = metadata.inputs.into_iter().map(|input| TensorSpec {
        name: input.name,
        datatype: input.datatype,
        shape: input.shape,
    });
    Ok(Signature { model: model.model.clone(), version: model.version.clone(), inputs: inputs.collect() })
}

pub(super) async fn statistics(model: &ServedModel) -> Result<Statistics, BenchError> {
    let (status, body) = get(model, "/stats").await?;
    if !status.is_success() {
        return Err(refusal(status, &body));
    }
    let parsed: StatisticsBody = parse(model, &body)?;
    let mut sum = Statistics::default();
    for of_version in parsed.model_stats {
        sum.executions += of_version.execution_count;
        sum.inferences += of_version.inference_count;
        let times = of_version.inference_stats;
        sum.success = add(sum.success, &times.success);
        sum.queue = add(sum.queue, &times.queue);
        sum.input = add(sum.input, &times.compute_input);
        sum.infer = add(sum.infer, &times.compute_infer);
        sum.output = add(sum.output, &times.compute_output);
    }
    Ok(sum)
}

fn add(sum: Spent, more: &Time) -> Spent {
    Spent { count: sum.count + more.count, nanos: sum.nanos + more.ns }
}

async fn get(model: &ServedModel, suffix: &str) -> Result<(StatusCode, Bytes), BenchError> {
    let version = match model.version.as_str() {
        "" => String::new(),
        version => format!("/versions/{version}"),
    };
    let path = format!("/v2/models/{}{version}{suffix}", model.model);
    let request = http::Request::get(path)
        .header("host", &model.server)
        .body(Empty::<Bytes>::new())
        .map_err(|error| BenchError::Asked(format!("'{}' is no model's name: {error}", model.model)))?;
    let stream = TcpStream::connect(&model.server).await.map_err(|error| model.unreachable(error))?;
    let not_http = |error: hyper::Error| BenchError::Protocol {
        server: model.server.clone(),
        protocol: "REST",
        reason: error.to_string(),
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(not_http)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(not_http)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|error| model.unreachable(error))?.to_bytes()))
    };
    // The connection does the work of the exchange. Where it ends first, its error
    // says more than that of the exchange, which was only cut short.
    tokio::pin!(exchange);
    tokio::select! {
        outcome = &mut exchange => outcome,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(not_http(error)),
        },
    }
}

fn parse<T: serde::de::DeserializeOwned>(model: &ServedModel, body: &[u8]) -> Result<T, BenchError> {
    serde_json::from_slice(body).map_err(|error| BenchError::Protocol {
        server: model.server.clone(),
        protocol: "REST",
        reason: error.to_string(),
    })
}

fn refusal(status: StatusCode, body: &[u8]) -> BenchError {
    let code = match status {
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::BAD_REQUEST => Code::InvalidArgument,
        StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
        _ => Code::Unknown,
    };
    let message = serde_json::from_slice::<ErrorBody>(body)
        .map_or_else(|_| format!("the server answered {status}"), |body| body.error);
    BenchError::Refused { code, message }
}
