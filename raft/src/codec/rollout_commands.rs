//! Commands about rollouts as they are stored: `0x07xx`. Only ever add.

use super::pieces::{VersionRefV1, WeightsV1, rollout_name, weights, weights_v1};
use super::rollout_pieces::{ArmV1, MeasureV1, RewardSumV1, SpecV1, each, measures, measures_v1};
use super::route_pieces::FrozenVersion;
use super::{CodecError, Decode, Encode, Stored, stored, thaw};
use crate::state::rollouts::commands::Step;
use crate::state::rollouts::{FeedbackDelta, RolloutCommand};
use crate::state::{Command, LogIndex, LogTime, NodeId, Ordinal};

const START: u16 = 0x0701;
const PAUSE: u16 = 0x0702;
const RESUME: u16 = 0x0703;
const PROMOTE: u16 = 0x0704;
const ABORT: u16 = 0x0705;
const UNDO: u16 = 0x0706;
const SET_ARMS: u16 = 0x0707;
const DROP_LEARNING: u16 = 0x0708;
const ADVANCE: u16 = 0x0709;
const ROLL_BACK: u16 = 0x070a;
const HOLD: u16 = 0x070b;
const PUBLISH: u16 = 0x070c;
const CONCLUDE: u16 = 0x070d;
const RECORD_FEEDBACK: u16 = 0x070e;

/// Every (number, version) that can be read.
pub(super) const KNOWN: &[(u16, u16)] = &[
    (START, 1),
    (PAUSE, 1),
    (RESUME, 1),
    (PROMOTE, 1),
    (ABORT, 1),
    (UNDO, 1),
    (SET_ARMS, 1),
    (DROP_LEARNING, 1),
    (ADVANCE, 1),
    (ROLL_BACK, 1),
    (HOLD, 1),
    (PUBLISH, 1),
    (CONCLUDE, 1),
    (RECORD_FEEDBACK, 1),
];

#[derive(Encode, Decode)]
struct StartCommandV1 {
    name: String,
    spec: SpecV1<VersionRefV1>,
    again: bool,
}

/// Of commands that say nothing but which.
#[derive(Encode, Decode)]
struct NamedCommandV1 {
    name: String,
}

#[derive(Encode, Decode)]
struct PromoteCommandV1 {
    name: String,
    full: bool,
    winner: Option<VersionRefV1>,
}

#[derive(Encode, Decode)]
struct AbortCommandV1 {
    name: String,
    why: String,
}

#[derive(Encode, Decode)]
struct SetArmsCommandV1 {
    name: String,
    arms: Vec<ArmV1<VersionRefV1>>,
}

#[derive(Encode, Decode)]
struct DropLearningCommandV1 {
    name: String,
    from_micros: u64,
    to_micros: u64,
}

#[derive(Encode, Decode)]
struct StepV1 {
    name: String,
    expected_revision: u64,
    why: String,
    evidence: Vec<MeasureV1>,
}

#[derive(Encode, Decode)]
struct AdvanceCommandV1 {
    step: StepV1,
    stage: u32,
}

#[derive(Encode, Decode)]
struct RollBackCommandV1 {
    step: StepV1,
}

#[derive(Encode, Decode)]
struct HoldCommandV1 {
    step: StepV1,
}

#[derive(Encode, Decode)]
struct PublishCommandV1 {
    step: StepV1,
    weights: WeightsV1,
}

#[derive(Encode, Decode)]
struct ConcludeCommandV1 {
    step: StepV1,
    winner: Option<u64>,
}

#[derive(Encode, Decode)]
struct RecordFeedbackCommandV1 {
    node: u64,
    sequence: u64,
    sums: Vec<RewardSumV1>,
}

pub(super) fn store(command: &RolloutCommand) -> Stored {
    let named = |name: &crate::state::RolloutName| NamedCommandV1 { name: name.to_string() };
    match command {
        RolloutCommand::Start { name, spec, again } => {
            let frozen = StartCommandV1 { name: name.to_string(), spec: SpecV1::new(spec), again: *again };
            stored(START, 1, &frozen)
        }
        RolloutCommand::Pause { name } => stored(PAUSE, 1, &named(name)),
        RolloutCommand::Resume { name } => stored(RESUME, 1, &named(name)),
        RolloutCommand::Promote { name, full, winner } => {
            let winner = winner.as_ref().map(VersionRefV1::freeze);
            stored(PROMOTE, 1, &PromoteCommandV1 { name: name.to_string(), full: *full, winner })
        }
        RolloutCommand::Abort { name, why } => {
            stored(ABORT, 1, &AbortCommandV1 { name: name.to_string(), why: why.clone() })
        }
        RolloutCommand::Undo { name } => stored(UNDO, 1, &named(name)),
        RolloutCommand::SetArms { name, arms } => {
            let arms = arms.iter().map(ArmV1::new).collect();
            stored(SET_ARMS, 1, &SetArmsCommandV1 { name: name.to_string(), arms })
        }
        RolloutCommand::DropLearning { name, from, to } => {
            let (from_micros, to_micros) = (from.as_micros(), to.as_micros());
            stored(
                DROP_LEARNING,
                1,
                &DropLearningCommandV1 { name: name.to_string(), from_micros, to_micros },
            )
        }
        RolloutCommand::Advance { step, stage } => {
            stored(ADVANCE, 1, &AdvanceCommandV1 { step: StepV1::new(step), stage: *stage })
        }
        RolloutCommand::RollBack { step } => {
            stored(ROLL_BACK, 1, &RollBackCommandV1 { step: StepV1::new(step) })
        }
        RolloutCommand::Hold { step } => stored(HOLD, 1, &HoldCommandV1 { step: StepV1::new(step) }),
        RolloutCommand::Publish { step, weights } => {
            let frozen = PublishCommandV1 { step: StepV1::new(step), weights: weights_v1(weights) };
            stored(PUBLISH, 1, &frozen)
        }
        RolloutCommand::Conclude { step, winner } => {
            let frozen = ConcludeCommandV1 { step: StepV1::new(step), winner: winner.map(Ordinal::get) };
            stored(CONCLUDE, 1, &frozen)
        }
        RolloutCommand::RecordFeedback(delta) => {
            let frozen = RecordFeedbackCommandV1 {
                node: delta.node.get(),
                sequence: delta.sequence,
                sums: delta.sums.iter().map(RewardSumV1::new).collect(),
            };
            stored(RECORD_FEEDBACK, 1, &frozen)
        }
    }
}

/// `None`: not one of these.
pub(super) fn restore(number: u16, version: u16, payload: &[u8]) -> Option<Result<Command, CodecError>> {
    let known = KNOWN.contains(&(number, version));
    known.then(|| restore_known(number, payload).map(Command::Rollout))
}

fn restore_known(number: u16, payload: &[u8]) -> Result<RolloutCommand, CodecError> {
    const WHAT: &str = "command";
    let named = || {
        let frozen: NamedCommandV1 = thaw(WHAT, payload)?;
        rollout_name(&frozen.name)
    };
    Ok(match number {
        START => {
            let StartCommandV1 { name, spec, again } = thaw(WHAT, payload)?;
            RolloutCommand::Start { name: rollout_name(&name)?, spec: Box::new(spec.thaw()?), again }
        }
        PAUSE => RolloutCommand::Pause { name: named()? },
        RESUME => RolloutCommand::Resume { name: named()? },
        PROMOTE => {
            let PromoteCommandV1 { name, full, winner } = thaw(WHAT, payload)?;
            let winner = winner.map(FrozenVersion::thaw).transpose()?;
            RolloutCommand::Promote { name: rollout_name(&name)?, full, winner }
        }
        ABORT => {
            let AbortCommandV1 { name, why } = thaw(WHAT, payload)?;
            RolloutCommand::Abort { name: rollout_name(&name)?, why }
        }
        UNDO => RolloutCommand::Undo { name: named()? },
        SET_ARMS => {
            let SetArmsCommandV1 { name, arms } = thaw(WHAT, payload)?;
            RolloutCommand::SetArms { name: rollout_name(&name)?, arms: each(arms, ArmV1::thaw)? }
        }
        DROP_LEARNING => {
            let DropLearningCommandV1 { name, from_micros, to_micros } = thaw(WHAT, payload)?;
            let (from, to) = (LogTime::from_micros(from_micros), LogTime::from_micros(to_micros));
            RolloutCommand::DropLearning { name: rollout_name(&name)?, from, to }
        }
        ADVANCE => {
            let AdvanceCommandV1 { step, stage } = thaw(WHAT, payload)?;
            RolloutCommand::Advance { step: step.thaw()?, stage }
        }
        ROLL_BACK => {
            let RollBackCommandV1 { step } = thaw(WHAT, payload)?;
            RolloutCommand::RollBack { step: step.thaw()? }
        }
        HOLD => {
            let HoldCommandV1 { step } = thaw(WHAT, payload)?;
            RolloutCommand::Hold { step: step.thaw()? }
        }
        PUBLISH => {
            let PublishCommandV1 { step, weights: frozen } = thaw(WHAT, payload)?;
            RolloutCommand::Publish { step: step.thaw()?, weights: weights(frozen)? }
        }
        CONCLUDE => {
            let ConcludeCommandV1 { step, winner } = thaw(WHAT, payload)?;
            RolloutCommand::Conclude { step: step.thaw()?, winner: winner.map(Ordinal::new) }
        }
        _ => {
            let RecordFeedbackCommandV1 { node, sequence, sums } = thaw(WHAT, payload)?;
            let sums = each(sums, RewardSumV1::thaw)?;
            RolloutCommand::RecordFeedback(FeedbackDelta { node: NodeId::new(node), sequence, sums })
        }
    })
}

impl StepV1 {
    fn new(live: &Step) -> Self {
        Self {
            name: live.name.to_string(),
            expected_revision: live.expected_revision.get(),
            why: live.why.clone(),
            evidence: measures_v1(&live.evidence),
        }
    }

    fn thaw(self) -> Result<Step, CodecError> {
        Ok(Step {
            name: rollout_name(&self.name)?,
            expected_revision: LogIndex::new(self.expected_revision),
            why: self.why,
            evidence: measures(self.evidence),
        })
    }
}
