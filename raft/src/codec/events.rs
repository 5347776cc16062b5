//! Events as they are stored, for ever. Numbers `0x81xx` concern the cluster,
//! `0x82xx` members, `0x83xx` models, `0x84xx` routes. Only ever add.

use super::pieces::{
    AddressesV1, LabelsV1, SettingsV1, SettingsV2, SignatureV1, UuidV1, WeightsV1, digest, model_name,
    node_uuid, version_label, weights, weights_v1,
};
use super::route_pieces::{RuleV1, ShadowV1};
use super::{CodecError, Decode, Encode, Stored, rollout_events, stored, thaw};
use crate::state::models::VersionSettings;
use crate::state::{
    ClusterEvent, ClusterId, Event, FeatureLevel, MemberEvent, ModelEvent, NodeId, Ordinal, RouteEvent,
};

const CLUSTER_FOUNDED: u16 = 0x8101;
const FEATURE_LEVEL_RAISED: u16 = 0x8102;
const CHECKPOINT_TAKEN: u16 = 0x8103;
const NODE_JOINED: u16 = 0x8201;
const NODE_ANNOUNCED: u16 = 0x8202;
const NODE_DRAINED: u16 = 0x8203;
const NODE_UNDRAINED: u16 = 0x8204;
const NODE_REMOVED: u16 = 0x8205;
const NODE_LABELS_SET: u16 = 0x8206;
const VERSION_REGISTERED: u16 = 0x8301;
const VERSION_READY: u16 = 0x8302;
const VERSION_FAILED: u16 = 0x8303;
const VERSION_RETRIED: u16 = 0x8304;
const VERSION_DELETED: u16 = 0x8305;
const MODEL_DELETED: u16 = 0x8306;
const PLACEMENT_SET: u16 = 0x8307;
const ROUTE_SET: u16 = 0x8401;
const ROUTE_CONFIGURED: u16 = 0x8402;

/// Every (number, version) that can be read.
pub(super) const KNOWN: &[(u16, u16)] = &[
    (CLUSTER_FOUNDED, 1),
    (FEATURE_LEVEL_RAISED, 1),
    (CHECKPOINT_TAKEN, 1),
    (NODE_JOINED, 1),
    (NODE_ANNOUNCED, 1),
    (NODE_DRAINED, 1),
    (NODE_UNDRAINED, 1),
    (NODE_REMOVED, 1),
    (NODE_LABELS_SET, 1),
    (VERSION_REGISTERED, 1),
    (VERSION_REGISTERED, 2),
    (VERSION_READY, 1),
    (VERSION_FAILED, 1),
    (VERSION_RETRIED, 1),
    (VERSION_DELETED, 1),
    (MODEL_DELETED, 1),
    (PLACEMENT_SET, 1),
    (ROUTE_SET, 1),
    (ROUTE_CONFIGURED, 1),
];

#[derive(Encode, Decode)]
struct ClusterFoundedV1 {
    cluster_id: UuidV1,
}

#[derive(Encode, Decode)]
struct FeatureLevelRaisedV1 {
    level: u32,
}

#[derive(Encode, Decode)]
struct CheckpointTakenV1 {}

#[derive(Encode, Decode)]
struct NodeJoinedV1 {
    node_id: u64,
    node_uuid: UuidV1,
    addresses: AddressesV1,
    labels: LabelsV1,
    max_feature_level: u32,
    starling_version: String,
}

#[derive(Encode, Decode)]
struct NodeAnnouncedV1 {
    node_id: u64,
    addresses: AddressesV1,
    labels: LabelsV1,
    max_feature_level: u32,
    starling_version: String,
}

#[derive(Encode, Decode)]
struct NodeDrainedV1 {
    node_id: u64,
}

#[derive(Encode, Decode)]
struct NodeUndrainedV1 {
    node_id: u64,
}

#[derive(Encode, Decode)]
struct NodeRemovedV1 {
    node_id: u64,
}

#[derive(Encode, Decode)]
struct NodeLabelsSetV1 {
    node_id: u64,
    labels: LabelsV1,
}

/// Its versions differ in nothing but the settings.
#[derive(Encode, Decode)]
struct VersionRegistered<Settings> {
    model: String,
    ordinal: u64,
    label: String,
    digest: [u8; 32],
    size_bytes: u64,
    signature: SignatureV1,
    settings: Settings,
}

type VersionRegisteredV1 = VersionRegistered<SettingsV1>;
type VersionRegisteredV2 = VersionRegistered<SettingsV2>;

impl VersionRegistered<()> {
    fn with<Settings>(self, settings: Settings) -> VersionRegistered<Settings> {
        let Self { model, ordinal, label, digest, size_bytes, signature, settings: () } = self;
        VersionRegistered { model, ordinal, label, digest, size_bytes, signature, settings }
    }
}

#[derive(Encode, Decode)]
struct VersionReadyV1 {
    model: String,
    ordinal: u64,
}

#[derive(Encode, Decode)]
struct VersionFailedV1 {
    model: String,
    ordinal: u64,
    reason: String,
}

#[derive(Encode, Decode)]
struct VersionRetriedV1 {
    model: String,
    ordinal: u64,
}

#[derive(Encode, Decode)]
struct VersionDeletedV1 {
    model: String,
    ordinal: u64,
}

#[derive(Encode, Decode)]
struct ModelDeletedV1 {
    model: String,
}

#[derive(Encode, Decode)]
struct PlacementSetV1 {
    model: String,
    replicas: u32,
}

#[derive(Encode, Decode)]
struct RouteSetV1 {
    model: String,
    weights: WeightsV1,
}

#[derive(Encode, Decode)]
struct RouteConfiguredV1 {
    model: String,
    rules: Vec<RuleV1<u64>>,
    shadows: Vec<ShadowV1<u64>>,
}

/// Writes the oldest version that says all of it: members that cannot read a
/// newer one yet go on reading whatever they can.
pub(super) fn store(event: &Event) -> Stored {
    match event {
        Event::Cluster(event) => store_cluster(event),
        Event::Member(event) => store_member(event),
        Event::Model(event) => store_model(event),
        Event::Route(event) => store_route(event),
        Event::Rollout(event) => rollout_events::store(event),
    }
}

fn store_cluster(event: &ClusterEvent) -> Stored {
    match event {
        ClusterEvent::ClusterFounded { cluster_id } => {
            stored(CLUSTER_FOUNDED, 1, &ClusterFoundedV1 { cluster_id: cluster_id.uuid().into_bytes() })
        }
        ClusterEvent::FeatureLevelRaised { level } => {
            stored(FEATURE_LEVEL_RAISED, 1, &FeatureLevelRaisedV1 { level: level.get() })
        }
        ClusterEvent::CheckpointTaken {} => stored(CHECKPOINT_TAKEN, 1, &CheckpointTakenV1 {}),
    }
}

fn store_member(event: &MemberEvent) -> Stored {
    match event {
        MemberEvent::NodeJoined {
            node_id,
            node_uuid,
            addresses,
            labels,
            max_feature_level,
            starling_version,
        } => {
            let frozen = NodeJoinedV1 {
                node_id: node_id.get(),
                node_uuid: node_uuid.uuid().into_bytes(),
                addresses: addresses.into(),
                labels: labels.clone(),
                max_feature_level: max_feature_level.get(),
                starling_version: starling_version.clone(),
            };
            stored(NODE_JOINED, 1, &frozen)
        }
        MemberEvent::NodeAnnounced { node_id, addresses, labels, max_feature_level, starling_version } => {
            let frozen = NodeAnnouncedV1 {
                node_id: node_id.get(),
                addresses: addresses.into(),
                labels: labels.clone(),
                max_feature_level: max_feature_level.get(),
                starling_version: starling_version.clone(),
            };
            stored(NODE_ANNOUNCED, 1, &frozen)
        }
        MemberEvent::NodeDrained { node_id } => {
            stored(NODE_DRAINED, 1, &NodeDrainedV1 { node_id: node_id.get() })
        }
        MemberEvent::NodeUndrained { node_id } => {
            stored(NODE_UNDRAINED, 1, &NodeUndrainedV1 { node_id: node_id.get() })
        }
        MemberEvent::NodeRemoved { node_id } => {
            stored(NODE_REMOVED, 1, &NodeRemovedV1 { node_id: node_id.get() })
        }
        MemberEvent::NodeLabelsSet { node_id, labels } => {
            stored(NODE_LABELS_SET, 1, &NodeLabelsSetV1 { node_id: node_id.get(), labels: labels.clone() })
        }
    }
}

fn store_model(event: &ModelEvent) -> Stored {
    match event {
        ModelEvent::VersionRegistered { model, ordinal, label, digest, size_bytes, signature, settings } => {
            let frozen = VersionRegistered {
                model: model.to_string(),
                ordinal: ordinal.get(),
                label: label.to_string(),
                digest: *digest.bytes(),
                size_bytes: *size_bytes,
                signature: signature.into(),
                settings: (),
            };
            if settings.fit_feature_level_1() {
                stored(VERSION_REGISTERED, 1, &frozen.with(SettingsV1::from(settings)))
            } else {
                stored(VERSION_REGISTERED, 2, &frozen.with(SettingsV2::from(settings)))
            }
        }
        ModelEvent::VersionReady { model, ordinal } => {
            stored(VERSION_READY, 1, &VersionReadyV1 { model: model.to_string(), ordinal: ordinal.get() })
        }
        ModelEvent::VersionFailed { model, ordinal, reason } => {
            let (model, ordinal, reason) = (model.to_string(), ordinal.get(), reason.clone());
            stored(VERSION_FAILED, 1, &VersionFailedV1 { model, ordinal, reason })
        }
        ModelEvent::VersionRetried { model, ordinal } => {
            stored(VERSION_RETRIED, 1, &VersionRetriedV1 { model: model.to_string(), ordinal: ordinal.get() })
        }
        ModelEvent::VersionDeleted { model, ordinal } => {
            stored(VERSION_DELETED, 1, &VersionDeletedV1 { model: model.to_string(), ordinal: ordinal.get() })
        }
        ModelEvent::ModelDeleted { model } => {
            stored(MODEL_DELETED, 1, &ModelDeletedV1 { model: model.to_string() })
        }
        ModelEvent::PlacementSet { model, replicas } => {
            stored(PLACEMENT_SET, 1, &PlacementSetV1 { model: model.to_string(), replicas: *replicas })
        }
    }
}

fn store_route(event: &RouteEvent) -> Stored {
    match event {
        RouteEvent::RouteSet { model, weights } => {
            stored(ROUTE_SET, 1, &RouteSetV1 { model: model.to_string(), weights: weights_v1(weights) })
        }
        RouteEvent::RouteConfigured { model, rules, shadows } => {
            let frozen = RouteConfiguredV1 {
                model: model.to_string(),
                rules: rules.iter().map(RuleV1::new).collect(),
                shadows: shadows.iter().map(ShadowV1::new).collect(),
            };
            stored(ROUTE_CONFIGURED, 1, &frozen)
        }
    }
}

/// Reads whichever version.
pub(super) fn restore(number: u16, version: u16, payload: &[u8]) -> Result<Event, CodecError> {
    const WHAT: &str = "event";
    if let Some(restored) = rollout_events::restore(number, version, payload) {
        return restored;
    }
    let event = match (number, version) {
        (CLUSTER_FOUNDED, 1) => thaw::<ClusterFoundedV1>(WHAT, payload)?.into(),
        (FEATURE_LEVEL_RAISED, 1) => thaw::<FeatureLevelRaisedV1>(WHAT, payload)?.into(),
        (CHECKPOINT_TAKEN, 1) => thaw::<CheckpointTakenV1>(WHAT, payload)?.into(),
        (NODE_JOINED, 1) => thaw::<NodeJoinedV1>(WHAT, payload)?.into(),
        (NODE_ANNOUNCED, 1) => thaw::<NodeAnnouncedV1>(WHAT, payload)?.into(),
        (NODE_DRAINED, 1) => thaw::<NodeDrainedV1>(WHAT, payload)?.into(),
        (NODE_UNDRAINED, 1) => thaw::<NodeUndrainedV1>(WHAT, payload)?.into(),
        (NODE_REMOVED, 1) => thaw::<NodeRemovedV1>(WHAT, payload)?.into(),
        (NODE_LABELS_SET, 1) => thaw::<NodeLabelsSetV1>(WHAT, payload)?.into(),
        (VERSION_REGISTERED, 1) => thaw::<VersionRegisteredV1>(WHAT, payload)?.try_into()?,
        (VERSION_REGISTERED, 2) => thaw::<VersionRegisteredV2>(WHAT, payload)?.try_into()?,
        (VERSION_READY, 1) => thaw::<VersionReadyV1>(WHAT, payload)?.try_into()?,
        (VERSION_FAILED, 1) => thaw::<VersionFailedV1>(WHAT, payload)?.try_into()?,
        (VERSION_RETRIED, 1) => thaw::<VersionRetriedV1>(WHAT, payload)?.try_into()?,
        (VERSION_DELETED, 1) => thaw::<VersionDeletedV1>(WHAT, payload)?.try_into()?,
        (MODEL_DELETED, 1) => thaw::<ModelDeletedV1>(WHAT, payload)?.try_into()?,
        (PLACEMENT_SET, 1) => thaw::<PlacementSetV1>(WHAT, payload)?.try_into()?,
        (ROUTE_SET, 1) => thaw::<RouteSetV1>(WHAT, payload)?.try_into()?,
        (ROUTE_CONFIGURED, 1) => thaw::<RouteConfiguredV1>(WHAT, payload)?.try_into()?,
        _ if KNOWN.iter().chain(rollout_events::KNOWN).any(|(known, _)| *known == number) => {
            return Err(CodecError::UnknownVersion { what: WHAT, number, version });
        }
        _ => return Err(CodecError::UnknownType { what: WHAT, number }),
    };
    Ok(event)
}

impl From<ClusterFoundedV1> for Event {
    fn from(frozen: ClusterFoundedV1) -> Self {
        let cluster_id = ClusterId::new(uuid::Uuid::from_bytes(frozen.cluster_id));
        Self::Cluster(ClusterEvent::ClusterFounded { cluster_id })
    }
}

impl From<FeatureLevelRaisedV1> for Event {
    fn from(frozen: FeatureLevelRaisedV1) -> Self {
        Self::Cluster(ClusterEvent::FeatureLevelRaised { level: FeatureLevel::new(frozen.level) })
    }
}

impl From<CheckpointTakenV1> for Event {
    fn from(_: CheckpointTakenV1) -> Self {
        Self::Cluster(ClusterEvent::CheckpointTaken {})
    }
}

impl From<NodeJoinedV1> for Event {
    fn from(frozen: NodeJoinedV1) -> Self {
        Self::Member(MemberEvent::NodeJoined {
            node_id: NodeId::new(frozen.node_id),
            node_uuid: node_uuid(frozen.node_uuid),
            addresses: frozen.addresses.into(),
            labels: frozen.labels,
            max_feature_level: FeatureLevel::new(frozen.max_feature_level),
            starling_version: frozen.starling_version,
        })
    }
}

impl From<NodeAnnouncedV1> for Event {
    fn from(frozen: NodeAnnouncedV1) -> Self {
        Self::Member(MemberEvent::NodeAnnounced {
            node_id: NodeId::new(frozen.node_id),
            addresses: frozen.addresses.into(),
            labels: frozen.labels,
            max_feature_level: FeatureLevel::new(frozen.max_feature_level),
            starling_version: frozen.starling_version,
        })
    }
}

impl From<NodeDrainedV1> for Event {
    fn from(frozen: NodeDrainedV1) -> Self {
        Self::Member(MemberEvent::NodeDrained { node_id: NodeId::new(frozen.node_id) })
    }
}

impl From<NodeUndrainedV1> for Event {
    fn from(frozen: NodeUndrainedV1) -> Self {
        Self::Member(MemberEvent::NodeUndrained { node_id: NodeId::new(frozen.node_id) })
    }
}

impl From<NodeRemovedV1> for Event {
    fn from(frozen: NodeRemovedV1) -> Self {
        Self::Member(MemberEvent::NodeRemoved { node_id: NodeId::new(frozen.node_id) })
    }
}

impl From<NodeLabelsSetV1> for Event {
    fn from(frozen: NodeLabelsSetV1) -> Self {
        let node_id = NodeId::new(frozen.node_id);
        Self::Member(MemberEvent::NodeLabelsSet { node_id, labels: frozen.labels })
    }
}

impl<Settings: Into<VersionSettings>> TryFrom<VersionRegistered<Settings>> for Event {
    type Error = CodecError;

    fn try_from(frozen: VersionRegistered<Settings>) -> Result<Self, CodecError> {
        Ok(Self::Model(ModelEvent::VersionRegistered {
            model: model_name(&frozen.model)?,
            ordinal: Ordinal::new(frozen.ordinal),
            label: version_label(&frozen.label)?,
            digest: digest(frozen.digest),
            size_bytes: frozen.size_bytes,
            signature: frozen.signature.into(),
            settings: frozen.settings.into(),
        }))
    }
}

impl TryFrom<VersionReadyV1> for Event {
    type Error = CodecError;

    fn try_from(frozen: VersionReadyV1) -> Result<Self, CodecError> {
        let (model, ordinal) = (model_name(&frozen.model)?, Ordinal::new(frozen.ordinal));
        Ok(Self::Model(ModelEvent::VersionReady { model, ordinal }))
    }
}

impl TryFrom<VersionFailedV1> for Event {
    type Error = CodecError;

    fn try_from(frozen: VersionFailedV1) -> Result<Self, CodecError> {
        let (model, ordinal) = (model_name(&frozen.model)?, Ordinal::new(frozen.ordinal));
        Ok(Self::Model(ModelEvent::VersionFailed { model, ordinal, reason: frozen.reason }))
    }
}

impl TryFrom<VersionRetriedV1> for Event {
    type Error = CodecError;

    fn try_from(frozen: VersionRetriedV1) -> Result<Self, CodecError> {
        let (model, ordinal) = (model_name(&frozen.model)?, Ordinal::new(frozen.ordinal));
        Ok(Self::Model(ModelEvent::VersionRetried { model, ordinal }))
    }
}

impl TryFrom<VersionDeletedV1> for Event {
    type Error = CodecError;

    fn try_from(frozen: VersionDeletedV1) -> Result<Self, CodecError> {
        let (model, ordinal) = (model_name(&frozen.model)?, Ordinal::new(frozen.ordinal));
        Ok(Self::Model(ModelEvent::VersionDeleted { model, ordinal }))
    }
}

impl TryFrom<ModelDeletedV1> for Event {
    type Error = CodecError;

    fn try_from(frozen: ModelDeletedV1) -> Result<Self, CodecError> {
        Ok(Self::Model(ModelEvent::ModelDeleted { model: model_name(&frozen.model)? }))
    }
}

impl TryFrom<PlacementSetV1> for Event {
    type Error = CodecError;

    fn try_from(frozen: PlacementSetV1) -> Result<Self, CodecError> {
        let model = model_name(&frozen.model)?;
        Ok(Self::Model(ModelEvent::PlacementSet { model, replicas: frozen.replicas }))
    }
}

impl TryFrom<RouteSetV1> for Event {
    type Error = CodecError;

    fn try_from(frozen: RouteSetV1) -> Result<Self, CodecError> {
        let (model, weights) = (model_name(&frozen.model)?, weights(frozen.weights)?);
        Ok(Self::Route(RouteEvent::RouteSet { model, weights }))
    }
}

impl TryFrom<RouteConfiguredV1> for Event {
    type Error = CodecError;

    fn try_from(frozen: RouteConfiguredV1) -> Result<Self, CodecError> {
        Ok(Self::Route(RouteEvent::RouteConfigured {
            model: model_name(&frozen.model)?,
            rules: frozen.rules.into_iter().map(RuleV1::thaw).collect::<Result<_, _>>()?,
            shadows: frozen.shadows.into_iter().map(ShadowV1::thaw).collect::<Result<_, _>>()?,
        }))
    }
}
