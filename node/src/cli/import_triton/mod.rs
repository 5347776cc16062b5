//! `starling model import-triton`: pushes the models of a Triton repository, and
//! names every setting that does not come along.

mod mapping;
mod repository;
mod text_format;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use starling_proto::admin::admin_client::AdminClient;
use starling_proto::admin::{ListRequest, SetRouteRequest, WeightedVersion};
use tonic::transport::Channel;

use self::repository::{Candidate, ImportPlan};
use super::artefact::LocalArtefact;
use super::connection::{admin, new_request_id};
use super::model::upload;
use super::wait_ready::wait_until_ready;
use super::{CliError, output, version_settings};

const WHOLE_PPM: u32 = 1_000_000;

/// Which repository.
#[derive(Debug, Args)]
#[command(after_help = "Example: starling model import-triton ./model_repository --dry-run")]
pub struct ImportTritonArgs {
    /// A folder with one folder per model: config.pbtxt, and 1/model.onnx, 2/model.onnx …
    folder: PathBuf,
    /// Say what would be pushed, and push nothing
    #[arg(long)]
    dry_run: bool,
    /// How long a version may take to become ready, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

/// What came of it.
#[derive(Default)]
struct Summary {
    models: usize,
    versions: usize,
    warnings: usize,
    failed: usize,
}

/// Goes on with the next model where one cannot be imported, and fails at the end.
pub async fn run(server: &str, args: ImportTritonArgs) -> Result<(), CliError> {
    let candidates = repository::read(&args.folder)?;
    if candidates.is_empty() {
        return Err(CliError::Local(format!(
            "{} has no folder of a model; a repository holds one folder per model",
            args.folder.display()
        )));
    }
    let mut client = if args.dry_run { None } else { Some(admin(server).await?) };
    let mut summary = Summary::default();
    for candidate in &candidates {
        let plan = match &candidate.plan {
            Ok(plan) => plan,
            Err(reason) => {
                summary.failed += 1;
                eprintln!("skipped: {}: {reason}", candidate.name);
                continue;
            }
        };
        summary.warnings += warn(candidate, plan);
        output::print_line(&describe(candidate, plan))?;
        if let Some(client) = &mut client {
            match push(client, candidate, plan, Duration::from_secs(args.timeout)).await {
                Ok(()) => {}
                // The next one would not fare better.
                Err(error @ CliError::Unreachable { .. }) => return Err(error),
                Err(error) => {
                    summary.failed += 1;
                    eprintln!("failed: {}: {error}", candidate.name);
                    continue;
                }
            }
        }
        summary.models += 1;
        summary.versions += plan.versions.len();
    }
    conclude(&summary, args.dry_run)
}

/// One line for each setting that does not come along.
fn warn(candidate: &Candidate, plan: &ImportPlan) -> usize {
    let path = candidate.config_path.display();
    for remark in &plan.mapped.remarks {
        eprintln!("warning: {path}:{}: {}: {}", remark.line, remark.field, remark.text);
    }
    plan.mapped.remarks.len()
}

/// `digits: versions v1, v3; maxBatch 8, oversize refuse; not served by Triton: 2`.
fn describe(candidate: &Candidate, plan: &ImportPlan) -> String {
    let labels: Vec<String> = plan.versions.iter().map(|version| label(version.number)).collect();
    let mut text = format!("{}: {}", candidate.name, labels.join(", "));
    let settings = version_settings::describe(&plan.mapped.settings);
    if !settings.is_empty() {
        text.push_str(&format!("; {settings}"));
    }
    if !plan.not_served.is_empty() {
        let numbers: Vec<String> = plan.not_served.iter().map(u64::to_string).collect();
        text.push_str(&format!("; left out by its version policy: {}", numbers.join(", ")));
    }
    text
}

/// A label cannot be digits alone: those are ordinals.
fn label(number: u64) -> String {
    format!("v{number}")
}

async fn push(
    client: &mut AdminClient<Channel>,
    candidate: &Candidate,
    plan: &ImportPlan,
    timeout: Duration,
) -> Result<(), CliError> {
    let name = &candidate.name;
    let mut is_news = false;
    for version in &plan.versions {
        let label = label(version.number);
        let artefact = LocalArtefact::read(&version.file, &[])?;
        let answer = upload(client, name, &label, plan.mapped.settings, &artefact).await?;
        is_news |= answer.changed;
        wait_until_ready(client, name, &label, timeout).await?;
        let done = if answer.changed { "is ready" } else { "was there already and is ready" };
        output::print_line(&format!("  {label} {done}"))?;
        if answer.ordinal != version.number {
            eprintln!(
                "warning: {name}: version {} is model_version \"{}\" or \"{label}\" here",
                version.number, answer.ordinal
            );
        }
    }
    // Imported again, the route is what somebody made of it since.
    match plan.versions.last().filter(|_| is_news) {
        Some(latest) => route(client, name, &label(latest.number), timeout).await,
        None => Ok(()),
    }
}

/// To the latest version, as Triton answers who names none.
async fn route(
    client: &mut AdminClient<Channel>,
    model: &str,
    latest: &str,
    timeout: Duration,
) -> Result<(), CliError> {
    let request = ListRequest { model: model.to_owned(), stale: false };
    let routes = client.list_routes(request).await?.into_inner().routes;
    let current = routes.into_iter().find(|route| route.model == model);
    let is_latest = |weighted: &WeightedVersion| weighted.version == latest;
    if current.is_some_and(|route| route.weights.len() == 1 && route.weights.iter().all(is_latest)) {
        return Ok(());
    }
    let mut request = tonic::Request::new(SetRouteRequest {
        model: model.to_owned(),
        weights: vec![WeightedVersion { version: latest.to_owned(), weight_ppm: WHOLE_PPM }],
        request_id: new_request_id(),
        expected_epoch: 0,
    });
    request.set_timeout(timeout);
    client.set_route(request).await?;
    output::print_line(&format!("  {latest} answers"))
}

fn conclude(summary: &Summary, dry_run: bool) -> Result<(), CliError> {
    let Summary { models, versions, warnings, failed } = summary;
    let done = if dry_run { "would be imported" } else { "imported" };
    let text = format!("{models} models with {versions} versions {done}, {failed} not, {warnings} warnings");
    if *failed > 0 {
        return Err(CliError::No(text));
    }
    output::print_line(&text)
}
