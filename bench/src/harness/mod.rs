//! The comparison: starts the contestants, lets them take turns, collects figures.

pub mod echo;
pub mod raw;

mod contest;
mod contestants;
mod machine;
mod models;
mod onnx;
mod scenario;
mod triton;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use starling_bench::figures::{self, Asked, Figures, Measurement, Row, Unmeasured};

use contest::{Bench, Pace};
use scenario::Scenario;

/// What to compare, and how long.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: starling-bench run --only tiny,mlp --json figures.json
The binary under test is the `starling` beside this one, or STARLING_BIN;
ONNX Runtime is found by ORT_DYLIB_PATH or in the checkout's cache.")]
pub struct RunArgs {
    /// Only these scenarios; without, all but the rival
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Scenario>,
    /// Rounds; the contestants alternate within each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Measured seconds per contestant and round
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// Two short rounds of each: to see that it works, not to quote
    #[arg(long)]
    quick: bool,
    /// gRPC connections that the clients share; 0: each has its own
    #[arg(long, default_value_t = 0)]
    connections: usize,
    /// Where to write all figures as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Fail unless every figure that was asked for is reached
    #[arg(long)]
    strict: bool,
}

/// Where requests failed that should not have, the ratios above say less than they seem to.
fn failures_row(scenario: Scenario, measurements: &[Measurement]) -> Option<Row> {
    if scenario.expects_failures() {
        return None;
    }
    let samples = measurements.iter().flat_map(|measurement| &measurement.rounds);
    let failed = samples.map(|sample| sample.failed).sum::<u64>();
    let row = |failed| Row::new(&scenario.to_string(), "failed requests", Asked::AtMost(0.0), vec![failed]);
    (failed > 0).then(|| row(failed as f64))
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number of seconds from 0.1 to 600".to_owned()),
    }
}

/// Runs the scenarios and prints the table. A scenario that breaks off is reported
/// and does not stop the others.
pub fn run(args: &RunArgs) -> Result<()> {
    let mut pace = if args.quick { Pace::quick() } else { Pace::full(args.rounds as usize, args.seconds) };
    pace.connections = args.connections;
    let machine = machine::read()?;
    let bench = Bench::new(pace)?;
    // Clients are made outside of `block_on` as well, and want to know where they live.
    let _inside = bench.runtime.enter();
    let mut figures = Figures {
        machine,
        rounds: pace.rounds,
        seconds: pace.duration.as_secs_f64(),
        rows: Vec::new(),
        measurements: Vec::new(),
        failures: Vec::new(),
    };
    let wanted = if args.only.is_empty() { Scenario::all_of_ours() } else { args.only.clone() };
    for scenario in &wanted {
        eprintln!("{scenario}: {}", scenario.about());
        match scenario.run(&bench) {
            Ok(found) => {
                figures.rows.extend(found.rows);
                figures.rows.extend(failures_row(*scenario, &found.measurements));
                figures.measurements.extend(found.measurements);
            }
            Err(error) => {
                eprintln!("{scenario}: {error:#}");
                let reason = format!("{error:#}").lines().next().unwrap_or_default().to_owned();
                figures.failures.push(Unmeasured { scenario: scenario.to_string(), reason });
            }
        }
    }
    print!("{}", figures::text(&figures));
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&figures)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if !figures.failures.is_empty() {
        bail!("{} of {} scenarios could not be measured", figures.failures.len(), wanted.len());
    }
    let missed = figures.rows.iter().filter(|row| row.reached() == Some(false)).count();
    if args.strict && missed > 0 {
        bail!("{missed} figures were not reached");
    }
    Ok(())
}
