//! `starling rollout`: what changes a route over time, and what it has found.

mod examples;

use clap::Subcommand;

use super::CliError;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Show requests on which a shadow did not agree with the live version
    Examples(examples::ExamplesArgs),
}

/// Does it.
pub async fn run(server: &str, command: RolloutCommand) -> Result<(), CliError> {
    match command {
        RolloutCommand::Examples(args) => examples::run(server, args).await,
    }
}
