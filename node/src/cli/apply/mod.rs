//! `starling apply`: make the cluster what manifests say. A declaration:
//! applying the same file twice changes nothing.

mod beside_weights;
mod carry_out;
mod comparison;
mod conditions;
mod diff;
mod fields;
mod manifest;
mod plan;
mod rollout;
mod rollouts;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use starling_proto::admin::{ListRequest, Model};

use self::manifest::{Manifest, ModelManifest};
use self::rollout::RolloutManifest;
pub(super) use self::rollouts::{dry_run as dry_run_rollouts, start as start_rollout};
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

/// The rollouts of manifests, with a complaint about anything else.
pub(super) fn read_rollouts(path: &Path) -> Result<Vec<RolloutManifest>, CliError> {
    let mut rollouts = Vec::new();
    for manifest in manifest::read(path)? {
        match manifest {
            Manifest::Rollout(rollout) => rollouts.push(rollout),
            Manifest::Model(model) => {
                return Err(CliError::Local(format!(
                    "{}: model '{}' is no rollout; `starling apply -f` takes both",
                    path.display(),
                    model.name
                )));
            }
        }
    }
    Ok(rollouts)
}

/// Reads all manifests before it changes anything.
pub async fn run(server: &str, args: ApplyArgs) -> Result<(), CliError> {
    let mut models: Vec<ModelManifest> = Vec::new();
    let mut rollouts: Vec<RolloutManifest> = Vec::new();
    for path in &args.filename {
        for manifest in manifest::read(path)? {
            match manifest {
                Manifest::Model(model) => models.push(model),
                Manifest::Rollout(rollout) => rollouts.push(rollout),
            }
        }
    }
    if models.is_empty() && rollouts.is_empty() {
        return Err(CliError::Local(
            "no manifest was found; a manifest is a .yaml file with `kind: Model` or `kind: Rollout`".into(),
        ));
    }
    let mut client = admin(server).await?;
    let mut plans = Vec::with_capacity(models.len());
    for manifest in models {
        let current = current_model(&mut client, &manifest.name).await?;
        let plan =
            plan::plan(&manifest, current.as_ref()).map_err(|error| CliError::Local(error.to_string()))?;
        plans.push((manifest, current, plan));
    }
    if args.dry_run {
        for (manifest, current, plan) in &plans {
            output::print_line(&diff::render(manifest, current.as_ref(), plan))?;
        }
        return rollouts::dry_run(server, &rollouts, false).await;
    }
    for (manifest, _, plan) in &plans {
        carry_out::carry_out(&mut client, manifest, plan, args.wait, Duration::from_secs(args.timeout))
            .await?;
    }
    // After the models: a rollout may need what they have just brought.
    rollouts::carry_out(server, &rollouts, Duration::from_secs(args.timeout)).await
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
