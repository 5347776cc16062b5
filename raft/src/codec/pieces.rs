//! Frozen pieces that several stored types contain. Frozen as they are: a
//! change is a new piece in a new version of whatever contains it.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{CodecError, Decode, Encode, invalid};
use crate::state::models::{DataType, DeviceKind, InstanceMode, Oversize, TensorSpec, VersionSettings};
use crate::state::{
    Addresses, ArmName, ArtefactDigest, ModelName, NodeUuid, Ordinal, PartsPerMillion, Phase, RequestId,
    RolloutName, RuleName, Signature, VersionLabel, VersionRef,
};

pub(super) type LabelsV1 = BTreeMap<String, String>;
pub(super) type UuidV1 = [u8; 16];
/// Ordinal and parts per million.
pub(super) type WeightsV1 = Vec<(u64, u32)>;

#[derive(Encode, Decode)]
pub(super) struct AddressesV1 {
    peer: String,
    grpc: String,
    rest: String,
    metrics: String,
}

impl From<&Addresses> for AddressesV1 {
    fn from(live: &Addresses) -> Self {
        let Addresses { peer, grpc, rest, metrics } = live.clone();
        Self { peer, grpc, rest, metrics }
    }
}

impl From<AddressesV1> for Addresses {
    fn from(frozen: AddressesV1) -> Self {
        let AddressesV1 { peer, grpc, rest, metrics } = frozen;
        Self { peer, grpc, rest, metrics }
    }
}

#[derive(Encode, Decode)]
pub(super) enum DataTypeV1 {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

impl From<DataType> for DataTypeV1 {
    fn from(live: DataType) -> Self {
        match live {
            DataType::Bool => Self::Bool,
            DataType::Uint8 => Self::Uint8,
            DataType::Uint16 => Self::Uint16,
            DataType::Uint32 => Self::Uint32,
            DataType::Uint64 => Self::Uint64,
            DataType::Int8 => Self::Int8,
            DataType::Int16 => Self::Int16,
            DataType::Int32 => Self::Int32,
            DataType::Int64 => Self::Int64,
            DataType::Fp16 => Self::Fp16,
            DataType::Bf16 => Self::Bf16,
            DataType::Fp32 => Self::Fp32,
            DataType::Fp64 => Self::Fp64,
            DataType::Bytes => Self::Bytes,
        }
    }
}

impl From<DataTypeV1> for DataType {
    fn from(frozen: DataTypeV1) -> Self {
        match frozen {
            DataTypeV1::Bool => Self::Bool,
            DataTypeV1::Uint8 => Self::Uint8,
            DataTypeV1::Uint16 => Self::Uint16,
            DataTypeV1::Uint32 => Self::Uint32,
            DataTypeV1::Uint64 => Self::Uint64,
            DataTypeV1::Int8 => Self::Int8,
            DataTypeV1::Int16 => Self::Int16,
            DataTypeV1::Int32 => Self::Int32,
            DataTypeV1::Int64 => Self::Int64,
            DataTypeV1::Fp16 => Self::Fp16,
            DataTypeV1::Bf16 => Self::Bf16,
            DataTypeV1::Fp32 => Self::Fp32,
            DataTypeV1::Fp64 => Self::Fp64,
            DataTypeV1::Bytes => Self::Bytes,
        }
    }
}

#[derive(Encode, Decode)]
pub(super) struct TensorSpecV1 {
    name: String,
    data_type: DataTypeV1,
    shape: Vec<i64>,
    optional: bool,
}

impl From<&TensorSpec> for TensorSpecV1 {
    fn from(live: &TensorSpec) -> Self {
        let TensorSpec { name, data_type, shape, optional } = live.clone();
        Self { name, data_type: data_type.into(), shape, optional }
    }
}

impl From<TensorSpecV1> for TensorSpec {
    fn from(frozen: TensorSpecV1) -> Self {
        let TensorSpecV1 { name, data_type, shape, optional } = frozen;
        Self { name, data_type: data_type.into(), shape, optional }
    }
}

#[derive(Encode, Decode)]
pub(super) struct SignatureV1 {
    inputs: Vec<TensorSpecV1>,
    outputs: Vec<TensorSpecV1>,
    batchable: bool,
}

impl From<&Signature> for SignatureV1 {
    fn from(live: &Signature) -> Self {
        Self {
            inputs: live.inputs.iter().map(Into::into).collect(),
            outputs: live.outputs.iter().map(Into::into).collect(),
            batchable: live.batchable,
        }
    }
}

impl From<SignatureV1> for Signature {
    fn from(frozen: SignatureV1) -> Self {
        Self {
            inputs: frozen.inputs.into_iter().map(Into::into).collect(),
            outputs: frozen.outputs.into_iter().map(Into::into).collect(),
            batchable: frozen.batchable,
        }
    }
}

#[derive(Encode, Decode)]
pub(super) struct SettingsV1 {
    max_batch: u32,
    max_queue_delay_micros: u64,
    batching_disabled: bool,
    instances: u32,
    max_queue: u32,
    max_run_time_millis: u64,
    threads: u32,
}

/// Only for settings that [`VersionSettings::fit_feature_level_1`]: it has no room for the others.
impl From<&VersionSettings> for SettingsV1 {
    fn from(live: &VersionSettings) -> Self {
        let VersionSettings {
            max_batch,
            max_queue_delay_micros,
            batching_disabled,
            instances,
            max_queue,
            max_run_time_millis,
            threads,
            ..
        } = *live;
        Self {
            max_batch,
            max_queue_delay_micros,
            batching_disabled,
            instances,
            max_queue,
            max_run_time_millis,
            threads,
        }
    }
}

impl From<SettingsV1> for VersionSettings {
    fn from(frozen: SettingsV1) -> Self {
        let SettingsV1 {
            max_batch,
            max_queue_delay_micros,
            batching_disabled,
            instances,
            max_queue,
            max_run_time_millis,
            threads,
        } = frozen;
        Self {
            max_batch,
            max_queue_delay_micros,
            batching_disabled,
            instances,
            max_queue,
            max_run_time_millis,
            threads,
            ..Self::default()
        }
    }
}

#[derive(Encode, Decode)]
enum InstanceModeV1 {
    Auto,
    Local,
    Dedicated,
}

#[derive(Encode, Decode)]
enum DeviceKindV1 {
    Any,
    Cpu,
    Gpu,
}

#[derive(Encode, Decode)]
enum OversizeV1 {
    Split,
    Refuse,
}

/// What feature level 2 brought: where sessions run, priorities, queue timeouts.
#[derive(Encode, Decode)]
pub(super) struct SettingsV2 {
    max_batch: u32,
    max_queue_delay_micros: u64,
    batching_disabled: bool,
    instances: u32,
    max_queue: u32,
    max_run_time_millis: u64,
    threads: u32,
    spinning: bool,
    mode: InstanceModeV1,
    device: DeviceKindV1,
    oversize: OversizeV1,
    priority_levels: u32,
    default_priority_level: u32,
    queue_timeout_micros: u64,
    quiet: bool,
}

impl From<&VersionSettings> for SettingsV2 {
    fn from(live: &VersionSettings) -> Self {
        Self {
            max_batch: live.max_batch,
            max_queue_delay_micros: live.max_queue_delay_micros,
            batching_disabled: live.batching_disabled,
            instances: live.instances,
            max_queue: live.max_queue,
            max_run_time_millis: live.max_run_time_millis,
            threads: live.threads,
            spinning: live.spinning,
            mode: match live.mode {
                InstanceMode::Auto => InstanceModeV1::Auto,
                InstanceMode::Local => InstanceModeV1::Local,
                InstanceMode::Dedicated => InstanceModeV1::Dedicated,
            },
            device: match live.device {
                DeviceKind::Any => DeviceKindV1::Any,
                DeviceKind::Cpu => DeviceKindV1::Cpu,
                DeviceKind::Gpu => DeviceKindV1::Gpu,
            },
            oversize: match live.oversize {
                Oversize::Split => OversizeV1::Split,
                Oversize::Refuse => OversizeV1::Refuse,
            },
            priority_levels: live.priority_levels,
            default_priority_level: live.default_priority_level,
            queue_timeout_micros: live.queue_timeout_micros,
            quiet: live.quiet,
        }
    }
}

impl From<SettingsV2> for VersionSettings {
    fn from(frozen: SettingsV2) -> Self {
        Self {
            max_batch: frozen.max_batch,
            max_queue_delay_micros: frozen.max_queue_delay_micros,
            batching_disabled: frozen.batching_disabled,
            instances: frozen.instances,
            max_queue: frozen.max_queue,
            max_run_time_millis: frozen.max_run_time_millis,
            threads: frozen.threads,
            spinning: frozen.spinning,
            mode: match frozen.mode {
                InstanceModeV1::Auto => InstanceMode::Auto,
                InstanceModeV1::Local => InstanceMode::Local,
                InstanceModeV1::Dedicated => InstanceMode::Dedicated,
            },
            device: match frozen.device {
                DeviceKindV1::Any => DeviceKind::Any,
                DeviceKindV1::Cpu => DeviceKind::Cpu,
                DeviceKindV1::Gpu => DeviceKind::Gpu,
            },
            oversize: match frozen.oversize {
                OversizeV1::Split => Oversize::Split,
                OversizeV1::Refuse => Oversize::Refuse,
            },
            priority_levels: frozen.priority_levels,
            default_priority_level: frozen.default_priority_level,
            queue_timeout_micros: frozen.queue_timeout_micros,
            quiet: frozen.quiet,
        }
    }
}

#[derive(Encode, Decode)]
pub(super) enum PhaseV1 {
    Registered,
    Ready,
    Failed(String),
}

impl From<&Phase> for PhaseV1 {
    fn from(live: &Phase) -> Self {
        match live {
            Phase::Registered => Self::Registered,
            Phase::Ready => Self::Ready,
            Phase::Failed(reason) => Self::Failed(reason.clone()),
        }
    }
}

impl From<PhaseV1> for Phase {
    fn from(frozen: PhaseV1) -> Self {
        match frozen {
            PhaseV1::Registered => Self::Registered,
            PhaseV1::Ready => Self::Ready,
            PhaseV1::Failed(reason) => Self::Failed(reason),
        }
    }
}

#[derive(Encode, Decode)]
pub(super) enum VersionRefV1 {
    Ordinal(u64),
    Label(String),
}

impl From<&VersionRef> for VersionRefV1 {
    fn from(live: &VersionRef) -> Self {
        match live {
            VersionRef::Ordinal(ordinal) => Self::Ordinal(ordinal.get()),
            VersionRef::Label(label) => Self::Label(label.to_string()),
        }
    }
}

impl TryFrom<VersionRefV1> for VersionRef {
    type Error = CodecError;

    fn try_from(frozen: VersionRefV1) -> Result<Self, CodecError> {
        match frozen {
            VersionRefV1::Ordinal(ordinal) => Ok(Self::Ordinal(Ordinal::new(ordinal))),
            VersionRefV1::Label(label) => Ok(Self::Label(version_label(&label)?)),
        }
    }
}

pub(super) fn model_name(text: &str) -> Result<ModelName, CodecError> {
    text.parse().map_err(invalid("model name"))
}

pub(super) fn rollout_name(text: &str) -> Result<RolloutName, CodecError> {
    text.parse().map_err(invalid("rollout name"))
}

pub(super) fn arm_name(text: &str) -> Result<ArmName, CodecError> {
    text.parse().map_err(invalid("arm name"))
}

pub(super) fn rule_name(text: &str) -> Result<RuleName, CodecError> {
    text.parse().map_err(invalid("rule name"))
}

pub(super) fn version_label(text: &str) -> Result<VersionLabel, CodecError> {
    text.parse().map_err(invalid("version label"))
}

pub(super) fn parts_per_million(value: u32) -> Result<PartsPerMillion, CodecError> {
    PartsPerMillion::new(value).map_err(invalid("weight"))
}

pub(super) fn weights_v1(live: &[(Ordinal, PartsPerMillion)]) -> WeightsV1 {
    live.iter().map(|(ordinal, weight)| (ordinal.get(), weight.get())).collect()
}

pub(super) fn weights(frozen: WeightsV1) -> Result<Vec<(Ordinal, PartsPerMillion)>, CodecError> {
    let live = |(ordinal, weight)| Ok((Ordinal::new(ordinal), parts_per_million(weight)?));
    frozen.into_iter().map(live).collect()
}

pub(super) fn node_uuid(bytes: UuidV1) -> NodeUuid {
    NodeUuid::new(Uuid::from_bytes(bytes))
}

pub(super) fn request_id(bytes: UuidV1) -> RequestId {
    RequestId::new(Uuid::from_bytes(bytes))
}

pub(super) fn digest(bytes: [u8; 32]) -> ArtefactDigest {
    ArtefactDigest::new(bytes)
}
