//! Shadows: what they do not agree on is counted and can be read, and whatever
//! they do, the live answers are all right.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::Value;
use starling_chaos::cluster::{Cluster, ClusterConfig, START_LIMIT};
use starling_chaos::digits::{self, MODEL};
use starling_chaos::load::{Draw, Load, LoadConfig};
use starling_chaos::process::run_to_end;
use starling_chaos::scenarios::SETTLE_LIMIT;
use starling_chaos::wait;
use starling_proto::admin as wire;

use crate::{my_turn, site};

const LOAD: LoadConfig =
    LoadConfig { workers_per_node: 1, pause: Duration::from_millis(3), draw: Draw::InTurn };
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

fn agreement(kind: wire::agreement::Kind) -> wire::Agreement {
    wire::Agreement { kind: Some(kind) }
}

/// Every request; labels must be equal, and the same class the most probable.
fn shadow(version: &str) -> wire::RouteShadow {
    let label = wire::OutputAgreement {
        output: "output_label".to_owned(),
        agreement: Some(agreement(wire::agreement::Kind::Exact(wire::ExactAgreement {}))),
    };
    wire::RouteShadow {
        version: version.to_owned(),
        when: Vec::new(),
        portion_ppm: 1_000_000,
        comparison: Some(wire::AnswerComparison {
            outputs: vec![label],
            others: Some(agreement(wire::agreement::Kind::TopOne(wire::TopOneAgreement {}))),
        }),
    }
}

/// All epochs together.
async fn counted(cluster: &mut Cluster, version: &str) -> Result<wire::ShadowTraffic> {
    let routes = cluster.admin()?.routes(MODEL).await?;
    let route = routes.into_iter().next().context("the model has a route")?;
    let mut all = wire::ShadowTraffic::default();
    for traffic in route.shadow_traffic.into_iter().filter(|traffic| traffic.version == version) {
        all.copies += traffic.copies;
        all.compared += traffic.compared;
        all.agreed += traffic.agreed;
        all.errors += traffic.errors;
        for (reason, copies) in traffic.dropped {
            *all.dropped.entry(reason).or_default() += copies;
        }
        all.outputs.extend(traffic.outputs);
    }
    Ok(all)
}

/// Waits until the counts are as they should be.
async fn counts(
    cluster: &mut Cluster,
    version: &str,
    what: &str,
    hold: impl Fn(&wire::ShadowTraffic) -> bool,
) -> Result<wire::ShadowTraffic> {
    let give_up_at = tokio::time::Instant::now() + SETTLE_LIMIT;
    loop {
        let found = counted(cluster, version).await?;
        if hold(&found) {
            return Ok(found);
        }
        ensure!(tokio::time::Instant::now() < give_up_at, "not in time: {what}; {found:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn what_a_shadow_sees_on_all_nodes_is_compared_counted_and_shown() -> Result<()> {
    let _turn = my_turn().await;
    let site = site()?;
    let mut cluster = Cluster::start(&site, ClusterConfig::patient(), 3).await?;
    cluster.serve_digits("v1", &site.digits_v1()).await?;
    let admin = cluster.admin()?;
    for (label, file) in [("same", site.digits_v1()), ("wrong", site.digits("wrong"))] {
        admin.push(MODEL, label, &file).await?;
        cluster.version_ready(MODEL, label, 3, START_LIMIT).await?;
    }
    admin.set_shadows(MODEL, vec![shadow("same"), shadow("wrong")]).await?;
    let load = Load::start(&cluster.targets(), digits::read(&site.models)?, LOAD, "all");
    let same = counts(&mut cluster, "same", "300 comparisons", |found| found.compared >= 300).await?;
    let wrong = counts(&mut cluster, "wrong", "300 comparisons", |found| found.compared >= 300).await?;
    let ledger = load.stop().await?;

    assert_eq!((ledger.failures(), ledger.answered), (0, ledger.sent), "{:?}", ledger.failed);
    assert_eq!(ledger.served_in("all", "v1").count, ledger.answered, "a shadow answers nobody");
    assert_eq!((same.agreed, same.errors), (same.compared, 0), "{same:?}");
    assert!(same.outputs.iter().all(|output| output.agreed == output.compared), "{same:?}");
    assert!(wrong.agreed * 2 < wrong.compared, "{wrong:?}");
    for found in [same, wrong] {
        assert_eq!(found.copies, found.compared + found.errors + found.dropped.values().sum::<u64>());
    }

    // From every node, whichever is asked.
    let server = cluster.nodes()[2].grpc().to_string();
    let asked = ["--server", &server, "rollout", "examples", MODEL, "--version", "wrong", "-o", "json"];
    let (code, text) = run_to_end(&site, &asked, COMMAND_LIMIT).await?;
    assert_eq!(code, Some(0), "{text}");
    let answer: Value = serde_json::from_str(&text)?;
    let examples = answer["examples"].as_array().context("examples")?;
    assert_eq!(examples.len(), 32, "{text}");
    let nodes: std::collections::BTreeSet<u64> =
        examples.iter().filter_map(|example| example["node_id"].as_u64()).collect();
    assert!(nodes.len() > 1, "{nodes:?}");
    for example in examples {
        assert_eq!((&example["live_version"], &example["shadow_version"]), (&"v1".into(), &"wrong".into()));
        let difference = &example["differences"][0];
        assert!(difference["index"].is_u64(), "{example}");
        assert_ne!(difference["live_value"], difference["shadow_value"]);
        assert!(example["inputs"][0]["values"].as_array().is_some_and(|values| !values.is_empty()));
    }
    let asked = ["--server", &server, "rollout", "examples", MODEL, "--version", "same", "-o", "json"];
    let (_, text) = run_to_end(&site, &asked, COMMAND_LIMIT).await?;
    assert_eq!(serde_json::from_str::<Value>(&text)?["examples"], Value::Array(Vec::new()));
    let asked = ["--server", &server, "rollout", "examples", "nobody"];
    let (code, text) = run_to_end(&site, &asked, COMMAND_LIMIT).await?;
    assert_eq!(code, Some(4), "{text}");

    let metrics = metrics_of(&cluster.nodes()[0].metrics().to_string()).await?;
    for series in [
        "starling_shadow_copies_total{model=\"digits\",version=\"wrong\"}",
        "starling_shadow_agreed_total{model=\"digits\",version=\"same\"}",
        "starling_shadow_duration_seconds_count{model=\"digits\",version=\"same\"}",
    ] {
        assert!(metrics.contains(series), "no {series} in\n{metrics}");
    }
    Ok(())
}

/// The metrics of a node, as text.
async fn metrics_of(address: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(COMMAND_LIMIT, stream.read_to_string(&mut answer)).await??;
    Ok(answer)
}

/// A version whose instance waits for more requests longer than a copy may take: it holds what
/// it is given and answers nobody.
fn hanging() -> wire::VersionSettings {
    wire::VersionSettings {
        mode: wire::InstanceMode::Dedicated.into(),
        batching: Some(wire::BatchingSettings {
            max_batch: 65_536,
            max_queue_delay_us: 3_000_000,
            ..wire::BatchingSettings::default()
        }),
        ..wire::VersionSettings::default()
    }
}

#[tokio::test]
async fn a_shadow_that_fails_and_one_that_hangs_trouble_nobody_and_their_copies_are_counted() -> Result<()> {
    let _turn = my_turn().await;
    let site = site()?;
    let config = ClusterConfig::patient()
        .arg("--shadow-queue-max", 8)
        .arg("--shadow-concurrency", 4)
        .arg("--shadow-deadline", "500ms")
        .arg("--health-probe-interval", "1h");
    let mut cluster = Cluster::start(&site, config, 1).await?;
    cluster.serve_digits("v1", &site.digits_v1()).await?;
    let admin = cluster.admin()?;
    admin.push(MODEL, "broken", &site.digits("broken")).await?;
    cluster.version_ready(MODEL, "broken", 1, START_LIMIT).await?;
    let load = Load::start(&cluster.targets(), digits::read(&site.models)?, LOAD, "all");
    admin.set_shadows(MODEL, vec![shadow("broken")]).await?;
    let broken = counts(&mut cluster, "broken", "errors", |found| found.errors >= 50).await?;
    assert_eq!(broken.compared, 0, "{broken:?}");

    let bytes = Bytes::from(std::fs::read(site.digits_v1())?);
    admin.push_with(MODEL, "hanging", bytes, Some(hanging())).await?;
    wait::until("the version to be known", START_LIMIT, || async {
        let versions = admin.versions(MODEL).await?;
        let version = versions.iter().find(|version| version.label == "hanging").context("not yet")?;
        ensure!(version.loaded_on.len() == 1, "it is loaded nowhere");
        Ok(())
    })
    .await?;
    admin.set_shadows(MODEL, vec![shadow("hanging")]).await?;
    let full =
        |found: &wire::ShadowTraffic| found.dropped.get("queue_full").is_some_and(|copies| *copies >= 20);
    let hanging =
        counts(&mut cluster, "hanging", "errors and drops", |found| found.errors >= 4 && full(found)).await?;
    assert_eq!(hanging.compared, 0, "{hanging:?}");
    let ledger = load.stop().await?;
    assert_eq!(ledger.failures(), 0, "{:?}", ledger.failed);
    assert_eq!(ledger.retried.len(), 0, "{:?}", ledger.retried);
    assert_eq!(ledger.served_in("all", "v1").count, ledger.answered);
    Ok(())
}
