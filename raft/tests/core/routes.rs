//! Weights of a model's versions, and the epoch they begin with.

use starling_raft::state::{Epoch, Event, Ordinal, Rejection, RouteEvent};

use crate::log::{Log, label, model, ppm, register, set_route, set_route_at};

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
