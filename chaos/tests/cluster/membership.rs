//! Joining, draining, removing, moving house.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use starling_chaos::cluster::{Cluster, ClusterConfig, START_LIMIT, free_ports};
use starling_chaos::digits::MODEL;
use starling_chaos::scenarios::{FAILOVER_LIMIT, SETTLE_LIMIT, STOP_LIMIT, join_snapshot};
use starling_chaos::wait;

use crate::{assert_held, my_turn, site};

#[tokio::test]
async fn a_newcomer_joins_votes_and_gets_an_id_of_its_own() -> Result<()> {
    let _turn = my_turn().await;
    let cluster = Cluster::start(&site()?, ClusterConfig::patient(), 3).await?;
    let status = cluster.status_of(2).await?;
    assert_eq!(status.voters.len(), 3);
    assert!(status.learners.is_empty());
    let mut ids: Vec<_> = cluster.nodes().iter().filter_map(|node| node.node_id()).collect();
    ids.sort_unstable();
    assert_eq!(ids, status.voters);
    Ok(())
}

#[tokio::test]
async fn a_newcomer_to_a_purged_log_installs_a_snapshot() -> Result<()> {
    let _turn = my_turn().await;
    assert_held(&join_snapshot::run(&site()?).await?);
    Ok(())
}

#[tokio::test]
async fn a_drained_node_does_not_lead_keeps_its_seat_and_comes_back() -> Result<()> {
    let _turn = my_turn().await;
    let site = site()?;
    let mut cluster = Cluster::start(&site, ClusterConfig::patient(), 3).await?;
    cluster.serve_digits("v2", &site.digits_v2()).await?;
    let admin = cluster.admin()?;
    let leader = cluster.leader(FAILOVER_LIMIT).await?;
    let drained = cluster.node(leader).node_id().context("a leader without an id")?;

    assert!(admin.drain(drained).await?.changed);
    let begun = Instant::now();
    wait::until("leadership to move away", FAILOVER_LIMIT, || async {
        for index in 0..3 {
            let status = cluster.status_of(index).await?;
            ensure!(status.leader_id != 0 && status.leader_id != drained, "{} leads", status.leader_id);
            ensure!(status.voters.contains(&drained), "it has lost its seat");
        }
        Ok(())
    })
    .await
    .with_context(|| format!("{:?} after the drain", begun.elapsed()))?;
    let listed = admin.nodes().await?;
    let node = listed.iter().find(|node| node.node_id == drained).context("it is not listed")?;
    assert!(node.draining);
    assert!(!admin.drain(drained).await?.changed, "draining twice changes nothing");

    assert!(admin.undrain(drained).await?.changed);
    let listed = admin.nodes().await?;
    assert!(listed.iter().all(|node| !node.draining && node.role == "voter"), "{listed:?}");
    cluster.version_ready(MODEL, "v2", 3, SETTLE_LIMIT).await
}

#[tokio::test]
async fn a_removed_node_loses_its_seat_and_the_others_go_on() -> Result<()> {
    let _turn = my_turn().await;
    let site = site()?;
    let mut cluster = Cluster::start(&site, ClusterConfig::patient(), 3).await?;
    let leader = cluster.leader(FAILOVER_LIMIT).await?;
    let removed = (leader + 1) % 3;
    let id = cluster.node(removed).node_id().context("a node without an id")?;
    let admin = cluster.admin_of(leader)?;
    assert!(admin.remove(id).await?.changed);
    wait::until("the seat to be taken", SETTLE_LIMIT, || async {
        let status = cluster.status_of(leader).await?;
        if status.voters.contains(&id) || status.learners.contains(&id) {
            bail!("voters {:?}, learners {:?}", status.voters, status.learners);
        }
        Ok(())
    })
    .await?;
    cluster.node(removed).kill().await?;
    cluster.serve_digits("v2", &site.digits_v2()).await?;
    Ok(())
}

#[tokio::test]
async fn all_three_come_back_on_new_ports_told_to_each_other_by_join() -> Result<()> {
    let _turn = my_turn().await;
    let site = site()?;
    let mut cluster = Cluster::start(&site, ClusterConfig::patient(), 3).await?;
    let epoch = cluster.serve_digits("v2", &site.digits_v2()).await?;
    let before = cluster.status_of(0).await?;
    let ids_before: Vec<_> = cluster.nodes().iter().map(|node| node.node_id()).collect();
    for index in 0..3 {
        assert!(cluster.node(index).terminate(STOP_LIMIT).await?.success());
    }

    let ports = [free_ports()?, free_ports()?, free_ports()?];
    for index in 0..3 {
        assert_ne!(ports[index].peer, cluster.node(index).ports().peer);
        let others: Vec<String> = (0..3)
            .filter(|other| *other != index)
            .map(|other| format!("127.0.0.1:{}", ports[other].peer))
            .collect();
        cluster.start_again(index, ports[index], Some(&others.join(","))).await?;
    }
    for index in 0..3 {
        cluster.node(index).ready(START_LIMIT).await?;
    }
    cluster.settled(SETTLE_LIMIT).await?;
    let after = cluster.status_of(0).await?;
    assert_eq!(after.cluster_id, before.cluster_id);
    assert_eq!(after.voters, before.voters);
    let ids_after: Vec<_> = cluster.nodes().iter().map(|node| node.node_id()).collect();
    assert_eq!(ids_after, ids_before);
    let routes = cluster.admin()?.routes(MODEL).await?;
    assert_eq!(routes.iter().map(|route| route.epoch).collect::<Vec<_>>(), [epoch]);
    assert!(cluster.admin()?.verify().await?.equal);
    Ok(())
}
