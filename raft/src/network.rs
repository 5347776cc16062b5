//! Raft's calls to other nodes, over tonic.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use starling_proto::peer::raft_client::RaftClient;
use tonic::{Code, Status};

use crate::peers::{PEER_MESSAGE_BYTES_MAX, PeerChannel, Peers};
use crate::raft_config::INSTALL_SNAPSHOT_TIMEOUT_MIN;
use crate::raft_types::{SnapshotFile, TypeConfig};
use crate::snapshot_stream;
use crate::state::NodeId;
use crate::wire;

type RpcError = RPCError<TypeConfig>;

/// An append is cut to so many bytes of commands; the rest follows in the next.
const APPEND_BYTES_MAX: usize = PEER_MESSAGE_BYTES_MAX / 2;
/// A snapshot's time grows with its size as if it went no faster than this.
const SNAPSHOT_BYTES_PER_SECOND_MIN: u64 = 4 << 20;
/// What openraft allows an append is made for heartbeats: one heartbeat interval.
/// Entries wait for a disk, which may well take longer.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);
/// Between calls to a node that does not answer: often enough for an election,
/// seldom enough for a log.
const BACKOFF: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];

/// Makes the clients that openraft asks for.
#[derive(Clone)]
pub struct RaftNetwork {
    peers: Peers,
}

impl RaftNetwork {
    /// Calls go over `peers`.
    pub fn new(peers: Peers) -> Self {
        Self { peers }
    }
}

impl RaftNetworkFactory<TypeConfig> for RaftNetwork {
    type Network = RaftPeer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> RaftPeer {
        let target = NodeId::new(target);
        self.peers.learn_address(target, &node.addr);
        RaftPeer { peers: self.peers.clone(), target }
    }
}

/// Raft's way to one other node.
pub struct RaftPeer {
    peers: Peers,
    target: NodeId,
}

impl RaftPeer {
    fn client(&self) -> Result<RaftClient<PeerChannel>, RpcError> {
        let channel = self
            .peers
            .raft_channel(self.target)
            .map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))?;
        Ok(sized(RaftClient::new(channel)))
    }

    /// One call with a deadline. Whoever answers, even with a refusal, is reachable.
    async fn call<T>(
        &self,
        action: RPCTypes,
        limit: Duration,
        answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, RpcError> {
        let timed_out = || {
            let id = self.peers.identity().node_id.get();
            RPCError::Timeout(Timeout { action, id, target: self.target.get(), timeout: limit })
        };
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(response)) => {
                self.peers.note_contact(self.target);
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(self.failed(action, status)),
            Err(_) => Err(timed_out()),
        }
    }

    fn failed(&self, action: RPCTypes, status: Status) -> RpcError {
        match status.code() {
            Code::FailedPrecondition => {
                tracing::warn!(target_node = %self.target, %action, reason = status.message(), "refused by a peer");
            }
            _ => tracing::debug!(target_node = %self.target, %action, %status, "call to a peer failed"),
        }
        RPCError::Unreachable(Unreachable::new(&status))
    }
}

/// With the limits on message size that peers have agreed on.
pub(crate) fn sized(client: RaftClient<PeerChannel>) -> RaftClient<PeerChannel> {
    client.max_decoding_message_size(PEER_MESSAGE_BYTES_MAX).max_encoding_message_size(PEER_MESSAGE_BYTES_MAX)
}

fn malformed(error: wire::WireError) -> RpcError {
    RPCError::Network(NetworkError::new(&error))
}

/// Drops entries from the end until the rest fits into one message. Returns the
/// last id that goes out if any was dropped. The first entry always goes.
fn cut_to_size(request: &mut AppendEntriesRequest<TypeConfig>, bytes_max: usize) -> Option<wire::LogId> {
    let mut bytes = 0;
    let mut fitting = 0;
    for entry in &request.entries {
        if let openraft::EntryPayload::Normal(command) = &entry.payload {
            bytes += command.0.len();
        }
        if bytes > bytes_max && fitting > 0 {
            break;
        }
        fitting += 1;
    }
    if fitting == request.entries.len() {
        return None;
    }
    request.entries.truncate(fitting);
    request.entries.last().map(|entry| entry.log_id)
}

impl RaftNetworkV2<TypeConfig> for RaftPeer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        mut request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let cut_at = cut_to_size(&mut request, APPEND_BYTES_MAX);
        let limit = if request.entries.is_empty() { option.hard_ttl() } else { APPEND_TIMEOUT };
        let mut client = self.client()?;
        let answer = client.append_entries(wire::append_request_to_wire(request));
        let answer = self.call(RPCTypes::AppendEntries, limit, answer).await?;
        let answer = wire::append_response_from_wire(answer).map_err(malformed)?;
        match (answer, cut_at) {
            (AppendEntriesResponse::Success, Some(last)) => {
                Ok(AppendEntriesResponse::PartialSuccess(Some(last)))
            }
            (answer, _) => Ok(answer),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let mut client = self.client()?;
        let answer = client.vote(wire::vote_request_to_wire(&request));
        let answer = self.call(RPCTypes::Vote, option.soft_ttl(), answer).await?;
        wire::vote_response_from_wire(&answer).map_err(malformed)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let mut client = self.client()?;
        let answer = client.pre_vote(wire::vote_request_to_wire(&request));
        let answer = self.call(RPCTypes::Vote, option.soft_ttl(), answer).await?;
        wire::vote_response_from_wire(&answer).map_err(malformed)
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let size_bytes = snapshot.snapshot.size_bytes;
        let limit = snapshot_time_limit(size_bytes);
        let channel = self
            .peers
            .channel(self.target)
            .map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))?;
        let mut client = sized(RaftClient::new(channel));
        // Not a storage error: the file may have been replaced by a newer one in the meantime.
        let parts = snapshot_stream::send(vote, &snapshot.meta, &snapshot.snapshot)
            .await
            .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        tracing::info!(target_node = %self.target, size_bytes, meta = %snapshot.meta, "sending a snapshot");
        let call = pin!(self.call(RPCTypes::InstallSnapshot, limit, client.install_snapshot(parts)));
        let answer = match select(call, pin!(cancel)).await {
            Either::Left((answer, _)) => answer?,
            Either::Right((closed, _)) => return Err(StreamingError::Closed(closed)),
        };
        let vote = wire::vote_from_wire(answer.vote.as_ref())
            .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let mut client = self.client()?;
        let answer = client.transfer_leader(wire::transfer_to_wire(&request));
        self.call(RPCTypes::TransferLeader, option.soft_ttl(), answer).await?;
        Ok(Ok(()))
    }

    fn backoff(&self) -> Option<Backoff> {
        let [.., longest] = BACKOFF;
        Some(Backoff::new(BACKOFF.into_iter().chain(std::iter::repeat(longest))))
    }
}

fn snapshot_time_limit(size_bytes: u64) -> Duration {
    INSTALL_SNAPSHOT_TIMEOUT_MIN + Duration::from_secs(size_bytes / SNAPSHOT_BYTES_PER_SECOND_MIN)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use bytes::Bytes;
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry;
    use starling_proto::peer;

    use super::*;
    use crate::raft_types::EnvelopeBytes;

    fn request(sizes: &[usize]) -> AppendEntriesRequest<TypeConfig> {
        let entries = sizes.iter().zip(1..).map(|(size, index)| {
            let log_id = wire::log_id_from_wire(&peer::LogId { term: 1, node_id: 1000, index });
            wire::Entry::new(log_id, EntryPayload::Normal(EnvelopeBytes(Bytes::from(vec![0; *size]))))
        });
        AppendEntriesRequest {
            vote: wire::Vote::new_committed(1, 1000),
            prev_log_id: None,
            entries: entries.collect(),
            leader_commit: None,
        }
    }

    #[test]
    fn an_append_that_fits_goes_whole() {
        let mut append = request(&[10, 10, 10]);
        assert_eq!(cut_to_size(&mut append, 30), None);
        assert_eq!(append.entries.len(), 3);
    }

    #[test]
    fn an_append_that_does_not_fit_is_cut_and_says_where() {
        let mut append = request(&[10, 10, 10]);
        let last = cut_to_size(&mut append, 29).unwrap();
        assert_eq!((last.index, append.entries.len()), (2, 2));
    }

    #[test]
    fn an_entry_larger_than_the_bound_goes_alone() {
        let mut append = request(&[100, 10]);
        let last = cut_to_size(&mut append, 29).unwrap();
        assert_eq!((last.index, append.entries.len()), (1, 1));
    }

    #[test]
    fn a_larger_snapshot_is_given_more_time() {
        assert_eq!(snapshot_time_limit(0), Duration::from_secs(10));
        assert_eq!(snapshot_time_limit(400 << 20), Duration::from_secs(110));
    }
}
