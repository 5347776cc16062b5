//! Nodes of a flock within the test's own process, on loopback, on ports that
//! the system gives.

#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use starling_raft::consensus::{Consensus, ProposeError, RaftStatus};
use starling_raft::flock::{Durability, Flock, FlockConfig, StartError};
use starling_raft::state::models::{InstanceMode, VersionSettings};
use starling_raft::state::{
    Accepted, Addresses, ArtefactDigest, ClusterCommand, Command, FeatureLevel, ModelCommand, NodeId,
    Principal, RequestId, Signature,
};
use tonic::service::Routes;
use uuid::Uuid;

/// Long enough for elections on a machine that does other things besides.
pub const PATIENCE: Duration = Duration::from_secs(60);
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(20);

/// One node, and what it needs to come back.
pub struct Node {
    pub data_dir: PathBuf,
    pub address: String,
    pub flock: Flock,
}

/// Settings for a node in `data_dir`. Its listener is bound; the address is the second value.
pub fn config(data_dir: &Path, join: &[&str]) -> (FlockConfig, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = FlockConfig {
        data_dir: data_dir.to_owned(),
        peer_listener: listener,
        addresses: Addresses { peer: address.clone(), ..Addresses::default() },
        join: join.iter().map(|address| (*address).to_owned()).collect(),
        bootstrap_expect: None,
        labels: BTreeMap::new(),
        max_feature_level: FeatureLevel::new(1),
        starling_version: "0.0.0-test".to_owned(),
        durability: Durability::ProcessCrash,
        heartbeat_interval: Duration::from_millis(150),
        election_timeout_min: Duration::from_millis(600),
        election_timeout_max: Duration::from_millis(1200),
        snapshot_every_entries: 10_000,
        log_entries_kept: 100_000,
        voters_max: 3,
        dead_after: Duration::from_secs(300),
        gossip_interval: Duration::from_millis(200),
        max_artefact_bytes: 1 << 30,
        forwarding: None,
    };
    (config, address)
}

impl Node {
    /// Starts with the usual settings.
    pub async fn start(data_dir: &Path, join: &[&str]) -> Self {
        Self::start_with(data_dir, join, |_| ()).await
    }

    /// Starts with settings changed by `change`.
    pub async fn start_with(data_dir: &Path, join: &[&str], change: impl FnOnce(&mut FlockConfig)) -> Self {
        Self::try_start_with(data_dir, join, change).await.unwrap()
    }

    pub async fn try_start_with(
        data_dir: &Path,
        join: &[&str],
        change: impl FnOnce(&mut FlockConfig),
    ) -> Result<Self, StartError> {
        say_what_happens();
        let (mut config, address) = config(data_dir, join);
        change(&mut config);
        Self::start_as(config, address).await
    }

    pub async fn start_as(config: FlockConfig, address: String) -> Result<Self, StartError> {
        let data_dir = config.data_dir.clone();
        let flock = Flock::start(config, Routes::default(), || ()).await?;
        Ok(Self { data_dir, address, flock })
    }

    pub fn id(&self) -> NodeId {
        self.flock.consensus.node_id()
    }

    pub fn consensus(&self) -> &Consensus {
        &self.flock.consensus
    }

    /// Proposes a checkpoint: the smallest command that is always accepted.
    pub async fn checkpoint(&self) -> Accepted {
        propose(self.consensus(), Command::Cluster(ClusterCommand::Checkpoint)).await
    }

    /// Proposes a version with a setting that members of feature level 1 cannot read.
    pub async fn register_local_version(&self) -> Result<Accepted, ProposeError> {
        let command = Command::Model(ModelCommand::RegisterVersion {
            model: "digits".parse().unwrap(),
            label: None,
            digest: ArtefactDigest::new([1; 32]),
            size_bytes: 1,
            signature: Signature { inputs: vec![], outputs: vec![], batchable: false },
            settings: VersionSettings { mode: InstanceMode::Local, ..VersionSettings::default() },
        });
        let request_id = RequestId::new(Uuid::now_v7());
        self.consensus().propose(&Principal::local(), request_id, command, PROPOSE_TIMEOUT).await
    }

    /// Waits until Raft's status is as `wanted`.
    pub async fn status_where(&self, what: &str, wanted: impl FnMut(&RaftStatus) -> bool) -> RaftStatus {
        let mut status = self.consensus().watch_status();
        match tokio::time::timeout(PATIENCE, status.wait_for(wanted)).await {
            Ok(status) => status.unwrap().clone(),
            Err(_) => panic!("node {}: {what} did not come; {:#?}", self.id(), self.consensus().status()),
        }
    }
}

/// With `RUST_LOG` set, the nodes' logs go to the test's output.
fn say_what_happens() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

pub async fn propose(consensus: &Consensus, command: Command) -> Accepted {
    let request_id = RequestId::new(Uuid::now_v7());
    consensus.propose(&Principal::local(), request_id, command, PROPOSE_TIMEOUT).await.unwrap()
}

/// Waits until `condition` holds, looking often.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come true within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Three nodes that all vote, in folders 0, 1, 2 of `dir`.
pub async fn three_voters(dir: &Path) -> [Node; 3] {
    let first = Node::start(&dir.join("0"), &[]).await;
    let second = Node::start(&dir.join("1"), &[&first.address]).await;
    let third = Node::start(&dir.join("2"), &[&first.address]).await;
    let nodes = [first, second, third];
    for node in &nodes {
        node.status_where("three voters", |status| status.voters.len() == 3 && status.has_quorum).await;
    }
    nodes
}

/// Every member's digest at one new checkpoint, which must be the same.
pub async fn assert_digests_equal(node: &Node, members: usize) {
    let (_, digests) = node.consensus().verify(&Principal::local(), PATIENCE).await.unwrap();
    let values: Vec<&String> = digests
        .iter()
        .map(|(id, digest)| digest.as_ref().unwrap_or_else(|why| panic!("{id}: {why}")))
        .collect();
    assert_eq!(values.len(), members);
    assert!(values.iter().all(|value| *value == values[0]), "{digests:?}");
}
