//! The service behind every `starling` command. Its calls arrive on the data
//! plane and run on the control runtime; each has a deadline.

mod cluster;
mod decisions;
mod events;
mod explain;
mod lists;
mod push;
mod rollouts;
pub(crate) mod route_in;
pub(crate) mod route_out;
mod shadows;
mod writes;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use starling_proto::admin::admin_server::Admin;
use starling_proto::admin::*;
use starling_raft::state::{Principal, RequestId};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::errors::infer_status;
use super::{Node, words};

pub(crate) use rollouts::PeerRolloutService;

/// The service. Cheap to clone.
#[derive(Clone)]
pub(super) struct AdminService {
    node: Arc<Node>,
}

/// What every call is told beside its message.
#[derive(Debug, Clone)]
struct Caller {
    principal: Principal,
    /// How long the answer is waited for: the caller's deadline, or ours.
    timeout: Duration,
}

impl AdminService {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let asked = words::grpc_timeout(request.metadata().as_ref()).map_err(|error| infer_status(&error))?;
        let ours = self.node.settings.admin_timeout;
        let principal = request.extensions().get::<Principal>().cloned();
        Ok(Caller {
            principal: principal.ok_or_else(|| Status::unauthenticated("nobody knows who asks"))?,
            timeout: asked.map_or(ours, |asked| asked.min(ours)),
        })
    }

    /// Runs a call on the control runtime, and gives it up at its deadline.
    /// The call ends with its caller.
    async fn on_control<T: Send + 'static>(
        &self,
        timeout: Duration,
        call: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        use tracing::Instrument;
        let call = tokio::time::timeout(timeout, call).in_current_span();
        // The handle aborts the task when this future is dropped.
        let task = tokio_util::task::AbortOnDropHandle::new(self.node.control.spawn(call));
        match task.await {
            Ok(Ok(outcome)) => outcome.map(Response::new),
            Ok(Err(_)) => Err(Status::deadline_exceeded(format!("no answer within {timeout:?}"))),
            Err(failed) => {
                tracing::error!(%failed, "an administrative call has panicked");
                Err(Status::internal("the call has failed inside; see the log of this node"))
            }
        }
    }
}

/// The client's id, so that its retry gets the first answer; else a new one.
fn request_id(text: &str) -> Result<RequestId, Status> {
    if text.is_empty() {
        return Ok(RequestId::new(Uuid::now_v7()));
    }
    text.parse().map_err(invalid)
}

/// A text that is no name, number or id.
fn invalid(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

type EventStream = Pin<Box<dyn Stream<Item = Result<EventRecord, Status>> + Send>>;

#[tonic::async_trait]
impl Admin for AdminService {
    type EventsStream = EventStream;

    async fn push_version(
        &self,
        request: Request<Streaming<PushVersionRequest>>,
    ) -> Result<Response<PushVersionResponse>, Status> {
        let mut caller = self.caller(&request)?;
        // Uploads may be large: they take as long as loading may.
        caller.timeout = caller.timeout.max(self.node.settings.load_timeout);
        let node = self.node.clone();
        let timeout = caller.timeout;
        self.on_control(timeout, push::push(node, caller, request.into_inner())).await
    }

    async fn delete_model(
        &self,
        request: Request<DeleteModelRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let caller = self.caller(&request)?;
        let write = writes::delete_model(request.into_inner())?;
        self.write(caller, write).await
    }

    async fn delete_version(
        &self,
        request: Request<DeleteVersionRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let caller = self.caller(&request)?;
        let write = writes::delete_version(request.into_inner())?;
        self.write(caller, write).await
    }

    async fn set_route(&self, request: Request<SetRouteRequest>) -> Result<Response<WriteResponse>, Status> {
        let caller = self.caller(&request)?;
        let write = writes::set_route(request.into_inner())?;
        self.write(caller, write).await
    }

    async fn configure_route(
        &self,
        request: Request<ConfigureRouteRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let caller = self.caller(&request)?;
        let write = writes::configure_route(request.get_ref())?;
        self.write(caller, write).await
    }

    async fn set_placement(
        &self,
        request: Request<SetPlacementRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let caller = self.caller(&request)?;
        let write = writes::set_placement(request.into_inner())?;
        self.write(caller, write).await
    }

    async fn drain_node(
        &self,
        request: Request<DrainNodeRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let caller = self.caller(&request)?;
        let write = writes::drain_node(request.into_inner())?;
        self.write(caller, write).await
    }

    async fn undrain_node(
        &self,
        request: Request<UndrainNodeRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let caller = self.caller(&request)?;
        let write = writes::undrain_node(request.into_inner())?;
        self.write(caller, write).await
    }

    async fn remove_node(
        &self,
        request: Request<RemoveNodeRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let caller = self.caller(&request)?;
        let write = writes::remove_node(request.into_inner())?;
        self.write(caller, write).await
    }

    async fn list_models(
        &self,
        request: Request<ListRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        let Caller { timeout, .. } = self.caller(&request)?;
        self.on_control(timeout, lists::models(self.node.clone(), request.into_inner(), timeout)).await
    }

    async fn list_versions(
        &self,
        request: Request<ListRequest>,
    ) -> Result<Response<ListVersionsResponse>, Status> {
        let Caller { timeout, .. } = self.caller(&request)?;
        self.on_control(timeout, lists::versions(self.node.clone(), request.into_inner(), timeout)).await
    }

    async fn list_nodes(&self, request: Request<ListRequest>) -> Result<Response<ListNodesResponse>, Status> {
        let Caller { timeout, .. } = self.caller(&request)?;
        self.on_control(timeout, lists::nodes(self.node.clone(), request.into_inner(), timeout)).await
    }

    async fn list_routes(
        &self,
        request: Request<ListRequest>,
    ) -> Result<Response<ListRoutesResponse>, Status> {
        let Caller { timeout, .. } = self.caller(&request)?;
        self.on_control(timeout, lists::routes(self.node.clone(), request.into_inner(), timeout)).await
    }

    async fn list_decisions(
        &self,
        request: Request<ListDecisionsRequest>,
    ) -> Result<Response<ListDecisionsResponse>, Status> {
        let Caller { timeout, .. } = self.caller(&request)?;
        self.on_control(timeout, decisions::list(self.node.clone(), request.into_inner())).await
    }

    async fn shadow_examples(
        &self,
        request: Request<ShadowExamplesRequest>,
    ) -> Result<Response<ShadowExamplesResponse>, Status> {
        let Caller { timeout, .. } = self.caller(&request)?;
        self.on_control(timeout, shadows::examples(self.node.clone(), request.into_inner())).await
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<Explanation>, Status> {
        let Caller { timeout, .. } = self.caller(&request)?;
        self.on_control(timeout, explain::explain(self.node.clone(), request.into_inner())).await
    }

    async fn cluster_status(
        &self,
        request: Request<ClusterStatusRequest>,
    ) -> Result<Response<ClusterStatusResponse>, Status> {
        let Caller { timeout, .. } = self.caller(&request)?;
        self.on_control(timeout, cluster::status(self.node.clone())).await
    }

    async fn cluster_verify(
        &self,
        request: Request<ClusterVerifyRequest>,
    ) -> Result<Response<ClusterVerifyResponse>, Status> {
        let caller = self.caller(&request)?;
        self.on_control(caller.timeout, cluster::verify(self.node.clone(), caller)).await
    }

    async fn events(&self, request: Request<EventsRequest>) -> Result<Response<EventStream>, Status> {
        // No deadline: a stream that follows has no end, and each of its steps is short.
        let stream = events::stream(self.node.clone(), request.into_inner())?;
        Ok(Response::new(Box::pin(stream)))
    }
}
