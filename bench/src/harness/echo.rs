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

impl Echo {
    fn answer(&self, request: oip::ModelInferRequest) -> oip::ModelInferResponse {
        oip::ModelInferResponse { model_name: request.model_name, id: request.id, ..self.answer.clone() }
    }
}

fn not_echoed<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the echo answers ModelInfer only"))
}

/// The service, with all methods but the one that is measured refused.
macro_rules! echo_service {
    ($($method:ident: $request:ident -> $response:ident,)*) => {
        #[tonic::async_trait]
        impl GrpcInferenceService for Echo {
            type ModelStreamInferStream = Empty<Result<oip::ModelStreamInferResponse, Status>>;

            async fn model_infer(
                &self,
                request: Request<oip::ModelInferRequest>,
            ) -> Result<Response<oip::ModelInferResponse>, Status> {
                Ok(Response::new(self.answer(request.into_inner())))
            }

            async fn model_stream_infer(
                &self,
                _: Request<Streaming<oip::ModelInferRequest>>,
            ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
                not_echoed()
            }

            $(async fn $method(
                &self,
                _: Request<oip::$request>,
            ) -> Result<Response<oip::$response>, Status> {
                not_echoed()
            })*
        }
    };
}

echo_service! {
    server_live: ServerLiveRequest -> ServerLiveResponse,
    server_ready: ServerReadyRequest -> ServerReadyResponse,
    model_ready: ModelReadyRequest -> ModelReadyResponse,
    server_metadata: ServerMetadataRequest -> ServerMetadataResponse,
    model_metadata: ModelMetadataRequest -> ModelMetadataResponse,
    model_config: ModelConfigRequest -> ModelConfigResponse,
    model_statistics: ModelStatisticsRequest -> ModelStatisticsResponse,
    repository_index: RepositoryIndexRequest -> RepositoryIndexResponse,
    repository_model_load: RepositoryModelLoadRequest -> RepositoryModelLoadResponse,
    repository_model_unload: RepositoryModelUnloadRequest -> RepositoryModelUnloadResponse,
    system_shared_memory_status: SystemSharedMemoryStatusRequest -> SystemSharedMemoryStatusResponse,
    system_shared_memory_register: SystemSharedMemoryRegisterRequest -> SystemSharedMemoryRegisterResponse,
    system_shared_memory_unregister: SystemSharedMemoryUnregisterRequest -> SystemSharedMemoryUnregisterResponse,
    cuda_shared_memory_status: CudaSharedMemoryStatusRequest -> CudaSharedMemoryStatusResponse,
    cuda_shared_memory_register: CudaSharedMemoryRegisterRequest -> CudaSharedMemoryRegisterResponse,
    cuda_shared_memory_unregister: CudaSharedMemoryUnregisterRequest -> CudaSharedMemoryUnregisterResponse,
    trace_setting: TraceSettingRequest -> TraceSettingResponse,
    log_settings: LogSettingsRequest -> LogSettingsResponse,
}
