//! How rollouts end, and how one goes back after that.

use starling_raft::state::rollouts::{Ending, RolloutPhase};
use starling_raft::state::{Ordinal, Rejection};

use crate::log::{Log, configure_route, delete_version, model, ppm, rule, set_route};
use crate::plans::{
    WHOLE, ab_test, abort, advance, arm, blue_green, canary, conclude, hold, pause, promote, promote_fully,
    promote_winner, resume, roll_back, set_arms, start, undo,
};

fn ending(log: &Log) -> Ending {
    match log.trial().phase {
        RolloutPhase::Finished { ending, .. } => ending,
        phase => panic!("{phase:?}"),
    }
}

fn promoted() -> Log {
    let mut log = Log::running(canary());
    log.accept(promote_fully("trial"));
    log.accept(promote("trial"));
    assert_eq!((log.weights(), ending(&log)), (vec![(2, WHOLE)], Ending::Promoted));
    log
}

#[test]
fn abort_gives_the_stable_version_everything_back_in_one_entry() {
    let mut log = Log::running(blue_green());
    log.accept(promote_fully("trial"));
    assert_eq!(log.weights(), [(2, WHOLE)]);
    let events = log.accept(abort("trial"));
    assert_eq!(events.len(), 1);
    assert_eq!((log.weights(), ending(&log)), (vec![(1, WHOLE)], Ending::Aborted));
    assert!(log.state.rollouts.owner_of(&model("digits")).is_none());
    assert_eq!(log.trial().after, [(Ordinal::new(1), ppm(WHOLE))]);
}

#[test]
fn abort_works_while_paused_and_while_held() {
    let mut log = Log::running(canary());
    log.accept(pause("trial"));
    log.accept(abort("trial"));
    assert_eq!(ending(&log), Ending::Aborted);

    let mut log = Log::running(canary());
    let step = log.step();
    log.accept(hold(step));
    log.accept(abort("trial"));
    assert_eq!(ending(&log), Ending::Aborted);
}

#[test]
fn nothing_can_be_done_to_a_rollout_that_is_over() {
    let mut log = Log::running(canary());
    let step = log.step();
    log.accept(abort("trial"));
    for command in [
        pause("trial"),
        resume("trial"),
        promote("trial"),
        promote_fully("trial"),
        abort("trial"),
        set_arms("trial", vec![arm("a", "v1", 50), arm("b", "v2", 50)]),
        advance(step.clone(), 1),
        roll_back(step.clone()),
        hold(step.clone()),
        conclude(step, None),
    ] {
        assert_eq!(log.refuse(command), Rejection::RolloutOver("trial".parse().unwrap()));
    }
}

#[test]
fn undo_of_a_promotion_returns_to_what_was_before() {
    let mut log = promoted();
    log.accept(undo("trial"));
    assert_eq!((log.weights(), ending(&log)), (vec![(1, WHOLE)], Ending::Undone));
    log.find_unchanged(undo("trial"));
}

#[test]
fn undo_of_what_is_not_over_aborts_it_and_of_what_changed_nothing_changes_nothing() {
    let mut log = Log::running(canary());
    log.accept(undo("trial"));
    assert_eq!(ending(&log), Ending::Aborted);
    log.find_unchanged(undo("trial"));

    let mut log = Log::running(canary());
    let step = log.step();
    log.accept(roll_back(step));
    log.find_unchanged(undo("trial"));
}

#[test]
fn undo_is_refused_when_somebody_moved_the_route_since() {
    let moved = Rejection::RouteMoved { rollout: "trial".parse().unwrap(), model: model("digits") };
    let mut log = promoted();
    log.accept(set_route("digits", &[("v3", WHOLE)]));
    assert_eq!(log.refuse(undo("trial")), moved);

    let mut arms = vec![arm("control", "v1", 40), arm("treatment", "v2", 30), arm("other", "v3", 30)];
    let mut log = Log::running(ab_test());
    log.accept(set_arms("trial", arms.clone()));
    log.accept(promote_winner("trial", "v2"));
    log.accept(set_route("digits", &[("v3", WHOLE)]));
    assert_eq!(log.refuse(undo("trial")), moved, "an arm, and not the one that won");

    arms.truncate(2);
    log.accept(set_route("digits", &[("v2", WHOLE)]));
    log.accept(undo("trial"));
}

#[test]
fn undo_does_not_mind_rules_that_were_set_since() {
    let mut log = promoted();
    log.accept(configure_route("digits", vec![rule("gold", WHOLE, "v3")], vec![], None));
    log.accept(undo("trial"));
    assert_eq!(log.weights(), [(1, WHOLE)]);
}

#[test]
fn undo_is_refused_while_another_rollout_owns_the_route() {
    let mut log = promoted();
    let mut next = canary();
    next.from = "v2".parse().unwrap();
    if let starling_raft::state::rollouts::spec::Strategy::Canary { to, .. } = &mut next.strategy {
        *to = "v3".parse().unwrap();
    }
    log.accept(start("next", next));
    let owned = Rejection::RouteOwned { model: model("digits"), rollout: "next".parse().unwrap() };
    assert_eq!(log.refuse(undo("trial")), owned);
}

#[test]
fn undo_is_refused_when_what_was_before_is_gone() {
    let mut log = promoted();
    log.accept(delete_version("digits", "v1"));
    let gone = Rejection::UnknownVersion { model: model("digits"), version: "1".to_owned() };
    assert_eq!(log.refuse(undo("trial")), gone);
}
