//! SIGKILL to the leader under traffic: another leads soon, only what was in
//! flight on the killed node is retried, and it comes back with what it knew.

use std::time::Instant;

use anyhow::{Context, Result};

use super::{
    FAILOVER_LIMIT, SETTLE_LIMIT, answers_more, digests_equal, milliseconds, only_refused, serving_three,
    time_without_leader,
};
use crate::cause::Cause;
use crate::cluster::ClusterConfig;
use crate::report::Report;
use crate::site::Site;

/// Runs it.
pub async fn run(site: &Site) -> Result<Report> {
    let (mut cluster, load) = serving_three(site, ClusterConfig::patient(), "steady").await?;
    let leader = cluster.leader(FAILOVER_LIMIT).await?;
    let gone = cluster.node(leader).node_id().context("a leader without an id")?;

    load.phase("kill");
    let killed_at = Instant::now();
    cluster.node(leader).kill().await?;
    let others = cluster.running();
    let leaderless = time_without_leader(&cluster, &others, gone, killed_at).await?;
    let write = cluster.admin()?.set_route(crate::digits::MODEL, &[("v2", 1_000_000)]).await?;
    let writable = killed_at.elapsed();
    answers_more(&load, 200).await?;

    load.phase("return");
    cluster.restart(leader).await?;
    cluster.settled(SETTLE_LIMIT).await?;
    cluster.applied(leader, write.log_index, SETTLE_LIMIT).await?;
    answers_more(&load, 200).await?;

    let ledger = load.stop().await?;
    let mut report = Report::default();
    report.traffic(&ledger, &cluster.names(), |kind| {
        only_refused(kind) || (kind.phase == "kill" && kind.node == leader && kind.cause == Cause::Broken)
    });
    report.check("time without a leader", milliseconds(leaderless), leaderless < FAILOVER_LIMIT);
    report.tell("time to the next accepted write", milliseconds(writable));
    digests_equal(&mut cluster, &mut report).await?;
    Ok(report)
}
