//! The next change of who votes, as a function of what the leader sees. Pure.
//!
//! One change at a time, at most one voter out per change, and none that would
//! leave the old or the new voters without a majority that is alive. An odd
//! number of voters is the aim: an even one needs a larger majority and survives
//! no more losses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::state::{FeatureLevel, NodeId};

/// What the leader sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The leader.
    pub this_node: NodeId,
    /// Who belongs to the cluster, by the log.
    pub members: BTreeMap<NodeId, MemberView>,
    /// What the whole cluster may write.
    pub feature_level: FeatureLevel,
    /// Raft's voters; two sets while a joint configuration is in force.
    pub voter_sets: Vec<BTreeSet<NodeId>>,
    /// Raft's learners.
    pub learners: BTreeSet<NodeId>,
    /// The last change of Raft's membership is committed, and `members` is no
    /// older than it.
    pub settled: bool,
    /// Who has answered Raft in the last moments. (This node need not be in it.)
    pub reached: BTreeSet<NodeId>,
    /// Whose log is nearly as long as the leader's.
    pub caught_up: BTreeSet<NodeId>,
    /// For how long neither Raft nor gossip has heard of a node.
    pub silent_for: BTreeMap<NodeId, Duration>,
    /// How many nodes vote at most.
    pub voters_max: usize,
    /// A voter silent for so long is replaced.
    pub dead_after: Duration,
}

/// What the log says of a member, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberView {
    /// Leadership is kept away from it.
    pub draining: bool,
    /// What its binary can read.
    pub max_feature_level: FeatureLevel,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Leave a joint configuration that a former leader left behind.
    FinishJoint,
    /// Replicate the log to a member.
    AddLearner(NodeId),
    /// Stop replicating to a node that was removed.
    DropLearner(NodeId),
    /// Let these vote, and nobody else; who voted before becomes a learner.
    SetVoters(BTreeSet<NodeId>),
    /// Let another voter lead.
    TransferLeadership(NodeId),
    /// Allow what all members can read.
    RaiseFeatureLevel(FeatureLevel),
}

/// The next change, if any is due and safe.
pub fn plan(view: &View) -> Option<Change> {
    if !view.settled {
        return None;
    }
    if view.voter_sets.len() > 1 {
        let safe = view.voter_sets.iter().all(|voters| view.has_living_majority(voters));
        return safe.then_some(Change::FinishJoint);
    }
    let voters = view.voter_sets.first()?;
    drop_learner(view)
        .or_else(|| add_learner(view, voters))
        .or_else(|| replace_voter(view, voters))
        .or_else(|| resize(view, voters))
        .or_else(|| move_leadership(view, voters))
        .or_else(|| raise_feature_level(view))
}

fn drop_learner(view: &View) -> Option<Change> {
    let removed = view.learners.iter().find(|node| !view.is_member(**node))?;
    Some(Change::DropLearner(*removed))
}

fn add_learner(view: &View, voters: &BTreeSet<NodeId>) -> Option<Change> {
    let unknown = |node: &&NodeId| !voters.contains(node) && !view.learners.contains(node);
    view.members.keys().find(unknown).copied().map(Change::AddLearner)
}

/// Takes out one voter that was removed from the cluster or is dead.
fn replace_voter(view: &View, voters: &BTreeSet<NodeId>) -> Option<Change> {
    let others = || voters.iter().filter(|node| **node != view.this_node);
    let spare = view.candidates().next();
    let removed = others()
        .filter(|node| !view.is_member(**node))
        // The dead first: with them gone, the living are the larger part.
        .min_by_key(|node| view.reached.contains(node));
    if let Some(removed) = removed {
        return view.set_voters_if_safe(voters, replaced(voters, *removed, spare));
    }
    let dead = others().find(|node| view.is_dead(**node));
    if let Some(dead) = dead
        // Without a healthy replacement a dead voter stays, unless it only
        // makes the number even: a death must not shrink the cluster.
        && (spare.is_some() || voters.len().is_multiple_of(2))
    {
        return view.set_voters_if_safe(voters, replaced(voters, *dead, spare));
    }
    if view.is_member(view.this_node) || !voters.contains(&view.this_node) {
        return None;
    }
    // The leader itself was removed: it hands over first, if anyone can take over.
    match view.successor(voters) {
        Some(successor) => Some(Change::TransferLeadership(successor)),
        None => spare.and_then(|_| view.set_voters_if_safe(voters, replaced(voters, view.this_node, spare))),
    }
}

fn replaced(voters: &BTreeSet<NodeId>, out: NodeId, spare: Option<NodeId>) -> BTreeSet<NodeId> {
    voters.iter().copied().filter(|node| *node != out).chain(spare).collect()
}

/// Brings the number of voters to the largest odd one that there are nodes for.
fn resize(view: &View, voters: &BTreeSet<NodeId>) -> Option<Change> {
    if voters.iter().any(|node| !view.is_member(*node)) {
        return None;
    }
    let candidates: Vec<NodeId> = view.candidates().collect();
    let aim = odd_at_most((voters.len() + candidates.len()).min(view.voters_max));
    if aim > voters.len() {
        let promoted = candidates.into_iter().take(aim - voters.len());
        return view.set_voters_if_safe(voters, voters.iter().copied().chain(promoted).collect());
    }
    if aim < voters.len() {
        let others = voters.iter().filter(|node| **node != view.this_node);
        let demoted = others.max_by_key(|node| {
            let draining = view.members.get(node).is_some_and(|member| member.draining);
            (!view.is_reached(**node), draining, **node)
        })?;
        return view.set_voters_if_safe(voters, replaced(voters, *demoted, None));
    }
    None
}

fn odd_at_most(count: usize) -> usize {
    if count.is_multiple_of(2) { count.saturating_sub(1).max(1) } else { count }
}

fn move_leadership(view: &View, voters: &BTreeSet<NodeId>) -> Option<Change> {
    if !view.members.get(&view.this_node)?.draining {
        return None;
    }
    let successor = view.successor(voters)?;
    let draining = view.members.get(&successor)?.draining;
    (!draining).then_some(Change::TransferLeadership(successor))
}

fn raise_feature_level(view: &View) -> Option<Change> {
    let readable = view.members.values().map(|member| member.max_feature_level).min()?;
    (readable > view.feature_level).then_some(Change::RaiseFeatureLevel(readable))
}

impl View {
    fn is_member(&self, node: NodeId) -> bool {
        self.members.contains_key(&node)
    }

    fn is_reached(&self, node: NodeId) -> bool {
        node == self.this_node || self.reached.contains(&node)
    }

    fn is_dead(&self, node: NodeId) -> bool {
        !self.is_reached(node)
            && self.silent_for.get(&node).is_some_and(|silence| *silence >= self.dead_after)
    }

    /// Learners that could vote at once.
    fn candidates(&self) -> impl Iterator<Item = NodeId> {
        self.learners.iter().copied().filter(|node| {
            let member = self.members.get(node);
            member.is_some_and(|member| !member.draining)
                && self.is_reached(*node)
                && self.caught_up.contains(node)
        })
    }

    /// The voter to hand leadership to: alive, with a whole log, not draining if possible.
    fn successor(&self, voters: &BTreeSet<NodeId>) -> Option<NodeId> {
        voters
            .iter()
            .filter(|node| **node != self.this_node && self.is_reached(**node))
            .filter(|node| self.caught_up.contains(node))
            .filter_map(|node| self.members.get(node).map(|member| (member.draining, *node)))
            .min()
            .map(|(_, node)| node)
    }

    fn has_living_majority(&self, voters: &BTreeSet<NodeId>) -> bool {
        let living = voters.iter().filter(|node| self.is_reached(**node)).count();
        living > voters.len() / 2
    }

    fn set_voters_if_safe(&self, old: &BTreeSet<NodeId>, new: BTreeSet<NodeId>) -> Option<Change> {
        let safe = !new.is_empty() && self.has_living_majority(old) && self.has_living_majority(&new);
        safe.then_some(Change::SetVoters(new))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    const DEAD_AFTER: Duration = Duration::from_secs(300);

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId::new).collect()
    }

    /// A cluster led by the first voter, in which all is well.
    fn view(voters: &[u64], learners: &[u64]) -> View {
        let all: BTreeSet<NodeId> = nodes(voters).into_iter().chain(nodes(learners)).collect();
        let member = MemberView { draining: false, max_feature_level: FeatureLevel::new(1) };
        View {
            this_node: NodeId::new(voters[0]),
            members: all.iter().map(|node| (*node, member)).collect(),
            feature_level: FeatureLevel::new(1),
            voter_sets: vec![nodes(voters)],
            learners: nodes(learners),
            settled: true,
            reached: all.clone(),
            caught_up: all.clone(),
            silent_for: all.into_iter().map(|node| (node, Duration::ZERO)).collect(),
            voters_max: 5,
            dead_after: DEAD_AFTER,
        }
    }

    impl View {
        fn without_member(mut self, node: u64) -> Self {
            self.members.remove(&NodeId::new(node));
            self
        }

        fn silent(mut self, node: u64, silence: Duration) -> Self {
            self.reached.remove(&NodeId::new(node));
            self.silent_for.insert(NodeId::new(node), silence);
            self
        }

        fn draining(mut self, node: u64) -> Self {
            self.members.get_mut(&NodeId::new(node)).unwrap().draining = true;
            self
        }
    }

    fn set(voters: &[u64]) -> Option<Change> {
        Some(Change::SetVoters(nodes(voters)))
    }

    #[test]
    fn a_cluster_in_which_all_is_well_is_left_alone() {
        for (voters, learners) in [
            (&[1][..], &[][..]),
            (&[1], &[2]),
            (&[1, 2, 3], &[]),
            (&[1, 2, 3], &[4]),
            (&[1, 2, 3, 4, 5], &[6, 7]),
        ] {
            assert_eq!(plan(&view(voters, learners)), None, "{voters:?} {learners:?}");
        }
    }

    #[test]
    fn learners_vote_as_soon_as_that_makes_an_odd_number() {
        assert_eq!(plan(&view(&[1], &[2, 3])), set(&[1, 2, 3]));
        assert_eq!(plan(&view(&[1], &[2, 3, 4])), set(&[1, 2, 3]));
        assert_eq!(plan(&view(&[1], &[2, 3, 4, 5])), set(&[1, 2, 3, 4, 5]));
        assert_eq!(plan(&view(&[1, 2, 3], &[4, 5, 6])), set(&[1, 2, 3, 4, 5]));
        assert_eq!(plan(&view(&[1, 2], &[3])), set(&[1, 2, 3]));
    }

    #[test]
    fn an_even_number_of_voters_loses_its_highest_but_never_the_leader() {
        assert_eq!(plan(&view(&[1, 2], &[])), set(&[1]));
        assert_eq!(plan(&view(&[2, 1], &[])), set(&[2]));
        assert_eq!(plan(&view(&[1, 2, 3, 4], &[])), set(&[1, 2, 3]));
        assert_eq!(plan(&view(&[1, 2, 3, 4], &[]).draining(2)), set(&[1, 3, 4]));
    }

    #[test]
    fn no_more_vote_than_the_limit_allows() {
        let three = View { voters_max: 3, ..view(&[1, 2, 3], &[4, 5]) };
        assert_eq!(plan(&three), None);
        let lowered = View { voters_max: 3, ..view(&[1, 2, 3, 4, 5], &[]) };
        assert_eq!(plan(&lowered), set(&[1, 2, 3, 4]));
        let even = View { voters_max: 4, ..view(&[1, 2, 3], &[4, 5]) };
        assert_eq!(plan(&even), None);
    }

    #[test]
    fn a_learner_that_lags_is_silent_or_drains_does_not_vote() {
        let mut lagging = view(&[1], &[2, 3]);
        lagging.caught_up.remove(&NodeId::new(3));
        assert_eq!(plan(&lagging), None);
        assert_eq!(plan(&view(&[1], &[2, 3]).silent(3, Duration::from_secs(1))), None);
        assert_eq!(plan(&view(&[1], &[2, 3]).draining(3)), None);
    }

    #[test]
    fn members_that_raft_does_not_know_become_learners_and_strangers_go() {
        let mut joined = view(&[1], &[]);
        joined
            .members
            .insert(NodeId::new(2), MemberView { draining: false, max_feature_level: FeatureLevel::new(1) });
        assert_eq!(plan(&joined), Some(Change::AddLearner(NodeId::new(2))));
        assert_eq!(
            plan(&view(&[1, 2, 3], &[4]).without_member(4)),
            Some(Change::DropLearner(NodeId::new(4)))
        );
    }

    #[test]
    fn a_removed_voter_leaves_and_a_learner_takes_its_seat() {
        assert_eq!(plan(&view(&[1, 2, 3], &[4]).without_member(3)), set(&[1, 2, 4]));
        assert_eq!(plan(&view(&[1, 2, 3], &[]).without_member(3)), set(&[1, 2]));
    }

    #[test]
    fn of_two_removed_voters_the_dead_one_leaves_first() {
        let view =
            view(&[1, 2, 3, 4, 5], &[]).without_member(2).without_member(3).silent(3, Duration::from_secs(1));
        assert_eq!(plan(&view), set(&[1, 2, 4, 5]));
    }

    #[test]
    fn a_removed_leader_hands_over_or_is_replaced_by_a_learner() {
        assert_eq!(
            plan(&view(&[1, 2, 3], &[]).without_member(1)),
            Some(Change::TransferLeadership(NodeId::new(2)))
        );
        assert_eq!(plan(&view(&[1], &[2]).without_member(1)), set(&[2]));
    }

    #[test]
    fn a_dead_voter_is_replaced_only_after_its_time_and_only_by_a_healthy_learner() {
        let almost = DEAD_AFTER - Duration::from_secs(1);
        assert_eq!(plan(&view(&[1, 2, 3], &[4]).silent(3, almost)), None);
        assert_eq!(plan(&view(&[1, 2, 3], &[4]).silent(3, DEAD_AFTER)), set(&[1, 2, 4]));
        assert_eq!(plan(&view(&[1, 2, 3], &[]).silent(3, DEAD_AFTER)), None);
        assert_eq!(plan(&view(&[1, 2, 3], &[4]).silent(3, DEAD_AFTER).silent(4, DEAD_AFTER)), None);
    }

    #[test]
    fn one_dead_voter_at_a_time() {
        let two_dead = view(&[1, 2, 3, 4, 5], &[6, 7]).silent(2, DEAD_AFTER).silent(3, DEAD_AFTER);
        assert_eq!(plan(&two_dead), set(&[1, 3, 4, 5, 6]));
    }

    #[test]
    fn nothing_changes_without_a_living_majority() {
        let minority = view(&[1, 2, 3], &[4]).silent(2, DEAD_AFTER).silent(3, DEAD_AFTER);
        assert_eq!(plan(&minority), None);
    }

    #[test]
    fn nothing_changes_while_another_change_is_under_way() {
        let unsettled = View { settled: false, ..view(&[1], &[2, 3]) };
        assert_eq!(plan(&unsettled), None);
        let mut joint = view(&[1], &[2, 3]);
        joint.voter_sets.push(nodes(&[1, 2, 3]));
        assert_eq!(plan(&joint), Some(Change::FinishJoint));
    }

    #[test]
    fn a_draining_leader_hands_over_to_one_that_does_not_drain_and_keeps_its_seat() {
        assert_eq!(
            plan(&view(&[1, 2, 3], &[]).draining(1).draining(2)),
            Some(Change::TransferLeadership(NodeId::new(3)))
        );
        assert_eq!(plan(&view(&[1, 2, 3], &[]).draining(2)), None);
        assert_eq!(plan(&view(&[1, 2, 3], &[]).draining(1).draining(2).draining(3)), None);
    }

    #[test]
    fn the_feature_level_rises_once_every_member_can_read_it() {
        let mut mixed = view(&[1, 2, 3], &[]);
        for (node, level) in [(1, 3), (2, 2), (3, 1)] {
            mixed.members.get_mut(&NodeId::new(node)).unwrap().max_feature_level = FeatureLevel::new(level);
        }
        assert_eq!(plan(&mixed), None);
        mixed.members.get_mut(&NodeId::new(3)).unwrap().max_feature_level = FeatureLevel::new(2);
        assert_eq!(plan(&mixed), Some(Change::RaiseFeatureLevel(FeatureLevel::new(2))));
    }

    /// Any cluster of up to nine nodes, some of them silent, draining, removed or behind.
    fn any_view() -> impl Strategy<Value = View> {
        let node = (0..3_u8, any::<[bool; 4]>(), 0..600_u64);
        (proptest::collection::vec(node, 1..10), 1..4_usize).prop_map(|(nodes, third)| {
            let mut drawn = view(&[1], &[]);
            drawn.voters_max = [3, 5, 7][third - 1];
            for (at, (role, [reached, member, caught_up, draining], silence)) in nodes.into_iter().enumerate()
            {
                let node = NodeId::new(at as u64 + 2);
                match role {
                    0 => drawn.learners.insert(node),
                    _ => drawn.voter_sets[0].insert(node),
                };
                if member {
                    let level = FeatureLevel::new(1);
                    drawn.members.insert(node, MemberView { draining, max_feature_level: level });
                }
                if reached {
                    drawn.reached.insert(node);
                }
                if caught_up {
                    drawn.caught_up.insert(node);
                }
                let silence = if reached { 0 } else { silence };
                drawn.silent_for.insert(node, Duration::from_secs(silence));
            }
            drawn
        })
    }

    fn carry_out(view: &mut View, change: &Change) {
        match change {
            Change::AddLearner(node) => {
                view.learners.insert(*node);
            }
            Change::DropLearner(node) => {
                view.learners.remove(node);
            }
            Change::SetVoters(new) => {
                let old = std::mem::replace(&mut view.voter_sets[0], new.clone());
                view.learners.extend(old);
                view.learners.retain(|node| !new.contains(node));
            }
            other => panic!("not to be carried out here: {other:?}"),
        }
    }

    proptest! {
        #[test]
        fn every_change_of_voters_keeps_a_living_majority_and_removes_one_at_most(view in any_view()) {
            let Some(Change::SetVoters(new)) = plan(&view) else { return Ok(()) };
            let old = &view.voter_sets[0];
            prop_assert!(old.difference(&new).count() <= 1);
            for voters in [old, &new] {
                let living = voters.iter().filter(|node| view.is_reached(**node)).count();
                prop_assert!(2 * living > voters.len(), "{living} of {voters:?}");
            }
            for promoted in new.difference(old) {
                prop_assert!(view.reached.contains(promoted) && view.caught_up.contains(promoted));
                prop_assert!(!view.members[promoted].draining);
            }
            prop_assert!(new.len() <= old.len().max(view.voters_max));
        }

        #[test]
        fn the_changes_come_to_an_end_with_an_odd_number_of_voters_that_are_members(view in any_view()) {
            let mut view = view;
            let everyone: Vec<NodeId> = view.silent_for.keys().copied().collect();
            view.reached.extend(&everyone);
            view.caught_up.extend(&everyone);
            for _ in 0..60 {
                match plan(&view) {
                    Some(change) => carry_out(&mut view, &change),
                    None => {
                        let voters = &view.voter_sets[0];
                        prop_assert_eq!(voters.len() % 2, 1);
                        prop_assert!(voters.len() <= view.voters_max);
                        prop_assert!(voters.iter().all(|node| view.is_member(*node)));
                        return Ok(());
                    }
                }
            }
            prop_assert!(false, "still changing: {view:?}");
        }
    }
}
