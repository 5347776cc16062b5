//! `starling serve`: starts the parts of a node in order, waits for a signal or
//! a fatal error, and stops them in order.

mod args;
mod conditions;
mod equip;
mod listen;
mod open_files;
mod running;
mod stop;

use std::process::ExitCode;
use std::time::Duration;

pub(crate) use args::ServeArgs;

use crate::config::Settings;
use crate::telemetry::{self, Gpus};
use equip::{Equipped, equipped};
use listen::Listeners;

/// Raft, gossip, administration: small, and apart from the data plane.
const CONTROL_THREADS: usize = 2;
/// What still runs then is left to the operating system.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a node does not start: what it is about, and what to do. One line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CannotStart(pub(crate) String);

/// Runs a node until it is told to stop.
pub(crate) fn run(args: ServeArgs) -> ExitCode {
    match start(args) {
        Ok(code) => code,
        Err(CannotStart(reason)) => {
            let one_line = reason.split_whitespace().collect::<Vec<_>>().join(" ");
            eprintln!("starling: {one_line}");
            ExitCode::from(crate::exit::CANNOT_START)
        }
    }
}

fn start(args: ServeArgs) -> Result<ExitCode, CannotStart> {
    let settings = crate::config::resolve(&args.given()).map_err(|error| CannotStart(error.to_string()))?;
    let listeners = Listeners::bind(&settings)?;
    let gpus = Gpus::find();
    let Equipped { onnx, unused_gpus } = equipped(&settings, gpus.as_ref().ok())?;
    // Not before: of a node that cannot start, one line is to be seen.
    telemetry::start_logs(&settings.log_format, &settings.log_level).map_err(CannotStart)?;
    open_files::raise_limit(&settings);
    match &gpus {
        Ok(gpus) => tracing::info!(count = gpus.count(), "this machine has GPUs"),
        Err(reason) => tracing::debug!(%reason, "this machine has no GPUs"),
    }
    if let Some(reason) = unused_gpus {
        tracing::warn!(
            reason,
            "the GPUs of this machine are not used; say `devices = [\"cpu\"]` if that is meant"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| CannotStart(format!("no threads for the control runtime: {error}")))?;
    // Spawned, so that it runs on a worker, beside the tasks that it starts.
    let node = runtime.spawn(running::run(settings, listeners, onnx, gpus.ok()));
    let outcome = match runtime.block_on(node) {
        Ok(outcome) => outcome,
        Err(panic) => {
            tracing::error!(%panic, "the node has panicked");
            Ok(ExitCode::from(crate::exit::FAILED))
        }
    };
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    outcome
}

/// How long a clean stop may take, step by step.
fn grace(settings: &Settings) -> Duration {
    settings.shutdown_grace
}
