//! Feedback over gRPC. Calls arrive on the data plane and run on the control
//! runtime, so that a flood of feedback costs predictions little.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::Stream;
use starling_actors::feedback::FeedbackError;
use starling_actors::feedback::item::{Answer, Feedback};
use starling_actors::feedback::wire::{answer_to_wire, from_wire};
use starling_proto::feedback::feedback_server::{Feedback as FeedbackCalls, FeedbackServer};
use starling_proto::feedback::{RecordRequest, RecordResponse};
use starling_raft::state::Principal;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status, Streaming};

use super::errors::{feedback_status, infer_status};
use super::{Node, words};

/// A request of ten thousand pieces has a tenth of it.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Answers of one stream that its client may leave unread; then it is waited for.
const ANSWERS_QUEUED_MAX: usize = 4;

/// The service.
pub(super) fn server(node: &Arc<Node>) -> FeedbackServer<FeedbackService> {
    FeedbackServer::new(FeedbackService { node: node.clone() })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
}

/// See [`server`].
pub(super) struct FeedbackService {
    node: Arc<Node>,
}

/// Takes feedback on this node, on its control runtime. Gone with its caller,
/// what it has begun goes on: a piece that is taken stays taken.
pub(super) async fn record(
    node: &Arc<Node>,
    items: Vec<Result<Feedback, Answer>>,
    wait_counted: bool,
    timeout: Duration,
) -> Result<Vec<Answer>, FeedbackError> {
    let running = node.running().map_err(|starting| FeedbackError::Unavailable(starting.to_string()))?;
    let feedback = running.feedback.clone();
    let deadline = Instant::now() + timeout;
    on_control(node, async move { feedback.record(items, wait_counted, deadline).await }).await
}

async fn on_control<T: Send + 'static>(
    node: &Node,
    call: impl Future<Output = Result<T, FeedbackError>> + Send + 'static,
) -> Result<T, FeedbackError> {
    use tracing::Instrument;
    let task = node.control.spawn(call.in_current_span());
    let ended = tokio_util::task::AbortOnDropHandle::new(task).await;
    ended.unwrap_or_else(|failed| {
        tracing::error!(%failed, "a call with feedback has panicked");
        Err(FeedbackError::Unavailable("the call has failed inside; see the log of this node".to_owned()))
    })
}

impl FeedbackService {
    #[allow(clippy::result_large_err, reason = "tonic's handlers answer with a Status by value")]
    fn timeout<T>(&self, request: &Request<T>) -> Result<Duration, Status> {
        if request.extensions().get::<Principal>().is_none() {
            return Err(Status::unauthenticated("nobody knows who asks"));
        }
        let asked = words::grpc_timeout(request.metadata().as_ref()).map_err(|error| infer_status(&error))?;
        let ours = self.node.settings.admin_timeout;
        Ok(asked.map_or(ours, |asked| asked.min(ours)))
    }
}

async fn answer(
    node: &Arc<Node>,
    request: RecordRequest,
    timeout: Duration,
) -> Result<RecordResponse, Status> {
    let items = request.items.into_iter().map(from_wire).collect();
    let answers = record(node, items, request.wait_counted, timeout).await;
    let answers = answers.map_err(|error| feedback_status(&error))?;
    Ok(RecordResponse { results: answers.into_iter().map(answer_to_wire).collect() })
}

type Answers = Pin<Box<dyn Stream<Item = Result<RecordResponse, Status>> + Send>>;

#[tonic::async_trait]
impl FeedbackCalls for FeedbackService {
    async fn record(&self, request: Request<RecordRequest>) -> Result<Response<RecordResponse>, Status> {
        let timeout = self.timeout(&request)?;
        answer(&self.node, request.into_inner(), timeout).await.map(Response::new)
    }

    type RecordStreamStream = Answers;

    /// No deadline: a stream may have no end, and each of its requests has one.
    async fn record_stream(
        &self,
        request: Request<Streaming<RecordRequest>>,
    ) -> Result<Response<Answers>, Status> {
        self.timeout(&request)?;
        let (sender, receiver) = mpsc::channel(ANSWERS_QUEUED_MAX);
        let (node, mut requests) = (self.node.clone(), request.into_inner());
        tokio::spawn(async move {
            let timeout = node.settings.admin_timeout;
            loop {
                let next = tokio::select! {
                    next = requests.message() => next,
                    () = sender.closed() => return,
                    () = node.stopping.cancelled() => Err(Status::unavailable("this node is stopping")),
                };
                let answer = match next {
                    Ok(Some(request)) => answer(&node, request, timeout).await,
                    Ok(None) => return,
                    Err(status) => Err(status),
                };
                let is_last = answer.is_err();
                if sender.send(answer).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
