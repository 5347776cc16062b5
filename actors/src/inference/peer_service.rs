//! What peers ask of this node's inference: run a routed request, say what is
//! loaded, take a traffic report, give the cluster's.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use starling_proto::inference::{ModelInferRequest, ModelInferResponse};
use starling_proto::peer::peer_inference_server::{PeerInference, PeerInferenceServer};
use starling_proto::peer::{
    ClusterTrafficRequest, ClusterTrafficResponse, ForwardRequest, Readiness, TrafficReport,
    TrafficReportResponse, WatchReadinessRequest,
};
use starling_raft::peers::PeerIdentity;
use starling_raft::state::Ordinal;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::admission::Admission;
use super::error::Overload;
use super::forward::FORWARD_BYTES_MAX;
use super::forward_status::to_status;
use super::local_versions::LocalVersions;
use super::readiness::{ANNOUNCE_INTERVAL, ReadinessBoard};
use super::routing_feed::RoutingFeed;
use super::routing_table::VersionId;
use super::short_way;
use super::traffic_report::TrafficExchange;
use super::{InferError, LoadedVersion};

/// A copy for a shadow whose sender sets no deadline.
const COPY_TIME_MAX: Duration = Duration::from_secs(5);
/// Announcements that a slow listener may leave unread; then it is waited for.
const ANNOUNCEMENTS_QUEUED_MAX: usize = 4;

/// The peer service `PeerInference`, to be given to `Flock::start` before there
/// is an `Inference`: it answers UNAVAILABLE until then.
#[derive(Clone, Default)]
pub struct PeerInferenceService {
    backend: Arc<OnceLock<Arc<Backend>>>,
}

/// What answers.
pub(super) struct Backend {
    pub(super) identity: PeerIdentity,
    pub(super) admission: Arc<Admission>,
    pub(super) local: Arc<LocalVersions>,
    pub(super) board: Arc<ReadinessBoard>,
    pub(super) routing: Arc<RoutingFeed>,
    pub(super) traffic: Arc<TrafficExchange>,
}

impl PeerInferenceService {
    /// For the peer server.
    pub fn routes(&self) -> Routes {
        let server = PeerInferenceServer::new(self.clone())
            .max_decoding_message_size(FORWARD_BYTES_MAX)
            .max_encoding_message_size(FORWARD_BYTES_MAX);
        Routes::new(server)
    }

    /// Answers from now on. False: it already has another backend.
    pub(super) fn attach(&self, backend: Backend) -> bool {
        self.backend.set(Arc::new(backend)).is_ok()
    }

    /// Serves a connection that came through the flock's forwarding door, on the
    /// core of the data plane that calls this, until the peer hangs up or, once
    /// `end` is cancelled, until what it has asked is answered.
    pub async fn serve_forwarding(self, stream: std::net::TcpStream, end: CancellationToken) {
        let (Ok(backend), Ok(stream)) = (self.backend(), tokio::net::TcpStream::from_std(stream)) else {
            return tracing::debug!("a connection of forwarded requests is closed before it was served");
        };
        let answer = |request| {
            let backend = Arc::clone(backend);
            async move { backend.run(request).await }
        };
        short_way::serve(stream, backend.identity, answer, end).await;
    }

    #[allow(clippy::result_large_err, reason = "tonic's handlers answer with a Status by value")]
    fn backend(&self) -> Result<&Arc<Backend>, Status> {
        self.backend.get().ok_or_else(|| Status::unavailable("inference has not started on this node yet"))
    }
}

impl Backend {
    async fn run(&self, forwarded: ForwardRequest) -> Result<ModelInferResponse, InferError> {
        let deadline = match forwarded.timeout_us {
            0 => None,
            micros => Some(Instant::now() + Duration::from_micros(micros)),
        };
        let id = VersionId { model_id: forwarded.model_id, ordinal: Ordinal::new(forwarded.ordinal) };
        let Some(request) = forwarded.request else {
            return Err(InferError::InvalidArgument("a forwarded request without the request".to_owned()));
        };
        let _admitted = self.admission.enter(&request)?;
        // It never routes again: what is not here is the sender's to place.
        let Some(version) = self.local.get(id) else {
            return Err(InferError::Unavailable(format!(
                "version {} of model '{}' is not loaded here",
                id.ordinal, request.model_name
            )));
        };
        if forwarded.shadow {
            return self.run_copy(&version, request, deadline).await;
        }
        tracing::debug!(decision = %forwarded.decision, principal = %forwarded.principal, "running for a peer");
        Ok(version.infer(request, deadline).await?.response)
    }

    /// A copy gives way here as it does where it was made.
    async fn run_copy(
        &self,
        version: &LoadedVersion,
        request: ModelInferRequest,
        deadline: Option<Instant>,
    ) -> Result<ModelInferResponse, InferError> {
        if self.local.requests_wait() {
            return Err(InferError::Overloaded {
                reason: Overload::QueueFull,
                text: "requests wait on this node; it runs no copies for shadows now".to_owned(),
                retry_after: Duration::ZERO,
            });
        }
        version.infer_copy(request, deadline.unwrap_or_else(|| Instant::now() + COPY_TIME_MAX)).await
    }

    fn readiness(&self) -> Readiness {
        let own = self.board.own();
        let in_flight = u32::try_from(self.admission.inside()).unwrap_or(u32::MAX);
        own.to_wire(self.identity.node_id, in_flight, self.routing.applied_index())
    }

    async fn announce_until_closed(self: Arc<Self>, listener: mpsc::Sender<Result<Readiness, Status>>) {
        let mut own = self.board.watch_own();
        loop {
            own.mark_unchanged();
            if listener.send(Ok(self.readiness())).await.is_err() {
                return;
            }
            tokio::select! {
                changed = own.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(ANNOUNCE_INTERVAL) => {}
                () = listener.closed() => return,
            }
        }
    }
}

#[tonic::async_trait]
impl PeerInference for PeerInferenceService {
    async fn forward(
        &self,
        request: Request<ForwardRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let answer = self.backend()?.run(request.into_inner()).await;
        answer.map(Response::new).map_err(|error| to_status(&error))
    }

    type WatchReadinessStream = Pin<Box<dyn Stream<Item = Result<Readiness, Status>> + Send>>;

    async fn watch_readiness(
        &self,
        _request: Request<WatchReadinessRequest>,
    ) -> Result<Response<Self::WatchReadinessStream>, Status> {
        let backend = self.backend()?.clone();
        let (sender, receiver) = mpsc::channel(ANNOUNCEMENTS_QUEUED_MAX);
        tokio::spawn(backend.announce_until_closed(sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn report_traffic(
        &self,
        request: Request<TrafficReport>,
    ) -> Result<Response<TrafficReportResponse>, Status> {
        let traffic = &self.backend()?.traffic;
        traffic.accept(request.get_ref());
        Ok(Response::new(TrafficReportResponse { webhooks_told_through: traffic.notified.get() }))
    }

    async fn cluster_traffic(
        &self,
        _request: Request<ClusterTrafficRequest>,
    ) -> Result<Response<ClusterTrafficResponse>, Status> {
        let nodes = self.backend()?.traffic.reports().map_err(|error| to_status(&error))?;
        Ok(Response::new(ClusterTrafficResponse { nodes }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[tokio::test]
    async fn before_inference_has_started_every_call_is_unavailable() {
        let service = PeerInferenceService::default();
        let refused = service.forward(Request::new(ForwardRequest::default())).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable);
        let refused = service.watch_readiness(Request::new(WatchReadinessRequest {})).await;
        assert_eq!(refused.err().unwrap().code(), tonic::Code::Unavailable);
    }
}
