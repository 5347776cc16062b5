//! Who is alive, as this node sees it: chitchat over our own transport. A hint,
//! never a vote.

mod live;
#[cfg(test)]
mod nodes_tests;
mod transport;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, spawn_chitchat};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use self::live::{Heard, key, settle};
pub use self::transport::GossipInlet;
use self::transport::PeerTransport;
use crate::state::{Addresses, ClusterId, NodeId, NodeUuid};

/// How often others hear of a new load or applied index.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);
/// How long the dead stay in everyone's packets.
const DEAD_NODE_GRACE: Duration = Duration::from_secs(12 * 60);
/// A name in DNS may appear only a while after the node has started.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(30);
const RESOLVE_PAUSE: Duration = Duration::from_millis(500);
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// What gossip says about one live member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LivePeer {
    /// Where it listens now (newer than the log, after a restart on other ports).
    pub addresses: Addresses,
    /// How far it has applied the log; up to a second old.
    pub applied_index: u64,
    /// Requests in flight there; up to a second old.
    pub load: u32,
    /// It answers requests.
    pub ready: bool,
}

/// All members that this node believes alive, itself included.
pub type LivePeers = BTreeMap<NodeId, LivePeer>;

/// How this node gossips.
#[derive(Debug, Clone)]
pub struct GossipConfig {
    /// Packets of other clusters are refused.
    pub cluster_id: ClusterId,
    /// This node.
    pub node_id: NodeId,
    /// Tells two processes that claim one id apart.
    pub node_uuid: NodeUuid,
    /// Higher than at every earlier start of this node.
    pub generation: u64,
    /// What others should dial.
    pub addresses: Addresses,
    /// `--join` and the members' addresses in the log, as `host:port`.
    pub seeds: Vec<String>,
    /// Between rounds.
    pub interval: Duration,
}

/// Why gossip could not start.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    /// Others could not dial it either.
    #[error(
        "this node's own peer address '{address}' does not resolve: {reason}; set --advertise to what others can dial"
    )]
    OwnAddress {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
    /// chitchat said no.
    #[error("gossip could not start: {0}")]
    Start(String),
}

/// What this node says of itself now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Vitals {
    applied_index: u64,
    load: u32,
    ready: bool,
}

/// Running gossip. Dropping it stops it.
pub struct Gossip {
    handle: ChitchatHandle,
    inlet: GossipInlet,
    live: watch::Receiver<LivePeers>,
    vitals: watch::Sender<Vitals>,
    usurped: watch::Receiver<Option<String>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Gossip {
    /// Starts to gossip, in background tasks. Waits up to half a minute for this
    /// node's own address to resolve.
    pub async fn start(config: GossipConfig) -> Result<Self, GossipError> {
        let own_address = resolve_own(&config.addresses.peer).await?;
        let (transport, inlet) = PeerTransport::new(config.cluster_id, own_address);
        let own = own_entry(&config, own_address);
        let handle = spawn_chitchat(chitchat_config(&config, own_address), initial_keys(&own), &transport)
            .await
            .map_err(|error| GossipError::Start(format!("{error:#}")))?;

        let (vitals, vitals_seen) = watch::channel(Vitals::default());
        let (usurped_tx, usurped) = watch::channel(None);
        let (live_tx, live) = watch::channel(settle(&own, []).live);
        let chitchat = handle.chitchat();
        let heard = chitchat.lock().await.live_nodes_watcher();
        let tasks = vec![
            tokio::spawn(publish_vitals(chitchat, vitals_seen)),
            tokio::spawn(follow(own, heard, live_tx, usurped_tx)),
        ];
        Ok(Self { handle, inlet, live, vitals, usurped, tasks })
    }

    /// Where packets come in.
    pub fn inlet(&self) -> GossipInlet {
        self.inlet.clone()
    }

    /// Who is alive. Holds this node from the start.
    pub fn live(&self) -> watch::Receiver<LivePeers> {
        self.live.clone()
    }

    /// Says how this node is. Cheap; others learn it within a second or so.
    pub fn publish(&self, applied_index: u64, load: u32, ready: bool) {
        self.vitals.send_replace(Vitals { applied_index, load, ready });
    }

    /// Resolves with the reason when gossip has ended by itself, or when another
    /// process runs under this node's identity: the process must end then.
    pub async fn fatal(&self) -> String {
        let ended = self.handle.termination_watcher();
        let mut usurped = self.usurped.clone();
        tokio::select! {
            result = ended => match result {
                Ok(()) => "gossip has stopped".to_owned(),
                Err(error) => format!("gossip has stopped: {error:#}"),
            },
            Ok(reason) = usurped.wait_for(Option::is_some) => {
                reason.clone().unwrap_or_default()
            }
        }
    }

    /// Stops. Others notice by silence.
    pub async fn stop(mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
        let _ = self.handle.initiate_shutdown();
        let _ = timeout(STOP_DEADLINE, self.handle.termination_watcher()).await;
    }
}

impl Drop for Gossip {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.handle.abort();
    }
}

async fn resolve_own(address: &str) -> Result<SocketAddr, GossipError> {
    let deadline = Instant::now() + RESOLVE_DEADLINE;
    loop {
        let reason = match tokio::net::lookup_host(address).await {
            Ok(mut resolved) => match resolved.next() {
                Some(resolved) => return Ok(resolved),
                None => "the name has no address".to_owned(),
            },
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return Err(GossipError::OwnAddress { address: address.to_owned(), reason });
        }
        sleep(RESOLVE_PAUSE).await;
    }
}

fn chitchat_config(config: &GossipConfig, own_address: SocketAddr) -> ChitchatConfig {
    ChitchatConfig {
        chitchat_id: ChitchatId::new(config.node_id.to_string(), config.generation, own_address),
        cluster_id: config.cluster_id.to_string(),
        gossip_interval: config.interval,
        listen_addr: own_address,
        seed_nodes: config.seeds.clone(),
        failure_detector_config: FailureDetectorConfig {
            // With the default of 5 s a fresh node's death takes half a minute to notice.
            initial_interval: config.interval * 2,
            dead_node_grace_period: DEAD_NODE_GRACE,
            ..FailureDetectorConfig::default()
        },
        marked_for_deletion_grace_period: DEAD_NODE_GRACE,
        catchup_callback: None,
        extra_liveness_predicate: None,
    }
}

fn own_entry(config: &GossipConfig, own_address: SocketAddr) -> Heard {
    Heard {
        node_id: config.node_id,
        node_uuid: config.node_uuid.to_string(),
        generation: config.generation,
        gossip_address: own_address.to_string(),
        peer: LivePeer { addresses: config.addresses.clone(), ..LivePeer::default() },
    }
}

fn initial_keys(own: &Heard) -> Vec<(String, String)> {
    let addresses = &own.peer.addresses;
    [
        (key::UUID, &own.node_uuid),
        (key::PEER, &addresses.peer),
        (key::GRPC, &addresses.grpc),
        (key::REST, &addresses.rest),
        (key::METRICS, &addresses.metrics),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.clone()))
    .collect()
}

/// Readiness is told at once, load and progress once a second.
async fn publish_vitals(
    chitchat: std::sync::Arc<tokio::sync::Mutex<chitchat::Chitchat>>,
    mut vitals: watch::Receiver<Vitals>,
) {
    let mut told = Vitals::default();
    loop {
        let becomes_ready = |now: &Vitals| now.ready != told.ready;
        let changed = vitals.wait_for(|now| *now != told).await.is_ok();
        if !changed {
            return;
        }
        // Until the second is over, or at once if it matters.
        let _ = timeout(PUBLISH_INTERVAL, vitals.wait_for(becomes_ready)).await;
        told = *vitals.borrow_and_update();
        let mut chitchat = chitchat.lock().await;
        let state = chitchat.self_node_state();
        state.set(key::APPLIED, told.applied_index);
        state.set(key::LOAD, told.load);
        state.set(key::READY, u8::from(told.ready));
    }
}

/// Turns what chitchat heard into who is alive.
async fn follow(
    own: Heard,
    mut heard: watch::Receiver<BTreeMap<ChitchatId, chitchat::NodeState>>,
    live: watch::Sender<LivePeers>,
    usurped: watch::Sender<Option<String>>,
) {
    let mut said = Vec::new();
    loop {
        let settled = {
            let nodes = heard.borrow_and_update();
            let mut own = own.clone();
            let mut others = Vec::new();
            for (id, state) in nodes.iter() {
                let Some(entry) = live::heard(id, state) else { continue };
                let is_this_process = entry.node_id == own.node_id
                    && entry.generation == own.generation
                    && entry.gossip_address == own.gossip_address;
                match is_this_process {
                    true => own.peer = entry.peer,
                    false => others.push(entry),
                }
            }
            settle(&own, others)
        };
        for dispute in settled.disputed.iter().filter(|dispute| !said.contains(*dispute)) {
            tracing::error!("{dispute}");
        }
        said = settled.disputed;
        if settled.usurped.is_some() {
            usurped.send_replace(settled.usurped);
        }
        live.send_if_modified(|current| {
            let changed = *current != settled.live;
            *current = settled.live;
            changed
        });
        if heard.changed().await.is_err() {
            return;
        }
    }
}
