//! All five strategies on the digit models, with the real labels as feedback, on
//! three nodes under traffic; the leader is killed in the middle of each.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use tokio::sync::mpsc;

use super::{
    FAILOVER_LIMIT, SETTLE_LIMIT, answers_more, digests_equal, milliseconds, only_refused,
    time_without_leader,
};
use crate::cause::Cause;
use crate::cluster::{Cluster, ClusterConfig, START_LIMIT};
use crate::digits::{self, MODEL};
use crate::feedback;
use crate::load::{Draw, Load, LoadConfig};
use crate::report::Report;
use crate::rollouts::{Happening, apply, each_step_once, happened, over, starling};
use crate::site::Site;

/// Room on the cores for three nodes, their elections and the clients.
const TRAFFIC: LoadConfig =
    LoadConfig { workers_per_node: 2, pause: Duration::from_millis(4), draw: Draw::WithReplacement };
/// A rollout of the demo is over, at the latest.
const ROLLOUT_LIMIT: Duration = Duration::from_secs(90);
const REWARDS_MAX: usize = 10_000;

/// One rollout of the demo.
struct Play {
    /// As manifests call it.
    strategy: &'static str,
    /// The rollout's name and its manifest's, below docs/examples/rollouts.
    name: &'static str,
    manifest: &'static str,
    /// How it must end.
    ending: &'static str,
    /// Which version must have the route then.
    left: &'static str,
    /// After it, the route goes back to what was before.
    undone: bool,
}

const PLAYS: [Play; 5] = [
    Play {
        strategy: "shadow",
        name: "digits-shadow",
        manifest: "shadow.yaml",
        ending: "completed",
        left: "v1",
        undone: false,
    },
    Play {
        strategy: "blueGreen",
        name: "digits-blue-green",
        manifest: "blue-green.yaml",
        ending: "promoted",
        left: "v2",
        undone: false,
    },
    Play {
        strategy: "canary",
        name: "digits-canary",
        manifest: "canary.yaml",
        ending: "rolledBack",
        left: "v2",
        undone: false,
    },
    Play {
        strategy: "abTest",
        name: "digits-ab",
        manifest: "ab-test.yaml",
        ending: "promoted",
        left: "v2",
        undone: true,
    },
    Play {
        strategy: "bandit",
        name: "digits-bandit",
        manifest: "bandit.yaml",
        ending: "promoted",
        left: "v2",
        undone: false,
    },
];

/// What came of one.
struct Outcome {
    play: &'static Play,
    took: Duration,
    leaderless: Duration,
    killed: usize,
    happenings: Vec<Happening>,
}

/// Runs it and prints as it goes.
pub async fn run(site: &Site) -> Result<Report> {
    let mut report = Report::default();
    println!("Starting three nodes on loopback, and pushing four versions of the digit classifier");
    let mut cluster = Cluster::start(site, ClusterConfig::brisk(), 3).await?;
    cluster.serve_digits("v1", &site.digits_v1()).await?;
    let admin = cluster.admin()?;
    for (label, file) in
        [("v2", site.digits_v2()), ("broken", site.digits("broken")), ("wrong", site.digits("wrong"))]
    {
        admin.push(MODEL, label, &file).await?;
        cluster.version_ready(MODEL, label, 3, START_LIMIT).await?;
    }
    let (rewards, received) = mpsc::channel(REWARDS_MAX);
    let telling = tokio::spawn(feedback::tell(cluster.targets(), received));
    let images = digits::read(&site.models)?;
    let load = Load::start_telling(&cluster.targets(), images, TRAFFIC, "before", Some(rewards));
    answers_more(&load, 200).await?;

    let mut outcomes = Vec::new();
    for play in &PLAYS {
        let outcome = run_one(&mut cluster, &load, play).await.with_context(|| play.name)?;
        println!("{}", story(&outcome));
        check(&mut cluster, &outcome, &mut report).await?;
        outcomes.push(outcome);
        // The A/B test and the bandit begin with the weaker model.
        if play.name == "digits-canary" {
            starling(&mut cluster, &["rollout", "undo", "digits-blue-green"]).await?;
        }
        if play.undone {
            starling(&mut cluster, &["rollout", "undo", play.name]).await?;
        }
        load.phase("between");
        answers_more(&load, 100).await?;
    }

    println!("Stopping the traffic and comparing the nodes' states");
    let ledger = load.stop().await?;
    let told = telling.await.context("the teller of rewards has panicked")??;
    report.check("rewards accepted", told.to_string(), told > 0);
    let killed: Vec<(&str, usize)> =
        outcomes.iter().map(|outcome| (outcome.play.strategy, outcome.killed)).collect();
    report.traffic(&ledger, &cluster.names(), |kind| {
        only_refused(kind)
            || (killed.contains(&(kind.phase.as_str(), kind.node)) && kind.cause == Cause::Broken)
    });
    digests_equal(&mut cluster, &mut report).await?;
    println!("{}", table(&outcomes));
    println!("{}", report.table());
    Ok(report)
}

async fn run_one(cluster: &mut Cluster, load: &Load, play: &'static Play) -> Result<Outcome> {
    println!("{}: applying docs/examples/rollouts/{}", play.strategy, play.manifest);
    load.phase(play.strategy);
    let started = Instant::now();
    apply(cluster, &cluster.site().examples().join("rollouts").join(play.manifest)).await?;
    happened(cluster, play.name, "RolloutStarted", 1, SETTLE_LIMIT).await?;
    answers_more(load, 50).await?;

    let killed = cluster.leader(FAILOVER_LIMIT).await?;
    let gone = cluster.node(killed).node_id().context("a leader without an id")?;
    let killed_at = Instant::now();
    cluster.node(killed).kill().await?;
    let others = cluster.running();
    let leaderless = time_without_leader(cluster, &others, gone, killed_at).await?;
    cluster.restart(killed).await?;

    let happenings = over(cluster, play.name, ROLLOUT_LIMIT).await?;
    let took = started.elapsed();
    cluster.settled(SETTLE_LIMIT).await?;
    Ok(Outcome { play, took, leaderless, killed, happenings })
}

async fn check(cluster: &mut Cluster, outcome: &Outcome, report: &mut Report) -> Result<()> {
    let Play { strategy, ending, left, .. } = outcome.play;
    let last = outcome.happenings.iter().rev().find(|happening| happening.kind == "RolloutFinished");
    let said = last.and_then(|last| last.said.ending.clone()).unwrap_or_default();
    report.check(format!("{strategy} ends as it should"), said.clone(), said == *ending);
    let once = each_step_once(&outcome.happenings);
    let value = once.as_ref().err().map_or_else(|| "yes".to_owned(), ToString::to_string);
    report.check(format!("{strategy}: each step happened once"), value, once.is_ok());
    let routes = cluster.admin()?.routes(MODEL).await?;
    let weights = routes.first().map(|route| route.weights.clone()).unwrap_or_default();
    let whole = matches!(weights.as_slice(), [only] if only.version == *left);
    let value = weights.iter().map(|weight| format!("{} {}", weight.version, weight.weight_ppm));
    report.check(format!("{strategy}: {left} has the route"), value.collect::<Vec<_>>().join(", "), whole);
    report.tell(format!("{strategy}: time without a leader"), milliseconds(outcome.leaderless));
    Ok(())
}

/// What happened, and why.
fn story(outcome: &Outcome) -> String {
    let since = outcome.happenings.first().map_or(0, |first| first.log_time_us);
    let mut lines = Vec::new();
    for happening in &outcome.happenings {
        let at = (happening.log_time_us - since) as f64 / 1e6;
        let evidence: Vec<String> = happening.said.evidence.iter().map(ToString::to_string).collect();
        let numbers = if evidence.is_empty() { String::new() } else { format!(" [{}]", evidence.join("; ")) };
        lines.push(format!("  {at:6.1} s  {:<22} {}{numbers}", happening.kind, happening.said.why));
    }
    lines.join("\n")
}

fn table(outcomes: &[Outcome]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["strategy", "ended", "after", "because"]);
    for outcome in outcomes {
        let last = outcome.happenings.iter().rev().find(|happening| happening.kind == "RolloutFinished");
        let (ending, why) = last
            .map(|last| (last.said.ending.clone().unwrap_or_default(), last.said.why.clone()))
            .unwrap_or_default();
        table.add_row([
            outcome.play.strategy.to_owned(),
            ending,
            format!("{:.1} s", outcome.took.as_secs_f64()),
            why,
        ]);
    }
    table.to_string()
}
