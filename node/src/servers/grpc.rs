//! The Open Inference Protocol over gRPC, with those of Triton's extensions that
//! are honoured, as its unmodified clients expect it.

mod in_kind;
mod stream;

use std::sync::Arc;

use http::HeaderMap;
use starling_actors::inference::{InferError, Inference};
use starling_proto::admin::admin_server::AdminServer;
use starling_proto::admin::rollouts_server::RolloutsServer;
use starling_proto::inference::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use starling_proto::inference::*;
use starling_raft::state::Principal;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::admin::AdminService;
use super::errors::infer_status;
use super::health::HealthService;
use super::node::Starting;
use super::unsupported::Unsupported;
use super::{Node, feedback, words};
use in_kind::InKind;
use stream::InferStream;

/// What this server honours, in Triton's words.
pub(super) const EXTENSIONS: &[&str] = &[
    "classification",
    "model_repository",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
];

/// Everything on the gRPC port.
pub(super) fn routes(node: &Arc<Node>, health: HealthService) -> Routes {
    let limit_bytes = usize::try_from(node.settings.max_request_bytes).unwrap_or(usize::MAX);
    let inference = GrpcInferenceServiceServer::new(InferenceService { node: node.clone() })
        .max_decoding_message_size(limit_bytes)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate)
        .send_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Deflate);
    let admin =
        AdminServer::new(AdminService::new(node.clone())).accept_compressed(CompressionEncoding::Gzip);
    let rollouts =
        RolloutsServer::new(AdminService::new(node.clone())).accept_compressed(CompressionEncoding::Gzip);
    let routes = Routes::new(InKind(inference))
        .add_service(admin)
        .add_service(rollouts)
        .add_service(feedback::server(node))
        .add_service(health);
    let v1 = reflection().build_v1();
    let v1alpha = reflection().build_v1alpha();
    match (v1, v1alpha) {
        (Ok(v1), Ok(v1alpha)) => routes.add_service(v1).add_service(v1alpha),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "gRPC reflection is off: the descriptors of the contracts do not decode");
            routes
        }
    }
}

fn reflection<'a>() -> tonic_reflection::server::Builder<'a> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(starling_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

struct InferenceService {
    node: Arc<Node>,
}

impl InferenceService {
    fn inference(&self) -> Result<&Inference, Starting> {
        self.node.running().map(|running| &running.inference)
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for InferenceService {
    type ModelStreamInferStream = InferStream;

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let principal = principal(&extensions);
        let headers = metadata.into_headers();
        let context = words::request_context(&headers, &request, principal).map_err(refused)?;
        let answer = self.inference()?.infer(request, context).await.map_err(failed)?;
        let mut said = HeaderMap::new();
        if words::metadata_is_wanted(&headers) {
            words::response_headers(words::choices(&answer.parameters), &mut said);
        }
        Ok(Response::from_parts(MetadataMap::from_headers(said), answer, http::Extensions::new()))
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<InferStream>, Status> {
        let (metadata, extensions, requests) = request.into_parts();
        let principal = principal(&extensions);
        let answers = stream::answers(
            self.inference()?.clone(),
            self.node.stopping.clone(),
            metadata.into_headers(),
            principal,
            requests,
        );
        Ok(Response::new(answers))
    }

    async fn server_live(
        &self,
        _: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.node.ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version } = request.into_inner();
        // Clients ask this of models that may not be there yet: no is an answer.
        let ready = match self.inference()?.model_ready(&name, &version) {
            Ok(ready) => ready,
            Err(InferError::NotFound(_)) => false,
            Err(error) => return Err(infer_status(&error)),
        };
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(server_metadata()))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        self.inference()?.model_metadata(&name, &version).map(Response::new).map_err(refused)
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let ModelConfigRequest { name, version } = request.into_inner();
        self.inference()?.model_config(&name, &version).map(Response::new).map_err(refused)
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let ModelStatisticsRequest { name, version } = request.into_inner();
        self.inference()?.model_statistics(&name, &version).map(Response::new).map_err(refused)
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let RepositoryIndexRequest { ready, .. } = request.into_inner();
        Ok(Response::new(self.inference()?.repository_index(ready)))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        let RepositoryModelLoadRequest { repository_name, model_name, parameters } = request.into_inner();
        let named = NamedModel::of(model_name, repository_name);
        load(&self.node, &named.model, parameters.keys().next().map(String::as_str))
            .map_err(|e| infer_status(&e))?;
        Ok(Response::new(match named.by_kserve {
            true => RepositoryModelLoadResponse { model_name: named.model, is_loaded: true },
            false => RepositoryModelLoadResponse::default(),
        }))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        let RepositoryModelUnloadRequest { repository_name, model_name, .. } = request.into_inner();
        let named = NamedModel::of(model_name, repository_name);
        Err(infer_status(&unload(&self.node, &named.model)))
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<SystemSharedMemoryStatusResponse>, Status> {
        Err(Unsupported::SharedMemory.into())
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<SystemSharedMemoryRegisterResponse>, Status> {
        Err(Unsupported::SharedMemory.into())
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<SystemSharedMemoryUnregisterResponse>, Status> {
        Err(Unsupported::SharedMemory.into())
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<CudaSharedMemoryStatusResponse>, Status> {
        Err(Unsupported::SharedMemory.into())
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<CudaSharedMemoryRegisterResponse>, Status> {
        Err(Unsupported::SharedMemory.into())
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<CudaSharedMemoryUnregisterResponse>, Status> {
        Err(Unsupported::SharedMemory.into())
    }

    async fn trace_setting(
        &self,
        _: Request<TraceSettingRequest>,
    ) -> Result<Response<TraceSettingResponse>, Status> {
        Err(Unsupported::Trace.into())
    }

    async fn log_settings(
        &self,
        _: Request<LogSettingsRequest>,
    ) -> Result<Response<LogSettingsResponse>, Status> {
        Err(Unsupported::Logging.into())
    }
}

/// What this server is and can.
pub(super) fn server_metadata() -> ServerMetadataResponse {
    ServerMetadataResponse {
        name: "starling".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        extensions: EXTENSIONS.iter().map(|extension| (*extension).to_owned()).collect(),
    }
}

/// What is loaded follows from the log, so there is nothing to do for a model
/// that is in it; `parameter` would change how it is run, which versions do not.
pub(super) fn load(node: &Node, model: &str, parameter: Option<&str>) -> Result<(), InferError> {
    if let Some(parameter) = parameter {
        return Err(InferError::Unimplemented(format!(
            "loading with parameter '{parameter}' is not supported; `starling model push` makes a new version"
        )));
    }
    require_model(node, model)
}

/// Always an error: the reason.
pub(super) fn unload(node: &Node, model: &str) -> InferError {
    match require_model(node, model) {
        Ok(()) => InferError::Unimplemented(format!(
            "model '{model}' cannot be unloaded from one node; `starling model delete {model}` removes it from all"
        )),
        Err(error) => error,
    }
}

fn require_model(node: &Node, model: &str) -> Result<(), InferError> {
    let running = node.running().map_err(|starting| InferError::Unavailable(starting.to_string()))?;
    if running.consensus.applied().state.models.get(model).is_none() {
        return Err(InferError::NotFound(format!("Request for unknown model: '{model}' is not found")));
    }
    Ok(())
}

/// The model of a load or unload, and in whose words it was named.
struct NamedModel {
    model: String,
    by_kserve: bool,
}

impl NamedModel {
    /// KServe's clients put the model where Triton's put the repository.
    fn of(model: String, repository: String) -> Self {
        match model.is_empty() {
            true => Self { model: repository, by_kserve: true },
            false => Self { model, by_kserve: false },
        }
    }
}

fn principal(extensions: &http::Extensions) -> Principal {
    // The security layer lets no request without one pass.
    extensions.get::<Principal>().cloned().unwrap_or_else(|| Principal::named("unknown"))
}

/// A refused request is the client's affair: it is not logged.
fn refused(error: InferError) -> Status {
    infer_status(&error)
}

fn failed(error: InferError) -> Status {
    if let InferError::Internal(reason) = &error {
        tracing::error!(reason, "prediction failed");
    }
    infer_status(&error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn reflection_knows_every_service() {
        assert!(reflection().build_v1().is_ok());
    }

    #[test]
    fn a_kserve_client_names_the_model_in_the_repository_field() {
        let kserve = NamedModel::of(String::new(), "m".into());
        assert_eq!((kserve.model.as_str(), kserve.by_kserve), ("m", true));
        let triton = NamedModel::of("m".into(), "r".into());
        assert_eq!((triton.model.as_str(), triton.by_kserve), ("m", false));
    }
}
