//! Real models, served whole: answers in every type, batches, faults, ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admission;
mod answers;
mod batches;
mod copies;
mod counts;
mod ends;
mod faults;
mod health;
mod local;
mod oversize;
mod shapes;

use super::*;
use crate::inference::testing::{eventually, fp32_values, int64_bytes, raw_request};

/// A request to `slow_loop`, which takes about 4 µs per trip.
fn slow(trips: i64) -> ModelInferRequest {
    raw_request("trips", "INT64", &[1, 1], int64_bytes(&[trips]))
}

/// `slow_loop` answers with the trips it made.
fn trips_made(answer: &Answer) -> i64 {
    fp32_values(&answer.response.raw_output_contents[0])[0] as i64
}

fn spawn_infer(
    version: &Arc<LoadedVersion>,
    request: ModelInferRequest,
) -> tokio::task::JoinHandle<Result<Answer, InferError>> {
    let version = Arc::clone(version);
    tokio::spawn(async move { version.infer(request, None).await })
}

/// Until the instances have taken everything but `waiting` requests.
async fn until_waiting(version: &LoadedVersion, in_flight: usize, waiting: usize) {
    eventually("requests are taken from the queue", || {
        version.in_flight() == in_flight && version.version.queue.len() == waiting
    })
    .await;
}
