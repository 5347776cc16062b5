//! What concurrent clients see while leaders are killed and paused could have
//! happened one operation at a time.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use starling_chaos::cluster::{Cluster, ClusterConfig};
use starling_chaos::scenarios::{FAILOVER_LIMIT, SETTLE_LIMIT, time_without_leader};
use tokio::process::Command;

use crate::{my_turn, site};

const MODELS: [&str; 2] = ["digits", "numbers"];
/// Long enough for two failovers and two returns on a slow machine.
const SECONDS: u64 = 20;

#[tokio::test]
async fn routes_are_linearizable_while_leaders_are_killed_and_paused() -> Result<()> {
    let _turn = my_turn().await;
    let mut cluster = Cluster::start(&site()?, ClusterConfig::patient(), 3).await?;
    let files = [cluster.site().digits_v1(), cluster.site().digits_v2()];
    for model in MODELS {
        for (label, file) in ["v1", "v2"].into_iter().zip(&files) {
            cluster.admin()?.push(model, label, file).await?;
            cluster.version_ready(model, label, 3, SETTLE_LIMIT).await?;
        }
    }

    let servers: Vec<String> = cluster.nodes().iter().map(|node| node.grpc().to_string()).collect();
    let history = cluster.folder().join("history.jsonl");
    let recorder = Command::new(recorder(&cluster)?)
        .args(["run", "--servers", &servers.join(","), "--models", &MODELS.join(",")])
        .args(["--seconds", &SECONDS.to_string(), "--history"])
        .arg(&history)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;

    let leader = cluster.leader(FAILOVER_LIMIT).await?;
    cluster.node(leader).kill().await?;
    cluster.leader(FAILOVER_LIMIT).await?;
    cluster.restart(leader).await?;
    let leader = cluster.leader(FAILOVER_LIMIT).await?;
    let paused = cluster.node(leader).node_id().context("a leader without an id")?;
    let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    cluster.node(leader).pause()?;
    time_without_leader(&cluster, &others, paused, Instant::now()).await?;
    cluster.node(leader).resume()?;

    let ended = tokio::time::timeout(Duration::from_secs(4 * SECONDS), recorder.wait_with_output())
        .await
        .context("the recorder does not end")??;
    let verdict = String::from_utf8_lossy(&ended.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&ended.stderr).into_owned();
    ensure!(ended.status.success(), "{verdict}\n{complaint}");
    ensure!(verdict.contains("on 2 routes"), "{verdict}");
    let operations = std::fs::read_to_string(&history)?.lines().count();
    ensure!(operations > 200, "only {operations} operations were recorded: {verdict}");
    assert!(cluster.admin()?.verify().await?.equal);
    Ok(())
}

/// Built beside the binary under test.
fn recorder(cluster: &Cluster) -> Result<PathBuf> {
    let recorder = cluster.site().binary.with_file_name("starling-jepsen");
    ensure!(recorder.is_file(), "{} is not built; `cargo build --workspace` builds it", recorder.display());
    Ok(recorder)
}
