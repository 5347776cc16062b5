//! Writes: from a message to a command, and from its outcome to an answer.

use starling_proto::admin::{
    ConfigureRouteRequest, DeleteModelRequest, DeleteVersionRequest, DrainNodeRequest, RemoveNodeRequest,
    SetPlacementRequest, SetRouteRequest, UndrainNodeRequest, WriteResponse,
};
use starling_raft::state::{
    Accepted, Command, Epoch, MemberCommand, ModelCommand, NodeId, PartsPerMillion, RequestId, RouteCommand,
    VersionRef,
};
use tonic::{Response, Status};

use super::{AdminService, Caller, invalid, request_id, route_in};
use crate::servers::Node;
use crate::servers::errors::propose_status;

/// A command, and the id under which a retry finds its answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) request_id: RequestId,
    pub(super) command: Command,
}

impl Write {
    pub(super) fn new(id: &str, command: Command) -> Result<Self, Status> {
        Ok(Self { request_id: request_id(id)?, command })
    }
}

impl AdminService {
    pub(super) async fn write(
        &self,
        caller: Caller,
        write: Write,
    ) -> Result<Response<WriteResponse>, Status> {
        let node = self.node.clone();
        let timeout = caller.timeout;
        let call = async move { Ok(answer(&propose(&node, &caller, write).await?)) };
        self.on_control(timeout, call).await
    }
}

/// Proposes, and waits until it is decided.
pub(super) async fn propose(node: &Node, caller: &Caller, write: Write) -> Result<Accepted, Status> {
    let Write { request_id, command } = write;
    let consensus = &node.running()?.consensus;
    let proposed = consensus.propose(&caller.principal, request_id, command, caller.timeout).await;
    proposed.map_err(|error| propose_status(&error))
}

pub(super) fn answer(accepted: &Accepted) -> WriteResponse {
    WriteResponse { log_index: accepted.log_index.get(), changed: accepted.changed }
}

pub(super) fn delete_model(request: DeleteModelRequest) -> Result<Write, Status> {
    let model = request.model.parse().map_err(invalid)?;
    Write::new(&request.request_id, Command::Model(ModelCommand::DeleteModel { model }))
}

pub(super) fn delete_version(request: DeleteVersionRequest) -> Result<Write, Status> {
    let model = request.model.parse().map_err(invalid)?;
    let version = request.version.parse().map_err(invalid)?;
    Write::new(&request.request_id, Command::Model(ModelCommand::DeleteVersion { model, version }))
}

pub(super) fn set_route(request: SetRouteRequest) -> Result<Write, Status> {
    let model = request.model.parse().map_err(invalid)?;
    let mut weights: Vec<(VersionRef, PartsPerMillion)> = Vec::with_capacity(request.weights.len());
    for weighted in &request.weights {
        let version = weighted.version.parse().map_err(invalid)?;
        weights.push((version, PartsPerMillion::new(weighted.weight_ppm).map_err(invalid)?));
    }
    let expected_epoch = (request.expected_epoch > 0).then(|| Epoch::new(request.expected_epoch));
    let command = Command::Route(RouteCommand::Set { model, weights, expected_epoch });
    Write::new(&request.request_id, command)
}

pub(super) fn configure_route(request: &ConfigureRouteRequest) -> Result<Write, Status> {
    let model = request.model.parse().map_err(invalid)?;
    let (rules, shadows) = route_in::configuration(request)?;
    let expected_epoch = (request.expected_epoch > 0).then(|| Epoch::new(request.expected_epoch));
    let command = Command::Route(RouteCommand::Configure { model, rules, shadows, expected_epoch });
    Write::new(&request.request_id, command)
}

pub(super) fn set_placement(request: SetPlacementRequest) -> Result<Write, Status> {
    let model = request.model.parse().map_err(invalid)?;
    let command = Command::Model(ModelCommand::SetPlacement { model, replicas: request.replicas });
    Write::new(&request.request_id, command)
}

pub(super) fn drain_node(request: DrainNodeRequest) -> Result<Write, Status> {
    let node_id = NodeId::new(request.node_id);
    Write::new(&request.request_id, Command::Member(MemberCommand::Drain { node_id }))
}

pub(super) fn undrain_node(request: UndrainNodeRequest) -> Result<Write, Status> {
    let node_id = NodeId::new(request.node_id);
    Write::new(&request.request_id, Command::Member(MemberCommand::Undrain { node_id }))
}

pub(super) fn remove_node(request: RemoveNodeRequest) -> Result<Write, Status> {
    let node_id = NodeId::new(request.node_id);
    Write::new(&request.request_id, Command::Member(MemberCommand::Remove { node_id }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use starling_proto::admin::WeightedVersion;
    use starling_raft::state::Ordinal;
    use tonic::Code;

    use super::*;

    const ID: &str = "0193b5a0-0000-7000-8000-000000000001";

    fn route(version: &str, weight_ppm: u32) -> SetRouteRequest {
        SetRouteRequest {
            model: "digits".into(),
            weights: vec![WeightedVersion { version: version.into(), weight_ppm }],
            request_id: ID.into(),
            expected_epoch: 0,
        }
    }

    #[test]
    fn a_route_names_versions_by_label_or_ordinal() {
        let write = set_route(route("2", 1_000_000)).unwrap();
        let expected = Command::Route(RouteCommand::Set {
            model: "digits".parse().unwrap(),
            weights: vec![(VersionRef::Ordinal(Ordinal::new(2)), PartsPerMillion::WHOLE)],
            expected_epoch: None,
        });
        assert_eq!(write, Write { request_id: ID.parse().unwrap(), command: expected });
    }

    #[test]
    fn what_is_no_name_weight_or_id_is_refused_before_it_is_proposed() {
        let bad_id = SetRouteRequest { request_id: "x".into(), ..route("v1", 1) };
        let bad_model = SetRouteRequest { model: "a b".into(), ..route("v1", 1) };
        for request in [bad_id, bad_model, route("v 1", 1), route("v1", 1_000_001)] {
            assert_eq!(set_route(request.clone()).unwrap_err().code(), Code::InvalidArgument, "{request:?}");
        }
    }

    #[test]
    fn a_request_without_id_gets_a_new_one() {
        let request = || DrainNodeRequest { node_id: 1000, request_id: String::new() };
        assert_ne!(drain_node(request()).unwrap().request_id, drain_node(request()).unwrap().request_id);
    }
}
