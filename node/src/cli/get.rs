//! `starling get`: lists of models, versions, nodes, routes and rollouts.

use clap::{Args, ValueEnum};
use starling_proto::admin::{ListRequest, Model, Node, Route, Version, WeightedVersion};

use super::CliError;
use super::connection::admin;
use super::decisions;
use super::output::{self, OutputFormat};
use super::percent::Percent;
use super::route_words;
use super::version_settings;

/// What to list.
#[derive(Debug, Args)]
#[command(after_help = "Example: starling get versions digits -o json")]
pub struct GetArgs {
    /// What to list
    #[arg(value_enum)]
    what: Listing,
    /// Of this model only
    model: Option<String>,
    /// Of decisions: only this one, by the id that its response carried
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    decision: String,
    /// Of decisions: the newest so many
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: u32,
    /// How to show the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
    /// Answer from the node's own state, without asking a quorum
    #[arg(long)]
    stale: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Listing {
    #[value(alias = "model")]
    Models,
    #[value(alias = "version")]
    Versions,
    #[value(alias = "node")]
    Nodes,
    #[value(alias = "route")]
    Routes,
    #[value(alias = "rollout")]
    Rollouts,
    #[value(alias = "decision")]
    Decisions,
}

/// Asks, and prints.
pub async fn run(server: &str, args: GetArgs) -> Result<(), CliError> {
    if args.what == Listing::Nodes && args.model.is_some() {
        return Err(CliError::Local("nodes do not belong to a model; try `starling get nodes`".into()));
    }
    let mut client = admin(server).await?;
    let request = ListRequest { model: args.model.unwrap_or_default(), stale: args.stale };
    let format = args.output;
    match args.what {
        Listing::Models => {
            let answer = client.list_models(request).await?.into_inner();
            output::print(format, &answer.models, MODEL_COLUMNS, |models| {
                models.iter().map(model_row).collect()
            })
        }
        Listing::Versions => {
            let answer = client.list_versions(request).await?.into_inner();
            let wide = format == OutputFormat::Wide;
            let columns = if wide { VERSION_COLUMNS_WIDE } else { VERSION_COLUMNS };
            output::print(format, &answer.versions, columns, |versions| {
                versions.iter().map(|version| version_row(version, wide)).collect()
            })
        }
        Listing::Nodes => {
            let answer = client.list_nodes(request).await?.into_inner();
            output::print(format, &answer.nodes, NODE_COLUMNS, |nodes| node_rows(nodes))
        }
        Listing::Routes => {
            let answer = client.list_routes(request).await?.into_inner();
            output::print(format, &answer.routes, ROUTE_COLUMNS, |routes| {
                routes.iter().flat_map(route_rows).collect()
            })?;
            if matches!(format, OutputFormat::Table | OutputFormat::Wide) {
                print_beside_weights(&answer.routes)?;
            }
            Ok(())
        }
        Listing::Rollouts => super::rollout::list(server, format, request.model, args.stale).await,
        Listing::Decisions => decisions::run(server, format, request.model, args.decision, args.limit).await,
    }
}

const MODEL_COLUMNS: &[&str] = &["model", "versions", "route", "replicas"];

fn model_row(model: &Model) -> Vec<String> {
    let versions: Vec<&str> = model.versions.iter().map(|version| version.label.as_str()).collect();
    let route = model.route.as_ref().map_or_else(|| "none".to_owned(), |route| weights(&route.weights));
    vec![model.name.clone(), versions.join(", "), route, replicas(model.replicas)]
}

fn replicas(count: u32) -> String {
    if count == 0 { "every node".to_owned() } else { count.to_string() }
}

const VERSION_COLUMNS: &[&str] =
    &["model", "version", "ordinal", "phase", "loaded on", "size", "sha256", "reason"];

const VERSION_COLUMNS_WIDE: &[&str] =
    &["model", "version", "ordinal", "phase", "loaded on", "size", "sha256", "settings", "reason"];

fn version_row(version: &Version, wide: bool) -> Vec<String> {
    let mut row = vec![
        version.model.clone(),
        version.label.clone(),
        version.ordinal.to_string(),
        version.phase.clone(),
        joined(&version.loaded_on),
        indicatif::HumanBytes(version.size_bytes).to_string(),
        version.sha256.chars().take(12).collect(),
    ];
    if wide {
        let settings = version_settings::describe(&version.settings.unwrap_or_default());
        row.push(if settings.is_empty() { "defaults".to_owned() } else { settings });
    }
    row.push(version.reason.clone());
    row
}

/// Also the table of `cluster status`.
pub const NODE_COLUMNS: &[&str] = &["node", "role", "state", "grpc", "rest", "peer", "applied", "version"];

/// Also the table of `cluster status`.
pub fn node_rows(nodes: &[Node]) -> Vec<Vec<String>> {
    nodes.iter().map(node_row).collect()
}

fn node_row(node: &Node) -> Vec<String> {
    let role = if node.leader { "leader" } else { &node.role };
    let state = match (node.alive, node.draining) {
        (false, _) => "silent",
        (true, true) => "draining",
        (true, false) => "alive",
    };
    vec![
        node.node_id.to_string(),
        role.to_owned(),
        state.to_owned(),
        node.grpc_address.clone(),
        node.rest_address.clone(),
        node.peer_address.clone(),
        node.applied_index.to_string(),
        node.starling_version.clone(),
    ]
}

const ROUTE_COLUMNS: &[&str] =
    &["model", "epoch", "version", "weight", "requests", "errors", "p50", "p99", "at epoch", "owner"];

/// One row for each version that is routed to now or has served before.
fn route_rows(route: &Route) -> Vec<Vec<String>> {
    let weight_of = |version: &str| {
        let weighted = route.weights.iter().find(|weighted| weighted.version == version);
        weighted.map_or_else(|| "0%".to_owned(), |weighted| percent(weighted.weight_ppm))
    };
    let start = |version: &str| {
        vec![route.model.clone(), route.epoch.to_string(), version.to_owned(), weight_of(version)]
    };
    let mut rows = Vec::new();
    for traffic in &route.traffic {
        let mut row = start(&traffic.version);
        row.extend([
            traffic.requests.to_string(),
            traffic.errors.to_string(),
            micros(traffic.latency_p50_us),
            micros(traffic.latency_p99_us),
            traffic.epoch.to_string(),
            owner(route),
        ]);
        rows.push(row);
    }
    for weighted in &route.weights {
        if route.traffic.iter().all(|traffic| traffic.version != weighted.version) {
            let mut row = start(&weighted.version);
            row.extend(["0", "0", "-", "-", "-"].map(String::from));
            row.push(owner(route));
            rows.push(row);
        }
    }
    rows
}

/// Rules and shadows, under the table.
fn print_beside_weights(routes: &[Route]) -> Result<(), CliError> {
    for route in routes {
        for line in route_words::lines(route) {
            output::print_line(&format!("{}: {line}", route.model))?;
        }
    }
    Ok(())
}

/// The rollout that owns the weights.
fn owner(route: &Route) -> String {
    if route.owner.is_empty() { "-".to_owned() } else { format!("rollout {}", route.owner) }
}

/// `v1=90% v2=10%`.
pub(super) fn weights(weights: &[WeightedVersion]) -> String {
    let shown: Vec<String> = weights
        .iter()
        .map(|weighted| format!("{}={}", weighted.version, percent(weighted.weight_ppm)))
        .collect();
    shown.join(" ")
}

/// `12.5%`.
pub(super) fn percent(ppm: u32) -> String {
    Percent::from_ppm(ppm).map_or_else(|| format!("{ppm} ppm"), |percent| percent.to_string())
}

/// As people read it.
pub(super) fn micros(micros: f64) -> String {
    if micros >= 1_000.0 { format!("{:.2} ms", micros / 1_000.0) } else { format!("{micros:.0} µs") }
}

fn joined(ids: &[u64]) -> String {
    let shown: Vec<String> = ids.iter().map(u64::to_string).collect();
    shown.join(",")
}
