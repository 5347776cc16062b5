//! How a command reaches the leader and is answered: here or by way of another
//! node, across elections, under one request id.

use std::error::Error;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use openraft::errors::{ClientWriteError, RaftError};
use starling_proto::peer;
use starling_proto::peer::propose_response::Result as WireResult;
use starling_proto::peer::raft_client::RaftClient;
use tonic::{Code, Status};

use crate::codec;
use crate::consensus::{Core, ProposeError};
use crate::envelope::CommandEnvelope;
use crate::network;
use crate::raft_types::EnvelopeBytes;
use crate::state::{Accepted, Command, NodeId, Outcome, Principal, Rejection, RequestId, State, WallTime};

/// Proposals of this node under way at once; more wait.
pub const PROPOSALS_IN_FLIGHT_MAX: usize = 4_096;

const RETRY_DELAY_MIN: Duration = Duration::from_millis(20);
const RETRY_DELAY_MAX: Duration = Duration::from_millis(300);

/// What is proposed.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Who asks.
    pub principal: Principal,
    /// Retries repeat it.
    pub request_id: RequestId,
    /// What is asked.
    pub command: Command,
}

/// What became of one attempt.
#[derive(Debug)]
pub enum Attempt {
    /// Decided; the same on every node.
    Answered(Outcome),
    /// Nothing has happened: whoever was asked does not lead. Perhaps it knows who does.
    NotLeader(Option<NodeId>),
    /// Nothing has happened, for this reason.
    NotSent(String),
    /// It may happen yet: the connection or the leadership was lost on the way.
    Unknown(String),
}

/// Proposes until there is an answer, no hope, or no time left.
pub(crate) async fn propose(
    core: &Core,
    proposal: &Proposal,
    timeout: Duration,
) -> Result<Accepted, ProposeError> {
    let deadline = Instant::now() + timeout;
    wait_for_feature_level(core, &proposal.command, deadline).await?;
    let mut may_have_happened = false;
    let mut reason = "there was no time to try".to_owned();
    let mut delay = RETRY_DELAY_MIN;
    while let Some(remaining) = time_until(deadline) {
        let attempt = match core.usable_leader() {
            Some(leader) if leader == core.identity.node_id => propose_here(core, proposal, remaining).await,
            Some(leader) => forward(core, leader, proposal, remaining).await,
            None => match core.wait_for_leader(deadline).await {
                Ok(()) => continue,
                Err(no_leader) => {
                    reason = no_leader;
                    break;
                }
            },
        };
        match attempt {
            Attempt::Answered(outcome) => return outcome.map_err(ProposeError::Rejected),
            Attempt::NotLeader(_) => reason = core.why_no_leader(),
            Attempt::NotSent(why) => reason = why,
            Attempt::Unknown(why) => {
                may_have_happened = true;
                reason = why;
            }
        }
        tracing::debug!(request_id = %proposal.request_id, reason, "a proposal is tried again");
        let jittered = delay.mul_f64(rand::random_range(0.5..1.5));
        tokio::time::sleep(jittered.min(time_until(deadline).unwrap_or_default())).await;
        delay = (delay * 2).min(RETRY_DELAY_MAX);
    }
    if may_have_happened {
        tracing::warn!(request_id = %proposal.request_id, reason, "a proposal was not confirmed in time");
        return Err(ProposeError::TimedOut(timeout));
    }
    Err(ProposeError::Unavailable(reason))
}

/// A member that cannot read a command would stop at it: such a command is not
/// written below its feature level.
fn require_readable(state: &State, command: &Command) -> Result<(), Rejection> {
    match state.require_feature_level(command) {
        Err(refused @ Rejection::FeatureNotEnabled { .. }) => Err(refused),
        // Whatever else is wrong is for the log to decide.
        _ => Ok(()),
    }
}

/// Refuses what the members cannot read. Where all of them can, the level is
/// about to rise (a cluster begins at level 1), and that is waited for.
async fn wait_for_feature_level(core: &Core, command: &Command, deadline: Instant) -> Result<(), Rejection> {
    let mut applied = core.applied.watch();
    let decided = applied.wait_for(|applied| {
        let state = &applied.state;
        let all_can = state.members.iter().all(|member| member.max_feature_level >= command.feature_level());
        require_readable(state, command).is_ok() || !all_can
    });
    // Whether it came to that or not, the state says what holds now.
    let _ = tokio::time::timeout(time_until(deadline).unwrap_or_default(), decided).await;
    require_readable(&core.applied.state().state, command)
}

/// One attempt as the leader: stamps the command and waits until it is applied here.
pub(crate) async fn propose_here(core: &Core, proposal: &Proposal, limit: Duration) -> Attempt {
    let attempt = async {
        let Ok(_permit) = core.in_flight.acquire().await else {
            return Attempt::NotSent("this node is shutting down".to_owned());
        };
        if let Err(refused) = require_readable(&core.applied.state().state, &proposal.command) {
            return Attempt::Answered(Err(refused));
        }
        let envelope = stamp(core, proposal);
        let written = core.raft.client_write(EnvelopeBytes(envelope.encode())).await;
        match written {
            Ok(response) => match response.data.0 {
                Some(outcome) => Attempt::Answered(outcome),
                None => Attempt::Unknown("the entry was applied without an answer".to_owned()),
            },
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Attempt::NotLeader(forward.leader_id.map(NodeId::new))
            }
            Err(RaftError::APIError(error)) => Attempt::Unknown(error.to_string()),
            Err(RaftError::Fatal(fatal)) => Attempt::Unknown(format!("Raft has stopped here: {fatal}")),
        }
    };
    match tokio::time::timeout(limit, attempt).await {
        Ok(attempt) => attempt,
        Err(_) => Attempt::Unknown(format!("no quorum has confirmed it within {limit:?}")),
    }
}

/// One attempt by way of the leader. Given up as soon as somebody else leads.
async fn forward(core: &Core, leader: NodeId, proposal: &Proposal, limit: Duration) -> Attempt {
    let channel = match core.peers.channel(leader) {
        Ok(channel) => channel,
        Err(unavailable) => return Attempt::NotSent(unavailable.to_string()),
    };
    let mut client = network::sized(RaftClient::new(channel));
    let mut request = tonic::Request::new(peer::ProposeRequest {
        principal: proposal.principal.as_str().to_owned(),
        request_id: Bytes::copy_from_slice(proposal.request_id.uuid().as_bytes()),
        command: codec::encode_command(&proposal.command),
    });
    request.set_timeout(limit);
    tokio::select! {
        answer = client.propose(request) => match answer {
            Ok(response) => attempt_from_wire(response.into_inner()),
            Err(status) if was_not_sent(&status) => {
                Attempt::NotSent(format!("node {leader}, which leads, cannot be reached: {}", status.message()))
            }
            Err(status) => Attempt::Unknown(format!("node {leader}, which leads: {}", status.message())),
        },
        () = core.leader_is_no_longer(leader) => {
            Attempt::Unknown(format!("node {leader} stopped leading before it answered"))
        }
        () = tokio::time::sleep(limit) => {
            Attempt::Unknown(format!("node {leader}, which leads, did not answer within {limit:?}"))
        }
    }
}

fn stamp(core: &Core, proposal: &Proposal) -> CommandEnvelope {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall_time = WallTime::from_unix_micros(u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX));
    CommandEnvelope {
        log_time: core.applied.log_time_now(),
        wall_time,
        principal: proposal.principal.clone(),
        request_id: proposal.request_id,
        feature_level: core.applied.state().state.cluster.feature_level,
        class: proposal.command.class(),
        command: proposal.command.clone(),
    }
}

/// What the leader tells the node that forwarded.
pub(crate) fn attempt_to_wire(attempt: Attempt) -> Result<peer::ProposeResponse, Status> {
    let result = match attempt {
        Attempt::Answered(outcome) => WireResult::Outcome(codec::encode_outcome(&outcome)),
        Attempt::NotLeader(leader) => WireResult::NotLeader(leader.map_or(0, NodeId::get)),
        Attempt::NotSent(reason) => return Err(Status::failed_precondition(reason)),
        Attempt::Unknown(reason) => return Err(Status::unavailable(reason)),
    };
    Ok(peer::ProposeResponse { result: Some(result) })
}

fn attempt_from_wire(response: peer::ProposeResponse) -> Attempt {
    match response.result {
        Some(WireResult::Outcome(bytes)) => match codec::decode_outcome(&bytes) {
            Ok(outcome) => Attempt::Answered(outcome),
            Err(error) => Attempt::Unknown(format!("the leader's answer cannot be read: {error}")),
        },
        Some(WireResult::NotLeader(0)) => Attempt::NotLeader(None),
        Some(WireResult::NotLeader(leader)) => Attempt::NotLeader(Some(NodeId::new(leader))),
        None => Attempt::Unknown("the leader's answer is empty".to_owned()),
    }
}

/// The other side refused it, or there never was a connection to it.
fn was_not_sent(status: &Status) -> bool {
    if matches!(status.code(), Code::FailedPrecondition | Code::InvalidArgument | Code::Unimplemented) {
        return true;
    }
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

pub(crate) fn time_until(deadline: Instant) -> Option<Duration> {
    let remaining = deadline.saturating_duration_since(Instant::now());
    (remaining > Duration::ZERO).then_some(remaining)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::state::Rejection;

    #[test]
    fn a_rejection_survives_the_way_back_from_the_leader() {
        let rejected = Attempt::Answered(Err(Rejection::UnknownNode(NodeId::new(1007))));
        let back = attempt_from_wire(attempt_to_wire(rejected).unwrap());
        assert!(
            matches!(back, Attempt::Answered(Err(Rejection::UnknownNode(id))) if id == NodeId::new(1007))
        );
    }

    #[test]
    fn a_node_that_does_not_lead_says_who_does_if_it_knows() {
        let known = attempt_to_wire(Attempt::NotLeader(Some(NodeId::new(1007)))).unwrap();
        assert!(matches!(attempt_from_wire(known), Attempt::NotLeader(Some(id)) if id.get() == 1007));
        let unknown = attempt_to_wire(Attempt::NotLeader(None)).unwrap();
        assert!(matches!(attempt_from_wire(unknown), Attempt::NotLeader(None)));
    }

    #[tokio::test]
    async fn a_call_that_never_connected_has_not_happened() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let mut client = RaftClient::new(crate::dial::dial(&address).unwrap());
        let refused = client.propose(peer::ProposeRequest::default()).await.unwrap_err();
        assert!(was_not_sent(&refused), "{refused:?}");
        assert!(!was_not_sent(&Status::unavailable("connection reset")));
    }
}
