//! `ShadowExamples`: requests of this node whose shadow did not agree.

use std::sync::Arc;

use starling_actors::inference::shadowing::comparison::OutputVerdict;
use starling_actors::inference::shadowing::examples::{Excerpt, ShadowExample};
use starling_proto::admin::{
    OutputDifference, ShadowExample as ShadowExampleWire, ShadowExamplesRequest, ShadowExamplesResponse,
    TensorExcerpt,
};
use tonic::Status;

use crate::servers::Node;
use crate::servers::errors::infer_status;

const LIMIT_DEFAULT: u32 = 32;
const LIMIT_MAX: u32 = 10_000;

pub(super) async fn examples(
    node: Arc<Node>,
    request: ShadowExamplesRequest,
) -> Result<ShadowExamplesResponse, Status> {
    let running = node.running()?;
    let ShadowExamplesRequest { name, version, limit } = request;
    let limit = if limit == 0 { LIMIT_DEFAULT } else { limit.min(LIMIT_MAX) } as usize;
    let state = running.consensus.applied().state;
    let rollout = state.rollouts.get(&name).filter(|_| state.models.get(&name).is_none());
    let model = rollout.map_or(name, |rollout| rollout.spec.model.to_string());
    let found = running.inference.shadow_examples(&model, &version, limit);
    let node_id = running.consensus.node_id().get();
    let found = found.map_err(|error| infer_status(&error))?;
    Ok(ShadowExamplesResponse { examples: found.into_iter().map(|example| wire(example, node_id)).collect() })
}

fn wire(example: ShadowExample, node_id: u64) -> ShadowExampleWire {
    ShadowExampleWire {
        node_id,
        decision: example.decision.to_string(),
        request_id: example.request_id,
        model: example.live.key.model.to_string(),
        live_version: example.live.version.label.to_string(),
        shadow_version: example.shadow.version.label.to_string(),
        epoch: example.decision.epoch.get(),
        compared_unix_us: example.compared_unix_micros,
        differences: example.differences.iter().filter_map(difference).collect(),
        inputs: excerpts(example.inputs),
        live_outputs: excerpts(example.live_outputs),
        shadow_outputs: excerpts(example.shadow_outputs),
    }
}

fn difference(verdict: &OutputVerdict) -> Option<OutputDifference> {
    let difference = verdict.difference.as_ref()?;
    let (index, live, shadow) = match difference.place() {
        Some((index, live, shadow)) => (Some(index as u64), live, shadow),
        None => (None, "", ""),
    };
    Some(OutputDifference {
        output: verdict.output.clone(),
        difference: difference.to_string(),
        index,
        live_value: live.to_owned(),
        shadow_value: shadow.to_owned(),
    })
}

fn excerpts(excerpts: Vec<Excerpt>) -> Vec<TensorExcerpt> {
    let wire = |excerpt: Excerpt| TensorExcerpt {
        name: excerpt.name,
        datatype: excerpt.datatype,
        shape: excerpt.shape,
        values: excerpt.values,
        cut: excerpt.cut,
    };
    excerpts.into_iter().map(wire).collect()
}
