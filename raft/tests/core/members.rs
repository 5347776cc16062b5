//! Joining, coming back, draining, leaving.

use std::collections::BTreeMap;

use starling_raft::state::members::{LABELS_MAX, MEMBERS_MAX, REMOVED_MAX, WORD_BYTES_MAX};
use starling_raft::state::{
    Addresses, Command, Event, FeatureLevel, MemberCommand, MemberEvent, NodeId, Rejection,
};

use crate::log::{Log, addresses, drain, join, join_at, labels, node_uuid, remove, undrain};

const FOUNDER: u64 = 1_000;

fn node(id: u64) -> NodeId {
    NodeId::new(id)
}

#[test]
fn the_founder_is_1000_and_others_get_the_index_of_their_join_entry_and_1000() {
    let mut log = Log::founded();
    let founder = log.state.members.get(node(FOUNDER)).unwrap().clone();
    assert_eq!((founder.node_uuid, founder.draining), (node_uuid(1), false));
    assert_eq!(log.index, 2);
    let (events, outcome) = log.apply(join(2, 1));
    assert_eq!(outcome.unwrap().created, Some(1_003));
    assert_eq!(
        events,
        [Event::Member(MemberEvent::NodeJoined {
            node_id: node(1_003),
            node_uuid: node_uuid(2),
            addresses: addresses(8003),
            labels: labels("a"),
            max_feature_level: FeatureLevel::new(1),
            starling_version: "0.1.0".to_owned(),
        })]
    );
}

#[test]
fn the_same_uuid_keeps_its_id_and_joining_unchanged_changes_nothing() {
    let mut log = Log::of_two();
    assert_eq!(log.find_unchanged(join(2, 2)), Some(1_003));
    assert_eq!(log.state.members.iter().count(), 2);
}

#[test]
fn a_member_that_comes_back_elsewhere_is_announced_and_stays_drained() {
    let mut log = Log::of_two();
    log.accept(drain(1_003));
    let (events, outcome) = log.apply(join_at(2, 2, 9003));
    assert_eq!(outcome.unwrap().created, Some(1_003));
    assert_eq!(
        events,
        [Event::Member(MemberEvent::NodeAnnounced {
            node_id: node(1_003),
            addresses: addresses(9003),
            labels: labels("a"),
            max_feature_level: FeatureLevel::new(2),
            starling_version: "0.1.0".to_owned(),
        })]
    );
    let member = log.state.members.get(node(1_003)).unwrap();
    assert_eq!((member.addresses.clone(), member.draining), (addresses(9003), true));
}

#[test]
fn draining_and_undraining_are_idempotent() {
    let mut log = Log::of_two();
    assert_eq!(log.accept(drain(1_003)), [Event::Member(MemberEvent::NodeDrained { node_id: node(1_003) })]);
    assert!(log.state.members.get(node(1_003)).unwrap().draining);
    assert_eq!(log.find_unchanged(drain(1_003)), None);
    assert_eq!(
        log.accept(undrain(1_003)),
        [Event::Member(MemberEvent::NodeUndrained { node_id: node(1_003) })]
    );
    assert!(!log.state.members.get(node(1_003)).unwrap().draining);
    assert_eq!(log.find_unchanged(undrain(1_003)), None);
}

#[test]
fn the_last_node_that_serves_can_neither_be_drained_nor_removed() {
    let mut log = Log::of_two();
    log.accept(drain(FOUNDER));
    assert_eq!(log.refuse(drain(1_003)), Rejection::LastNode(node(1_003)));
    assert_eq!(log.refuse(remove(1_003)), Rejection::LastNode(node(1_003)));
    log.accept(remove(FOUNDER));
    assert_eq!(log.refuse(remove(1_003)), Rejection::LastNode(node(1_003)));
}

#[test]
fn who_is_no_member_cannot_be_drained_undrained_or_removed() {
    let mut log = Log::of_two();
    for command in [drain(9), undrain(9), remove(9)] {
        assert_eq!(log.refuse(command), Rejection::UnknownNode(node(9)));
    }
}

#[test]
fn a_removed_id_is_remembered_and_its_uuid_gets_a_new_one() {
    let mut log = Log::of_two();
    assert_eq!(log.accept(remove(1_003)), [Event::Member(MemberEvent::NodeRemoved { node_id: node(1_003) })]);
    assert!(log.state.members.was_removed(node(1_003)));
    assert!(!log.state.members.was_removed(node(FOUNDER)));
    assert_eq!(log.state.members.removed().collect::<Vec<_>>(), [(node(1_003), node_uuid(2))]);
    assert_eq!(log.find_unchanged(remove(1_003)), None);
    assert_eq!(log.refuse(drain(1_003)), Rejection::UnknownNode(node(1_003)));

    let (_, outcome) = log.apply(join(2, 2));
    assert_eq!(outcome.unwrap().created, Some(1_000 + log.index));
    assert!(log.state.members.was_removed(node(1_003)));
}

#[test]
fn only_so_many_removed_ids_are_remembered_the_newest() {
    let mut log = Log::founded();
    for uuid in 0..REMOVED_MAX as u128 + 2 {
        let (_, outcome) = log.apply(join(100 + uuid, 2));
        log.accept(remove(outcome.unwrap().created.unwrap()));
    }
    assert_eq!(log.state.members.removed().count(), REMOVED_MAX);
    assert!(!log.state.members.was_removed(node(1_003)));
    assert!(!log.state.members.was_removed(node(1_005)));
    assert!(log.state.members.was_removed(node(1_007)));
}

#[test]
fn there_is_room_for_a_thousand_members() {
    let mut log = Log::founded();
    for uuid in 1..MEMBERS_MAX as u128 {
        log.accept(join(100 + uuid, 2));
    }
    let full = Rejection::LimitReached { what: "the number of members".to_owned(), limit: 1_000 };
    assert_eq!(log.refuse(join(99, 2)), full);
    log.accept(join_at(101, 2, 9003));
}

#[test]
fn words_and_labels_of_a_node_are_limited() {
    let mut log = Log::founded();
    let mut join_with = |addresses: Addresses, labels: BTreeMap<String, String>| {
        let command = MemberCommand::Join {
            node_uuid: node_uuid(5),
            addresses,
            labels,
            max_feature_level: FeatureLevel::new(1),
            starling_version: "0.1.0".to_owned(),
        };
        match log.refuse(Command::Member(command)) {
            Rejection::LimitReached { limit, .. } => limit as usize,
            other => panic!("{other}"),
        }
    };
    let long = "x".repeat(WORD_BYTES_MAX + 1);
    let long_address = Addresses { metrics: long.clone(), ..addresses(1) };
    assert_eq!(join_with(long_address, labels("a")), WORD_BYTES_MAX);
    assert_eq!(join_with(addresses(1), labels(&long)), WORD_BYTES_MAX);
    let many = (0..=LABELS_MAX).map(|n| (n.to_string(), String::new())).collect();
    assert_eq!(join_with(addresses(1), many), LABELS_MAX);
}
