//! Events of rollouts as they are stored: `0x87xx`. Only ever add.

use super::pieces::{WeightsV1, rollout_name, weights, weights_v1};
use super::rollout_pieces::{ArmV1, EndingV1, MeasureV1, RewardSumV1, SpecV1, each, measures, measures_v1};
use super::{CodecError, Decode, Encode, Stored, stored, thaw};
use crate::state::rollouts::RolloutEvent;
use crate::state::{Event, NodeId};

const STARTED: u16 = 0x8701;
const PAUSED: u16 = 0x8702;
const RESUMED: u16 = 0x8703;
const ADVANCED: u16 = 0x8704;
const HELD: u16 = 0x8705;
const PUBLISHED: u16 = 0x8706;
const FINISHED: u16 = 0x8707;
const ARMS_SET: u16 = 0x8708;
const LEARNING_DROPPED: u16 = 0x8709;
const FEEDBACK_RECORDED: u16 = 0x870a;
const APPROVED: u16 = 0x870b;

/// Every (number, version) that can be read.
pub(super) const KNOWN: &[(u16, u16)] = &[
    (STARTED, 1),
    (PAUSED, 1),
    (RESUMED, 1),
    (ADVANCED, 1),
    (HELD, 1),
    (PUBLISHED, 1),
    (FINISHED, 1),
    (ARMS_SET, 1),
    (LEARNING_DROPPED, 1),
    (FEEDBACK_RECORDED, 1),
    (APPROVED, 1),
];

#[derive(Encode, Decode)]
struct RolloutStartedV1 {
    name: String,
    spec: SpecV1<u64>,
    weights: WeightsV1,
}

/// Of events that say nothing but which.
#[derive(Encode, Decode)]
struct NamedV1 {
    name: String,
}

#[derive(Encode, Decode)]
struct RolloutAdvancedV1 {
    name: String,
    stage: u32,
    weights: WeightsV1,
    why: String,
    evidence: Vec<MeasureV1>,
}

#[derive(Encode, Decode)]
struct RolloutHeldV1 {
    name: String,
    why: String,
    evidence: Vec<MeasureV1>,
}

#[derive(Encode, Decode)]
struct RolloutPublishedV1 {
    name: String,
    weights: WeightsV1,
    why: String,
    evidence: Vec<MeasureV1>,
}

#[derive(Encode, Decode)]
struct RolloutFinishedV1 {
    name: String,
    ending: EndingV1,
    weights: WeightsV1,
    why: String,
    evidence: Vec<MeasureV1>,
}

#[derive(Encode, Decode)]
struct RolloutArmsSetV1 {
    name: String,
    arms: Vec<ArmV1<u64>>,
    weights: WeightsV1,
}

#[derive(Encode, Decode)]
struct RolloutLearningDroppedV1 {
    name: String,
    first_slice: u32,
    last_slice: u32,
    rewards: i64,
}

#[derive(Encode, Decode)]
struct FeedbackRecordedV1 {
    node: u64,
    sequence: u64,
    sums: Vec<RewardSumV1>,
}

pub(super) fn store(event: &RolloutEvent) -> Stored {
    let named = |name: &crate::state::RolloutName| NamedV1 { name: name.to_string() };
    match event {
        RolloutEvent::RolloutStarted { name, spec, weights } => {
            let (spec, weights) = (SpecV1::new(spec), weights_v1(weights));
            stored(STARTED, 1, &RolloutStartedV1 { name: name.to_string(), spec, weights })
        }
        RolloutEvent::RolloutPaused { name } => stored(PAUSED, 1, &named(name)),
        RolloutEvent::RolloutResumed { name } => stored(RESUMED, 1, &named(name)),
        RolloutEvent::RolloutApproved { name } => stored(APPROVED, 1, &named(name)),
        RolloutEvent::RolloutAdvanced { name, stage, weights, why, evidence } => {
            let frozen = RolloutAdvancedV1 {
                name: name.to_string(),
                stage: *stage,
                weights: weights_v1(weights),
                why: why.clone(),
                evidence: measures_v1(evidence),
            };
            stored(ADVANCED, 1, &frozen)
        }
        RolloutEvent::RolloutHeld { name, why, evidence } => {
            let (why, evidence) = (why.clone(), measures_v1(evidence));
            stored(HELD, 1, &RolloutHeldV1 { name: name.to_string(), why, evidence })
        }
        RolloutEvent::RolloutPublished { name, weights, why, evidence } => {
            let frozen = RolloutPublishedV1 {
                name: name.to_string(),
                weights: weights_v1(weights),
                why: why.clone(),
                evidence: measures_v1(evidence),
            };
            stored(PUBLISHED, 1, &frozen)
        }
        RolloutEvent::RolloutFinished { name, ending, weights, why, evidence } => {
            let frozen = RolloutFinishedV1 {
                name: name.to_string(),
                ending: (*ending).into(),
                weights: weights_v1(weights),
                why: why.clone(),
                evidence: measures_v1(evidence),
            };
            stored(FINISHED, 1, &frozen)
        }
        RolloutEvent::RolloutArmsSet { name, arms, weights } => {
            let (arms, weights) = (arms.iter().map(ArmV1::new).collect(), weights_v1(weights));
            stored(ARMS_SET, 1, &RolloutArmsSetV1 { name: name.to_string(), arms, weights })
        }
        RolloutEvent::RolloutLearningDropped { name, first_slice, last_slice, rewards } => {
            let frozen = RolloutLearningDroppedV1 {
                name: name.to_string(),
                first_slice: *first_slice,
                last_slice: *last_slice,
                rewards: *rewards,
            };
            stored(LEARNING_DROPPED, 1, &frozen)
        }
        RolloutEvent::FeedbackRecorded { node, sequence, sums } => {
            let sums = sums.iter().map(RewardSumV1::new).collect();
            let frozen = FeedbackRecordedV1 { node: node.get(), sequence: *sequence, sums };
            stored(FEEDBACK_RECORDED, 1, &frozen)
        }
    }
}

/// `None`: not one of these.
pub(super) fn restore(number: u16, version: u16, payload: &[u8]) -> Option<Result<Event, CodecError>> {
    let known = KNOWN.contains(&(number, version));
    known.then(|| restore_known(number, payload).map(Event::Rollout))
}

fn restore_known(number: u16, payload: &[u8]) -> Result<RolloutEvent, CodecError> {
    const WHAT: &str = "event";
    let named = || {
        let frozen: NamedV1 = thaw(WHAT, payload)?;
        rollout_name(&frozen.name)
    };
    Ok(match number {
        STARTED => {
            let RolloutStartedV1 { name, spec, weights: frozen } = thaw(WHAT, payload)?;
            let (name, spec) = (rollout_name(&name)?, Box::new(spec.thaw()?));
            RolloutEvent::RolloutStarted { name, spec, weights: weights(frozen)? }
        }
        PAUSED => RolloutEvent::RolloutPaused { name: named()? },
        RESUMED => RolloutEvent::RolloutResumed { name: named()? },
        APPROVED => RolloutEvent::RolloutApproved { name: named()? },
        ADVANCED => {
            let RolloutAdvancedV1 { name, stage, weights: frozen, why, evidence } = thaw(WHAT, payload)?;
            let (name, weights) = (rollout_name(&name)?, weights(frozen)?);
            RolloutEvent::RolloutAdvanced { name, stage, weights, why, evidence: measures(evidence) }
        }
        HELD => {
            let RolloutHeldV1 { name, why, evidence } = thaw(WHAT, payload)?;
            RolloutEvent::RolloutHeld { name: rollout_name(&name)?, why, evidence: measures(evidence) }
        }
        PUBLISHED => {
            let RolloutPublishedV1 { name, weights: frozen, why, evidence } = thaw(WHAT, payload)?;
            let (name, weights) = (rollout_name(&name)?, weights(frozen)?);
            RolloutEvent::RolloutPublished { name, weights, why, evidence: measures(evidence) }
        }
        FINISHED => {
            let RolloutFinishedV1 { name, ending, weights: frozen, why, evidence } = thaw(WHAT, payload)?;
            RolloutEvent::RolloutFinished {
                name: rollout_name(&name)?,
                ending: ending.into(),
                weights: weights(frozen)?,
                why,
                evidence: measures(evidence),
            }
        }
        ARMS_SET => {
            let RolloutArmsSetV1 { name, arms, weights: frozen } = thaw(WHAT, payload)?;
            let (name, arms) = (rollout_name(&name)?, each(arms, ArmV1::thaw)?);
            RolloutEvent::RolloutArmsSet { name, arms, weights: weights(frozen)? }
        }
        LEARNING_DROPPED => {
            let RolloutLearningDroppedV1 { name, first_slice, last_slice, rewards } = thaw(WHAT, payload)?;
            let name = rollout_name(&name)?;
            RolloutEvent::RolloutLearningDropped { name, first_slice, last_slice, rewards }
        }
        _ => {
            let FeedbackRecordedV1 { node, sequence, sums } = thaw(WHAT, payload)?;
            let sums = each(sums, RewardSumV1::thaw)?;
            RolloutEvent::FeedbackRecorded { node: NodeId::new(node), sequence, sums }
        }
    })
}
