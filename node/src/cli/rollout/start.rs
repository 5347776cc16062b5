//! `starling rollout start`: from a manifest, or the plan that is known under a name.

use std::path::PathBuf;

use clap::Args;
use starling_proto::admin::{DryRunRolloutRequest, GetRolloutRequest, StartRolloutRequest};

use super::super::apply;
use super::super::connection::{new_request_id, rollouts};
use super::super::{CliError, output};
use super::dry_run::dry_run_lines;

/// What to start.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  starling rollout start -f digits-v2.yaml
  starling rollout start -f digits-v2.yaml --dry-run
  starling rollout start digits-v2 --again")]
pub struct StartArgs {
    /// A manifest with `kind: Rollout`; - reads standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "names", required_unless_present = "names")]
    filename: Vec<PathBuf>,
    /// A rollout that is over, to run its plan once more; needs --again
    #[arg(value_name = "NAME", requires = "again")]
    names: Vec<String>,
    /// Run it anew if one of that name is over
    #[arg(long)]
    again: bool,
    /// Show what it would do given what the cluster has counted, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Reads all manifests before it starts anything.
pub(super) async fn run(server: &str, args: StartArgs) -> Result<(), CliError> {
    let mut manifests = Vec::new();
    for path in &args.filename {
        manifests.extend(apply::read_rollouts(path)?);
    }
    if manifests.is_empty() && args.names.is_empty() {
        return Err(CliError::Local("no rollout was found; its manifest has `kind: Rollout`".into()));
    }
    if args.dry_run && !manifests.is_empty() {
        return apply::dry_run_rollouts(server, &manifests, args.again).await;
    }
    for manifest in &manifests {
        apply::start_rollout(server, manifest, args.again).await?;
    }
    for name in args.names {
        start_known(server, name, args.dry_run).await?;
    }
    Ok(())
}

async fn start_known(server: &str, name: String, dry_run: bool) -> Result<(), CliError> {
    let mut client = rollouts(server).await?;
    let request = GetRolloutRequest { name: name.clone(), stale: false };
    let spec = client.get_rollout(request).await?.into_inner().spec;
    if dry_run {
        let request = DryRunRolloutRequest { name: name.clone(), spec };
        let answer = client.dry_run_rollout(request).await?.into_inner();
        return output::print_line(&dry_run_lines(&name, &answer).join("\n"));
    }
    let request = StartRolloutRequest { name: name.clone(), spec, again: true, request_id: new_request_id() };
    let answer = client.start_rollout(request).await?.into_inner();
    let what = if answer.changed { "started anew" } else { "is under way already" };
    output::print_line(&format!("rollout {name} {what} (log index {})", answer.log_index))
}
