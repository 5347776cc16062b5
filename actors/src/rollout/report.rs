//! How a rollout stands, for people and pipelines: what each version got and did,
//! what the gates say, and what the next step waits for.

use std::sync::Arc;
use std::time::Duration;

use starling_raft::state::rollouts::Rollout;
use starling_raft::state::rollouts::spec::{Gate, RolloutSpec};
use starling_raft::state::rollouts::stages::Stage;
use starling_raft::state::{NodeId, Ordinal, PartsPerMillion};

/// One rollout, as the leader sees it now.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutReport {
    /// The plan and how far it has come.
    pub rollout: Arc<Rollout>,
    /// Every version that it sends traffic or copies to, in order of ordinal.
    pub versions: Vec<VersionReport>,
    /// Every gate of the present stage, each for each version that it looks at.
    pub gates: Vec<GateReport>,
    /// What comes next.
    pub next: NextStep,
    /// Nodes whose counts are in here, in order.
    pub reported_by: Vec<NodeId>,
}

/// What one version got and did in the present stage, on all nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionReport {
    /// Which.
    pub version: Ordinal,
    /// What people call it.
    pub label: String,
    /// Its place in the rollout: an arm's name, `stable` or `candidate`.
    pub arm: Option<String>,
    /// Of the traffic that the rollout deals out.
    pub weight: PartsPerMillion,
    /// Requests that were routed to it.
    pub requests: u64,
    /// Those of them that failed by no fault of the caller.
    pub errors: u64,
    /// Of its answers; absent: it has answered nobody.
    pub latency_p50: Option<Duration>,
    /// Of its answers; absent: it has answered nobody.
    pub latency_p99: Option<Duration>,
    /// How many rewards it has, over the whole run.
    pub rewards: u64,
    /// Their mean; absent: it has none.
    pub reward_mean: Option<f64>,
    /// Means that are believable: of an experiment's arm, always valid; of a
    /// bandit's, two deviations of the belief.
    pub reward_interval: Option<(f64, f64)>,
    /// Of being the best arm, 0 to 1; bandits only.
    pub probability_best: Option<f64>,
    /// What its copies came to; absent: it gets none.
    pub copies: Option<CopiesReport>,
}

/// What became of the copies that a shadow got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopiesReport {
    /// Answered, and held against the live answer.
    pub compared: u64,
    /// Those of them that agreed.
    pub agreed: u64,
    /// Copies that the shadow failed.
    pub errors: u64,
    /// Copies that found no room.
    pub dropped: u64,
}

/// What one gate says of one version.
#[derive(Debug, Clone, PartialEq)]
pub struct GateReport {
    /// Which gate.
    pub gate: Gate,
    /// Of which version.
    pub version: Ordinal,
    /// What it says.
    pub verdict: GateVerdict,
    /// The estimate; absent: nothing was seen.
    pub value: Option<f64>,
    /// Not less than this; absent: not known.
    pub lower: Option<f64>,
    /// Not more than this; absent: not known.
    pub upper: Option<f64>,
    /// Out of how many, of the version that has fewer.
    pub samples: u64,
    /// It does not pass with fewer.
    pub samples_needed: u64,
    /// The same for people.
    pub says: String,
}

/// What a gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateVerdict {
    /// What is asked for holds.
    Pass,
    /// It does not.
    Fail,
    /// Neither is clear.
    Inconclusive,
}

/// What comes next, and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextStep {
    /// For people: `v2 gets 50 %`, `v2 is promoted`, `nothing: it is over`.
    pub what: String,
    /// Each thing that is missing, for people; empty: it comes at the next look.
    pub waits_for: Vec<String>,
    /// The time that must pass before it, in log time; absent: it waits for no time.
    pub not_before: Option<Duration>,
}

/// What a rollout would do, were it started now.
#[derive(Debug, Clone, PartialEq)]
pub struct DryRun {
    /// The plan with every version looked up.
    pub spec: RolloutSpec,
    /// Its stages, in order.
    pub stages: Vec<Stage>,
    /// What its gates say of what the cluster has counted of these versions so
    /// far, under the present route.
    pub gates: Vec<GateReport>,
    /// What the first look would lead to, given those numbers.
    pub would: NextStep,
}
