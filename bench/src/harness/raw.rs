//! Threads that call sessions in a loop: what the model alone costs.

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use ort::environment::Environment;
use ort::session::Session;
use ort::value::TensorRef;
use serde::{Deserialize, Serialize};

const WARM_UP: Duration = Duration::from_millis(200);
/// So that reading the clock costs nothing beside a small model.
const CLOCK_EVERY: Duration = Duration::from_micros(200);

/// What to call, how wide, for how long.
#[derive(Debug, Args)]
pub struct RawArgs {
    /// The ONNX file: one FP32 input [-1, columns]
    #[arg(long)]
    model: PathBuf,
    /// Threads, each with a session of its own
    #[arg(long)]
    threads: usize,
    /// Rows per run
    #[arg(long)]
    batch: usize,
    /// How long to measure
    #[arg(long)]
    seconds: f64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct RawReport {
    /// Rows per second, of all threads together.
    pub rows_per_second: f64,
    /// Mean time of a run on one thread.
    pub run_us: f64,
}

/// Prints the report as JSON. Needs ORT_DYLIB_PATH.
pub fn run(args: &RawArgs) -> anyhow::Result<()> {
    let library = std::env::var("ORT_DYLIB_PATH").context("ORT_DYLIB_PATH must name libonnxruntime.so")?;
    let environment = ort::init_from(&library)
        .map_err(|error| anyhow!("{library} cannot be loaded: {error}"))?
        .build()
        .map_err(|error| anyhow!("{error}"))?;
    let duration = Duration::from_secs_f64(args.seconds);
    let together = Barrier::new(args.threads);
    let runs_per_second = std::thread::scope(|scope| -> anyhow::Result<Vec<f64>> {
        let one = || {
            let session = Loop::new(&environment, &args.model, args.batch);
            // Also after an error, or the others would wait for ever.
            together.wait();
            session.and_then(|session| session.measure(duration)).map_err(|error| anyhow!("{error}"))
        };
        let threads: Vec<_> = (0..args.threads).map(|_| scope.spawn(one)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, anyhow::Result<f64>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
        };
        threads.into_iter().map(join).collect()
    })?;
    let runs_of_all: f64 = runs_per_second.iter().sum();
    let report = RawReport {
        rows_per_second: runs_of_all * args.batch as f64,
        run_us: 1e6 * args.threads as f64 / runs_of_all,
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

struct Loop {
    session: Session,
    shape: [usize; 2],
    rows: Vec<f32>,
}

impl Loop {
    fn new(environment: &Environment, model: &Path, batch: usize) -> ort::Result<Self> {
        let session = Session::builder(environment)?
            .with_intra_threads(1)?
            .with_config_entry("session.intra_op.allow_spinning", "0")?
            .commit_from_file(model)?;
        let columns = session
            .inputs()
            .first()
            .and_then(|input| input.dtype().tensor_shape().and_then(|shape| shape.last().copied()))
            .and_then(|columns| usize::try_from(columns).ok())
            .unwrap_or(1);
        let rows = (0..batch * columns).map(|index| (index % 97) as f32 / 97.0).collect();
        Ok(Self { session, shape: [batch, columns], rows })
    }

    fn run_once(&mut self) -> ort::Result<()> {
        let input = TensorRef::from_array_view((self.shape, &self.rows[..]))?;
        self.session.run(ort::inputs![input])?;
        Ok(())
    }

    /// Runs per second.
    fn measure(mut self, duration: Duration) -> ort::Result<f64> {
        let begin = Instant::now();
        let mut runs = 0_u32;
        while begin.elapsed() < WARM_UP {
            self.run_once()?;
            runs += 1;
        }
        let per_run = begin.elapsed() / runs.max(1);
        let runs_per_reading = (CLOCK_EVERY.as_nanos() / per_run.as_nanos().max(1)).clamp(1, 1_000);
        let begin = Instant::now();
        let mut runs = 0_u64;
        while begin.elapsed() < duration {
            for _ in 0..runs_per_reading {
                self.run_once()?;
            }
            runs += runs_per_reading as u64;
        }
        Ok(runs as f64 / begin.elapsed().as_secs_f64())
    }
}
