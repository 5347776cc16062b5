//! `starling explain`: which version a past decision came to, or a key would get,
//! and every step of the reasoning.

use clap::Args;
use starling_proto::admin::{ExplainRequest, Explanation};

use super::CliError;
use super::connection::admin;
use super::output::{self, OutputFormat};

/// What to explain.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  starling explain AekHAQIEKgAA5-0t8w\n  starling explain --model digits --key user-7 --metadata x-country=de"
)]
pub struct ExplainArgs {
    /// The id that a response carried as starling_decision
    #[arg(required_unless_present = "key", conflicts_with_all = ["key", "model", "at", "parameter", "metadata"])]
    decision: Option<String>,
    /// A routing key instead: what would it get?
    #[arg(long, value_name = "KEY", requires = "model")]
    key: Option<String>,
    /// Of which model
    #[arg(long, value_name = "MODEL", requires = "key")]
    model: Option<String>,
    /// By the route as it was at this log index, instead of now
    #[arg(long, value_name = "INDEX", default_value_t = 0, hide_default_value = true)]
    at: u64,
    /// A request parameter, for rules that ask for it; may be repeated
    #[arg(long, value_name = "NAME=TEXT", value_parser = parse_pair)]
    parameter: Vec<(String, String)>,
    /// Metadata or a header, for rules that ask for it; may be repeated
    #[arg(long, value_name = "NAME=TEXT", value_parser = parse_pair)]
    metadata: Vec<(String, String)>,
    /// How to show the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("'{text}' is not NAME=TEXT, as in tier=gold"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Asks, and prints.
pub async fn run(server: &str, args: ExplainArgs) -> Result<(), CliError> {
    let request = ExplainRequest {
        decision: args.decision.unwrap_or_default(),
        model: args.model.unwrap_or_default(),
        key: args.key.unwrap_or_default(),
        at_index: args.at,
        parameters: args.parameter.into_iter().collect(),
        metadata: args.metadata.into_iter().collect(),
    };
    let answer = admin(server).await?.explain(request).await?.into_inner();
    match args.output {
        OutputFormat::Table | OutputFormat::Wide => output::print_line(&lines(&answer).join("\n")),
        format => output::print_document(format, &answer),
    }
}

fn lines(answer: &Explanation) -> Vec<String> {
    let mut lines = vec![headline(answer)];
    let numbered = (1..).zip(&answer.steps);
    lines.extend(numbered.map(|(number, step): (u32, _)| format!("  {number}. {}", step.says)));
    lines
}

fn headline(answer: &Explanation) -> String {
    let Explanation { model, version, epoch, propensity, .. } = answer;
    if version.is_empty() {
        return format!("model {model}: the version that the request named, at epoch {epoch}");
    }
    let mut line = format!("model {model}: version {version} at epoch {epoch}, propensity {propensity}");
    if !answer.rollout.is_empty() {
        line.push_str(&format!(", rollout {}", answer.rollout));
    }
    if !answer.arm.is_empty() {
        line.push_str(&format!(", arm {}", answer.arm));
    }
    line
}

#[cfg(test)]
mod tests {
    use starling_proto::admin::ExplainStep;

    use super::*;

    #[test]
    fn an_explanation_begins_with_the_answer_and_counts_its_steps() {
        let step = |says: &str| ExplainStep { says: says.to_owned(), ..ExplainStep::default() };
        let answer = Explanation {
            model: "digits".into(),
            epoch: 12,
            version: "v2".into(),
            propensity: 0.2,
            rollout: "ab".into(),
            arm: "treatment".into(),
            steps: vec![step("first"), step("second")],
            ..Explanation::default()
        };
        assert_eq!(
            lines(&answer),
            [
                "model digits: version v2 at epoch 12, propensity 0.2, rollout ab, arm treatment",
                "  1. first",
                "  2. second"
            ]
        );
    }
}
