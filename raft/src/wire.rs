//! Raft's messages as openraft has them and as the wire has them.
//!
//! Nothing of a peer's bytes is believed: a message that lacks a part is an
//! error that names the part.

use std::collections::{BTreeMap, BTreeSet};

use openraft::entry::RaftEntry;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, EntryPayload, Membership, alias};
use starling_proto::peer;

use crate::raft_types::{EnvelopeBytes, TypeConfig};

/// A vote of Starling's Raft.
pub type Vote = alias::VoteOf<TypeConfig>;
/// A log id of Starling's Raft.
pub type LogId = alias::LogIdOf<TypeConfig>;
/// An entry of Starling's Raft.
pub type Entry = alias::EntryOf<TypeConfig>;
/// A membership with the log id of its entry.
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
/// What describes a snapshot.
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;

/// What a peer's message lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A part that must be there is not.
    #[error("a peer's message has no {0}; the two nodes may run versions that do not fit")]
    Missing(&'static str),
    /// A membership that cannot be.
    #[error("a peer's message has an impossible membership: {0}")]
    Membership(String),
}

/// To the wire.
pub fn vote_to_wire(vote: &Vote) -> peer::Vote {
    peer::Vote { term: vote.leader_id.term, node_id: vote.leader_id.node_id, committed: vote.committed }
}

/// From the wire.
pub fn vote_from_wire(vote: Option<&peer::Vote>) -> Result<Vote, WireError> {
    let vote = vote.ok_or(WireError::Missing("vote"))?;
    Ok(match vote.committed {
        true => Vote::new_committed(vote.term, vote.node_id),
        false => Vote::new(vote.term, vote.node_id),
    })
}

/// To the wire.
pub fn log_id_to_wire(log_id: &LogId) -> peer::LogId {
    peer::LogId { term: log_id.leader_id.term, node_id: log_id.leader_id.node_id, index: log_id.index }
}

/// From the wire.
pub fn log_id_from_wire(log_id: &peer::LogId) -> LogId {
    let leader_id = openraft::impls::leader_id_adv::LeaderId { term: log_id.term, node_id: log_id.node_id };
    LogId { leader_id, index: log_id.index }
}

/// To the wire.
pub fn membership_to_wire(membership: &Membership<u64, BasicNode>) -> peer::RaftMembership {
    let configs = membership.get_joint_config().iter();
    peer::RaftMembership {
        configs: configs
            .map(|voters| peer::raft_membership::Config { voters: voters.iter().copied().collect() })
            .collect(),
        nodes: membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
    }
}

/// From the wire.
pub fn membership_from_wire(
    membership: peer::RaftMembership,
) -> Result<Membership<u64, BasicNode>, WireError> {
    let configs: Vec<BTreeSet<u64>> =
        membership.configs.into_iter().map(|config| config.voters.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, BasicNode> =
        membership.nodes.into_iter().map(|(id, addr)| (id, BasicNode { addr })).collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|error| WireError::Membership(error.to_string()))
}

/// To the wire.
pub fn entry_to_wire(entry: Entry) -> peer::Entry {
    let payload = match entry.payload {
        EntryPayload::Blank => peer::entry::Payload::Blank(true),
        EntryPayload::Normal(command) => peer::entry::Payload::Command(command.0),
        EntryPayload::Membership(membership) => {
            peer::entry::Payload::Membership(membership_to_wire(&membership))
        }
    };
    peer::Entry { log_id: Some(log_id_to_wire(&entry.log_id)), payload: Some(payload) }
}

/// From the wire.
pub fn entry_from_wire(entry: peer::Entry) -> Result<Entry, WireError> {
    let log_id = entry.log_id.as_ref().map(log_id_from_wire).ok_or(WireError::Missing("log id"))?;
    let payload = match entry.payload.ok_or(WireError::Missing("entry payload"))? {
        peer::entry::Payload::Blank(_) => EntryPayload::Blank,
        peer::entry::Payload::Command(command) => EntryPayload::Normal(EnvelopeBytes(command)),
        peer::entry::Payload::Membership(membership) => {
            EntryPayload::Membership(membership_from_wire(membership)?)
        }
    };
    Ok(Entry::new(log_id, payload))
}

/// To the wire.
pub fn append_request_to_wire(request: AppendEntriesRequest<TypeConfig>) -> peer::AppendEntriesRequest {
    peer::AppendEntriesRequest {
        vote: Some(vote_to_wire(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_to_wire),
        entries: request.entries.into_iter().map(entry_to_wire).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_wire),
    }
}

/// From the wire.
pub fn append_request_from_wire(
    request: peer::AppendEntriesRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    Ok(AppendEntriesRequest {
        vote: vote_from_wire(request.vote.as_ref())?,
        prev_log_id: request.prev_log_id.as_ref().map(log_id_from_wire),
        entries: request.entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>()?,
        leader_commit: request.leader_commit.as_ref().map(log_id_from_wire),
    })
}

/// To the wire.
pub fn append_response_to_wire(response: &AppendEntriesResponse<TypeConfig>) -> peer::AppendEntriesResponse {
    use peer::append_entries_response::Result as Wire;
    let result = match response {
        AppendEntriesResponse::Success => Wire::Success(true),
        AppendEntriesResponse::PartialSuccess(matching) => {
            Wire::PartialSuccess(peer::PartialSuccess { matching: matching.as_ref().map(log_id_to_wire) })
        }
        AppendEntriesResponse::Conflict => Wire::Conflict(true),
        AppendEntriesResponse::HigherVote(vote) => Wire::HigherVote(vote_to_wire(vote)),
    };
    peer::AppendEntriesResponse { result: Some(result) }
}

/// From the wire.
pub fn append_response_from_wire(
    response: peer::AppendEntriesResponse,
) -> Result<AppendEntriesResponse<TypeConfig>, WireError> {
    use peer::append_entries_response::Result as Wire;
    Ok(match response.result.ok_or(WireError::Missing("result of an append"))? {
        Wire::Success(_) => AppendEntriesResponse::Success,
        Wire::PartialSuccess(partial) => {
            AppendEntriesResponse::PartialSuccess(partial.matching.as_ref().map(log_id_from_wire))
        }
        Wire::Conflict(_) => AppendEntriesResponse::Conflict,
        Wire::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote_from_wire(Some(&vote))?),
    })
}

/// To the wire.
pub fn vote_request_to_wire(request: &VoteRequest<TypeConfig>) -> peer::VoteRequest {
    peer::VoteRequest {
        vote: Some(vote_to_wire(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_to_wire),
        leadership_transfer: request.leadership_transfer,
    }
}

/// From the wire.
pub fn vote_request_from_wire(request: &peer::VoteRequest) -> Result<VoteRequest<TypeConfig>, WireError> {
    Ok(VoteRequest {
        vote: vote_from_wire(request.vote.as_ref())?,
        last_log_id: request.last_log_id.as_ref().map(log_id_from_wire),
        leadership_transfer: request.leadership_transfer,
    })
}

/// To the wire.
pub fn vote_response_to_wire(response: &VoteResponse<TypeConfig>) -> peer::VoteResponse {
    peer::VoteResponse {
        vote: Some(vote_to_wire(&response.vote)),
        vote_granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id_to_wire),
    }
}

/// From the wire.
pub fn vote_response_from_wire(response: &peer::VoteResponse) -> Result<VoteResponse<TypeConfig>, WireError> {
    Ok(VoteResponse {
        vote: vote_from_wire(response.vote.as_ref())?,
        vote_granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id_from_wire),
    })
}

/// To the wire.
pub fn transfer_to_wire(request: &TransferLeaderRequest<TypeConfig>) -> peer::TransferLeaderRequest {
    peer::TransferLeaderRequest {
        from_leader: Some(vote_to_wire(request.from_leader())),
        to_node_id: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id_to_wire),
    }
}

/// From the wire.
pub fn transfer_from_wire(
    request: &peer::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    Ok(TransferLeaderRequest::new(
        vote_from_wire(request.from_leader.as_ref())?,
        request.to_node_id,
        request.last_log_id.as_ref().map(log_id_from_wire),
    ))
}

/// To the wire. Size and digest of the file are for the caller to say.
pub fn snapshot_meta_to_wire(meta: &SnapshotMeta) -> peer::SnapshotMeta {
    peer::SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_to_wire),
        membership_log_id: meta.last_membership.log_id().as_ref().map(log_id_to_wire),
        membership: Some(membership_to_wire(meta.last_membership.membership())),
        ..peer::SnapshotMeta::default()
    }
}

/// From the wire.
pub fn snapshot_meta_from_wire(meta: peer::SnapshotMeta) -> Result<SnapshotMeta, WireError> {
    let membership = membership_from_wire(meta.membership.ok_or(WireError::Missing("membership"))?)?;
    Ok(SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_from_wire),
        last_membership: StoredMembership::new(
            meta.membership_log_id.as_ref().map(log_id_from_wire),
            membership,
        ),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use bytes::Bytes;

    use super::*;

    fn log_id(term: u64, node_id: u64, index: u64) -> LogId {
        log_id_from_wire(&peer::LogId { term, node_id, index })
    }

    #[test]
    fn an_append_request_survives_the_wire() {
        let membership = Membership::new(
            vec![BTreeSet::from([1000, 1007]), BTreeSet::from([1000])],
            BTreeMap::from([
                (1000, BasicNode { addr: "a:1".to_owned() }),
                (1007, BasicNode { addr: "b:1".to_owned() }),
            ]),
        )
        .unwrap();
        let request = AppendEntriesRequest {
            vote: Vote::new_committed(3, 1000),
            prev_log_id: Some(log_id(2, 1000, 4)),
            entries: vec![
                Entry::new(log_id(3, 1000, 5), EntryPayload::Blank),
                Entry::new(
                    log_id(3, 1000, 6),
                    EntryPayload::Normal(EnvelopeBytes(Bytes::from_static(b"command"))),
                ),
                Entry::new(log_id(3, 1000, 7), EntryPayload::Membership(membership)),
            ],
            leader_commit: None,
        };
        let back = append_request_from_wire(append_request_to_wire(request.clone())).unwrap();
        assert_eq!(back.vote, request.vote);
        assert_eq!(back.prev_log_id, request.prev_log_id);
        assert_eq!(back.entries, request.entries);
        assert_eq!(back.leader_commit, None);
    }

    #[test]
    fn every_answer_to_an_append_survives_the_wire() {
        let answers = [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::PartialSuccess(None),
            AppendEntriesResponse::PartialSuccess(Some(log_id(1, 2, 3))),
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::HigherVote(Vote::new(9, 8)),
        ];
        for answer in answers {
            assert_eq!(append_response_from_wire(append_response_to_wire(&answer)).unwrap(), answer);
        }
    }

    #[test]
    fn a_message_without_a_vote_is_an_error_that_says_so() {
        let error = vote_request_from_wire(&peer::VoteRequest::default()).unwrap_err();
        assert_eq!(error, WireError::Missing("vote"));
    }

    #[test]
    fn an_empty_membership_is_that_of_a_node_that_never_heard_of_any() {
        let meta = snapshot_meta_from_wire(snapshot_meta_to_wire(&SnapshotMeta::default())).unwrap();
        assert_eq!(meta, SnapshotMeta::default());
    }
}
