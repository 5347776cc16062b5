//! One pass over all rollouts that are due: who is looked at when, and what each
//! look leaves for the next. Touches no clock and no network.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_raft::state::{LogIndex, LogTime, Model, NodeId, Ordinal, Rollout, RolloutName, State};

use super::measures::{Measures, Traffic};
use super::plan::{Memory, Plan, Scene, plan};

/// What all looks of one pass have in common.
pub struct View<'a> {
    /// The replicated state.
    pub state: &'a State,
    /// What the nodes counted.
    pub traffic: &'a Traffic,
    /// Log time.
    pub now: LogTime,
    /// Live nodes whose counts are not known by now.
    pub unheard: &'a [NodeId],
    /// Whether no live node has had a version of a model loaded for a while.
    pub is_gone: &'a dyn Fn(&Rollout, &Model, Ordinal) -> bool,
}

/// One rollout, looked at.
#[derive(Debug)]
pub struct Looked {
    /// As it was.
    pub rollout: Arc<Rollout>,
    /// What was known of it.
    pub measures: Measures,
    /// What the look comes to.
    pub plan: Plan,
}

/// When each rollout is due, and what its looks left behind.
#[derive(Debug, Default)]
pub struct Rounds {
    kept: HashMap<RolloutName, Kept>,
}

#[derive(Debug)]
struct Kept {
    revision: LogIndex,
    due: Instant,
    memory: Memory,
}

impl View<'_> {
    /// What one rollout's look depends on, and the look; `None`: its model is gone.
    pub fn look(&self, rollout: &Arc<Rollout>, memory: &Memory) -> Option<Looked> {
        let model = self.state.models.get(rollout.spec.model.as_str())?;
        let measures = Measures::of(rollout, model.id, self.traffic);
        let versions = rollout.versions().into_iter();
        let gone: BTreeSet<Ordinal> =
            versions.filter(|version| (self.is_gone)(rollout, model, *version)).collect();
        let plan = plan(&Scene {
            rollout,
            model,
            measures: &measures,
            now: self.now,
            gone: &gone,
            unheard: self.unheard,
            memory,
        });
        Some(Looked { rollout: Arc::clone(rollout), measures, plan })
    }
}

impl Rounds {
    /// Rollouts that are new, have changed, or whose time has come.
    pub fn due(&self, state: &State, at: Instant) -> Vec<Arc<Rollout>> {
        let is_due = |rollout: &&Arc<Rollout>| match self.kept.get(&rollout.name) {
            Some(kept) => kept.revision != rollout.revision || kept.due <= at,
            None => true,
        };
        state.rollouts.active().filter(is_due).cloned().collect()
    }

    /// Looks at each, and remembers when it is due again: after its interval, or
    /// when its stage is over, whichever is sooner.
    pub fn look(&mut self, view: &View<'_>, due: &[Arc<Rollout>], at: Instant) -> Vec<Looked> {
        let mut looked = Vec::with_capacity(due.len());
        for rollout in due {
            let before = self.kept.remove(&rollout.name).map(|kept| kept.memory).unwrap_or_default();
            let Some(one) = view.look(rollout, &before) else { continue };
            let interval = Duration::from_millis(rollout.spec.interval.0);
            let wait = one.plan.next.not_before.map_or(interval, |left| interval.min(left));
            let memory = one.plan.memory.clone();
            let kept = Kept { revision: rollout.revision, due: at + wait, memory };
            self.kept.insert(rollout.name.clone(), kept);
            looked.push(one);
        }
        looked
    }

    /// Looks at one without leaving a trace: for reports.
    pub fn glance(&self, view: &View<'_>, rollout: &Arc<Rollout>) -> Option<Looked> {
        let nothing = Memory::default();
        let memory = self.kept.get(&rollout.name).map_or(&nothing, |kept| &kept.memory);
        view.look(rollout, memory)
    }

    /// Forgets those that are over.
    pub fn retain_active(&mut self, state: &State) {
        self.kept
            .retain(|name, _| state.rollouts.get(name.as_str()).is_some_and(|rollout| !rollout.is_over()));
    }

    /// Forgets everything: this node does not lead any more.
    pub fn clear(&mut self) {
        self.kept.clear();
    }

    /// When the next one is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.kept.values().map(|kept| kept.due).min()
    }
}
