//! From an admitted request to its answer: here if this node has the version,
//! else from a peer; and what is waited for, and how long, before giving up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_proto::inference::{ModelInferRequest, ModelInferResponse};
use starling_raft::state::NodeId;
use starling_raft::state::decision::Decision;

use super::InferError;
use super::LoadedVersion;
use super::account::Account;
use super::admission::Admitted;
use super::decision_parameters::text_parameter;
use super::forward::{Forwarded, nobody_has_it};
use super::router::{RouteRequest, Routed, route};
use super::routing_table::RoutedVersion;
use super::rule_matching::Attributes;
use super::serve::{Core, RequestContext};
use super::tally::Tally;

/// A ready version that no live node can answer for (its node has just died, or
/// this one has just started) is waited for so long.
const HOLDER_WAIT_MAX: Duration = Duration::from_secs(5);
/// A node that has just started waits so long until it has caught up with the
/// cluster before it says that it does not know a model.
const CATCH_UP_WAIT_MAX: Duration = Duration::from_secs(10);
const CATCH_UP_LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Requests that wait so at once; more are refused.
pub(super) const WAITERS_MAX: usize = 1_024;

/// What came back, and from whom.
pub(super) struct Answered {
    pub(super) response: ModelInferResponse,
    pub(super) by: NodeId,
    /// Of a run on this node.
    pub(super) account: Option<Account>,
    /// Who answered in place of the version that was decided on.
    pub(super) retried_on: Option<Arc<RoutedVersion>>,
}

impl Core {
    pub(super) async fn admit_and_route(
        &self,
        request: &ModelInferRequest,
        context: &RequestContext<'_>,
    ) -> Result<(Admitted, Routed), InferError> {
        let admitted = self.admission.enter(request)?;
        if let Some(epoch) = context.min_epoch {
            Box::pin(self.wait_for_epoch(epoch, context.deadline)).await?;
        }
        let refused = match self.route(request, context) {
            Ok(routed) => return Ok((admitted, routed)),
            Err(refused) => refused,
        };
        if self.has_caught_up() {
            return Err(refused);
        }
        Box::pin(self.wait_until_caught_up(context.deadline)).await?;
        Ok((admitted, self.route(request, context)?))
    }

    fn route(&self, request: &ModelInferRequest, context: &RequestContext<'_>) -> Result<Routed, InferError> {
        let key =
            context.routing_key.as_deref().or_else(|| text_parameter(&request.parameters, "routing_key"));
        let asked = RouteRequest {
            model: &request.model_name,
            version: &request.model_version,
            key: key.filter(|key| !key.is_empty()),
            attributes: Attributes { parameters: Some(&request.parameters), metadata: context.metadata },
        };
        route(&self.routing.table(), asked, || self.decisions.next())
    }

    async fn wait_for_epoch(&self, epoch: u64, deadline: Option<Instant>) -> Result<(), InferError> {
        let timeout = bounded_by(deadline, self.config.min_epoch_wait_max);
        self.routing.wait_for(epoch, timeout).await.map_err(|behind| {
            InferError::Unavailable(format!(
                "this node routes by log index {}, the request asks for {epoch} at least; it waited {timeout:?}: try again or ask another node",
                behind.applied_index
            ))
        })
    }

    async fn wait_until_caught_up(&self, deadline: Option<Instant>) -> Result<(), InferError> {
        let behind = || {
            InferError::Unavailable(
                "this node has not caught up with the cluster yet; ask another node".to_owned(),
            )
        };
        let Ok(_waiter) = self.waiters.try_acquire() else { return Err(behind()) };
        let give_up_at = Instant::now() + bounded_by(deadline, CATCH_UP_WAIT_MAX);
        while !self.has_caught_up() {
            if Instant::now() >= give_up_at {
                return Err(behind());
            }
            tokio::time::sleep(CATCH_UP_LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// The answer. What another version than the stable one fails by no fault of
    /// the caller is answered by the stable one, if the rollout says so and there
    /// is time; the failure counts all the same.
    pub(super) async fn answer_or_retry(
        &self,
        request: ModelInferRequest,
        routed: &Routed,
        context: &RequestContext<'_>,
        tally: Tally<'_>,
    ) -> Result<Answered, InferError> {
        // Tensors are shared, not copied.
        let spare = routed.retried_on().map(|stable| (stable, request.clone()));
        // Where somebody else can answer, nobody is waited for.
        let patience = if spare.is_some() { Duration::ZERO } else { HOLDER_WAIT_MAX };
        let answer = self.answer(request, &routed.version, &routed.decision, context, patience).await;
        tally.finish(&answer);
        let (error, stable, request) = match (answer, spare) {
            (Err(error), Some((stable, request))) if is_worth_a_retry(&error, context.deadline) => {
                (error, stable, request)
            }
            (answer, _) => return answer,
        };
        self.metrics.retried_on_stable(&routed.version);
        tracing::debug!(%error, decision = %routed.decision, "retried on the stable version");
        let second = self.answer(request, stable, &routed.decision, context, HOLDER_WAIT_MAX);
        let second = Box::pin(second).await?;
        Ok(Answered { retried_on: Some(Arc::clone(stable)), ..second })
    }

    /// The answer, and who gave it. A drained node asks its peers first.
    async fn answer(
        &self,
        request: ModelInferRequest,
        version: &RoutedVersion,
        decision: &Decision,
        context: &RequestContext<'_>,
        patience: Duration,
    ) -> Result<Answered, InferError> {
        if !self.routing.is_draining(self.this_node)
            && let Some(loaded) = self.local.get(version.id)
            && loaded.is_well()
        {
            return self.answer_here(&loaded, request, context).await;
        }
        // Boxed, because every request carries the largest of its futures with it.
        Box::pin(self.answer_elsewhere(request, version, decision, context, patience)).await
    }

    async fn answer_here(
        &self,
        version: &Arc<LoadedVersion>,
        request: ModelInferRequest,
        context: &RequestContext<'_>,
    ) -> Result<Answered, InferError> {
        let (answer, account) = version.infer_on_account(request, context.arrived, context.deadline).await?;
        let (by, account) = (self.this_node, Some(account));
        Ok(Answered { response: answer.response, by, account, retried_on: None })
    }

    /// Asks peers; where none can answer, runs it here if that is possible
    /// after all, else waits for the next change of who has what.
    async fn answer_elsewhere(
        &self,
        request: ModelInferRequest,
        version: &RoutedVersion,
        decision: &Decision,
        context: &RequestContext<'_>,
        patience: Duration,
    ) -> Result<Answered, InferError> {
        let decision_id = decision.to_string();
        let forwarded = Forwarded {
            request: &request,
            version,
            epoch: decision.epoch.get(),
            decision: &decision_id,
            principal: &context.principal,
            deadline: context.deadline,
        };
        let is_serving = |node_id: NodeId| !self.routing.is_draining(node_id);
        let give_up_at = tokio::time::Instant::now() + bounded_by(context.deadline, patience);
        let mut view = self.board.watch_view();
        let mut waiter = None;
        loop {
            view.mark_unchanged();
            let mut candidates = self.forwarder.candidates(version, is_serving);
            let here = self.local.get(version.id);
            if here.is_some() {
                // Another drained node is no better than this one.
                candidates.retain(|holder| is_serving(holder.node_id));
            }
            let refusal = match self.forwarder.forward(forwarded, candidates).await {
                Err(refusal @ InferError::Unavailable(_)) => refusal,
                Err(error) => return Err(error),
                Ok((response, by)) => {
                    return Ok(Answered { response, by, account: None, retried_on: None });
                }
            };
            if let Some(here) = here {
                return self.answer_here(&here, request, context).await;
            }
            if waiter.is_none() {
                waiter = Some(self.waiters.try_acquire().map_err(|_| nobody_has_it(version))?);
            }
            if !matches!(tokio::time::timeout_at(give_up_at, view.changed()).await, Ok(Ok(()))) {
                return Err(refusal);
            }
        }
    }
}

/// A failure that is not the caller's, while there is time left.
fn is_worth_a_retry(error: &InferError, deadline: Option<Instant>) -> bool {
    let callers_affair = matches!(error, InferError::InvalidArgument(_) | InferError::Cancelled);
    !callers_affair && deadline.is_none_or(|deadline| deadline > Instant::now())
}

fn bounded_by(deadline: Option<Instant>, longest: Duration) -> Duration {
    match deadline {
        Some(deadline) => longest.min(deadline.saturating_duration_since(Instant::now())),
        None => longest,
    }
}
