//! A new node joins a cluster that has purged the beginning of its log: it
//! installs a snapshot, and holds the same state.

use anyhow::Result;

use super::{FAILOVER_LIMIT, SETTLE_LIMIT, digests_equal};
use crate::cluster::{Cluster, ClusterConfig, START_LIMIT};
use crate::digits::MODEL;
use crate::report::Report;
use crate::site::Site;
use crate::wait;

const ENTRIES_KEPT: u64 = 100;
const WRITES: u32 = 400;

/// Runs it.
pub async fn run(site: &Site) -> Result<Report> {
    let config = ClusterConfig::patient()
        .arg("--snapshot-every-entries", ENTRIES_KEPT)
        .arg("--log-entries-kept", ENTRIES_KEPT);
    let mut cluster = Cluster::start(site, config, 3).await?;
    cluster.serve_digits("v1", &site.digits_v1()).await?;
    let admin = cluster.admin()?;
    admin.push(MODEL, "v2", &site.digits_v2()).await?;
    cluster.version_ready(MODEL, "v2", 3, START_LIMIT).await?;
    for step in 1..=WRITES {
        admin.set_route(MODEL, &[("v1", 1_000_000 - step), ("v2", step)]).await?;
    }
    let leader = cluster.leader(FAILOVER_LIMIT).await?;
    let purged = wait::until("the leader to purge its log", SETTLE_LIMIT, || async {
        let status = cluster.status_of(leader).await?;
        anyhow::ensure!(
            status.purged_index > 0,
            "it has purged nothing; its snapshot is at {}",
            status.snapshot_index
        );
        Ok(status.purged_index)
    })
    .await?;

    let newcomer = cluster.add(&[]).await?;
    cluster.node(newcomer).ready(START_LIMIT).await?;
    cluster.settled(SETTLE_LIMIT).await?;

    let mut report = Report::default();
    report.tell("the log begins after", purged.to_string());
    let installed = cluster.status_of(newcomer).await?.snapshots_installed;
    report.check("snapshots installed by the newcomer", installed.to_string(), installed >= 1);
    let routes = cluster.admin_of(newcomer)?.routes(MODEL).await?;
    let v2_ppm = routes.iter().flat_map(|route| &route.weights).find(|weight| weight.version == "v2");
    let v2_ppm = v2_ppm.map_or(0, |weight| weight.weight_ppm);
    report.check("the newcomer knows the last route", format!("v2 {v2_ppm} ppm"), v2_ppm == WRITES);
    digests_equal(&mut cluster, &mut report).await?;
    Ok(report)
}
