//! SIGSTOP to the leader: another leads, and when the old one goes on it
//! follows, without having taken or lost a write.

use std::time::Instant;

use anyhow::{Context, Result};

use super::{FAILOVER_LIMIT, SETTLE_LIMIT, digests_equal, milliseconds, time_without_leader};
use crate::admin::Admin;
use crate::cluster::{Cluster, ClusterConfig};
use crate::digits::MODEL;
use crate::report::Report;
use crate::site::Site;

/// Runs it.
pub async fn run(site: &Site) -> Result<Report> {
    let mut cluster = Cluster::start(site, ClusterConfig::patient(), 3).await?;
    cluster.serve_digits("v2", &site.digits_v2()).await?;
    let leader = cluster.leader(FAILOVER_LIMIT).await?;
    let paused = cluster.node(leader).node_id().context("a leader without an id")?;
    let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();

    let paused_at = Instant::now();
    cluster.node(leader).pause()?;
    let leaderless = time_without_leader(&cluster, &others, paused, paused_at).await?;
    let awake: Vec<_> = others.iter().map(|index| cluster.nodes()[*index].grpc()).collect();
    let write = Admin::new(&awake)?.set_route(MODEL, &[("v2", 1_000_000)]).await?;

    cluster.node(leader).resume()?;
    cluster.settled(SETTLE_LIMIT).await?;
    cluster.applied(leader, write.log_index, SETTLE_LIMIT).await?;

    let mut report = Report::default();
    report.check("time without a leader", milliseconds(leaderless), leaderless < FAILOVER_LIMIT);
    let status = cluster.status_of(leader).await?;
    report.check("the paused node is well", status.problem.clone(), status.problem.is_empty());
    digests_equal(&mut cluster, &mut report).await?;
    Ok(report)
}
