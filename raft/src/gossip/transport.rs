//! chitchat's packets as calls of `Membership.Gossip`: one call per packet, to
//! an address, stamped with the cluster. There is no other socket.
//!
//! Gossip may lose packets, so nothing here waits or queues long: what cannot be
//! sent at once is dropped, and a call that takes too long is given up.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use starling_proto::peer::GossipPacket;
use starling_proto::peer::membership_client::MembershipClient;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;

use crate::dial::dial;
use crate::state::ClusterId;

/// chitchat fills a packet to 65,507 bytes at most.
const PACKET_BYTES_MAX: usize = 66_000;
const SEND_DEADLINE: Duration = Duration::from_secs(2);
const IN_FLIGHT_MAX: usize = 64;
const IN_FLIGHT_PER_PEER_MAX: usize = 2;
const INBOX_PACKETS: usize = 256;
const CHANNELS_MAX: usize = 256;

/// Where packets come in; given to the Membership service. Cheap to clone.
#[derive(Clone)]
pub struct GossipInlet {
    inbox: mpsc::Sender<(SocketAddr, Bytes)>,
}

impl GossipInlet {
    /// Takes a packet in; does not wait. Too many at once are refused.
    #[allow(clippy::result_large_err)]
    pub fn receive(&self, packet: GossipPacket) -> Result<(), Status> {
        let from: SocketAddr = packet.from.parse().map_err(|_| {
            Status::invalid_argument(format!("'{}' is not the address of a gossiping node", packet.from))
        })?;
        if packet.payload.len() > PACKET_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "a gossip packet of {} bytes is longer than {PACKET_BYTES_MAX}",
                packet.payload.len()
            )));
        }
        self.inbox.try_send((from, packet.payload)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Status::resource_exhausted("more gossip comes in than this node can read")
            }
            mpsc::error::TrySendError::Closed(_) => Status::unavailable("this node has stopped gossiping"),
        })
    }
}

/// The transport; chitchat opens it once.
pub(super) struct PeerTransport {
    cluster_id: ClusterId,
    own_address: SocketAddr,
    outbox: Mutex<Option<mpsc::Receiver<(SocketAddr, Bytes)>>>,
}

impl PeerTransport {
    /// A transport and the inlet to it.
    pub(super) fn new(cluster_id: ClusterId, own_address: SocketAddr) -> (Self, GossipInlet) {
        let (sender, receiver) = mpsc::channel(INBOX_PACKETS);
        let transport = Self { cluster_id, own_address, outbox: Mutex::new(Some(receiver)) };
        (transport, GossipInlet { inbox: sender })
    }
}

#[async_trait]
impl Transport for PeerTransport {
    async fn open(&self, _listen_addr: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let inbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner).take();
        let inbox = inbox.ok_or_else(|| anyhow::anyhow!("the gossip transport is open already"))?;
        Ok(Box::new(PeerSocket {
            cluster_id: self.cluster_id.to_string(),
            own_address: self.own_address.to_string(),
            inbox,
            peers: HashMap::new(),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            calls: JoinSet::new(),
        }))
    }
}

struct PeerSocket {
    cluster_id: String,
    own_address: String,
    inbox: mpsc::Receiver<(SocketAddr, Bytes)>,
    peers: HashMap<SocketAddr, Peer>,
    in_flight: Arc<Semaphore>,
    /// Dropping the socket ends them.
    calls: JoinSet<()>,
}

struct Peer {
    client: MembershipClient<Channel>,
    in_flight: Arc<Semaphore>,
    last_used: Instant,
}

impl PeerSocket {
    fn peer(&mut self, to: SocketAddr) -> anyhow::Result<&mut Peer> {
        if self.peers.len() >= CHANNELS_MAX && !self.peers.contains_key(&to) {
            let oldest = self.peers.iter().min_by_key(|(_, peer)| peer.last_used).map(|(to, _)| *to);
            oldest.map(|oldest| self.peers.remove(&oldest));
        }
        match self.peers.entry(to) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let client = MembershipClient::new(dial(&to.to_string())?);
                let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_PER_PEER_MAX));
                Ok(entry.insert(Peer { client, in_flight, last_used: Instant::now() }))
            }
        }
    }
}

#[async_trait]
impl Socket for PeerSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        while self.calls.try_join_next().is_some() {}
        let packet = GossipPacket {
            from: self.own_address.clone(),
            payload: message.serialize_to_vec().into(),
            cluster_id: self.cluster_id.clone(),
        };
        let all = self.in_flight.clone();
        let peer = self.peer(to)?;
        peer.last_used = Instant::now();
        let permits = (all.try_acquire_owned(), peer.in_flight.clone().try_acquire_owned());
        let (Ok(of_all), Ok(of_peer)) = permits else {
            tracing::debug!(%to, "gossip packet dropped: earlier ones are still on their way");
            return Ok(());
        };
        let mut client = peer.client.clone();
        self.calls.spawn(async move {
            match tokio::time::timeout(SEND_DEADLINE, client.gossip(packet)).await {
                Ok(Ok(_)) => {}
                Ok(Err(status)) => tracing::debug!(%to, %status, "gossip packet not delivered"),
                Err(_) => tracing::debug!(%to, "gossip packet not delivered in time"),
            }
            drop((of_all, of_peer));
        });
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let Some((from, payload)) = self.inbox.recv().await else {
                anyhow::bail!("nothing can come in any more");
            };
            match decode(&payload) {
                Some(message) => return Ok((from, message)),
                None => tracing::warn!(%from, bytes = payload.len(), "unreadable gossip packet dropped"),
            }
        }
    }
}

/// `None` for anything that is no packet. What anyone can send must not end
/// this node, whatever chitchat's reader makes of it.
fn decode(payload: &[u8]) -> Option<ChitchatMessage> {
    catch_unwind(AssertUnwindSafe(|| ChitchatMessage::deserialize(&mut &payload[..]).ok())).ok().flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_packet_or_nothing(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&payload);
        }
    }

    #[test]
    fn a_packet_survives_the_way_over_the_wire() {
        let bytes = ChitchatMessage::BadCluster.serialize_to_vec();
        assert_eq!(decode(&bytes), Some(ChitchatMessage::BadCluster));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
    }

    #[tokio::test]
    async fn packets_that_are_too_long_too_many_or_from_nowhere_are_refused() {
        let (_transport, inlet) =
            PeerTransport::new(ClusterId::new(Uuid::from_u128(1)), ([127, 0, 0, 1], 1).into());
        let packet = |from: &str, bytes: usize| GossipPacket {
            from: from.to_owned(),
            payload: vec![0; bytes].into(),
            cluster_id: String::new(),
        };
        let code = |result: Result<(), Status>| result.unwrap_err().code();
        assert_eq!(code(inlet.receive(packet("nowhere", 1))), tonic::Code::InvalidArgument);
        assert_eq!(
            code(inlet.receive(packet("127.0.0.1:2", PACKET_BYTES_MAX + 1))),
            tonic::Code::InvalidArgument
        );
        for _ in 0..INBOX_PACKETS {
            inlet.receive(packet("127.0.0.1:2", 1)).unwrap();
        }
        assert_eq!(code(inlet.receive(packet("127.0.0.1:2", 1))), tonic::Code::ResourceExhausted);
    }
}
