//! The server of service Membership: how strangers meet, how newcomers are let
//! in, how gossip comes in.
//!
//! It is served from the moment the node listens. Before the node belongs to a
//! cluster it answers Probe and Grant; once [`MembershipService::enter`] was
//! called, Join and Gossip as well.

use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use starling_proto::peer::membership_server::{Membership, MembershipServer};
use starling_proto::peer::{
    GossipPacket, GrantRequest, GrantResponse, JoinRequest, JoinResponse, ProbeRequest, ProbeResponse,
};
use tonic::{Request, Response, Status};

use crate::bootstrap::{decision, update_identity};
use crate::gossip::GossipInlet;
use crate::identity::{Candidacy, IdentityStore};
use crate::state::{ClusterId, NodeId, NodeUuid};

/// Largest message of this service: a gossip packet is at most 64 KiB.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Lets newcomers in: the log decides. See [`crate::admission`].
pub trait Admission: Send + Sync + 'static {
    /// Answers a request to join. `FAILED_PRECONDITION` is a refusal for good;
    /// any other error invites to ask again.
    fn admit(&self, request: JoinRequest) -> BoxFuture<'_, Result<JoinResponse, Status>>;
}

/// The service. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct MembershipService {
    shared: Arc<Shared>,
}

struct Shared {
    identity: IdentityStore,
    bound_for: Option<ClusterId>,
    expect: Option<u32>,
    own_address: String,
    inside: OnceLock<Inside>,
}

/// What is known once the node belongs to a cluster.
struct Inside {
    cluster_id: ClusterId,
    node_id: NodeId,
    admission: Arc<dyn Admission>,
    gossip: GossipInlet,
}

impl MembershipService {
    /// For a node that listens but may not belong to a cluster yet. `bound_for`
    /// is the log store's marker; `own_address` what peers should dial.
    pub fn new(
        identity: IdentityStore,
        bound_for: Option<ClusterId>,
        expect: Option<u32>,
        own_address: String,
    ) -> Self {
        let shared = Shared { identity, bound_for, expect, own_address, inside: OnceLock::new() };
        Self { shared: Arc::new(shared) }
    }

    /// From now on answers Join and Gossip for this cluster. Call it once.
    pub fn enter(
        &self,
        cluster_id: ClusterId,
        node_id: NodeId,
        admission: Arc<dyn Admission>,
        gossip: GossipInlet,
    ) {
        let inside = Inside { cluster_id, node_id, admission, gossip };
        if self.shared.inside.set(inside).is_err() {
            tracing::error!(%cluster_id, "a node entered a cluster twice; the first stands");
        }
    }

    /// To be served on the peer port.
    pub fn server(&self) -> MembershipServer<Self> {
        MembershipServer::new(self.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The cluster this node belongs to, or is about to found or enter.
    fn cluster(&self) -> Option<ClusterId> {
        let identity = self.shared.identity.current();
        identity.cluster_id.or(identity.founding).or(self.shared.bound_for)
    }

    #[allow(clippy::result_large_err)]
    fn inside(&self) -> Result<&Inside, Status> {
        self.shared.inside.get().ok_or_else(|| {
            Status::unavailable("this node is starting and does not take part in a cluster yet; ask again")
        })
    }
}

fn text(cluster_id: Option<ClusterId>) -> String {
    cluster_id.map(|id| id.to_string()).unwrap_or_default()
}

#[tonic::async_trait]
impl Membership for MembershipService {
    async fn probe(&self, _request: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        let identity = self.shared.identity.current();
        Ok(Response::new(ProbeResponse {
            node_uuid: identity.node_uuid.to_string(),
            peer_address: self.shared.own_address.clone(),
            cluster_id: text(self.cluster()),
            bootstrap_expect: self.shared.expect.unwrap_or(0),
            node_id: identity.node_id.map_or(0, NodeId::get),
            candidacy: identity.candidacy,
        }))
    }

    async fn grant(&self, request: Request<GrantRequest>) -> Result<Response<GrantResponse>, Status> {
        let GrantRequest { candidate_uuid, bootstrap_expect, candidacy } = request.into_inner();
        let node_uuid: NodeUuid = candidate_uuid
            .parse()
            .map_err(|error| Status::invalid_argument(format!("candidate_uuid: {error}")))?;
        let candidacy = Candidacy { node_uuid, number: candidacy };
        let own_expect = self.shared.expect;
        let bound_for = self.shared.bound_for;
        let granted = update_identity(&self.shared.identity, move |identity| {
            if let Some(cluster_id) = bound_for {
                return Err(format!("this node is on its way into cluster {cluster_id}"));
            }
            if node_uuid == identity.node_uuid {
                return Err("the candidate has this node's own UUID".to_owned());
            }
            decision::grant(identity, own_expect, candidacy, bootstrap_expect)
        })
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
        let identity = self.shared.identity.current();
        Ok(Response::new(GrantResponse {
            granted: granted.is_ok(),
            granted_to: identity.granted.map(|held| held.node_uuid.to_string()).unwrap_or_default(),
            cluster_id: text(self.cluster()),
            node_uuid: identity.node_uuid.to_string(),
            reason: granted.err().unwrap_or_default(),
        }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let inside = self.inside()?;
        let request = request.into_inner();
        if !request.cluster_id.is_empty() && request.cluster_id != inside.cluster_id.to_string() {
            return Err(Status::failed_precondition(format!(
                "the node belongs to cluster {}, this is cluster {}; correct its --join, or start it with an empty data directory",
                request.cluster_id, inside.cluster_id
            )));
        }
        inside.admission.admit(request).await.map(Response::new)
    }

    async fn gossip(&self, request: Request<GossipPacket>) -> Result<Response<GossipPacket>, Status> {
        let inside = self.inside()?;
        let packet = request.into_inner();
        if packet.cluster_id != inside.cluster_id.to_string() {
            return Err(Status::failed_precondition(format!(
                "gossip of cluster '{}' came to node {} of cluster {}",
                packet.cluster_id, inside.node_id, inside.cluster_id
            )));
        }
        inside.gossip.receive(packet)?;
        // What chitchat answers goes out as a packet of its own.
        Ok(Response::new(GossipPacket::default()))
    }
}
