//! The event history as a stream: in pages, and with `follow` for as long as the
//! client listens and the node runs.

use std::sync::Arc;

use futures::Stream;
use starling_proto::admin::{EventRecord, EventsRequest};
use starling_raft::history::HistoryRecord;
use starling_raft::state::{EventClass, LogIndex};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::servers::Node;
use crate::servers::node::Starting;

/// Events read at once.
const PAGE: usize = 256;
/// Events that wait for a slow client.
const WAITING_MAX: usize = 256;

/// Starts reading on the control runtime.
pub(super) fn stream(
    node: Arc<Node>,
    request: EventsRequest,
) -> Result<impl Stream<Item = Result<EventRecord, Status>>, Starting> {
    node.running()?;
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let control = node.control.clone();
    control.spawn(async move {
        let outcome = tokio::select! {
            outcome = send_history(&node, &request, &sender) => outcome,
            () = node.stopping.cancelled() => Err(Status::unavailable("this node is stopping; follow on another one")),
            () = sender.closed() => return,
        };
        if let Err(status) = outcome {
            // The client may be gone; there is nobody else to tell.
            let _ = sender.send(Err(status)).await;
        }
    });
    Ok(ReceiverStream::new(receiver))
}

async fn send_history(
    node: &Node,
    request: &EventsRequest,
    sender: &mpsc::Sender<Result<EventRecord, Status>>,
) -> Result<(), Status> {
    let running = node.running()?;
    let mut applied = running.consensus.watch_applied();
    let mut from = request.from_index;
    loop {
        applied.mark_unchanged();
        let page = {
            let flock = running.flock.read().await;
            let flock = flock.as_ref().ok_or_else(|| Status::unavailable("this node is stopping"))?;
            let page = flock.history(LogIndex::new(from), PAGE).await;
            page.map_err(|error| Status::internal(format!("the history cannot be read: {error}")))?
        };
        let full = page.len() >= PAGE;
        for record in page {
            from = record.log_index.get() + 1;
            if sender.send(record_wire(&record)).await.is_err() {
                return Ok(());
            }
        }
        if full {
            continue;
        }
        if !request.follow {
            return Ok(());
        }
        if applied.changed().await.is_err() {
            return Err(Status::unavailable("this node is stopping"));
        }
    }
}

fn record_wire(record: &HistoryRecord) -> Result<EventRecord, Status> {
    let json = serde_json::to_string(&record.event)
        .map_err(|error| Status::internal(format!("an event cannot be written as JSON: {error}")))?;
    let class = match record.class {
        EventClass::Audit => "audit",
        EventClass::Telemetry => "telemetry",
    };
    Ok(EventRecord {
        log_index: record.log_index.get(),
        log_time_us: record.log_time.as_micros(),
        wall_time_us: record.wall_time.as_unix_micros(),
        principal: record.principal.as_str().into(),
        request_id: record.request_id.to_string(),
        class: class.into(),
        kind: record.event.kind().into(),
        json,
    })
}
