//! The leader is cut off from the other two under traffic: it goes on
//! predicting with its last epoch and says so, refuses writes as unavailable,
//! and follows the others' new route when the network is whole again.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tonic::Code;

use super::{FAILOVER_LIMIT, SETTLE_LIMIT, answers_more, digests_equal, serving_three};
use crate::admin::Admin;
use crate::cause::Cause;
use crate::cluster::{ClusterConfig, START_LIMIT};
use crate::digits::{self, MODEL, Prediction};
use crate::report::Report;
use crate::site::Site;
use crate::{caller, wait};

const REFUSAL_LIMIT: Duration = Duration::from_secs(20);

/// Runs it.
pub async fn run(site: &Site) -> Result<Report> {
    let (mut cluster, load) =
        serving_three(site, ClusterConfig::patient().with_partitions(), "steady").await?;
    cluster.admin()?.push(MODEL, "v1", &site.digits_v1()).await?;
    cluster.version_ready(MODEL, "v1", 3, START_LIMIT).await?;
    let epoch_before = load.ledger()?.newest_epoch;

    let alone = cluster.leader(FAILOVER_LIMIT).await?;
    let majority: Vec<usize> = (0..3).filter(|index| *index != alone).collect();
    load.phase("partition");
    cluster.network().partition(&[&[alone], &majority]);

    let mut report = Report::default();
    // The majority elects and moves the route; it cannot tell the one alone.
    let cut_off = cluster.node(alone).node_id().context("a node without an id")?;
    let majority_addresses: Vec<_> = majority.iter().map(|index| cluster.nodes()[*index].grpc()).collect();
    let admin = Admin::new(&majority_addresses)?;
    let write = admin.set_route(MODEL, &[("v1", 1_000_000)]).await?;
    let new_leader = admin.status().await?.leader_id;
    report.check("the majority has a leader of its own", new_leader.to_string(), new_leader != cut_off);

    wait::until("the minority to say that it has no quorum", FAILOVER_LIMIT, || async {
        match cluster.status_of(alone).await? {
            status if status.quorum => bail!("it says that it has one"),
            status if status.problem.is_empty() => bail!("it names no problem"),
            status => Ok(status),
        }
    })
    .await
    .map(|status| report.check("the minority says so", status.problem, true))?;

    let refusal = cluster.admin_of(alone)?.try_set_route(MODEL, "v2", REFUSAL_LIMIT).await;
    let refusal = match refusal {
        Ok(write) => format!("accepted at {}", write.log_index),
        Err(status) if status.code() == Code::Unavailable => {
            report.check("the minority refuses a write", format!("Unavailable: {}", status.message()), true);
            String::new()
        }
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    };
    if !refusal.is_empty() {
        report.check("the minority refuses a write", refusal, false);
    }

    let images = digits::read(&site.models)?;
    let address = cluster.nodes()[alone].grpc();
    let mut client = caller::Caller::new(caller::Targets::new(vec![address]), 0);
    let answer = client.infer(&images[0].request(), |_| {}).await;
    let prediction = match answer {
        Ok(response) => Prediction::read(&response)?,
        Err(miss) => bail!("the minority does not predict: {}", miss.message),
    };
    report.check(
        "the minority predicts with its last epoch",
        format!("{} at epoch {}", prediction.version, prediction.epoch),
        prediction.version == "v2" && prediction.epoch == epoch_before,
    );
    answers_more(&load, 200).await?;

    load.phase("healed");
    cluster.network().heal();
    cluster.settled(SETTLE_LIMIT).await?;
    cluster.applied(alone, write.log_index, SETTLE_LIMIT).await?;
    let ledger = load.stop().await?;
    report.check(
        "the new route reaches everyone",
        write.log_index.to_string(),
        ledger.newest_epoch >= write.log_index,
    );
    report.traffic(&ledger, &cluster.names(), |kind| kind.cause == Cause::Refused);
    digests_equal(&mut cluster, &mut report).await?;
    Ok(report)
}
