//! What was decided for each request, and what the request said about itself
//! before a model saw it (its parameters): kept in memory, the newest so many on
//! each node, for whoever asks. Later the lake takes the same records.
//!
//! On the way of a request this is one short lock of a part of the ring that
//! belongs to the thread alone, and the copies that the record itself needs.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use starling_proto::inference::ModelInferRequest;
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_raft::state::decision::Decision;
use starling_raft::state::{NodeId, Principal};

use super::InferError;
use super::decision_parameters::{Parameters, text_parameter};
use super::request_metrics::code_of;
use super::router::Routed;
use super::routing_table::RoutedVersion;
use super::serve::RequestContext;

/// Threads beyond this many share parts of the ring.
const PARTS_MAX: usize = 16;
/// Longest request id that is kept; a longer one is cut.
const REQUEST_ID_BYTES_MAX: usize = 256;
/// What speaks to the server and says nothing about the case.
const WORDS_OF_THE_PROTOCOL: [&str; 6] =
    ["routing_key", "starling_quiet", "binary_data_output", "sequence_id", "sequence_start", "sequence_end"];
const OUTCOME_ANSWERED: &str = "OK";

/// Bounds of what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordLimits {
    /// Records on this node; 0: none are made.
    pub records: usize,
    /// Parameters of one request; further ones are left out.
    pub parameters_max: usize,
    /// Bytes of their names and values together; what would pass it is left out.
    pub parameter_bytes_max: usize,
}

impl Default for RecordLimits {
    fn default() -> Self {
        Self { records: 4_096, parameters_max: 16, parameter_bytes_max: 1_024 }
    }
}

/// Where the routing key of a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySource {
    /// It had none.
    Absent,
    /// `x-starling-key`.
    Header,
    /// The request parameter `routing_key`.
    Parameter,
}

/// One request that was routed, and what came of it.
#[derive(Debug, Clone)]
pub struct DecisionRecord {
    /// Its id says node, model, epoch and buckets.
    pub decision: Decision,
    /// The version that was chosen.
    pub version: Arc<RoutedVersion>,
    /// The client's own id; empty if it gave none.
    pub request_id: String,
    /// Who asked.
    pub principal: Principal,
    /// The key itself may name a person, so only where it came from is kept.
    pub key: KeySource,
    /// Pre-inference variables, as the request gave them; in order of name.
    pub parameters: Vec<(String, ParameterChoice)>,
    /// Parameters that the bounds left out.
    pub parameters_left_out: u32,
    /// Microseconds since 1970, by this node's clock.
    pub arrived_unix_micros: u64,
    /// From then to the answer.
    pub latency: Duration,
    /// `OK`, or the status code; `CANCELLED` if the caller went away.
    pub outcome: &'static str,
    /// Who ran it; absent without an answer.
    pub answered_by: Option<NodeId>,
}

/// Takes records. Called on the way of a request: it must not wait.
pub trait DecisionSink: Send + Sync {
    /// Takes one over.
    fn take(&self, record: DecisionRecord);
}

/// Makes a record of each request that was routed.
pub struct DecisionRecorder {
    limits: RecordLimits,
    sink: Arc<dyn DecisionSink>,
}

impl DecisionRecorder {
    /// Gives what it makes to `sink`.
    pub fn new(limits: RecordLimits, sink: Arc<dyn DecisionSink>) -> Self {
        Self { limits, sink }
    }

    /// Keeps of the request what the record needs; absent where records are
    /// switched off. Dropped before it is finished, it says cancelled.
    pub(super) fn begin<'a>(
        &'a self,
        request: &ModelInferRequest,
        context: &'a RequestContext<'_>,
        routed: &'a Routed,
    ) -> Option<PendingRecord<'a>> {
        if self.limits.records == 0 {
            return None;
        }
        let key = match &context.routing_key {
            Some(_) => KeySource::Header,
            None if text_parameter(&request.parameters, "routing_key").is_some() => KeySource::Parameter,
            None => KeySource::Absent,
        };
        let (parameters, left_out) = within_bounds(&request.parameters, &self.limits);
        Some(PendingRecord {
            sink: &*self.sink,
            principal: &context.principal,
            routed,
            arrived: context.arrived,
            request_id: cut(&request.id).to_owned(),
            key,
            parameters,
            left_out,
            outcome: None,
        })
    }
}

fn within_bounds(parameters: &Parameters, limits: &RecordLimits) -> (Vec<(String, ParameterChoice)>, u32) {
    if parameters.is_empty() {
        return (Vec::new(), 0);
    }
    let choice_of = |(name, parameter): (&'_ String, &'_ starling_proto::inference::InferParameter)| {
        let choice = parameter.parameter_choice.as_ref()?;
        (!WORDS_OF_THE_PROTOCOL.contains(&name.as_str())).then(|| (name.clone(), choice.clone()))
    };
    // Which of too many are kept must not depend on the order of a hash map.
    let mut names: Vec<&String> = parameters.keys().collect();
    names.sort_unstable();
    let (mut kept, mut bytes, mut left_out) = (Vec::new(), 0, 0);
    for (name, choice) in names.into_iter().filter_map(|name| choice_of((name, parameters.get(name)?))) {
        let size = name.len() + value_bytes(&choice);
        if kept.len() >= limits.parameters_max || bytes + size > limits.parameter_bytes_max {
            left_out += 1;
            continue;
        }
        bytes += size;
        kept.push((name, choice));
    }
    (kept, left_out)
}

fn value_bytes(choice: &ParameterChoice) -> usize {
    match choice {
        ParameterChoice::StringParam(text) => text.len(),
        _ => size_of::<u64>(),
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(REQUEST_ID_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A request that was routed and has not ended yet.
pub(super) struct PendingRecord<'a> {
    sink: &'a dyn DecisionSink,
    principal: &'a Principal,
    routed: &'a Routed,
    arrived: Instant,
    request_id: String,
    key: KeySource,
    parameters: Vec<(String, ParameterChoice)>,
    left_out: u32,
    outcome: Option<(&'static str, Option<NodeId>)>,
}

impl PendingRecord<'_> {
    /// Says what came of it, if there is one.
    pub(super) fn finish(record: Option<Self>, answer: Result<NodeId, &InferError>) {
        let Some(mut record) = record else { return };
        record.outcome = Some(match answer {
            Ok(answered_by) => (OUTCOME_ANSWERED, Some(answered_by)),
            Err(error) => (code_of(error), None),
        });
    }
}

impl Drop for PendingRecord<'_> {
    fn drop(&mut self) {
        let latency = self.arrived.elapsed();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let arrived_unix = now.saturating_sub(latency).as_micros();
        let (outcome, answered_by) = self.outcome.unwrap_or_else(|| (code_of(&InferError::Cancelled), None));
        self.sink.take(DecisionRecord {
            decision: self.routed.decision,
            version: Arc::clone(&self.routed.version),
            request_id: std::mem::take(&mut self.request_id),
            principal: self.principal.clone(),
            key: self.key,
            parameters: std::mem::take(&mut self.parameters),
            parameters_left_out: self.left_out,
            arrived_unix_micros: u64::try_from(arrived_unix).unwrap_or(u64::MAX),
            latency,
            outcome,
            answered_by,
        });
    }
}

/// The newest records of this node. Each thread writes to a part of its own.
pub struct DecisionRing {
    parts: Vec<Mutex<VecDeque<DecisionRecord>>>,
    records_per_part: usize,
}

/// Which records are wanted.
#[derive(Debug, Clone, Default)]
pub struct RecordFilter {
    /// Of this model; empty: of any.
    pub model: String,
    /// Only this one.
    pub decision: Option<Decision>,
    /// The newest so many.
    pub limit: usize,
}

impl DecisionRing {
    /// For so many records, shared out to the parts of so many threads.
    pub fn new(records: usize, threads: usize) -> Self {
        let parts = threads.clamp(1, PARTS_MAX);
        Self {
            parts: (0..parts).map(|_| Mutex::default()).collect(),
            records_per_part: records.div_ceil(parts),
        }
    }

    /// The newest that fit, newest first.
    pub fn newest(&self, filter: &RecordFilter) -> Vec<DecisionRecord> {
        let is_wanted = |record: &&DecisionRecord| {
            (filter.model.is_empty() || record.version.key.model.as_str() == filter.model)
                && filter.decision.is_none_or(|decision| record.decision == decision)
        };
        let mut found = Vec::new();
        for part in &self.parts {
            found.extend(locked(part).iter().rev().filter(is_wanted).take(filter.limit).cloned());
        }
        found.sort_by_key(|record| std::cmp::Reverse(record.arrived_unix_micros));
        found.truncate(filter.limit);
        found
    }
}

impl DecisionSink for DecisionRing {
    fn take(&self, record: DecisionRecord) {
        let Some(part) = self.parts.get(number_of_this_thread() % self.parts.len()) else { return };
        let oldest = {
            let mut part = locked(part);
            let oldest = if part.len() >= self.records_per_part { part.pop_front() } else { None };
            part.push_back(record);
            oldest
        };
        // Freed without the lock.
        drop(oldest);
    }
}

fn locked(part: &Mutex<VecDeque<DecisionRecord>>) -> MutexGuard<'_, VecDeque<DecisionRecord>> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

fn number_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    }
    NUMBER.with(|number| {
        number.get().unwrap_or_else(|| {
            let new = NEXT.fetch_add(1, Ordering::Relaxed);
            number.set(Some(new));
            new
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use starling_proto::inference::InferParameter;

    use super::*;
    use crate::inference::decision_ids::DecisionIds;
    use crate::inference::router::{RouteRequest, route};
    use crate::inference::routing_table::RoutingTable;
    use crate::inference::rule_matching::Attributes;
    use crate::inference::test_states::TestState;

    const ANSWERED_BY: NodeId = NodeId::new(1_004);

    struct Scene {
        table: RoutingTable,
        ids: DecisionIds,
        ring: Arc<DecisionRing>,
        recorder: DecisionRecorder,
        context: RequestContext<'static>,
    }

    fn scene(limits: RecordLimits) -> Scene {
        let mut cluster = TestState::default();
        for model in ["digits", "letters"] {
            let first = cluster.register(model);
            cluster.ready(model, first);
        }
        let ring = Arc::new(DecisionRing::new(limits.records, 1));
        Scene {
            table: RoutingTable::default().updated(&cluster.state).unwrap(),
            ids: DecisionIds::new(NodeId::new(1_000), 1),
            recorder: DecisionRecorder::new(limits, Arc::clone(&ring) as Arc<dyn DecisionSink>),
            ring,
            context: RequestContext {
                principal: Principal::named("ada"),
                deadline: None,
                routing_key: None,
                min_epoch: None,
                quiet: false,
                arrived: Instant::now(),
                metadata: None,
            },
        }
    }

    fn request(model: &str, parameters: &[(&str, ParameterChoice)]) -> ModelInferRequest {
        let parameters = parameters.iter().map(|(name, choice)| {
            ((*name).to_owned(), InferParameter { parameter_choice: Some(choice.clone()) })
        });
        ModelInferRequest {
            model_name: model.to_owned(),
            id: "req-1".to_owned(),
            parameters: parameters.collect(),
            ..ModelInferRequest::default()
        }
    }

    fn text(text: &str) -> ParameterChoice {
        ParameterChoice::StringParam(text.to_owned())
    }

    impl Scene {
        fn routed(&self, model: &str) -> Routed {
            let attributes = Attributes::default();
            let asked = RouteRequest { model, version: "", key: None, attributes };
            route(&self.table, asked, || self.ids.next()).unwrap()
        }

        fn run(&self, request: &ModelInferRequest, answer: Result<(), InferError>) -> Decision {
            let routed = self.routed(&request.model_name);
            let pending = self.recorder.begin(request, &self.context, &routed);
            if let Some(pending) = pending {
                PendingRecord::finish(Some(pending), answer.as_ref().map(|()| ANSWERED_BY));
            }
            routed.decision
        }

        fn newest(&self, limit: usize) -> Vec<DecisionRecord> {
            self.ring.newest(&RecordFilter { limit, ..RecordFilter::default() })
        }
    }

    #[test]
    fn a_record_says_what_was_asked_decided_and_answered() {
        let mut scene = scene(RecordLimits::default());
        scene.context.routing_key = Some("a person".to_owned());
        let parameters = [
            ("amount", ParameterChoice::DoubleParam(12.5)),
            ("channel", text("web")),
            ("is_new", ParameterChoice::BoolParam(true)),
            ("routing_key", text("another person")),
            ("visits", ParameterChoice::Uint64Param(7)),
        ];
        let decision = scene.run(&request("digits", &parameters), Ok(()));
        let records = scene.newest(9);
        assert_eq!(records.len(), 1);
        let record = &records[0];
        assert_eq!((record.decision, record.outcome), (decision, "OK"));
        assert_eq!(record.version.version.label.to_string(), "v1");
        assert_eq!(record.version.key.model.as_str(), "digits");
        assert_eq!((record.request_id.as_str(), record.principal.as_str()), ("req-1", "ada"));
        assert_eq!((record.key, record.answered_by), (KeySource::Header, Some(ANSWERED_BY)));
        let said: Vec<(&str, &ParameterChoice)> =
            record.parameters.iter().map(|(name, choice)| (name.as_str(), choice)).collect();
        assert_eq!(
            said,
            [
                ("amount", &ParameterChoice::DoubleParam(12.5)),
                ("channel", &text("web")),
                ("is_new", &ParameterChoice::BoolParam(true)),
                ("visits", &ParameterChoice::Uint64Param(7)),
            ]
        );
        assert!(record.arrived_unix_micros > 1_700_000_000_000_000);
    }

    #[test]
    fn a_failure_and_a_caller_that_went_away_are_recorded_as_such() {
        let scene = scene(RecordLimits::default());
        scene.run(&request("digits", &[]), Err(InferError::Internal("no".to_owned())));
        let routed = scene.routed("digits");
        drop(scene.recorder.begin(&request("digits", &[]), &scene.context, &routed));
        let outcomes: Vec<&str> = scene.newest(9).iter().map(|record| record.outcome).collect();
        assert!(outcomes.contains(&"INTERNAL") && outcomes.contains(&"CANCELLED"), "{outcomes:?}");
        assert!(scene.newest(9).iter().all(|record| record.answered_by.is_none()));
    }

    #[test]
    fn parameters_are_bounded_in_number_and_bytes_and_what_is_left_out_is_counted() {
        let limits = RecordLimits { records: 8, parameters_max: 2, parameter_bytes_max: 20 };
        let scene = scene(limits);
        let parameters = [("a", text(&"x".repeat(30))), ("b", text("1")), ("c", text("2")), ("d", text("3"))];
        scene.run(&request("digits", &parameters), Ok(()));
        let record = scene.newest(1).remove(0);
        let names: Vec<&str> = record.parameters.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, record.parameters_left_out), (vec!["b", "c"], 2));

        let mut long = request("digits", &[]);
        long.id = "ß".repeat(300);
        scene.run(&long, Ok(()));
        assert!(scene.newest(9).iter().any(|record| record.request_id == "ß".repeat(128)));
    }

    #[test]
    fn the_newest_are_kept_and_found_by_model_and_decision() {
        let scene = scene(RecordLimits { records: 3, ..RecordLimits::default() });
        let oldest = scene.run(&request("digits", &[]), Ok(()));
        let second = scene.run(&request("letters", &[]), Ok(()));
        scene.run(&request("digits", &[]), Ok(()));
        scene.run(&request("digits", &[]), Ok(()));
        assert_eq!(scene.newest(9).len(), 3);
        assert_eq!(scene.newest(2).len(), 2);
        let find = |model: &str, decision| {
            scene.ring.newest(&RecordFilter { model: model.to_owned(), decision, limit: 9 })
        };
        assert_eq!(find("digits", None).len(), 2);
        assert_eq!(find("", Some(second)).len(), 1);
        assert_eq!(find("digits", Some(second)).len(), 0);
        assert_eq!(find("", Some(oldest)).len(), 0);
    }

    #[test]
    fn switched_off_nothing_is_made() {
        let scene = scene(RecordLimits { records: 0, ..RecordLimits::default() });
        scene.run(&request("digits", &[]), Ok(()));
        assert_eq!(scene.newest(9).len(), 0);
    }

    #[test]
    fn threads_write_side_by_side_and_nothing_is_lost() {
        let scene = scene(RecordLimits::default());
        let ring = DecisionRing::new(4_000, 4);
        let record = {
            scene.run(&request("digits", &[]), Ok(()));
            scene.newest(1).remove(0)
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| ring.take(record.clone())));
            }
        });
        assert_eq!(ring.newest(&RecordFilter { limit: 1_000, ..RecordFilter::default() }).len(), 400);
    }

    /// `cargo test --release -- --nocapture costs` prints what a record costs.
    #[test]
    fn a_record_costs_little() {
        const RECORDS: u32 = 20_000;
        let scene = scene(RecordLimits::default());
        let bare = request("digits", &[]);
        let varied =
            request("digits", &[("amount", ParameterChoice::DoubleParam(1.0)), ("channel", text("web"))]);
        let routed = scene.routed("digits");
        for (what, request) in [("bare", bare), ("with two parameters", varied)] {
            let begun = Instant::now();
            for _ in 0..RECORDS {
                let pending = scene.recorder.begin(&request, &scene.context, &routed);
                PendingRecord::finish(pending, Ok(ANSWERED_BY));
            }
            println!("a record, {what}: {:?}", begun.elapsed() / RECORDS);
        }
        assert_eq!(scene.newest(usize::MAX).len(), RecordLimits::default().records);
    }
}
