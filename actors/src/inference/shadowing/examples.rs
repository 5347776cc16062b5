//! Requests whose shadow did not agree, kept in memory for people to read: of
//! each shadow the newest so many, and of each tensor the beginning only.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use starling_proto::inference::{ModelInferRequest, ModelInferResponse};
use starling_raft::state::decision::Decision;

use super::comparison::OutputVerdict;
use super::tensors::{Tensor, inputs, outputs};
use crate::inference::routing_table::{RoutedVersion, VersionId};
use crate::inference::tensor::elements::{Elements, show};

/// Shadows of which examples are kept; of those that come later, none.
const SHADOWS_MAX: usize = 256;
/// Once a shadow has as many examples as it may have, another one takes the place
/// of the oldest no sooner than this: a shadow that never agrees costs little.
const REPLACE_INTERVAL: Duration = Duration::from_millis(100);
/// Tensors of a request or an answer.
const TENSORS_MAX: usize = 8;
/// Elements of a tensor.
const VALUES_MAX: usize = 32;
/// Text of the elements of a tensor, in bytes.
const VALUE_BYTES_MAX: usize = 512;
/// Outputs whose difference is told.
const DIFFERENCES_MAX: usize = 16;
const DIMENSIONS_MAX: usize = 16;
const NAME_BYTES_MAX: usize = 128;
const REQUEST_ID_BYTES_MAX: usize = 256;

/// The beginning of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// Its name.
    pub name: String,
    /// As the message said it.
    pub datatype: String,
    /// At most 16 dimensions.
    pub shape: Vec<i64>,
    /// Of the first elements, as text.
    pub values: Vec<String>,
    /// There are more elements than these.
    pub cut: bool,
}

/// One request whose shadow did not agree.
#[derive(Debug, Clone)]
pub struct ShadowExample {
    /// What routed the request.
    pub decision: Decision,
    /// The client's own id; empty if it gave none.
    pub request_id: String,
    /// Who answered.
    pub live: Arc<RoutedVersion>,
    /// Who did not agree.
    pub shadow: Arc<RoutedVersion>,
    /// Microseconds since 1970, by this node's clock.
    pub compared_unix_micros: u64,
    /// Outputs that differ, and how.
    pub differences: Vec<OutputVerdict>,
    /// Of the request.
    pub inputs: Vec<Excerpt>,
    /// Of the live answer.
    pub live_outputs: Vec<Excerpt>,
    /// Of the shadow's.
    pub shadow_outputs: Vec<Excerpt>,
}

/// A request, both answers to it, and how they differ.
pub(super) struct Disagreement<'a> {
    pub decision: Decision,
    pub request: &'a ModelInferRequest,
    pub live: &'a Arc<RoutedVersion>,
    pub live_answer: &'a ModelInferResponse,
    pub shadow: &'a Arc<RoutedVersion>,
    pub shadow_answer: &'a ModelInferResponse,
    pub verdicts: &'a [OutputVerdict],
}

/// The examples of this node.
pub struct ShadowExamples {
    max_each: usize,
    by_shadow: Mutex<HashMap<VersionId, Kept>>,
}

#[derive(Default)]
struct Kept {
    /// The newest last.
    examples: VecDeque<ShadowExample>,
    newest_at: Option<Instant>,
}

impl ShadowExamples {
    /// Keeps so many of each shadow; 0: none.
    pub fn new(max_each: usize) -> Self {
        Self { max_each, by_shadow: Mutex::default() }
    }

    /// Keeps one, if it is its turn.
    pub(super) fn keep(&self, disagreement: &Disagreement<'_>, now: Instant) {
        let shadow = disagreement.shadow.id;
        if !self.wants(shadow, now) {
            return;
        }
        let example = example_of(disagreement);
        let mut by_shadow = self.lock();
        let kept = by_shadow.entry(shadow).or_default();
        kept.newest_at = Some(now);
        kept.examples.push_back(example);
        while kept.examples.len() > self.max_each {
            kept.examples.pop_front();
        }
    }

    fn wants(&self, shadow: VersionId, now: Instant) -> bool {
        if self.max_each == 0 {
            return false;
        }
        let by_shadow = self.lock();
        let Some(kept) = by_shadow.get(&shadow) else { return by_shadow.len() < SHADOWS_MAX };
        let rested =
            kept.newest_at.is_none_or(|newest| now.saturating_duration_since(newest) >= REPLACE_INTERVAL);
        kept.examples.len() < self.max_each || rested
    }

    /// Those of the shadows that `wanted` picks, newest first, `limit` at most.
    pub fn newest(&self, wanted: impl Fn(&RoutedVersion) -> bool, limit: usize) -> Vec<ShadowExample> {
        let by_shadow = self.lock();
        let all = by_shadow.values().flat_map(|kept| &kept.examples);
        let mut found: Vec<ShadowExample> = all.filter(|example| wanted(&example.shadow)).cloned().collect();
        drop(by_shadow);
        found.sort_by_key(|example| std::cmp::Reverse(example.compared_unix_micros));
        found.truncate(limit);
        found
    }

    /// Forgets versions that are gone.
    pub(super) fn retain(&self, exists: impl Fn(VersionId) -> bool) {
        self.lock().retain(|shadow, _| exists(*shadow));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<VersionId, Kept>> {
        self.by_shadow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn example_of(disagreement: &Disagreement<'_>) -> ShadowExample {
    let differing = disagreement.verdicts.iter().filter(|verdict| verdict.difference.is_some());
    let of = |tensors: Vec<(&str, Tensor<'_>)>| -> Vec<Excerpt> {
        tensors.iter().take(TENSORS_MAX).map(|(name, tensor)| excerpt(name, tensor)).collect()
    };
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ShadowExample {
        decision: disagreement.decision,
        request_id: cut(&disagreement.request.id, REQUEST_ID_BYTES_MAX),
        live: Arc::clone(disagreement.live),
        shadow: Arc::clone(disagreement.shadow),
        compared_unix_micros: u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX),
        differences: differing.take(DIFFERENCES_MAX).cloned().collect(),
        inputs: of(inputs(disagreement.request)),
        live_outputs: of(outputs(disagreement.live_answer).into_iter().collect()),
        shadow_outputs: of(outputs(disagreement.shadow_answer).into_iter().collect()),
    }
}

fn excerpt(name: &str, tensor: &Tensor<'_>) -> Excerpt {
    let (mut values, mut bytes, mut count) = (Vec::new(), 0, 0);
    if let (Some(data_type), Some(raw)) = (tensor.data_type(), &tensor.raw) {
        let elements = Elements::of(data_type, raw);
        count = elements.len();
        for element in elements.iter().take(VALUES_MAX) {
            let value = show(data_type, element);
            bytes += value.len();
            if bytes > VALUE_BYTES_MAX {
                break;
            }
            values.push(value);
        }
    }
    Excerpt {
        name: cut(name, NAME_BYTES_MAX),
        datatype: cut(tensor.datatype, NAME_BYTES_MAX),
        shape: tensor.shape.iter().copied().take(DIMENSIONS_MAX).collect(),
        cut: values.len() < count,
        values,
    }
}

fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use starling_proto::inference::model_infer_response::InferOutputTensor;
    use starling_raft::state::NodeId;

    use super::*;
    use crate::inference::decision_ids::DecisionIds;
    use crate::inference::router::{RouteRequest, Routed, route};
    use crate::inference::routing_table::RoutingTable;
    use crate::inference::rule_matching::Attributes;
    use crate::inference::shadowing::comparison::Difference;
    use crate::inference::test_states::TestState;
    use crate::inference::testing::{fp32_bytes, raw_request};

    fn routed() -> Routed {
        let mut cluster = TestState::default();
        let first = cluster.register("digits");
        cluster.ready("digits", first);
        let table = RoutingTable::default().updated(&cluster.state).unwrap();
        let ids = DecisionIds::new(NodeId::new(1), 1);
        let asked =
            RouteRequest { model: "digits", version: "", key: None, attributes: Attributes::default() };
        route(&table, asked, || ids.next()).unwrap()
    }

    fn answer(values: &[f32]) -> ModelInferResponse {
        let output = InferOutputTensor {
            name: "y".into(),
            datatype: "FP32".into(),
            shape: vec![values.len() as i64],
            ..InferOutputTensor::default()
        };
        ModelInferResponse {
            outputs: vec![output],
            raw_output_contents: vec![fp32_bytes(values).into()],
            ..ModelInferResponse::default()
        }
    }

    fn keep(examples: &ShadowExamples, routed: &Routed, id: &str, now: Instant) {
        let request = ModelInferRequest {
            id: id.to_owned(),
            ..raw_request("x", "FP32", &[100], fp32_bytes(&[0.5; 100]))
        };
        let verdicts = [
            OutputVerdict { output: "same".into(), difference: None },
            OutputVerdict { output: "y".into(), difference: Some(Difference::Missing) },
        ];
        examples.keep(
            &Disagreement {
                decision: routed.decision,
                request: &request,
                live: &routed.version,
                live_answer: &answer(&[1.0, 2.0]),
                shadow: &routed.version,
                shadow_answer: &answer(&[1.0, 3.0]),
                verdicts: &verdicts,
            },
            now,
        );
    }

    #[test]
    fn an_example_says_what_differs_and_shows_the_beginning_of_each_tensor() {
        let (examples, routed) = (ShadowExamples::new(2), routed());
        keep(&examples, &routed, "mine", Instant::now());
        let found = examples.newest(|_| true, 10);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].request_id.as_str(), found[0].decision), ("mine", routed.decision));
        assert_eq!(found[0].differences.len(), 1);
        assert_eq!(found[0].live_outputs[0].values, ["1", "2"]);
        assert_eq!(found[0].shadow_outputs[0].values, ["1", "3"]);
        assert!(!found[0].shadow_outputs[0].cut);
        let input = &found[0].inputs[0];
        assert_eq!((input.values.len(), input.cut, input.shape.as_slice()), (VALUES_MAX, true, &[100][..]));
    }

    #[test]
    fn the_newest_are_kept_and_a_full_shadow_changes_slowly() {
        let (examples, routed) = (ShadowExamples::new(2), routed());
        let begin = Instant::now();
        for (id, millis) in [("1", 0), ("2", 1), ("3", 2), ("4", 200), ("5", 201)] {
            keep(&examples, &routed, id, begin + Duration::from_millis(millis));
        }
        let mut ids: Vec<String> =
            examples.newest(|_| true, 10).into_iter().map(|example| example.request_id).collect();
        ids.sort();
        assert_eq!(ids, ["2", "4"]);
        assert_eq!(examples.newest(|_| true, 1).len(), 1);
        assert_eq!(examples.newest(|_| false, 10).len(), 0);
        examples.retain(|_| false);
        assert_eq!(examples.newest(|_| true, 10).len(), 0);
    }

    #[test]
    fn none_are_kept_where_none_are_wanted() {
        let (examples, routed) = (ShadowExamples::new(0), routed());
        keep(&examples, &routed, "1", Instant::now());
        assert_eq!(examples.newest(|_| true, 10).len(), 0);
    }
}
