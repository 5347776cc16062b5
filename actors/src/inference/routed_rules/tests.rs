//! Rules come before weights, in order; shadows pick by decision.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use http::{HeaderMap, HeaderName};
use starling_proto::inference::InferParameter;
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_raft::state::routes::rules::{Attribute, Condition, Rule, Test};
use starling_raft::state::routes::shadows::{Agreement, Comparison, Shadow};
use starling_raft::state::{NodeId, PartsPerMillion, VersionRef};

use super::super::Parameters;
use super::super::decision_ids::DecisionIds;
use super::super::router::{RouteRequest, Routed, route};
use super::super::routing_table::RoutingTable;
use super::super::test_states::TestState;
use super::*;

fn ppm(number: u32) -> PartsPerMillion {
    PartsPerMillion::new(number).unwrap()
}

fn tier(text: &str) -> Condition {
    Condition { attribute: Attribute::Parameter("tier".into()), test: Test::Equals(text.into()) }
}

fn country(texts: &[&str]) -> Condition {
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    Condition { attribute: Attribute::Metadata("x-country".into()), test: Test::In(texts) }
}

fn rule(name: &str, when: Vec<Condition>, portion: u32, version: &str) -> Rule<VersionRef> {
    Rule { name: name.parse().unwrap(), when, portion: ppm(portion), version: version.parse().unwrap() }
}

fn shadow(version: &str, when: Vec<Condition>, portion: u32) -> Shadow<VersionRef> {
    let comparison = Comparison { outputs: Vec::new(), others: Agreement::Exact };
    Shadow { version: version.parse().unwrap(), portion: ppm(portion), when, comparison }
}

/// Three ready versions; everybody gets the first.
fn cluster() -> TestState {
    let mut cluster = TestState::default();
    for _ in 0..3 {
        let ordinal = cluster.register("digits");
        cluster.ready("digits", ordinal);
    }
    cluster.route("digits", &[("v1", 1_000_000)]);
    cluster
}

fn table_of(cluster: &TestState) -> RoutingTable {
    RoutingTable::default().updated(&cluster.state).unwrap()
}

/// What a request says of itself.
#[derive(Default)]
struct Says {
    parameters: Parameters,
    metadata: HeaderMap,
}

impl Says {
    fn tier(tier: &str) -> Self {
        let choice = ParameterChoice::StringParam(tier.to_owned());
        let parameter = InferParameter { parameter_choice: Some(choice) };
        Self { parameters: [("tier".to_owned(), parameter)].into(), ..Self::default() }
    }

    fn country(mut self, country: &str) -> Self {
        self.metadata.insert(HeaderName::from_static("x-country"), country.parse().unwrap());
        self
    }

    fn attributes(&self) -> Attributes<'_> {
        Attributes { parameters: Some(&self.parameters), metadata: Some(&self.metadata) }
    }
}

fn routed(table: &RoutingTable, says: &Says, version: &str, key: Option<&str>) -> Routed {
    let ids = DecisionIds::new(NodeId::new(1_000), 1);
    let request = RouteRequest { model: "digits", version, key, attributes: says.attributes() };
    route(table, request, || ids.next()).unwrap()
}

fn label(routed: &Routed) -> &str {
    routed.version.version.label.as_str()
}

#[test]
fn the_first_rule_that_holds_chooses_the_version_and_is_named_by_the_decision() {
    let mut cluster = cluster();
    let rules = vec![
        rule("gold-at-home", vec![tier("gold"), country(&["de", "at"])], 1_000_000, "v3"),
        rule("gold", vec![tier("gold")], 1_000_000, "v2"),
    ];
    cluster.configure("digits", rules, vec![]);
    let table = table_of(&cluster);
    for (says, version, index) in [
        (Says::tier("gold").country("de"), "v3", Some(0)),
        (Says::tier("gold").country("fr"), "v2", Some(1)),
        (Says::tier("gold"), "v2", Some(1)),
        (Says::tier("silver").country("de"), "v1", None),
        (Says::default(), "v1", None),
    ] {
        let routed = routed(&table, &says, "", Some("ada"));
        assert_eq!((label(&routed), routed.decision.rule), (version, index));
        assert_eq!(routed.propensity, 1.0);
        assert_eq!(routed.decision.arm.is_some(), index.is_none(), "no arm is drawn where a rule decides");
        assert_eq!(routed.decision.epoch.get(), cluster.index);
    }
}

#[test]
fn a_pinned_version_comes_before_every_rule() {
    let mut cluster = cluster();
    cluster.configure("digits", vec![rule("everybody", vec![], 1_000_000, "v2")], vec![]);
    let table = table_of(&cluster);
    let pinned = routed(&table, &Says::default(), "v3", Some("ada"));
    assert_eq!((label(&pinned), pinned.decision.rule), ("v3", None));
    assert_eq!(label(&routed(&table, &Says::default(), "", Some("ada"))), "v2");
}

#[test]
fn a_portion_of_a_segment_is_drawn_by_key_and_stays_as_the_portion_grows() {
    let keys: Vec<String> = (0..20_000).map(|number| format!("user-{number}")).collect();
    let taken = |portion: u32| -> Vec<bool> {
        let mut cluster = cluster();
        cluster.configure("digits", vec![rule("gold", vec![tier("gold")], portion, "v2")], vec![]);
        let table = table_of(&cluster);
        let says = Says::tier("gold");
        keys.iter().map(|key| label(&routed(&table, &says, "", Some(key))) == "v2").collect()
    };
    let (tenth, third) = (taken(100_000), taken(333_333));
    let count = |taken: &[bool]| taken.iter().filter(|taken| **taken).count();
    assert!((1_850..=2_150).contains(&count(&tenth)), "{} of 20000", count(&tenth));
    assert!((6_400..=6_930).contains(&count(&third)), "{} of 20000", count(&third));
    assert!(tenth.iter().zip(&third).all(|(small, large)| !small || *large), "a ramp nests");
    assert_eq!(count(&taken(0)), 0);
    assert_eq!(count(&taken(1_000_000)), keys.len());
}

#[test]
fn the_draws_of_two_rules_are_independent_and_do_not_depend_on_their_order() {
    let mut cluster = cluster();
    let (first, second) = (rule("one", vec![], 500_000, "v2"), rule("two", vec![], 500_000, "v3"));
    cluster.configure("digits", vec![first.clone(), second.clone()], vec![]);
    let forwards = table_of(&cluster);
    cluster.configure("digits", vec![second, first], vec![]);
    let backwards = table_of(&cluster);
    let (mut counts, mut agreed) = ([0_u32; 4], 0);
    for number in 0..20_000 {
        let key = format!("user-{number}");
        let ahead = routed(&forwards, &Says::default(), "", Some(&key));
        let back = routed(&backwards, &Says::default(), "", Some(&key));
        let place = ["v1", "v2", "v3"].iter().position(|one| *one == label(&ahead)).unwrap();
        counts[place] += 1;
        // Who is taken by neither is taken by neither in any order.
        assert_eq!(label(&ahead) == "v1", label(&back) == "v1");
        agreed += u32::from(label(&ahead) == label(&back));
    }
    assert!((4_750..=5_250).contains(&counts[0]), "neither: {counts:?}");
    assert!((9_700..=10_300).contains(&counts[1]), "the first: {counts:?}");
    assert!((14_700..=15_300).contains(&agreed), "both take a quarter: {agreed}");
}

#[test]
fn requests_without_a_key_are_drawn_for_each_decision() {
    let mut cluster = cluster();
    cluster.configure("digits", vec![rule("some", vec![], 250_000, "v2")], vec![]);
    let table = table_of(&cluster);
    let ids = DecisionIds::new(NodeId::new(1_000), 1);
    let mut taken = 0;
    for _ in 0..10_000 {
        let request =
            RouteRequest { model: "digits", version: "", key: None, attributes: Attributes::default() };
        let routed = route(&table, request, || ids.next()).unwrap();
        assert!(!routed.sticky);
        taken += u32::from(label(&routed) == "v2");
    }
    assert!((2_300..=2_700).contains(&taken), "{taken} of 10000");
}

#[test]
fn a_shadow_picks_by_condition_and_by_decision_not_by_key() {
    let mut cluster = cluster();
    let shadows = vec![shadow("v3", vec![tier("gold")], 500_000), shadow("v2", vec![], 1_000_000)];
    cluster.configure("digits", vec![], shadows);
    let table = table_of(&cluster);
    let model = table.model("digits").unwrap();
    let labels: Vec<&str> =
        model.shadows.iter().map(|shadow| shadow.version.version.label.as_str()).collect();
    assert_eq!(labels, ["v2", "v3"]);
    let (gold, silver) = (Says::tier("gold"), Says::tier("silver"));
    let ids = DecisionIds::new(NodeId::new(1_000), 1);
    let mut picked = 0;
    for _ in 0..10_000 {
        let request =
            RouteRequest { model: "digits", version: "", key: Some("ada"), attributes: gold.attributes() };
        let decision = route(&table, request, || ids.next()).unwrap().decision;
        assert!(model.shadows[0].picks(silver.attributes(), &decision));
        assert!(!model.shadows[1].picks(silver.attributes(), &decision));
        picked += u32::from(model.shadows[1].picks(gold.attributes(), &decision));
    }
    assert!((4_800..=5_200).contains(&picked), "{picked} of 10000");
}

#[test]
fn a_change_of_weights_takes_over_what_was_compiled() {
    let mut cluster = cluster();
    let pattern =
        Condition { attribute: Attribute::Parameter("tier".into()), test: Test::Matches("^go".into()) };
    let shadows = vec![shadow("v3", vec![tier("gold")], 1_000_000)];
    cluster.configure("digits", vec![rule("gold", vec![pattern], 1_000_000, "v2")], shadows);
    let before = table_of(&cluster);
    cluster.route("digits", &[("v1", 500_000), ("v2", 500_000)]);
    let after = before.updated(&cluster.state).unwrap();
    let (before, after) = (before.model("digits").unwrap(), after.model("digits").unwrap());
    assert!(!Arc::ptr_eq(before, after));
    assert!(Arc::ptr_eq(&before.rules[0].conditions, &after.rules[0].conditions));
    assert!(Arc::ptr_eq(&before.shadows[0].conditions, &after.shadows[0].conditions));
    assert_eq!(after.rules[0].version.propensity, 0.5);
}

#[test]
fn versions_that_only_a_rule_names_must_be_there_as_well() {
    let mut cluster = cluster();
    cluster.configure(
        "digits",
        vec![rule("gold", vec![tier("gold")], 1_000_000, "v2")],
        vec![shadow("v3", vec![], 1_000_000)],
    );
    let table = table_of(&cluster);
    let named: Vec<u64> =
        table.model("digits").unwrap().versions_in_route().map(|version| version.id.ordinal.get()).collect();
    assert_eq!(named, [1, 2]);
}
