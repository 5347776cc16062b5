//! Weights of a model's versions, the rules and shadows beside them, and the epoch they begin with.

use starling_raft::state::{Epoch, Event, Ordinal, Rejection, RouteEvent};

use starling_raft::state::FeatureLevel;

use crate::log::{
    Log, configure_route, delete_version, join, label, model, ppm, raise, register, rule, set_route,
    set_route_at, shadow,
};

fn with_two_ready() -> Log {
    let mut log = Log::founded();
    log.push_ready("digits", "v1", 1);
    log.push_ready("digits", "v2", 2);
    log
}

#[test]
fn a_route_gets_the_index_of_its_entry_as_epoch_and_its_weights_in_order_without_zeroes() {
    let mut log = with_two_ready();
    log.accept(register("digits", "v3", 3));
    let events = log.accept(set_route("digits", &[("v2", 900_000), ("1", 100_000), ("v3", 0)]));
    let weights = vec![(Ordinal::new(1), ppm(100_000)), (Ordinal::new(2), ppm(900_000))];
    let set = RouteEvent::RouteSet { model: model("digits"), weights: weights.clone() };
    assert_eq!(events, [Event::Route(set)]);
    let route = log.state.routes.get("digits").unwrap();
    assert_eq!((route.epoch, route.weights.clone()), (Epoch::new(log.index), weights));
    assert!(route.names(Ordinal::new(2)));
    assert!(!route.names(Ordinal::new(3)));
}

#[test]
fn setting_the_same_weights_again_keeps_the_epoch() {
    let mut log = with_two_ready();
    log.accept(set_route("digits", &[("v1", 500_000), ("v2", 500_000)]));
    let epoch = log.state.routes.get("digits").unwrap().epoch;
    assert_eq!(log.find_unchanged(set_route("digits", &[("v2", 500_000), ("1", 500_000)])), None);
    assert_eq!(log.state.routes.get("digits").unwrap().epoch, epoch);
}

#[test]
fn what_is_wrong_with_weights_is_said() {
    let mut log = with_two_ready();
    log.accept(register("digits", "v3", 3));
    let digits = || model("digits");
    for (weights, rejection) in [
        (vec![("v9", 1_000_000)], Rejection::UnknownVersion { model: digits(), version: "v9".to_owned() }),
        (
            vec![("v1", 500_000), ("1", 500_000)],
            Rejection::VersionNamedTwice { model: digits(), version: "1".to_owned() },
        ),
        (vec![("v3", 1_000_000)], Rejection::VersionNotReady { model: digits(), label: label("v3") }),
        (vec![("v1", 999_999)], Rejection::WeightsDoNotSum { model: digits(), sum_ppm: 999_999 }),
        (
            vec![("v1", 1_000_000), ("v2", 1_000_000)],
            Rejection::WeightsDoNotSum { model: digits(), sum_ppm: 2_000_000 },
        ),
        (vec![], Rejection::WeightsDoNotSum { model: digits(), sum_ppm: 0 }),
    ] {
        assert_eq!(log.refuse(set_route("digits", &weights)), rejection);
    }
    let unknown = Rejection::UnknownModel(model("letters"));
    assert_eq!(log.refuse(set_route("letters", &[("v1", 1_000_000)])), unknown);
}

#[test]
fn of_two_who_expect_the_same_epoch_only_the_first_wins() {
    let mut log = with_two_ready();
    let epoch = log.state.routes.get("digits").unwrap().epoch;
    let to_v2 = set_route_at("digits", &[("v2", 1_000_000)], Some(epoch.get()));
    log.accept(to_v2.clone());
    let found = Epoch::new(log.index);
    let mismatch = Rejection::EpochMismatch { model: model("digits"), expected: epoch, found };
    assert_eq!(log.refuse(to_v2), mismatch);
}

#[test]
fn who_expects_no_route_expects_epoch_0() {
    let mut log = with_two_ready();
    let whole = [("v1", 1_000_000)];
    let refused = log.refuse(set_route_at("digits", &whole, Some(0)));
    assert!(matches!(refused, Rejection::EpochMismatch { expected, .. } if expected == Epoch::new(0)));
}

/// The same, and rules and shadows are allowed.
fn with_two_ready_at_level_3() -> Log {
    let mut log = with_two_ready();
    log.accept(join(1, 3));
    log.accept(raise(3));
    log
}

#[test]
fn rules_and_shadows_begin_an_epoch_and_leave_every_bucket_where_it_was() {
    let mut log = with_two_ready_at_level_3();
    log.accept(set_route("digits", &[("v1", 300_000), ("v2", 700_000)]));
    let before = log.state.routes.get("digits").unwrap().clone();
    log.accept(configure_route(
        "digits",
        vec![rule("gold", 1_000_000, "v2")],
        vec![shadow("v2", 10_000)],
        None,
    ));
    let after = log.state.routes.get("digits").unwrap().clone();
    assert_eq!(after.epoch, Epoch::new(log.index));
    assert_eq!((&after.weights, &after.table), (&before.weights, &before.table));
    assert_eq!(after.rules, [rule("gold", 1_000_000, "v2").for_version(Ordinal::new(2))]);
    assert_eq!(after.shadows, [shadow("v2", 10_000).for_version(Ordinal::new(2))]);

    log.accept(set_route("digits", &[("v1", 1_000_000)]));
    let reweighted = log.state.routes.get("digits").unwrap();
    assert_eq!((&reweighted.rules, &reweighted.shadows), (&after.rules, &after.shadows));
}

#[test]
fn the_same_rules_and_shadows_again_keep_the_epoch() {
    let mut log = with_two_ready_at_level_3();
    let command = configure_route("digits", vec![rule("gold", 1, "v2")], vec![shadow("v2", 1)], None);
    log.accept(command.clone());
    let epoch = log.state.routes.get("digits").unwrap().epoch;
    assert_eq!(log.find_unchanged(command), None);
    assert_eq!(log.state.routes.get("digits").unwrap().epoch, epoch);
}

#[test]
fn what_is_wrong_with_rules_and_shadows_is_said() {
    let mut log = with_two_ready_at_level_3();
    log.accept(register("digits", "v3", 3));
    log.accept(register("letters", "v1", 4));
    let digits = || model("digits");
    let whole = 1_000_000;
    for (rules, shadows, rejection) in [
        (
            vec![rule("gold", whole, "v1"), rule("gold", whole, "v2")],
            vec![],
            Rejection::RuleNamedTwice { model: digits(), rule: "gold".parse().unwrap() },
        ),
        (
            vec![rule("gold", whole, "v9")],
            vec![],
            Rejection::UnknownVersion { model: digits(), version: "v9".to_owned() },
        ),
        (
            vec![rule("gold", whole, "v3")],
            vec![],
            Rejection::VersionNotReady { model: digits(), label: label("v3") },
        ),
        (
            vec![],
            vec![shadow("v3", whole)],
            Rejection::VersionNotReady { model: digits(), label: label("v3") },
        ),
        (
            vec![],
            vec![shadow("v2", whole), shadow("2", whole)],
            Rejection::VersionNamedTwice { model: digits(), version: "2".to_owned() },
        ),
        (
            (0..65).map(|number| rule(&format!("r{number}"), whole, "v1")).collect(),
            vec![],
            Rejection::LimitReached { what: "the number of rules of a route".to_owned(), limit: 64 },
        ),
        (
            vec![rule(&"x".repeat(64), whole, "v1")],
            vec![shadow("v1", whole), shadow("v2", whole)]
                .into_iter()
                .map(|mut shadow| {
                    shadow.when = vec![rule("gold", 1, "v1").when[0].clone(); 9];
                    shadow
                })
                .collect(),
            Rejection::LimitReached {
                what: "the number of conditions of a rule or shadow".to_owned(),
                limit: 8,
            },
        ),
    ] {
        assert_eq!(log.refuse(configure_route("digits", rules, shadows, None)), rejection);
    }
    let without_weights = log.refuse(configure_route("letters", vec![], vec![], None));
    assert_eq!(without_weights, Rejection::NoRoute(model("letters")));
}

#[test]
fn of_two_who_configure_the_same_epoch_only_the_first_wins() {
    let mut log = with_two_ready_at_level_3();
    let epoch = log.state.routes.get("digits").unwrap().epoch;
    let command = configure_route("digits", vec![rule("gold", 1, "v2")], vec![], Some(epoch.get()));
    log.accept(command.clone());
    let found = Epoch::new(log.index);
    let mismatch = Rejection::EpochMismatch { model: model("digits"), expected: epoch, found };
    assert_eq!(log.refuse(command), mismatch);
}

#[test]
fn a_version_that_a_rule_or_a_shadow_names_is_not_deleted() {
    let mut log = with_two_ready_at_level_3();
    let in_route = Rejection::VersionInRoute { model: model("digits"), label: label("v2") };
    log.accept(configure_route("digits", vec![rule("gold", 1, "v2")], vec![], None));
    assert_eq!(log.refuse(delete_version("digits", "v2")), in_route);
    log.accept(configure_route("digits", vec![], vec![shadow("v2", 1)], None));
    assert_eq!(log.refuse(delete_version("digits", "v2")), in_route);
    log.accept(configure_route("digits", vec![], vec![], None));
    log.accept(delete_version("digits", "v2"));
}

#[test]
fn rules_wait_until_every_member_can_read_them() {
    let mut log = with_two_ready();
    let command = configure_route("digits", vec![rule("gold", 1, "v2")], vec![], None);
    let needs = Rejection::FeatureNotEnabled { needed: FeatureLevel::new(3), current: FeatureLevel::new(1) };
    assert_eq!(log.refuse(command), needs);
}
