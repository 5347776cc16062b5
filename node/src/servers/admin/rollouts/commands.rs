//! Commands that need a look at the state first: which version is meant, and
//! what an arm is called.

use std::sync::Arc;

use starling_proto::admin::{RolloutSpec as SpecWire, SetRolloutArmsRequest, StartRolloutRequest};
use starling_raft::state::rollouts::spec::Arm;
use starling_raft::state::rollouts::{RolloutCommand, RolloutSpec};
use starling_raft::state::{Command, ModelName, PartsPerMillion, Rejection, RolloutName, State, VersionRef};
use tonic::Status;

use super::super::writes::Write;
use super::super::{Caller, invalid, lists};
use super::unknown;
use crate::rollout_wire::{arms_from_wire, spec_from_wire};
use crate::servers::Node;
use crate::servers::errors::propose_status;

pub(super) async fn start(
    node: &Arc<Node>,
    caller: &Caller,
    request: StartRolloutRequest,
) -> Result<Write, Status> {
    let StartRolloutRequest { name, spec, again, request_id } = request;
    let (name, spec) = resolved(node, caller, &name, spec.as_ref(), again).await?;
    let command = RolloutCommand::Start { name, spec: Box::new(spec), again };
    Write::new(&request_id, Command::Rollout(command))
}

/// A plan in which every version has a name.
pub(super) async fn resolved(
    node: &Arc<Node>,
    caller: &Caller,
    name: &str,
    spec: Option<&SpecWire>,
    again: bool,
) -> Result<(RolloutName, RolloutSpec<VersionRef>), Status> {
    let applied = lists::state(node.running()?, false, caller.timeout).await?;
    resolved_by(&applied.state, name, spec, again)
}

/// The same, as of a state.
pub(super) fn resolved_by(
    state: &State,
    name: &str,
    spec: Option<&SpecWire>,
    again: bool,
) -> Result<(RolloutName, RolloutSpec<VersionRef>), Status> {
    let name: RolloutName = name.parse().map_err(invalid)?;
    let spec = spec.ok_or_else(|| Status::invalid_argument("a rollout needs a plan"))?;
    let spec = spec_from_wire(spec).map_err(Status::invalid_argument)?;
    with_versions(state, name, &spec, again)
}

/// A version that is not named is the one that has the whole route; of a rollout
/// that is known, the one it began with, so that its plan stays the same one
/// after it has moved the route.
fn with_versions(
    state: &State,
    name: RolloutName,
    spec: &RolloutSpec<Option<VersionRef>>,
    again: bool,
) -> Result<(RolloutName, RolloutSpec<VersionRef>), Status> {
    let known = state.rollouts.get(name.as_str()).filter(|known| !(again && known.is_over()));
    let stable = match known {
        Some(known) => Some(known.stable()),
        None => state.routes.get(spec.model.as_str()).and_then(|route| match route.weights.as_slice() {
            [(only, PartsPerMillion::WHOLE)] => Some(*only),
            _ => None,
        }),
    };
    let resolved = spec.resolved(|version| match (version, stable) {
        (Some(version), _) => Ok(version.clone()),
        (None, Some(stable)) => Ok(VersionRef::Ordinal(stable)),
        (None, None) => Err(no_stable_version(state, &name, &spec.model)),
    })?;
    Ok((name, resolved))
}

/// Somebody else moves the weights, or nobody has all of them.
fn no_stable_version(state: &State, name: &RolloutName, model: &ModelName) -> Status {
    if let Some(owner) = state.rollouts.owner_of(model) {
        let (model, rollout) = (model.clone(), owner.name.clone());
        return propose_status(&Rejection::RouteOwned { model, rollout }.into());
    }
    Status::invalid_argument(format!(
        "rollout '{name}': spec.from: no version has the whole route of model '{model}', so it must be named; `starling get routes` lists the weights"
    ))
}

pub(super) async fn set_arms(
    node: &Arc<Node>,
    caller: &Caller,
    request: SetRolloutArmsRequest,
) -> Result<Write, Status> {
    let applied = lists::state(node.running()?, false, caller.timeout).await?;
    let rollout = applied.state.rollouts.get(&request.name).ok_or_else(|| unknown(&request.name))?;
    let model = applied.state.models.get(rollout.spec.model.as_str());
    let read = arms_from_wire("arms", &request.arms).map_err(Status::invalid_argument)?;
    let mut arms = Vec::with_capacity(read.len());
    for (arm, sent) in read.into_iter().zip(&request.arms) {
        let version =
            arm.version.ok_or_else(|| Status::invalid_argument("arms: each arm needs a version"))?;
        let ordinal = model.and_then(|model| model.version(&version)).map(|version| version.ordinal);
        let known = ordinal.and_then(|ordinal| rollout.arm(ordinal)).filter(|_| sent.name.is_empty());
        arms.push(Arm { name: known.cloned().unwrap_or(arm.name), version, weight: arm.weight });
    }
    let command = RolloutCommand::SetArms { name: rollout.name.clone(), arms };
    Write::new(&request.request_id, Command::Rollout(command))
}
