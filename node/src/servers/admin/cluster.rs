//! How the cluster is, as the answering node sees it, and whether all nodes
//! hold the same state.

use std::sync::Arc;

use starling_proto::admin::cluster_verify_response::NodeDigest;
use starling_proto::admin::{ClusterStatusResponse, ClusterVerifyResponse};
use starling_raft::consensus::RaftStatus;
use starling_raft::state::NodeId;
use tonic::Status;

use super::{Caller, lists};
use crate::servers::Node;
use crate::servers::errors::propose_status;

/// Answers also without a quorum: that is when it is asked.
pub(super) async fn status(node: Arc<Node>) -> Result<ClusterStatusResponse, Status> {
    let running = node.running()?;
    let consensus = &running.consensus;
    let applied = consensus.applied();
    let raft = consensus.status();
    let numbers = |nodes: &[NodeId]| nodes.iter().map(|node_id| node_id.get()).collect();
    Ok(ClusterStatusResponse {
        cluster_id: consensus.cluster_id().to_string(),
        node_id: consensus.node_id().get(),
        leader_id: raft.leader.map_or(0, |leader| leader.get()),
        term: raft.term,
        last_log_index: raft.last_log_index,
        applied_index: raft.applied_index,
        snapshot_index: raft.snapshot_index,
        purged_index: raft.purged_index,
        feature_level: applied.state.cluster.feature_level.get(),
        voters: numbers(&raft.voters),
        learners: numbers(&raft.learners),
        quorum: raft.has_quorum,
        problem: problem(&raft, node.ready()),
        nodes: lists::all_nodes(running, &applied.state),
        snapshots_installed: raft.snapshots_installed,
        log_time_us: applied.state.cluster.log_time.as_micros(),
    })
}

fn problem(raft: &RaftStatus, ready: bool) -> String {
    if !raft.has_quorum {
        return "this node hears no quorum: it goes on predicting by the routes it knows, and refuses writes"
            .into();
    }
    if raft.leader.is_none() {
        return "no leader is known; an election is under way".into();
    }
    if !ready {
        return "this node is not ready: it has not caught up, or a version that a route names is not loaded yet"
            .into();
    }
    String::new()
}

pub(super) async fn verify(node: Arc<Node>, caller: Caller) -> Result<ClusterVerifyResponse, Status> {
    let consensus = &node.running()?.consensus;
    let (index, digests) =
        consensus.verify(&caller.principal, caller.timeout).await.map_err(|error| propose_status(&error))?;
    let digests: Vec<NodeDigest> = digests
        .into_iter()
        .map(|(node_id, outcome)| {
            let (digest, error) = match outcome {
                Ok(digest) => (digest, String::new()),
                Err(error) => (String::new(), error),
            };
            NodeDigest { node_id: node_id.get(), digest, error }
        })
        .collect();
    Ok(ClusterVerifyResponse { checkpoint_index: index.get(), equal: equal(&digests), digests })
}

/// Every node has answered, and all say the same.
fn equal(digests: &[NodeDigest]) -> bool {
    let Some(first) = digests.first() else { return false };
    digests.iter().all(|node| node.error.is_empty() && node.digest == first.digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(digest: &str, error: &str) -> NodeDigest {
        NodeDigest { node_id: 1, digest: digest.into(), error: error.into() }
    }

    #[test]
    fn digests_are_equal_only_if_every_node_has_answered_the_same() {
        assert!(equal(&[digest("a", ""), digest("a", "")]));
        assert!(!equal(&[digest("a", ""), digest("b", "")]));
        assert!(!equal(&[digest("", "timed out"), digest("", "timed out")]));
        assert!(!equal(&[]));
    }

    #[test]
    fn a_node_without_quorum_says_what_it_still_does() {
        let cut_off = RaftStatus { leader: Some(NodeId::new(1)), ..RaftStatus::default() };
        assert!(problem(&cut_off, true).contains("goes on predicting"));
        let well = RaftStatus { has_quorum: true, leader: Some(NodeId::new(1)), ..RaftStatus::default() };
        assert_eq!(problem(&well, true), "");
        assert!(problem(&well, false).contains("not ready"));
    }
}
