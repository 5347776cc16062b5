//! `make bench`: Starling beside what bounds it, in one run on the same cores.
//!
//! Three contestants take turns, round by round, and the medians are compared:
//! `echo`, a bare tonic server that answers the same messages without a model;
//! `raw`, one thread that calls the session in a loop; and `starling` itself.
//! The load generator is a process of its own.

mod echo;
mod load;
mod raw;
mod run;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(version, about = "Measure Starling against a bare gRPC echo and a bare session loop")]
enum Arguments {
    /// Run the whole comparison and print its table
    Run(run::RunArgs),
    #[command(flatten)]
    Part(Part),
}

/// The processes that `run` starts.
#[derive(Debug, Subcommand)]
enum Part {
    /// The bare echo server; prints its address and serves until it is killed
    #[command(hide = true)]
    Echo,
    /// The closed-loop load generator; prints one JSON report
    #[command(hide = true)]
    Load(load::LoadArgs),
    /// The bare session loop; prints one JSON report
    #[command(hide = true)]
    Raw {
        /// The ONNX file
        #[arg(long)]
        model: PathBuf,
        /// How long to measure
        #[arg(long)]
        seconds: f64,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse() {
        Arguments::Run(args) => run::run(&args),
        Arguments::Part(Part::Echo) => echo::serve(),
        Arguments::Part(Part::Load(args)) => load::run(&args),
        Arguments::Part(Part::Raw { model, seconds }) => raw::run(&model, seconds),
    }
}
