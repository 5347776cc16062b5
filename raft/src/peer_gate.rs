//! The one layer in front of every call on the peer port: right cluster, right
//! addressee, and not from a node that has our own id.

use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use tonic::Status;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::{Layer, Service};

use crate::peers::{CLUSTER_ID_KEY, FROM_KEY, PeerIdentity, TO_KEY};

/// What a node without an identity, or with another one, may still ask. Gossip
/// speaks to addresses rather than nodes: its packets carry the cluster, and the
/// service checks it.
const OPEN_TO_STRANGERS: [&str; 4] = [
    "/starling.peer.v1.Membership/Probe",
    "/starling.peer.v1.Membership/Grant",
    "/starling.peer.v1.Membership/Join",
    "/starling.peer.v1.Membership/Gossip",
];

/// Who this node is, once it knows. Set once.
pub type OwnIdentity = Arc<OnceLock<PeerIdentity>>;

/// The layer.
#[derive(Clone)]
pub struct PeerGate {
    own: OwnIdentity,
}

impl PeerGate {
    /// Lets through what is addressed to `own`.
    pub fn new(own: OwnIdentity) -> Self {
        Self { own }
    }
}

impl<S> Layer<S> for PeerGate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { own: self.own.clone(), inner }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub struct Gated<S> {
    own: OwnIdentity,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Gated<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<R>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        match admit(self.own.get(), path, request.headers()) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(status) => {
                tracing::warn!(path, reason = status.message(), "call from a peer refused");
                Either::Right(ready(Ok(status.into_http())))
            }
        }
    }
}

fn admit(own: Option<&PeerIdentity>, path: &str, headers: &HeaderMap) -> Result<(), Status> {
    if OPEN_TO_STRANGERS.contains(&path) {
        return Ok(());
    }
    let Some(own) = own else {
        return Err(Status::unavailable("this node does not belong to a cluster yet; try again"));
    };
    let header = |key: &str| headers.get(key).and_then(|value| value.to_str().ok()).unwrap_or("none");
    own.check_caller(header(CLUSTER_ID_KEY), header(FROM_KEY), header(TO_KEY))
}

impl PeerIdentity {
    /// Lets a caller through that belongs to this cluster, is another node, and
    /// means this one; else says which of the three it is not.
    pub fn check_caller(&self, cluster_id: &str, from: &str, to: &str) -> Result<(), Status> {
        if cluster_id != self.cluster_id.to_string() {
            return Err(Status::failed_precondition(format!(
                "this is node {} of cluster {}, the call comes from node {from} of cluster {cluster_id}; \
                 check the addresses that --join and --advertise name",
                self.node_id, self.cluster_id,
            )));
        }
        if from == self.node_id.to_string() {
            return Err(Status::failed_precondition(format!(
                "two nodes have the id {from}: this one and the caller; stop the one whose data directory \
                 is the copy, empty that directory and let it join anew",
            )));
        }
        if to != self.node_id.to_string() {
            return Err(Status::failed_precondition(format!(
                "this is node {}, the call is addressed to node {to}; the caller's address for it is out of date",
                self.node_id,
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use tonic::Code;
    use uuid::Uuid;

    use super::*;
    use crate::state::{ClusterId, NodeId};

    const APPEND: &str = "/starling.peer.v1.Raft/AppendEntries";

    fn own() -> PeerIdentity {
        PeerIdentity { cluster_id: ClusterId::new(Uuid::from_u128(7)), node_id: NodeId::new(1000) }
    }

    fn headers(cluster_id: u128, from: u64, to: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CLUSTER_ID_KEY, Uuid::from_u128(cluster_id).to_string().parse().unwrap());
        headers.insert(FROM_KEY, from.into());
        headers.insert(TO_KEY, to.into());
        headers
    }

    #[test]
    fn a_call_of_the_own_cluster_to_this_node_passes() {
        assert!(admit(Some(&own()), APPEND, &headers(7, 1007, 1000)).is_ok());
    }

    #[test]
    fn another_cluster_is_refused_and_both_ids_are_named() {
        let status = admit(Some(&own()), APPEND, &headers(8, 1007, 1000)).unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().contains("00000000-0000-0000-0000-000000000008"), "{status}");
        assert!(status.message().contains("00000000-0000-0000-0000-000000000007"), "{status}");
    }

    #[test]
    fn a_call_without_a_stamp_is_refused() {
        let status = admit(Some(&own()), APPEND, &HeaderMap::new()).unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
    }

    #[test]
    fn a_caller_with_our_own_id_is_told_that_there_are_two() {
        let status = admit(Some(&own()), APPEND, &headers(7, 1000, 1000)).unwrap_err();
        assert!(status.message().starts_with("two nodes have the id 1000"), "{status}");
    }

    #[test]
    fn a_call_to_somebody_else_is_refused() {
        let status = admit(Some(&own()), APPEND, &headers(7, 1007, 1009)).unwrap_err();
        assert!(status.message().contains("addressed to node 1009"), "{status}");
    }

    #[test]
    fn strangers_may_meet_but_not_append() {
        for path in OPEN_TO_STRANGERS {
            assert!(admit(Some(&own()), path, &HeaderMap::new()).is_ok());
            assert!(admit(None, path, &HeaderMap::new()).is_ok());
        }
        let status = admit(None, APPEND, &headers(7, 1007, 1000)).unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
    }
}
