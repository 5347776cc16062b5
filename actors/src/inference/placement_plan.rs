//! What this node should load and what it may let go of: a pure function of
//! the replicated state, of who is alive, and of who has what.
//!
//! Wanted are, of each model, the versions that its route names, and the newest
//! [`VERSIONS_KEPT_WARM_MAX`] others that have not failed: a rollback finds its
//! target warm, and a model with a thousand versions does not fill the memory.
//! An older version can be pinned or routed to only where it is still loaded.
//!
//! Loading takes cores and memory from what answers. A node on which a model
//! answers already loads its further versions in its turn: peers take turns in
//! waves, each of them twice as wide as the one before, so that never all
//! replicas load at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use starling_raft::state::placement::placed_on;
use starling_raft::state::{Model, NodeId, Ordinal, Phase, State, Version};

use super::VersionKey;
use super::readiness_view::ReadinessView;
use super::routing_table::VersionId;

/// Versions of one model that are loaded without being in its route.
pub const VERSIONS_KEPT_WARM_MAX: usize = 8;

/// How far this node is with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalPhase {
    /// Being fetched or loaded.
    Loading,
    /// Answers.
    Loaded,
    /// Answers what it has accepted, then is freed.
    Unloading,
    /// Could not be loaded; true once it is time to try again.
    Failed {
        /// The back-off is over.
        retry_due: bool,
    },
}

/// A version to be loaded.
#[derive(Debug, Clone)]
pub struct LoadOrder {
    /// Which.
    pub id: VersionId,
    /// Which, as the host knows it.
    pub key: VersionKey,
    /// As the log knows it.
    pub version: Arc<Version>,
}

/// What to do now.
#[derive(Debug, Default)]
pub struct PlacementPlan {
    /// In order of model and ordinal, routed versions first.
    pub load: Vec<LoadOrder>,
    /// Others serve these, or nobody is routed to them any more: let go of them
    /// after a grace.
    pub release: BTreeSet<VersionId>,
    /// Failed, or of a deleted model: let go of them now.
    pub withdraw: BTreeSet<VersionId>,
    /// Failures of versions that are no longer wanted here.
    pub forget: BTreeSet<VersionId>,
}

/// What the plan depends on.
#[derive(Debug)]
pub struct PlacementInput<'a> {
    /// Whose plan.
    pub this_node: NodeId,
    /// As applied here.
    pub state: &'a State,
    /// Who is alive, as gossip at this node sees it. This node counts as alive.
    pub live: &'a BTreeSet<NodeId>,
    /// What this node has, by version and the name under which the host has it.
    pub local: &'a BTreeMap<VersionId, (VersionKey, LocalPhase)>,
    /// What the others have said.
    pub view: &'a ReadinessView,
}

/// The nodes that may serve: members, alive, not draining. In order of id.
pub fn candidates(state: &State, live: &BTreeSet<NodeId>) -> Vec<NodeId> {
    let serving = state.members.iter().filter(|member| !member.draining && live.contains(&member.node_id));
    serving.map(|member| member.node_id).collect()
}

/// The versions of a model that should be loaded where the model is placed:
/// those that its route or its rollout may send requests to first.
pub fn wanted_versions(state: &State, model: &Model) -> Vec<Ordinal> {
    let route = state.routes.get(model.name.as_str());
    let rolled_out = state.rollouts.owner_of(&model.name).map(|rollout| rollout.versions());
    let in_route = |ordinal: Ordinal| {
        route.is_some_and(|route| route.names(ordinal))
            || rolled_out.as_ref().is_some_and(|versions| versions.contains(&ordinal))
    };
    let may_be_loaded = |version: &Arc<Version>| !matches!(version.phase, Phase::Failed(_));
    let versions = || model.versions.values().filter(|version| may_be_loaded(version));
    let routed = versions().map(|version| version.ordinal).filter(|ordinal| in_route(*ordinal));
    let others = versions().map(|version| version.ordinal).filter(|ordinal| !in_route(*ordinal));
    let mut newest: Vec<Ordinal> = others.collect();
    newest.sort_unstable_by(|left, right| right.cmp(left));
    newest.truncate(VERSIONS_KEPT_WARM_MAX);
    routed.chain(newest).collect()
}

/// Plans.
pub fn plan(input: &PlacementInput<'_>) -> PlacementPlan {
    let mut live = input.live.clone();
    live.insert(input.this_node);
    let candidates = candidates(input.state, &live);
    let occupied: HashMap<&VersionKey, VersionId> = input
        .local
        .iter()
        .filter(|(_, (_, phase))| !matches!(phase, LocalPhase::Failed { .. }))
        .map(|(id, (key, _))| (key, *id))
        .collect();
    let mut plan = PlacementPlan::default();
    let mut justified: BTreeSet<VersionId> = BTreeSet::new();
    for model in input.state.models.iter() {
        let placed = placed_on(model, &candidates);
        let placed_here = placed.contains(&input.this_node);
        let wanted = wanted_versions(input.state, model);
        for ordinal in &wanted {
            let id = VersionId { model_id: model.id, ordinal: *ordinal };
            let served_elsewhere =
                placed.iter().any(|node| *node != input.this_node && input.view.has(*node, id));
            let local = input.local.get(&id).map(|(_, phase)| *phase);
            match local {
                None | Some(LocalPhase::Failed { retry_due: true }) if placed_here => {
                    let key = VersionKey { model: model.name.clone(), ordinal: *ordinal };
                    let name_is_free = !occupied.contains_key(&key);
                    let may_load = name_is_free && is_our_turn(input, &placed, id);
                    if let Some(version) = model.versions.get(ordinal).filter(|_| may_load) {
                        plan.load.push(LoadOrder { id, key, version: Arc::clone(version) });
                    }
                    justified.insert(id);
                }
                Some(LocalPhase::Loaded) if !placed_here && served_elsewhere => {
                    plan.release.insert(id);
                    justified.insert(id);
                }
                Some(LocalPhase::Failed { .. }) if !placed_here => {}
                _ => {
                    justified.insert(id);
                }
            }
        }
        release_unwanted(&mut plan, &mut justified, input.local, model, &wanted);
    }
    for (id, (key, phase)) in input.local {
        if justified.contains(id) {
            continue;
        }
        match phase {
            // Peers that have not applied the last change of the route may
            // still send requests for it.
            LocalPhase::Loaded if is_deleted_from_a_living_model(input.state, *id, key) => {
                plan.release.insert(*id)
            }
            LocalPhase::Loaded => plan.withdraw.insert(*id),
            LocalPhase::Failed { .. } => plan.forget.insert(*id),
            LocalPhase::Loading | LocalPhase::Unloading => false,
        };
    }
    plan
}

/// Whether the peers of earlier waves are done with a version, one way or the
/// other; at once where nothing of the model answers on this node. A load ends,
/// at the latest by its timeout, so everybody's turn comes.
fn is_our_turn(input: &PlacementInput<'_>, placed: &[NodeId], id: VersionId) -> bool {
    let answers_here = input.local.iter().any(|(other, (_, phase))| {
        other.model_id == id.model_id && *other != id && *phase == LocalPhase::Loaded
    });
    let rank = placed.iter().position(|node| *node == input.this_node);
    let Some(rank) = rank.filter(|_| answers_here) else { return true };
    let is_done = |node: &NodeId| {
        let has_failed = || input.view.node(*node).is_some_and(|node| node.failed.contains_key(&id));
        input.view.has(*node, id) || has_failed()
    };
    placed.iter().take(first_rank_of_wave(rank)).all(is_done)
}

/// Waves are the ranks 0, 1–2, 3–6, 7–14, …
fn first_rank_of_wave(rank: usize) -> usize {
    let wave = (rank + 1).ilog2();
    (1 << wave) - 1
}

fn is_deleted_from_a_living_model(state: &State, id: VersionId, key: &VersionKey) -> bool {
    let model = state.models.get(key.model.as_str()).filter(|model| model.id == id.model_id);
    model.is_some_and(|model| !model.versions.contains_key(&id.ordinal))
}

/// Versions that still exist but are too old to be kept warm.
fn release_unwanted(
    plan: &mut PlacementPlan,
    justified: &mut BTreeSet<VersionId>,
    local: &BTreeMap<VersionId, (VersionKey, LocalPhase)>,
    model: &Model,
    wanted: &[Ordinal],
) {
    for version in model.versions.values() {
        let id = VersionId { model_id: model.id, ordinal: version.ordinal };
        let loaded = matches!(local.get(&id), Some((_, LocalPhase::Loaded)));
        let failed = matches!(version.phase, Phase::Failed(_));
        if loaded && !failed && !wanted.contains(&version.ordinal) {
            plan.release.insert(id);
            justified.insert(id);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::inference::readiness_view::{LoadFailure, NodeReadiness};
    use crate::inference::test_states::TestState;

    /// A cluster, one node's view of it, and what that node has.
    struct Scene {
        cluster: TestState,
        nodes: Vec<NodeId>,
        live: BTreeSet<NodeId>,
        local: BTreeMap<VersionId, (VersionKey, LocalPhase)>,
        view: ReadinessView,
    }

    impl Scene {
        fn of_nodes(count: usize) -> Self {
            let mut cluster = TestState::default();
            let nodes: Vec<NodeId> = (0..count).map(|_| cluster.join()).collect();
            let live = nodes.iter().copied().collect();
            Self { cluster, nodes, live, local: BTreeMap::new(), view: ReadinessView::default() }
        }

        fn id(&self, model: &str, ordinal: Ordinal) -> VersionId {
            VersionId { model_id: self.cluster.state.models.get(model).unwrap().id, ordinal }
        }

        fn has(&mut self, model: &str, ordinal: Ordinal, phase: LocalPhase) -> VersionId {
            let id = self.id(model, ordinal);
            let key = VersionKey { model: model.parse().unwrap(), ordinal };
            self.local.insert(id, (key, phase));
            id
        }

        fn peer_has(&mut self, node: NodeId, id: VersionId) {
            let readiness =
                NodeReadiness { loaded: [(id, 8)].into_iter().collect(), ..NodeReadiness::default() };
            self.view = self.view.with(node, readiness, 0).unwrap();
        }

        fn peer_failed(&mut self, node: NodeId, id: VersionId) {
            let failure = LoadFailure { reason: "refused".into(), refused: true };
            let readiness =
                NodeReadiness { failed: [(id, failure)].into_iter().collect(), ..NodeReadiness::default() };
            self.view = self.view.with(node, readiness, 0).unwrap();
        }

        fn plan_of(&self, this_node: NodeId) -> PlacementPlan {
            plan(&PlacementInput {
                this_node,
                state: &self.cluster.state,
                live: &self.live,
                local: &self.local,
                view: &self.view,
            })
        }

        /// The node on which a model with one replica is placed, and another.
        fn placed_and_other(&self, model: &str) -> (NodeId, NodeId) {
            let model = self.cluster.state.models.get(model).unwrap();
            let ranked = placed_on(model, &candidates(&self.cluster.state, &self.live));
            let other = self.nodes.iter().find(|node| **node != ranked[0]).unwrap();
            (ranked[0], *other)
        }
    }

    fn loads(plan: &PlacementPlan) -> Vec<u64> {
        plan.load.iter().map(|order| order.id.ordinal.get()).collect()
    }

    #[test]
    fn a_registered_version_is_loaded_on_every_node() {
        let mut scene = Scene::of_nodes(3);
        scene.cluster.register("digits");
        for node in &scene.nodes {
            assert_eq!(loads(&scene.plan_of(*node)), [1]);
        }
    }

    #[test]
    fn one_replica_is_loaded_on_one_node_only() {
        let mut scene = Scene::of_nodes(3);
        scene.cluster.register("digits");
        scene.cluster.replicas("digits", 1);
        let loading = scene.nodes.iter().filter(|node| !scene.plan_of(**node).load.is_empty());
        assert_eq!(loading.count(), 1);
    }

    #[test]
    fn what_is_loaded_or_loading_is_not_loaded_again() {
        let mut scene = Scene::of_nodes(1);
        let first = scene.cluster.register("digits");
        for phase in [LocalPhase::Loading, LocalPhase::Loaded, LocalPhase::Unloading] {
            scene.has("digits", first, phase);
            let plan = scene.plan_of(scene.nodes[0]);
            assert!(plan.load.is_empty() && plan.release.is_empty() && plan.withdraw.is_empty());
        }
    }

    #[test]
    fn a_failure_is_tried_again_once_its_back_off_is_over() {
        let mut scene = Scene::of_nodes(1);
        let first = scene.cluster.register("digits");
        scene.has("digits", first, LocalPhase::Failed { retry_due: false });
        assert!(scene.plan_of(scene.nodes[0]).load.is_empty());
        scene.has("digits", first, LocalPhase::Failed { retry_due: true });
        assert_eq!(loads(&scene.plan_of(scene.nodes[0])), [1]);
    }

    #[test]
    fn a_version_that_the_log_calls_failed_is_forgotten() {
        let mut scene = Scene::of_nodes(1);
        let first = scene.cluster.register("digits");
        scene.cluster.failed("digits", first, "truncated");
        let id = scene.has("digits", first, LocalPhase::Failed { retry_due: true });
        let plan = scene.plan_of(scene.nodes[0]);
        assert!(plan.load.is_empty());
        assert_eq!(plan.forget, BTreeSet::from([id]));
    }

    #[test]
    fn a_deleted_model_is_withdrawn_at_once() {
        let mut scene = Scene::of_nodes(1);
        let first = scene.cluster.register("digits");
        let id = scene.has("digits", first, LocalPhase::Loaded);
        scene.cluster.delete("digits");
        assert_eq!(scene.plan_of(scene.nodes[0]).withdraw, BTreeSet::from([id]));
    }

    #[test]
    fn a_deleted_version_is_kept_for_a_grace_since_peers_may_not_know_yet() {
        let mut scene = Scene::of_nodes(1);
        let first = scene.cluster.register("digits");
        scene.cluster.ready("digits", first);
        let second = scene.cluster.register("digits");
        scene.has("digits", first, LocalPhase::Loaded);
        let id = scene.has("digits", second, LocalPhase::Loaded);
        scene.cluster.delete_version("digits", second);
        let plan = scene.plan_of(scene.nodes[0]);
        assert_eq!((plan.release, plan.withdraw), (BTreeSet::from([id]), BTreeSet::new()));
    }

    #[test]
    fn where_a_model_answers_its_next_version_is_loaded_in_waves() {
        let mut scene = Scene::of_nodes(4);
        let first = scene.cluster.register("digits");
        scene.cluster.ready("digits", first);
        let second = scene.cluster.register("digits");
        scene.has("digits", first, LocalPhase::Loaded);
        let model = scene.cluster.state.models.get("digits").unwrap();
        let ranked = placed_on(model, &candidates(&scene.cluster.state, &scene.live));
        let loading = |scene: &Scene| {
            ranked.iter().map(|node| !loads(&scene.plan_of(*node)).is_empty()).collect::<Vec<_>>()
        };
        assert_eq!(loading(&scene), [true, false, false, false]);
        let id = scene.id("digits", second);
        scene.peer_has(ranked[0], id);
        assert_eq!(loading(&scene), [true, true, true, false]);
        scene.peer_has(ranked[1], id);
        assert_eq!(loading(&scene), [true, true, true, false]);
        // A failure holds nobody up, and neither does a node that is gone.
        scene.peer_failed(ranked[2], id);
        assert_eq!(loading(&scene), [true, true, true, true]);
    }

    #[test]
    fn where_nothing_of_a_model_answers_it_is_loaded_everywhere_at_once() {
        let mut scene = Scene::of_nodes(3);
        let first = scene.cluster.register("digits");
        scene.cluster.ready("digits", first);
        scene.cluster.register("digits");
        for node in &scene.nodes {
            assert_eq!(loads(&scene.plan_of(*node)), [1, 2]);
        }
    }

    #[test]
    fn waves_double() {
        assert_eq!([0, 1, 2, 3, 6, 7, 14, 15].map(first_rank_of_wave), [0, 1, 1, 3, 3, 7, 7, 15]);
    }

    #[test]
    fn a_version_waits_until_an_older_namesake_is_gone_from_the_host() {
        let mut scene = Scene::of_nodes(1);
        let first = scene.cluster.register("digits");
        let key = VersionKey { model: "digits".parse().unwrap(), ordinal: first };
        let of_a_deleted_model = VersionId { model_id: 1, ordinal: first };
        scene.local.insert(of_a_deleted_model, (key, LocalPhase::Loaded));
        let plan = scene.plan_of(scene.nodes[0]);
        assert_eq!(plan.withdraw, BTreeSet::from([of_a_deleted_model]));
        assert!(plan.load.is_empty());
        scene.local.clear();
        assert_eq!(loads(&scene.plan_of(scene.nodes[0])), [1]);
    }

    #[test]
    fn a_drained_node_keeps_a_version_until_a_placed_node_has_it() {
        let mut scene = Scene::of_nodes(2);
        let first = scene.cluster.register("digits");
        let (drained, other) = (scene.nodes[0], scene.nodes[1]);
        let id = scene.has("digits", first, LocalPhase::Loaded);
        scene.cluster.drain(drained);
        assert!(scene.plan_of(drained).release.is_empty());
        scene.peer_has(other, id);
        assert_eq!(scene.plan_of(drained).release, BTreeSet::from([id]));
    }

    #[test]
    fn a_drained_node_loads_nothing_new() {
        let mut scene = Scene::of_nodes(2);
        scene.cluster.drain(scene.nodes[0]);
        scene.cluster.register("digits");
        assert!(scene.plan_of(scene.nodes[0]).load.is_empty());
    }

    #[test]
    fn an_unplaced_node_does_not_count_on_another_unplaced_node() {
        let mut scene = Scene::of_nodes(3);
        let first = scene.cluster.register("digits");
        scene.cluster.replicas("digits", 1);
        let (placed, unplaced) = scene.placed_and_other("digits");
        let also_unplaced = *scene.nodes.iter().find(|node| **node != placed && **node != unplaced).unwrap();
        let id = scene.has("digits", first, LocalPhase::Loaded);
        scene.peer_has(also_unplaced, id);
        assert!(scene.plan_of(unplaced).release.is_empty());
        scene.peer_has(placed, id);
        assert_eq!(scene.plan_of(unplaced).release, BTreeSet::from([id]));
    }

    #[test]
    fn the_next_node_takes_over_when_the_placed_one_dies() {
        let mut scene = Scene::of_nodes(3);
        scene.cluster.register("digits");
        scene.cluster.replicas("digits", 1);
        let (placed, _) = scene.placed_and_other("digits");
        scene.live.remove(&placed);
        let (successor, _) = scene.placed_and_other("digits");
        assert_eq!(loads(&scene.plan_of(successor)), [1]);
    }

    #[test]
    fn old_versions_outside_the_route_are_released_and_routed_ones_kept() {
        let mut scene = Scene::of_nodes(1);
        let first = scene.cluster.register("digits");
        scene.cluster.ready("digits", first);
        for _ in 0..VERSIONS_KEPT_WARM_MAX + 1 {
            scene.cluster.register("digits");
        }
        let routed = scene.has("digits", first, LocalPhase::Loaded);
        let old = scene.has("digits", Ordinal::new(2), LocalPhase::Loaded);
        let plan = scene.plan_of(scene.nodes[0]);
        assert_eq!(plan.release, BTreeSet::from([old]));
        assert!(!plan.withdraw.contains(&routed));
        assert_eq!(loads(&plan), [10, 9, 8, 7, 6, 5, 4, 3]);
    }
}
