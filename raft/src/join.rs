//! How a node asks to be let in, and how a member that came back says where it
//! listens now.

use std::collections::BTreeMap;
use std::time::Duration;

use starling_proto::peer;
use starling_proto::peer::JoinRequest;
use starling_proto::peer::membership_client::MembershipClient;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic::transport::Channel;

use crate::dial::dial;
use crate::state::{Addresses, ClusterId, FeatureLevel, NodeId, NodeUuid};

/// A join is a write: it may have to outlive an election.
const JOIN_DEADLINE: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What a node tells the cluster about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// Where it listens, as others should dial it.
    pub addresses: Addresses,
    /// Free words.
    pub labels: BTreeMap<String, String>,
    /// What its binary can read.
    pub max_feature_level: FeatureLevel,
    /// Its binary's version.
    pub starling_version: String,
}

/// A node that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The node's id there.
    pub node_id: NodeId,
    /// All members with their peer addresses, as the one who answered knows them.
    pub members: BTreeMap<NodeId, String>,
}

/// Why a node was not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// For good, as things are: another cluster, removed, too old, an id that
    /// belongs to another node.
    #[error("the cluster refuses this node: {0}")]
    Refused(String),
    /// Not now; ask again.
    #[error("not now: {0}")]
    Unavailable(String),
}

impl Introduction {
    /// The request of a node that was never a member.
    pub fn newcomer(&self, node_uuid: NodeUuid) -> JoinRequest {
        JoinRequest {
            node_uuid: node_uuid.to_string(),
            addresses: Some(peer::Addresses {
                peer: self.addresses.peer.clone(),
                grpc: self.addresses.grpc.clone(),
                rest: self.addresses.rest.clone(),
                metrics: self.addresses.metrics.clone(),
            }),
            max_feature_level: self.max_feature_level.get(),
            starling_version: self.starling_version.clone(),
            labels: self.labels.clone(),
            cluster_id: String::new(),
            node_id: 0,
        }
    }

    /// The request of a member that came back.
    pub fn returning(&self, node_uuid: NodeUuid, cluster_id: ClusterId, node_id: NodeId) -> JoinRequest {
        JoinRequest { cluster_id: cluster_id.to_string(), node_id: node_id.get(), ..self.newcomer(node_uuid) }
    }
}

/// Asks one member, once; at most ten seconds.
pub async fn ask_to_join(
    mut client: MembershipClient<Channel>,
    request: JoinRequest,
) -> Result<Admitted, JoinError> {
    let answer = match timeout(JOIN_DEADLINE, client.join(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
            return Err(JoinError::Refused(status.message().to_owned()));
        }
        Ok(Err(status)) => return Err(JoinError::Unavailable(status.message().to_owned())),
        Err(_) => return Err(JoinError::Unavailable(format!("no answer within {JOIN_DEADLINE:?}"))),
    };
    let cluster_id = answer
        .cluster_id
        .parse()
        .map_err(|error| JoinError::Unavailable(format!("it answered without a cluster: {error}")))?;
    if answer.node_id == 0 {
        return Err(JoinError::Unavailable("it answered without a node id".to_owned()));
    }
    Ok(Admitted {
        cluster_id,
        node_id: NodeId::new(answer.node_id),
        members: answer.members.into_iter().map(|(id, address)| (NodeId::new(id), address)).collect(),
    })
}

/// Tells the cluster where a returned member listens now: asks one address
/// after the other, all over again with a growing pause, until one accepts or
/// refuses. `addresses` is asked anew for each round: members may be found
/// meanwhile. Nothing depends on it at the start: all members may be on their
/// way back at once, and the log can be updated only once they have elected.
///
/// # Errors
/// The refusal, which must end the process: this node was removed, or its id
/// belongs to another.
pub async fn announce(
    request: JoinRequest,
    mut addresses: impl FnMut() -> Vec<String>,
) -> Result<Admitted, JoinError> {
    let mut pause = PAUSE_MIN;
    loop {
        for address in addresses() {
            let Ok(channel) = dial(&address) else { continue };
            match ask_to_join(MembershipClient::new(channel), request.clone()).await {
                Ok(admitted) => return Ok(admitted),
                Err(JoinError::Refused(reason)) => return Err(JoinError::Refused(reason)),
                Err(JoinError::Unavailable(reason)) => {
                    tracing::debug!(address, reason, "could not announce this node's addresses");
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
