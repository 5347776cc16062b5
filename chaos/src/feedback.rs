//! Tells a cluster which predictions were right: in batches, to any node that
//! answers, again and again until one has taken them.

use std::time::Duration;

use anyhow::{Result, bail};
use starling_proto::feedback::feedback_client::FeedbackClient;
use starling_proto::feedback::feedback_item::Said;
use starling_proto::feedback::{FeedbackItem, FeedbackVerdict, RecordRequest, RecordResponse};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Request;

use crate::admin::channel;
use crate::caller::Targets;
use crate::load::Reward;

const BATCH_MAX: usize = 500;
const CALL_LIMIT: Duration = Duration::from_secs(5);
const BATCH_LIMIT: Duration = Duration::from_secs(60);
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Sends what comes until nobody sends any more; answers how many rewards were
/// taken. A batch that no node takes within a minute is an error.
pub async fn tell(targets: Targets, mut rewards: mpsc::Receiver<Reward>) -> Result<u64> {
    let mut taken = 0;
    let mut node = 0;
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while rewards.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let items = batch.drain(..).map(item).collect();
        let request = RecordRequest { items, wait_counted: false };
        let answer = record(&targets, &mut node, &request).await?;
        taken += answer.results.iter().filter(|result| is_taken(result.verdict())).count() as u64;
        node += 1;
    }
    Ok(taken)
}

async fn record(targets: &Targets, node: &mut usize, request: &RecordRequest) -> Result<RecordResponse> {
    let give_up_at = Instant::now() + BATCH_LIMIT;
    let mut last;
    loop {
        let Some(address) = targets.get(*node % targets.count()) else { bail!("there is no such node") };
        let mut client = FeedbackClient::new(channel(&address)?);
        let mut call = Request::new(request.clone());
        call.set_timeout(CALL_LIMIT);
        match tokio::time::timeout(CALL_LIMIT, client.record(call)).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => last = format!("{:?}: {}", status.code(), status.message()),
            Err(_) => last = format!("no answer within {CALL_LIMIT:?}"),
        }
        if Instant::now() >= give_up_at {
            bail!("no node took a batch of rewards within {BATCH_LIMIT:?}; the last one: {last}");
        }
        *node += 1;
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

fn item(reward: Reward) -> FeedbackItem {
    FeedbackItem {
        decision: reward.decision,
        said: Some(Said::Flag(reward.correct)),
        ..FeedbackItem::default()
    }
}

fn is_taken(verdict: FeedbackVerdict) -> bool {
    matches!(verdict, FeedbackVerdict::Recorded | FeedbackVerdict::Stored | FeedbackVerdict::Duplicate)
}
