//! `starling route`: which versions of a model answer, how often, and what comes
//! before and beside that.

use clap::{Args, Subcommand};
use starling_proto::admin::{ListRequest, SetRouteRequest, WeightedVersion};

use super::connection::{admin, new_request_id};
use super::get::weights as weights_shown;
use super::output::OutputFormat;
use super::percent::Percent;
use super::route_words;
use super::{CliError, output};

/// What can be done to a route.
#[derive(Debug, Subcommand)]
pub enum RouteCommand {
    /// Set the weights of a model's versions
    Set(SetArgs),
    /// Show weights, rules and shadows
    Show(ShowArgs),
}

/// Whose route.
#[derive(Debug, Args)]
#[command(after_help = "Rules and shadows are set by `starling apply`; see docs/routes.md")]
pub struct ShowArgs {
    /// The model
    model: String,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// The new weights.
#[derive(Debug, Args)]
#[command(after_help = "Example: starling route set digits v1=90 v2=10")]
pub struct SetArgs {
    /// The model
    model: String,
    /// VERSION=PERCENT, by label or ordinal; they sum to 100
    #[arg(required = true, value_name = "VERSION=PERCENT", value_parser = parse_weight)]
    weights: Vec<(String, Percent)>,
    /// Refuse if the route is not at this epoch any more
    #[arg(long, value_name = "EPOCH", default_value_t = 0, hide_default_value = true)]
    expected_epoch: u64,
}

/// `VERSION=PERCENT`.
pub fn parse_weight(text: &str) -> Result<(String, Percent), String> {
    let (version, percent) =
        text.split_once('=').ok_or_else(|| format!("'{text}' is not VERSION=PERCENT, as in v2=100"))?;
    Ok((version.to_owned(), percent.parse()?))
}

/// Carries it out.
pub async fn run(server: &str, command: RouteCommand) -> Result<(), CliError> {
    match command {
        RouteCommand::Set(args) => set(server, args).await,
        RouteCommand::Show(args) => show(server, args).await,
    }
}

async fn show(server: &str, args: ShowArgs) -> Result<(), CliError> {
    let request = ListRequest { model: args.model.clone(), stale: false };
    let models = admin(server).await?.list_models(request).await?.into_inner().models;
    let Some(route) = models.into_iter().find_map(|model| model.route) else {
        return Err(CliError::No(format!(
            "model {} has no route: none of its versions is ready",
            args.model
        )));
    };
    if !matches!(args.output, OutputFormat::Table | OutputFormat::Wide) {
        return output::print_document(args.output, &route);
    }
    let mut lines = vec![format!("route of {} (epoch {}):", args.model, route.epoch)];
    lines.extend(route_words::lines(&route).into_iter().map(|line| format!("  {line}")));
    lines.push(format!("  weights {}", weights_shown(&route.weights)));
    if !route.owner.is_empty() {
        lines.push(format!("  the weights belong to rollout {}", route.owner));
    }
    output::print_line(&lines.join("\n"))
}

async fn set(server: &str, args: SetArgs) -> Result<(), CliError> {
    let SetArgs { model, weights, expected_epoch } = args;
    let shown: Vec<String> =
        weights.iter().map(|(version, percent)| format!("{version}={percent}")).collect();
    let request = SetRouteRequest {
        model: model.clone(),
        weights: wire_weights(&weights),
        request_id: new_request_id(),
        expected_epoch,
    };
    let answer = admin(server).await?.set_route(request).await?.into_inner();
    let shown = shown.join(" ");
    if answer.changed {
        return output::print_line(&format!("route of {model} is {shown} (epoch {})", answer.log_index));
    }
    output::print_line(&format!("route of {model} already was {shown}"))
}

/// Weights as the wire has them.
pub fn wire_weights(weights: &[(String, Percent)]) -> Vec<WeightedVersion> {
    weights
        .iter()
        .map(|(version, percent)| WeightedVersion { version: version.clone(), weight_ppm: percent.ppm() })
        .collect()
}
