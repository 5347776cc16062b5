//! Lists: what the state holds, with what this node knows beside it. They are
//! linearizable unless the caller takes what this node has.

use std::sync::Arc;
use std::time::Duration;

use starling_proto::admin::{
    BatchingSettings, DeviceKind as DeviceKindWire, InstanceMode as InstanceModeWire, ListModelsResponse,
    ListNodesResponse, ListRequest, ListRoutesResponse, ListVersionsResponse, Model as ModelWire,
    Node as NodeWire, Route as RouteWire, Tensor, Version as VersionWire,
    VersionSettings as VersionSettingsWire,
};
use starling_raft::consensus::{AppliedState, RaftStatus};
use starling_raft::gossip::LivePeers;
use starling_raft::state::models::{DeviceKind, InstanceMode, Oversize, TensorSpec, VersionSettings};
use starling_raft::state::{Member, Model, Phase, Rejection, Route, State, Version};
use tonic::Status;

use super::{invalid, route_out};
use crate::servers::Node;
use crate::servers::errors::{infer_status, propose_status, read_status};
use crate::servers::node::Running;

pub(super) async fn state(running: &Running, stale: bool, timeout: Duration) -> Result<AppliedState, Status> {
    if stale {
        return Ok(running.consensus.applied());
    }
    running.consensus.linearize(timeout).await.map_err(|error| read_status(&error))
}

/// The models asked for; a name that is not there is an error.
fn selected<'a>(state: &'a State, name: &str) -> Result<Vec<&'a Arc<Model>>, Status> {
    if name.is_empty() {
        return Ok(state.models.iter().collect());
    }
    match state.models.get(name) {
        Some(model) => Ok(vec![model]),
        None => Err(propose_status(&Rejection::UnknownModel(name.parse().map_err(invalid)?).into())),
    }
}

pub(super) async fn models(
    node: Arc<Node>,
    request: ListRequest,
    timeout: Duration,
) -> Result<ListModelsResponse, Status> {
    let running = node.running()?;
    let applied = state(running, request.stale, timeout).await?;
    let models = selected(&applied.state, &request.model)?
        .into_iter()
        .map(|model| ModelWire {
            name: model.name.to_string(),
            replicas: model.replicas,
            versions: model.versions.values().map(|version| version_wire(running, model, version)).collect(),
            created_at_index: model.id,
            route: applied
                .state
                .routes
                .get(model.name.as_str())
                .map(|route| route_wire(&applied.state, model, route)),
        })
        .collect();
    Ok(ListModelsResponse { models, applied_index: applied.index.get() })
}

pub(super) async fn versions(
    node: Arc<Node>,
    request: ListRequest,
    timeout: Duration,
) -> Result<ListVersionsResponse, Status> {
    let running = node.running()?;
    let applied = state(running, request.stale, timeout).await?;
    let mut versions = Vec::new();
    for model in selected(&applied.state, &request.model)? {
        versions.extend(model.versions.values().map(|version| version_wire(running, model, version)));
    }
    Ok(ListVersionsResponse { versions, applied_index: applied.index.get() })
}

pub(super) async fn routes(
    node: Arc<Node>,
    request: ListRequest,
    timeout: Duration,
) -> Result<ListRoutesResponse, Status> {
    let running = node.running()?;
    let applied = state(running, request.stale, timeout).await?;
    if request.stale {
        let models = selected(&applied.state, &request.model)?;
        let routes = models
            .into_iter()
            .filter_map(|model| Some((model, applied.state.routes.get(model.name.as_str())?)))
            .map(|(model, route)| route_wire(&applied.state, model, route))
            .collect();
        return Ok(ListRoutesResponse { routes, applied_index: applied.index.get() });
    }
    selected(&applied.state, &request.model)?;
    let mut routes = running
        .inference
        .routes_with_traffic(&request.model, timeout)
        .await
        .map_err(|error| infer_status(&error))?;
    for wire in &mut routes {
        let (model, route) = (applied.state.models.get(&wire.model), applied.state.routes.get(&wire.model));
        if let Some((model, route)) = model.zip(route) {
            let RouteWire { rules, shadows, .. } = route_out::route(model, route);
            (wire.rules, wire.shadows) = (rules, shadows);
        }
        wire.owner = owner(&applied.state, &wire.model);
    }
    Ok(ListRoutesResponse { routes, applied_index: applied.index.get() })
}

pub(super) async fn nodes(
    node: Arc<Node>,
    request: ListRequest,
    timeout: Duration,
) -> Result<ListNodesResponse, Status> {
    let running = node.running()?;
    let applied = state(running, request.stale, timeout).await?;
    Ok(ListNodesResponse { nodes: all_nodes(running, &applied.state), applied_index: applied.index.get() })
}

/// Every member, with what Raft and gossip at this node say of it.
pub(super) fn all_nodes(running: &Running, state: &State) -> Vec<NodeWire> {
    let status = running.consensus.status();
    let live = running.peers.live();
    let live = live.borrow();
    state.members.iter().map(|member| node_wire(member, &status, &live)).collect()
}

fn node_wire(member: &Member, status: &RaftStatus, live: &LivePeers) -> NodeWire {
    let seen = live.get(&member.node_id);
    let addresses = seen.map_or(&member.addresses, |peer| &peer.addresses);
    let role = if status.voters.contains(&member.node_id) { "voter" } else { "learner" };
    NodeWire {
        node_id: member.node_id.get(),
        peer_address: addresses.peer.clone(),
        grpc_address: addresses.grpc.clone(),
        rest_address: addresses.rest.clone(),
        metrics_address: addresses.metrics.clone(),
        role: role.into(),
        leader: status.leader == Some(member.node_id),
        draining: member.draining,
        alive: seen.is_some(),
        max_feature_level: member.max_feature_level.get(),
        starling_version: member.starling_version.clone(),
        applied_index: seen.map_or(0, |peer| peer.applied_index),
    }
}

/// The rollout that owns a model's weights; empty: nobody does.
fn owner(state: &State, model: &str) -> String {
    let owner = model.parse().ok().and_then(|model| state.rollouts.owner_of(&model));
    owner.map(|rollout| rollout.name.to_string()).unwrap_or_default()
}

fn route_wire(state: &State, model: &Model, route: &Route) -> RouteWire {
    RouteWire { owner: owner(state, model.name.as_str()), ..route_out::route(model, route) }
}

fn version_wire(running: &Running, model: &Model, version: &Version) -> VersionWire {
    let loaded_on = running.inference.loaded_on(model.name.as_str(), version.ordinal.get());
    let (phase, reason) = match &version.phase {
        Phase::Registered => ("registered", ""),
        Phase::Ready => ("ready", ""),
        Phase::Failed(reason) => ("failed", reason.as_str()),
    };
    VersionWire {
        model: model.name.to_string(),
        ordinal: version.ordinal.get(),
        label: version.label.to_string(),
        sha256: version.digest.to_string(),
        size_bytes: version.size_bytes,
        phase: phase.into(),
        reason: reason.into(),
        settings: Some(settings_wire(&version.settings)),
        inputs: version.signature.inputs.iter().map(tensor_wire).collect(),
        outputs: version.signature.outputs.iter().map(tensor_wire).collect(),
        loaded_on: loaded_on.into_iter().map(|node_id| node_id.get()).collect(),
    }
}

fn settings_wire(settings: &VersionSettings) -> VersionSettingsWire {
    VersionSettingsWire {
        batching: Some(BatchingSettings {
            max_batch: settings.max_batch,
            max_queue_delay_us: settings.max_queue_delay_micros,
            disabled: settings.batching_disabled,
            refuse_oversize: settings.oversize == Oversize::Refuse,
        }),
        instances: settings.instances,
        max_queue: settings.max_queue,
        max_run_time_ms: settings.max_run_time_millis,
        threads: settings.threads,
        spinning: settings.spinning,
        mode: match settings.mode {
            InstanceMode::Auto => InstanceModeWire::Auto,
            InstanceMode::Local => InstanceModeWire::Local,
            InstanceMode::Dedicated => InstanceModeWire::Dedicated,
        }
        .into(),
        device: match settings.device {
            DeviceKind::Any => DeviceKindWire::Any,
            DeviceKind::Cpu => DeviceKindWire::Cpu,
            DeviceKind::Gpu => DeviceKindWire::Gpu,
        }
        .into(),
        priority_levels: settings.priority_levels,
        default_priority_level: settings.default_priority_level,
        queue_timeout_us: settings.queue_timeout_micros,
        quiet: settings.quiet,
    }
}

fn tensor_wire(spec: &TensorSpec) -> Tensor {
    Tensor { name: spec.name.clone(), datatype: spec.data_type.name().into(), shape: spec.shape.clone() }
}
