//! A reward counts once, whichever nodes are told, how often, and whoever dies
//! in between.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use starling_chaos::caller::{Caller, Targets};
use starling_chaos::cluster::{Cluster, ClusterConfig};
use starling_chaos::digits::{self, MODEL, Prediction};
use starling_chaos::{rollouts, wait};
use starling_proto::feedback::feedback_client::FeedbackClient;
use starling_proto::feedback::feedback_item::Said;
use starling_proto::feedback::{FeedbackItem, FeedbackResult, FeedbackVerdict, RecordRequest};
use tonic::transport::Endpoint;

use crate::{my_turn, site};

const CALL_LIMIT: Duration = Duration::from_secs(10);
const COUNT_LIMIT: Duration = Duration::from_secs(60);
const MANIFEST: &str = "\
apiVersion: starling/v1
kind: Rollout
metadata: { name: rewarded }
spec:
  model: digits
  from: v1
  strategy:
    abTest:
      arms:
        - { name: control, version: v1, weight: 50% }
        - { name: treatment, version: v2, weight: 50% }
      metric: { mean: { min: 0, max: 10 } }
      decide: manual
      minRewards: 1000000
      maxDuration: 1h
";

/// Three nodes with an experiment on the digits.
async fn experiment() -> Result<Cluster> {
    experiment_on(ClusterConfig::patient()).await
}

async fn experiment_on(config: ClusterConfig) -> Result<Cluster> {
    let site = site()?;
    let mut cluster = Cluster::start(&site, config, 3).await?;
    cluster.serve_digits("v1", &site.digits_v2()).await?;
    let admin = cluster.admin()?;
    admin.push(MODEL, "v2", &site.digits_v2()).await?;
    cluster.version_ready(MODEL, "v2", 3, COUNT_LIMIT).await?;
    let manifest = cluster.folder().join("rollout.yaml");
    std::fs::write(&manifest, MANIFEST)?;
    rollouts::apply(&mut cluster, &manifest).await?;
    Ok(cluster)
}

/// Decisions of one node that are part of the experiment.
async fn decide(cluster: &Cluster, node: usize, count: usize) -> Result<Vec<String>> {
    let image = digits::read(&cluster.site().models)?.remove(0);
    let mut client = Caller::new(Targets::new(vec![cluster.nodes()[node].grpc()]), 0);
    let mut decisions = Vec::with_capacity(count);
    while decisions.len() < count {
        let response = client.infer(&image.request(), |_| {}).await.map_err(|miss| anyhow!(miss.message))?;
        let prediction = Prediction::read(&response)?;
        // A node may lag behind the start of the experiment for a moment.
        if !prediction.rollout.is_empty() {
            decisions.push(prediction.decision);
        }
    }
    Ok(decisions)
}

fn worth(decision: &str, said: Said) -> FeedbackItem {
    FeedbackItem { decision: decision.to_owned(), said: Some(said), ..FeedbackItem::default() }
}

fn successes(decisions: &[String]) -> Vec<FeedbackItem> {
    decisions.iter().map(|decision| worth(decision, Said::Value(1.0))).collect()
}

/// One try at one node.
async fn tell(node: SocketAddr, items: Vec<FeedbackItem>, wait_counted: bool) -> Result<Vec<FeedbackResult>> {
    let channel =
        Endpoint::from_shared(format!("http://{node}"))?.connect_timeout(CALL_LIMIT).connect().await?;
    let mut request = tonic::Request::new(RecordRequest { items, wait_counted });
    request.set_timeout(CALL_LIMIT);
    Ok(FeedbackClient::new(channel).record(request).await?.into_inner().results)
}

fn counts(results: &[FeedbackResult]) -> BTreeMap<FeedbackVerdict, usize> {
    let mut counts = BTreeMap::new();
    for result in results {
        *counts.entry(result.verdict()).or_default() += 1;
    }
    counts
}

/// Rewards in the log: how many, and their sum.
async fn in_the_log(cluster: &mut Cluster) -> Result<(i64, i64)> {
    let records = cluster.admin()?.events(0).await?;
    let (mut count, mut sum) = (0, 0);
    for record in records.iter().filter(|record| record.kind == "FeedbackRecorded") {
        let event: Value = serde_json::from_str(&record.json)?;
        for cell in event["sums"].as_array().context("the event has no sums")? {
            count += cell["totals"]["count"].as_i64().context("a sum has no count")?;
            let units = cell["totals"]["sum"].as_str().context("a sum has no sum")?;
            sum += units.parse::<i64>()?;
        }
    }
    ensure!(sum % (1 << 24) == 0, "{sum} is no whole number of rewards");
    Ok((count, sum >> 24))
}

/// Waits until so many rewards of 1 are in the log.
async fn counted(cluster: &mut Cluster, count: i64) -> Result<()> {
    let deadline = tokio::time::Instant::now() + COUNT_LIMIT;
    loop {
        let found = in_the_log(cluster).await?;
        if found == (count, count) {
            return Ok(());
        }
        ensure!(found.0 <= count, "{} rewards are in the log, and {count} were given", found.0);
        if tokio::time::Instant::now() >= deadline {
            bail!("{found:?} of {count} rewards are in the log after {COUNT_LIMIT:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn the_same_feedback_to_all_three_nodes_counts_once() -> Result<()> {
    let _turn = my_turn().await;
    let mut cluster = experiment().await?;
    let mut decisions = decide(&cluster, 0, 40).await?;
    decisions.extend(decide(&cluster, 1, 40).await?);
    decisions.extend(decide(&cluster, 2, 40).await?);
    let nodes: Vec<SocketAddr> = cluster.nodes().iter().map(|node| node.grpc()).collect();
    let told = nodes.iter().map(|node| tell(*node, successes(&decisions), false));
    let results = futures::future::try_join_all(told).await?.concat();
    let expected = BTreeMap::from([(FeedbackVerdict::Recorded, 120), (FeedbackVerdict::Duplicate, 240)]);
    assert_eq!(counts(&results), expected);
    counted(&mut cluster, 120).await?;

    let again = tell(nodes[2], successes(&decisions), true).await?;
    assert!(again.iter().all(|result| result.verdict() == FeedbackVerdict::Duplicate && result.counted));
    let take_back = FeedbackItem { decision: decisions[0].clone(), retract: true, ..FeedbackItem::default() };
    let retracted = tell(nodes[1], vec![take_back.clone(), take_back], true).await?;
    assert_eq!(retracted[0].verdict(), FeedbackVerdict::Retracted);
    assert_eq!(retracted[1].verdict(), FeedbackVerdict::Duplicate);
    assert_eq!(in_the_log(&mut cluster).await?, (119, 119));
    assert!(cluster.admin()?.verify().await?.equal);
    Ok(())
}

#[tokio::test]
async fn nonsense_is_refused_with_the_reason_and_leaves_the_log_alone() -> Result<()> {
    let _turn = my_turn().await;
    let mut cluster = experiment().await?;
    let decision = decide(&cluster, 0, 1).await?.remove(0);
    let mut torn = decision.clone();
    torn.pop();
    let items = vec![
        worth(&decision, Said::Value(f64::NAN)),
        worth(&decision, Said::Value(f64::INFINITY)),
        worth(&decision, Said::Value(11.0)),
        worth(&decision, Said::Label("cow".to_owned())),
        worth(&torn, Said::Value(1.0)),
        worth("AAAA", Said::Value(1.0)),
    ];
    // Asked of another node than the one that decided.
    let results = tell(cluster.nodes()[1].grpc(), items, false).await?;
    let verdicts: Vec<FeedbackVerdict> = results.iter().map(FeedbackResult::verdict).collect();
    use FeedbackVerdict::{Invalid, OutOfRange};
    assert_eq!(verdicts, [Invalid, Invalid, OutOfRange, OutOfRange, Invalid, Invalid]);
    assert!(results[2].reason.contains("not within 0 to 10"), "{}", results[2].reason);
    assert!(results.iter().all(|result| !result.reason.is_empty()));
    assert_eq!(in_the_log(&mut cluster).await?, (0, 0));

    // And it can still be rewarded, from the command line.
    let said = rollouts::starling(&mut cluster, &["feedback", &decision, "--value", "1", "--wait"]).await?;
    assert_eq!(said.trim(), "recorded, counted");
    let (code, said) = rollouts::starling_exit(&mut cluster, &["feedback", "AAAA", "--success"]).await?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("'AAAA' is not a decision id"), "{said}");
    assert_eq!(in_the_log(&mut cluster).await?, (1, 1));
    Ok(())
}

#[tokio::test]
async fn a_home_that_is_killed_at_any_moment_loses_and_doubles_nothing() -> Result<()> {
    let _turn = my_turn().await;
    let mut cluster = experiment().await?;
    let home = 2;
    let mut all = 0;
    for round in 0..4_u64 {
        let decisions = decide(&cluster, home, 200).await?;
        all += decisions.len() as i64;
        let nodes: Vec<SocketAddr> = cluster.nodes().iter().map(|node| node.grpc()).collect();
        // Everybody is told everything in small requests, and the home dies amid them.
        let telling: Vec<_> = nodes
            .iter()
            .map(|node| {
                let (node, decisions) = (*node, decisions.clone());
                tokio::spawn(async move {
                    for some in decisions.chunks(10) {
                        // Whoever gets no answer does not know: told again below.
                        let _ = tell(node, successes(some), false).await;
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(30 + 90 * round)).await;
        cluster.node(home).kill().await?;
        for told in telling {
            told.await?;
        }
        // With the home away, the others keep it.
        let results = tell(nodes[0], successes(&decisions), false).await?;
        assert_eq!(counts(&results), BTreeMap::from([(FeedbackVerdict::Stored, decisions.len())]));
        cluster.restart(home).await?;
        cluster.settled(COUNT_LIMIT).await?;
        counted(&mut cluster, all).await?;
        // Until this node has heard that the home is back, it keeps them once more.
        wait::until("the home to say that it has them all", COUNT_LIMIT, || async {
            let again = counts(&tell(nodes[1], successes(&decisions), true).await?);
            ensure!(again == BTreeMap::from([(FeedbackVerdict::Duplicate, decisions.len())]), "{again:?}");
            Ok(())
        })
        .await?;
    }
    assert_eq!(in_the_log(&mut cluster).await?, (all, all));
    assert!(cluster.admin()?.verify().await?.equal);
    Ok(())
}

#[tokio::test]
async fn an_outbox_outlives_its_node_and_is_delivered_when_the_home_is_back() -> Result<()> {
    let _turn = my_turn().await;
    let mut cluster = experiment().await?;
    let decisions = decide(&cluster, 2, 100).await?;
    cluster.node(2).kill().await?;
    let results = tell(cluster.nodes()[1].grpc(), successes(&decisions), false).await?;
    assert_eq!(counts(&results), BTreeMap::from([(FeedbackVerdict::Stored, 100)]));
    // The node that keeps it dies before it could deliver.
    cluster.node(1).kill().await?;
    cluster.restart(2).await?;
    cluster.restart(1).await?;
    cluster.settled(COUNT_LIMIT).await?;
    counted(&mut cluster, 100).await?;
    Ok(())
}

#[tokio::test]
async fn a_minority_keeps_its_weights_says_its_epoch_and_its_rewards_arrive_once_when_it_is_back()
-> Result<()> {
    let _turn = my_turn().await;
    let mut cluster = experiment_on(ClusterConfig::patient().with_partitions()).await?;
    let leader = cluster.leader(COUNT_LIMIT).await?;
    let alone = (leader + 1) % 3;
    let others: Vec<usize> = (0..3).filter(|index| *index != alone).collect();
    let mut decisions = decide(&cluster, alone, 20).await?;
    let epoch_before = decided_at(&cluster, alone).await?;

    cluster.network().partition(&[&[alone], &others]);
    let address = cluster.nodes()[others[0]].grpc().to_string();
    let words = ["--server", &address, "rollout", "arms", "set", "rewarded", "v1=20%", "v2=80%"];
    let (code, text) = starling_chaos::process::run_to_end(cluster.site(), &words, COUNT_LIMIT).await?;
    assert_eq!(code, Some(0), "{text}");
    assert!(decided_at(&cluster, others[0]).await? > epoch_before);

    decisions.extend(decide(&cluster, alone, 20).await?);
    assert_eq!(decided_at(&cluster, alone).await?, epoch_before, "its last epoch, and it says so");
    let own = tell(cluster.nodes()[alone].grpc(), successes(&decisions), false).await?;
    assert_eq!(counts(&own), BTreeMap::from([(FeedbackVerdict::Recorded, 40)]));
    let elsewhere = tell(cluster.nodes()[others[1]].grpc(), successes(&decisions), false).await?;
    assert_eq!(counts(&elsewhere), BTreeMap::from([(FeedbackVerdict::Stored, 40)]));

    cluster.network().heal();
    cluster.settled(COUNT_LIMIT).await?;
    counted(&mut cluster, 40).await?;
    wait::until("the node to route by the new weights", COUNT_LIMIT, || async {
        let epoch = decided_at(&cluster, alone).await?;
        ensure!(epoch > epoch_before, "it routes by epoch {epoch}");
        Ok(())
    })
    .await?;
    assert_eq!(in_the_log(&mut cluster).await?, (40, 40));
    assert!(cluster.admin()?.verify().await?.equal);
    Ok(())
}

/// The epoch that a node routes by.
async fn decided_at(cluster: &Cluster, node: usize) -> Result<u64> {
    let image = digits::read(&cluster.site().models)?.remove(0);
    let mut client = Caller::new(Targets::new(vec![cluster.nodes()[node].grpc()]), 0);
    let response = client.infer(&image.request(), |_| {}).await.map_err(|miss| anyhow!(miss.message))?;
    Ok(Prediction::read(&response)?.epoch)
}

#[tokio::test]
async fn files_and_json_are_taken_and_a_file_sent_twice_counts_once() -> Result<()> {
    let _turn = my_turn().await;
    let mut cluster = experiment().await?;
    let decisions = decide(&cluster, 1, 30).await?;
    let mut lines: String = decisions
        .iter()
        .map(|decision| format!("{{\"decision\": \"{decision}\", \"value\": 1}}\n"))
        .collect();
    let file = cluster.folder().join("labels.ndjson");
    std::fs::write(&file, &lines)?;
    let path = file.to_str().context("a path that is no text")?.to_owned();
    let said = rollouts::starling(&mut cluster, &["feedback", "import", &path, "--wait"]).await?;
    assert_eq!(said.trim(), "recorded 30");
    assert_eq!(in_the_log(&mut cluster).await?, (30, 30));
    lines.push_str("nonsense\n");
    std::fs::write(&file, &lines)?;
    let (code, said) = rollouts::starling_exit(&mut cluster, &["feedback", "import", &path]).await?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("duplicate 30, invalid 1"), "{said}");
    assert!(said.contains("line 31: invalid: 'nonsense' is no JSON object"), "{said}");

    let more = decide(&cluster, 0, 2).await?;
    let rest = cluster.nodes()[2].rest();
    let one = format!("{{\"decision\": \"{}\", \"flag\": true}}", more[0]);
    let (status, body) = post(rest, "application/json", &one).await?;
    assert_eq!((status, body["verdict"].as_str()), (200, Some("recorded")), "{body}");
    let both = format!("{one}\n{{\"decision\": \"{}\", \"value\": 1}}\n", more[1]);
    let (status, body) = post(rest, "application/x-ndjson", &both).await?;
    let verdicts: Vec<_> = body["results"]
        .as_array()
        .context("results")?
        .iter()
        .map(|r| r["verdict"].as_str().unwrap_or_default())
        .collect();
    assert_eq!((status, verdicts), (200, vec!["duplicate", "recorded"]), "{body}");
    let (status, body) = post(rest, "application/json", "{\"decision\": \"AAAA\", \"value\": 1}").await?;
    assert_eq!(status, 400, "{body}");
    counted(&mut cluster, 32).await?;
    wait::until("the node's own counts", COUNT_LIMIT, || async {
        let text = get(cluster.nodes()[0].metrics(), "/metrics").await?;
        ensure!(text.contains("starling_feedback_total{result=\"recorded\"} 2"), "{text}");
        Ok(())
    })
    .await
}

async fn post(node: SocketAddr, kind: &str, body: &str) -> Result<(u16, Value)> {
    let head = format!(
        "POST /v1/feedback HTTP/1.1\r\nhost: node\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(node, &head).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
    let status = head.split(' ').nth(1).context("an answer without a status")?.parse()?;
    Ok((status, serde_json::from_str(body)?))
}

async fn get(node: SocketAddr, path: &str) -> Result<String> {
    exchange(node, &format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n")).await
}

async fn exchange(node: SocketAddr, request: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let talk = async {
        let mut stream = tokio::net::TcpStream::connect(node).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    tokio::time::timeout(CALL_LIMIT, talk).await?
}
