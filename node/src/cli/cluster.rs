//! `starling cluster`: how the flock is, and whether all nodes hold the same state.

use clap::{Args, Subcommand};
use starling_proto::admin::{ClusterStatusRequest, ClusterStatusResponse, ClusterVerifyRequest};

use super::connection::admin;
use super::output::{self, OutputFormat};
use super::{CliError, get};

/// What can be asked of the cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Who leads, who votes, how far the log is
    Status(OutputArgs),
    /// Compare the state digests of all nodes at one log index; exit code 1 if they differ
    Verify(OutputArgs),
}

/// How to show it.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// How to show the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// Carries it out.
pub async fn run(server: &str, command: ClusterCommand) -> Result<(), CliError> {
    match command {
        ClusterCommand::Status(args) => status(server, args.output).await,
        ClusterCommand::Verify(args) => verify(server, args.output).await,
    }
}

async fn status(server: &str, format: OutputFormat) -> Result<(), CliError> {
    let status = admin(server).await?.cluster_status(ClusterStatusRequest {}).await?.into_inner();
    if format != OutputFormat::Table {
        return output::print_document(format, &status);
    }
    for (name, value) in headline(&status) {
        output::print_line(&format!("{name:<15} {value}"))?;
    }
    output::print_line("")?;
    output::print_table(get::NODE_COLUMNS, get::node_rows(&status.nodes))
}

fn headline(status: &ClusterStatusResponse) -> Vec<(&'static str, String)> {
    let leader = match status.leader_id {
        0 => "none known".to_owned(),
        id => id.to_string(),
    };
    let problem = if status.problem.is_empty() { "none" } else { &status.problem };
    vec![
        ("cluster", status.cluster_id.clone()),
        ("answering node", status.node_id.to_string()),
        ("leader", format!("{leader} (term {})", status.term)),
        ("quorum", if status.quorum { "yes" } else { "no" }.to_owned()),
        ("applied", format!("{} of {}", status.applied_index, status.last_log_index)),
        ("feature level", status.feature_level.to_string()),
        ("problem", problem.to_owned()),
    ]
}

async fn verify(server: &str, format: OutputFormat) -> Result<(), CliError> {
    let answer = admin(server).await?.cluster_verify(ClusterVerifyRequest {}).await?.into_inner();
    output::print(format, &answer, &["node", "digest", "error"], |answer| {
        let row = |digest: &starling_proto::admin::cluster_verify_response::NodeDigest| {
            vec![digest.node_id.to_string(), digest.digest.clone(), digest.error.clone()]
        };
        answer.digests.iter().map(row).collect()
    })?;
    let index = answer.checkpoint_index;
    if !answer.equal {
        return Err(CliError::No(format!("the nodes do not all hold the same state at log index {index}")));
    }
    if format == OutputFormat::Table {
        output::print_line(&format!(
            "all {} nodes hold the same state at log index {index}",
            answer.digests.len()
        ))?;
    }
    Ok(())
}
