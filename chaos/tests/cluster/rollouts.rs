//! Rollouts that decide for themselves: what goes wrong is taken back, what is
//! right goes on, once, whoever leads and wherever the traffic is.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use starling_chaos::caller::Targets;
use starling_chaos::cluster::{Cluster, ClusterConfig, START_LIMIT};
use starling_chaos::digits::{self, MODEL};
use starling_chaos::load::{Draw, Load, LoadConfig};
use starling_chaos::rollouts::{apply, each_step_once, happened, history, over, starling, starling_exit};
use starling_chaos::scenarios::{SETTLE_LIMIT, time_without_leader};
use starling_chaos::wait;

use crate::{my_turn, site};

const LOAD: LoadConfig =
    LoadConfig { workers_per_node: 2, pause: Duration::from_millis(4), draw: Draw::WithReplacement };
/// Far more than any of these rollouts takes, on a busy machine as well.
const ROLLOUT_LIMIT: Duration = Duration::from_secs(90);
const FAILOVER_LIMIT: Duration = Duration::from_secs(15);

/// Some nodes that serve v2, and have the candidate ready.
async fn serving(nodes: usize, candidate: &str) -> Result<Cluster> {
    let site = site()?;
    let mut cluster = Cluster::start(&site, ClusterConfig::patient(), nodes).await?;
    cluster.serve_digits("v2", &site.digits_v2()).await?;
    let file = if candidate == "v3" { site.digits_v1() } else { site.digits(candidate) };
    cluster.admin()?.push(MODEL, candidate, &file).await?;
    cluster.version_ready(MODEL, candidate, nodes, START_LIMIT).await?;
    Ok(cluster)
}

/// A canary from v2 with these steps and whatever else its spec says.
fn canary(cluster: &Cluster, candidate: &str, steps: &str, rest: &str) -> Result<PathBuf> {
    let manifest = format!(
        "apiVersion: starling/v1\nkind: Rollout\nmetadata: {{ name: try }}\nspec:\n  model: {MODEL}\n  from: v2\n  to: {candidate}\n  strategy: {{ canary: {{ steps: [{steps}] }} }}\n  interval: 200ms\n{rest}"
    );
    let path = cluster.folder().join("rollout.yaml");
    std::fs::write(&path, manifest)?;
    Ok(path)
}

fn load_of(cluster: &Cluster, targets: &Targets) -> Result<Load> {
    Ok(Load::start(targets, digits::read(&cluster.site().models)?, LOAD, "all"))
}

async fn answers_more(load: &Load, count: u64) -> Result<()> {
    let wanted = load.ledger()?.answered + count;
    wait::until("traffic to go on", SETTLE_LIMIT, || async {
        let answered = load.ledger()?.answered;
        ensure!(answered >= wanted, "{answered} of {wanted} requests are answered");
        Ok(())
    })
    .await
}

async fn weights(cluster: &mut Cluster) -> Result<Vec<(String, u32)>> {
    let routes = cluster.admin()?.routes(MODEL).await?;
    let weights = &routes.first().context("no route")?.weights;
    Ok(weights.iter().map(|weight| (weight.version.clone(), weight.weight_ppm)).collect())
}

#[tokio::test]
async fn a_candidate_that_fails_every_image_is_rolled_back_and_nobody_notices() -> Result<()> {
    let _turn = my_turn().await;
    let mut cluster = serving(3, "broken").await?;
    let load = load_of(&cluster, &cluster.targets())?;
    answers_more(&load, 200).await?;
    let steps = "{ weight: 20%, pause: 30s }, { weight: 100%, pause: 30s }";
    let rest = "  retryOnStable: true\n  gates: [{ errorRate: { max: 2% } }]\n";
    let manifest = canary(&cluster, "broken", steps, rest)?;
    apply(&mut cluster, &manifest).await?;
    let happenings = over(&mut cluster, "try", ROLLOUT_LIMIT).await?;
    let (first, last) = (happenings.first().context("a start")?, happenings.last().context("an end")?);
    assert_eq!(last.said.ending.as_deref(), Some("rolledBack"));
    let error_rate = last
        .said
        .evidence
        .iter()
        .find(|measure| measure.what == "errorRate")
        .context("the number behind it")?;
    assert!(error_rate.value > 500_000 && error_rate.samples > 0, "{error_rate:?}");
    let took = Duration::from_micros(last.log_time_us - first.log_time_us);
    assert!(took < Duration::from_secs(20), "well before the pause of its step: {took:?}");
    assert_eq!(weights(&mut cluster).await?, [("v2".to_owned(), 1_000_000)]);
    let ledger = load.stop().await?;
    assert_eq!((ledger.failures(), ledger.retried.len()), (0, 0), "{:?} {:?}", ledger.failed, ledger.retried);
    Ok(())
}

#[tokio::test]
async fn a_candidate_that_is_much_slower_is_rolled_back() -> Result<()> {
    let _turn = my_turn().await;
    let mut cluster = serving(1, "slow").await?;
    let load = load_of(&cluster, &cluster.targets())?;
    answers_more(&load, 200).await?;
    let steps = "{ weight: 30%, pause: 60s }, { weight: 100%, pause: 60s }";
    let manifest = canary(&cluster, "slow", steps, "  gates: [{ latencyP99: { maxRatio: 1.5 } }]\n")?;
    apply(&mut cluster, &manifest).await?;
    let happenings = over(&mut cluster, "try", ROLLOUT_LIMIT).await?;
    let last = happenings.last().context("an end")?;
    assert_eq!(last.said.ending.as_deref(), Some("rolledBack"));
    assert!(last.said.evidence.iter().any(|measure| measure.what.starts_with("latency")), "{last:?}");
    assert_eq!(weights(&mut cluster).await?, [("v2".to_owned(), 1_000_000)]);
    assert_eq!(load.stop().await?.failures(), 0);
    Ok(())
}

#[tokio::test]
async fn without_traffic_a_rollout_waits_says_what_for_and_goes_on_once_there_is_some() -> Result<()> {
    let _turn = my_turn().await;
    let mut cluster = serving(1, "v3").await?;
    let steps = "{ weight: 50%, pause: 500ms }, { weight: 100%, pause: 500ms }";
    let rest = "  gates: [{ errorRate: { max: 5%, minSamples: 100 } }]\n  inconclusiveAfter: 1h\n";
    let manifest = canary(&cluster, "v3", steps, rest)?;
    apply(&mut cluster, &manifest).await?;
    let text = wait::until("the rollout to say what it waits for", SETTLE_LIMIT, || async {
        let server = cluster.nodes()[0].grpc().to_string();
        let words = ["--server", &server, "rollout", "status", "try", "-o", "json"];
        let site = cluster.site();
        let (code, text) = starling_chaos::process::run_to_end(site, &words, SETTLE_LIMIT).await?;
        ensure!(code == Some(0) && text.contains("waits_for") && text.contains("100"), "{code:?} {text}");
        Ok(text)
    })
    .await?;
    let status: Value = serde_json::from_str(&text)?;
    assert_eq!(status["name"], "try", "{text}");
    // Far longer than the pauses of all its steps.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let happenings = history(&cluster.admin()?, "try").await?;
    assert_eq!(happenings.len(), 1, "silence promotes nobody: {happenings:?}");

    let load = load_of(&cluster, &cluster.targets())?;
    let happenings = over(&mut cluster, "try", ROLLOUT_LIMIT).await?;
    each_step_once(&happenings)?;
    assert_eq!(happenings.last().context("an end")?.said.ending.as_deref(), Some("promoted"));
    assert_eq!(load.stop().await?.failures(), 0);
    Ok(())
}

#[tokio::test]
async fn a_leader_that_is_killed_again_and_again_takes_each_step_once_and_none_too_early() -> Result<()> {
    let _turn = my_turn().await;
    let mut cluster = serving(3, "v3").await?;
    let load = load_of(&cluster, &cluster.targets())?;
    let weights_percent = [5, 10, 20, 40, 60, 80, 100];
    let steps: Vec<String> =
        weights_percent.iter().map(|weight| format!("{{ weight: {weight}%, pause: 2s }}")).collect();
    let rest = "  gates: [{ errorRate: { max: 20% } }]\n";
    let manifest = canary(&cluster, "v3", &steps.join(", "), rest)?;
    apply(&mut cluster, &manifest).await?;
    for kill in 1..=3 {
        happened(&mut cluster, "try", "RolloutAdvanced", kill, ROLLOUT_LIMIT).await?;
        let leader = cluster.leader(FAILOVER_LIMIT).await?;
        let gone = cluster.node(leader).node_id().context("a leader without an id")?;
        cluster.node(leader).kill().await?;
        let others = cluster.running();
        time_without_leader(&cluster, &others, gone, std::time::Instant::now()).await?;
        cluster.restart(leader).await?;
    }
    let happenings = over(&mut cluster, "try", ROLLOUT_LIMIT).await?;
    each_step_once(&happenings)?;
    assert_eq!(happenings.last().context("an end")?.said.ending.as_deref(), Some("promoted"));
    let steps = happenings.iter().filter(|step| step.kind != "RolloutPaused");
    let times: Vec<u64> = steps.map(|step| step.log_time_us).collect();
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= 2_000_000, "a step was hurried: {times:?}");
    }
    cluster.settled(SETTLE_LIMIT).await?;
    assert!(cluster.admin()?.verify().await?.equal);
    assert_eq!(load.stop().await?.failures(), 0);
    Ok(())
}

#[tokio::test]
async fn traffic_that_reaches_followers_only_decides_as_well() -> Result<()> {
    let _turn = my_turn().await;
    let mut cluster = serving(3, "broken").await?;
    let leader = cluster.leader(FAILOVER_LIMIT).await?;
    let followers = (0..3).filter(|index| *index != leader).map(|index| cluster.nodes()[index].grpc());
    let load = load_of(&cluster, &Targets::new(followers.collect()))?;
    answers_more(&load, 100).await?;
    let steps = "{ weight: 50%, pause: 60s }, { weight: 100%, pause: 60s }";
    let rest = "  retryOnStable: true\n  gates: [{ errorRate: { max: 5% } }]\n";
    let manifest = canary(&cluster, "broken", steps, rest)?;
    apply(&mut cluster, &manifest).await?;
    let happenings = over(&mut cluster, "try", ROLLOUT_LIMIT).await?;
    assert_eq!(happenings.last().context("an end")?.said.ending.as_deref(), Some("rolledBack"));
    assert_eq!(load.stop().await?.failures(), 0);
    Ok(())
}

#[tokio::test]
async fn a_route_has_one_owner_and_goes_back_to_what_was_before() -> Result<()> {
    let _turn = my_turn().await;
    let mut cluster = serving(1, "v3").await?;
    let steps = "{ weight: 50%, pause: untilApproved }, { weight: 100%, pause: 0s }";
    let manifest = canary(&cluster, "v3", steps, "")?;
    apply(&mut cluster, &manifest).await?;
    let (code, text) = starling_exit(&mut cluster, &["route", "set", MODEL, "v3=100"]).await?;
    assert_ne!(code, Some(0));
    assert!(text.contains("belong to rollout 'try'"), "{text}");

    starling(&mut cluster, &["rollout", "promote", "try", "--full"]).await?;
    over(&mut cluster, "try", ROLLOUT_LIMIT).await?;
    assert_eq!(weights(&mut cluster).await?, [("v3".to_owned(), 1_000_000)]);
    let again = apply(&mut cluster, &manifest).await?;
    assert!(again.contains("--again"), "{again}");
    assert_eq!(weights(&mut cluster).await?, [("v3".to_owned(), 1_000_000)]);

    starling(&mut cluster, &["rollout", "undo", "try"]).await?;
    assert_eq!(weights(&mut cluster).await?, [("v2".to_owned(), 1_000_000)]);
    let (code, text) = starling_exit(&mut cluster, &["rollout", "undo", "tyr"]).await?;
    assert_ne!(code, Some(0));
    assert!(text.contains("rollout 'tyr' is not found"), "{text}");
    Ok(())
}
