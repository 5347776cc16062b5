//! Lets newcomers in and takes announcements of returned members: checks
//! against the state, then a command in the log.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use starling_proto::peer::{JoinRequest, JoinResponse};
use tonic::Status;
use uuid::Uuid;

use crate::consensus::{Consensus, ProposeError};
use crate::membership_service::Admission;
use crate::state::{
    Addresses, Command, FeatureLevel, MemberCommand, NodeId, NodeUuid, Principal, RequestId, State,
};

/// Less than what [`crate::join::ask_to_join`] waits.
const DEADLINE: Duration = Duration::from_secs(8);
const LABELS_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 256;

/// Admission by the replicated log.
pub struct LogAdmission {
    consensus: Consensus,
}

impl LogAdmission {
    /// Through this node's handle on the log.
    pub fn new(consensus: Consensus) -> Self {
        Self { consensus }
    }

    async fn admit_now(&self, request: JoinRequest) -> Result<JoinResponse, Status> {
        let applied = self
            .consensus
            .linearize(DEADLINE / 2)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        if applied.state.cluster.id.is_none() {
            return Err(Status::unavailable("the cluster is just being founded; ask again"));
        }
        let command = judge(&applied.state, &request).map_err(Status::failed_precondition)?;
        let Some(command) = command else {
            return Ok(response(&applied.state, NodeId::new(request.node_id)));
        };
        let accepted = self
            .consensus
            .propose(
                &Principal::named("join"),
                RequestId::new(Uuid::now_v7()),
                Command::Member(command.clone()),
                DEADLINE / 2,
            )
            .await
            .map_err(|error| match error {
                ProposeError::Rejected(rejection) => Status::failed_precondition(rejection.to_string()),
                unavailable => Status::unavailable(unavailable.to_string()),
            })?;
        let applied = self
            .consensus
            .wait_applied(accepted.log_index, DEADLINE / 2)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let MemberCommand::Join { node_uuid, .. } = command else {
            return Err(Status::internal("a join became another command"));
        };
        let member = applied
            .state
            .members
            .by_uuid(node_uuid)
            .ok_or_else(|| Status::failed_precondition("the node was removed while it joined"))?;
        Ok(response(&applied.state, member.node_id))
    }
}

impl Admission for LogAdmission {
    fn admit(&self, request: JoinRequest) -> BoxFuture<'_, Result<JoinResponse, Status>> {
        self.admit_now(request).boxed()
    }
}

fn response(state: &State, node_id: NodeId) -> JoinResponse {
    JoinResponse {
        cluster_id: state.cluster.id.map(|id| id.to_string()).unwrap_or_default(),
        node_id: node_id.get(),
        members: state
            .members
            .iter()
            .map(|member| (member.node_id.get(), member.addresses.peer.clone()))
            .collect(),
    }
}

/// The command that a join becomes; `None` if the log already says all of it;
/// `Err`: refused for good.
pub fn judge(state: &State, request: &JoinRequest) -> Result<Option<MemberCommand>, String> {
    let node_uuid: NodeUuid = request.node_uuid.parse().map_err(|error| format!("node_uuid: {error}"))?;
    let addresses = addresses(request)?;
    bounded(request)?;
    if request.node_id != 0 {
        let node_id = NodeId::new(request.node_id);
        let Some(member) = state.members.get(node_id) else {
            return Err(format!(
                "node {node_id} was removed from this cluster; to let it in as a new node, start it with an empty data directory and --join"
            ));
        };
        if member.node_uuid != node_uuid {
            return Err(format!(
                "two nodes claim the id {node_id}: the member with UUID {} and this one with {node_uuid}; start this one with an empty data directory and --join",
                member.node_uuid
            ));
        }
    }
    let max_feature_level = FeatureLevel::new(request.max_feature_level);
    if let Some(member) = state.members.by_uuid(node_uuid) {
        let labels_same = member.labels.len() == request.labels.len()
            && member.labels.iter().all(|(key, value)| request.labels.get(key) == Some(value));
        let nothing_new = request.node_id == member.node_id.get()
            && member.addresses == addresses
            && labels_same
            && member.max_feature_level == max_feature_level
            && member.starling_version == request.starling_version;
        if nothing_new {
            return Ok(None);
        }
    }
    Ok(Some(MemberCommand::Join {
        node_uuid,
        addresses,
        labels: request.labels.clone(),
        max_feature_level,
        starling_version: request.starling_version.clone(),
    }))
}

fn addresses(request: &JoinRequest) -> Result<Addresses, String> {
    let given = request.addresses.as_ref().ok_or("the request has no addresses")?;
    if given.peer.is_empty() {
        return Err("the request has no peer address".to_owned());
    }
    Ok(Addresses {
        peer: given.peer.clone(),
        grpc: given.grpc.clone(),
        rest: given.rest.clone(),
        metrics: given.metrics.clone(),
    })
}

/// What a newcomer says ends up in every node's memory: keep it small.
fn bounded(request: &JoinRequest) -> Result<(), String> {
    if request.labels.len() > LABELS_MAX {
        return Err(format!("a node may have {LABELS_MAX} labels at most"));
    }
    let given = request.addresses.iter();
    let texts = given
        .flat_map(|given| [&given.peer, &given.grpc, &given.rest, &given.metrics])
        .chain(request.labels.iter().flat_map(|(key, value)| [key, value]))
        .chain([&request.starling_version]);
    for text in texts {
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("addresses, labels and versions may have {TEXT_BYTES_MAX} bytes at most"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use starling_proto::peer;

    use super::*;
    use crate::state::{ClusterId, EntryContext, LogIndex, LogTime, WallTime};

    fn request(uuid: u128, node_id: u64, peer: &str) -> JoinRequest {
        JoinRequest {
            node_uuid: Uuid::from_u128(uuid).to_string(),
            addresses: Some(peer::Addresses { peer: peer.to_owned(), ..peer::Addresses::default() }),
            max_feature_level: 1,
            starling_version: "0.1.0".to_owned(),
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            cluster_id: String::new(),
            node_id,
        }
    }

    /// A state into which these have joined, in this order: ids 1000, 1002, …
    fn joined(requests: &[JoinRequest]) -> State {
        let mut state = State::default();
        state.cluster.id = Some(ClusterId::new(Uuid::from_u128(1)));
        state.cluster.feature_level = FeatureLevel::new(1);
        for (at, request) in requests.iter().enumerate() {
            let command = judge(&state, request).unwrap().unwrap();
            let context = EntryContext {
                log_index: LogIndex::new(at as u64 + 1),
                log_time: LogTime::default(),
                wall_time: WallTime::default(),
                principal: Principal::local(),
                request_id: RequestId::new(Uuid::from_u128(at as u128)),
            };
            let (_, outcome) = state.apply(&context, &Command::Member(command));
            outcome.unwrap();
        }
        state
    }

    #[test]
    fn a_newcomer_becomes_a_command_with_all_that_it_said() {
        let command = judge(&State::default(), &request(7, 0, "a:1")).unwrap().unwrap();
        assert_eq!(
            command,
            MemberCommand::Join {
                node_uuid: NodeUuid::new(Uuid::from_u128(7)),
                addresses: Addresses { peer: "a:1".to_owned(), ..Addresses::default() },
                labels: [("zone".to_owned(), "a".to_owned())].into(),
                max_feature_level: FeatureLevel::new(1),
                starling_version: "0.1.0".to_owned(),
            }
        );
    }

    #[test]
    fn a_member_that_has_nothing_new_to_say_costs_no_entry_and_one_that_moved_does() {
        let state = joined(&[request(7, 0, "a:1"), request(8, 0, "b:1")]);
        assert_eq!(judge(&state, &request(8, 1002, "b:1")), Ok(None));
        let moved = judge(&state, &request(8, 1002, "b:2")).unwrap();
        assert!(matches!(moved, Some(MemberCommand::Join { addresses, .. }) if addresses.peer == "b:2"));
    }

    #[test]
    fn a_removed_node_and_a_second_one_under_an_id_are_refused_with_the_way_out() {
        let state = joined(&[request(7, 0, "a:1"), request(8, 0, "b:1")]);
        let removed = judge(&state, &request(9, 1005, "c:1")).unwrap_err();
        assert!(removed.contains("node 1005 was removed") && removed.contains("--join"), "{removed}");
        let second = judge(&state, &request(9, 1002, "c:1")).unwrap_err();
        assert!(second.contains("two nodes claim the id 1002"), "{second}");
    }

    #[test]
    fn what_is_no_introduction_or_too_long_is_refused() {
        let state = State::default();
        let refused = |change: &dyn Fn(&mut JoinRequest)| {
            let mut request = request(7, 0, "a:1");
            change(&mut request);
            judge(&state, &request).unwrap_err()
        };
        assert!(refused(&|request| request.node_uuid = "x".to_owned()).contains("node_uuid"));
        assert!(refused(&|request| request.addresses = None).contains("no addresses"));
        assert!(refused(&|request| request.starling_version = "v".repeat(257)).contains("256 bytes"));
        let many = (0..65)
            .map(|label| (label.to_string(), String::new()))
            .collect::<std::collections::BTreeMap<_, _>>();
        assert!(refused(&|request| request.labels = many.clone()).contains("64 labels"));
    }
}
