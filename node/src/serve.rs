//! `starling serve`: starts the parts of a node in order, waits for a signal or
//! a fatal error, and stops them in order.

mod args;

use std::process::ExitCode;

pub(crate) use args::ServeArgs;

/// Runs a node until it is told to stop.
pub(crate) fn run(args: ServeArgs) -> ExitCode {
    match crate::config::resolve(&args.given()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("starling: {error}");
            ExitCode::from(crate::exit::CANNOT_START)
        }
    }
}
