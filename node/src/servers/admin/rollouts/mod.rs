//! The service `Rollouts`: writes become commands of the log, and questions
//! about counts and gates are answered by the leader.

mod ask_leader;
mod commands;
mod history;
mod log_times;
mod shown;
mod watch;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use starling_proto::admin::rollouts_server::Rollouts;
use starling_proto::admin::*;
use starling_raft::state::rollouts::RolloutCommand;
use starling_raft::state::{Command, Rejection};
use tonic::{Request, Response, Status};

use super::writes::{self, Write};
use super::{AdminService, Caller, invalid, lists};
use crate::servers::Node;
use crate::servers::errors::propose_status;

pub(crate) use ask_leader::PeerRolloutService;

type RolloutStream = Pin<Box<dyn Stream<Item = Result<Rollout, Status>> + Send>>;
type HappeningStream = Pin<Box<dyn Stream<Item = Result<RolloutHappening, Status>> + Send>>;

impl AdminService {
    /// A command that needs nothing but what the message says.
    async fn command(
        &self,
        caller: Caller,
        request_id: &str,
        command: RolloutCommand,
    ) -> Result<Response<WriteResponse>, Status> {
        let write = Write::new(request_id, Command::Rollout(command))?;
        self.write(caller, write).await
    }
}

#[tonic::async_trait]
impl Rollouts for AdminService {
    type WatchRolloutStream = RolloutStream;
    type RolloutHistoryStream = HappeningStream;

    async fn start_rollout(
        &self,
        request: Request<StartRolloutRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let caller = self.caller(&request)?;
        let (node, request) = (self.node.clone(), request.into_inner());
        self.on_control(caller.timeout, async move {
            let write = commands::start(&node, &caller, request).await?;
            Ok(writes::answer(&writes::propose(&node, &caller, write).await?))
        })
        .await
    }

    async fn get_rollout(&self, request: Request<GetRolloutRequest>) -> Result<Response<Rollout>, Status> {
        let Caller { timeout, .. } = self.caller(&request)?;
        self.on_control(timeout, get(self.node.clone(), request.into_inner(), timeout)).await
    }

    async fn list_rollouts(
        &self,
        request: Request<ListRolloutsRequest>,
    ) -> Result<Response<ListRolloutsResponse>, Status> {
        let Caller { timeout, .. } = self.caller(&request)?;
        self.on_control(timeout, list(self.node.clone(), request.into_inner(), timeout)).await
    }

    async fn watch_rollout(
        &self,
        request: Request<WatchRolloutRequest>,
    ) -> Result<Response<RolloutStream>, Status> {
        let stream = watch::stream(self.node.clone(), request.into_inner())?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn pause_rollout(
        &self,
        request: Request<RolloutRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let caller = self.caller(&request)?;
        let RolloutRequest { name, request_id } = request.into_inner();
        let name = name.parse().map_err(invalid)?;
        self.command(caller, &request_id, RolloutCommand::Pause { name }).await
    }

    async fn resume_rollout(
        &self,
        request: Request<RolloutRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let caller = self.caller(&request)?;
        let RolloutRequest { name, request_id } = request.into_inner();
        let name = name.parse().map_err(invalid)?;
        self.command(caller, &request_id, RolloutCommand::Resume { name }).await
    }

    async fn promote_rollout(
        &self,
        request: Request<PromoteRolloutRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        let winner = match request.winner.as_str() {
            "" => None,
            winner => Some(winner.parse().map_err(invalid)?),
        };
        let name = request.name.parse().map_err(invalid)?;
        let command = RolloutCommand::Promote { name, full: request.full, winner };
        self.command(caller, &request.request_id, command).await
    }

    async fn abort_rollout(
        &self,
        request: Request<AbortRolloutRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let caller = self.caller(&request)?;
        let AbortRolloutRequest { name, why, request_id } = request.into_inner();
        let name = name.parse().map_err(invalid)?;
        self.command(caller, &request_id, RolloutCommand::Abort { name, why }).await
    }

    async fn undo_rollout(
        &self,
        request: Request<RolloutRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let caller = self.caller(&request)?;
        let RolloutRequest { name, request_id } = request.into_inner();
        let name = name.parse().map_err(invalid)?;
        self.command(caller, &request_id, RolloutCommand::Undo { name }).await
    }

    async fn rollout_history(
        &self,
        request: Request<RolloutHistoryRequest>,
    ) -> Result<Response<HappeningStream>, Status> {
        let Caller { timeout, .. } = self.caller(&request)?;
        let stream = history::stream(self.node.clone(), request.into_inner(), timeout)?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn set_rollout_arms(
        &self,
        request: Request<SetRolloutArmsRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let caller = self.caller(&request)?;
        let (node, request) = (self.node.clone(), request.into_inner());
        self.on_control(caller.timeout, async move {
            let write = commands::set_arms(&node, &caller, request).await?;
            Ok(writes::answer(&writes::propose(&node, &caller, write).await?))
        })
        .await
    }

    async fn drop_rollout_learning(
        &self,
        request: Request<DropRolloutLearningRequest>,
    ) -> Result<Response<DropRolloutLearningResponse>, Status> {
        let caller = self.caller(&request)?;
        let (node, request) = (self.node.clone(), request.into_inner());
        self.on_control(caller.timeout, async move {
            let (from, to) = log_times::of_window(&node, &caller, &request).await?;
            let name = request.name.parse().map_err(invalid)?;
            let command = Command::Rollout(RolloutCommand::DropLearning { name, from, to });
            let write = Write::new(&request.request_id, command)?;
            let accepted = writes::propose(&node, &caller, write).await?;
            Ok(DropRolloutLearningResponse {
                log_index: accepted.log_index.get(),
                changed: accepted.changed,
                from_log_us: from.as_micros(),
                to_log_us: to.as_micros(),
            })
        })
        .await
    }

    async fn dry_run_rollout(
        &self,
        request: Request<DryRunRolloutRequest>,
    ) -> Result<Response<DryRunRolloutResponse>, Status> {
        let caller = self.caller(&request)?;
        let (node, request) = (self.node.clone(), request.into_inner());
        self.on_control(caller.timeout, async move {
            // Whatever is no plan is refused here, before anybody is asked.
            commands::resolved(&node, &caller, &request.name, request.spec.as_ref(), false).await?;
            ask_leader::dry_run(node.running()?, request, caller.timeout).await
        })
        .await
    }
}

fn unknown(name: &str) -> Status {
    match name.parse() {
        Ok(name) => propose_status(&Rejection::UnknownRollout(name).into()),
        Err(error) => invalid(error),
    }
}

async fn get(node: Arc<Node>, request: GetRolloutRequest, timeout: Duration) -> Result<Rollout, Status> {
    let running = node.running()?;
    let applied = lists::state(running, request.stale, timeout).await?;
    let rollout = applied.state.rollouts.get(&request.name).ok_or_else(|| unknown(&request.name))?;
    if request.stale {
        return Ok(shown::rollout(&applied.state, rollout));
    }
    // In half of the time: what the log knows can still be answered then.
    let report = ask_leader::report(running, &request.name, timeout / 2).await;
    Ok(report.unwrap_or_else(|problem| Rollout { problem, ..shown::rollout(&applied.state, rollout) }))
}

async fn list(
    node: Arc<Node>,
    request: ListRolloutsRequest,
    timeout: Duration,
) -> Result<ListRolloutsResponse, Status> {
    let applied = lists::state(node.running()?, request.stale, timeout).await?;
    let asked = |model: &str| request.model.is_empty() || request.model == model;
    let rollouts = applied.state.rollouts.iter().filter(|rollout| asked(rollout.spec.model.as_str()));
    let rollouts = rollouts.map(|rollout| shown::rollout(&applied.state, rollout)).collect();
    Ok(ListRolloutsResponse { rollouts, applied_index: applied.index.get() })
}
