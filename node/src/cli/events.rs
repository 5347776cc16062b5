//! `starling events`: what happened, in the order in which it happened.

use std::borrow::Cow;

use clap::{Args, ValueEnum};
use starling_proto::admin::{EventRecord, EventsRequest};

use super::CliError;
use super::connection::admin;
use super::output::{self, OutputFormat};

/// Characters of one event in a table.
const TABLE_CHARACTERS_MAX: usize = 2_000;

/// Which events.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// First log index wanted
    #[arg(long, value_name = "INDEX", default_value_t = 0, hide_default_value = true)]
    from: u64,
    /// Go on as events happen, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only these: who changed what, or the sums of rewards that nodes send
    #[arg(long, value_enum)]
    class: Option<EventClass>,
    /// How to show them; json is one object per line
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// How long events are kept, and so what they are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EventClass {
    Audit,
    Telemetry,
}

impl EventClass {
    /// As the history names it.
    fn as_written(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Telemetry => "telemetry",
        }
    }
}

/// Prints them as they come.
pub async fn run(server: &str, args: EventsArgs) -> Result<(), CliError> {
    let wanted = args.class.map(EventClass::as_written);
    let request = EventsRequest { from_index: args.from, follow: args.follow };
    let mut events = admin(server).await?.events(request).await?.into_inner();
    while let Some(event) = events.message().await? {
        if wanted.is_some_and(|class| class != event.class) {
            continue;
        }
        output::print_line(&render(&event, args.output)?)?;
    }
    Ok(())
}

fn render(event: &EventRecord, format: OutputFormat) -> Result<String, CliError> {
    let wall_time = wall_time(event.wall_time_us);
    if format == OutputFormat::Table {
        let EventRecord { log_index, principal, kind, json, .. } = event;
        let json = shortened(json);
        return Ok(format!("{log_index:>8}  {wall_time}  {principal:<12}  {kind:<22}  {json}"));
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

/// A delta of rewards has up to thousands of sums: in full only as JSON or YAML.
fn shortened(json: &str) -> Cow<'_, str> {
    match json.char_indices().nth(TABLE_CHARACTERS_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}… (`-o json` shows all)", &json[..end])),
        None => Cow::Borrowed(json),
    }
}

fn wall_time(unix_micros: u64) -> String {
    let micros = i64::try_from(unix_micros).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_microsecond(micros) {
        Ok(timestamp) => format!("{timestamp:.3}"),
        Err(_) => unix_micros.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn event(kind: &str, json: String) -> EventRecord {
        EventRecord { log_index: 7, principal: "alice".into(), kind: kind.into(), json, ..Default::default() }
    }

    #[test]
    fn an_event_is_one_line_with_its_kind_and_what_it_says() {
        let line = render(&event("RolloutApproved", r#"{"name":"trial"}"#.into()), OutputFormat::Table);
        assert_eq!(
            line.unwrap(),
            r#"       7  1970-01-01T00:00:00.000Z  alice         RolloutApproved         {"name":"trial"}"#
        );
    }

    #[test]
    fn a_delta_of_many_sums_is_shortened_in_the_table_and_whole_as_json() {
        let sums = vec!["ß"; 5_000].join(",");
        let delta = event("FeedbackRecorded", format!(r#"{{"sums":"{sums}"}}"#));
        let line = render(&delta, OutputFormat::Table).unwrap();
        assert!(line.ends_with("… (`-o json` shows all)"), "{line}");
        assert!(line.chars().count() < 2_200);
        assert!(render(&delta, OutputFormat::Json).unwrap().contains(&sums));
    }
}
