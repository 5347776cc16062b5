//! Who comes, votes, drains and goes, with real cores, logs and servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod flock;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use flock::{Node, PATIENCE, config, propose, three_voters};
use starling_proto::peer::membership_client::MembershipClient;
use starling_proto::peer::{Addresses, JoinRequest};
use starling_raft::dial::dial;
use starling_raft::flock::{Flock, StartError};
use starling_raft::state::{Command, FeatureLevel, MemberCommand, NodeId};
use tokio::time::timeout;
use tonic::Code;
use tonic::service::Routes;
use uuid::Uuid;

/// Three voters and, last, a learner.
async fn three_voters_and_a_learner(dir: &Path, dead_after: Duration) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for number in 0..4 {
        let seed: Vec<String> = nodes.first().map(|first| first.address.clone()).into_iter().collect();
        let seed: Vec<&str> = seed.iter().map(String::as_str).collect();
        let data_dir = dir.join(number.to_string());
        nodes.push(Node::start_with(&data_dir, &seed, |config| config.dead_after = dead_after).await);
        let (voters, learners) = [(1, 0), (1, 1), (3, 0), (3, 1)][number];
        for node in &nodes {
            node.status_where("the next size", |status| {
                status.voters.len() == voters && status.learners.len() == learners && status.has_quorum
            })
            .await;
        }
    }
    nodes
}

fn leader(nodes: &[Node]) -> usize {
    nodes.iter().position(|node| node.consensus().status().is_leader).unwrap()
}

fn ids(nodes: &[Node]) -> BTreeSet<NodeId> {
    nodes.iter().map(Node::id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_that_expect_each_other_found_one_cluster_and_all_vote() {
    let dir = tempfile::tempdir().unwrap();
    let mut configs: Vec<_> =
        (0..3).map(|number| config(&dir.path().join(number.to_string()), &[]).0).collect();
    let all: Vec<String> = configs.iter().map(|config| config.addresses.peer.clone()).collect();
    for config in &mut configs {
        config.join.clone_from(&all);
        config.bootstrap_expect = Some(3);
    }
    let starts = configs.into_iter().map(|config| Flock::start(config, Routes::default(), || ()));
    let started = timeout(PATIENCE, futures::future::join_all(starts)).await.unwrap();
    let flocks: Vec<Flock> = started.into_iter().map(Result::unwrap).collect();
    let clusters: BTreeSet<_> = flocks.iter().map(|flock| flock.consensus.cluster_id()).collect();
    assert_eq!(clusters.len(), 1);
    for flock in &flocks {
        let mut status = flock.consensus.watch_status();
        timeout(PATIENCE, status.wait_for(|status| status.voters.len() == 3)).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_leader_hands_over_and_keeps_its_seat() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = three_voters(dir.path()).await;
    let drained = &nodes[leader(&nodes)];
    propose(drained.consensus(), Command::Member(MemberCommand::Drain { node_id: drained.id() })).await;
    let status = drained
        .status_where("another leader", |status| status.leader.is_some_and(|leader| leader != drained.id()))
        .await;
    assert_eq!(status.voters.iter().copied().collect::<BTreeSet<_>>(), ids(&nodes));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_voter_ends_and_a_learner_takes_its_seat() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = three_voters_and_a_learner(dir.path(), Duration::from_secs(300)).await;
    let removed = nodes.remove((leader(&nodes) + 1) % 3);
    propose(nodes[0].consensus(), Command::Member(MemberCommand::Remove { node_id: removed.id() })).await;
    for node in &nodes {
        node.status_where("the learner to vote", |status| {
            status.voters.iter().copied().collect::<BTreeSet<_>>() == ids(&nodes)
                && status.learners.is_empty()
        })
        .await;
    }
    let fatal = timeout(PATIENCE, removed.flock.fatal()).await.unwrap();
    assert!(fatal.to_string().contains("was removed"), "{fatal}");

    let data_dir = removed.data_dir.clone();
    removed.flock.shutdown(Duration::ZERO).await;
    let again = Node::start(&data_dir, &[&nodes[0].address]).await;
    let fatal = timeout(PATIENCE, again.flock.fatal()).await.unwrap();
    assert!(fatal.to_string().contains("was removed"), "{fatal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_leader_hands_over_before_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes: Vec<Node> = three_voters(dir.path()).await.into();
    let removed = nodes.remove(leader(&nodes));
    propose(removed.consensus(), Command::Member(MemberCommand::Remove { node_id: removed.id() })).await;
    for node in &nodes {
        // Two are left: one votes, the other learns.
        node.status_where("one voter and a learner", |status| {
            status.voters.len() == 1 && status.learners.len() == 1 && !status.voters.contains(&removed.id())
        })
        .await;
    }
    nodes[0].checkpoint().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_voter_is_replaced_by_a_learner_after_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = three_voters_and_a_learner(dir.path(), Duration::from_secs(4)).await;
    let dead = nodes.remove((leader(&nodes) + 1) % 3);
    let dead_id = dead.id();
    dead.flock.shutdown(Duration::ZERO).await;
    for node in &nodes {
        node.status_where("the learner to vote", |status| {
            status.voters.iter().copied().collect::<BTreeSet<_>>() == ids(&nodes)
        })
        .await;
    }
    // It is still a member, and learns when it comes back.
    assert!(nodes[0].consensus().applied().state.members.get(dead_id).is_some());
    assert_eq!(nodes[0].consensus().status().learners, [dead_id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_belongs_elsewhere_was_removed_or_is_too_old_is_not_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("0"), &[]).await;
    let mut client = MembershipClient::new(dial(&node.address).unwrap());
    let request = JoinRequest {
        node_uuid: Uuid::from_u128(7).to_string(),
        addresses: Some(Addresses { peer: "127.0.0.1:1".to_owned(), ..Addresses::default() }),
        max_feature_level: 1,
        ..JoinRequest::default()
    };
    let elsewhere =
        JoinRequest { cluster_id: Uuid::from_u128(8).to_string(), node_id: 1000, ..request.clone() };
    let removed = JoinRequest { node_id: 1234, ..request.clone() };
    let second = JoinRequest { node_id: node.id().get(), ..request.clone() };
    let too_old = JoinRequest { max_feature_level: 0, ..request };
    for (request, why) in [
        (elsewhere, "the node belongs to cluster"),
        (removed, "node 1234 was removed"),
        (second, "two nodes claim the id 1000"),
        (too_old, "update it before it joins"),
    ] {
        let refusal = client.join(request).await.unwrap_err();
        assert_eq!(refusal.code(), Code::FailedPrecondition, "{refusal}");
        assert!(refusal.message().contains(why), "{refusal}");
    }
    assert_eq!(node.consensus().applied().state.members.iter().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_that_is_too_old_ends_its_start_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&dir.path().join("0"), &[]).await;
    let (data_dir, seeds) = (dir.path().join("1"), [node.address.as_str()]);
    let start = Node::try_start_with(&data_dir, &seeds, |config| {
        config.max_feature_level = FeatureLevel::new(0);
    });
    match timeout(PATIENCE, start).await.unwrap() {
        Err(StartError::Refused(reason)) => assert!(reason.contains("update it before it joins"), "{reason}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_artefact_pushed_to_one_node_is_held_by_a_majority_and_had_by_all() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = three_voters(dir.path()).await;
    let bytes = Bytes::from(vec![7; 3_000_000]);
    let mut upload = nodes[0].flock.artefacts.upload().await.unwrap();
    upload.write(bytes.clone()).await.unwrap();
    let (digest, size_bytes) = upload.keep(None).await.unwrap();
    nodes[0].flock.artefacts.replicate_to_majority(digest, size_bytes, PATIENCE).await.unwrap();
    let holders = nodes.iter().filter(|node| node.flock.artefacts.path(digest).is_some()).count();
    assert!(holders >= 2, "{holders}");
    for node in &nodes {
        let path = node.flock.artefacts.ensure_local(digest, size_bytes, PATIENCE).await.unwrap();
        assert_eq!(std::fs::read(path).unwrap(), bytes);
    }
}
