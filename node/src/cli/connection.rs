//! The connection to whichever node the user named.

use std::time::Duration;

use starling_proto::admin::admin_client::AdminClient;
use starling_proto::admin::rollouts_client::RolloutsClient;
use starling_proto::feedback::feedback_client::FeedbackClient;
use starling_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use tonic::transport::{Channel, Endpoint};

use super::CliError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Predictions may be large.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;

/// Connects, and says whom it could not reach and why.
pub async fn connect(server: &str) -> Result<Channel, CliError> {
    let unreachable = |reason: String| CliError::Unreachable { server: server.to_owned(), reason };
    let address = server.strip_prefix("http://").unwrap_or(server);
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| CliError::Local(format!("'{server}' is not HOST:GRPC_PORT")))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .tcp_nodelay(true);
    endpoint.connect().await.map_err(|error| unreachable(innermost(&error)))
}

/// A client of the administration service.
pub async fn admin(server: &str) -> Result<AdminClient<Channel>, CliError> {
    Ok(AdminClient::new(connect(server).await?).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

/// A client of the service of rollouts.
pub async fn rollouts(server: &str) -> Result<RolloutsClient<Channel>, CliError> {
    Ok(RolloutsClient::new(connect(server).await?).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

/// A client of the inference service.
pub async fn inference(server: &str) -> Result<GrpcInferenceServiceClient<Channel>, CliError> {
    Ok(GrpcInferenceServiceClient::new(connect(server).await?)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX))
}

/// A client of the feedback service.
pub async fn feedback(server: &str) -> Result<FeedbackClient<Channel>, CliError> {
    Ok(FeedbackClient::new(connect(server).await?).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

/// A fresh request id: a retry of the same command line is another request.
pub fn new_request_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// tonic wraps the operating system's words several times.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
