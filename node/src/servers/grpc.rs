//! The Open Inference Protocol over gRPC, with those of Triton's extensions that
//! are honoured, as its unmodified clients expect it.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use http::HeaderMap;
use starling_actors::inference::{InferError, Inference, RequestContext};
use starling_proto::admin::admin_server::AdminServer;
use starling_proto::inference::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use starling_proto::inference::infer_parameter::ParameterChoice;
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
use super::{Node, words};

/// Requests of one stream that run at once; answers keep their order.
const STREAM_CONCURRENCY: usize = 64;
/// With this metadata a stream ends with the status of its first error instead
/// of carrying it inside.
const STREAM_STATUS_WANTED: &str = "triton_grpc_error";
const FINAL_RESPONSE: &str = "triton_final_response";

/// What this server honours, in Triton's words.
pub(super) const EXTENSIONS: &[&str] =
    &["model_repository", "model_configuration", "binary_tensor_data", "parameters", "statistics"];

/// Everything on the gRPC port.
pub(super) fn routes(node: &Arc<Node>, health: HealthService) -> Routes {
    let limit_bytes = usize::try_from(node.settings.max_request_bytes).unwrap_or(usize::MAX);
    // Every client of grpc-core says that it takes compressed answers; compressing
    // all of them would cost more than most predictions, so none is.
    let inference = GrpcInferenceServiceServer::new(InferenceService { node: node.clone() })
        .max_decoding_message_size(limit_bytes)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate);
    let admin =
        AdminServer::new(AdminService::new(node.clone())).accept_compressed(CompressionEncoding::Gzip);
    let routes = Routes::new(inference).add_service(admin).add_service(health);
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

type InferStream = Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

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
        let mut headers = HeaderMap::with_capacity(8);
        words::response_headers(&answer, &mut headers);
        Ok(Response::from_parts(MetadataMap::from_headers(headers), answer, http::Extensions::new()))
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<InferStream>, Status> {
        let (metadata, extensions, requests) = request.into_parts();
        let principal = principal(&extensions);
        let headers = metadata.into_headers();
        let status_wanted = headers.get(STREAM_STATUS_WANTED).is_some_and(|value| value == "true");
        let inference = self.inference()?.clone();
        let stopping = self.node.stopping.clone();
        // A stream's own deadline is not that of each request in it.
        let mut headers = headers;
        headers.remove("grpc-timeout");
        let headers = Arc::new(headers);
        let answers = requests
            .take_until(stopping.clone().cancelled_owned())
            .map(move |request| {
                let (inference, headers, principal) = (inference.clone(), headers.clone(), principal.clone());
                async move {
                    let request = request?;
                    Ok(stream_answer(&inference, request, &headers, principal).await)
                }
            })
            .buffered(STREAM_CONCURRENCY)
            .map(move |answer| in_stream_form(answer, status_wanted));
        let farewell = futures::stream::once(async move {
            stopping
                .is_cancelled()
                .then(|| Err(Status::unavailable("this node is stopping; open the stream on another one")))
        });
        let answers = answers.chain(farewell.filter_map(std::future::ready));
        Ok(Response::new(Box::pin(end_at_first_error(answers))))
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
        let model = named_model(model_name, repository_name);
        load(&self.node, &model, parameters.keys().next().map(String::as_str))
            .map_err(|e| infer_status(&e))?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        let RepositoryModelUnloadRequest { repository_name, model_name, .. } = request.into_inner();
        let model = named_model(model_name, repository_name);
        Err(infer_status(&unload(&self.node, &model)))
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

/// KServe's clients put the model where Triton's put the repository.
fn named_model(model: String, repository: String) -> String {
    if model.is_empty() { repository } else { model }
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

/// One request of a stream: its answer, or its error and the id it belongs to.
struct StreamAnswer {
    id: String,
    outcome: Result<ModelInferResponse, InferError>,
}

async fn stream_answer(
    inference: &Inference,
    request: ModelInferRequest,
    headers: &HeaderMap,
    principal: Principal,
) -> StreamAnswer {
    let id = request.id.clone();
    let context: Result<RequestContext, InferError> = words::request_context(headers, &request, principal);
    let outcome = match context {
        Ok(context) => inference.infer(request, context).await,
        Err(error) => Err(error),
    };
    StreamAnswer { id, outcome }
}

fn in_stream_form(
    answer: Result<StreamAnswer, Status>,
    status_wanted: bool,
) -> Result<ModelStreamInferResponse, Status> {
    let StreamAnswer { id, outcome } = answer?;
    match outcome {
        Ok(mut response) => {
            let last = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
            response.parameters.insert(FINAL_RESPONSE.into(), last);
            Ok(ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) })
        }
        Err(error) if status_wanted => Err(infer_status(&error)),
        Err(error) => Ok(ModelStreamInferResponse {
            error_message: error.to_string(),
            infer_response: Some(ModelInferResponse { id, ..Default::default() }),
        }),
    }
}

/// After an error there is nothing more to say.
fn end_at_first_error<T>(
    stream: impl Stream<Item = Result<T, Status>>,
) -> impl Stream<Item = Result<T, Status>> {
    stream.scan(false, |ended, item| {
        let pass = !*ended;
        *ended = item.is_err();
        std::future::ready(pass.then_some(item))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn failed_answer() -> Result<StreamAnswer, Status> {
        Ok(StreamAnswer { id: "7".into(), outcome: Err(InferError::NotFound("no m".into())) })
    }

    #[test]
    fn an_error_travels_inside_the_stream_with_the_id_of_its_request() {
        let response = in_stream_form(failed_answer(), false).unwrap();
        assert_eq!(response.error_message, "no m");
        assert_eq!(response.infer_response.unwrap().id, "7");
    }

    #[test]
    fn an_error_ends_the_stream_where_the_client_asks_for_it() {
        assert_eq!(in_stream_form(failed_answer(), true).unwrap_err().code(), tonic::Code::NotFound);
    }

    #[test]
    fn an_answer_in_a_stream_says_that_it_is_the_only_one() {
        let answer = Ok(StreamAnswer { id: "7".into(), outcome: Ok(ModelInferResponse::default()) });
        let response = in_stream_form(answer, false).unwrap().infer_response.unwrap();
        let last = response.parameters.get("triton_final_response").unwrap();
        assert_eq!(last.parameter_choice, Some(ParameterChoice::BoolParam(true)));
    }

    #[tokio::test]
    async fn nothing_follows_an_error() {
        let items = vec![Ok(1), Err(Status::internal("x")), Ok(2)];
        let seen: Vec<_> = end_at_first_error(futures::stream::iter(items)).collect().await;
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn reflection_knows_every_service() {
        assert!(reflection().build_v1().is_ok());
    }

    #[test]
    fn a_kserve_client_names_the_model_in_the_repository_field() {
        assert_eq!(named_model(String::new(), "m".into()), "m");
        assert_eq!(named_model("m".into(), "r".into()), "m");
    }
}
