//! `starling rollout history`: what happened, why, and the numbers behind it.

use clap::Args;
use serde_json::json;
use starling_proto::admin::{RolloutEnding, RolloutHappening, RolloutHistoryRequest, RolloutMeasure};

use super::super::connection::rollouts;
use super::super::output::{self, OutputFormat};
use super::super::{CliError, get};
use super::{moment, words};

/// Of which.
#[derive(Debug, Args)]
#[command(after_help = "Example: starling rollout history digits-v2")]
pub struct HistoryArgs {
    /// Its name
    name: String,
    /// Also of earlier runs under this name
    #[arg(long)]
    all_runs: bool,
    /// How to show it; json is one object per line
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

const COLUMNS: &[&str] = &["index", "time", "by", "event", "weights", "why", "numbers"];

/// Prints it.
pub(super) async fn run(server: &str, args: HistoryArgs) -> Result<(), CliError> {
    let request = RolloutHistoryRequest { name: args.name, all_runs: args.all_runs };
    let mut happenings = rollouts(server).await?.rollout_history(request).await?.into_inner();
    let mut rows = Vec::new();
    while let Some(happening) = happenings.message().await? {
        match args.output {
            OutputFormat::Table | OutputFormat::Wide => rows.push(row(&happening)),
            OutputFormat::Json => output::print_line(&document(&happening)?.to_string())?,
            OutputFormat::Yaml => output::print_document(args.output, &[document(&happening)?])?,
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    output::print_table(COLUMNS, rows)
}

/// With the time as people read it.
fn document(happening: &RolloutHappening) -> Result<serde_json::Value, CliError> {
    let mut document = serde_json::to_value(happening)
        .map_err(|error| CliError::Local(format!("an event cannot be shown: {error}")))?;
    if let Some(fields) = document.as_object_mut() {
        fields.insert("wall_time".to_owned(), json!(moment::shown(happening.wall_time_us)));
    }
    Ok(document)
}

fn row(happening: &RolloutHappening) -> Vec<String> {
    let numbers: Vec<String> = happening.evidence.iter().map(measure).collect();
    let weights = get::weights(&happening.weights);
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    vec![
        happening.log_index.to_string(),
        moment::shown(happening.wall_time_us),
        happening.principal.clone(),
        event(happening),
        or_dash(weights),
        or_dash(happening.why.clone()),
        or_dash(numbers.join("; ")),
    ]
}

fn event(happening: &RolloutHappening) -> String {
    let kind = happening.kind.strip_prefix("Rollout").unwrap_or(&happening.kind);
    match (kind, happening.ending(), happening.stage, happening.rewards_dropped) {
        (_, ending, _, _) if ending != RolloutEnding::None => words::ending_words(ending).to_owned(),
        ("Started", ..) => "started".to_owned(),
        (_, _, Some(stage), _) => format!("stage {}", stage + 1),
        (_, _, _, Some(rewards)) => format!("{rewards} rewards forgotten"),
        ("ArmsSet", ..) => "arms set".to_owned(),
        _ => kind.to_lowercase(),
    }
}

/// `errorRate of v2 0.031 (0.021 to 0.046; 400)`.
pub(super) fn measure(measure: &RolloutMeasure) -> String {
    let of = if measure.version.is_empty() { String::new() } else { format!(" of {}", measure.version) };
    let bounds = match (measure.lower_micro, measure.upper_micro) {
        (Some(lower), Some(upper)) => format!("{} to {}; ", words::micro(lower), words::micro(upper)),
        (Some(lower), None) => format!("at least {}; ", words::micro(lower)),
        (None, Some(upper)) => format!("at most {}; ", words::micro(upper)),
        (None, None) => String::new(),
    };
    format!("{}{of} {} ({bounds}{})", measure.what, words::micro(measure.value_micro), measure.samples)
}

#[cfg(test)]
mod tests {
    use starling_proto::admin::WeightedVersion;

    use super::*;

    #[test]
    fn each_event_says_who_what_why_and_by_which_numbers() {
        let rolled_back = RolloutHappening {
            log_index: 42,
            wall_time_us: 1_764_079_200_000_000,
            principal: "leader".into(),
            kind: "RolloutFinished".into(),
            ending: RolloutEnding::RolledBack.into(),
            weights: vec![WeightedVersion { version: "v1".into(), weight_ppm: 1_000_000 }],
            why: "errorRate of v2 is above 1 %".into(),
            evidence: vec![RolloutMeasure {
                what: "errorRate".into(),
                version: "v2".into(),
                value_micro: 31_000,
                lower_micro: Some(21_000),
                upper_micro: Some(46_000),
                samples: 400,
            }],
            ..RolloutHappening::default()
        };
        assert_eq!(
            row(&rolled_back),
            [
                "42",
                "2025-11-25T14:00:00Z",
                "leader",
                "rolled back",
                "v1=100%",
                "errorRate of v2 is above 1 %",
                "errorRate of v2 0.031 (0.021 to 0.046; 400)",
            ]
        );
        let of = |kind: &str| RolloutHappening { kind: kind.into(), ..RolloutHappening::default() };
        assert_eq!(event(&RolloutHappening { stage: Some(0), ..of("RolloutStarted") }), "started");
        assert_eq!(event(&RolloutHappening { stage: Some(1), ..of("RolloutAdvanced") }), "stage 2");
        assert_eq!(event(&of("RolloutPaused")), "paused");
        assert_eq!(event(&of("RolloutArmsSet")), "arms set");
        let dropped = RolloutHappening { rewards_dropped: Some(7), ..of("RolloutLearningDropped") };
        assert_eq!(event(&dropped), "7 rewards forgotten");
    }
}
