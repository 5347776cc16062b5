//! How feedback gets from the node that was told to the one that decided: both
//! sides of it.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use starling_proto::feedback::RecordResponse;
use starling_proto::peer::RecordHereRequest;
use starling_proto::peer::peer_feedback_client::PeerFeedbackClient;
use starling_proto::peer::peer_feedback_server::{PeerFeedback, PeerFeedbackServer};
use starling_raft::peers::Peers;
use starling_raft::state::NodeId;
use tonic::{Request, Response, Status};

use super::FeedbackError;
use super::intake::Intake;
use super::item::{Answer, Feedback, ITEMS_MAX};
use super::replicated::Carrier;
use super::wire::{answer_from_wire, answer_to_wire, from_wire, to_wire};

/// Of [`ITEMS_MAX`] items with the longest words.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Where the caller does not say how long it waits.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// The peer service `PeerFeedback`, to be given to `Flock::start` before there
/// is a [`super::FeedbackDesk`]: it answers UNAVAILABLE until then.
#[derive(Clone, Default)]
pub struct PeerFeedbackService {
    intake: Arc<OnceLock<Arc<Intake>>>,
}

impl PeerFeedbackService {
    /// For the peer server.
    pub fn server(&self) -> PeerFeedbackServer<Self> {
        PeerFeedbackServer::new(self.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Answers from now on. False: it already has another intake.
    pub(super) fn attach(&self, intake: Arc<Intake>) -> bool {
        self.intake.set(intake).is_ok()
    }
}

#[tonic::async_trait]
impl PeerFeedback for PeerFeedbackService {
    async fn record_here(
        &self,
        request: Request<RecordHereRequest>,
    ) -> Result<Response<RecordResponse>, Status> {
        let intake = self
            .intake
            .get()
            .ok_or_else(|| Status::unavailable("feedback has not started on this node yet"))?;
        let RecordHereRequest { items, wait_counted, timeout_us } = request.into_inner();
        if items.len() > ITEMS_MAX {
            return Err(Status::invalid_argument(format!(
                "{} pieces of feedback in one request",
                items.len()
            )));
        }
        let timeout = if timeout_us == 0 { TIMEOUT_DEFAULT } else { Duration::from_micros(timeout_us) };
        let items: Result<Vec<Feedback>, Answer> = items.into_iter().map(from_wire).collect();
        let items = items.map_err(|answer| Status::invalid_argument(answer.reason))?;
        if !items.iter().all(|item| intake.is_home(item)) {
            return Err(Status::invalid_argument("feedback about decisions of another node"));
        }
        let answers = intake.record_here(items, wait_counted, Instant::now() + timeout).await;
        let answers = answers.map_err(|error| match &error {
            FeedbackError::Overloaded { .. } => Status::resource_exhausted(error.to_string()),
            _ => Status::unavailable(error.to_string()),
        })?;
        Ok(Response::new(RecordResponse { results: answers.into_iter().map(answer_to_wire).collect() }))
    }
}

/// Carries feedback over the channels between nodes.
pub(super) struct PeerCarrier {
    pub(super) peers: Peers,
}

#[tonic::async_trait]
impl Carrier for PeerCarrier {
    async fn carry(
        &self,
        home: NodeId,
        items: Vec<Feedback>,
        wait_counted: bool,
        timeout: Duration,
    ) -> Result<Vec<Answer>, String> {
        let channel = self.peers.channel(home).map_err(|error| error.to_string())?;
        let mut client = PeerFeedbackClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let count = items.len();
        let request = RecordHereRequest {
            items: items.into_iter().map(to_wire).collect(),
            wait_counted,
            timeout_us: u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX),
        };
        // Whoever waits until it is counted gets an answer at the deadline too.
        let call = tokio::time::timeout(timeout + Duration::from_millis(500), client.record_here(request));
        let answer = call.await.map_err(|_| format!("no answer within {timeout:?}"))?;
        let results = answer.map_err(|status| status.message().to_owned())?.into_inner().results;
        let answers: Vec<Answer> = results.into_iter().filter_map(answer_from_wire).collect();
        match answers.len() == count {
            true => Ok(answers),
            false => Err(format!("{} answers to {count} pieces of feedback", answers.len())),
        }
    }
}
