//! What happened to a rollout: its events, out of the event history.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use starling_proto::admin::{RolloutHappening, RolloutHistoryRequest};
use starling_raft::history::HistoryRecord;
use starling_raft::state::rollouts::RolloutEvent;
use starling_raft::state::{Event, LogIndex};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::shown::{Labels, ending_wire};
use super::unknown;
use crate::servers::Node;
use crate::servers::admin::lists;
use crate::servers::node::{Running, Starting};

/// Events read at once.
const PAGE: usize = 256;
/// Happenings that wait for a slow client.
const WAITING_MAX: usize = 64;

pub(super) fn stream(
    node: Arc<Node>,
    request: RolloutHistoryRequest,
    timeout: Duration,
) -> Result<impl Stream<Item = Result<RolloutHappening, Status>>, Starting> {
    node.running()?;
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let control = node.control.clone();
    control.spawn(async move {
        let outcome = tokio::select! {
            outcome = send(&node, &request, timeout, &sender) => outcome,
            () = node.stopping.cancelled() => Err(Status::unavailable("this node is stopping; ask another one")),
            () = sender.closed() => return,
        };
        if let Err(status) = outcome {
            // The client may be gone; there is nobody else to tell.
            let _ = sender.send(Err(status)).await;
        }
    });
    Ok(ReceiverStream::new(receiver))
}

async fn send(
    node: &Node,
    request: &RolloutHistoryRequest,
    timeout: Duration,
    sender: &mpsc::Sender<Result<RolloutHappening, Status>>,
) -> Result<(), Status> {
    let running = node.running()?;
    let applied = lists::state(running, false, timeout).await?;
    let known = applied.state.rollouts.get(&request.name);
    // One that is forgotten may still be in the history.
    let first = known.filter(|_| !request.all_runs).map_or(0, |rollout| rollout.started_at.get());
    let mut model = known.map(|rollout| rollout.spec.model.to_string()).unwrap_or_default();
    let (mut from, mut sent) = (first, 0_u64);
    loop {
        let page = page(running, from, PAGE).await?;
        let last = page.len() < PAGE;
        for record in page {
            from = record.log_index.get() + 1;
            let Event::Rollout(event) = &record.event else { continue };
            if event.rollout().is_none_or(|name| name.as_str() != request.name) {
                continue;
            }
            if let RolloutEvent::RolloutStarted { spec, .. } = event {
                model = spec.model.to_string();
            }
            let labels = Labels::of_model(&applied.state, &model);
            if sender.send(Ok(happening(&record, event, labels))).await.is_err() {
                return Ok(());
            }
            sent += 1;
        }
        if last {
            break;
        }
    }
    if sent == 0 { Err(unknown(&request.name)) } else { Ok(()) }
}

/// Some events from an index on.
pub(super) async fn page(running: &Running, from: u64, count: usize) -> Result<Vec<HistoryRecord>, Status> {
    let flock = running.flock.read().await;
    let flock = flock.as_ref().ok_or_else(|| Status::unavailable("this node is stopping"))?;
    let page = flock.history(LogIndex::new(from), count).await;
    page.map_err(|error| Status::internal(format!("the history cannot be read: {error}")))
}

fn happening(record: &HistoryRecord, event: &RolloutEvent, labels: Labels<'_>) -> RolloutHappening {
    let base = RolloutHappening {
        log_index: record.log_index.get(),
        log_time_us: record.log_time.as_micros(),
        wall_time_us: record.wall_time.as_unix_micros(),
        principal: record.principal.as_str().to_owned(),
        kind: event.kind().to_owned(),
        ..RolloutHappening::default()
    };
    match event {
        RolloutEvent::RolloutStarted { weights, .. } => {
            RolloutHappening { stage: Some(0), weights: labels.weights(weights), ..base }
        }
        RolloutEvent::RolloutAdvanced { stage, weights, why, evidence, .. } => RolloutHappening {
            stage: Some(*stage),
            weights: labels.weights(weights),
            why: why.clone(),
            evidence: labels.measures(evidence),
            ..base
        },
        RolloutEvent::RolloutHeld { why, evidence, .. } => {
            RolloutHappening { why: why.clone(), evidence: labels.measures(evidence), ..base }
        }
        RolloutEvent::RolloutPublished { weights, why, evidence, .. } => RolloutHappening {
            weights: labels.weights(weights),
            why: why.clone(),
            evidence: labels.measures(evidence),
            ..base
        },
        RolloutEvent::RolloutFinished { ending, weights, why, evidence, .. } => RolloutHappening {
            ending: ending_wire(*ending).into(),
            weights: labels.weights(weights),
            why: why.clone(),
            evidence: labels.measures(evidence),
            ..base
        },
        RolloutEvent::RolloutArmsSet { weights, .. } => {
            RolloutHappening { weights: labels.weights(weights), ..base }
        }
        RolloutEvent::RolloutLearningDropped { rewards, .. } => {
            RolloutHappening { rewards_dropped: Some(*rewards), ..base }
        }
        RolloutEvent::RolloutApproved { .. }
        | RolloutEvent::RolloutPaused { .. }
        | RolloutEvent::RolloutResumed { .. }
        | RolloutEvent::FeedbackRecorded { .. } => base,
    }
}
