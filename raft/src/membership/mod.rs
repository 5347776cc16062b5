//! Who votes. One actor on the leader, and only it, changes Raft's membership.
//!
//! [`plan`] decides and is pure; the actor gathers what it looks at, carries one
//! change out, and looks again. Every change is conditional on the membership
//! it was planned on, so that two leaders cannot interleave theirs.

pub mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::Precondition;
use openraft::storage::RaftStateMachine;
use openraft::{BasicNode, ChangeMembers, Instant as _, Raft, RaftMetrics, ServerState};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use uuid::Uuid;

use self::plan::{Change, MemberView, View, plan};
use crate::consensus::{AppliedState, Consensus};
use crate::gossip::LivePeers;
use crate::raft_types::TypeConfig;
use crate::state::{ClusterCommand, Command, FeatureLevel, Member, NodeId, Principal, RequestId};

/// A change that takes longer is looked at again; Raft may still finish it.
const CHANGE_DEADLINE: Duration = Duration::from_secs(10);
/// How far behind the leader's log a node may be to count as caught up.
const CAUGHT_UP_ENTRIES: u64 = 500;
/// How recently a node must have answered Raft to count as reached.
const REACHED_WITHIN: Duration = Duration::from_secs(3);

/// How the actor decides.
#[derive(Debug, Clone)]
pub struct AutopilotConfig {
    /// How many nodes vote at most: 3, 5 or 7.
    pub voters_max: usize,
    /// A voter silent for so long is replaced by a healthy learner.
    pub dead_after: Duration,
    /// Between looks at the cluster. After a change it looks at once.
    pub interval: Duration,
}

/// Starts the actor on this node. It acts while this node leads, and waits
/// otherwise. `raft` is the same core that `consensus` stands on. Abort the
/// handle to stop it: every change is one that the next leader's actor finishes.
pub fn start<SM>(
    raft: Raft<TypeConfig, SM>,
    consensus: Consensus,
    live: watch::Receiver<LivePeers>,
    config: AutopilotConfig,
) -> JoinHandle<()>
where
    SM: RaftStateMachine<TypeConfig>,
{
    tokio::spawn(async move {
        let mut clock = interval(config.interval);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut actor = Autopilot { raft, consensus, live, config, heard: BTreeMap::new() };
        loop {
            clock.tick().await;
            // As long as there is something to do and it works.
            while actor.round().await {}
        }
    })
}

struct Autopilot<SM: RaftStateMachine<TypeConfig>> {
    raft: Raft<TypeConfig, SM>,
    consensus: Consensus,
    live: watch::Receiver<LivePeers>,
    config: AutopilotConfig,
    /// When each node was last heard of while this node led. A new leader gives
    /// everybody their full time again.
    heard: BTreeMap<NodeId, Instant>,
}

impl<SM: RaftStateMachine<TypeConfig>> Autopilot<SM> {
    /// One look, one change at most. True if a change was carried out.
    async fn round(&mut self) -> bool {
        let metrics = self.raft.metrics().borrow_watched().clone();
        if metrics.state != ServerState::Leader {
            self.heard.clear();
            return false;
        }
        let applied = self.consensus.applied();
        let view = self.look(&metrics, &applied);
        let Some(change) = plan(&view) else { return false };
        tracing::info!(?change, "changes the cluster's membership");
        match timeout(CHANGE_DEADLINE, self.carry_out(&change, &metrics, &applied)).await {
            Ok(Ok(())) => true,
            Ok(Err(reason)) => {
                tracing::warn!(?change, reason, "a change of membership failed; looks again");
                false
            }
            Err(_) => {
                tracing::warn!(?change, "a change of membership was not confirmed in time; looks again");
                false
            }
        }
    }

    fn look(&mut self, metrics: &RaftMetrics<TypeConfig>, applied: &AppliedState) -> View {
        let membership = metrics.membership_config.membership();
        let ids = |ids: &mut dyn Iterator<Item = u64>| ids.map(NodeId::new).collect::<BTreeSet<_>>();
        let learners = ids(&mut membership.learner_ids());
        let voter_sets = membership.get_joint_config().iter();
        let reached = reached(metrics);
        let known = ids(&mut membership.nodes().map(|(node, _)| *node));
        // Whom Raft knows has joined in an earlier entry: until that is applied
        // here, a new leader would take members for strangers.
        let is_applied =
            metrics.membership_config.log_id().is_some_and(|log_id| applied.index.get() >= log_id.index);
        let is_committed = metrics.membership_config.log_id() == metrics.committed_membership_config.log_id();
        View {
            this_node: self.consensus.node_id(),
            members: applied.state.members.iter().map(|member| (member.node_id, seen(member))).collect(),
            feature_level: applied.state.cluster.feature_level,
            voter_sets: voter_sets.map(|voters| ids(&mut voters.iter().copied())).collect(),
            learners,
            settled: is_committed && is_applied,
            caught_up: caught_up(metrics),
            silent_for: self.silences(&known, &reached),
            reached,
            voters_max: self.config.voters_max,
            dead_after: self.config.dead_after,
        }
    }

    /// For how long each node was heard of neither by Raft nor by gossip.
    fn silences(
        &mut self,
        known: &BTreeSet<NodeId>,
        reached: &BTreeSet<NodeId>,
    ) -> BTreeMap<NodeId, Duration> {
        let now = Instant::now();
        let live = self.live.borrow();
        self.heard.retain(|node, _| known.contains(node));
        for node in known {
            let heard = self.heard.entry(*node).or_insert(now);
            if reached.contains(node) || live.contains_key(node) {
                *heard = now;
            }
        }
        self.heard.iter().map(|(node, heard)| (*node, now.duration_since(*heard))).collect()
    }

    async fn carry_out(
        &self,
        change: &Change,
        metrics: &RaftMetrics<TypeConfig>,
        applied: &AppliedState,
    ) -> Result<(), String> {
        match change {
            Change::FinishJoint => self.change(ChangeMembers::AddVoterIds(BTreeSet::new()), metrics).await,
            Change::AddLearner(node) => {
                let member = applied.state.members.get(*node).ok_or("the node is gone already")?;
                let node = BasicNode::new(member.addresses.peer.clone());
                let added = BTreeMap::from([(member.node_id.get(), node)]);
                self.change(ChangeMembers::AddNodes(added), metrics).await
            }
            Change::DropLearner(node) => {
                self.change(ChangeMembers::RemoveNodes(BTreeSet::from([node.get()])), metrics).await
            }
            Change::SetVoters(voters) => {
                let voters = voters.iter().map(|node| node.get()).collect();
                self.change(ChangeMembers::ReplaceAllVoters(voters), metrics).await
            }
            Change::TransferLeadership(node) => self.transfer(*node).await,
            Change::RaiseFeatureLevel(level) => self.raise(*level).await,
        }
    }

    /// Changes Raft's membership if it is still the one that was looked at.
    async fn change(
        &self,
        change: ChangeMembers<u64, BasicNode>,
        metrics: &RaftMetrics<TypeConfig>,
    ) -> Result<(), String> {
        let unchanged =
            Precondition::LastMembershipLogId { last_membership_log_id: *metrics.membership_config.log_id() };
        let retain_as_learners = true;
        self.raft
            .change_membership_if(change, retain_as_learners, [unchanged])
            .await
            .map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Returns once this node no longer leads.
    async fn transfer(&self, to: NodeId) -> Result<(), String> {
        self.raft.trigger().transfer_leader(to.get()).await.map_err(|error| error.to_string())?;
        let mut status = self.consensus.watch_status();
        status.wait_for(|status| !status.is_leader).await.map_err(|error| error.to_string())?;
        Ok(())
    }

    async fn raise(&self, level: FeatureLevel) -> Result<(), String> {
        let principal = Principal::node(self.consensus.node_id());
        let command = Command::Cluster(ClusterCommand::RaiseFeatureLevel { level });
        let request_id = RequestId::new(Uuid::now_v7());
        self.consensus
            .propose(&principal, request_id, command, CHANGE_DEADLINE)
            .await
            .map_err(|error| error.to_string())?;
        Ok(())
    }
}

fn seen(member: &Member) -> MemberView {
    MemberView { draining: member.draining, max_feature_level: member.max_feature_level }
}

fn reached(metrics: &RaftMetrics<TypeConfig>) -> BTreeSet<NodeId> {
    let acknowledged = metrics.heartbeat.iter().flatten();
    acknowledged
        .filter(|(_, at)| at.as_ref().is_some_and(|at| at.elapsed() <= REACHED_WITHIN))
        .map(|(node, _)| NodeId::new(*node))
        .collect()
}

fn caught_up(metrics: &RaftMetrics<TypeConfig>) -> BTreeSet<NodeId> {
    let last = metrics.last_log_index.unwrap_or(0);
    let matched = metrics.replication.iter().flatten();
    matched
        .filter_map(|(node, matched)| matched.as_ref().map(|matched| (node, matched.index)))
        .filter(|(_, matched)| last.saturating_sub(*matched) <= CAUGHT_UP_ENTRIES)
        .map(|(node, _)| NodeId::new(*node))
        .collect()
}

/// Resolves once the log says that this node is no longer a member: the process
/// must end then, as it will hear nothing more.
pub async fn removed(consensus: &Consensus) {
    let mut applied = consensus.watch_applied();
    let own = consensus.node_id();
    let is_member = |applied: &AppliedState| applied.state.members.get(own).is_some();
    if applied.wait_for(is_member).await.is_ok()
        && applied.wait_for(|applied| !is_member(applied)).await.is_ok()
    {
        return;
    }
    // The log's handle is gone: nothing to say any more.
    std::future::pending().await
}
