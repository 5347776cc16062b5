//! Where versions are, and that it does not matter to a client.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use starling_chaos::caller::{Caller, Targets};
use starling_chaos::cluster::{Cluster, ClusterConfig};
use starling_chaos::digits::{self, MODEL, Prediction};
use starling_chaos::scenarios::SETTLE_LIMIT;
use starling_chaos::wait;

use crate::{my_turn, site};

#[tokio::test]
async fn with_one_replica_on_three_nodes_every_node_answers() -> Result<()> {
    let _turn = my_turn().await;
    let site = site()?;
    let mut cluster = Cluster::start(&site, ClusterConfig::patient(), 3).await?;
    let epoch = cluster.serve_digits("v2", &site.digits_v2()).await?;
    let admin = cluster.admin()?;
    admin.set_placement(MODEL, 1).await?;
    let holder = wait::until("one node to hold it", SETTLE_LIMIT, || async {
        let versions = admin.versions(MODEL).await?;
        let loaded_on = &versions.first().context("no version")?.loaded_on;
        ensure!(loaded_on.len() == 1, "it is on {loaded_on:?}");
        Ok(loaded_on[0])
    })
    .await?;

    let images = digits::read(&site.models)?;
    let mut ran_on = BTreeSet::new();
    for node in 0..3 {
        let only_this = Targets::new(vec![cluster.nodes()[node].grpc()]);
        let mut client = Caller::new(only_this, 0);
        for image in &images[..20] {
            let answer = client.infer(&image.request(), |_| {}).await;
            let response = answer.map_err(|miss| anyhow::anyhow!("node {}: {}", node + 1, miss.message))?;
            let prediction = Prediction::read(&response)?;
            assert_eq!(prediction.version, "v2");
            assert!(prediction.epoch >= epoch);
            ran_on.insert(prediction.node);
        }
    }
    // `starling_node` names who answered the client or who ran it; both are members.
    let members: BTreeSet<String> =
        cluster.nodes().iter().filter_map(|n| n.node_id()).map(|id| id.to_string()).collect();
    assert!(ran_on.is_subset(&members), "{ran_on:?} of {members:?}");
    assert!(members.contains(&holder.to_string()));
    Ok(())
}
