//! One module for each scenario: it starts a cluster, breaks it, and reports.

pub mod bootstrap_race;
pub mod demo;
pub mod join_snapshot;
pub mod kill_all;
pub mod kill_leader;
pub mod partition;
pub mod pause_leader;
pub mod rolling_restart;
pub mod rollouts;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cause::Cause;
use crate::cluster::{Cluster, ClusterConfig};
use crate::digits;
use crate::load::{Draw, Load, LoadConfig, MissKind};
use crate::report::Report;
use crate::site::Site;
use crate::wait;

/// A new leader, at the latest.
pub const FAILOVER_LIMIT: Duration = Duration::from_secs(15);
/// All nodes level again, at the latest.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// How long a node may take to end after SIGTERM.
pub const STOP_LIMIT: Duration = Duration::from_secs(40);

/// Traffic that leaves the cores room for elections.
const GENTLE: LoadConfig =
    LoadConfig { workers_per_node: 2, pause: Duration::from_millis(3), draw: Draw::InTurn };

/// Three nodes that serve the strong digit model, with gentle traffic on them.
async fn serving_three(site: &Site, config: ClusterConfig, phase: &str) -> Result<(Cluster, Load)> {
    let mut cluster = Cluster::start(site, config, 3).await?;
    cluster.serve_digits("v2", &site.digits_v2()).await?;
    let load = Load::start(&cluster.targets(), digits::read(&site.models)?, GENTLE, phase);
    answers_more(&load, 200).await?;
    Ok((cluster, load))
}

/// Waits until the load has had so many more answers.
async fn answers_more(load: &Load, count: u64) -> Result<()> {
    let wanted = load.ledger()?.answered + count;
    wait::until("traffic to go on", SETTLE_LIMIT, || async {
        let answered = load.ledger()?.answered;
        if answered < wanted {
            bail!("{answered} of {wanted} requests are answered");
        }
        Ok(())
    })
    .await
}

/// Asks the others every few milliseconds until one of them says that a node
/// other than `gone` leads; the time since `gone_at`.
pub async fn time_without_leader(
    cluster: &Cluster,
    others: &[usize],
    gone: u64,
    gone_at: Instant,
) -> Result<Duration> {
    let asking = async {
        loop {
            for index in others {
                let Ok(status) = cluster.status_of(*index).await else { continue };
                if status.leader_id != 0 && status.leader_id != gone {
                    return gone_at.elapsed();
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(FAILOVER_LIMIT, asking)
        .await
        .with_context(|| format!("no other node leads {FAILOVER_LIMIT:?} after node {gone} went"))
}

/// Outside a kill, a node that is down may refuse a connection, and nothing else.
fn only_refused(kind: &MissKind) -> bool {
    kind.cause == Cause::Refused
}

/// Compares the state digests of all nodes at one index.
async fn digests_equal(cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let nodes = cluster.running().len();
    let verdict = cluster.admin()?.verify().await?;
    let digests: Vec<String> = verdict
        .digests
        .iter()
        .map(|digest| match digest.digest.get(..12) {
            Some(start) => format!("{} {start}", digest.node_id),
            None => format!("{} {}", digest.node_id, digest.error),
        })
        .collect();
    let whole =
        verdict.digests.len() == nodes && verdict.digests.iter().all(|digest| !digest.digest.is_empty());
    let value = format!("at {}: {}", verdict.checkpoint_index, digests.join(", "));
    report.check("state digests equal", value, verdict.equal && whole);
    Ok(())
}

fn milliseconds(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}
