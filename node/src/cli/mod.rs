//! The command line: what can be typed, and who carries it out.

mod apply;
mod artefact;
mod bench;
mod cluster;
mod completions;
mod connection;
mod decisions;
mod duration;
mod events;
mod explain;
mod failure;
mod feedback;
mod get;
mod golden;
mod import_triton;
mod input_tensors;
mod model;
mod node;
mod output;
mod percent;
mod predict;
mod rollout;
mod route;
mod route_words;
mod version_settings;
mod wait_ready;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::serve;

pub use failure::CliError;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "starling",
    version,
    about = "Serve ONNX models on a flock of equal peers",
    after_help = EXIT_CODES,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Any node of the cluster, as HOST:GRPC_PORT
    #[arg(long, global = true, env = "STARLING_SERVER", default_value = "localhost:8001")]
    server: String,

    #[command(subcommand)]
    command: CliCommand,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the answer is no (a verification failed, a prediction failed)
  2  wrong usage, configuration or local file
  3  the node or a quorum cannot be reached; trying again may help
  4  no such model, version, node or rollout
  5  refused by the cluster
  6  not finished in time
  7  a rollout was rolled back, aborted or undone
  8  a rollout is held or paused: a person has to decide";

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run a node
    Serve(Box<serve::ServeArgs>),
    /// Push or delete models
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Ask a model for a prediction
    Predict(predict::PredictArgs),
    /// Measure how fast a server of the protocol answers, any server
    Bench(Box<bench::BenchArgs>),
    /// List models, versions, nodes, routes, rollouts or recent decisions
    Get(get::GetArgs),
    /// Say what became known about a prediction
    Feedback(feedback::FeedbackArgs),
    /// Choose which versions answer
    #[command(subcommand)]
    Route(route::RouteCommand),
    /// Start, watch and steer rollouts
    #[command(subcommand, after_help = rollout::EXAMPLES)]
    Rollout(Box<rollout::RolloutCommand>),
    /// Drain, undrain or remove a node
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Look at the cluster as a whole
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Read the event history
    Events(events::EventsArgs),
    /// Say why a request got its version, or what a key would get
    Explain(Box<explain::ExplainArgs>),
    /// Make the cluster what manifests say
    Apply(apply::ApplyArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

impl Cli {
    /// Carries the command out. Errors go to stderr and decide the exit code.
    pub fn run(self) -> ExitCode {
        let server = self.server;
        let outcome = match self.command {
            CliCommand::Serve(args) => return serve::run(*args),
            CliCommand::Completions(args) => return completions::run(&args),
            CliCommand::Model(command) => on_runtime(model::run(&server, command)),
            CliCommand::Predict(args) => on_runtime(predict::run(&server, args)),
            CliCommand::Bench(args) => on_runtime(bench::run(&server, *args)),
            CliCommand::Get(args) => on_runtime(get::run(&server, args)),
            CliCommand::Feedback(args) => on_runtime(feedback::run(&server, args)),
            CliCommand::Route(command) => on_runtime(route::run(&server, command)),
            CliCommand::Rollout(command) => on_runtime(rollout::run(&server, *command)),
            CliCommand::Node(command) => on_runtime(node::run(&server, command)),
            CliCommand::Cluster(command) => on_runtime(cluster::run(&server, command)),
            CliCommand::Events(args) => on_runtime(events::run(&server, args)),
            CliCommand::Explain(args) => on_runtime(explain::run(&server, *args)),
            CliCommand::Apply(args) => on_runtime(apply::run(&server, args)),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                error.exit_code()
            }
        }
    }
}

fn on_runtime(work: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Local(format!("cannot start: {error}")))?;
    runtime.block_on(work)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn no_command_contradicts_itself() {
        Cli::command().debug_assert();
    }
}
