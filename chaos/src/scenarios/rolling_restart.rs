//! SIGTERM and a new start, one node after the other, under traffic: nobody
//! notices, each process ends with 0, and every seat is kept.

use anyhow::Result;

use super::{SETTLE_LIMIT, STOP_LIMIT, answers_more, digests_equal, only_refused, serving_three};
use crate::cluster::ClusterConfig;
use crate::report::Report;
use crate::site::Site;

/// Runs it.
pub async fn run(site: &Site) -> Result<Report> {
    let (mut cluster, load) = serving_three(site, ClusterConfig::patient(), "steady").await?;
    let voters = cluster.status_of(0).await?.voters;
    let mut report = Report::default();
    load.phase("rolling restart");
    for index in 0..3 {
        let status = cluster.node(index).terminate(STOP_LIMIT).await?;
        report.check(format!("node {} ends well", index + 1), status.to_string(), status.success());
        let kept = cluster.status_of((index + 1) % 3).await?.voters;
        report.check(format!("node {} keeps its seat", index + 1), format!("{kept:?}"), kept == voters);
        answers_more(&load, 50).await?;
        cluster.restart(index).await?;
        cluster.settled(SETTLE_LIMIT).await?;
        cluster.version_ready(crate::digits::MODEL, "v2", 3, SETTLE_LIMIT).await?;
        answers_more(&load, 50).await?;
    }
    let ledger = load.stop().await?;
    report.traffic(&ledger, &cluster.names(), only_refused);
    digests_equal(&mut cluster, &mut report).await?;
    Ok(report)
}
