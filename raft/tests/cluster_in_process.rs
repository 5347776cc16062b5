//! Three nodes in one process: joining, writing from anywhere, losing the
//! leader, coming back elsewhere, catching up by a snapshot.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod flock;

use std::time::Duration;

use starling_raft::consensus::ProposeError;
use starling_raft::flock::FlockConfig;
use starling_raft::state::{
    ClusterCommand, Command, FeatureLevel, LogIndex, MemberCommand, Principal, RequestId,
};
use uuid::Uuid;

use flock::{Node, PATIENCE, assert_digests_equal, config, eventually, three_voters};

const STOP_TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_join_write_from_anywhere_outlive_their_leader_and_come_back_on_new_ports() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = three_voters(dir.path()).await;
    for node in &nodes {
        let written = node.checkpoint().await;
        for reader in &nodes {
            let read = reader.consensus().linearize(PATIENCE).await.unwrap();
            assert!(read.index >= written.log_index, "a read misses an acknowledged write");
        }
    }
    assert_digests_equal(&nodes[1], 3).await;

    // The leader stops without handing over: the other two elect.
    let [first, second, third] = nodes;
    assert!(first.consensus().status().is_leader, "the founder leads until it has a reason not to");
    let old_leader = first.id();
    first.flock.shutdown(Duration::ZERO).await;
    let status = second
        .status_where("another leader", |status| {
            status.has_quorum && status.leader.is_some_and(|leader| leader != old_leader)
        })
        .await;
    assert_eq!(status.voters.len(), 3, "a stopped node keeps its seat");
    let written = second.checkpoint().await;

    // It comes back on another port and catches up.
    let first = Node::start(&dir.path().join("0"), &[&second.address]).await;
    assert_eq!(first.id(), old_leader);
    first.consensus().wait_applied(written.log_index, PATIENCE).await.unwrap();

    // All three stop and come back on new ports, told to each other by --join only.
    let before = first.consensus().linearize(PATIENCE).await.unwrap();
    for node in [first, second, third] {
        node.flock.shutdown(Duration::ZERO).await;
    }
    let first = Node::start(&dir.path().join("0"), &[]).await;
    let second = Node::start(&dir.path().join("1"), &[&first.address]).await;
    let third = Node::start(&dir.path().join("2"), &[&first.address, &second.address]).await;
    let nodes = [first, second, third];
    for node in &nodes {
        let after = node.consensus().linearize(PATIENCE).await.unwrap();
        assert!(after.index > before.index);
        for member in &nodes {
            let consensus = node.consensus().clone();
            eventually("every new address in every node's state", || {
                let state = consensus.applied().state;
                state.members.get(member.id()).unwrap().addresses.peer == member.address
            })
            .await;
        }
    }
    assert_digests_equal(&nodes[2], 3).await;
    for node in nodes {
        node.flock.shutdown(STOP_TIMEOUT).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_leader_hands_over_and_a_write_waits_for_its_successor() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second, third] = three_voters(dir.path()).await;
    let old_leader = first.id();
    let term = second.consensus().status().term;
    first.flock.shutdown(STOP_TIMEOUT).await;
    second.checkpoint().await;
    let status = third.status_where("another leader", |status| status.leader != Some(old_leader)).await;
    assert!(status.term > term);
    second.flock.shutdown(STOP_TIMEOUT).await;
    third.flock.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_quorum_refuses_writes_with_the_reason_and_still_reads_what_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second, third] = three_voters(dir.path()).await;
    let known = third.consensus().applied();
    first.flock.shutdown(Duration::ZERO).await;
    second.flock.shutdown(Duration::ZERO).await;
    third.status_where("the loss of quorum", |status| !status.has_quorum).await;
    let refused = third
        .consensus()
        .propose(
            &Principal::local(),
            RequestId::new(Uuid::now_v7()),
            Command::Cluster(ClusterCommand::Checkpoint),
            PATIENCE,
        )
        .await
        .unwrap_err();
    assert!(matches!(refused, ProposeError::Unavailable(_)), "{refused}");
    assert!(refused.to_string().contains("1 of 3 voters can be reached"), "{refused}");
    let unread = third.consensus().linearize(PATIENCE).await.unwrap_err();
    assert!(unread.to_string().contains("1 of 3 voters can be reached"), "{unread}");
    assert!(third.consensus().applied().index >= known.index);
    third.flock.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_catches_up_by_a_snapshot_and_has_the_whole_history() {
    let shorten = |config: &mut FlockConfig| {
        config.snapshot_every_entries = 100;
        config.log_entries_kept = 100;
    };
    let dir = tempfile::tempdir().unwrap();
    let first = Node::start_with(&dir.path().join("0"), &[], shorten).await;
    for _ in 0..450 {
        first.checkpoint().await;
    }
    first.status_where("a purged log", |status| status.purged_index > 100).await;

    let second = Node::start_with(&dir.path().join("1"), &[&first.address], shorten).await;
    let written = first.checkpoint().await;
    second.consensus().wait_applied(written.log_index, PATIENCE).await.unwrap();
    assert!(second.consensus().status().snapshots_installed >= 1, "it must have come by a snapshot");
    let purged = first.consensus().status().purged_index;
    assert!(purged > 100, "the entries it lacks are gone: {purged}");

    let whole = first.flock.history(LogIndex::new(0), 10_000).await.unwrap();
    let fetched = second.flock.history(LogIndex::new(0), 10_000).await.unwrap();
    let upto =
        |index: LogIndex| move |record: &&starling_raft::history::HistoryRecord| record.log_index <= index;
    let whole: Vec<_> = whole.iter().filter(upto(written.log_index)).collect();
    let fetched: Vec<_> = fetched.iter().filter(upto(written.log_index)).collect();
    assert_eq!(fetched, whole);
    assert!(whole.len() > 450);
    assert_digests_equal(&second, 2).await;

    // And it comes back from what it installed.
    second.flock.shutdown(STOP_TIMEOUT).await;
    let second = Node::start_with(&dir.path().join("1"), &[&first.address], shorten).await;
    let written = first.checkpoint().await;
    second.consensus().wait_applied(written.log_index, PATIENCE).await.unwrap();
    assert_digests_equal(&first, 2).await;
    second.flock.shutdown(STOP_TIMEOUT).await;
    first.flock.shutdown(STOP_TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feature_level_rises_once_every_member_can_read_it_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let newer = |config: &mut FlockConfig| config.max_feature_level = FeatureLevel::new(2);
    let first = Node::start_with(&dir.path().join("0"), &[], |_| ()).await;
    let second = Node::start_with(&dir.path().join("1"), &[&first.address], newer).await;
    first
        .status_where("a second member in Raft", |status| status.voters.len() + status.learners.len() == 2)
        .await;
    let raise = Command::Cluster(ClusterCommand::RaiseFeatureLevel { level: FeatureLevel::new(2) });
    let refused = second
        .consensus()
        .propose(&Principal::local(), RequestId::new(Uuid::now_v7()), raise, PATIENCE)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("node 1000 can read 1 at most"), "{refused}");
    assert_eq!(first.consensus().applied().state.cluster.feature_level, FeatureLevel::new(1));

    // What the old node could not read is refused, and does not reach its log.
    let refused = second.register_local_version().await.unwrap_err();
    assert!(refused.to_string().contains("needs feature level 2 and the cluster is at 1"), "{refused}");

    // The old node is updated: the level follows by itself, and who asks early waits for it.
    first.flock.shutdown(STOP_TIMEOUT).await;
    let first = Node::start_with(&dir.path().join("0"), &[&second.address], newer).await;
    eventually("both members to have said that they can read level 2", || {
        let state = second.consensus().applied().state;
        state.members.iter().all(|member| member.max_feature_level == FeatureLevel::new(2))
    })
    .await;
    second.register_local_version().await.unwrap();
    for node in [&first, &second] {
        let consensus = node.consensus().clone();
        eventually("feature level 2", || {
            consensus.applied().state.cluster.feature_level == FeatureLevel::new(2)
        })
        .await;
    }
    second.flock.shutdown(STOP_TIMEOUT).await;
    first.flock.shutdown(STOP_TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_that_expect_each_other_found_one_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let mut prepared = ["0", "1", "2"].map(|name| config(&dir.path().join(name), &[]));
    let addresses: Vec<String> = prepared.iter().map(|(_, address)| address.clone()).collect();
    for (config, _) in &mut prepared {
        config.bootstrap_expect = Some(3);
        config.join = addresses.clone();
    }
    let starts = prepared.map(|(config, address)| tokio::spawn(Node::start_as(config, address)));
    let mut nodes = Vec::new();
    for start in starts {
        nodes.push(start.await.unwrap().unwrap());
    }
    let cluster_id = nodes[0].consensus().cluster_id();
    for node in &nodes {
        assert_eq!(node.consensus().cluster_id(), cluster_id);
        node.status_where("three voters", |status| status.voters.len() == 3).await;
    }
    assert_digests_equal(&nodes[0], 3).await;
    for node in nodes {
        node.flock.shutdown(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_ends_and_says_so_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second, third] = three_voters(dir.path()).await;
    let remove = Command::Member(MemberCommand::Remove { node_id: third.id() });
    flock::propose(second.consensus(), remove).await;
    let fatal = tokio::time::timeout(PATIENCE, third.flock.fatal()).await.unwrap();
    assert!(fatal.0.contains("was removed from cluster"), "{fatal}");
    let removed = third.id();
    third.flock.shutdown(Duration::ZERO).await;
    first.status_where("a cluster without it", |status| !status.voters.contains(&removed)).await;
    second.checkpoint().await;

    // With its old data directory it is refused.
    let back = Node::start(&dir.path().join("2"), &[&first.address]).await;
    let fatal = tokio::time::timeout(PATIENCE, back.flock.fatal()).await.unwrap();
    assert!(fatal.0.contains("removed"), "{fatal}");
    for node in [back, second, first] {
        node.flock.shutdown(Duration::ZERO).await;
    }
}
