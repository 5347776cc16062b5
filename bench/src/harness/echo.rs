//! A bare tonic server: it decodes a request, answers what a model once answered,
//! and does nothing else. What gRPC alone costs on this machine.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use prost::Message;
use starling_proto::inference as oip;
use starling_proto::inference::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use tokio_stream::Empty;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

const WORKERS: usize = 2;

struct Echo {
    answer: oip::ModelInferResponse,
}

/// Serves on a port that the system chooses and prints `host:port`. `answer` is a
/// file with an encoded ModelInferResponse.
pub fn serve(answer: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::read(answer).with_context(|| format!("cannot read {}", answer.display()))?;
    let echo = Echo { answer: oip::ModelInferResponse::decode(&bytes[..])? };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        std::io::stdout().flush()?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let service = GrpcInferenceServiceServer::new(echo);
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await?;
        Ok(())
    })
}

fn not_echoed<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the echo answers ModelInfer only"))
}

#[tonic::async_trait]
impl GrpcInferenceService for Echo {
    type ModelStreamInferStream = Empty<Result<oip::ModelStreamInferResponse, Status>>;

    async fn model_infer(
        &self,
        request: Request<oip::ModelInferRequest>,
    ) -> Result<Response<oip::ModelInferResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(oip::ModelInferResponse {
            model_name: request.model_name,
            id: request.id,
            ..self.answer.clone()
        }))
    }

    async fn server_live(
        &self,
        _: Request<oip::ServerLiveRequest>,
    ) -> Result<Response<oip::ServerLiveResponse>, Status> {
        not_echoed()
    }

    async fn server_ready(
        &self,
        _: Request<oip::ServerReadyRequest>,
    ) -> Result<Response<oip::ServerReadyResponse>, Status> {
        not_echoed()
    }

    async fn model_ready(
        &self,
        _: Request<oip::ModelReadyRequest>,
    ) -> Result<Response<oip::ModelReadyResponse>, Status> {
        not_echoed()
    }

    async fn server_metadata(
        &self,
        _: Request<oip::ServerMetadataRequest>,
    ) -> Result<Response<oip::ServerMetadataResponse>, Status> {
        not_echoed()
    }

    async fn model_metadata(
        &self,
        _: Request<oip::ModelMetadataRequest>,
    ) -> Result<Response<oip::ModelMetadataResponse>, Status> {
        not_echoed()
    }

    async fn model_stream_infer(
        &self,
        _: Request<Streaming<oip::ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        not_echoed()
    }

    async fn model_config(
        &self,
        _: Request<oip::ModelConfigRequest>,
    ) -> Result<Response<oip::ModelConfigResponse>, Status> {
        not_echoed()
    }

    async fn model_statistics(
        &self,
        _: Request<oip::ModelStatisticsRequest>,
    ) -> Result<Response<oip::ModelStatisticsResponse>, Status> {
        not_echoed()
    }

    async fn repository_index(
        &self,
        _: Request<oip::RepositoryIndexRequest>,
    ) -> Result<Response<oip::RepositoryIndexResponse>, Status> {
        not_echoed()
    }

    async fn repository_model_load(
        &self,
        _: Request<oip::RepositoryModelLoadRequest>,
    ) -> Result<Response<oip::RepositoryModelLoadResponse>, Status> {
        not_echoed()
    }

    async fn repository_model_unload(
        &self,
        _: Request<oip::RepositoryModelUnloadRequest>,
    ) -> Result<Response<oip::RepositoryModelUnloadResponse>, Status> {
        not_echoed()
    }
}
