//! Measures the way of a request through check, queue, batcher and session,
//! without a network: requests per second and latency at 1, 16 and 64 clients.
//!
//! ```text
//! ORT_DYLIB_PATH=… cargo run --release -p starling-actors --example measure_host -- MODEL.onnx [SECONDS]
//! ```
//!
//! The model must have one FP32 input of a known width, as
//! `models/testdata/matmul.onnx` has.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_actors::inference::{LoadedVersion, OnnxRuntime, VersionHost, VersionKey};
use starling_proto::inference::{ModelInferRequest, model_infer_request::InferInputTensor};
use starling_raft::state::models::VersionSettings;
use starling_raft::state::{Ordinal, Signature};

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let file = PathBuf::from(arguments.next().ok_or("say which model: MODEL.onnx [SECONDS]")?);
    let seconds: u64 = arguments.next().map_or(Ok(3), |text| text.parse())?;

    let runtime = OnnxRuntime::find_and_load()?;
    let signature = Arc::new(runtime.inspect(&file)?);
    let host = VersionHost::start(runtime, &prometheus::Registry::new()).await?;
    let key = VersionKey { model: "measured".parse()?, ordinal: Ordinal::new(1) };
    let version = host.load(key, file, Arc::clone(&signature), VersionSettings::default()).await?;
    println!("max batch (measured at load): {}", version.max_batch());
    println!("clients   requests/s   p50 µs   p99 µs   rows/run");
    let request = one_row(&signature)?;
    for clients in [1, 16, 64] {
        measure(&version, &request, clients, Duration::from_secs(seconds)).await?;
    }
    Ok(())
}

fn one_row(signature: &Signature) -> Result<ModelInferRequest, Failure> {
    let [input] = signature.inputs.as_slice() else { return Err("the model must have one input".into()) };
    let [_, width] = input.shape[..] else { return Err("the input must have two axes".into()) };
    let bytes = usize::try_from(width)? * size_of::<f32>();
    Ok(ModelInferRequest {
        inputs: vec![InferInputTensor {
            name: input.name.clone(),
            datatype: "FP32".to_owned(),
            shape: vec![1, width],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![vec![0; bytes].into()],
        ..ModelInferRequest::default()
    })
}

async fn measure(
    version: &Arc<LoadedVersion>,
    request: &ModelInferRequest,
    clients: usize,
    time: Duration,
) -> Result<(), Failure> {
    let before = version.statistics();
    let end = Instant::now() + time;
    let client = || async {
        let mut latencies = Vec::new();
        while Instant::now() < end {
            let asked_at = Instant::now();
            version.infer(request.clone(), None).await?;
            latencies.push(asked_at.elapsed());
        }
        Ok::<_, Failure>(latencies)
    };
    let all = futures::future::try_join_all((0..clients).map(|_| client())).await?;
    let mut latencies: Vec<Duration> = all.into_iter().flatten().collect();
    latencies.sort_unstable();
    let quantile = |share: f64| latencies[(latencies.len() as f64 * share) as usize].as_micros();
    let after = version.statistics();
    let runs = after.execution_count - before.execution_count;
    println!(
        "{clients:>7} {:>12.0} {:>8} {:>8} {:>10.1}",
        latencies.len() as f64 / time.as_secs_f64(),
        quantile(0.5),
        quantile(0.99),
        latencies.len() as f64 / runs.max(1) as f64
    );
    Ok(())
}
