//! `starling-chaos`: one command for each scenario; each prints a table and
//! exits with 0 only if everything it claims has held.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use starling_chaos::report::Report;
use starling_chaos::scenarios::demo::DemoOptions;
use starling_chaos::scenarios::{
    bootstrap_race, demo, join_snapshot, kill_all, kill_leader, partition, pause_leader, rolling_restart,
    rollouts,
};
use starling_chaos::site::Site;

/// Breaks real Starling clusters on purpose and reports what happened.
///
/// The binary under test is STARLING_BIN or the one beside this program; ONNX
/// Runtime is ORT_DYLIB_PATH or what deploy/fetch-onnxruntime.sh has fetched.
#[derive(Debug, Parser)]
#[command(name = "starling-chaos", version)]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Three nodes, two versions of a real model, and a bad day, under traffic.
    Demo {
        /// Let the cluster run on afterwards, and print what to try next.
        #[arg(long)]
        keep: bool,
    },
    /// All five strategies on real models with real labels, the leader killed in each.
    Rollouts,
    /// SIGKILL to the leader under traffic.
    KillLeader,
    /// SIGKILL to all three at once.
    KillAll,
    /// SIGSTOP to the leader.
    PauseLeader,
    /// The leader is cut off from the other two under traffic.
    Partition,
    /// SIGTERM and a new start, one node after the other, under traffic.
    RollingRestart,
    /// A new node joins a cluster that has purged the beginning of its log.
    JoinSnapshot,
    /// Three nodes found one cluster while they are killed and started again.
    BootstrapRace {
        /// Which nodes are killed, and when.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    // Dropped on Ctrl-C as well, so that no node stays behind.
    let outcome = tokio::select! {
        outcome = run(Arguments::parse().scenario) => outcome,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("starling-chaos: interrupted; the nodes are stopped");
            return ExitCode::from(130);
        }
    };
    match outcome {
        Ok(report) => report.exit_code(),
        Err(error) => {
            eprintln!("starling-chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(scenario: Scenario) -> Result<Report> {
    let site = Site::find()?;
    let report = match scenario {
        // Prints its own table, before it says what to try next.
        Scenario::Demo { keep } => return demo::run(&site, DemoOptions { keep }).await,
        // Prints its own tables as it goes.
        Scenario::Rollouts => return rollouts::run(&site).await,
        Scenario::KillLeader => kill_leader::run(&site).await?,
        Scenario::KillAll => kill_all::run(&site).await?,
        Scenario::PauseLeader => pause_leader::run(&site).await?,
        Scenario::Partition => partition::run(&site).await?,
        Scenario::RollingRestart => rolling_restart::run(&site).await?,
        Scenario::JoinSnapshot => join_snapshot::run(&site).await?,
        Scenario::BootstrapRace { seed } => bootstrap_race::run(&site, seed).await?,
    };
    println!("{}", report.table());
    Ok(report)
}
