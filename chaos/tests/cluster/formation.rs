//! How a cluster comes into being.

use anyhow::Result;
use starling_chaos::cluster::{Cluster, ClusterConfig, START_LIMIT, free_ports};
use starling_chaos::scenarios::{SETTLE_LIMIT, bootstrap_race};

use crate::{assert_held, my_turn, site};

#[tokio::test]
async fn a_node_alone_founds_a_cluster_of_one() -> Result<()> {
    let _turn = my_turn().await;
    let mut cluster = Cluster::start(&site()?, ClusterConfig::patient(), 1).await?;
    let status = cluster.status_of(0).await?;
    assert_eq!(status.voters, vec![status.node_id]);
    assert_eq!(status.leader_id, status.node_id);
    assert_eq!(cluster.node(0).node_id(), Some(status.node_id));
    assert!(!status.cluster_id.is_empty());
    Ok(())
}

#[tokio::test]
async fn three_nodes_that_expect_three_found_one_cluster() -> Result<()> {
    let _turn = my_turn().await;
    let mut cluster = Cluster::empty(&site()?, ClusterConfig::patient())?;
    let ports = [free_ports()?, free_ports()?, free_ports()?];
    let seeds: Vec<String> = ports.iter().map(|ports| format!("127.0.0.1:{}", ports.peer)).collect();
    let args = ["--bootstrap-expect", "3", "--join", &seeds.join(",")].map(str::to_owned);
    for (index, ports) in ports.into_iter().enumerate() {
        assert_eq!(cluster.add_as(ports, &args).await?, index);
        assert!(
            index == 2 || cluster.node(index).node_id().is_none(),
            "a cluster of fewer than three was founded"
        );
    }
    for index in 0..3 {
        cluster.node(index).ready(START_LIMIT).await?;
    }
    cluster.settled(SETTLE_LIMIT).await?;
    let first = cluster.status_of(0).await?.cluster_id;
    for index in 1..3 {
        assert_eq!(cluster.status_of(index).await?.cluster_id, first);
    }
    Ok(())
}

#[tokio::test]
async fn a_race_with_kills_ends_in_one_cluster() -> Result<()> {
    let _turn = my_turn().await;
    for seed in 1..=3 {
        assert_held(&bootstrap_race::run(&site()?, seed).await?);
    }
    Ok(())
}
