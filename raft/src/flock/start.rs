//! The way from a data directory to a running member, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::{BasicNode, Raft};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};
use tonic::service::Routes;
use uuid::Uuid;

use super::peer_server::PeerServer;
use super::watchdog::{self, Watchdog};
use super::{Condition, Flock, FlockConfig, StartError};
use crate::admission::LogAdmission;
use crate::artefacts::Flockmates;
use crate::bootstrap::decision::Settings;
use crate::bootstrap::{self, Beginning};
use crate::consensus::{Consensus, Core};
use crate::flock::housekeeping::keep_house;
use crate::flock::storage::Storage;
use crate::gossip::{Gossip, GossipConfig};
use crate::identity::{IdentityStore, Standing};
use crate::join::{self, Introduction, JoinError};
use crate::log_store::LogStoreOptions;
use crate::membership::{self, AutopilotConfig};
use crate::membership_service::MembershipService;
use crate::network::RaftNetwork;
use crate::peer_gate::OwnIdentity;
use crate::peers::{PeerChannel, PeerIdentity, PeerUnavailable, Peers};
use crate::proposals::PROPOSALS_IN_FLIGHT_MAX;
use crate::raft_config::{RaftTiming, openraft_config};
use crate::raft_service::{RaftService, Served};
use crate::raft_status::{self, LeaderContact};
use crate::raft_types::TypeConfig;
use crate::state::members::FOUNDER_NODE_ID;
use crate::state::{ClusterCommand, ClusterId, Command, MemberCommand, NodeId, Principal, RequestId};
use crate::state_machine::{Applied, StateMachine};

/// The founder is alone: its first commands wait for its own disk only.
const FOUNDING_TIMEOUT: Duration = Duration::from_secs(30);
/// Between looks at who should vote.
const AUTOPILOT_INTERVAL: Duration = Duration::from_secs(1);
/// Between reports of this node's condition to the others.
const CONDITION_INTERVAL: Duration = Duration::from_millis(500);

type RaftCore = Raft<TypeConfig, StateMachine>;

pub(super) async fn start(
    config: FlockConfig,
    log_options: LogStoreOptions,
    peer_services: Routes,
    on_listening: impl FnOnce() + Send,
) -> Result<Flock, StartError> {
    let timing = timing_of(&config);
    let raft_config = openraft_config(&timing).map_err(|error| StartError::Refused(error.to_string()))?;
    let storage = Storage::open(&config, log_options).await?;
    let standing = storage.identity.standing(storage.log.store.marker())?;

    let watchdog = Watchdog::new();
    let own = OwnIdentity::default();
    let raft_service = RaftService::default();
    let membership_service = MembershipService::new(
        storage.identity.clone(),
        storage.log.store.marker(),
        config.bootstrap_expect,
        config.addresses.peer.clone(),
    );
    let services = peer_services
        .add_service(raft_service.server())
        .add_service(membership_service.server())
        .add_service(storage.artefacts.server());
    let listener = config.peer_listener.try_clone().map_err(other)?;
    let on_end = {
        let watchdog = watchdog.clone();
        move |reason| watchdog.raise(reason)
    };
    let door = config.forwarding.clone();
    let server = PeerServer::start(listener, services, door, own.clone(), on_end).map_err(other)?;
    on_listening();

    let seat = take_seat(&config, &storage, standing).await?;
    let identity = PeerIdentity { cluster_id: seat.cluster_id, node_id: seat.node_id };
    tracing::info!(cluster = %seat.cluster_id, node = %seat.node_id, entry = ?seat.entry, "takes its seat");
    let gossip = Arc::new(start_gossip(&config, &storage, &seat).await?);
    let peers = Peers::new(identity, gossip.live(), storage.applied.watch());
    for (member, address) in &seat.members {
        peers.learn_address(*member, address);
    }
    let _ = own.set(identity);

    let Storage {
        data_dir,
        identity: identity_store,
        log,
        history,
        snapshots,
        state_machine,
        applied,
        artefacts,
    } = storage;
    let network = RaftNetwork::new(peers.clone());
    let raft =
        Raft::new(seat.node_id.get(), raft_config, network, log.store.clone(), state_machine).await.map_err(
            |fatal| StartError::Other(format!("the Raft core cannot start from what is on disk: {fatal}")),
        )?;
    let contact = LeaderContact::default();
    let consensus = Consensus::new(Core {
        raft: raft.clone(),
        identity,
        boot: identity_store.current().boot,
        applied: applied.clone(),
        status: raft_status::follow(&raft, contact.clone(), applied.clone(), timing.lease()),
        peers: peers.clone(),
        timing,
        in_flight: Semaphore::new(PROPOSALS_IN_FLIGHT_MAX),
    });
    raft_service.begin(Served { consensus: consensus.clone(), contact, snapshots, history: history.clone() });
    let admission = Arc::new(LogAdmission::new(consensus.clone()));
    membership_service.enter(seat.cluster_id, seat.node_id, admission, gossip.inlet());
    artefacts.connect(Arc::new(Mates { consensus: consensus.clone(), peers: peers.clone() }));
    if seat.entry == Entry::Founder {
        found(&raft, &consensus, &identity_store, &config).await?;
    }

    let autopilot_config = AutopilotConfig {
        voters_max: config.voters_max,
        dead_after: config.dead_after,
        interval: AUTOPILOT_INTERVAL,
    };
    let autopilot = membership::start(raft.clone(), consensus.clone(), gossip.live(), autopilot_config);
    let condition = Arc::new(Condition::default());
    let mut tasks = vec![
        watchdog.watch(watchdog::raft_has_died(raft)),
        watchdog.watch(watchdog::log_has_failed(log.fatal)),
        watchdog.watch(gossip_has_ended(gossip.clone())),
        watchdog.watch(was_removed(consensus.clone())),
        tokio::spawn(report_condition(gossip.clone(), applied.clone(), condition.clone())),
        tokio::spawn(keep_house(applied, history.clone(), artefacts.clone())),
    ];
    if seat.entry == Entry::Returning {
        tasks.push(announce(&config, &identity_store, &consensus, &peers, &watchdog));
    }
    Ok(Flock {
        consensus,
        artefacts,
        peers,
        history,
        condition,
        watchdog,
        gossip,
        server,
        log: log.store,
        autopilot,
        tasks,
        data_dir,
    })
}

/// Where this node belongs, and how it came there.
struct Seat {
    cluster_id: ClusterId,
    node_id: NodeId,
    entry: Entry,
    /// Members and their addresses as the one who admitted this node knows them.
    members: BTreeMap<NodeId, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Founder,
    Newcomer,
    Returning,
}

/// Founds or joins, if this node belongs nowhere yet. The log's marker is
/// durable before the identity names the cluster.
async fn take_seat(config: &FlockConfig, storage: &Storage, standing: Standing) -> Result<Seat, StartError> {
    let founder = |cluster_id| Seat {
        cluster_id,
        node_id: FOUNDER_NODE_ID,
        entry: Entry::Founder,
        members: BTreeMap::new(),
    };
    let seat = match standing {
        Standing::Member { cluster_id, node_id } => {
            return Ok(Seat { cluster_id, node_id, entry: Entry::Returning, members: BTreeMap::new() });
        }
        Standing::Founder { cluster_id } => founder(cluster_id),
        Standing::Stranger { bound_for } => {
            let settings = Settings {
                seeds: config.join.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect(),
                expect: config.bootstrap_expect,
                own_address: config.addresses.peer.clone(),
            };
            let introduction = introduction_of(config);
            match bootstrap::begin(&storage.identity, bound_for, &settings, &introduction).await? {
                Beginning::Found { cluster_id } => founder(cluster_id),
                Beginning::Join(admitted) => Seat {
                    cluster_id: admitted.cluster_id,
                    node_id: admitted.node_id,
                    entry: Entry::Newcomer,
                    members: admitted.members,
                },
            }
        }
    };
    storage.log.store.set_marker(seat.cluster_id).await.map_err(other)?;
    let (identity, cluster_id, node_id) = (storage.identity.clone(), seat.cluster_id, seat.node_id);
    spawn_blocking(move || identity.enter(cluster_id, node_id)).await.map_err(other)??;
    Ok(seat)
}

async fn start_gossip(config: &FlockConfig, storage: &Storage, seat: &Seat) -> Result<Gossip, StartError> {
    let identity = storage.identity.current();
    let applied = storage.applied.state();
    let members = applied.state.members.iter().map(|member| member.addresses.peer.clone());
    let known: BTreeSet<String> =
        config.join.iter().cloned().chain(seat.members.values().cloned()).chain(members).collect();
    let gossip = GossipConfig {
        cluster_id: seat.cluster_id,
        node_id: seat.node_id,
        node_uuid: identity.node_uuid,
        generation: identity.gossip_generation,
        addresses: config.addresses.clone(),
        seeds: known.into_iter().filter(|address| *address != config.addresses.peer).collect(),
        interval: config.gossip_interval,
    };
    Gossip::start(gossip).await.map_err(|error| StartError::Refused(error.to_string()))
}

/// Makes a cluster of one. Every step may be repeated: a start that was
/// interrupted here comes here again.
async fn found(
    raft: &RaftCore,
    consensus: &Consensus,
    identity: &IdentityStore,
    config: &FlockConfig,
) -> Result<(), StartError> {
    let is_initialised = raft.is_initialized().await.map_err(other)?;
    if !is_initialised {
        let addr = config.addresses.peer.clone();
        let alone = BTreeMap::from([(FOUNDER_NODE_ID.get(), BasicNode { addr })]);
        raft.initialize(alone).await.map_err(other)?;
    }
    let Introduction { addresses, labels, max_feature_level, starling_version } = introduction_of(config);
    let node_uuid = identity.current().node_uuid;
    let commands = [
        Command::Cluster(ClusterCommand::Found { cluster_id: consensus.cluster_id() }),
        Command::Member(MemberCommand::Join {
            node_uuid,
            addresses,
            labels,
            max_feature_level,
            starling_version,
        }),
    ];
    for command in commands {
        let request_id = RequestId::new(Uuid::now_v7());
        let principal = Principal::node(FOUNDER_NODE_ID);
        consensus.propose(&principal, request_id, command, FOUNDING_TIMEOUT).await.map_err(other)?;
    }
    let identity = identity.clone();
    spawn_blocking(move || identity.founded()).await.map_err(other)??;
    tracing::info!(cluster = %consensus.cluster_id(), "founded the cluster");
    Ok(())
}

/// Tells the cluster where this member listens now, until somebody has heard it.
fn announce(
    config: &FlockConfig,
    identity: &IdentityStore,
    consensus: &Consensus,
    peers: &Peers,
    watchdog: &Watchdog,
) -> JoinHandle<()> {
    let request = introduction_of(config).returning(
        identity.current().node_uuid,
        consensus.cluster_id(),
        consensus.node_id(),
    );
    let (own, seeds) = (config.addresses.peer.clone(), config.join.clone());
    let (consensus, live) = (consensus.clone(), peers.live());
    let addresses = move || {
        let live: Vec<String> = live.borrow().values().map(|peer| peer.addresses.peer.clone()).collect();
        let applied = consensus.applied();
        let members = applied.state.members.iter().map(|member| member.addresses.peer.clone());
        // Whoever has the log asks the log itself first: this node is the nearest member.
        let mut addresses = vec![own.clone()];
        addresses.extend(live.into_iter().chain(seeds.iter().cloned()).chain(members));
        let mut seen = BTreeSet::new();
        addresses.retain(|address| seen.insert(address.clone()));
        addresses
    };
    watchdog.watch(async move {
        match join::announce(request, addresses).await {
            Ok(_) => None,
            Err(JoinError::Refused(reason)) => Some(format!("the cluster refuses this node: {reason}")),
            Err(JoinError::Unavailable(_)) => None,
        }
    })
}

async fn gossip_has_ended(gossip: Arc<Gossip>) -> Option<String> {
    Some(gossip.fatal().await)
}

async fn was_removed(consensus: Consensus) -> Option<String> {
    membership::removed(&consensus).await;
    Some(format!(
        "node {} was removed from cluster {}; to let this machine in again, start it with an empty data directory and --join",
        consensus.node_id(),
        consensus.cluster_id(),
    ))
}

async fn report_condition(gossip: Arc<Gossip>, applied: Applied, condition: Arc<Condition>) {
    let mut clock = tokio::time::interval(CONDITION_INTERVAL);
    loop {
        clock.tick().await;
        let load = condition.load.load(Ordering::Relaxed);
        let ready = condition.ready.load(Ordering::Relaxed);
        gossip.publish(applied.state().index.get(), load, ready);
    }
}

/// How the artefact store sees the others.
struct Mates {
    consensus: Consensus,
    peers: Peers,
}

impl Flockmates for Mates {
    fn this_node(&self) -> NodeId {
        self.consensus.node_id()
    }

    fn voters(&self) -> Vec<NodeId> {
        self.consensus.status().voters
    }

    fn live(&self) -> Vec<NodeId> {
        self.peers.live().borrow().keys().copied().collect()
    }

    fn channel(&self, node_id: NodeId) -> Result<PeerChannel, PeerUnavailable> {
        self.peers.channel(node_id)
    }
}

fn introduction_of(config: &FlockConfig) -> Introduction {
    Introduction {
        addresses: config.addresses.clone(),
        labels: config.labels.clone(),
        max_feature_level: config.max_feature_level,
        starling_version: config.starling_version.clone(),
    }
}

fn timing_of(config: &FlockConfig) -> RaftTiming {
    RaftTiming {
        heartbeat_interval: config.heartbeat_interval,
        election_timeout_min: config.election_timeout_min,
        election_timeout_max: config.election_timeout_max,
        snapshot_every_entries: config.snapshot_every_entries,
        log_entries_kept: config.log_entries_kept,
    }
}

fn other(error: impl std::fmt::Display) -> StartError {
    StartError::Other(error.to_string())
}
