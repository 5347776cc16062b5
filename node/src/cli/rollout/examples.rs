//! `starling rollout examples`: requests on which a shadow did not agree. Every
//! node is asked for its own.

use std::time::Duration;

use clap::Args;
use starling_proto::admin::{
    ListRequest, Node, ShadowExample, ShadowExamplesRequest, ShadowExamplesResponse, TensorExcerpt,
};

use crate::cli::CliError;
use crate::cli::connection::admin;
use crate::cli::output::{self, OutputFormat};

const NODE_LIMIT: Duration = Duration::from_secs(5);
const COLUMNS: &[&str] = &["decision", "node", "live", "shadow", "epoch", "compared", "differs"];
const WIDE_COLUMNS: &[&str] = &[
    "decision",
    "node",
    "live",
    "shadow",
    "epoch",
    "compared",
    "differs",
    "inputs",
    "live outputs",
    "shadow outputs",
];

/// Of what.
#[derive(Debug, Args)]
#[command(after_help = "Example: starling rollout examples digits --version v2 -o wide")]
pub struct ExamplesArgs {
    /// A model, or a rollout of one
    #[arg(value_name = "MODEL|ROLLOUT")]
    name: String,
    /// Of this shadow only: its label or ordinal
    #[arg(long, default_value = "", hide_default_value = true)]
    version: String,
    /// The newest so many
    #[arg(long, value_name = "COUNT", default_value_t = 32)]
    limit: u32,
    /// How to show the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// Asks, and prints, newest first. A node that does not answer is named on stderr.
pub async fn run(server: &str, args: ExamplesArgs) -> Result<(), CliError> {
    let ExamplesArgs { name, version, limit, output } = args;
    let asked = ShadowExamplesRequest { name, version, limit };
    // The node that was named says whether there is such a model.
    let mut client = admin(server).await?;
    client.shadow_examples(asked.clone()).await?;
    let request = ListRequest { model: String::new(), stale: true };
    let nodes = client.list_nodes(request).await?.into_inner().nodes;
    let mut answer = ShadowExamplesResponse::default();
    for node in &nodes {
        match tokio::time::timeout(NODE_LIMIT, ask(node, asked.clone())).await {
            Ok(Ok(found)) => answer.examples.extend(found),
            Ok(Err(error)) => eprintln!("warning: node {}: {error}", node.node_id),
            Err(_) => eprintln!("warning: node {} did not answer within {NODE_LIMIT:?}", node.node_id),
        }
    }
    answer.examples.sort_by_key(|example| std::cmp::Reverse(example.compared_unix_us));
    answer.examples.truncate(limit as usize);
    let wide = output == OutputFormat::Wide;
    let columns = if wide { WIDE_COLUMNS } else { COLUMNS };
    output::print(output, &answer, columns, |answer| {
        answer.examples.iter().map(|example| row(example, wide)).collect()
    })
}

async fn ask(node: &Node, request: ShadowExamplesRequest) -> Result<Vec<ShadowExample>, CliError> {
    let mut client = admin(&node.grpc_address).await?;
    Ok(client.shadow_examples(request).await?.into_inner().examples)
}

fn row(example: &ShadowExample, wide: bool) -> Vec<String> {
    let differences: Vec<String> = example
        .differences
        .iter()
        .map(|difference| format!("{}: {}", difference.output, difference.difference))
        .collect();
    let mut row = vec![
        example.decision.clone(),
        example.node_id.to_string(),
        example.live_version.clone(),
        example.shadow_version.clone(),
        example.epoch.to_string(),
        compared(example),
        differences.join("; "),
    ];
    if wide {
        let tensors = [&example.inputs, &example.live_outputs, &example.shadow_outputs];
        row.extend(
            tensors.into_iter().map(|tensors| tensors.iter().map(excerpt).collect::<Vec<_>>().join(" ")),
        );
    }
    row
}

fn compared(example: &ShadowExample) -> String {
    let micros = i64::try_from(example.compared_unix_us).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_microsecond(micros) {
        Ok(time) => time.to_string(),
        Err(_) => example.compared_unix_us.to_string(),
    }
}

fn excerpt(tensor: &TensorExcerpt) -> String {
    let end = if tensor.cut { ", …" } else { "" };
    format!("{}=[{}{end}]", tensor.name, tensor.values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_is_shown_with_what_was_kept_of_it() {
        let values = || vec!["1".to_owned(), "2".to_owned()];
        let tensor =
            |cut| TensorExcerpt { name: "x".to_owned(), values: values(), cut, ..Default::default() };
        assert_eq!(excerpt(&tensor(false)), "x=[1, 2]");
        assert_eq!(excerpt(&tensor(true)), "x=[1, 2, …]");
    }
}
