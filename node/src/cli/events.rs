//! `starling events`: what happened, in the order in which it happened.

use clap::Args;
use starling_proto::admin::{EventRecord, EventsRequest};

use super::CliError;
use super::connection::admin;
use super::output::{self, OutputFormat};

/// Which events.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// First log index wanted
    #[arg(long, value_name = "INDEX", default_value_t = 0, hide_default_value = true)]
    from: u64,
    /// Go on as events happen, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// How to show them; json is one object per line
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// Prints them as they come.
pub async fn run(server: &str, args: EventsArgs) -> Result<(), CliError> {
    let request = EventsRequest { from_index: args.from, follow: args.follow };
    let mut events = admin(server).await?.events(request).await?.into_inner();
    while let Some(event) = events.message().await? {
        output::print_line(&render(&event, args.output)?)?;
    }
    Ok(())
}

fn render(event: &EventRecord, format: OutputFormat) -> Result<String, CliError> {
    let wall_time = wall_time(event.wall_time_us);
    if format == OutputFormat::Table {
        let EventRecord { log_index, principal, kind, json, .. } = event;
        return Ok(format!("{log_index:>8}  {wall_time}  {principal:<12}  {kind:<20}  {json}"));
    }
    let payload: serde_json::Value = serde_json::from_str(&event.json)
        .map_err(|error| CliError::Local(format!("event {} cannot be read: {error}", event.log_index)))?;
    let document = serde_json::json!({
        "log_index": event.log_index,
        "log_time_us": event.log_time_us,
        "wall_time": wall_time,
        "principal": event.principal,
        "request_id": event.request_id,
        "class": event.class,
        "kind": event.kind,
        "event": payload,
    });
    if format == OutputFormat::Yaml {
        let text = serde_saphyr::to_string(&document).map_err(|error| CliError::Local(error.to_string()))?;
        return Ok(format!("---\n{}", text.trim_end()));
    }
    Ok(document.to_string())
}

fn wall_time(unix_micros: u64) -> String {
    let micros = i64::try_from(unix_micros).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_microsecond(micros) {
        Ok(timestamp) => format!("{timestamp:.3}"),
        Err(_) => unix_micros.to_string(),
    }
}
