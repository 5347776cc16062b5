//! One client of the flock: it has a home node, and sends a request elsewhere
//! when home does not answer. Every such retry is told with its cause.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use starling_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use starling_proto::inference::{ModelInferRequest, ModelInferResponse};
use tokio::time::Instant;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::cause::Cause;

/// How long one attempt may take.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// How long one request is tried again before it has failed.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);
const CONNECT_LIMIT: Duration = Duration::from_millis(500);
/// After home has refused, others are asked first for so long.
const HOME_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Between rounds over all nodes.
const ROUND_PAUSE: Duration = Duration::from_millis(20);
/// Requests that a closing connection gave back unsent, in a row.
const RESENDS_MAX: u32 = 3;

/// Where the nodes listen for gRPC; nodes may move while clients run.
#[derive(Debug, Clone)]
pub struct Targets(Arc<RwLock<Vec<SocketAddr>>>);

impl Targets {
    /// In the order of the nodes' indexes.
    pub fn new(addresses: Vec<SocketAddr>) -> Self {
        Self(Arc::new(RwLock::new(addresses)))
    }

    /// Says that a node listens elsewhere now.
    pub fn moved(&self, node: usize, address: SocketAddr) {
        if let Some(target) = self.0.write().unwrap_or_else(PoisonError::into_inner).get_mut(node) {
            *target = address;
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// One of them.
    pub fn get(&self, node: usize) -> Option<SocketAddr> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(node).copied()
    }
}

/// An attempt that did not succeed and was, or could have been, followed by another.
#[derive(Debug, Clone)]
pub struct Miss {
    /// The node's index.
    pub node: usize,
    /// Why.
    pub cause: Cause,
    /// In the words of the error.
    pub message: String,
}

/// Sends requests one after the other.
#[derive(Debug)]
pub struct Caller {
    targets: Targets,
    home: usize,
    links: Vec<Option<GrpcInferenceServiceClient<Channel>>>,
    home_again_at: Instant,
}

impl Caller {
    /// A client whose requests go to the node with index `home` where that is possible.
    pub fn new(targets: Targets, home: usize) -> Self {
        let links = vec![None; targets.count()];
        Self { targets, home, links, home_again_at: Instant::now() }
    }

    /// The answer, or the last miss once no node has answered for 20 seconds or
    /// one has answered with an error that no other node would better. `missed`
    /// hears of each attempt that was followed by another.
    pub async fn infer(
        &mut self,
        request: &ModelInferRequest,
        mut missed: impl FnMut(Miss),
    ) -> Result<ModelInferResponse, Miss> {
        let deadline = Instant::now() + REQUEST_LIMIT;
        let nodes = self.links.len();
        let mut node = if Instant::now() < self.home_again_at { (self.home + 1) % nodes } else { self.home };
        let mut attempts = 0;
        loop {
            let miss = match self.attempt(node, request).await {
                Ok(response) => return Ok(response),
                Err(miss) => miss,
            };
            if node == self.home {
                self.home_again_at = Instant::now() + HOME_AGAIN_AFTER;
            }
            if !miss.cause.may_pass() || Instant::now() >= deadline {
                return Err(miss);
            }
            missed(miss);
            attempts += 1;
            node = (node + 1) % nodes;
            if attempts % nodes == 0 {
                tokio::time::sleep(ROUND_PAUSE).await;
            }
        }
    }

    async fn attempt(
        &mut self,
        node: usize,
        request: &ModelInferRequest,
    ) -> Result<ModelInferResponse, Miss> {
        let mut resends = 0;
        loop {
            let miss = match self.send(node, request).await {
                Ok(response) => return Ok(response),
                Err(miss) => miss,
            };
            self.links[node] = None;
            if miss.cause != Cause::Unsent || resends == RESENDS_MAX {
                return Err(miss);
            }
            resends += 1;
        }
    }

    async fn send(&mut self, node: usize, request: &ModelInferRequest) -> Result<ModelInferResponse, Miss> {
        let mut client = match self.links[node].take() {
            Some(client) => client,
            None => self.connect(node).await?,
        };
        let mut attempt = Request::new(request.clone());
        attempt.set_timeout(ATTEMPT_LIMIT);
        // The server keeps the deadline; a paused server does not.
        let answer = tokio::time::timeout(ATTEMPT_LIMIT, client.model_infer(attempt)).await;
        match answer {
            Ok(Ok(response)) => {
                self.links[node] = Some(client);
                Ok(response.into_inner())
            }
            Ok(Err(status)) => {
                let cause = Cause::of_call(&status);
                Err(Miss { node, cause, message: described(&status) })
            }
            Err(_) => Err(Miss {
                node,
                cause: Cause::TimedOut,
                message: format!("no answer within {ATTEMPT_LIMIT:?}"),
            }),
        }
    }

    async fn connect(&self, node: usize) -> Result<GrpcInferenceServiceClient<Channel>, Miss> {
        let refused = |message: String| Miss { node, cause: Cause::Refused, message };
        let address = self.targets.get(node).ok_or_else(|| refused("no such node".to_owned()))?;
        let endpoint =
            Endpoint::from_shared(format!("http://{address}")).map_err(|error| refused(error.to_string()))?;
        let channel = endpoint.connect_timeout(CONNECT_LIMIT).tcp_nodelay(true).connect().await;
        channel.map(GrpcInferenceServiceClient::new).map_err(|error| Miss {
            node,
            cause: Cause::of_connect(&error),
            message: described(&error),
        })
    }
}

fn described(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        words.push(error.to_string());
        source = error.source();
    }
    words.dedup();
    words.join(": ")
}
