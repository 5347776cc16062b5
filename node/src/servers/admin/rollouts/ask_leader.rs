//! What only the leader knows of rollouts, asked from wherever it is. A node that
//! is asked by a peer and does not lead says so.

use std::sync::Arc;
use std::time::Duration;

use starling_actors::rollout::DryRunError;
use starling_proto::admin::{DryRunRolloutRequest, DryRunRolloutResponse, Rollout};
use starling_proto::peer::ReportRolloutRequest;
use starling_proto::peer::peer_rollouts_client::PeerRolloutsClient;
use starling_proto::peer::peer_rollouts_server::{PeerRollouts, PeerRolloutsServer};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use super::{commands, shown, unknown};
use crate::servers::Node;
use crate::servers::errors::propose_status;
use crate::servers::node::Running;

const ASK_AGAIN: Duration = Duration::from_millis(50);
const CALL_LIMIT: Duration = Duration::from_secs(2);

/// The peer service `PeerRollouts`.
#[derive(Clone)]
pub(crate) struct PeerRolloutService {
    node: Arc<Node>,
}

impl PeerRolloutService {
    /// For the peer server. UNAVAILABLE until the node has joined.
    pub(crate) fn server(node: Arc<Node>) -> PeerRolloutsServer<Self> {
        PeerRolloutsServer::new(Self { node })
    }
}

#[tonic::async_trait]
impl PeerRollouts for PeerRolloutService {
    async fn report_rollout(
        &self,
        request: Request<ReportRolloutRequest>,
    ) -> Result<Response<Rollout>, Status> {
        own_report(self.node.running()?, &request.into_inner().name).map(Response::new)
    }

    async fn try_rollout(
        &self,
        request: Request<DryRunRolloutRequest>,
    ) -> Result<Response<DryRunRolloutResponse>, Status> {
        own_dry_run(self.node.running()?, &request.into_inner()).map(Response::new)
    }
}

/// How a rollout stands, or why the leader does not say.
pub(super) async fn report(running: &Running, name: &str, timeout: Duration) -> Result<Rollout, String> {
    let asked = until(timeout, || async {
        let leader = leader(running)?;
        if leader == running.consensus.node_id() {
            return own_report(running, name);
        }
        let request = ReportRolloutRequest { name: name.to_owned() };
        let channel =
            running.peers.channel(leader).map_err(|error| Status::unavailable(error.to_string()))?;
        PeerRolloutsClient::new(channel).report_rollout(request).await.map(Response::into_inner)
    });
    asked.await.map_err(|status| {
        format!("the leader did not say how it stands within {timeout:?}: {}", status.message())
    })
}

/// What a plan would do.
pub(super) async fn dry_run(
    running: &Running,
    request: DryRunRolloutRequest,
    timeout: Duration,
) -> Result<DryRunRolloutResponse, Status> {
    until(timeout, || async {
        let leader = leader(running)?;
        if leader == running.consensus.node_id() {
            return own_dry_run(running, &request);
        }
        let channel =
            running.peers.channel(leader).map_err(|error| Status::unavailable(error.to_string()))?;
        PeerRolloutsClient::new(channel).try_rollout(request.clone()).await.map(Response::into_inner)
    })
    .await
}

fn leader(running: &Running) -> Result<starling_raft::state::NodeId, Status> {
    running.consensus.status().leader.ok_or_else(|| Status::unavailable("there is no leader"))
}

/// Asks again, across an election, until there is an answer or time is up.
async fn until<T, F: Future<Output = Result<T, Status>>>(
    timeout: Duration,
    ask: impl Fn() -> F,
) -> Result<T, Status> {
    let deadline = Instant::now() + timeout;
    loop {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let refused = match tokio::time::timeout(remaining.min(CALL_LIMIT), ask()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(status)) => status,
            Err(_) => Status::unavailable("no answer in time"),
        };
        let passing = matches!(refused.code(), Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded);
        if !passing || Instant::now() + ASK_AGAIN >= deadline {
            return Err(refused);
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn own_report(running: &Running, name: &str) -> Result<Rollout, Status> {
    if !running.consensus.status().is_leader {
        return Err(Status::unavailable("this node does not lead; ask the leader"));
    }
    let report = running.inference.rollouts().report(name).ok_or_else(|| unknown(name))?;
    Ok(shown::report(&running.consensus.applied().state, &report))
}

fn own_dry_run(running: &Running, request: &DryRunRolloutRequest) -> Result<DryRunRolloutResponse, Status> {
    let state = running.consensus.applied().state;
    let spec = request.spec.as_ref();
    let (name, spec) = commands::resolved_by(&state, &request.name, spec, false)?;
    match running.inference.rollouts().dry_run(&name, &spec) {
        Ok(dry_run) => Ok(shown::dry_run(&state, &dry_run)),
        Err(DryRunError::NotLeading) => Err(Status::unavailable(DryRunError::NotLeading.to_string())),
        Err(DryRunError::Refused(rejection)) => Err(propose_status(&rejection.into())),
    }
}
