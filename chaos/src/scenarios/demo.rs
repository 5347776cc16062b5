//! What Starling is for, in one minute: three nodes, two versions of a real
//! model, and a bad day, all under traffic.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};

use super::{
    FAILOVER_LIMIT, SETTLE_LIMIT, STOP_LIMIT, answers_more, digests_equal, milliseconds, only_refused,
    time_without_leader,
};
use crate::cause::Cause;
use crate::cluster::{Cluster, ClusterConfig, START_LIMIT};
use crate::digits::{self, MODEL};
use crate::load::{Draw, Ledger, Load, LoadConfig};
use crate::report::Report;
use crate::site::Site;
use crate::wait;

/// As fast as answers come.
const SWEEP: LoadConfig = LoadConfig { workers_per_node: 1, pause: Duration::ZERO, draw: Draw::InTurn };
/// Room on the cores for three nodes, their elections and the clients.
const STEADY_PAUSE: Duration = Duration::from_millis(2);
const WATCHED: Duration = Duration::from_millis(1_500);

/// What can be asked of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct DemoOptions {
    /// The cluster runs on afterwards.
    pub keep: bool,
}

/// Runs it and prints as it goes.
pub async fn run(site: &Site, options: DemoOptions) -> Result<Report> {
    let mut report = Report::default();
    println!("Starting three nodes on loopback");
    let mut cluster = Cluster::start(site, ClusterConfig::brisk(), 3).await?;
    for node in cluster.nodes() {
        println!("  {}: gRPC {}, REST {}", node.spec().name, node.grpc(), node.rest());
    }

    println!("Pushing version 1 of the digit classifier and routing to it");
    cluster.serve_digits("v1", &site.digits_v1()).await?;
    let images = digits::read(&site.models)?;
    println!("Streaming {} held-back images to all three, again and again", images.len());
    let load = Load::start(&cluster.targets(), images, SWEEP, "v1 at full speed");
    tokio::time::sleep(WATCHED + WATCHED / 2).await;
    // Each image once at least, however slow the machine is.
    answers_more(&load, 450).await?;
    load.pause(STEADY_PAUSE);
    load.phase("push v2");
    println!("{}", per_node(&load.ledger()?, &cluster.names()));

    println!("Pushing version 2 and moving the route to it");
    move_route(&mut cluster, &load).await?;
    let leader = drain_and_undrain(&mut cluster, &load, &mut report).await?;
    kill_and_return(&mut cluster, &load, leader, &mut report).await?;
    restart_one_by_one(&mut cluster, &load, &mut report).await?;

    println!("Stopping the traffic and comparing the nodes' states");
    let ledger = load.stop().await?;
    println!("{}", per_node(&ledger, &cluster.names()));
    versions_served(&ledger, &mut report);
    report.traffic(&ledger, &cluster.names(), |kind| {
        // Until it is back, the killed node may also have broken what was in flight on it.
        only_refused(kind)
            || (kind.phase == "kill the leader" && kind.node == leader && kind.cause == Cause::Broken)
    });
    digests_equal(&mut cluster, &mut report).await?;
    println!("{}", report.table());
    if options.keep {
        keep(cluster, site);
    }
    Ok(report)
}

async fn move_route(cluster: &mut Cluster, load: &Load) -> Result<()> {
    let admin = cluster.admin()?;
    admin.push(MODEL, "v2", &cluster.site().digits_v2()).await?;
    cluster.version_ready(MODEL, "v2", 3, START_LIMIT).await?;
    load.phase("move the route");
    let epoch = admin.set_route(MODEL, &[("v2", 1_000_000)]).await?.log_index;
    for index in 0..3 {
        cluster.applied(index, epoch, SETTLE_LIMIT).await?;
    }
    load.phase("v2");
    tokio::time::sleep(WATCHED).await;
    answers_more(load, 450).await
}

/// Drains the leader, the hardest one to do without; answers who leads then.
async fn drain_and_undrain(cluster: &mut Cluster, load: &Load, report: &mut Report) -> Result<usize> {
    let drained = cluster.leader(FAILOVER_LIMIT).await?;
    let drained_id = cluster.node(drained).node_id().context("a leader without an id")?;
    println!("Draining {}, which leads, and undraining it", cluster.names()[drained]);
    load.phase("drain");
    let admin = cluster.admin()?;
    admin.drain(drained_id).await?;
    let others: Vec<usize> = (0..3).filter(|index| *index != drained).collect();
    time_without_leader(cluster, &others, drained_id, Instant::now())
        .await
        .context("a drained node still leads")?;
    tokio::time::sleep(WATCHED).await;
    load.phase("undrain");
    admin.undrain(drained_id).await?;
    cluster.version_ready(MODEL, "v2", 3, SETTLE_LIMIT).await?;
    let drained_now = wait::until("the node to be back", SETTLE_LIMIT, || async {
        let nodes = admin.nodes().await?;
        let node =
            nodes.iter().find(|node| node.node_id == drained_id).context("it is no member any more")?;
        anyhow::ensure!(!node.draining, "it is still draining");
        Ok(node.clone())
    })
    .await?;
    report.check("a drained node keeps its seat", drained_now.role.clone(), drained_now.role == "voter");
    cluster.settled(SETTLE_LIMIT).await?;
    cluster.leader(FAILOVER_LIMIT).await
}

async fn kill_and_return(
    cluster: &mut Cluster,
    load: &Load,
    leader: usize,
    report: &mut Report,
) -> Result<()> {
    let gone = cluster.node(leader).node_id().context("a leader without an id")?;
    println!("Killing {}, which leads now, with SIGKILL", cluster.names()[leader]);
    load.phase("kill the leader");
    let killed_at = Instant::now();
    cluster.node(leader).kill().await?;
    let others = cluster.running();
    let leaderless = time_without_leader(cluster, &others, gone, killed_at).await?;
    report.check(
        "time without a leader after the kill",
        milliseconds(leaderless),
        leaderless < FAILOVER_LIMIT,
    );
    tokio::time::sleep(WATCHED).await;

    println!("Starting it again");
    load.phase("return");
    cluster.restart(leader).await?;
    cluster.settled(SETTLE_LIMIT).await?;
    cluster.version_ready(MODEL, "v2", 3, SETTLE_LIMIT).await
}

async fn restart_one_by_one(cluster: &mut Cluster, load: &Load, report: &mut Report) -> Result<()> {
    println!("Restarting all three, one by one");
    load.phase("restart one by one");
    for index in 0..3 {
        let leader = cluster.leader(FAILOVER_LIMIT).await?;
        let id = cluster.node(index).node_id().context("a node without an id")?;
        let others: Vec<usize> = (0..3).filter(|other| *other != index).collect();
        let stopped_at = Instant::now();
        cluster.node(index).ask_to_stop()?;
        if leader == index {
            let without = time_without_leader(cluster, &others, id, stopped_at).await?;
            report.tell("stop of a leader until another leads", milliseconds(without));
        }
        let ended = cluster.node(index).ended(STOP_LIMIT).await?;
        let name = cluster.names()[index].clone();
        report.check(format!("{name} ends well on SIGTERM"), ended.to_string(), ended.success());
        cluster.restart(index).await?;
        cluster.settled(SETTLE_LIMIT).await?;
        cluster.version_ready(MODEL, "v2", 3, SETTLE_LIMIT).await?;
    }
    answers_more(load, 100).await
}

fn versions_served(ledger: &Ledger, report: &mut Report) {
    for (version, expected) in [("v1", 0.80..0.95), ("v2", 0.95..1.0)] {
        let mut count = 0;
        let mut correct = 0;
        for ((_, served), sum) in &ledger.served {
            if served == version {
                count += sum.count;
                correct += sum.correct;
            }
        }
        let accuracy = correct as f64 / count.max(1) as f64;
        report.check(
            format!("served by {version}"),
            format!("{count}, {:.1} % correct", accuracy * 100.0),
            expected.contains(&accuracy),
        );
    }
    let late = ledger.served_in("v2", "v1").count;
    report.check("served by v1 once the route had moved", late.to_string(), late == 0);
}

/// Accuracy, rate and latencies of each node's clients, phase by phase.
fn per_node(ledger: &Ledger, names: &[String]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "phase",
        "seconds",
        "node",
        "accuracy",
        "requests/s",
        "p50 µs",
        "p99 µs",
    ]);
    for (phase, lasted) in &ledger.lasted {
        let seconds = lasted.as_secs_f64();
        let served = ledger.served.iter().filter(|((in_phase, _), _)| in_phase == phase);
        let (count, correct) =
            served.fold((0, 0), |sum, (_, served)| (sum.0 + served.count, sum.1 + served.correct));
        let accuracy = correct as f64 / u64::max(count, 1) as f64 * 100.0;
        for (node, name) in names.iter().enumerate() {
            let Some(felt) = ledger.felt.get(&(phase.clone(), node)) else { continue };
            let latency = &felt.latency_us;
            table.add_row([
                phase.clone(),
                format!("{seconds:.1}"),
                name.clone(),
                format!("{accuracy:.1} %"),
                format!("{:.0}", latency.len() as f64 / seconds.max(0.001)),
                latency.value_at_quantile(0.5).to_string(),
                latency.value_at_quantile(0.99).to_string(),
            ]);
        }
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn keep(cluster: Cluster, site: &Site) {
    let starling = site.binary.display();
    let grpc: Vec<String> = cluster.nodes().iter().map(|node| node.grpc().to_string()).collect();
    let rest = cluster.nodes()[0].rest();
    let metrics = cluster.nodes()[0].metrics();
    let pids: Vec<String> = cluster.nodes().iter().map(|node| node.pid().to_string()).collect();
    let folder = cluster.keep();
    println!("The cluster runs on; its data and logs are in {}. Try:", folder.display());
    println!("  {starling} --server {} get nodes", grpc[0]);
    println!("  {starling} --server {} get routes", grpc[grpc.len() - 1]);
    println!("  {starling} --server {} route set {MODEL} v1=50 v2=50", grpc[0]);
    println!("  {starling} --server {} cluster verify", grpc[0]);
    println!("  {starling} --server {} events", grpc[0]);
    println!("  curl -s http://{rest}/v2/models/{MODEL}");
    println!("  curl -s http://{metrics}/metrics");
    println!("and stop it with");
    println!("  kill {}", pids.join(" "));
}
