//! Stages follow log time, and a step happens once.

use starling_raft::state::rollouts::stages::StageKind;
use starling_raft::state::rollouts::{EVIDENCE_MAX, Ending, RolloutEvent, RolloutPhase, WHY_CHARACTERS_MAX};
use starling_raft::state::{Event, LogIndex, Rejection};

use crate::log::{Log, SECOND_MICROS};
use crate::plans::{
    PERCENT, WHOLE, advance, blue_green, canary, conclude, evidence, hold, not_over, pause, resume,
    roll_back, shadowing, step,
};

fn not_running() -> Rejection {
    Rejection::RolloutNotRunning("trial".parse().unwrap())
}

#[test]
fn a_stage_ends_when_its_time_is_over_in_log_time_and_not_before() {
    let mut log = Log::running(canary());
    log.wait(9);
    let step = log.step();
    assert_eq!(log.refuse(advance(step.clone(), 1)), not_over(0));
    log.wait(1);
    log.accept(advance(step, 1));
    assert_eq!(log.weights(), [(1, 75 * PERCENT), (2, 25 * PERCENT)]);
    assert_eq!((log.trial().stage, log.trial().evidence), (1, vec![evidence()]));
}

#[test]
fn a_wall_clock_set_forward_ends_no_stage() {
    let mut log = Log::running(canary());
    log.wall_ahead_micros = 400 * 24 * 3_600 * SECOND_MICROS;
    log.wait(9);
    let step = log.step();
    assert_eq!(log.refuse(advance(step, 1)), not_over(0));
}

#[test]
fn a_wall_clock_set_back_delays_no_stage() {
    let mut log = Log::for_rollouts();
    log.wall_ahead_micros = 1_000 * SECOND_MICROS;
    log.accept(crate::plans::start("trial", canary()));
    log.wall_ahead_micros = 0;
    log.wait(10);
    let step = log.step();
    log.accept(advance(step, 1));
}

#[test]
fn a_step_that_two_leaders_propose_happens_once() {
    let mut log = Log::running(canary());
    log.wait(10);
    let step = log.step();
    log.accept(advance(step.clone(), 1));
    let rollout = "trial".parse().unwrap();
    let (expected, found) = (step.expected_revision, LogIndex::new(log.index));
    let changed = Rejection::RevisionMismatch { rollout, expected, found };
    assert_eq!(log.refuse(advance(step.clone(), 1)), changed);
    assert_eq!(log.refuse(roll_back(step.clone())), changed);
    assert_eq!(log.refuse(hold(step)), changed);
    assert_eq!(log.trial().stage, 1);
}

#[test]
fn what_a_person_did_in_between_makes_a_step_void() {
    let mut log = Log::running(canary());
    log.wait(10);
    let step = log.step();
    log.accept(pause("trial"));
    log.accept(resume("trial"));
    assert!(matches!(log.refuse(advance(step, 1)), Rejection::RevisionMismatch { .. }));
}

#[test]
fn no_stage_is_skipped_and_none_entered_twice() {
    let mut log = Log::running(blue_green());
    log.wait(100);
    for stage in [0, 2, 9] {
        let step = log.step();
        assert_eq!(log.refuse(advance(step, stage)), not_over(0), "stage {stage}");
    }
    let step = log.step();
    log.accept(advance(step, 1));
    let step = log.step();
    assert_eq!(log.refuse(advance(step, 2)), not_over(1), "the time of a stage begins with it");
}

#[test]
fn a_pause_stops_the_time_of_a_stage() {
    let mut log = Log::running(canary());
    log.wait(4);
    log.accept(pause("trial"));
    log.find_unchanged(pause("trial"));
    let paused = log.trial().phase;
    assert!(matches!(paused, RolloutPhase::Paused { by, .. } if by.as_str() == "local"));
    log.wait(100);
    let step = log.step();
    assert_eq!(log.refuse(advance(step, 1)), not_running());
    log.accept(resume("trial"));
    log.find_unchanged(resume("trial"));
    log.wait(5);
    let step = log.step();
    assert_eq!(log.refuse(advance(step.clone(), 1)), not_over(0));
    log.wait(1);
    log.accept(advance(step, 1));
}

#[test]
fn a_hold_keeps_the_weights_and_begins_the_time_of_its_stage_anew() {
    let mut log = Log::running(canary());
    log.wait(9);
    let step = log.step();
    log.accept(hold(step));
    assert_eq!(log.trial().phase, RolloutPhase::Held { why: "the numbers say so".to_owned() });
    assert_eq!(log.weights(), [(1, 95 * PERCENT), (2, 5 * PERCENT)]);
    log.find_unchanged(pause("trial"));
    let step = log.step();
    assert_eq!(log.refuse(hold(step.clone())), not_running());
    log.wait(100);
    assert_eq!(log.refuse(advance(step, 1)), not_running());
    log.accept(resume("trial"));
    log.wait(9);
    let step = log.step();
    assert_eq!(log.refuse(advance(step.clone(), 1)), not_over(0));
    log.wait(1);
    log.accept(advance(step, 1));
}

#[test]
fn a_gate_rolls_back_whatever_state_the_rollout_is_in() {
    let paused = |log: &mut Log| drop(log.accept(pause("trial")));
    let held = |log: &mut Log| {
        let step = log.step();
        log.accept(hold(step));
    };
    for prepare in [paused as fn(&mut Log), held, |_| ()] {
        let mut log = Log::running(canary());
        prepare(&mut log);
        let step = log.step();
        let events = log.accept(roll_back(step));
        assert_eq!(events.len(), 1, "one entry");
        assert_eq!(log.weights(), [(1, WHOLE)]);
        let trial = log.trial();
        assert!(matches!(trial.phase, RolloutPhase::Finished { ending: Ending::RolledBack, .. }));
        assert_eq!(trial.evidence, [evidence()]);
    }
}

#[test]
fn blue_green_validates_then_shifts_then_keeps_blue_warm() {
    let log = Log::running(blue_green());
    let stages = log.trial().spec.stages();
    let kinds: Vec<_> = stages.iter().map(|stage| stage.kind).collect();
    assert_eq!(kinds, [StageKind::Validate, StageKind::Shift, StageKind::Shift, StageKind::KeepWarm]);
    let holds: Vec<_> = stages.iter().map(|stage| stage.hold.0).collect();
    assert_eq!(holds, [10_000, 10_000, 10_000, 3_600_000]);
    let copied: Vec<_> = stages.iter().map(|stage| stage.shadow.is_some()).collect();
    assert_eq!(copied, [true, false, false, false]);
    assert_eq!(log.trial().shadow().map(|shadow| shadow.version.get()), Some(2));
}

#[test]
fn blue_stays_in_the_rollout_for_as_long_as_it_is_kept_warm_and_then_green_is_promoted() {
    let mut log = Log::running(blue_green());
    for stage in 1..=3 {
        log.wait(10);
        let step = log.step();
        log.accept(advance(step, stage));
    }
    assert_eq!(log.weights(), [(2, WHOLE)]);
    let versions: Vec<_> = log.trial().versions().iter().map(|version| version.get()).collect();
    assert_eq!(versions, [1, 2]);
    log.wait(3_599);
    let step = log.step();
    assert_eq!(log.refuse(conclude(step.clone(), None)), not_over(3));
    log.wait(1);
    log.accept(conclude(step, None));
    assert!(matches!(log.trial().phase, RolloutPhase::Finished { ending: Ending::Promoted, .. }));
    assert_eq!(log.weights(), [(2, WHOLE)]);
}

#[test]
fn only_the_last_stage_can_be_concluded() {
    let mut log = Log::running(canary());
    log.wait(10);
    let step = log.step();
    assert_eq!(log.refuse(conclude(step, None)), not_over(0));
}

#[test]
fn a_shadow_answers_nobody_and_leaves_the_route_as_it_was() {
    let mut log = Log::running(shadowing());
    assert_eq!(log.weights(), [(1, WHOLE)]);
    assert_eq!(log.trial().shadow().map(|shadow| shadow.version.get()), Some(2));
    log.wait(10);
    let step = log.step();
    log.accept(conclude(step, None));
    let trial = log.trial();
    assert!(matches!(trial.phase, RolloutPhase::Finished { ending: Ending::Completed, .. }));
    assert_eq!((trial.shadow(), log.weights()), (None, vec![(1, WHOLE)]));
}

#[test]
fn reasons_and_numbers_of_a_step_are_bounded() {
    let mut log = Log::running(canary());
    let mut long = log.step();
    long.why = "ß".repeat(WHY_CHARACTERS_MAX + 1);
    long.evidence = vec![evidence(); EVIDENCE_MAX + 1];
    long.evidence[0].what = "x".repeat(1_000);
    let events = log.accept(hold(long));
    let [Event::Rollout(RolloutEvent::RolloutHeld { why, evidence, .. })] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((why.chars().count(), evidence.len()), (WHY_CHARACTERS_MAX, EVIDENCE_MAX));
    assert_eq!(evidence[0].what.len(), 64);
}

#[test]
fn steps_of_a_rollout_that_there_is_not_are_refused() {
    let mut log = Log::for_rollouts();
    let unknown = Rejection::UnknownRollout("trial".parse().unwrap());
    assert_eq!(log.refuse(advance(step("trial", 1), 1)), unknown);
    assert_eq!(log.refuse(pause("trial")), unknown);
}
