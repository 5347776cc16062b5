//! A model's route as a register: what a single, never failing copy of it
//! would answer.

use super::history::{Answer, Call, Operation};
use super::linearizability::{Specification, Timed};

/// The register, with the value it had before the first operation.
pub struct RouteRegister {
    /// As a read before the run saw it.
    pub initial: RouteState,
}

/// What a route remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteState {
    /// Weight of the first version, in parts per million.
    pub value: u32,
    /// At which log index it was set.
    pub epoch: EpochKnowledge,
}

/// A write whose answer was lost set an epoch that nobody was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EpochKnowledge {
    /// Exactly.
    Known(u64),
    /// Something later than this.
    After(u64),
}

impl EpochKnowledge {
    fn may_be(self, epoch: u64) -> bool {
        match self {
            Self::Known(known) => known == epoch,
            Self::After(before) => epoch > before,
        }
    }

    fn lower_bound(self) -> u64 {
        match self {
            Self::Known(epoch) | Self::After(epoch) => epoch,
        }
    }

    fn may_become(self, epoch: u64) -> bool {
        epoch > self.lower_bound()
    }
}

impl Specification for RouteRegister {
    type State = RouteState;
    type Operation = (Call, Answer);

    fn initial(&self) -> RouteState {
        self.initial
    }

    fn step(&self, state: &RouteState, (call, answer): &(Call, Answer)) -> Vec<RouteState> {
        match (call, answer) {
            (Call::Read, Answer::Value { epoch, value }) => {
                let seen = *value == state.value && state.epoch.may_be(*epoch);
                only_if(seen, RouteState { value: *value, epoch: EpochKnowledge::Known(*epoch) })
            }
            (Call::Write { value } | Call::WriteAt { value, .. }, Answer::Unchanged) => {
                only_if(*value == state.value, *state)
            }
            (Call::Write { value }, Answer::Written { epoch }) => written(state, *value, *epoch),
            (Call::WriteAt { epoch: expected, value }, Answer::Written { epoch }) => {
                if state.epoch.may_be(*expected) { written(state, *value, *epoch) } else { vec![] }
            }
            (Call::WriteAt { epoch: expected, .. }, Answer::OtherEpoch) => {
                only_if(state.epoch != EpochKnowledge::Known(*expected), *state)
            }
            (Call::Write { value }, Answer::Unknown) => vec![unheard(state, *value)],
            (Call::WriteAt { epoch, value }, Answer::Unknown) => {
                only_if(state.epoch.may_be(*epoch), unheard(state, *value))
            }
            _ => vec![],
        }
    }
}

fn only_if(possible: bool, state: RouteState) -> Vec<RouteState> {
    if possible { vec![state] } else { vec![] }
}

fn written(state: &RouteState, value: u32, epoch: u64) -> Vec<RouteState> {
    let changed = value != state.value && state.epoch.may_become(epoch);
    only_if(changed, RouteState { value, epoch: EpochKnowledge::Known(epoch) })
}

fn unheard(state: &RouteState, value: u32) -> RouteState {
    if value == state.value {
        return *state;
    }
    RouteState { value, epoch: EpochKnowledge::After(state.epoch.lower_bound()) }
}

/// The operations of one model that say anything about its register: what was
/// certainly refused says nothing, nor does a read without an answer.
pub fn timed_operations(history: &[Operation], model: &str) -> Vec<Timed<(Call, Answer)>> {
    history
        .iter()
        .filter(|operation| operation.model == model && operation.answer != Answer::Refused)
        .filter(|operation| !(operation.call == Call::Read && operation.answer == Answer::Unknown))
        .map(|operation| Timed {
            called: operation.called_ns,
            returned: operation.returned_ns.filter(|_| operation.answer != Answer::Unknown),
            operation: (operation.call, operation.answer),
        })
        .collect()
}
