//! Rollouts as a user drives them: a manifest through `starling apply`, and what
//! the event history says came of it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use starling_proto::admin as wire;

use crate::admin::Admin;
use crate::cluster::Cluster;
use crate::process::run_to_end;
use crate::wait;

const COMMAND_LIMIT: Duration = Duration::from_secs(40);

/// One thing that happened to a rollout.
#[derive(Debug, Clone)]
pub struct Happening {
    /// Where in the log.
    pub log_index: u64,
    /// In microseconds of log time.
    pub log_time_us: u64,
    /// `RolloutAdvanced`, …
    pub kind: String,
    /// What the event says.
    pub said: Said,
}

/// The parts of such events that the scenarios look at.
#[derive(Debug, Clone, Deserialize)]
pub struct Said {
    /// Which rollout.
    pub name: String,
    /// The stage it entered.
    #[serde(default)]
    pub stage: Option<u32>,
    /// How it ended.
    #[serde(default)]
    pub ending: Option<String>,
    /// For people.
    #[serde(default)]
    pub why: String,
    /// Ordinals and parts per million.
    #[serde(default)]
    pub weights: Vec<(u64, u32)>,
    /// The numbers behind it.
    #[serde(default)]
    pub evidence: Vec<Evidence>,
}

/// A number that caused a step.
#[derive(Debug, Clone, Deserialize)]
pub struct Evidence {
    /// `errorRate`, …
    pub what: String,
    /// In millionths.
    pub value: i64,
    /// Out of how many.
    pub samples: u64,
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:.3} of {}", self.what, self.value as f64 / 1e6, self.samples)
    }
}

/// Runs `starling` with these words against the first node that runs; fails with
/// what it printed unless it exits with 0.
pub async fn starling(cluster: &mut Cluster, words: &[&str]) -> Result<String> {
    let (code, text) = starling_exit(cluster, words).await?;
    ensure!(code == Some(0), "starling {} exited with {code:?}: {text}", words.join(" "));
    Ok(text)
}

/// The same, whatever it exits with.
pub async fn starling_exit(cluster: &mut Cluster, words: &[&str]) -> Result<(Option<i32>, String)> {
    let first = cluster.running().first().copied().context("no node runs")?;
    let server = cluster.nodes()[first].grpc().to_string();
    let mut args = vec!["--server", server.as_str()];
    args.extend_from_slice(words);
    run_to_end(cluster.site(), &args, COMMAND_LIMIT).await
}

/// Applies a manifest.
pub async fn apply(cluster: &mut Cluster, manifest: &Path) -> Result<String> {
    let manifest = manifest.to_str().context("a path that is no text")?;
    starling(cluster, &["apply", "-f", manifest]).await
}

/// What happened to a rollout so far, in order.
pub async fn history(admin: &Admin, name: &str) -> Result<Vec<Happening>> {
    let records = admin.events(0).await?;
    let of_rollouts = records.into_iter().filter(|record| record.kind.starts_with("Rollout"));
    let mut happenings = Vec::new();
    for record in of_rollouts {
        let happening = happening(record)?;
        if happening.said.name == name {
            happenings.push(happening);
        }
    }
    Ok(happenings)
}

fn happening(record: wire::EventRecord) -> Result<Happening> {
    let said = serde_json::from_str(&record.json)
        .with_context(|| format!("event {} at {}: {}", record.kind, record.log_index, record.json))?;
    let wire::EventRecord { log_index, log_time_us, kind, .. } = record;
    Ok(Happening { log_index, log_time_us, kind, said })
}

/// Waits until something of this kind has happened to a rollout; `at_least` so often.
pub async fn happened(
    cluster: &mut Cluster,
    name: &str,
    kind: &str,
    at_least: usize,
    limit: Duration,
) -> Result<Vec<Happening>> {
    let admin = cluster.admin()?;
    wait::until(&format!("{kind} of {name}"), limit, || async {
        let happenings = history(&admin, name).await?;
        let count = happenings.iter().filter(|happening| happening.kind == kind).count();
        if count < at_least {
            let last = happenings.last().map_or("nothing", |happening| happening.kind.as_str());
            bail!("{count} of {at_least} times; the last thing that happened is {last}");
        }
        Ok(happenings)
    })
    .await
}

/// Waits until a rollout is over.
pub async fn over(cluster: &mut Cluster, name: &str, limit: Duration) -> Result<Vec<Happening>> {
    happened(cluster, name, "RolloutFinished", 1, limit).await
}

/// Every stage was entered once, in order, and the end came once.
pub fn each_step_once(happenings: &[Happening]) -> Result<()> {
    let stages: Vec<u32> = happenings.iter().filter_map(|happening| happening.said.stage).collect();
    let expected: Vec<u32> = (1..=stages.len() as u32).collect();
    ensure!(stages == expected, "the stages entered are {stages:?}");
    let ends = happenings.iter().filter(|happening| happening.kind == "RolloutFinished").count();
    ensure!(ends == 1, "it ended {ends} times");
    Ok(())
}
