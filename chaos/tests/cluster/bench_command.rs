//! `starling bench` on a real node: what it prints, what it leaves, how it ends.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use starling_chaos::cluster::{Cluster, ClusterConfig};
use starling_chaos::digits::MODEL;
use starling_chaos::process::run_to_end;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::{my_turn, site};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn it_measures_over_each_protocol_and_names_what_it_cannot() -> Result<()> {
    let _turn = my_turn().await;
    let site = site()?;
    let mut cluster = Cluster::start(&site, ClusterConfig::patient(), 1).await?;
    cluster.serve_digits("v1", &site.digits_v2()).await?;
    let grpc = cluster.node(0).grpc().to_string();
    let rest = cluster.node(0).rest().to_string();
    let folder = tempfile::tempdir()?;
    let plot = folder.path().join("digits.svg");
    let few = ["--requests", "40", "--warm-up", "10ms", "-o", "json"];

    let sweep = ["bench", MODEL, "--server", &grpc, "--clients", "1,3", "--plot", plot.to_str().unwrap()];
    let (code, said) = run_to_end(&site, &[&sweep[..], &few].concat(), LIMIT).await?;
    assert_eq!(code, Some(0), "{said}");
    let report: Value = serde_json::from_str(&said)?;
    for (index, clients) in [(0, 1), (1, 3)] {
        let measured = &report["measurements"][index];
        assert_eq!(measured["load"]["clients"], clients);
        assert_eq!(measured["failed"], 0, "{said}");
        assert!(measured["answered"].as_u64() >= Some(40), "{said}");
        assert!(measured["server"]["request_us"].as_f64() > Some(0.0), "{said}");
    }
    assert!(std::fs::read_to_string(&plot)?.starts_with("<svg"));

    for protocol in ["rest", "rest-binary"] {
        let open =
            ["bench", MODEL, "--server", &rest, "--protocol", protocol, "--rate", "200", "--batch", "3"];
        let (code, said) = run_to_end(&site, &[&open[..], &few].concat(), LIMIT).await?;
        assert_eq!(code, Some(0), "{said}");
        let report: Value = serde_json::from_str(&said)?;
        assert_eq!(report["rows_per_request"], 3);
        assert_eq!(report["measurements"][0]["failed"], 0, "{said}");
    }

    let cases = [
        (vec!["bench", "nobody", "--server", &grpc], 4, "nobody"),
        (vec!["bench", MODEL, "--server", "127.0.0.1:1"], 3, "127.0.0.1:1 cannot be reached"),
        (vec!["bench", MODEL, "--server", &grpc, "--protocol", "rest"], 2, "is that its REST port?"),
        (vec!["bench", MODEL, "--server", &rest], 2, "is that its gRPC port?"),
        (vec!["bench", MODEL, "--server", &grpc, "--shape", "x=1"], 2, "no input 'x'"),
    ];
    for (args, expected, words) in cases {
        let (code, said) = run_to_end(&site, &args, LIMIT).await?;
        assert_eq!(code, Some(expected), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn ctrl_c_shows_what_was_measured() -> Result<()> {
    let _turn = my_turn().await;
    let site = site()?;
    let mut cluster = Cluster::start(&site, ClusterConfig::patient(), 1).await?;
    cluster.serve_digits("v1", &site.digits_v2()).await?;
    let grpc = cluster.node(0).grpc().to_string();
    let mut bench = Command::new(&site.binary)
        .args(["bench", MODEL, "--server", &grpc, "--clients", "2,4"])
        .args(["--duration", "10min", "--warm-up", "0s"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let served_before = served(&cluster).await?;
    starling_chaos::wait::until("the load to be felt", LIMIT, || async {
        let now = served(&cluster).await?;
        anyhow::ensure!(now > served_before + 20, "only {} answers", now - served_before);
        Ok(())
    })
    .await?;
    let pid = bench.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).unwrap();
    kill_process(pid, Signal::INT)?;
    let mut lines = BufReader::new(bench.stdout.take().unwrap()).lines();
    let heading = lines.next_line().await?.unwrap();
    let only = lines.next_line().await?.unwrap();
    assert!(heading.starts_with("LOAD") && only.starts_with("2 clients"), "{heading}\n{only}");
    assert_eq!(lines.next_line().await?, None, "the second load must not have begun");
    let status = tokio::time::timeout(LIMIT, bench.wait()).await??;
    assert_eq!(status.code(), Some(0));
    Ok(())
}

/// Requests that the cluster has counted.
async fn served(cluster: &Cluster) -> Result<u64> {
    let routes = cluster.admin_of(0)?.routes(MODEL).await?;
    Ok(routes.iter().flat_map(|route| &route.traffic).map(|traffic| traffic.requests).sum())
}
