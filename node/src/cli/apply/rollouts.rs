//! Starts the rollouts of manifests. One that is known under its name is left
//! alone, and says how to run it anew.

use std::time::Duration;

use starling_proto::admin::{
    DryRunRolloutRequest, GetRolloutRequest, ListRequest, Rollout, RolloutEnding, RolloutSpec,
    StartRolloutRequest,
};

use super::super::connection::{admin, new_request_id, rollouts};
use super::super::rollout::{dry_run_lines, ending_words};
use super::super::wait_ready::wait_until_ready;
use super::super::{CliError, output};
use super::rollout::{RolloutManifest, Wanted};
use crate::rollout_wire::spec_to_wire;

/// Shows what each would do, and starts none. `again`: also of one that is over.
pub async fn dry_run(server: &str, manifests: &[RolloutManifest], again: bool) -> Result<(), CliError> {
    let mut client = rollouts(server).await?;
    for manifest in manifests {
        let name = manifest.name.to_string();
        let request = GetRolloutRequest { name: name.clone(), stale: true };
        let known = match client.get_rollout(request).await {
            Ok(known) => Some(known.into_inner()),
            Err(status) if status.code() == tonic::Code::NotFound => None,
            Err(status) => return Err(status.into()),
        };
        if let Some(known) = known.filter(|known| !again && has_plan(known, spec(manifest))) {
            output::print_line(&unchanged_line(&known, "nothing would change"))?;
            continue;
        }
        let request = DryRunRolloutRequest { name: name.clone(), spec: Some(spec(manifest)) };
        let answer = client.dry_run_rollout(request).await?.into_inner();
        output::print_line(&dry_run_lines(&name, &answer).join("\n"))?;
    }
    Ok(())
}

/// Whether it is over and was asked for by this plan.
fn has_plan(known: &Rollout, plan: RolloutSpec) -> bool {
    let Some(spec) = known.spec.as_ref().filter(|_| known.ending() != RolloutEnding::None) else {
        return false;
    };
    let from = if plan.from.is_empty() { spec.from.clone() } else { plan.from.clone() };
    *spec == RolloutSpec { from, ..plan }
}

/// Starts each once its versions are ready.
pub async fn carry_out(
    server: &str,
    manifests: &[RolloutManifest],
    timeout: Duration,
) -> Result<(), CliError> {
    for manifest in manifests {
        wait_for_versions(server, manifest, timeout).await?;
        start(server, manifest, false).await?;
    }
    Ok(())
}

/// Versions that are there may still be loading; whatever is not there is refused
/// by the start.
async fn wait_for_versions(
    server: &str,
    manifest: &RolloutManifest,
    timeout: Duration,
) -> Result<(), CliError> {
    let model = manifest.spec.model.as_str();
    let mut client = admin(server).await?;
    let request = ListRequest { model: model.to_owned(), stale: false };
    let versions = client.list_versions(request).await?.into_inner().versions;
    for named in named_versions(manifest) {
        if versions.iter().any(|version| version.label == named || version.ordinal.to_string() == named) {
            wait_until_ready(&mut client, model, &named, timeout).await?;
        }
    }
    Ok(())
}

/// Starts one, and says what came of it.
pub async fn start(server: &str, manifest: &RolloutManifest, again: bool) -> Result<(), CliError> {
    let name = manifest.name.to_string();
    let mut client = rollouts(server).await?;
    let request = StartRolloutRequest {
        name: name.clone(),
        spec: Some(spec(manifest)),
        again,
        request_id: new_request_id(),
    };
    let answer = client.start_rollout(request).await?.into_inner();
    if answer.changed {
        return output::print_line(&format!(
            "rollout {name}: started (log index {}); `starling rollout watch {name}` shows it",
            answer.log_index
        ));
    }
    let request = GetRolloutRequest { name, stale: true };
    let known = client.get_rollout(request).await?.into_inner();
    output::print_line(&unchanged_line(&known, "nothing changed"))
}

fn unchanged_line(known: &Rollout, nothing: &str) -> String {
    let name = &known.name;
    if known.ending() == RolloutEnding::None {
        return format!("rollout {name}: {nothing}, it is under way");
    }
    format!(
        "rollout {name}: {nothing}, it is over ({}); `starling rollout start -f FILE --again` runs it anew, and so does another name",
        ending_words(known.ending())
    )
}

fn spec(manifest: &RolloutManifest) -> RolloutSpec {
    let name = |version: &Wanted| version.as_ref().map(ToString::to_string).unwrap_or_default();
    spec_to_wire(&manifest.spec, name)
}

fn named_versions(manifest: &RolloutManifest) -> Vec<String> {
    let spec = &manifest.spec;
    let arms = spec.arms().iter().map(|arm| &arm.version);
    let named = arms.chain(spec.candidate()).chain([&spec.from]).flatten();
    named.map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_ran_is_the_same_where_the_stable_version_is_not_named() {
        let plan = |from: &str, model: &str| RolloutSpec {
            from: from.into(),
            model: model.into(),
            ..RolloutSpec::default()
        };
        let ran = Rollout {
            spec: Some(plan("v1", "digits")),
            ending: RolloutEnding::Promoted.into(),
            ..Rollout::default()
        };
        assert!(has_plan(&ran, plan("", "digits")));
        assert!(has_plan(&ran, plan("v1", "digits")));
        assert!(!has_plan(&ran, plan("v2", "digits")));
        assert!(!has_plan(&ran, plan("", "other")));
        assert!(!has_plan(&Rollout { ending: 0, ..ran }, plan("v1", "digits")));
    }

    #[test]
    fn applying_what_is_over_says_how_to_run_it_anew() {
        let known =
            |ending: RolloutEnding| Rollout { name: "r".into(), ending: ending.into(), ..Rollout::default() };
        assert_eq!(
            unchanged_line(&known(RolloutEnding::RolledBack), "nothing changed"),
            "rollout r: nothing changed, it is over (rolled back); `starling rollout start -f FILE --again` runs it anew, and so does another name"
        );
        assert_eq!(
            unchanged_line(&known(RolloutEnding::None), "nothing would change"),
            "rollout r: nothing would change, it is under way"
        );
    }
}
