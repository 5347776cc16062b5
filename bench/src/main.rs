//! `make bench`: Starling beside what bounds it, in one run on the same cores.
//!
//! The contestants take turns, round by round: `echo`, a bare tonic server that
//! answers the same messages without a model; `raw`, the session called in a loop;
//! and `starling` itself. Each is a process of its own; this one makes the load.

mod harness;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};
use starling_bench::figures;

// As in the node, so that echo and generator are not slower for their allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(version, about = "Measure Starling against a bare gRPC echo and a bare session loop")]
enum Arguments {
    /// Run the comparison and print its table
    Run(harness::RunArgs),
    /// Print the figures of an earlier run as Markdown
    Report {
        /// What `run --json` wrote
        figures: PathBuf,
    },
    #[command(flatten)]
    Part(Part),
}

/// The processes that `run` starts.
#[derive(Debug, Subcommand)]
enum Part {
    /// The bare echo server; prints its address and serves until it is killed
    #[command(hide = true)]
    Echo {
        /// An encoded ModelInferResponse
        #[arg(long)]
        answer: PathBuf,
    },
    /// The bare session loop; prints one JSON report
    #[command(hide = true)]
    Raw(harness::raw::RawArgs),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse() {
        Arguments::Run(args) => harness::run(&args),
        Arguments::Report { figures } => report(&figures),
        Arguments::Part(Part::Echo { answer }) => harness::echo::serve(&answer),
        Arguments::Part(Part::Raw(args)) => harness::raw::run(&args),
    }
}

fn report(path: &PathBuf) -> anyhow::Result<()> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let figures: figures::Figures = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not what `run --json` writes", path.display()))?;
    print!("{}", figures::markdown(&figures));
    Ok(())
}
