//! SIGKILL to all three at once: every acknowledged write is there when they
//! are back, under the same cluster id and the same node ids.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{SETTLE_LIMIT, digests_equal};
use crate::cluster::{Cluster, ClusterConfig, START_LIMIT};
use crate::digits::MODEL;
use crate::report::Report;
use crate::site::Site;

const WRITES: u32 = 50;

/// Runs it.
pub async fn run(site: &Site) -> Result<Report> {
    let mut cluster = Cluster::start(site, ClusterConfig::patient(), 3).await?;
    cluster.serve_digits("v1", &site.digits_v1()).await?;
    let admin = cluster.admin()?;
    admin.push(MODEL, "v2", &site.digits_v2()).await?;
    cluster.version_ready(MODEL, "v2", 3, START_LIMIT).await?;
    let before = cluster.status_of(0).await?;
    let ids_before: Vec<_> = cluster.nodes().iter().map(|node| node.node_id()).collect();

    let mut acknowledged = BTreeMap::new();
    for step in 1..=WRITES {
        let v2_ppm = step * 1_000;
        let write = admin.set_route(MODEL, &[("v1", 1_000_000 - v2_ppm), ("v2", v2_ppm)]).await?;
        acknowledged = BTreeMap::from([("v1".to_owned(), 1_000_000 - v2_ppm), ("v2".to_owned(), v2_ppm)]);
        // The last acknowledgement and the kill are neighbours.
        if step == WRITES {
            for index in 0..3 {
                cluster.node(index).kill().await?;
            }
            tracing::info!(log_index = write.log_index, "killed all after this write");
        }
    }

    for index in 0..3 {
        let ports = cluster.node(index).ports();
        cluster.start_again(index, ports, None).await?;
    }
    for index in 0..3 {
        cluster.node(index).ready(START_LIMIT).await?;
    }
    cluster.settled(SETTLE_LIMIT).await?;

    let mut report = Report::default();
    let after = cluster.status_of(0).await?;
    report.check("same cluster id", after.cluster_id.clone(), after.cluster_id == before.cluster_id);
    let ids_after: Vec<_> = cluster.nodes().iter().map(|node| node.node_id()).collect();
    report.check("same node ids", format!("{ids_after:?}"), ids_after == ids_before);
    for index in 0..3 {
        let routes = cluster.admin_of(index)?.routes(MODEL).await?;
        let weights: BTreeMap<String, u32> = routes
            .iter()
            .flat_map(|route| &route.weights)
            .map(|weight| (weight.version.clone(), weight.weight_ppm))
            .collect();
        report.check(
            format!("last acknowledged route at node {}", index + 1),
            format!("{weights:?}"),
            weights == acknowledged,
        );
    }
    digests_equal(&mut cluster, &mut report).await?;
    Ok(report)
}
