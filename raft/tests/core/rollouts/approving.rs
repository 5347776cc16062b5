//! What a person's word does: approve of a stage, or overrule.

use starling_raft::state::rollouts::{Ending, RolloutEvent, RolloutPhase};
use starling_raft::state::{Event, Rejection};

use crate::log::Log;
use crate::plans::{
    PERCENT, WHOLE, advance, blue_green, canary, hold, not_over, pause, promote, promote_fully,
    promote_winner,
};

/// In the stage that waits for approval.
fn waiting() -> Log {
    let mut log = Log::running(canary());
    log.wait(10);
    let step = log.step();
    log.accept(advance(step, 1));
    log
}

fn kinds(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(Event::kind).collect()
}

#[test]
fn a_stage_that_waits_for_approval_does_not_end_by_itself() {
    let mut log = waiting();
    log.wait(24 * 3_600);
    let step = log.step();
    assert_eq!(log.refuse(advance(step, 2)), not_over(1));
}

#[test]
fn to_promote_such_a_stage_approves_of_it_and_its_gates_must_still_pass() {
    let mut log = waiting();
    log.wait(60);
    let events = log.accept(promote("trial"));
    assert_eq!(events, [Event::Rollout(RolloutEvent::RolloutApproved { name: "trial".parse().unwrap() })]);
    assert_eq!((log.trial().approved, log.trial().stage), (true, 1));
    assert_eq!(log.weights(), [(1, 75 * PERCENT), (2, 25 * PERCENT)]);
    assert_eq!(log.trial().stage_since, log.state.cluster.log_time, "now it could end");
    log.find_unchanged(promote("trial"));
    let step = log.step();
    log.accept(advance(step, 2));
    assert_eq!((log.trial().approved, log.trial().stage), (false, 2));
}

#[test]
fn to_promote_a_paused_stage_that_waits_lets_it_go_on_as_well() {
    let mut log = waiting();
    log.accept(pause("trial"));
    assert_eq!(kinds(&log.accept(promote("trial"))), ["RolloutResumed", "RolloutApproved"]);
    assert_eq!((log.trial().phase, log.trial().approved), (RolloutPhase::Running, true));
}

#[test]
fn to_promote_a_held_rollout_overrules_what_held_it() {
    let mut log = waiting();
    let step = log.step();
    log.accept(hold(step));
    assert_eq!(kinds(&log.accept(promote("trial"))), ["RolloutAdvanced"]);
    assert_eq!((log.trial().phase, log.trial().stage), (RolloutPhase::Running, 2));
}

#[test]
fn to_promote_any_other_stage_ends_it_at_once() {
    let mut log = Log::running(canary());
    let events = log.accept(promote("trial"));
    assert_eq!(kinds(&events), ["RolloutAdvanced"]);
    assert!(matches!(&events[..], [Event::Rollout(RolloutEvent::RolloutAdvanced { why, evidence, .. })]
            if why == "promoted by a person" && evidence.is_empty()));
    assert_eq!(log.weights(), [(1, 75 * PERCENT), (2, 25 * PERCENT)]);
    log.accept(promote_fully("trial"));
    assert_eq!((log.weights(), log.trial().stage), (vec![(2, WHOLE)], 2));
    log.accept(promote("trial"));
    assert!(matches!(log.trial().phase, RolloutPhase::Finished { ending: Ending::Promoted, .. }));
}

#[test]
fn to_promote_a_paused_rollout_ends_the_pause() {
    let mut log = Log::running(canary());
    log.accept(pause("trial"));
    log.accept(promote("trial"));
    assert_eq!((log.trial().phase, log.trial().stage), (RolloutPhase::Running, 1));
}

#[test]
fn to_promote_blue_green_fully_goes_to_its_last_stage_where_blue_is_still_warm() {
    let mut log = Log::running(blue_green());
    log.accept(promote_fully("trial"));
    assert_eq!((log.weights(), log.trial().stage), (vec![(2, WHOLE)], 3));
    assert!(!log.trial().is_over());
}

#[test]
fn a_winner_can_be_named_only_where_there_are_arms() {
    let mut log = Log::running(canary());
    let no_arms = Rejection::NotAnExperiment("trial".parse().unwrap());
    assert_eq!(log.refuse(promote_winner("trial", "v2")), no_arms);
}
