//! What it costs to choose a version: a plain route of one version against one
//! with 8 arms, 20 rules and 2 shadows whose last rule is the one that holds, or
//! none. The difference may be 2 µs (see docs/benchmarks.md).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue};
use starling_actors::inference::Parameters;
use starling_actors::inference::decision_ids::DecisionIds;
use starling_actors::inference::router::{RouteRequest, route};
use starling_actors::inference::routing_table::RoutingTable;
use starling_actors::inference::rule_matching::Attributes;
use starling_proto::inference::InferParameter;
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_raft::state::models::{DataType, TensorSpec, VersionSettings};
use starling_raft::state::routes::rules::{Attribute, Condition, Rule, Test};
use starling_raft::state::routes::shadows::{Agreement, Comparison, Shadow};
use starling_raft::state::{
    ArtefactDigest, ClusterCommand, ClusterId, Command, EntryContext, FeatureLevel, LogIndex, LogTime,
    ModelCommand, NodeId, Ordinal, PartsPerMillion, Principal, RequestId, RouteCommand, Signature, State,
    VersionRef, WallTime,
};
use uuid::Uuid;

const MODEL: &str = "digits";
const ARMS: u64 = 8;
const RULES: usize = 20;

/// A log of its own.
#[derive(Default)]
struct Log {
    state: State,
    index: u64,
}

impl Log {
    fn apply(&mut self, command: Command) {
        self.index += 1;
        let context = EntryContext {
            log_index: LogIndex::new(self.index),
            log_time: LogTime::from_micros(self.index),
            wall_time: WallTime::from_unix_micros(self.index),
            principal: Principal::local(),
            request_id: RequestId::new(Uuid::from_u128(u128::from(self.index))),
        };
        self.state.apply(&context, &command).1.unwrap();
    }

    fn with_versions(count: u64) -> Self {
        let mut log = Self::default();
        let cluster_id = ClusterId::new(Uuid::from_u128(1));
        log.apply(Command::Cluster(ClusterCommand::Found { cluster_id }));
        log.apply(Command::Cluster(ClusterCommand::RaiseFeatureLevel { level: FeatureLevel::new(4) }));
        for ordinal in 1..=count {
            log.apply(Command::Model(ModelCommand::RegisterVersion {
                model: MODEL.parse().unwrap(),
                label: None,
                digest: ArtefactDigest::new([7; 32]),
                size_bytes: 3,
                signature: signature(),
                settings: VersionSettings { instances: ordinal as u32, ..VersionSettings::default() },
            }));
            let ordinal = Ordinal::new(ordinal);
            log.apply(Command::Model(ModelCommand::MarkReady { model: MODEL.parse().unwrap(), ordinal }));
        }
        log
    }

    fn table(&self) -> RoutingTable {
        RoutingTable::default().updated(&self.state).unwrap()
    }
}

fn signature() -> Signature {
    let tensor = |name: &str| TensorSpec {
        name: name.to_owned(),
        data_type: DataType::Fp32,
        shape: vec![-1, 4],
        optional: false,
    };
    Signature { inputs: vec![tensor("x")], outputs: vec![tensor("y")], batchable: true }
}

fn version(ordinal: u64) -> VersionRef {
    VersionRef::Ordinal(Ordinal::new(ordinal))
}

/// In turn a parameter, metadata from a list, and a pattern.
fn rule(number: usize) -> Rule<VersionRef> {
    let (attribute, test) = match number % 3 {
        0 => (Attribute::Parameter("tier".into()), Test::Equals(format!("tier-{number}"))),
        1 => {
            let countries = (0..10).map(|country| format!("c{country}-{number}")).collect();
            (Attribute::Metadata("x-country".into()), Test::In(countries))
        }
        _ => (Attribute::Metadata("user-agent".into()), Test::Matches(format!("^app/{number}\\."))),
    };
    let when = vec![Condition { attribute, test }];
    let name = format!("rule-{number}").parse().unwrap();
    let version = version(number as u64 % ARMS + 1);
    Rule { name, when, portion: PartsPerMillion::new(500_000).unwrap(), version }
}

fn full() -> RoutingTable {
    let mut log = Log::with_versions(ARMS + 2);
    let weight = PartsPerMillion::new(125_000).unwrap();
    let weights = (1..=ARMS).map(|ordinal| (version(ordinal), weight)).collect();
    let model = || MODEL.parse().unwrap();
    log.apply(Command::Route(RouteCommand::Set { model: model(), weights, expected_epoch: None }));
    let shadow = |ordinal| Shadow {
        version: version(ordinal),
        portion: PartsPerMillion::new(500_000).unwrap(),
        when: vec![rule(0).when.remove(0)],
        comparison: Comparison { outputs: Vec::new(), others: Agreement::TopOne },
    };
    let (rules, shadows) =
        (Some((0..RULES).map(rule).collect()), Some(vec![shadow(ARMS + 1), shadow(ARMS + 2)]));
    log.apply(Command::Route(RouteCommand::Configure {
        model: model(),
        rules,
        shadows,
        expected_epoch: None,
    }));
    log.table()
}

/// What a client sends: some parameters and headers, among them what rules ask for.
fn said(tier: &str) -> (Parameters, HeaderMap) {
    let text =
        |text: &str| InferParameter { parameter_choice: Some(ParameterChoice::StringParam(text.to_owned())) };
    let parameters = [("tier", tier), ("channel", "web"), ("amount", "12.5")];
    let parameters = parameters.into_iter().map(|(name, value)| (name.to_owned(), text(value)));
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("user-agent", "app/101.2 (ios 17.2)"),
        ("x-country", "fr"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    (parameters.collect(), headers)
}

fn routing(criterion: &mut Criterion) {
    let plain = Log::with_versions(1).table();
    let full = full();
    let ids = DecisionIds::new(NodeId::new(1_000), 1);
    let mut group = criterion.benchmark_group("routing");
    for (name, table, tier) in [
        ("plain", &plain, "tier-none"),
        ("8-arms-20-rules-2-shadows, no rule holds", &full, "tier-none"),
        ("8-arms-20-rules-2-shadows, the 19th rule holds", &full, "tier-18"),
    ] {
        let (parameters, metadata) = said(tier);
        let attributes = Attributes { parameters: Some(&parameters), metadata: Some(&metadata) };
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                let request = RouteRequest {
                    model: black_box(MODEL),
                    version: "",
                    key: Some(black_box("user-12345")),
                    attributes,
                };
                let routed = route(table, request, || ids.next()).unwrap();
                let shadows = routed.model.shadows.iter();
                let picked = shadows.filter(|shadow| shadow.picks(attributes, &routed.decision)).count();
                black_box((routed.version.id, picked))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, routing);
criterion_main!(benches);
