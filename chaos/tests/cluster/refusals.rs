//! What a node refuses to start with: one line that names it and says what to
//! do, and exit code 2. And a stranger that would join the wrong cluster.

use std::time::Duration;

use anyhow::Result;
use starling_chaos::cluster::{Cluster, ClusterConfig, START_LIMIT};
use starling_chaos::process::run_to_end;
use starling_chaos::scenarios::STOP_LIMIT;
use starling_chaos::site::Site;

use crate::{my_turn, site};

const REFUSAL_LIMIT: Duration = Duration::from_secs(30);
const FREE_PORTS: [&str; 8] =
    ["--rest-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--peer-port", "0"];

/// Starts a node that must refuse, and answers what it said.
async fn refused(site: &Site, args: &[&str]) -> Result<String> {
    let (code, said) = run_to_end(site, &[&["serve"], args].concat(), REFUSAL_LIMIT).await?;
    assert_eq!(code, Some(2), "it said: {said}");
    Ok(said)
}

#[tokio::test]
async fn an_unknown_key_is_refused_with_the_nearest_right_one() -> Result<()> {
    let _turn = my_turn().await;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("starling.toml");
    std::fs::write(&file, "grcp_port = 9001\n")?;
    let said = refused(&site()?, &["--config", file.to_str().unwrap()]).await?;
    assert!(said.contains("grcp_port") && said.contains("grpc_port"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_port_in_use_is_named() -> Result<()> {
    let _turn = my_turn().await;
    let folder = tempfile::tempdir()?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let data = folder.path().join("data");
    let args = ["--data-dir", data.to_str().unwrap(), "--rest-port", "0", "--grpc-port", &port];
    let said = refused(&site()?, &[&args[..], &["--metrics-port", "0", "--peer-port", "0"]].concat()).await?;
    assert!(said.contains(&port) && said.contains("grpc"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_second_process_on_one_data_directory_is_refused() -> Result<()> {
    let _turn = my_turn().await;
    let site = site()?;
    let mut cluster = Cluster::start(&site, ClusterConfig::patient(), 1).await?;
    let data = cluster.node(0).spec().home.join("data");
    let said = refused(&site, &[&["--data-dir", data.to_str().unwrap()], &FREE_PORTS[..]].concat()).await?;
    assert!(said.contains(data.to_str().unwrap()) && said.contains("in use"), "{said}");
    assert!(cluster.node(0).is_running());
    assert!(!cluster.status_of(0).await?.cluster_id.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_used_is_named() -> Result<()> {
    let _turn = my_turn().await;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way")?;
    let said =
        refused(&site()?, &[&["--data-dir", file.to_str().unwrap()], &FREE_PORTS[..]].concat()).await?;
    assert!(said.contains(file.to_str().unwrap()), "{said}");
    Ok(())
}

#[tokio::test]
async fn without_onnx_runtime_it_lists_where_it_looked() -> Result<()> {
    let _turn = my_turn().await;
    let folder = tempfile::tempdir()?;
    let nowhere = Site { onnxruntime: Some(folder.path().join("missing.so")), ..site()? };
    let data = folder.path().join("data");
    let said =
        refused(&nowhere, &[&["--data-dir", data.to_str().unwrap()], &FREE_PORTS[..]].concat()).await?;
    assert!(said.contains("ORT_DYLIB_PATH") && said.contains("missing.so"), "{said}");
    Ok(())
}

#[tokio::test]
async fn listening_beyond_loopback_needs_to_be_said_twice() -> Result<()> {
    let _turn = my_turn().await;
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let args = ["--data-dir", data.to_str().unwrap(), "--host", "0.0.0.0"];
    let said = refused(&site()?, &[&args[..], &FREE_PORTS[..]].concat()).await?;
    assert!(said.contains("insecure"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_member_of_another_cluster_is_refused_and_changes_nothing() -> Result<()> {
    let _turn = my_turn().await;
    let site = site()?;
    let mut home = Cluster::start(&site, ClusterConfig::patient(), 1).await?;
    let mut other = Cluster::start(&site, ClusterConfig::patient(), 1).await?;
    let home_id = home.status_of(0).await?.cluster_id;
    let other_id = other.status_of(0).await?.cluster_id;
    assert_ne!(home_id, other_id);

    // It is told of a node of another cluster, and keeps to its own.
    assert!(other.node(0).terminate(STOP_LIMIT).await?.success());
    let ports = other.node(0).ports();
    let stranger = home.node(0).peer().to_string();
    other.start_again(0, ports, Some(&stranger)).await?;
    match other.node(0).ready(START_LIMIT).await {
        Ok(()) => assert_eq!(other.status_of(0).await?.cluster_id, other_id),
        Err(_) => assert_eq!(other.node(0).ended(REFUSAL_LIMIT).await?.code(), Some(2)),
    }
    let status = home.status_of(0).await?;
    assert_eq!((status.cluster_id, status.voters.len(), status.learners.len()), (home_id, 1, 0));
    assert!(home.node(0).is_running());
    Ok(())
}
