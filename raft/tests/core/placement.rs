//! On which nodes a model is loaded.

use proptest::prelude::*;
use starling_raft::state::placement::placed_on;
use starling_raft::state::{Model, NodeId};

use crate::log::{Log, register, set_placement};

fn model_with(name: &str, replicas: u32) -> Model {
    let mut log = Log::founded();
    log.accept(register(name, "v1", 1));
    if replicas > 0 {
        log.accept(set_placement(name, replicas));
    }
    Model::clone(log.state.models.get(name).unwrap())
}

fn nodes(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId::new).collect()
}

#[test]
fn without_a_number_every_candidate_holds_the_model() {
    let mut placed = placed_on(&model_with("digits", 0), &nodes(&[1_000, 1_003, 1_004]));
    placed.sort();
    assert_eq!(placed, nodes(&[1_000, 1_003, 1_004]));
}

#[test]
fn known_models_are_placed_where_they_always_were() {
    let candidates = nodes(&[1_000, 1_003, 1_004, 1_005, 1_006]);
    let placed = ["digits", "letters", "fraud"].map(|name| placed_on(&model_with(name, 0), &candidates));
    let expected = [
        [1_003, 1_005, 1_000, 1_004, 1_006],
        [1_006, 1_004, 1_000, 1_005, 1_003],
        [1_000, 1_005, 1_004, 1_003, 1_006],
    ];
    assert_eq!(placed, expected.map(|ids| nodes(&ids)));
}

#[test]
fn more_replicas_than_nodes_are_as_many_as_there_are() {
    assert_eq!(placed_on(&model_with("digits", 9), &nodes(&[5])), nodes(&[5]));
    assert_eq!(placed_on(&model_with("digits", 9), &[]), vec![]);
}

proptest! {
    #[test]
    fn a_node_that_comes_or_goes_moves_only_what_it_must(
        ids in proptest::collection::btree_set(1_000..9_000_u64, 2..12),
        replicas in 1..5_u32,
        gone in any::<prop::sample::Index>(),
    ) {
        let all: Vec<NodeId> = ids.into_iter().map(NodeId::new).collect();
        let gone = all[gone.index(all.len())];
        let rest: Vec<NodeId> = all.iter().copied().filter(|node| *node != gone).collect();
        let model = model_with("digits", replicas);
        let (before, after) = (placed_on(&model, &all), placed_on(&model, &rest));
        prop_assert_eq!(before.len(), all.len().min(replicas as usize));
        let kept: Vec<NodeId> = before.iter().copied().filter(|node| *node != gone).collect();
        prop_assert_eq!(&after[..kept.len()], &kept[..], "who stays, stays, in the same order");
        if !before.contains(&gone) {
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn the_order_of_candidates_does_not_matter(
        ids in proptest::collection::btree_set(1_000..9_000_u64, 1..12), replicas in 0..5_u32
    ) {
        let forwards: Vec<NodeId> = ids.iter().copied().map(NodeId::new).collect();
        let backwards: Vec<NodeId> = forwards.iter().rev().copied().collect();
        let model = model_with("digits", replicas);
        prop_assert_eq!(placed_on(&model, &forwards), placed_on(&model, &backwards));
    }
}
