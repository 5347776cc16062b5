//! Founding, feature levels, checkpoints.

use starling_raft::state::{
    ClusterCommand, ClusterEvent, Command, Event, FeatureLevel, MemberEvent, NodeId, Rejection,
};

use crate::log::{Log, cluster_id, join, labels, raise, register, set_labels};

fn found(number: u128) -> Command {
    Command::Cluster(ClusterCommand::Found { cluster_id: cluster_id(number) })
}

#[test]
fn founding_gives_the_cluster_its_id_and_feature_level_1() {
    let mut log = Log::empty();
    let events = log.accept(found(7));
    assert_eq!(
        events,
        [
            Event::Cluster(ClusterEvent::ClusterFounded { cluster_id: cluster_id(7) }),
            Event::Cluster(ClusterEvent::FeatureLevelRaised { level: FeatureLevel::new(1) }),
        ]
    );
    assert_eq!(log.state.cluster.id, Some(cluster_id(7)));
    assert_eq!(log.state.cluster.feature_level, FeatureLevel::new(1));
}

#[test]
fn founding_again_with_the_same_id_changes_nothing_and_with_another_is_refused() {
    let mut log = Log::empty();
    log.accept(found(7));
    assert_eq!(log.find_unchanged(found(7)), None);
    assert_eq!(log.refuse(found(8)), Rejection::AlreadyFounded(cluster_id(7).to_string()));
}

#[test]
fn nothing_happens_before_the_cluster_is_founded() {
    let mut log = Log::empty();
    assert_eq!(log.refuse(join(1, 1)), Rejection::NotFounded);
    assert_eq!(log.refuse(register("digits", "v1", 1)), Rejection::NotFounded);
    assert_eq!(log.refuse(Command::Cluster(ClusterCommand::Checkpoint)), Rejection::NotFounded);
}

#[test]
fn a_level_is_raised_once_every_member_can_read_it() {
    let mut log = Log::founded();
    log.accept(join(2, 1));
    let too_high = Rejection::FeatureLevelTooHigh {
        wanted: FeatureLevel::new(2),
        node: NodeId::new(1_003),
        max: FeatureLevel::new(1),
    };
    assert_eq!(log.refuse(raise(2)), too_high);
    log.accept(join(2, 2));
    log.accept(raise(2));
    assert_eq!(log.state.cluster.feature_level, FeatureLevel::new(2));
    assert_eq!(log.find_unchanged(raise(2)), None);
    assert_eq!(log.find_unchanged(raise(1)), None);
    assert_eq!(log.state.cluster.feature_level, FeatureLevel::new(2));
}

#[test]
fn a_command_of_level_2_is_refused_until_the_cluster_is_at_level_2() {
    let mut log = Log::founded();
    let gate = Rejection::FeatureNotEnabled { needed: FeatureLevel::new(2), current: FeatureLevel::new(1) };
    assert_eq!(log.refuse(set_labels(1_000, "b")), gate);
    log.accept(raise(2));
    assert_eq!(
        log.accept(set_labels(1_000, "b")),
        [Event::Member(MemberEvent::NodeLabelsSet { node_id: NodeId::new(1_000), labels: labels("b") })]
    );
    assert_eq!(log.state.members.get(NodeId::new(1_000)).unwrap().labels, labels("b"));
    assert_eq!(log.find_unchanged(set_labels(1_000, "b")), None);
    assert_eq!(log.refuse(set_labels(5, "b")), Rejection::UnknownNode(NodeId::new(5)));
}

#[test]
fn a_binary_that_cannot_read_the_cluster_level_may_not_join_nor_come_back() {
    let mut log = Log::founded();
    log.accept(raise(2));
    let too_old = Rejection::NodeTooOld { cluster: FeatureLevel::new(2), node: FeatureLevel::new(1) };
    assert_eq!(log.refuse(join(2, 1)), too_old);
    assert_eq!(log.refuse(join(1, 1)), too_old);
}

#[test]
fn every_checkpoint_is_an_event() {
    let mut log = Log::founded();
    let checkpoint = || Command::Cluster(ClusterCommand::Checkpoint);
    assert_eq!(log.accept(checkpoint()), [Event::Cluster(ClusterEvent::CheckpointTaken {})]);
    assert_eq!(log.accept(checkpoint()), [Event::Cluster(ClusterEvent::CheckpointTaken {})]);
}

#[test]
fn log_time_never_goes_back() {
    let mut log = Log::founded();
    log.log_time_micros = 5_000;
    let _ = log.apply(raise(1));
    log.log_time_micros = 10;
    let _ = log.apply(raise(1));
    assert_eq!(log.state.cluster.log_time.as_micros(), 5_001);
}
