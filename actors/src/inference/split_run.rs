//! A request of more rows than a run may have: refused, or run in parts one after
//! another through the queue that all requests take.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use starling_raft::state::models::Oversize as OversizePolicy;

use super::InferError;
use super::host::Answer;
use super::oversize::{Oversize, join};
use super::queue::{Arrival, ArrivalKind};
use super::served_version::ServedVersion;
use super::tensor::check::CheckedRequest;

/// Parts of one request that wait or run at once, per instance: the next is there
/// when one ends, and the queue is not filled by a single request.
const PARTS_PER_INSTANCE: usize = 2;

impl ServedVersion {
    /// More rows than a run may have, and rows that can be told apart.
    pub(super) fn is_oversize(&self, request: &CheckedRequest) -> bool {
        request.rows > self.max_batch
            && request.concatenable
            && self.effective.batchable
            && !self.concatenation_off.load(Relaxed)
    }

    /// Refuses it or answers it in parts, as the settings say. The first part asks
    /// for admission; the others follow it. One that fails fails the request, and
    /// then, or when the caller goes, all leave the queue.
    pub(super) async fn answer_oversize(&self, arrival: Arrival) -> Result<Answer, InferError> {
        if self.plan.settings.oversize == OversizePolicy::Refuse {
            return Err(InferError::InvalidArgument(format!(
                "inference request batch-size must be <= {} for '{}'",
                self.max_batch,
                self.model()
            )));
        }
        let Arrival { request, check, terms, deadline, kind } = arrival;
        let parts: Vec<CheckedRequest> =
            Oversize::new(&request, &self.effective).parts(self.max_batch).collect();
        let part_rows: Vec<usize> = parts.iter().map(|part| part.rows).collect();
        let answer_part = |(index, part): (usize, CheckedRequest)| {
            let (check, kind) = match kind {
                _ if index == 0 => (check, kind),
                ArrivalKind::Copy => (Duration::ZERO, kind),
                _ => (Duration::ZERO, ArrivalKind::Part),
            };
            self.answer_whole(Arrival { request: Arc::new(part), check, terms, deadline, kind })
        };
        let answers: Vec<Answer> = stream::iter(parts.into_iter().enumerate())
            .map(answer_part)
            .buffered(PARTS_PER_INSTANCE * self.plan.instances())
            .try_collect()
            .await?;
        self.put_together(answers, &part_rows)
    }

    fn put_together(&self, answers: Vec<Answer>, part_rows: &[usize]) -> Result<Answer, InferError> {
        let lost = || InferError::Internal(format!("the request to model '{}' had no parts", self.model()));
        let sum = |of: fn(&Answer) -> Duration| answers.iter().map(of).sum::<Duration>();
        let (compute_input, compute_infer, compute_output) =
            (sum(|part| part.compute_input), sum(|part| part.compute_infer), sum(|part| part.compute_output));
        let batch_rows = answers.iter().map(|part| part.batch_rows).max().unwrap_or(0);
        let queue = answers.first().map(|first| first.queue).ok_or_else(lost)?;
        let mut responses = Vec::with_capacity(answers.len());
        let mut last = None;
        for answer in answers {
            let Answer { response, .. } = answer;
            responses.push(response);
            last = Some(Answer { response: Default::default(), ..answer });
        }
        let response = join(responses, part_rows).map_err(|reason| {
            InferError::Internal(format!("model '{}' was run in parts: {reason}", self.model()))
        })?;
        let last = last.ok_or_else(lost)?;
        let request_rows = part_rows.iter().sum();
        let answer = Answer { response, queue, compute_input, compute_infer, compute_output, ..last };
        Ok(Answer { batch_rows, request_rows, ..answer })
    }
}
