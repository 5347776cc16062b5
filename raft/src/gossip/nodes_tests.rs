//! Nodes that gossip over real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use starling_proto::peer::membership_client::MembershipClient;
use starling_proto::peer::{GossipPacket, JoinRequest, JoinResponse};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Code, Status};
use uuid::Uuid;

use super::*;
use crate::dial::dial;
use crate::identity::IdentityStore;
use crate::membership_service::{Admission, MembershipService};

const INTERVAL: Duration = Duration::from_millis(100);

/// Nobody joins here.
struct NoAdmission;

impl Admission for NoAdmission {
    fn admit(&self, _request: JoinRequest) -> BoxFuture<'_, Result<JoinResponse, Status>> {
        async { Err(Status::unavailable("not in this test")) }.boxed()
    }
}

struct Node {
    gossip: Gossip,
    address: String,
    server: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

fn cluster(number: u128) -> ClusterId {
    ClusterId::new(Uuid::from_u128(number))
}

async fn start(node_id: u64, generation: u64, seeds: &[&str]) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let gossip = Gossip::start(GossipConfig {
        cluster_id: cluster(1),
        node_id: NodeId::new(node_id),
        node_uuid: NodeUuid::new(Uuid::from_u128(u128::from(node_id))),
        generation,
        addresses: Addresses { peer: address.clone(), grpc: format!("g{node_id}"), ..Addresses::default() },
        seeds: seeds.iter().map(|seed| (*seed).to_owned()).collect(),
        interval: INTERVAL,
    })
    .await
    .unwrap();
    let identity = IdentityStore::open(dir.path()).unwrap();
    let service = MembershipService::new(identity, None, None, address.clone());
    service.enter(cluster(1), NodeId::new(node_id), Arc::new(NoAdmission), gossip.inlet());
    let router = Server::builder().add_service(service.server());
    let server = tokio::spawn(async move {
        router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    Node { gossip, address, server, _dir: dir }
}

impl Node {
    async fn sees(&self, what: impl FnMut(&LivePeers) -> bool) {
        let mut live = self.gossip.live();
        let seen = timeout(Duration::from_secs(30), live.wait_for(what)).await.is_ok();
        if !seen {
            panic!("{} sees {:?}", self.address, live.borrow().clone());
        }
    }

    async fn stop(self) {
        self.gossip.stop().await;
        self.server.abort();
    }
}

fn are(ids: &'static [u64]) -> impl FnMut(&LivePeers) -> bool {
    move |live| live.keys().map(|node| node.get()).eq(ids.iter().copied())
}

#[tokio::test]
async fn nodes_that_know_one_seed_find_all_others_and_hear_how_they_are() {
    let first = start(1000, 1, &[]).await;
    let second = start(1001, 1, &[&first.address]).await;
    let third = start(1002, 1, &[&first.address]).await;
    for node in [&first, &second, &third] {
        node.sees(are(&[1000, 1001, 1002])).await;
    }
    third.gossip.publish(77, 5, true);
    let peer = third.address.clone();
    first
        .sees(move |live| {
            live[&NodeId::new(1002)]
                == LivePeer {
                    addresses: Addresses {
                        peer: peer.clone(),
                        grpc: "g1002".to_owned(),
                        ..Addresses::default()
                    },
                    applied_index: 77,
                    load: 5,
                    ready: true,
                }
        })
        .await;
    for node in [first, second, third] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_node_that_stops_is_missed_and_found_again_at_another_address() {
    let first = start(1000, 1, &[]).await;
    let second = start(1001, 1, &[&first.address]).await;
    first.sees(are(&[1000, 1001])).await;
    second.stop().await;
    first.sees(are(&[1000])).await;

    let returned = start(1001, 2, &[&first.address]).await;
    let peer = returned.address.clone();
    first
        .sees(move |live| live.get(&NodeId::new(1001)).is_some_and(|found| found.addresses.peer == peer))
        .await;
    first.stop().await;
    returned.stop().await;
}

#[tokio::test]
async fn two_processes_under_one_identity_do_not_both_go_on() {
    let original = start(1000, 5, &[]).await;
    let copy = start(1000, 6, &[&original.address]).await;
    let reason = timeout(Duration::from_secs(30), original.gossip.fatal()).await.unwrap();
    assert!(reason.contains("from a copy of this node's data directory"), "{reason}");
    copy.stop().await;
    original.stop().await;
}

#[tokio::test]
async fn a_packet_of_another_cluster_is_refused_and_garbage_changes_nothing() {
    let node = start(1000, 1, &[]).await;
    let mut client = MembershipClient::new(dial(&node.address).unwrap());
    let packet = |cluster_id: ClusterId| GossipPacket {
        from: "127.0.0.1:9".to_owned(),
        payload: b"garbage".to_vec().into(),
        cluster_id: cluster_id.to_string(),
    };
    let refusal = client.gossip(packet(cluster(2))).await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    assert!(refusal.message().contains("came to node 1000"), "{refusal}");

    for _ in 0..50 {
        client.gossip(packet(cluster(1))).await.unwrap();
    }
    let second = start(1001, 1, &[&node.address]).await;
    node.sees(are(&[1000, 1001])).await;
    node.stop().await;
    second.stop().await;
}
