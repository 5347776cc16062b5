//! On the leader: says in the log that a version is ready once every live node
//! on which it is placed has it loaded, or failed once the runtime refused it
//! on all of them. Loaded on some and refused by the others, it is ready as well:
//! those forward, and go on trying.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use starling_raft::consensus::Consensus;
use starling_raft::peers::Peers;
use starling_raft::state::placement::placed_on;
use starling_raft::state::{
    Command, ModelCommand, ModelName, NodeId, Ordinal, Phase, Principal, RequestId, State,
};
use uuid::Uuid;

use super::placement_plan::{candidates, wanted_versions};
use super::readiness::ReadinessBoard;
use super::readiness_view::ReadinessView;
use super::routing_table::VersionId;

const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// After a proposal that was not accepted, and as a safety net.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Watches without end, and proposes while this node leads. A proposal that a
/// leader's death interrupts is made again by the next one.
pub async fn run(consensus: Consensus, peers: Peers, board: Arc<ReadinessBoard>) {
    let principal = Principal::node(consensus.node_id());
    let mut status = consensus.watch_status();
    let mut applied = consensus.watch_applied();
    let mut live = peers.live();
    let mut view = board.watch_view();
    loop {
        let leads = status.borrow_and_update().is_leader;
        let state = Arc::clone(&applied.borrow_and_update().state);
        let alive: BTreeSet<NodeId> = live.borrow_and_update().keys().copied().collect();
        let known = Arc::clone(&view.borrow_and_update());
        if leads {
            for command in proposals(&state, &alive, &known) {
                let request_id = RequestId::new(Uuid::now_v7());
                tracing::info!(?command, "proposing what the nodes report");
                let proposed =
                    consensus.propose(&principal, request_id, Command::Model(command), PROPOSE_TIMEOUT).await;
                if let Err(error) = proposed {
                    tracing::warn!(%error, "a version's phase was not recorded; trying again");
                    tokio::time::sleep(LOOK_AGAIN).await;
                    break;
                }
            }
        }
        tokio::select! {
            changed = status.changed() => if changed.is_err() { return },
            changed = applied.changed() => if changed.is_err() { return },
            changed = live.changed() => if changed.is_err() { return },
            changed = view.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// What the leader is to propose, in order of model and ordinal. Proposing it
/// twice, or by two leaders, changes nothing.
pub fn proposals(state: &State, live: &BTreeSet<NodeId>, view: &ReadinessView) -> Vec<ModelCommand> {
    let candidates = candidates(state, live);
    let mut proposals = Vec::new();
    for model in state.models.iter() {
        let mut wanted = wanted_versions(state, model);
        wanted.sort_unstable();
        let placed = placed_on(model, &candidates);
        for ordinal in wanted {
            let registered =
                model.versions.get(&ordinal).is_some_and(|version| version.phase == Phase::Registered);
            if !registered || placed.is_empty() {
                continue;
            }
            let id = VersionId { model_id: model.id, ordinal };
            proposals.extend(verdict(&model.name, id.ordinal, id, &placed, view));
        }
    }
    proposals
}

fn verdict(
    model: &ModelName,
    ordinal: Ordinal,
    id: VersionId,
    placed: &[NodeId],
    view: &ReadinessView,
) -> Option<ModelCommand> {
    let refusal = |node: &NodeId| view.node(*node)?.failed.get(&id).filter(|failure| failure.refused);
    let has = |node: &NodeId| view.has(*node, id);
    if !placed.iter().all(|node| has(node) || refusal(node).is_some()) {
        return None;
    }
    if placed.iter().any(has) {
        return Some(ModelCommand::MarkReady { model: model.clone(), ordinal });
    }
    let first = placed.first().and_then(refusal)?;
    Some(ModelCommand::MarkFailed { model: model.clone(), ordinal, reason: first.reason.clone() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::inference::readiness_view::{LoadFailure, NodeReadiness};
    use crate::inference::test_states::TestState;

    struct Scene {
        cluster: TestState,
        nodes: Vec<NodeId>,
        live: BTreeSet<NodeId>,
        view: ReadinessView,
        id: VersionId,
    }

    /// Three nodes, one registered version.
    fn scene() -> Scene {
        let mut cluster = TestState::default();
        let nodes: Vec<NodeId> = (0..3).map(|_| cluster.join()).collect();
        let ordinal = cluster.register("digits");
        let id = VersionId { model_id: cluster.state.models.get("digits").unwrap().id, ordinal };
        let live = nodes.iter().copied().collect();
        Scene { cluster, nodes, live, view: ReadinessView::default(), id }
    }

    impl Scene {
        fn loads(&mut self, node: NodeId) {
            let loaded = [(self.id, 8)].into_iter().collect();
            let readiness = NodeReadiness { loaded, ..NodeReadiness::default() };
            self.view = self.view.with(node, readiness, 0).unwrap();
        }

        fn fails(&mut self, node: NodeId, reason: &str, refused: bool) {
            let failure = LoadFailure { reason: reason.into(), refused };
            let failed = [(self.id, failure)].into_iter().collect();
            let readiness = NodeReadiness { failed, ..NodeReadiness::default() };
            self.view = self.view.with(node, readiness, 0).unwrap();
        }

        fn proposals(&self) -> Vec<ModelCommand> {
            proposals(&self.cluster.state, &self.live, &self.view)
        }

        fn ready(&self) -> Vec<ModelCommand> {
            vec![ModelCommand::MarkReady { model: "digits".parse().unwrap(), ordinal: self.id.ordinal }]
        }
    }

    #[test]
    fn a_version_is_ready_once_every_placed_live_node_has_it() {
        let mut scene = scene();
        let nodes = scene.nodes.clone();
        scene.loads(nodes[0]);
        scene.loads(nodes[1]);
        assert_eq!(scene.proposals(), []);
        scene.loads(nodes[2]);
        assert_eq!(scene.proposals(), scene.ready());
    }

    #[test]
    fn a_dead_node_is_not_waited_for() {
        let mut scene = scene();
        let nodes = scene.nodes.clone();
        scene.loads(nodes[0]);
        scene.loads(nodes[1]);
        scene.live.remove(&nodes[2]);
        assert_eq!(scene.proposals(), scene.ready());
    }

    #[test]
    fn a_drained_node_is_not_waited_for() {
        let mut scene = scene();
        let nodes = scene.nodes.clone();
        scene.loads(nodes[0]);
        scene.loads(nodes[1]);
        scene.cluster.drain(nodes[2]);
        assert_eq!(scene.proposals(), scene.ready());
    }

    #[test]
    fn with_one_replica_only_the_placed_node_counts() {
        let mut scene = scene();
        scene.cluster.replicas("digits", 1);
        let placed = placed_on(scene.cluster.state.models.get("digits").unwrap(), &scene.nodes)[0];
        let other = *scene.nodes.iter().find(|node| **node != placed).unwrap();
        scene.loads(other);
        assert_eq!(scene.proposals(), []);
        scene.loads(placed);
        assert_eq!(scene.proposals(), scene.ready());
    }

    #[test]
    fn what_is_ready_is_not_proposed_again() {
        let mut scene = scene();
        for node in scene.nodes.clone() {
            scene.loads(node);
        }
        scene.cluster.ready("digits", scene.id.ordinal);
        assert_eq!(scene.proposals(), []);
    }

    #[test]
    fn a_version_failed_once_the_runtime_refused_it_on_every_placed_node() {
        let mut scene = scene();
        let nodes = scene.nodes.clone();
        scene.fails(nodes[0], "truncated", true);
        scene.fails(nodes[1], "truncated", true);
        assert_eq!(scene.proposals(), []);
        scene.fails(nodes[2], "truncated", true);
        let failed = ModelCommand::MarkFailed {
            model: "digits".parse().unwrap(),
            ordinal: scene.id.ordinal,
            reason: "truncated".into(),
        };
        assert_eq!(scene.proposals(), [failed]);
    }

    #[test]
    fn a_version_that_some_have_and_the_runtime_of_the_others_refuses_is_ready() {
        let mut scene = scene();
        let nodes = scene.nodes.clone();
        scene.fails(nodes[0], "no GPU", true);
        scene.fails(nodes[1], "no GPU", false);
        scene.loads(nodes[2]);
        assert_eq!(scene.proposals(), []);
        scene.fails(nodes[1], "no GPU", true);
        assert_eq!(scene.proposals(), scene.ready());
    }

    #[test]
    fn bytes_that_could_not_be_fetched_are_no_verdict() {
        let mut scene = scene();
        for node in scene.nodes.clone() {
            scene.fails(node, "no peer answered", false);
        }
        assert_eq!(scene.proposals(), []);
    }

    #[test]
    fn with_nobody_alive_nothing_is_said() {
        let mut scene = scene();
        scene.live.clear();
        assert_eq!(scene.proposals(), []);
    }
}
