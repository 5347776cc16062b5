//! Past decisions are replayed to the byte, and every step is said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;

use starling_raft::state::VersionRef;
use starling_raft::state::rollouts::spec::Strategy;
use starling_raft::state::routes::rules::{Attribute, Condition, Rule, Test};

use super::*;
use crate::inference::decision_ids::{DecisionIds, Ticket};
use crate::inference::router::{RouteRequest, route};
use crate::inference::test_states::{TestState, ab_test};

fn ppm(number: u32) -> PartsPerMillion {
    PartsPerMillion::new(number).unwrap()
}

fn rule(name: &str, when: Vec<Condition>, portion: u32, version: &str) -> Rule<VersionRef> {
    Rule { name: name.parse().unwrap(), when, portion: ppm(portion), version: version.parse().unwrap() }
}

fn with_versions(count: usize) -> TestState {
    let mut cluster = TestState::default();
    for _ in 0..count {
        let ordinal = cluster.register("digits");
        cluster.ready("digits", ordinal);
    }
    cluster.route("digits", &[("v1", 1_000_000)]);
    cluster
}

fn model(cluster: &TestState) -> Arc<RoutedModel> {
    routed_model(&cluster.state, "digits").unwrap()
}

fn says(explanation: &Explanation) -> Vec<String> {
    explanation.steps.iter().map(Step::to_string).collect()
}

/// One step of a busy history.
fn change(cluster: &mut TestState, number: u32) {
    match number % 10 {
        0 => {
            let first = 100_000 + number * 7_919 % 800_000;
            cluster.route("digits", &[("v1", first), ("v2", 1_000_000 - first)]);
        }
        1 => cluster.route("digits", &[("v2", 333_333), ("v3", 333_333), ("v4", 333_334)]),
        2 => cluster.configure(
            "digits",
            vec![rule("tenth", vec![], 100_000, "v4"), rule("third", vec![], 333_333, "v3")],
            vec![],
        ),
        3 => cluster.configure("digits", vec![], vec![]),
        4 => cluster.route("digits", &[("v1", 1_000_000)]),
        5 => {
            let arms = [("a", "v1", 400_000), ("b", "v2", 350_000), ("c", "v3", 250_000)];
            let mut spec = ab_test("digits", &arms);
            let Strategy::AbTest(experiment) = &mut spec.strategy else { panic!("an A/B test") };
            experiment.enrolment = ppm(600_000);
            cluster.start_rollout("ab", spec);
        }
        6 => cluster.configure("digits", vec![rule("some", vec![], 50_000, "v2")], vec![]),
        7 => cluster.configure("digits", vec![], vec![]),
        8 => cluster.abort_rollout("ab"),
        _ => cluster.route("digits", &[("v1", 250_000), ("v4", 750_000)]),
    }
}

/// What stays of a decision: 17 bytes and its id.
fn record(id: &str, version: Ordinal, propensity: f64, to: &mut Vec<u8>) {
    to.extend_from_slice(id.as_bytes());
    to.push(b' ');
    to.extend_from_slice(&version.get().to_le_bytes());
    to.extend_from_slice(&propensity.to_bits().to_le_bytes());
}

#[test]
fn a_million_past_decisions_are_replayed_from_their_ids_and_the_events_to_the_byte() {
    const CHANGES: u32 = 50;
    const DECISIONS_PER_EPOCH: u32 = 20_000;
    let mut cluster = with_versions(4);
    let ids = DecisionIds::new(NodeId::new(1_003), 12);
    let mut seen: Vec<u8> = Vec::new();
    let mut past: Vec<String> = Vec::new();
    for number in 0..CHANGES {
        change(&mut cluster, number);
        let table = RoutingTable::default().updated(&cluster.state).unwrap();
        for request in 0..DECISIONS_PER_EPOCH {
            // Two of three come with a key.
            let key = (request % 3 > 0).then(|| format!("user-{request}"));
            let attributes = Attributes::default();
            let asked = RouteRequest { model: "digits", version: "", key: key.as_deref(), attributes };
            let routed = route(&table, asked, || ids.next()).unwrap();
            let id = routed.decision.to_string();
            record(&id, routed.version.id.ordinal, routed.propensity, &mut seen);
            past.push(id);
        }
    }
    assert_eq!(past.len(), 1_000_000);

    // Somebody else has nothing but the events and the ids.
    let mut state = State::default();
    let mut models: HashMap<Epoch, Arc<RoutedModel>> = HashMap::new();
    for (context, event) in &cluster.events {
        state.evolve(context, event);
        if let Some(model) = routed_model(&state, "digits").filter(|model| model.route.is_some()) {
            models.insert(Epoch::new(model.epoch()), model);
        }
    }
    let mut replayed: Vec<u8> = Vec::with_capacity(seen.len());
    for id in &past {
        let decision: Decision = id.parse().unwrap();
        let (version, propensity) = replay(&models[&decision.epoch], &decision).unwrap().unwrap();
        record(id, version.id.ordinal, propensity, &mut replayed);
    }
    assert!(seen == replayed, "a decision was replayed to something else");
}

#[test]
fn every_step_of_a_decision_in_an_experiment_is_said() {
    let mut cluster = with_versions(2);
    let mut spec = ab_test("digits", &[("control", "v1", 500_000), ("treatment", "v2", 500_000)]);
    let Strategy::AbTest(experiment) = &mut spec.strategy else { panic!("an A/B test") };
    experiment.enrolment = ppm(400_000);
    cluster.start_rollout("ab", spec);
    let model = model(&cluster);
    let decision = Decision {
        node: NodeId::new(1_001),
        boot: 3,
        sequence: 42,
        model_id: model.model.id,
        epoch: Epoch::new(cluster.index),
        rule: None,
        enrolment: Bucket::new(123_456),
        arm: Bucket::new(734_211),
    };
    let explanation = explain(&model, &decision).unwrap();
    assert_eq!(
        says(&explanation),
        [
            "node 1001 decided it, as number 42 since its start number 3",
            &format!("the route of epoch {} was in force: v1=50% v2=50%", cluster.index),
            "rollout 'ab' enrols 40%: bucket 123456 of 1000000 is below 400000, so it takes part",
            "bucket 734211 of 1000000 lies in 500000..1000000, which v2 owns (arm 'treatment'); all of it is 50%",
        ]
    );
    let chosen = explanation.chosen.unwrap();
    assert_eq!((chosen.label.as_str(), chosen.propensity), ("v2", 0.2));
    assert_eq!(chosen.rollout.unwrap().as_str(), "ab");
    assert_eq!(chosen.arm.as_deref(), Some("treatment"));

    let left_out = Decision { enrolment: Bucket::new(400_000), arm: None, ..decision };
    let explanation = explain(&model, &left_out).unwrap();
    assert_eq!(
        says(&explanation)[2],
        "rollout 'ab' enrols 40%: bucket 400000 of 1000000 is not below 400000, so it gets the stable version, v1"
    );
    let chosen = explanation.chosen.unwrap();
    assert_eq!((chosen.label.as_str(), chosen.propensity, chosen.arm), ("v1", 0.6, None));
}

#[test]
fn a_pinned_version_is_said_to_be_the_requests_own() {
    let cluster = with_versions(2);
    let table = RoutingTable::default().updated(&cluster.state).unwrap();
    let asked = RouteRequest { model: "digits", version: "v2", key: None, attributes: Attributes::default() };
    let ticket = Ticket { node: NodeId::new(1_000), boot: 1, sequence: 1 };
    let pinned = route(&table, asked, || ticket).unwrap();
    let explanation = explain(table.model("digits").unwrap(), &pinned.decision).unwrap();
    assert_eq!(explanation.chosen, None);
    assert_eq!(explanation.steps[2], Step::Pinned);
}

#[test]
fn a_key_is_told_rule_by_rule_and_gets_what_its_request_would() {
    let mut cluster = with_versions(3);
    let gold =
        Condition { attribute: Attribute::Parameter("tier".into()), test: Test::Equals("gold".into()) };
    let rules = vec![
        rule("gold", vec![gold], 1_000_000, "v3"),
        rule("tenth", vec![], 100_000, "v2"),
        rule("nobody", vec![], 0, "v2"),
    ];
    cluster.configure("digits", rules, vec![]);
    let table = RoutingTable::default().updated(&cluster.state).unwrap();
    let model = table.model("digits").unwrap();
    let mut by_rule = 0;
    for number in 0..2_000 {
        let key = format!("user-{number}");
        let attributes = Attributes::default();
        let asked = RouteRequest { model: "digits", version: "", key: Some(&key), attributes };
        let ticket = Ticket { node: NodeId::new(1_000), boot: 1, sequence: 1 };
        let routed = route(&table, asked, || ticket).unwrap();
        let explanation = explain_key(model, &key, attributes).unwrap();
        let chosen = explanation.chosen.unwrap();
        assert_eq!((chosen.ordinal, chosen.propensity), (routed.version.id.ordinal, routed.propensity));
        assert_eq!(explanation.steps[1].kind(), "ruleNotMet");
        let last = explanation.steps.last().unwrap().kind();
        assert_eq!(last, if routed.decision.rule == Some(1) { "ruleTaken" } else { "arm" });
        by_rule += u32::from(last == "ruleTaken");
    }
    assert!((150..=250).contains(&by_rule), "{by_rule} of 2000");
}

#[test]
fn an_id_that_does_not_fit_is_refused_with_what_is_missing() {
    let mut cluster = with_versions(2);
    let model = model(&cluster);
    let decision = Decision {
        node: NodeId::new(1_000),
        boot: 1,
        sequence: 1,
        model_id: model.model.id,
        epoch: Epoch::new(model.epoch()),
        rule: Some(2),
        enrolment: None,
        arm: None,
    };
    let error = explain(&model, &decision).unwrap_err().to_string();
    assert!(error.contains("rule 3 was not there"), "{error}");
    let enrolled = Decision { rule: None, enrolment: Bucket::new(1), ..decision };
    assert!(explain(&model, &enrolled).unwrap_err().to_string().contains("a rollout was not there"));
    let later = Decision { epoch: Epoch::new(999), ..decision };
    assert!(matches!(explain(&model, &later), Err(NotExplained::UnknownEpoch { .. })));
    cluster.delete("digits");
    assert!(matches!(model_of(&cluster.state, &decision), Err(NotExplained::UnknownModel { .. })));
}
