//! Rolling upgrades: what is new waits until every voter can read it.

use std::time::Duration;

use anyhow::{Result, ensure};
use starling_chaos::cluster::{Cluster, ClusterConfig, START_LIMIT};
use starling_chaos::scenarios::{SETTLE_LIMIT, STOP_LIMIT};
use starling_chaos::wait;

use crate::{my_turn, site};

/// The level of this binary.
const LEVEL: u32 = 4;
/// A level that this binary does not have yet.
const NEXT_LEVEL: u32 = LEVEL + 1;
/// Many times what the leader takes to look at its members.
const WATCHED: Duration = Duration::from_secs(3);

#[tokio::test]
async fn the_feature_level_rises_only_once_every_voter_has_it() -> Result<()> {
    let _turn = my_turn().await;
    let mut cluster = Cluster::empty(&site()?, ClusterConfig::patient())?;
    let next = NEXT_LEVEL.to_string();
    let announcing = ["--announce-feature-level", &next];
    for args in [&[][..], &announcing, &announcing] {
        let index = cluster.add(args).await?;
        cluster.node(index).ready(START_LIMIT).await?;
    }
    cluster.settled(SETTLE_LIMIT).await?;
    let announced: Vec<u32> =
        cluster.admin()?.nodes().await?.iter().map(|node| node.max_feature_level).collect();
    assert_eq!(announced.iter().filter(|level| **level == NEXT_LEVEL).count(), 2, "{announced:?}");
    assert_eq!(announced.iter().filter(|level| **level == LEVEL).count(), 1, "{announced:?}");

    // Nothing can show that something never happens; this is how long it is given.
    let until = tokio::time::Instant::now() + WATCHED;
    while tokio::time::Instant::now() < until {
        for index in 0..3 {
            assert!(cluster.status_of(index).await?.feature_level <= LEVEL);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let mut upgraded = cluster.node(0).spec().clone();
    upgraded.ports = cluster.node(0).ports();
    upgraded.args.extend(announcing.map(str::to_owned));
    assert!(cluster.node(0).terminate(STOP_LIMIT).await?.success());
    cluster.start_as(0, upgraded).await?;
    cluster.node(0).ready(START_LIMIT).await?;
    wait::until("the feature level to rise", SETTLE_LIMIT, || async {
        for index in 0..3 {
            let level = cluster.status_of(index).await?.feature_level;
            ensure!(level == NEXT_LEVEL, "node {} has level {level}", index + 1);
        }
        Ok(())
    })
    .await?;
    assert!(cluster.admin()?.verify().await?.equal);
    Ok(())
}
