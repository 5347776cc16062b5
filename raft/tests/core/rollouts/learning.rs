//! Rewards count once, in whatever order they come, and can be taken back.

use proptest::prelude::*;
use starling_raft::codec::encode_state;
use starling_raft::envelope::CommandEnvelope;
use starling_raft::history::HistoryRecord;
use starling_raft::state::rollouts::learning::{SLICES_MAX, SUMS_PER_DELTA_MAX};
use starling_raft::state::rollouts::{RewardSum, RewardTotals, RolloutEvent};
use starling_raft::state::{
    Command, Event, EventClass, LogIndex, LogTime, NodeId, Ordinal, Rejection, RolloutCommand,
};

use crate::log::{Log, SECOND_MICROS, join, remove, request_id};
use crate::plans::{NODE, ab_test, abort, bandit, epoch, feedback, publish, start_again, totals};

#[test]
fn rewards_are_credited_to_the_weights_of_the_epoch_in_which_it_was_decided() {
    let mut log = Log::running(ab_test());
    let (early, other) = (log.reward(2, 1, 3), log.reward(1, 1, 4));
    log.accept(crate::plans::set_arms(
        "trial",
        vec![crate::plans::arm("control", "v1", 20), crate::plans::arm("treatment", "v2", 80)],
    ));
    let late = log.reward(2, 1, 5);
    log.accept(feedback(NODE, 1, vec![early, other, RewardSum { cluster: 7, ..late }]));
    assert_eq!(log.learnt(), [(1, 1, 0, 0, 4), (1, 2, 0, 0, 3), (1, 2, 1, 7, 5)]);
}

#[test]
fn a_delta_counts_once_whoever_proposes_it_and_however_often() {
    let mut log = Log::running(bandit());
    let delta = feedback(NODE, 1, vec![log.reward(2, 1, 3)]);
    log.accept(delta.clone());
    log.find_unchanged(delta.clone());
    log.accept(feedback(NODE, 2, vec![log.reward(2, 1, 3)]));
    log.find_unchanged(delta);
    assert_eq!(log.learnt(), [(1, 2, 0, 0, 6)]);
    assert_eq!(log.state.rollouts.feedback_mark(NodeId::new(NODE)), 2);
}

#[test]
fn deltas_never_fill_the_table_of_recent_requests() {
    let mut log = Log::running(bandit());
    let remembered = log.state.requests.iter().count();
    let delta = feedback(NODE, 1, vec![log.reward(2, 1, 3)]);
    let (_, first) = log.apply_as(request_id(5), delta.clone());
    assert!(first.unwrap().changed);
    let (_, again) = log.apply_as(request_id(5), delta);
    assert!(!again.unwrap().changed, "decided anew, by node and sequence");
    let unknown = log.refuse(feedback(9_999, 1, vec![]));
    assert_eq!(unknown, Rejection::UnknownNode(NodeId::new(9_999)));
    assert_eq!(log.state.requests.iter().count(), remembered);
}

#[test]
fn deltas_are_telemetry_and_everything_else_is_audit() {
    let mut log = Log::running(bandit());
    let command = feedback(NODE, 1, vec![log.reward(2, 1, 3)]);
    assert_eq!(command.class(), EventClass::Telemetry);
    assert_eq!(abort("trial").class(), EventClass::Audit);
    log.accept(command);
    log.accept(abort("trial"));
    let classes: Vec<_> = log
        .events
        .iter()
        .rev()
        .take(2)
        .map(|(context, event)| HistoryRecord::new(context, event.clone()).class)
        .collect();
    assert_eq!(classes, [EventClass::Audit, EventClass::Telemetry]);
}

#[test]
fn a_delta_has_a_bound() {
    let mut log = Log::running(bandit());
    let sum = log.reward(2, 1, 1);
    let refused = log.refuse(feedback(NODE, 1, vec![sum.clone(); SUMS_PER_DELTA_MAX + 1]));
    assert!(matches!(refused, Rejection::LimitReached { limit: 4_096, .. }));
    log.accept(feedback(NODE, 1, vec![sum; SUMS_PER_DELTA_MAX]));
    assert_eq!(log.learnt(), [(1, 2, 0, 0, 4_096)]);
}

#[test]
fn rewards_of_runs_and_epochs_that_are_not_known_change_nothing() {
    let mut log = Log::running(bandit());
    let sum = log.reward(2, 1, 3);
    let nobody = RewardSum { rollout: "nobody".parse().unwrap(), ..sum };
    let another_run = RewardSum { started_at: LogIndex::new(1), ..sum.clone() };
    let another_epoch = RewardSum { epoch: epoch(1), ..sum.clone() };
    log.accept(feedback(NODE, 1, vec![nobody, another_run, another_epoch]));
    assert_eq!(log.learnt(), []);
    log.accept(abort("trial"));
    log.accept(feedback(NODE, 2, vec![sum.clone()]));
    assert_eq!(log.learnt(), [(1, 2, 0, 0, 3)], "it is over, and still is told");
    log.accept(start_again("trial", bandit()));
    log.accept(feedback(NODE, 3, vec![sum]));
    assert_eq!(log.learnt(), [], "another run of the same name");
}

#[test]
fn rewards_do_not_void_what_a_controller_has_looked_at() {
    let mut log = Log::running(bandit());
    log.wait(10);
    let step = log.step();
    log.accept(feedback(NODE, 1, vec![log.reward(2, 1, 3)]));
    log.accept(publish(step, &[(1, 30), (2, 70)]));
}

#[test]
fn a_removed_node_is_forgotten_and_heard_no_more() {
    let mut log = Log::running(bandit());
    log.accept(join(2, 4));
    let node = NodeId::new(1_000 + log.index);
    log.accept(feedback(node.get(), 4, vec![log.reward(2, 1, 3)]));
    assert_eq!(log.state.rollouts.feedback_mark(node), 4);
    log.accept(remove(node.get()));
    assert_eq!(log.state.rollouts.feedback_marks().count(), 0);
    assert_eq!(log.refuse(feedback(node.get(), 5, vec![])), Rejection::UnknownNode(node));
    assert_eq!(log.learnt(), [(1, 2, 0, 0, 3)]);
}

#[test]
fn a_bandit_keeps_no_clusters_and_an_a_b_test_does() {
    let mut log = Log::running(bandit());
    let sum = RewardSum { cluster: 9, ..log.reward(2, 1, 3) };
    log.accept(feedback(NODE, 1, vec![sum]));
    assert_eq!(log.learnt(), [(1, 2, 0, 0, 3)]);
    let mut log = Log::running(ab_test());
    let sum = RewardSum { cluster: 9, ..log.reward(2, 1, 3) };
    log.accept(feedback(NODE, 1, vec![sum]));
    assert_eq!(log.learnt(), [(1, 2, 0, 9, 3)]);
}

#[test]
fn a_reward_that_is_taken_back_leaves_no_trace_whichever_came_first() {
    for counts in [[5, -5], [-5, 5]] {
        let mut log = Log::running(bandit());
        let untouched = log.trial().learning.cells().count();
        for (sequence, count) in (1..).zip(counts) {
            log.accept(feedback(NODE, sequence, vec![log.reward(2, 1, count)]));
        }
        assert_eq!(log.trial().learning.cells().count(), untouched);
    }
}

#[test]
fn a_node_whose_time_runs_ahead_makes_no_old_slices() {
    let mut log = Log::running(bandit());
    log.accept(feedback(NODE, 1, vec![log.reward(2, u32::MAX, 3), log.reward(2, 0, 4)]));
    assert_eq!(log.learnt(), [(1, 2, 0, 0, 4), (2, 2, 0, 0, 3)]);
}

#[test]
fn slices_that_are_too_old_to_be_told_apart_become_one() {
    let mut log = Log::running(bandit());
    log.wait(2_000);
    let sums = vec![log.reward(2, 1, 1), log.reward(2, 2, 2), log.reward(2, SLICES_MAX + 2, 4)];
    log.accept(feedback(NODE, 1, sums));
    assert_eq!(log.learnt(), [(0, 2, 0, 0, 3), (SLICES_MAX + 2, 2, 0, 0, 4)]);
    log.accept(feedback(NODE, 2, vec![log.reward(2, 1, 8), log.reward(2, 3, 16)]));
    assert_eq!(log.learnt(), [(0, 2, 0, 0, 11), (3, 2, 0, 0, 16), (SLICES_MAX + 2, 2, 0, 0, 4)]);
}

/// What was credited from half past one second to half past another.
fn take_back(from: u64, to: u64) -> Command {
    let at = |second: u64| LogTime::from_micros(second * SECOND_MICROS + SECOND_MICROS / 2);
    let (name, from, to) = ("trial".parse().unwrap(), at(from), at(to));
    Command::Rollout(RolloutCommand::DropLearning { name, from, to })
}

/// With rewards in the slices (here: seconds) 1 to 5 of a bandit, of which 5 is
/// the present one.
fn with_five_slices() -> Log {
    let mut log = Log::running(bandit());
    log.wait(4);
    let sums = (1..=5).map(|slice| log.reward(2, slice, 1 << slice)).collect();
    log.accept(feedback(NODE, 1, sums));
    log
}

#[test]
fn a_window_of_rewards_can_be_taken_back() {
    let mut log = with_five_slices();
    let events = log.accept(take_back(1, 2));
    let name = "trial".parse().unwrap();
    let dropped = RolloutEvent::RolloutLearningDropped { name, first_slice: 2, last_slice: 3, rewards: 12 };
    assert_eq!(events, [Event::Rollout(dropped)]);
    assert_eq!(log.learnt(), [(1, 2, 0, 0, 2), (4, 2, 0, 0, 16), (5, 2, 0, 0, 32)]);
    assert_eq!(log.trial().learning.dropped(), [(2, 3)]);
}

#[test]
fn what_comes_late_for_a_window_that_was_taken_back_is_dropped_as_well() {
    let mut log = with_five_slices();
    log.accept(take_back(1, 2));
    let learnt = log.learnt();
    log.accept(feedback(NODE, 2, vec![log.reward(2, 2, 7), log.reward(1, 3, -7)]));
    assert_eq!(log.learnt(), learnt, "given and taken back alike");
    log.find_unchanged(take_back(1, 2));
}

#[test]
fn the_present_slice_goes_on_after_it_was_taken_back() {
    let mut log = with_five_slices();
    log.accept(take_back(0, 4));
    assert_eq!(log.learnt(), []);
    assert_eq!(log.trial().learning.dropped(), [(1, 4)]);
    log.accept(feedback(NODE, 2, vec![log.reward(2, 5, 3), log.reward(2, 4, 3)]));
    assert_eq!(log.learnt(), [(5, 2, 0, 0, 3)]);
}

#[test]
fn windows_that_touch_become_one_and_what_holds_nothing_is_not_taken_back() {
    let mut log = with_five_slices();
    log.accept(take_back(1, 1));
    log.accept(take_back(3, 3));
    assert_eq!(log.trial().learning.dropped(), [(2, 2), (4, 4)]);
    log.accept(take_back(2, 2));
    assert_eq!(log.trial().learning.dropped(), [(2, 4)]);
    log.find_unchanged(take_back(1, 3));
    log.find_unchanged(take_back(3, 1));
    log.find_unchanged(take_back(100, 200));
}

#[test]
fn old_rewards_that_have_become_one_are_taken_back_only_together() {
    let mut log = Log::running(bandit());
    log.wait(2_000);
    let sums = vec![log.reward(2, 1, 1), log.reward(2, 2, 2), log.reward(2, SLICES_MAX + 2, 4)];
    log.accept(feedback(NODE, 1, sums));
    log.find_unchanged(take_back(1, 1));
    log.accept(take_back(0, 3));
    assert_eq!(log.learnt(), [(SLICES_MAX + 2, 2, 0, 0, 4)]);
}

#[test]
fn rewards_are_shown_in_whole_numbers_whatever_their_size() {
    let sum = RewardSum {
        rollout: "trial".parse().unwrap(),
        started_at: LogIndex::new(3),
        arm: Ordinal::new(2),
        epoch: epoch(4),
        cluster: 5,
        slice: 6,
        totals: RewardTotals { count: 1, sum: i128::MAX, sum_of_squares: i128::MIN },
    };
    let event = RolloutEvent::FeedbackRecorded { node: NodeId::new(1_000), sequence: 1, sums: vec![sum] };
    let json = serde_json::to_value(Event::Rollout(event)).unwrap();
    let expected = serde_json::json!({
        "node": 1000,
        "sequence": 1,
        "sums": [{
            "rollout": "trial",
            "started_at": 3,
            "arm": 2,
            "epoch": 4,
            "cluster": 5,
            "slice": 6,
            "totals": {
                "count": 1,
                "sum": "170141183460469231731687303715884105727",
                "sum_of_squares": "-170141183460469231731687303715884105728",
            },
        }],
    });
    assert_eq!(json, expected);
}

/// Slices from long ago to the present one, given and taken back, in both arms.
fn any_sum() -> impl Strategy<Value = (u64, u32, i64)> {
    (1..=2_u64, prop_oneof![1..6_u32, 1_000..1_100_u32, 4_990..5_002_u32], -3..4_i64)
}

/// Deltas of three nodes, each node's in its order, some sent twice; and which
/// node comes next, twice over.
type Deltas = Vec<Vec<Vec<(u64, u32, i64)>>>;

fn any_deltas() -> impl Strategy<Value = (Deltas, Vec<usize>, Vec<usize>)> {
    let of_a_node = proptest::collection::vec(proptest::collection::vec(any_sum(), 0..6), 1..5);
    proptest::collection::vec(of_a_node, 3).prop_flat_map(|deltas| {
        let turns: Vec<usize> =
            deltas.iter().enumerate().flat_map(|(node, of_it)| vec![node; 2 * of_it.len()]).collect();
        (Just(deltas), Just(turns.clone()).prop_shuffle(), Just(turns).prop_shuffle())
    })
}

/// The bytes of the state after all deltas came, every one twice, the nodes
/// taking turns as said.
fn folded(deltas: &Deltas, turns: &[usize]) -> Vec<u8> {
    let mut log = Log::for_rollouts();
    log.accept(join(2, 4));
    log.accept(join(3, 4));
    let nodes = [NODE, 999 + log.index, 1_000 + log.index];
    log.accept(crate::plans::start("trial", bandit()));
    log.wait(5_000);
    let mut sent = [0_usize; 3];
    for &node in turns {
        let number = sent[node] / 2;
        sent[node] += 1;
        let sums = deltas[node][number].iter().map(|(arm, slice, count)| log.reward(*arm, *slice, *count));
        let delta = feedback(nodes[node], number as u64 + 1, sums.collect());
        let (_, outcome) = log.apply(delta);
        assert_eq!(outcome.unwrap().changed, sent[node] % 2 == 1);
    }
    encode_state(&log.state)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn in_whatever_order_deltas_come_the_state_is_the_same_to_the_byte(
        (deltas, one, other) in any_deltas()
    ) {
        prop_assert_eq!(hex::encode(folded(&deltas, &one)), hex::encode(folded(&deltas, &other)));
    }
}

#[test]
fn the_entry_that_carries_a_delta_says_that_it_is_telemetry() {
    let log = Log::running(bandit());
    let command: Command = feedback(NODE, 1, vec![log.reward(2, 1, 3)]);
    let envelope = CommandEnvelope {
        log_time: log.state.cluster.log_time,
        wall_time: log.state.cluster.wall_time,
        principal: starling_raft::state::Principal::local(),
        request_id: request_id(1),
        feature_level: log.state.cluster.feature_level,
        class: command.class(),
        command,
    };
    let read = CommandEnvelope::decode(&envelope.encode()).unwrap();
    assert_eq!((read.class, read.command), (EventClass::Telemetry, envelope.command));
    assert_eq!(totals(2), RewardTotals { count: 2, sum: 2 << 24, sum_of_squares: 2 << 48 });
}
