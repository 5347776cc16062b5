//! The `starling` binary: a node, and the commands that talk to one.

mod cli;
mod config;
mod data_plane;
mod exit;
mod feedback_json;
mod nearest;
mod ready_file;
mod rollout_wire;
mod serve;
mod servers;
mod telemetry;
mod tensor_json;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::Cli::parse().run()
}
