//! Records what concurrent clients saw of a real cluster's routes, and checks
//! that it could have happened one operation at a time.
//!
//! `run` works against any cluster, also one that something else is breaking
//! meanwhile; `check` judges a history file again.

mod check;
mod history;
mod linearizability;
mod route_register;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(version, about = "Record histories of a Starling cluster and check that they are linearizable")]
struct Arguments {
    #[command(subcommand)]
    command: JepsenCommand,
}

#[derive(Debug, Subcommand)]
enum JepsenCommand {
    /// Let concurrent clients read and write routes, write the history, check it
    Run(RunArgs),
    /// Check a history file
    Check {
        /// As `run` wrote it: one JSON object per line
        history: PathBuf,
    },
}

/// Against whom, how hard, how long.
#[derive(Debug, Args)]
struct RunArgs {
    /// HOST:GRPC_PORT of every node, comma-separated
    #[arg(long, value_delimiter = ',', required = true)]
    servers: Vec<String>,
    /// Models with two ready versions each, comma-separated: one register each
    #[arg(long, value_delimiter = ',', required = true)]
    models: Vec<String>,
    /// Clients at once
    #[arg(long, default_value_t = 6)]
    clients: usize,
    /// How long they go on
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Where to write the history
    #[arg(long)]
    history: PathBuf,
    /// The same seed draws the same operations
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        JepsenCommand::Run(args) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let workload = workload::Workload {
                servers: args.servers,
                models: args.models,
                clients: args.clients,
                duration: Duration::from_secs(args.seconds),
                seed: args.seed,
            };
            let history = runtime.block_on(workload::run(workload))?;
            history::write(&args.history, &history)
                .with_context(|| format!("write {}", args.history.display()))?;
            Ok(judge(&history))
        }
        JepsenCommand::Check { history: path } => {
            let history = history::read(&path).with_context(|| format!("read {}", path.display()))?;
            Ok(judge(&history))
        }
    }
}

fn judge(history: &[history::Operation]) -> ExitCode {
    let verdict = check::check(history);
    println!("{verdict}");
    if verdict.is_linearizable() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
