//! `starling feedback`: what became known about predictions.

mod import;

use clap::{Args, Subcommand};
use starling_proto::feedback::feedback_item::Said;
use starling_proto::feedback::{FeedbackItem, FeedbackResult, FeedbackVerdict, RecordRequest};

use super::connection;
use super::{CliError, output};

const EXAMPLES: &str = "\
Examples:
  starling feedback AQEBAwUBAAGf --value 12.5
  starling feedback AQEBAwUBAAGf --label cat
  starling feedback AQEBAwUBAAGf --success
  starling feedback import labels.ndjson

A decision's id is the response parameter starling_decision. A decision is
rewarded once: sending the same again changes nothing.
Exit code 1: it was not taken, or not credited any more.";

/// About one decision, or a file about many.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = EXAMPLES)]
pub struct FeedbackArgs {
    #[command(subcommand)]
    command: Option<FeedbackCommand>,
    /// The decision's id
    #[arg(required = true, value_name = "DECISION")]
    decision: Option<String>,
    #[command(flatten)]
    said: SaidArgs,
    /// Whose behaviour it is, where that is not the routing key
    #[arg(long, default_value = "", hide_default_value = true)]
    unit: String,
    /// Wait until it is committed by a majority
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Subcommand)]
enum FeedbackCommand {
    /// Send a file of feedback, one JSON object per line
    Import(import::ImportArgs),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct SaidArgs {
    /// A number, such as an amount
    #[arg(long, allow_negative_numbers = true)]
    value: Option<f64>,
    /// A word; what it counts for is said by the rollout
    #[arg(long)]
    label: Option<String>,
    /// It counts 1
    #[arg(long)]
    success: bool,
    /// It counts 0
    #[arg(long)]
    failure: bool,
    /// Take the decision's reward back
    #[arg(long)]
    retract: bool,
}

impl SaidArgs {
    fn said(self) -> Option<Said> {
        match self {
            Self { value: Some(value), .. } => Some(Said::Value(value)),
            Self { label: Some(label), .. } => Some(Said::Label(label)),
            Self { success: true, .. } => Some(Said::Flag(true)),
            Self { failure: true, .. } => Some(Said::Flag(false)),
            _ => None,
        }
    }
}

/// Carries it out.
pub async fn run(server: &str, args: FeedbackArgs) -> Result<(), CliError> {
    if let Some(FeedbackCommand::Import(args)) = args.command {
        return import::run(server, args).await;
    }
    let item = FeedbackItem {
        decision: args.decision.unwrap_or_default(),
        unit: args.unit,
        retract: args.said.retract,
        said: args.said.said(),
        observed_unix_us: 0,
    };
    let request = RecordRequest { items: vec![item], wait_counted: args.wait };
    let answer = connection::feedback(server).await?.record(request).await?.into_inner();
    let result = answer.results.into_iter().next();
    let result = result.ok_or_else(|| CliError::No("the node has answered nothing".to_owned()))?;
    let text = in_words(&result);
    match is_fine(result.verdict()) {
        true => output::print_line(&text),
        false => Err(CliError::No(text)),
    }
}

fn in_words(result: &FeedbackResult) -> String {
    let counted = if result.counted { ", counted" } else { "" };
    match result.reason.as_str() {
        "" => format!("{}{counted}", name(result.verdict())),
        reason => format!("{}{counted}: {reason}", name(result.verdict())),
    }
}

/// In the words of metrics and REST.
fn name(verdict: FeedbackVerdict) -> &'static str {
    match verdict {
        FeedbackVerdict::Unspecified => "unspecified",
        FeedbackVerdict::Recorded => "recorded",
        FeedbackVerdict::Stored => "stored",
        FeedbackVerdict::Duplicate => "duplicate",
        FeedbackVerdict::Retracted => "retracted",
        FeedbackVerdict::NotInExperiment => "not_in_experiment",
        FeedbackVerdict::Late => "late",
        FeedbackVerdict::OutOfRange => "out_of_range",
        FeedbackVerdict::Unknown => "unknown",
        FeedbackVerdict::Invalid => "invalid",
    }
}

fn is_fine(verdict: FeedbackVerdict) -> bool {
    matches!(
        verdict,
        FeedbackVerdict::Recorded
            | FeedbackVerdict::Stored
            | FeedbackVerdict::Duplicate
            | FeedbackVerdict::Retracted
            | FeedbackVerdict::NotInExperiment
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use clap::Parser;

    use super::super::{Cli, CliCommand};
    use super::*;

    fn parsed(line: &str) -> Result<FeedbackArgs, String> {
        let words = ["starling", "feedback"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words).map_err(|error| error.to_string())?.command {
            CliCommand::Feedback(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_thing_is_said_of_one_decision_or_a_file_of_many() {
        assert_eq!(parsed("A --value -1.5").unwrap().said.said(), Some(Said::Value(-1.5)));
        assert_eq!(parsed("A --failure").unwrap().said.said(), Some(Said::Flag(false)));
        assert_eq!(parsed("A --label cat").unwrap().said.said(), Some(Said::Label("cat".into())));
        let retraction = parsed("A --retract").unwrap();
        assert!(retraction.said.retract && retraction.said.said().is_none());
        assert!(parsed("import file.ndjson").unwrap().command.is_some());
        assert!(parsed("A --success --failure").is_err());
        assert!(parsed("A").is_err());
    }
}
