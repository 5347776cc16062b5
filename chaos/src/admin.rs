//! The administration service as a patient client sees it: any node will do,
//! and a write is tried again under the same request id until it is answered.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use futures::TryStreamExt;
use starling_proto::admin::admin_client::AdminClient;
use starling_proto::admin::{self as wire, push_version_request};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

const CONNECT_LIMIT: Duration = Duration::from_secs(1);
const CALL_LIMIT: Duration = Duration::from_secs(10);
const WRITE_LIMIT: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const CHUNK_BYTES: usize = 256 * 1024;

/// A client of some nodes of one cluster.
#[derive(Debug, Clone)]
pub struct Admin {
    nodes: Vec<Channel>,
}

impl Admin {
    /// Dials lazily.
    pub fn new(nodes: &[SocketAddr]) -> Result<Self> {
        if nodes.is_empty() {
            bail!("there is no running node to ask");
        }
        let nodes = nodes.iter().map(channel).collect::<Result<_>>()?;
        Ok(Self { nodes })
    }

    /// What the first node says about itself and the cluster.
    pub async fn status(&self) -> Result<wire::ClusterStatusResponse> {
        self.status_of(0, CALL_LIMIT).await
    }

    /// What one node says, or that it did not in time.
    pub async fn status_of(&self, node: usize, limit: Duration) -> Result<wire::ClusterStatusResponse> {
        let channel = self.nodes.get(node).context("no such node")?.clone();
        let mut request = Request::new(wire::ClusterStatusRequest {});
        request.set_timeout(limit);
        let answer = tokio::time::timeout(limit, AdminClient::new(channel).cluster_status(request)).await;
        Ok(answer.map_err(|_| anyhow!("no status within {limit:?}"))??.into_inner())
    }

    /// Uploads a version.
    pub async fn push(&self, model: &str, label: &str, file: &Path) -> Result<wire::PushVersionResponse> {
        let bytes =
            Bytes::from(std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?);
        self.push_bytes(model, label, bytes).await
    }

    /// Uploads a version that is in memory.
    pub async fn push_bytes(
        &self,
        model: &str,
        label: &str,
        bytes: Bytes,
    ) -> Result<wire::PushVersionResponse> {
        self.push_with(model, label, bytes, None).await
    }

    /// Uploads a version that is in memory, to run as the settings say.
    pub async fn push_with(
        &self,
        model: &str,
        label: &str,
        bytes: Bytes,
        settings: Option<wire::VersionSettings>,
    ) -> Result<wire::PushVersionResponse> {
        let header = push_version_request::Header {
            model: model.to_owned(),
            label: label.to_owned(),
            settings,
            sha256: String::new(),
            size_bytes: bytes.len() as u64,
            request_id: request_id(),
        };
        let mut parts = vec![push_version_request::Part::Header(header)];
        let chunks = (0..bytes.len()).step_by(CHUNK_BYTES);
        parts.extend(chunks.map(|start| {
            let end = bytes.len().min(start + CHUNK_BYTES);
            push_version_request::Part::Chunk(bytes.slice(start..end))
        }));
        let requests: Vec<_> =
            parts.into_iter().map(|part| wire::PushVersionRequest { part: Some(part) }).collect();
        self.write(|mut client| {
            let requests = requests.clone();
            async move { client.push_version(futures::stream::iter(requests)).await }
        })
        .await
    }

    /// Moves a model's route; weights in parts per million.
    pub async fn set_route(&self, model: &str, weights: &[(&str, u32)]) -> Result<wire::WriteResponse> {
        let request = wire::SetRouteRequest {
            model: model.to_owned(),
            weights: weights
                .iter()
                .map(|(version, weight_ppm)| wire::WeightedVersion {
                    version: (*version).to_owned(),
                    weight_ppm: *weight_ppm,
                })
                .collect(),
            request_id: request_id(),
            expected_epoch: 0,
        };
        self.write(|mut client| {
            let request = request.clone();
            async move { client.set_route(request).await }
        })
        .await
    }

    /// Sets the shadows of a model's route, all other rules left as they are.
    pub async fn set_shadows(
        &self,
        model: &str,
        shadows: Vec<wire::RouteShadow>,
    ) -> Result<wire::WriteResponse> {
        let request = wire::ConfigureRouteRequest {
            model: model.to_owned(),
            rules: None,
            shadows: Some(wire::RouteShadows { shadows }),
            request_id: request_id(),
            expected_epoch: 0,
        };
        self.write(|mut client| {
            let request = request.clone();
            async move { client.configure_route(request).await }
        })
        .await
    }

    /// One try at one node, for a test of a refusal.
    pub async fn try_set_route(
        &self,
        model: &str,
        version: &str,
        limit: Duration,
    ) -> Result<wire::WriteResponse, Status> {
        let channel = self.nodes.first().cloned().ok_or_else(|| Status::internal("no node to ask"))?;
        let mut request = Request::new(wire::SetRouteRequest {
            model: model.to_owned(),
            weights: vec![wire::WeightedVersion { version: version.to_owned(), weight_ppm: 1_000_000 }],
            request_id: request_id(),
            expected_epoch: 0,
        });
        request.set_timeout(limit);
        AdminClient::new(channel).set_route(request).await.map(tonic::Response::into_inner)
    }

    /// How many nodes hold a model; 0: every node.
    pub async fn set_placement(&self, model: &str, replicas: u32) -> Result<wire::WriteResponse> {
        let request =
            wire::SetPlacementRequest { model: model.to_owned(), replicas, request_id: request_id() };
        self.write(|mut client| {
            let request = request.clone();
            async move { client.set_placement(request).await }
        })
        .await
    }

    /// Deletes one version, named by label or ordinal.
    pub async fn delete_version(&self, model: &str, version: &str) -> Result<wire::WriteResponse> {
        let request = wire::DeleteVersionRequest {
            model: model.to_owned(),
            version: version.to_owned(),
            request_id: request_id(),
        };
        self.write(|mut client| {
            let request = request.clone();
            async move { client.delete_version(request).await }
        })
        .await
    }

    /// Moves work and leadership away from a node.
    pub async fn drain(&self, node_id: u64) -> Result<wire::WriteResponse> {
        let request = wire::DrainNodeRequest { node_id, request_id: request_id() };
        self.write(|mut client| {
            let request = request.clone();
            async move { client.drain_node(request).await }
        })
        .await
    }

    /// Brings work back to a node.
    pub async fn undrain(&self, node_id: u64) -> Result<wire::WriteResponse> {
        let request = wire::UndrainNodeRequest { node_id, request_id: request_id() };
        self.write(|mut client| {
            let request = request.clone();
            async move { client.undrain_node(request).await }
        })
        .await
    }

    /// Takes a node's seat.
    pub async fn remove(&self, node_id: u64) -> Result<wire::WriteResponse> {
        let request = wire::RemoveNodeRequest { node_id, request_id: request_id() };
        self.write(|mut client| {
            let request = request.clone();
            async move { client.remove_node(request).await }
        })
        .await
    }

    /// All versions of a model, read through the leader.
    pub async fn versions(&self, model: &str) -> Result<Vec<wire::Version>> {
        let request = wire::ListRequest { model: model.to_owned(), stale: false };
        let answer = self
            .write(|mut client| {
                let request = request.clone();
                async move { client.list_versions(request).await }
            })
            .await?;
        Ok(answer.versions)
    }

    /// All members, read through the leader.
    pub async fn nodes(&self) -> Result<Vec<wire::Node>> {
        let request = wire::ListRequest { model: String::new(), stale: false };
        let answer = self
            .write(|mut client| {
                let request = request.clone();
                async move { client.list_nodes(request).await }
            })
            .await?;
        Ok(answer.nodes)
    }

    /// All routes with the cluster's traffic, read through the leader.
    pub async fn routes(&self, model: &str) -> Result<Vec<wire::Route>> {
        let request = wire::ListRequest { model: model.to_owned(), stale: false };
        let answer = self
            .write(|mut client| {
                let request = request.clone();
                async move { client.list_routes(request).await }
            })
            .await?;
        Ok(answer.routes)
    }

    /// Everything that happened from a log index on.
    pub async fn events(&self, from_index: u64) -> Result<Vec<wire::EventRecord>> {
        self.write(|mut client| async move {
            let request = wire::EventsRequest { from_index, follow: false };
            let stream = client.events(request).await?.into_inner();
            Ok(tonic::Response::new(stream.try_collect().await?))
        })
        .await
    }

    /// Compares the state digests of all nodes at one index.
    pub async fn verify(&self) -> Result<wire::ClusterVerifyResponse> {
        self.write(|mut client| async move { client.cluster_verify(wire::ClusterVerifyRequest {}).await })
            .await
    }

    // Any node, again and again, until one answers for good.
    async fn write<T, F>(&self, call: impl Fn(AdminClient<Channel>) -> F) -> Result<T>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let deadline = Instant::now() + WRITE_LIMIT;
        let mut last = String::new();
        for channel in self.nodes.iter().cycle() {
            if Instant::now() >= deadline {
                break;
            }
            match tokio::time::timeout(CALL_LIMIT, call(AdminClient::new(channel.clone()))).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) if may_pass(&status) => {
                    last = format!("{}: {}", status.code(), status.message())
                }
                Ok(Err(status)) => return Err(status.into()),
                Err(_) => last = format!("no answer within {CALL_LIMIT:?}"),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        bail!("no node answered within {WRITE_LIMIT:?}; the last one: {last}")
    }
}

/// A connection to a node's gRPC port, made when it is first used.
pub fn channel(address: &SocketAddr) -> Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(CONNECT_LIMIT).connect_lazy())
}

fn may_pass(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
        || matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
}

fn request_id() -> String {
    uuid::Uuid::now_v7().to_string()
}
