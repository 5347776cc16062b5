//! Logs on stderr: pretty on a terminal, one JSON object a line otherwise.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// What the libraries beneath say in passing, at a level of theirs that is not
/// worth ours (openraft warns at every heartbeat that a dead peer does not
/// answer). Directives of the user win.
const QUIET_LIBRARIES: &str = "openraft=error,ort=warn,chitchat=warn,sled=warn,h2=warn,hyper=warn,tonic=warn";

/// Starts logging for the whole process. `format` is `auto`, `pretty` or `json`.
/// The error says what is wrong with `level`.
pub(crate) fn start_logs(format: &str, level: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(directives(level))
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

/// A bare level is for our own code; a filter with directives is taken as it is.
fn directives(level: &str) -> String {
    if level.contains([',', '=']) {
        return level.to_owned();
    }
    format!("{level},{QUIET_LIBRARIES}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_keeps_the_libraries_quiet() {
        assert!(directives("debug").starts_with("debug,openraft=error"));
        assert_eq!(directives("info,openraft=debug"), "info,openraft=debug");
        assert!(EnvFilter::try_new(directives("info")).is_ok());
    }
}
