//! How a rollout stands, as a stream: again and again until it is over, the
//! client has gone or the node stops.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use starling_proto::admin::{Rollout, WatchRolloutRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{ask_leader, shown, unknown};
use crate::servers::Node;
use crate::servers::node::Starting;

const EVERY: Duration = Duration::from_secs(1);
const EVERY_LEAST: Duration = Duration::from_millis(100);
/// How long the leader may take; then what the log knows is shown alone.
const LEADER_LIMIT: Duration = Duration::from_secs(2);

pub(super) fn stream(
    node: Arc<Node>,
    request: WatchRolloutRequest,
) -> Result<impl Stream<Item = Result<Rollout, Status>>, Starting> {
    node.running()?;
    // A slow client gets what is new when it has read what was.
    let (sender, receiver) = mpsc::channel(1);
    let control = node.control.clone();
    control.spawn(async move {
        let outcome = tokio::select! {
            outcome = send(&node, &request, &sender) => outcome,
            () = node.stopping.cancelled() => Err(Status::unavailable("this node is stopping; watch on another one")),
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
    request: &WatchRolloutRequest,
    sender: &mpsc::Sender<Result<Rollout, Status>>,
) -> Result<(), Status> {
    let running = node.running()?;
    let every = match request.every_ms {
        0 => EVERY,
        millis => Duration::from_millis(millis).max(EVERY_LEAST),
    };
    loop {
        let reported = ask_leader::report(running, &request.name, LEADER_LIMIT).await;
        let state = running.consensus.applied().state;
        let known = state.rollouts.get(&request.name);
        let (shown, over) = match (reported, known) {
            (Ok(report), _) => {
                let over = report.finished_unix_us > 0;
                (report, over)
            }
            (Err(problem), Some(known)) => {
                (Rollout { problem, ..shown::rollout(&state, known) }, known.is_over())
            }
            (Err(_), None) => return Err(unknown(&request.name)),
        };
        if sender.send(Ok(shown)).await.is_err() || over {
            return Ok(());
        }
        tokio::time::sleep(every).await;
    }
}
