//! The `starling` binary: a node, and the commands that talk to one.

mod config;
mod data_plane;
mod exit;
mod ready_file;
mod serve;
mod servers;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serves machine-learning models on a flock of equal peers.
#[derive(Parser)]
#[command(version)]
enum Arguments {
    /// Runs a node.
    Serve(serve::ServeArgs),
}

fn main() -> ExitCode {
    match Arguments::parse() {
        Arguments::Serve(args) => serve::run(args),
    }
}
