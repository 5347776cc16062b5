//! Starts the rollouts of manifests. One that is known under its name is left
//! alone, and says how to run it anew.

use std::time::Duration;

use starling_proto::admin::{
    DryRunRolloutRequest, GetRolloutRequest, Rollout, RolloutEnding, StartRolloutRequest,
};

use super::super::connection::{admin, new_request_id, rollouts};
use super::super::rollout::{dry_run_lines, ending_words};
use super::super::wait_ready::wait_until_ready;
use super::super::{CliError, output};
use super::rollout::{RolloutManifest, Wanted};
use crate::rollout_wire::spec_to_wire;

/// Shows what each would do, and starts none.
pub async fn dry_run(server: &str, manifests: &[RolloutManifest]) -> Result<(), CliError> {
    for manifest in manifests {
        let request = DryRunRolloutRequest { name: manifest.name.to_string(), spec: Some(spec(manifest)) };
        let answer = rollouts(server).await?.dry_run_rollout(request).await?.into_inner();
        output::print_line(&dry_run_lines(manifest.name.as_str(), &answer).join("\n"))?;
    }
    Ok(())
}

/// Starts each once its versions are ready.
pub async fn carry_out(
    server: &str,
    manifests: &[RolloutManifest],
    timeout: Duration,
) -> Result<(), CliError> {
    for manifest in manifests {
        let mut client = admin(server).await?;
        for version in named_versions(manifest) {
            wait_until_ready(&mut client, manifest.spec.model.as_str(), &version, timeout).await?;
        }
        start(server, manifest, false).await?;
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
    output::print_line(&unchanged_line(&client.get_rollout(request).await?.into_inner()))
}

fn unchanged_line(known: &Rollout) -> String {
    let name = &known.name;
    if known.ending() == RolloutEnding::None {
        return format!("rollout {name}: nothing changed, it is under way");
    }
    format!(
        "rollout {name}: nothing changed, it is over ({}); `starling rollout start -f FILE --again` runs it anew, and so does another name",
        ending_words(known.ending())
    )
}

fn spec(manifest: &RolloutManifest) -> starling_proto::admin::RolloutSpec {
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
    fn applying_what_is_over_says_how_to_run_it_anew() {
        let known =
            |ending: RolloutEnding| Rollout { name: "r".into(), ending: ending.into(), ..Rollout::default() };
        assert_eq!(
            unchanged_line(&known(RolloutEnding::RolledBack)),
            "rollout r: nothing changed, it is over (rolled back); `starling rollout start -f FILE --again` runs it anew, and so does another name"
        );
        assert_eq!(
            unchanged_line(&known(RolloutEnding::None)),
            "rollout r: nothing changed, it is under way"
        );
    }
}
