//! The server of service Raft: what other members ask of this one.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use openraft::alias::SnapshotOf;
use starling_proto::peer;
use starling_proto::peer::raft_server::{Raft, RaftServer};
use starling_proto::peer::read_index_response::Result as WireReadIndex;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::codec;
use crate::consensus::Consensus;
use crate::history_transfer;
use crate::peers::PEER_MESSAGE_BYTES_MAX;
use crate::proposals::{self, Proposal};
use crate::raft_status::LeaderContact;
use crate::raft_types::{SnapshotFile, TypeConfig};
use crate::snapshot_stream::{self, ReceiveError};
use crate::snapshots::SnapshotDir;
use crate::state::{LogIndex, NodeId, Principal, RequestId};
use crate::state_machine::SharedHistory;
use crate::wire;

/// A caller without a deadline is given so long.
const PROPOSE_TIMEOUT_MAX: Duration = Duration::from_secs(60);
const CHECKPOINT_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// What the service stands on, once this node's Raft core runs.
pub(crate) struct Served {
    pub(crate) consensus: Consensus,
    pub(crate) contact: LeaderContact,
    pub(crate) snapshots: SnapshotDir,
    pub(crate) history: SharedHistory,
}

/// The service. It is served before there is a core, and says so until then.
#[derive(Clone, Default)]
pub(crate) struct RaftService {
    served: Arc<OnceLock<Served>>,
}

impl RaftService {
    /// From now on answers. Call it once.
    pub(crate) fn begin(&self, served: Served) {
        if self.served.set(served).is_err() {
            tracing::error!("a Raft core was started twice; the first stands");
        }
    }

    /// To be served on the peer port.
    pub(crate) fn server(&self) -> RaftServer<Self> {
        RaftServer::new(self.clone())
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX)
    }

    #[allow(clippy::result_large_err)]
    fn served(&self) -> Result<&Served, Status> {
        self.served
            .get()
            .ok_or_else(|| Status::unavailable("this node's Raft core does not run yet; try again"))
    }
}

#[tonic::async_trait]
impl Raft for RaftService {
    type FetchHistorySegmentStream =
        Pin<Box<dyn Stream<Item = Result<peer::FetchHistorySegmentResponse, Status>> + Send>>;

    async fn append_entries(
        &self,
        request: Request<peer::AppendEntriesRequest>,
    ) -> Result<Response<peer::AppendEntriesResponse>, Status> {
        let served = self.served()?;
        let request = wire::append_request_from_wire(request.into_inner()).map_err(malformed)?;
        let answer = served.consensus.raft().append_entries(request).await.map_err(stopped)?;
        if !matches!(answer, openraft::raft::AppendEntriesResponse::HigherVote(_)) {
            served.contact.note();
        }
        Ok(Response::new(wire::append_response_to_wire(&answer)))
    }

    async fn vote(
        &self,
        request: Request<peer::VoteRequest>,
    ) -> Result<Response<peer::VoteResponse>, Status> {
        let request = wire::vote_request_from_wire(request.get_ref()).map_err(malformed)?;
        let answer = self.served()?.consensus.raft().vote(request).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_response_to_wire(&answer)))
    }

    async fn pre_vote(
        &self,
        request: Request<peer::VoteRequest>,
    ) -> Result<Response<peer::VoteResponse>, Status> {
        let request = wire::vote_request_from_wire(request.get_ref()).map_err(malformed)?;
        let answer = self.served()?.consensus.raft().pre_vote(request).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_response_to_wire(&answer)))
    }

    async fn transfer_leader(
        &self,
        request: Request<peer::TransferLeaderRequest>,
    ) -> Result<Response<peer::TransferLeaderResponse>, Status> {
        let request = wire::transfer_from_wire(request.get_ref()).map_err(malformed)?;
        let raft = self.served()?.consensus.raft();
        if let Err(refusal) = raft.handle_transfer_leader(request).await.map_err(stopped)? {
            return Err(Status::aborted(refusal.to_string()));
        }
        Ok(Response::new(peer::TransferLeaderResponse {}))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<peer::InstallSnapshotRequest>>,
    ) -> Result<Response<peer::InstallSnapshotResponse>, Status> {
        let served = self.served()?;
        let partial = served.snapshots.partial_path();
        let (vote, meta, file) =
            snapshot_stream::receive(request.into_inner(), &partial).await.map_err(not_received)?;
        served.contact.note();
        let installed = install(served, vote, meta, file).await;
        // Still there if it was refused, or was older than what this node has.
        let _ = tokio::fs::remove_file(&partial).await;
        let vote = installed?;
        Ok(Response::new(peer::InstallSnapshotResponse { vote: Some(wire::vote_to_wire(&vote)) }))
    }

    async fn propose(
        &self,
        request: Request<peer::ProposeRequest>,
    ) -> Result<Response<peer::ProposeResponse>, Status> {
        let served = self.served()?;
        let request = request.into_inner();
        let request_id = Uuid::from_slice(&request.request_id)
            .map_err(|_| Status::invalid_argument("request_id must be the 16 bytes of a UUID"))?;
        let proposal = Proposal {
            principal: Principal::named(&request.principal),
            request_id: RequestId::new(request_id),
            command: codec::decode_command(&request.command)
                .map_err(|error| Status::invalid_argument(error.to_string()))?,
        };
        let core = served.consensus.core();
        let attempt = proposals::propose_here(core, &proposal, PROPOSE_TIMEOUT_MAX).await;
        proposals::attempt_to_wire(attempt).map(Response::new)
    }

    async fn read_index(
        &self,
        _request: Request<peer::ReadIndexRequest>,
    ) -> Result<Response<peer::ReadIndexResponse>, Status> {
        let core = self.served()?.consensus.core();
        let leader = core.status.borrow().leader;
        if leader != Some(core.identity.node_id) {
            let leader = WireReadIndex::NotLeader(leader.map_or(0, NodeId::get));
            return Ok(Response::new(peer::ReadIndexResponse { result: Some(leader) }));
        }
        let index = core.read_index_here().await.map_err(Status::unavailable)?;
        Ok(Response::new(peer::ReadIndexResponse { result: Some(WireReadIndex::Index(index.get())) }))
    }

    async fn checkpoint_digest(
        &self,
        request: Request<peer::CheckpointDigestRequest>,
    ) -> Result<Response<peer::CheckpointDigestResponse>, Status> {
        let consensus = &self.served()?.consensus;
        let index = LogIndex::new(request.get_ref().index);
        consensus
            .wait_applied(index, CHECKPOINT_TIMEOUT_MAX)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let digest = consensus.core().applied.digest_at(index).ok_or_else(|| {
            Status::not_found(format!(
                "no digest was recorded here at index {index}; the node may have passed it by a snapshot"
            ))
        })?;
        Ok(Response::new(peer::CheckpointDigestResponse { digest: Bytes::copy_from_slice(&digest) }))
    }

    async fn fetch_history_segment(
        &self,
        request: Request<peer::FetchHistorySegmentRequest>,
    ) -> Result<Response<Self::FetchHistorySegmentStream>, Status> {
        let history = self.served()?.history.clone();
        let peer::FetchHistorySegmentRequest { name, offset } = request.into_inner();
        let chunks = history_transfer::serve(&history, &name, offset).await?;
        Ok(Response::new(Box::pin(chunks)))
    }
}

/// The history first: once the snapshot is installed, Raft will never bring
/// the entries from which this node could have made it.
#[allow(clippy::result_large_err)]
async fn install(
    served: &Served,
    vote: wire::Vote,
    meta: wire::SnapshotMeta,
    snapshot: SnapshotFile,
) -> Result<wire::Vote, Status> {
    let core = served.consensus.core();
    let sender = NodeId::new(vote.leader_id.node_id);
    history_transfer::fetch_missing(&core.peers, sender, &served.history, &snapshot).await.map_err(
        |error| {
            tracing::warn!(%sender, %error, "a snapshot's history could not be fetched");
            Status::unavailable(error.to_string())
        },
    )?;
    let snapshot = SnapshotOf::<TypeConfig, _> { meta, snapshot };
    let response = core
        .raft
        .install_full_snapshot(vote, snapshot)
        .await
        .map_err(|fatal| Status::internal(fatal.to_string()))?;
    Ok(response.vote)
}

fn malformed(error: wire::WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::internal(format!("Raft has stopped on this node: {error}"))
}

fn not_received(error: ReceiveError) -> Status {
    match error {
        ReceiveError::Malformed(_) => Status::invalid_argument(error.to_string()),
        ReceiveError::Damaged(_) => Status::data_loss(error.to_string()),
        ReceiveError::Sender(_) => Status::unavailable(error.to_string()),
        ReceiveError::Io { .. } => Status::internal(error.to_string()),
    }
}
