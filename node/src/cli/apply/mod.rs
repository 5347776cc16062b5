//! `starling apply`: make the cluster what manifests say. A declaration:
//! applying the same file twice changes nothing.

mod carry_out;
mod diff;
mod manifest;
mod plan;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use starling_proto::admin::{ListRequest, Model};

use self::manifest::ModelManifest;
use super::connection::admin;
use super::{CliError, output};

/// Which manifests.
#[derive(Debug, Args)]
#[command(after_help = "Example: starling apply -f manifests/ --dry-run")]
pub struct ApplyArgs {
    /// A manifest file, or a folder of .yaml files; - reads standard input
    #[arg(short, long = "filename", value_name = "PATH", required = true)]
    filename: Vec<PathBuf>,
    /// Show what would change, as a diff, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Also wait until every version in the manifests is ready, routed to or not
    #[arg(long)]
    wait: bool,
    /// How long a version may take to become ready, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

/// Reads all manifests before it changes anything.
pub async fn run(server: &str, args: ApplyArgs) -> Result<(), CliError> {
    let mut manifests: Vec<ModelManifest> = Vec::new();
    for path in &args.filename {
        manifests.extend(manifest::read(path)?);
    }
    if manifests.is_empty() {
        return Err(CliError::Local(
            "no manifest was found; a manifest is a .yaml file with `kind: Model`".into(),
        ));
    }
    let mut client = admin(server).await?;
    let mut plans = Vec::with_capacity(manifests.len());
    for manifest in manifests {
        let current = current_model(&mut client, &manifest.name).await?;
        let plan =
            plan::plan(&manifest, current.as_ref()).map_err(|error| CliError::Local(error.to_string()))?;
        plans.push((manifest, current, plan));
    }
    if args.dry_run {
        for (manifest, current, plan) in &plans {
            output::print_line(&diff::render(manifest, current.as_ref(), plan))?;
        }
        return Ok(());
    }
    for (manifest, _, plan) in &plans {
        carry_out::carry_out(&mut client, manifest, plan, args.wait, Duration::from_secs(args.timeout))
            .await?;
    }
    Ok(())
}

/// Unknown to the cluster: none.
async fn current_model(
    client: &mut starling_proto::admin::admin_client::AdminClient<tonic::transport::Channel>,
    name: &str,
) -> Result<Option<Model>, CliError> {
    let request = ListRequest { model: name.to_owned(), stale: false };
    match client.list_models(request).await {
        Ok(answer) => Ok(answer.into_inner().models.into_iter().find(|model| model.name == name)),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}
