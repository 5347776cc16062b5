//! `ModelStreamInfer`: requests of one stream, answered in their order. An error
//! travels inside the stream, unless the client wants it as the stream's status.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use http::HeaderMap;
use starling_actors::inference::{InferError, Inference, RequestContext};
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_proto::inference::*;
use starling_raft::state::Principal;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::servers::errors::infer_status;
use crate::servers::words;

/// Requests of one stream that run at once; answers keep their order.
const STREAM_CONCURRENCY: usize = 64;
/// With this metadata a stream ends with the status of its first error instead
/// of carrying it inside.
const STREAM_STATUS_WANTED: &str = "triton_grpc_error";
const FINAL_RESPONSE: &str = "triton_final_response";

pub(super) type InferStream = Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

/// The answers to a stream of requests, until it ends or the node stops.
pub(super) fn answers(
    inference: Inference,
    stopping: CancellationToken,
    mut headers: HeaderMap,
    principal: Principal,
    requests: Streaming<ModelInferRequest>,
) -> InferStream {
    let status_wanted = headers.get(STREAM_STATUS_WANTED).is_some_and(|value| value == "true");
    // A stream's own deadline is not that of each request in it.
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
    Box::pin(end_at_first_error(answers))
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
    let context: Result<RequestContext<'_>, InferError> =
        words::request_context(headers, &request, principal);
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
}
