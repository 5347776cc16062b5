//! A retry gets the first answer.

use starling_raft::state::requests::{REMEMBERED_MAX, REMEMBERED_MICROS};
use starling_raft::state::{LogIndex, NodeId, Rejection};

use crate::log::{Log, drain, join, raise, register, remove, request_id};

#[test]
fn a_retry_gets_the_first_answer_and_is_not_carried_out_again() {
    let mut log = Log::of_two();
    let (_, first) = log.apply_as(request_id(1), drain(1_003));
    let at = log.index;
    log.accept(crate::log::undrain(1_003));
    let (events, again) = log.apply_as(request_id(1), drain(1_003));
    assert_eq!((events, &again), (vec![], &first));
    assert_eq!(again.unwrap().log_index, LogIndex::new(at));
    assert!(!log.state.members.get(NodeId::new(1_003)).unwrap().draining);
}

#[test]
fn a_refusal_is_remembered_as_well() {
    let mut log = Log::of_two();
    let (_, first) = log.apply_as(request_id(1), drain(1_009));
    assert_eq!(first, Err(Rejection::UnknownNode(NodeId::new(1_009))));
    for uuid in 3..=7 {
        log.accept(join(uuid, 2));
    }
    assert!(log.state.members.get(NodeId::new(1_009)).is_some());
    let (_, again) = log.apply_as(request_id(1), drain(1_009));
    assert_eq!(again, first);
}

#[test]
fn answers_are_remembered_for_ten_minutes_of_log_time() {
    let mut log = Log::of_two();
    let start = log.log_time_micros + 1;
    let _ = log.apply_as(request_id(1), register("digits", "v1", 1));
    log.accept(crate::log::delete_model("digits"));

    log.log_time_micros = start + REMEMBERED_MICROS - 1;
    let (events, _) = log.apply_as(request_id(1), register("digits", "v1", 1));
    assert_eq!(events.len(), 0, "at exactly ten minutes");

    let (events, _) = log.apply_as(request_id(1), register("digits", "v1", 1));
    assert_eq!(events.len(), 1, "one microsecond later");
    let remembered: Vec<_> = log.state.requests.iter().map(|(_, id, _)| id).collect();
    assert_eq!(remembered.iter().filter(|id| **id == request_id(1)).count(), 1);
}

#[test]
fn never_more_than_a_hundred_thousand_answers_are_remembered() {
    let mut log = Log::of_two();
    for number in 0..REMEMBERED_MAX as u128 + 3 {
        let _ = log.apply_as(request_id(number), raise(1));
    }
    assert_eq!(log.state.requests.iter().count(), REMEMBERED_MAX);
    assert!(log.state.requests.answer_to(request_id(2)).is_none());
    assert!(log.state.requests.answer_to(request_id(3)).is_some());
}

#[test]
fn a_leader_with_an_earlier_log_time_does_not_keep_answers_longer() {
    let mut log = Log::of_two();
    log.log_time_micros = 2 * REMEMBERED_MICROS;
    let _ = log.apply_as(request_id(1), remove(9));
    log.log_time_micros = 5;
    let _ = log.apply_as(request_id(2), remove(9));
    let times: Vec<u64> = log.state.requests.iter().map(|(time, ..)| time.as_micros()).collect();
    assert_eq!(times, [2 * REMEMBERED_MICROS + 1; 2]);
}
