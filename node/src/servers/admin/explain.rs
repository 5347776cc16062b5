//! `Explain`: a past decision from its id and the event history, or what a key
//! would get. Every node can: each has all events.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use starling_actors::inference::Parameters;
use starling_actors::inference::routing_table::RoutedModel;
use starling_actors::inference::rule_matching::Attributes;
use starling_actors::rollout::explain::explain as explain_decision;
use starling_actors::rollout::explain::{Explanation, NotExplained, explain_key, model_of, routed_model};
use starling_proto::admin::{ExplainRequest, ExplainStep, Explanation as ExplanationWire};
use starling_proto::inference::InferParameter;
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_raft::state::decision::Decision;
use starling_raft::state::{EntryContext, EventClass, LogIndex, State};
use tokio::sync::Semaphore;
use tonic::Status;

use super::invalid;
use crate::servers::Node;
use crate::servers::node::Running;

/// Events read at once.
const PAGE: usize = 16_384;
/// A history is folded so far at most: some seconds of one core.
const EVENTS_MAX: usize = 2_000_000;
/// Each walks through the whole history.
static FOLDS: Semaphore = Semaphore::const_new(2);

pub(super) async fn explain(node: Arc<Node>, request: ExplainRequest) -> Result<ExplanationWire, Status> {
    let running = node.running()?;
    let explanation = match request.decision.as_str() {
        "" => of_key(running, &request).await?,
        id => of_decision(running, id.parse().map_err(invalid)?).await?,
    };
    Ok(wire(&explanation))
}

async fn of_decision(running: &Running, decision: Decision) -> Result<Explanation, Status> {
    let applied = running.consensus.applied();
    let epoch = decision.epoch.get();
    if epoch > applied.index.get() {
        return Err(Status::not_found(format!(
            "the id says epoch {epoch}, and this node has come to log index {}; ask another node, or is it of another cluster?",
            applied.index
        )));
    }
    // Most that are asked for are of the epoch that is in force.
    if let Ok(model) = model_of(&applied.state, &decision)
        && model.epoch() == epoch
    {
        return explain_decision(&model, &decision).map_err(|error| refusal(&error));
    }
    let state = state_at(running, LogIndex::new(epoch)).await?;
    let model = model_of(&state, &decision).map_err(|error| refusal(&error))?;
    explain_decision(&model, &decision).map_err(|error| refusal(&error))
}

async fn of_key(running: &Running, request: &ExplainRequest) -> Result<Explanation, Status> {
    if request.model.is_empty() || request.key.is_empty() {
        return Err(Status::invalid_argument("name a decision, or a model and a key"));
    }
    let applied = running.consensus.applied();
    let model = match request.at_index {
        0 => routed_model(&applied.state, &request.model),
        at if at > applied.index.get() => {
            return Err(Status::not_found(format!(
                "at_index: {at} lies ahead; this node has come to log index {}",
                applied.index
            )));
        }
        at => routed_model(&state_at(running, LogIndex::new(at)).await?, &request.model),
    };
    let model: Arc<RoutedModel> = model.ok_or_else(|| {
        Status::not_found(format!(
            "model '{}' is not found; `starling get models` lists what there is",
            request.model
        ))
    })?;
    let (parameters, metadata) = (parameters(&request.parameters), metadata(&request.metadata)?);
    let attributes = Attributes { parameters: Some(&parameters), metadata: Some(&metadata) };
    explain_key(&model, &request.key, attributes).map_err(|error| refusal(&error))
}

fn parameters(texts: &BTreeMap<String, String>) -> Parameters {
    let parameter =
        |text: &String| InferParameter { parameter_choice: Some(ParameterChoice::StringParam(text.clone())) };
    texts.iter().map(|(name, text)| (name.clone(), parameter(text))).collect()
}

fn metadata(texts: &BTreeMap<String, String>) -> Result<HeaderMap, Status> {
    let mut headers = HeaderMap::with_capacity(texts.len());
    for (name, text) in texts {
        let wrong = || Status::invalid_argument(format!("metadata.{name}: is no name and text of metadata"));
        let header: HeaderName = name.parse().map_err(|_| wrong())?;
        headers.insert(header, HeaderValue::from_str(text).map_err(|_| wrong())?);
    }
    Ok(headers)
}

/// What all audited events up to an index fold into: enough for routes, not for
/// rewards. Gives up after [`EVENTS_MAX`] events; its caller has a deadline.
async fn state_at(running: &Running, index: LogIndex) -> Result<State, Status> {
    let _turn = FOLDS.try_acquire().map_err(|_| {
        Status::resource_exhausted("this node is walking through its history for others already; try again")
    })?;
    let mut state = State::default();
    let (mut from, mut events) = (0, 0);
    loop {
        let page = {
            let flock = running.flock.read().await;
            let flock = flock.as_ref().ok_or_else(|| Status::unavailable("this node is stopping"))?;
            let page = flock.history(LogIndex::new(from), PAGE).await;
            page.map_err(|error| Status::internal(format!("the history cannot be read: {error}")))?
        };
        let (full, last) = (page.len() >= PAGE, page.last().map(|record| record.log_index));
        events += page.len();
        let wanted = page.into_iter().take_while(|record| record.log_index <= index);
        for record in wanted.filter(|record| record.class == EventClass::Audit) {
            let context = EntryContext {
                log_index: record.log_index,
                log_time: record.log_time,
                wall_time: record.wall_time,
                principal: record.principal,
                request_id: record.request_id,
            };
            state.evolve(&context, &record.event);
        }
        if state.cluster.id.is_none() {
            return Err(Status::out_of_range(
                "this node does not keep the beginning of the history, so a past state cannot be folded",
            ));
        }
        match last {
            Some(last) if full && last < index => from = last.get() + 1,
            _ => return Ok(state),
        }
        if events > EVENTS_MAX {
            return Err(Status::out_of_range(format!(
                "there are more than {EVENTS_MAX} events before log index {index}; they are not walked through for one answer"
            )));
        }
    }
}

fn refusal(error: &NotExplained) -> Status {
    match error {
        NotExplained::NoRoute(_) => Status::failed_precondition(error.to_string()),
        _ => Status::not_found(error.to_string()),
    }
}

fn wire(explanation: &Explanation) -> ExplanationWire {
    let steps = explanation.steps.iter().map(|step| {
        let draw = step.draw();
        ExplainStep {
            kind: step.kind().to_owned(),
            says: step.to_string(),
            bucket: draw.map(|(bucket, _, _)| bucket.get()),
            from: draw.map(|(_, from, _)| from),
            until: draw.map(|(_, _, until)| until),
        }
    });
    let mut wire = ExplanationWire {
        model: explanation.model.to_string(),
        epoch: explanation.epoch.get(),
        steps: steps.collect(),
        ..ExplanationWire::default()
    };
    if let Some(chosen) = &explanation.chosen {
        wire.version.clone_from(&chosen.label);
        wire.ordinal = chosen.ordinal.get();
        wire.propensity = chosen.propensity;
        wire.rollout = chosen.rollout.as_ref().map(ToString::to_string).unwrap_or_default();
        wire.arm = chosen.arm.clone().unwrap_or_default();
    }
    wire
}
