//! `starling completions SHELL`: a script that completes commands and flags.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

/// Which shell.
#[derive(Debug, Args)]
#[command(after_help = "Example: starling completions bash > /etc/bash_completion.d/starling")]
pub struct CompletionsArgs {
    /// The shell to write for
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &CompletionsArgs) -> ExitCode {
    clap_complete::generate(args.shell, &mut Cli::command(), "starling", &mut std::io::stdout());
    ExitCode::SUCCESS
}
