//! Kills, pauses, cuts and a failing disk.

use std::time::Duration;

use anyhow::Result;
use starling_chaos::cluster::{Cluster, ClusterConfig, START_LIMIT};
use starling_chaos::digits::MODEL;
use starling_chaos::scenarios::{self, kill_all, kill_leader, partition, pause_leader, rolling_restart};

use crate::{assert_held, my_turn, site};

#[tokio::test]
async fn a_killed_leader_is_replaced_and_fails_only_what_was_in_flight_on_it() -> Result<()> {
    let _turn = my_turn().await;
    assert_held(&kill_leader::run(&site()?).await?);
    Ok(())
}

#[tokio::test]
async fn acknowledged_writes_survive_the_death_of_all_three_at_once() -> Result<()> {
    let _turn = my_turn().await;
    assert_held(&kill_all::run(&site()?).await?);
    Ok(())
}

#[tokio::test]
async fn a_leader_that_was_paused_follows_when_it_goes_on() -> Result<()> {
    let _turn = my_turn().await;
    assert_held(&pause_leader::run(&site()?).await?);
    Ok(())
}

#[tokio::test]
async fn a_minority_predicts_with_its_last_epoch_and_refuses_writes() -> Result<()> {
    let _turn = my_turn().await;
    assert_held(&partition::run(&site()?).await?);
    Ok(())
}

#[tokio::test]
async fn nobody_notices_a_rolling_restart() -> Result<()> {
    let _turn = my_turn().await;
    assert_held(&rolling_restart::run(&site()?).await?);
    Ok(())
}

#[tokio::test]
async fn a_node_whose_log_fails_exits_and_recovers_when_it_is_started_again() -> Result<()> {
    let _turn = my_turn().await;
    let site = site()?;
    let mut cluster = Cluster::start(&site, ClusterConfig::patient(), 3).await?;
    cluster.serve_digits("v2", &site.digits_v2()).await?;
    let healthy = cluster.node(1).spec().clone();

    let mut failing = healthy.clone();
    failing.args.extend(["--fail-log-after".to_owned(), "3".to_owned()]);
    assert!(cluster.node(1).terminate(scenarios::STOP_LIMIT).await?.success());
    cluster.start_as(1, failing).await?;
    // Something to append until it has failed; the other two are a majority.
    let admin = cluster.admin_of(0)?;
    let writes = tokio::spawn(async move {
        loop {
            let _ = admin.try_set_route(MODEL, "v2", Duration::from_secs(2)).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let ended = cluster.node(1).ended(START_LIMIT).await?;
    writes.abort();
    assert!(!ended.success(), "it ended with {ended}");
    assert!(cluster.node(1).log().to_lowercase().contains("log"), "{}", cluster.node(1).log_tail());

    cluster.start_as(1, healthy).await?;
    cluster.node(1).ready(START_LIMIT).await?;
    cluster.settled(scenarios::SETTLE_LIMIT).await?;
    let verdict = cluster.admin()?.verify().await?;
    assert!(verdict.equal, "{verdict:?}");
    Ok(())
}
