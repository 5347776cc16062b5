//! `starling apply` and `starling rollout` on a real node: what they print, what
//! they refuse, and the exit codes that pipelines rely on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use starling_chaos::cluster::{Cluster, ClusterConfig, START_LIMIT};
use starling_chaos::digits::MODEL;
use starling_chaos::rollouts::starling_exit;
use tempfile::TempDir;

use crate::{my_turn, site};

const LIMIT: Duration = Duration::from_secs(30);

/// One node with two versions, the first of which has the whole route, and a
/// folder for manifests.
struct Scene {
    cluster: Cluster,
    folder: TempDir,
}

impl Scene {
    async fn set() -> Result<Self> {
        let site = site()?;
        let mut cluster = Cluster::start(&site, ClusterConfig::patient(), 1).await?;
        cluster.serve_digits("v1", &site.digits_v1()).await?;
        cluster.admin()?.push(MODEL, "v2", &site.digits_v2()).await?;
        cluster.version_ready(MODEL, "v2", 1, START_LIMIT).await?;
        Ok(Self { cluster, folder: tempfile::tempdir()? })
    }

    fn manifest(&self, name: &str, spec: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(format!("{name}.yaml"));
        let head = format!("apiVersion: starling/v1\nkind: Rollout\nmetadata: {{ name: {name} }}\n");
        std::fs::write(&path, format!("{head}spec: {{ model: digits, {spec} }}\n"))?;
        Ok(path)
    }

    /// The command must exit with this code, and say this.
    async fn says(&mut self, words: &[&str], code: i32, part: &str) -> Result<String> {
        let (found, text) = starling_exit(&mut self.cluster, words).await?;
        ensure!(found == Some(code), "starling {} exited with {found:?}: {text}", words.join(" "));
        ensure!(text.contains(part), "starling {} does not say '{part}': {text}", words.join(" "));
        Ok(text)
    }

    async fn status(&mut self, name: &str) -> Result<Value> {
        let text = self.says(&["rollout", "status", name, "-o", "json"], 0, "{").await?;
        Ok(serde_json::from_str(&text)?)
    }

    async fn stage(&mut self, name: &str, stage: u64) -> Result<Value> {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let status = self.status(name).await?;
            if status["stage"] == stage {
                return Ok(status);
            }
            ensure!(tokio::time::Instant::now() < deadline, "it is not in stage {stage}: {status}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

#[tokio::test]
async fn a_canary_is_steered_by_hand_from_its_start_to_its_undoing() -> Result<()> {
    let _turn = my_turn().await;
    let mut scene = Scene::set().await?;
    let steps = "[{ weight: 10%, pause: untilApproved }, { weight: 100%, pause: 1h }]";
    let spec = format!("to: v2, strategy: {{ canary: {{ steps: {steps} }} }}, interval: 200ms");
    let manifest = scene.manifest("byhand", &spec)?;
    let apply = ["apply", "-f", text(&manifest)];

    scene
        .says(
            &["apply", "--dry-run", "-f", text(&manifest)],
            0,
            "rollout byhand of model digits would go through 2 stages",
        )
        .await?;
    scene.says(&["rollout", "status", "byhand"], 4, "rollout 'byhand' is not found").await?;
    scene.says(&apply, 0, "rollout byhand: started (log index ").await?;
    scene.says(&apply, 0, "rollout byhand: nothing changed, it is under way").await?;

    let owned = "the weights of model 'digits' belong to rollout 'byhand' until it is over";
    scene.says(&["route", "set", "digits", "v2=100"], 5, owned).await?;
    let second = scene.manifest("second", &spec)?;
    scene.says(&["apply", "-f", text(&second)], 5, owned).await?;
    scene.says(&["get", "routes"], 0, "rollout byhand").await?;
    let status = scene.status("byhand").await?;
    assert_eq!(status["phase"], "running");
    assert_eq!(status["weights"][1], serde_json::json!({ "version": "v2", "weight_ppm": 100_000 }));

    scene.says(&["rollout", "pause", "byhand"], 0, "rollout byhand is paused").await?;
    scene
        .says(&["rollout", "status", "byhand", "--wait"], 8, "rollout byhand is paused: paused by local")
        .await?;
    scene.says(&["rollout", "resume", "byhand"], 0, "rollout byhand goes on").await?;
    let waiting = ["rollout", "status", "byhand", "--wait", "--timeout", "1s"];
    scene.says(&waiting, 6, "rollout byhand still runs: waits for approval").await?;

    scene.says(&["rollout", "promote", "byhand"], 0, "rollout byhand promoted").await?;
    scene.stage("byhand", 1).await?;
    scene.says(&["rollout", "promote", "byhand"], 0, "rollout byhand promoted").await?;
    scene
        .says(
            &["rollout", "status", "byhand", "--wait"],
            0,
            "canary of digits, v1 -> v2, promoted, stage 2 of 2",
        )
        .await?;
    scene.says(&["rollout", "watch", "byhand"], 0, "promoted, stage 2 of 2 (shift)").await?;
    scene
        .says(
            &apply,
            0,
            "nothing changed, it is over (promoted); `starling rollout start -f FILE --again` runs it anew",
        )
        .await?;
    let ran = "nothing would change, it is over (promoted)";
    scene.says(&["apply", "--dry-run", "-f", text(&manifest)], 0, ran).await?;
    scene.says(&["rollout", "pause", "byhand"], 5, "rollout 'byhand' is over").await?;

    scene
        .says(&["rollout", "undo", "byhand"], 0, "rollout byhand undone: the route is what it was before")
        .await?;
    scene.says(&["rollout", "status", "byhand", "--wait"], 7, "rollout byhand was undone").await?;
    let history = scene.says(&["rollout", "history", "byhand"], 0, "started").await?;
    let events: Vec<&str> = history
        .lines()
        .skip(1)
        .filter_map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).nth(3))
        .collect();
    assert_eq!(events, ["started", "paused", "resumed", "approved", "stage 2", "promoted", "undone"]);

    scene.says(&["rollout", "start", "byhand", "--again"], 0, "rollout byhand started anew").await?;
    scene.says(&["rollout", "abort", "byhand", "--why", "seen enough"], 0, "rollout byhand aborted").await?;
    scene
        .says(&["rollout", "status", "byhand", "--wait"], 7, "rollout byhand was aborted: seen enough")
        .await?;
    scene.says(&["rollout", "list"], 0, "aborted").await?;
    Ok(())
}

#[tokio::test]
async fn a_canary_without_gates_goes_to_its_end_by_itself() -> Result<()> {
    let _turn = my_turn().await;
    let mut scene = Scene::set().await?;
    let steps = "[{ weight: 50%, pause: 1s }, { weight: 100%, pause: 1s }]";
    let spec = format!("to: v2, strategy: {{ canary: {{ steps: {steps} }} }}, interval: 200ms");
    let manifest = scene.manifest("alone", &spec)?;
    scene.says(&["rollout", "start", "-f", text(&manifest)], 0, "rollout alone: started").await?;
    scene.says(&["rollout", "status", "alone", "--wait", "--timeout", "30s"], 0, "promoted").await?;
    let routes = scene.cluster.admin()?.routes(MODEL).await?;
    assert_eq!(routes[0].weights[0].version, "v2");
    scene.says(&["rollout", "history", "alone"], 0, "stage 1 is over and has no gates").await?;
    Ok(())
}

#[tokio::test]
async fn arms_of_a_bandit_are_set_and_its_winner_is_named() -> Result<()> {
    let _turn = my_turn().await;
    let mut scene = Scene::set().await?;
    let spec = "strategy: { bandit: { arms: { v1: 50%, v2: 50% }, policy: { thompson: {} } } }";
    let manifest = scene.manifest("arms", spec)?;
    scene.says(&["apply", "-f", text(&manifest)], 0, "rollout arms: started").await?;
    let set = ["rollout", "arms", "set", "arms", "v1=80%", "v2=20%"];
    scene.says(&set, 0, "rollout arms has the arms v1=80% v2=20%").await?;
    scene.says(&set, 0, "rollout arms already had the arms v1=80% v2=20%").await?;
    scene
        .says(
            &["rollout", "arms", "set", "arms", "v1=80%", "v2=10%"],
            5,
            "arms: weights sum to 90.0000 % instead of 100 %",
        )
        .await?;
    let drop = ["rollout", "drop-learning", "arms", "--from", "1h ago", "--to", "now"];
    scene.says(&drop, 0, "rollout arms has no rewards of ").await?;
    scene
        .says(&["rollout", "promote", "arms"], 5, "say which version gets everything with `--winner VERSION`")
        .await?;
    scene
        .says(
            &["rollout", "promote", "arms", "--winner", "v2"],
            0,
            "rollout arms promoted: v2 gets everything",
        )
        .await?;
    scene.says(&["rollout", "status", "arms", "--wait"], 0, "bandit of digits, v1 | v2, promoted").await?;
    Ok(())
}

#[tokio::test]
async fn plans_that_cannot_be_carried_out_are_refused_with_the_fields_path() -> Result<()> {
    let _turn = my_turn().await;
    let mut scene = Scene::set().await?;
    let cases = [
        ("to: v2, strategy: { canry: {} }", 2, "spec.strategy: 'canry' is not known"),
        (
            "to: v2, strategy: { canary: { steps: [{ weight: 100% }] } }, gates: [{ f1: {} }]",
            2,
            "spec.gates[0]: no such gate: 'f1'",
        ),
        (
            "to: v2, strategy: { canary: { steps: [{ weight: 100% }] } }, gates: [{ agreement: { min: 98% } }]",
            5,
            "spec.gates[0]: strategy canary has no shadow to look at",
        ),
        (
            "to: v2, strategy: { canary: { steps: [{ weight: 50% }] } }",
            5,
            "spec.strategy.canary.steps: steps must grow from one to the next and end with 100 %",
        ),
        ("to: v1, strategy: { shadow: {} }", 5, "spec.to: version 'v1' is the stable one already"),
        (
            "strategy: { abTest: { arms: { v1: 50%, v2: 40% } } }",
            5,
            "spec.strategy.abTest.arms: weights sum to 90.0000 % instead of 100 %",
        ),
    ];
    for (spec, code, part) in cases {
        let manifest = scene.manifest("wrong", spec)?;
        scene.says(&["apply", "-f", text(&manifest)], code, part).await?;
    }
    let unknown = scene.manifest("unknown", "to: v9, strategy: { shadow: {} }")?;
    for command in [["rollout", "start", "-f", text(&unknown)].as_slice(), &["apply", "-f", text(&unknown)]] {
        scene.says(command, 4, "version 'v9'").await?;
    }
    scene.says(&["rollout", "list"], 0, "ROLLOUT").await?;
    Ok(())
}
