//! A node alone: founding, writing, reading, coming back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod flock;

use std::time::Duration;

use starling_proto::peer::ReadIndexRequest;
use starling_proto::peer::raft_client::RaftClient;
use starling_raft::consensus::ProposeError;
use starling_raft::flock::{Flock, StartError};
use starling_raft::log_store::LogStoreOptions;
use starling_raft::peers::{PeerIdentity, Peers};
use starling_raft::state::members::FOUNDER_NODE_ID;
use starling_raft::state::{
    ClusterCommand, ClusterId, Command, LogIndex, MemberCommand, NodeId, Principal, Rejection, RequestId,
};
use tonic::Code;
use tonic::service::Routes;
use uuid::Uuid;

use flock::{Node, PATIENCE, config};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_founds_a_cluster_and_finds_everything_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).await;
    assert_eq!(node.id(), FOUNDER_NODE_ID);
    assert_eq!(node.consensus().boot(), 1);
    let cluster_id = node.consensus().cluster_id();
    let state = node.consensus().linearize(PATIENCE).await.unwrap().state;
    assert_eq!(state.cluster.id, Some(cluster_id));
    assert_eq!(state.members.get(FOUNDER_NODE_ID).unwrap().addresses.peer, node.address);

    let written = node.checkpoint().await;
    let before = node.consensus().linearize(PATIENCE).await.unwrap();
    assert!(before.index >= written.log_index);
    let events = node.flock.history(LogIndex::new(0), 100).await.unwrap();
    let kinds: Vec<&str> = events.iter().map(|record| record.event.kind()).collect();
    assert_eq!(kinds, ["ClusterFounded", "FeatureLevelRaised", "NodeJoined", "CheckpointTaken"]);
    node.flock.shutdown(Duration::from_secs(5)).await;

    let node = Node::start(dir.path(), &[]).await;
    assert_eq!((node.id(), node.consensus().boot()), (FOUNDER_NODE_ID, 2));
    assert_eq!(node.consensus().cluster_id(), cluster_id);
    let after = node.consensus().linearize(PATIENCE).await.unwrap();
    assert!(after.index > before.index, "a new term opens with an entry");
    assert_eq!(after.state.models, before.state.models);
    let returned = node.consensus().clone();
    let address = node.address.clone();
    flock::eventually("the new address in the log", || {
        let state = returned.applied().state;
        state.members.get(FOUNDER_NODE_ID).unwrap().addresses.peer == address
    })
    .await;
    let events = node.flock.history(LogIndex::new(0), 100).await.unwrap();
    let kinds: Vec<&str> = events.iter().map(|record| record.event.kind()).collect();
    assert_eq!(kinds[..4], ["ClusterFounded", "FeatureLevelRaised", "NodeJoined", "CheckpointTaken"]);
    node.flock.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_with_the_same_request_id_gets_the_first_answer() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).await;
    let request_id = RequestId::new(Uuid::now_v7());
    let command = Command::Cluster(ClusterCommand::Checkpoint);
    let propose = || node.consensus().propose(&PRINCIPAL, request_id, command.clone(), PATIENCE);
    static PRINCIPAL: std::sync::LazyLock<Principal> = std::sync::LazyLock::new(Principal::local);
    let first = propose().await.unwrap();
    let again = propose().await.unwrap();
    assert_eq!(again, first);
    node.flock.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_refused_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).await;
    let command = Command::Member(MemberCommand::Drain { node_id: NodeId::new(4711) });
    let request_id = RequestId::new(Uuid::now_v7());
    let refused = node.consensus().propose(&Principal::local(), request_id, command, PATIENCE).await;
    assert!(matches!(refused, Err(ProposeError::Rejected(Rejection::UnknownNode(id))) if id.get() == 4711));
    node.flock.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_and_a_short_log_survive_a_restart_together() {
    let dir = tempfile::tempdir().unwrap();
    let shorten = |config: &mut starling_raft::flock::FlockConfig| {
        config.snapshot_every_entries = 20;
        config.log_entries_kept = 5;
    };
    let node = Node::start_with(dir.path(), &[], shorten).await;
    for _ in 0..150 {
        node.checkpoint().await;
    }
    node.status_where("a purged log", |status| status.purged_index > 20).await;
    let before = node.consensus().linearize(PATIENCE).await.unwrap();
    node.flock.shutdown(Duration::from_secs(5)).await;

    let node = Node::start_with(dir.path(), &[], shorten).await;
    let after = node.consensus().linearize(PATIENCE).await.unwrap();
    assert_eq!(after.state.cluster.id, before.state.cluster.id);
    let events = node.flock.history(LogIndex::new(0), 1_000).await.unwrap();
    let checkpoints = events.iter().filter(|record| record.event.kind() == "CheckpointTaken").count();
    assert_eq!(checkpoints, 150);
    assert_eq!(node.consensus().status().snapshots_installed, 0, "none came from a leader");
    let files = std::fs::read_dir(dir.path().join("snapshots")).unwrap().count();
    assert!((1..=2).contains(&files), "{files} snapshot files are kept");
    node.flock.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_one_data_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).await;
    let refused = Node::try_start_with(dir.path(), &[], |_| ()).await;
    assert!(matches!(refused, Err(StartError::DataDirLocked { .. })));
    node.flock.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_fails_ends_the_node_and_a_restart_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let (config, _) = config(dir.path(), &[]);
    let failing = LogStoreOptions { fail_after_appends: Some(8), ..LogStoreOptions::default() };
    let flock = Flock::start_with_log(config, failing, Routes::default(), || ()).await.unwrap();
    let mut acknowledged = 0;
    let reason = loop {
        let command = Command::Cluster(ClusterCommand::Checkpoint);
        let request_id = RequestId::new(Uuid::now_v7());
        let principal = Principal::local();
        tokio::select! {
            fatal = flock.fatal() => break fatal.0,
            written = flock.consensus.propose(&principal, request_id, command, PATIENCE) => {
                acknowledged += u64::from(written.is_ok());
                assert!(acknowledged < 100, "the log never failed");
            }
        }
    };
    assert!(reason.contains("log") || reason.contains("Raft core"), "{reason}");
    flock.shutdown(Duration::from_secs(1)).await;

    let node = Node::start(dir.path(), &[]).await;
    node.consensus().linearize(PATIENCE).await.unwrap();
    let events = node.flock.history(LogIndex::new(0), 1_000).await.unwrap();
    let found = events.iter().filter(|record| record.event.kind() == "CheckpointTaken").count() as u64;
    assert!(found >= acknowledged, "{found} of {acknowledged} acknowledged writes are there");
    node.flock.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_another_cluster_or_with_our_own_id_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).await;
    let own = PeerIdentity { cluster_id: node.consensus().cluster_id(), node_id: NodeId::new(4711) };
    let stranger = PeerIdentity { cluster_id: ClusterId::new(Uuid::from_u128(7)), ..own };
    let double = PeerIdentity { node_id: FOUNDER_NODE_ID, ..own };
    let call = async |caller: PeerIdentity| {
        let peers = Peers::new(caller, node.flock.peers.live(), node.consensus().watch_applied());
        let mut client = RaftClient::new(peers.channel(FOUNDER_NODE_ID).unwrap());
        client.read_index(ReadIndexRequest {}).await
    };
    call(own).await.unwrap();
    let refused = call(stranger).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("00000000-0000-0000-0000-000000000007"), "{refused}");
    assert!(refused.message().contains(&node.consensus().cluster_id().to_string()), "{refused}");
    let refused = call(double).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().starts_with("two nodes have the id 1000"), "{refused}");
    node.flock.shutdown(Duration::from_secs(5)).await;
}
