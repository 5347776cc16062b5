//! Carries a plan out, step by step, and says what it does.

use std::time::Duration;

use starling_proto::admin::admin_client::AdminClient;
use starling_proto::admin::{
    ConfigureRouteRequest, RouteRules, RouteShadows, SetPlacementRequest, SetRouteRequest,
};
use tonic::transport::Channel;

use super::super::connection::new_request_id;
use super::super::route::wire_weights;
use super::super::wait_ready::wait_until_ready;
use super::super::{CliError, model, output};
use super::diff;
use super::manifest::ModelManifest;
use super::plan::{Plan, Step};

/// Stops at the first failure; applying again goes on from there.
pub async fn carry_out(
    client: &mut AdminClient<Channel>,
    manifest: &ModelManifest,
    plan: &Plan,
    wait_for_all: bool,
    timeout: Duration,
) -> Result<(), CliError> {
    let name = &manifest.name;
    for step in &plan.steps {
        match step {
            Step::Push { position, label } => {
                let Some(desired) = manifest.versions.get(*position) else { continue };
                let answer = model::upload(client, name, label, desired.settings, &desired.artefact).await?;
                output::print_line(&format!("model {name}: pushed {label} (ordinal {})", answer.ordinal))?;
            }
            Step::SetPlacement(replicas) => {
                let request = SetPlacementRequest {
                    model: name.clone(),
                    replicas: *replicas,
                    request_id: new_request_id(),
                };
                client.set_placement(request).await?;
                let placed = match replicas {
                    0 => "every node".to_owned(),
                    count => format!("{count} nodes"),
                };
                output::print_line(&format!("model {name}: placed on {placed}"))?;
            }
            Step::SetRoute(weights) => {
                for (version, percent) in weights {
                    if percent.ppm() > 0 {
                        wait_until_ready(client, name, version, timeout).await?;
                    }
                }
                let request = SetRouteRequest {
                    model: name.clone(),
                    weights: wire_weights(weights),
                    request_id: new_request_id(),
                    expected_epoch: 0,
                };
                let answer = client.set_route(request).await?.into_inner();
                let shown: Vec<String> =
                    weights.iter().map(|(version, percent)| format!("{version}={percent}")).collect();
                let shown = shown.join(" ");
                output::print_line(&format!("model {name}: route is {shown} (epoch {})", answer.log_index))?;
            }
            Step::Configure { rules, shadows } => {
                let named = rules.iter().flatten().map(|rule| &rule.version);
                for version in named.chain(shadows.iter().flatten().map(|shadow| &shadow.version)) {
                    wait_until_ready(client, name, version, timeout).await?;
                }
                let request = ConfigureRouteRequest {
                    model: name.clone(),
                    rules: rules.clone().map(|rules| RouteRules { rules }),
                    shadows: shadows.clone().map(|shadows| RouteShadows { shadows }),
                    request_id: new_request_id(),
                    expected_epoch: 0,
                };
                let answer = client.configure_route(request).await?.into_inner();
                let count = |what: &str, count: Option<usize>| {
                    count.map(|count| format!("{count} {what}{}", if count == 1 { "" } else { "s" }))
                };
                let set: Vec<String> = [
                    count("rule", rules.as_ref().map(Vec::len)),
                    count("shadow", shadows.as_ref().map(Vec::len)),
                ]
                .into_iter()
                .flatten()
                .collect();
                let set = set.join(" and ");
                output::print_line(&format!("model {name}: route has {set} (epoch {})", answer.log_index))?;
            }
        }
    }
    if wait_for_all {
        for version in &manifest.versions {
            wait_until_ready(client, name, &version.label, timeout).await?;
        }
    }
    let kept = diff::kept_line(plan);
    let result = if plan.steps.is_empty() { "nothing changed" } else { "done" };
    output::print_line(&format!("model {name}: {result}{kept}"))
}
