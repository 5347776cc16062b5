//! A closed-loop load generator: each client has a connection of its own and
//! sends its next request when the last is answered.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use starling_proto::inference::ModelInferRequest;
use starling_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use starling_proto::inference::model_infer_request::InferInputTensor;
use tonic::transport::{Channel, Endpoint};

const WORKERS: usize = 2;
const LATENCY_NANOS_MAX: u64 = 60_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// What to send, where, for how long.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// HOST:GRPC_PORT
    #[arg(long)]
    pub server: String,
    /// The model's name
    #[arg(long)]
    pub model: String,
    /// The input's name
    #[arg(long)]
    pub input: String,
    /// FP32 values per row
    #[arg(long)]
    pub columns: usize,
    /// Clients at once
    #[arg(long)]
    pub clients: usize,
    /// Not measured
    #[arg(long)]
    pub warm_up_seconds: f64,
    /// Measured
    #[arg(long)]
    pub seconds: f64,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadReport {
    /// Answered requests per second.
    pub requests_per_second: f64,
    /// Median latency.
    pub p50_us: f64,
    /// 99th percentile of latency.
    pub p99_us: f64,
}

/// Prints the report as JSON. Any failed request fails the run.
pub fn run(args: &LoadArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let report = runtime.block_on(measure(args))?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

async fn measure(args: &LoadArgs) -> anyhow::Result<LoadReport> {
    let begin = Instant::now() + Duration::from_secs_f64(args.warm_up_seconds);
    let end = begin + Duration::from_secs_f64(args.seconds);
    let mut clients = Vec::with_capacity(args.clients);
    for _ in 0..args.clients {
        let endpoint = Endpoint::from_shared(format!("http://{}", args.server))?.tcp_nodelay(true);
        let client = GrpcInferenceServiceClient::new(endpoint.connect().await.context("connect")?);
        clients.push(tokio::spawn(client_loop(client, request(args), begin, end)));
    }
    let mut latencies = empty_histogram()?;
    for client in clients {
        latencies.add(client.await??)?;
    }
    if latencies.is_empty() {
        bail!("no request was answered within {} s", args.seconds);
    }
    let micros = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1_000.0;
    Ok(LoadReport {
        requests_per_second: latencies.len() as f64 / args.seconds,
        p50_us: micros(0.50),
        p99_us: micros(0.99),
    })
}

async fn client_loop(
    mut client: GrpcInferenceServiceClient<Channel>,
    request: ModelInferRequest,
    begin: Instant,
    end: Instant,
) -> anyhow::Result<Histogram<u64>> {
    let mut latencies = empty_histogram()?;
    loop {
        let sent = Instant::now();
        if sent >= end {
            return Ok(latencies);
        }
        client.model_infer(request.clone()).await?;
        let answered = Instant::now();
        if sent >= begin && answered <= end {
            let nanos = u64::try_from((answered - sent).as_nanos()).unwrap_or(LATENCY_NANOS_MAX);
            latencies.saturating_record(nanos);
        }
    }
}

fn empty_histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(LATENCY_NANOS_MAX, SIGNIFICANT_DIGITS)?)
}

fn request(args: &LoadArgs) -> ModelInferRequest {
    let row: Vec<u8> = (0..args.columns).flat_map(|column| (column as f32 * 0.25).to_le_bytes()).collect();
    let input = InferInputTensor {
        name: args.input.clone(),
        datatype: "FP32".into(),
        shape: vec![1, args.columns as i64],
        ..InferInputTensor::default()
    };
    ModelInferRequest {
        model_name: args.model.clone(),
        inputs: vec![input],
        raw_input_contents: vec![Bytes::from(row)],
        ..ModelInferRequest::default()
    }
}
