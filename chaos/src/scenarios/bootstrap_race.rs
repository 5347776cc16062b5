//! Three nodes that are to found one cluster together are killed and started
//! again while they meet: there is one cluster in the end.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{SETTLE_LIMIT, digests_equal};
use crate::cluster::{Cluster, ClusterConfig, START_LIMIT, free_ports};
use crate::report::Report;
use crate::site::Site;

const KILLS: u32 = 4;
/// Meeting takes a few hundred milliseconds; kills fall into it.
const KILL_WITHIN: Duration = Duration::from_millis(700);

/// Runs it; the same seed kills the same nodes after the same pauses.
pub async fn run(site: &Site, seed: u64) -> Result<Report> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::empty(site, ClusterConfig::patient())?;
    let ports = [free_ports()?, free_ports()?, free_ports()?];
    let seeds: Vec<String> = ports.iter().map(|ports| format!("127.0.0.1:{}", ports.peer)).collect();
    let args: Vec<String> =
        ["--bootstrap-expect", "3", "--join", &seeds.join(",")].iter().map(|arg| (*arg).to_owned()).collect();
    for ports in ports {
        cluster.add_as(ports, &args).await?;
    }
    for _ in 0..KILLS {
        tokio::time::sleep(random.random_range(Duration::ZERO..KILL_WITHIN)).await;
        let victim = random.random_range(0..3);
        cluster.node(victim).kill().await?;
        tokio::time::sleep(random.random_range(Duration::ZERO..KILL_WITHIN)).await;
        let ports = cluster.node(victim).ports();
        cluster.start_again(victim, ports, None).await?;
    }
    for index in 0..3 {
        cluster.node(index).ready(START_LIMIT).await?;
    }
    cluster.settled(SETTLE_LIMIT).await?;

    let mut report = Report::default();
    let mut cluster_ids = BTreeSet::new();
    let mut node_ids = BTreeSet::new();
    for index in 0..3 {
        let status = cluster.status_of(index).await?;
        cluster_ids.insert(status.cluster_id);
        node_ids.insert(status.node_id);
    }
    report.tell("seed", seed.to_string());
    report.check("cluster ids", format!("{cluster_ids:?}"), cluster_ids.len() == 1);
    report.check("node ids", format!("{node_ids:?}"), node_ids.len() == 3);
    digests_equal(&mut cluster, &mut report).await?;
    Ok(report)
}
