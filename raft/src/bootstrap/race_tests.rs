//! Raced first starts of nodes with real servers, real identity files, and
//! kills at any moment: they end in one cluster id.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use starling_proto::peer::{JoinRequest, JoinResponse};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::transport::Server;

use super::decision::Settings;
use super::{Beginning, begin};
use crate::flock::StartError;
use crate::gossip::{Gossip, GossipConfig};
use crate::identity::{IdentityStore, Standing};
use crate::join::Introduction;
use crate::membership_service::{Admission, MembershipService};
use crate::state::members::FOUNDER_NODE_ID;
use crate::state::{Addresses, ClusterId, FeatureLevel, NodeId};

/// Stands for the log: gives ids by UUID.
#[derive(Default)]
struct Doors {
    cluster_id: Mutex<Option<ClusterId>>,
    ids: Mutex<BTreeMap<String, u64>>,
}

impl Admission for Doors {
    fn admit(&self, request: JoinRequest) -> BoxFuture<'_, Result<JoinResponse, Status>> {
        let mut ids = self.ids.lock().unwrap();
        let next = 1001 + ids.len() as u64;
        let node_id = *ids.entry(request.node_uuid).or_insert(next);
        let cluster_id = self.cluster_id.lock().unwrap().unwrap().to_string();
        async move { Ok(JoinResponse { cluster_id, node_id, members: Default::default() }) }.boxed()
    }
}

/// One start of one node, until it is killed. It has a runtime of its own, so
/// that its connections die with it.
struct Process {
    runtime: Runtime,
    begun: JoinHandle<Result<ClusterId, StartError>>,
}

impl Process {
    fn start(dir: &Path, listener: TcpListener, settings: Settings, doors: &Arc<Doors>) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let begun = runtime.spawn(run(dir.to_owned(), listener, settings, doors.clone()));
        Self { runtime, begun }
    }

    /// At whichever await it is. What it was just writing is still written.
    async fn kill(self) {
        let runtime = self.runtime;
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(10))).await.unwrap();
    }
}

async fn run(
    dir: PathBuf,
    listener: TcpListener,
    settings: Settings,
    doors: Arc<Doors>,
) -> Result<ClusterId, StartError> {
    let identity = IdentityStore::open(&dir)?;
    let own_address = settings.own_address.clone();
    let service = MembershipService::new(identity.clone(), None, settings.expect, own_address.clone());
    let router = Server::builder().add_service(service.server());
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));

    let addresses = Addresses { peer: own_address, ..Addresses::default() };
    let introduction = Introduction {
        addresses: addresses.clone(),
        labels: BTreeMap::new(),
        max_feature_level: FeatureLevel::new(1),
        starling_version: "0.1.0".to_owned(),
    };
    // The marker of the log store is not part of this: as if it were synced.
    let marker = identity.current().cluster_id;
    let (cluster_id, node_id) = match identity.standing(marker)? {
        Standing::Member { cluster_id, node_id } => (cluster_id, node_id),
        Standing::Founder { cluster_id } => (cluster_id, FOUNDER_NODE_ID),
        Standing::Stranger { bound_for } => {
            match begin(&identity, bound_for, &settings, &introduction).await? {
                Beginning::Found { cluster_id } => (cluster_id, FOUNDER_NODE_ID),
                Beginning::Join(admitted) => (admitted.cluster_id, admitted.node_id),
            }
        }
    };
    identity.enter(cluster_id, node_id)?;
    if node_id == FOUNDER_NODE_ID {
        *doors.cluster_id.lock().unwrap() = Some(cluster_id);
        let current = identity.current();
        let gossip = Gossip::start(GossipConfig {
            cluster_id,
            node_id,
            node_uuid: current.node_uuid,
            generation: current.gossip_generation,
            addresses,
            seeds: Vec::new(),
            interval: Duration::from_secs(1),
        })
        .await
        .unwrap();
        service.enter(cluster_id, node_id, doors, gossip.inlet());
    }
    Ok(cluster_id)
}

/// The address that a killed process leaves may take a moment to be free.
async fn bind(address: &str) -> TcpListener {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => {
                listener.set_nonblocking(true).unwrap();
                return listener;
            }
            Err(error) if Instant::now() > deadline => panic!("{address}: {error}"),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// What the identity file on disk says.
fn on_disk(dir: &Path) -> (Option<ClusterId>, Option<NodeId>, Option<ClusterId>) {
    let identity = IdentityStore::open(dir).unwrap().current();
    (identity.cluster_id, identity.node_id, identity.founding)
}

async fn race(seed: u64, nodes: usize, expect: u32, kills: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let dirs: Vec<tempfile::TempDir> = (0..nodes).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut listeners = Vec::new();
    for _ in 0..nodes {
        listeners.push(bind("127.0.0.1:0").await);
    }
    let addresses: Vec<String> =
        listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect();
    let settings = |node: usize| Settings {
        seeds: addresses.clone(),
        expect: Some(expect),
        own_address: addresses[node].clone(),
    };
    let doors = Arc::new(Doors::default());

    let mut processes = Vec::new();
    for (node, listener) in listeners.into_iter().enumerate() {
        sleep(Duration::from_millis(random.random_range(0..60))).await;
        processes.push(Process::start(dirs[node].path(), listener, settings(node), &doors));
    }
    for _ in 0..kills {
        sleep(Duration::from_millis(random.random_range(0..150))).await;
        let node = random.random_range(0..nodes);
        processes.remove(node).kill().await;
        sleep(Duration::from_millis(random.random_range(0..100))).await;
        let listener = bind(&addresses[node]).await;
        processes.insert(node, Process::start(dirs[node].path(), listener, settings(node), &doors));
    }

    let mut clusters = BTreeSet::new();
    for process in &mut processes {
        let begun = timeout(Duration::from_secs(60), &mut process.begun).await;
        clusters.insert(begun.expect("every node comes to a cluster").unwrap().unwrap());
    }
    for process in processes {
        process.kill().await;
    }
    assert_eq!(clusters.len(), 1, "seed {seed}: {clusters:?}");
    let files: Vec<_> = dirs.iter().map(|dir| on_disk(dir.path())).collect();
    let founders = files.iter().filter(|(_, _, founding)| founding.is_some()).count();
    assert_eq!(founders, 1, "seed {seed}: {files:?}");
    let ids: BTreeSet<_> = files.iter().map(|(_, node_id, _)| node_id.unwrap()).collect();
    assert_eq!(ids.len(), nodes, "seed {seed}: {files:?}");
}

#[tokio::test]
async fn three_nodes_that_start_at_once_come_to_one_cluster() {
    race(1, 3, 3, 0).await;
}

#[tokio::test]
async fn three_nodes_killed_while_they_start_come_to_one_cluster() {
    for seed in 10..18 {
        race(seed, 3, 3, 4).await;
    }
}

#[tokio::test]
async fn five_nodes_of_which_three_are_enough_come_to_one_cluster_despite_kills() {
    for seed in 20..24 {
        race(seed, 5, 3, 4).await;
    }
}

#[tokio::test]
async fn a_node_with_other_settings_is_refused_with_the_reason() {
    let doors = Arc::new(Doors::default());
    let (first, second) = (bind("127.0.0.1:0").await, bind("127.0.0.1:0").await);
    let addresses = [first.local_addr().unwrap().to_string(), second.local_addr().unwrap().to_string()];
    let settings = |node: usize, expect| Settings {
        seeds: addresses.to_vec(),
        expect: Some(expect),
        own_address: addresses[node].clone(),
    };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let two = Process::start(dirs[0].path(), first, settings(0, 2), &doors);
    let three = Process::start(dirs[1].path(), second, settings(1, 3), &doors);
    let mut processes = [two, three];
    for process in &mut processes {
        let refusal =
            timeout(Duration::from_secs(20), &mut process.begun).await.unwrap().unwrap().unwrap_err();
        assert!(matches!(&refusal, StartError::Refused(reason) if reason.contains("give all the same")));
    }
    for process in processes {
        process.kill().await;
    }
}
