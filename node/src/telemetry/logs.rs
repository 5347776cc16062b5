//! Logs on stderr: pretty on a terminal, one JSON object a line otherwise.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging for the whole process. `format` is `auto`, `pretty` or `json`.
/// The error says what is wrong with `level`.
pub(crate) fn start_logs(format: &str, level: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(level)
        .map_err(|error| format!("key 'log_level' is '{level}', which is no filter: {error}"))?;
    let json = match format {
        "json" => true,
        "pretty" => false,
        _ => !std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let outcome = if json {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    outcome.map_err(|error| format!("logs cannot be started: {error}"))
}
