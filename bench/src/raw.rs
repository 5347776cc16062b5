//! One thread that calls the session in a loop: what the model alone costs.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use ort::environment::Environment;
use ort::session::Session;
use ort::value::TensorRef;
use serde::{Deserialize, Serialize};

const WARM_UP_RUNS: usize = 1_000;
const RUNS_PER_CLOCK_READING: usize = 64;

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RawReport {
    /// Runs of one row per second, on one thread.
    pub runs_per_second: f64,
}

/// Prints the report as JSON. Needs ORT_DYLIB_PATH.
pub fn run(model: &Path, seconds: f64) -> anyhow::Result<()> {
    let library = std::env::var("ORT_DYLIB_PATH").context("ORT_DYLIB_PATH must name libonnxruntime.so")?;
    let environment = ort::init_from(&library)
        .map_err(|error| anyhow!("{library} cannot be loaded: {error}"))?
        .build()
        .map_err(|error| anyhow!("{error}"))?;
    let runs_per_second = measure(&environment, model, seconds).map_err(|error| anyhow!("{error}"))?;
    println!("{}", serde_json::to_string(&RawReport { runs_per_second })?);
    Ok(())
}

fn measure(environment: &Environment, model: &Path, seconds: f64) -> ort::Result<f64> {
    let mut session = Session::builder(environment)?
        .with_intra_threads(1)?
        .with_config_entry("session.intra_op.allow_spinning", "0")?
        .commit_from_file(model)?;
    let columns = session
        .inputs()
        .first()
        .and_then(|input| input.dtype().tensor_shape().and_then(|shape| shape.last().copied()))
        .and_then(|columns| usize::try_from(columns).ok())
        .unwrap_or(1);
    let row: Vec<f32> = (0..columns).map(|column| column as f32 * 0.25).collect();
    let mut run_once = || -> ort::Result<()> {
        let input = TensorRef::from_array_view(([1, columns], &row[..]))?;
        session.run(ort::inputs![input])?;
        Ok(())
    };
    for _ in 0..WARM_UP_RUNS {
        run_once()?;
    }
    let begin = Instant::now();
    let mut runs = 0_usize;
    while begin.elapsed() < Duration::from_secs_f64(seconds) {
        for _ in 0..RUNS_PER_CLOCK_READING {
            run_once()?;
        }
        runs += RUNS_PER_CLOCK_READING;
    }
    Ok(runs as f64 / begin.elapsed().as_secs_f64())
}
