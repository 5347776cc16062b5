//! Commands as they are stored. Numbers `0x01xx` concern the cluster, `0x02xx`
//! members, `0x03xx` models, `0x04xx` routes. Only ever add.

use super::pieces::{
    AddressesV1, LabelsV1, SettingsV1, SettingsV2, SignatureV1, UuidV1, VersionRefV1, digest, model_name,
    node_uuid, parts_per_million, version_label,
};
use super::route_pieces::{RuleV1, ShadowV1};
use super::{CodecError, Decode, Encode, Stored, rollout_commands, stored, thaw};
use crate::state::models::VersionSettings;
use crate::state::{
    ClusterCommand, ClusterId, Command, Epoch, FeatureLevel, MemberCommand, ModelCommand, NodeId, Ordinal,
    RouteCommand,
};

const FOUND: u16 = 0x0101;
const RAISE_FEATURE_LEVEL: u16 = 0x0102;
const CHECKPOINT: u16 = 0x0103;
const JOIN: u16 = 0x0201;
const DRAIN: u16 = 0x0202;
const UNDRAIN: u16 = 0x0203;
const REMOVE: u16 = 0x0204;
const SET_LABELS: u16 = 0x0205;
const REGISTER_VERSION: u16 = 0x0301;
const MARK_READY: u16 = 0x0302;
const MARK_FAILED: u16 = 0x0303;
const DELETE_VERSION: u16 = 0x0304;
const DELETE_MODEL: u16 = 0x0305;
const SET_PLACEMENT: u16 = 0x0306;
const SET_ROUTE: u16 = 0x0401;
const CONFIGURE_ROUTE: u16 = 0x0402;

/// Every (number, version) that can be read.
pub(super) const KNOWN: &[(u16, u16)] = &[
    (FOUND, 1),
    (RAISE_FEATURE_LEVEL, 1),
    (CHECKPOINT, 1),
    (JOIN, 1),
    (DRAIN, 1),
    (UNDRAIN, 1),
    (REMOVE, 1),
    (SET_LABELS, 1),
    (REGISTER_VERSION, 1),
    (REGISTER_VERSION, 2),
    (MARK_READY, 1),
    (MARK_FAILED, 1),
    (DELETE_VERSION, 1),
    (DELETE_MODEL, 1),
    (SET_PLACEMENT, 1),
    (SET_ROUTE, 1),
    (CONFIGURE_ROUTE, 1),
];

#[derive(Encode, Decode)]
struct FoundCommandV1 {
    cluster_id: UuidV1,
}

#[derive(Encode, Decode)]
struct RaiseFeatureLevelCommandV1 {
    level: u32,
}

#[derive(Encode, Decode)]
struct CheckpointCommandV1 {}

#[derive(Encode, Decode)]
struct JoinCommandV1 {
    node_uuid: UuidV1,
    addresses: AddressesV1,
    labels: LabelsV1,
    max_feature_level: u32,
    starling_version: String,
}

#[derive(Encode, Decode)]
struct DrainCommandV1 {
    node_id: u64,
}

#[derive(Encode, Decode)]
struct UndrainCommandV1 {
    node_id: u64,
}

#[derive(Encode, Decode)]
struct RemoveCommandV1 {
    node_id: u64,
}

#[derive(Encode, Decode)]
struct SetLabelsCommandV1 {
    node_id: u64,
    labels: LabelsV1,
}

/// Its versions differ in nothing but the settings.
#[derive(Encode, Decode)]
struct RegisterVersionCommand<Settings> {
    model: String,
    label: Option<String>,
    digest: [u8; 32],
    size_bytes: u64,
    signature: SignatureV1,
    settings: Settings,
}

type RegisterVersionCommandV1 = RegisterVersionCommand<SettingsV1>;
type RegisterVersionCommandV2 = RegisterVersionCommand<SettingsV2>;

impl RegisterVersionCommand<()> {
    fn with<Settings>(self, settings: Settings) -> RegisterVersionCommand<Settings> {
        let Self { model, label, digest, size_bytes, signature, settings: () } = self;
        RegisterVersionCommand { model, label, digest, size_bytes, signature, settings }
    }
}

#[derive(Encode, Decode)]
struct MarkReadyCommandV1 {
    model: String,
    ordinal: u64,
}

#[derive(Encode, Decode)]
struct MarkFailedCommandV1 {
    model: String,
    ordinal: u64,
    reason: String,
}

#[derive(Encode, Decode)]
struct DeleteVersionCommandV1 {
    model: String,
    version: VersionRefV1,
}

#[derive(Encode, Decode)]
struct DeleteModelCommandV1 {
    model: String,
}

#[derive(Encode, Decode)]
struct SetPlacementCommandV1 {
    model: String,
    replicas: u32,
}

#[derive(Encode, Decode)]
struct SetRouteCommandV1 {
    model: String,
    weights: Vec<(VersionRefV1, u32)>,
    expected_epoch: Option<u64>,
}

#[derive(Encode, Decode)]
struct ConfigureRouteCommandV1 {
    model: String,
    rules: Option<Vec<RuleV1<VersionRefV1>>>,
    shadows: Option<Vec<ShadowV1<VersionRefV1>>>,
    expected_epoch: Option<u64>,
}

/// Writes the oldest version that says all of it: members that cannot read a
/// newer one yet go on reading whatever they can.
pub(super) fn store(command: &Command) -> Stored {
    match command {
        Command::Cluster(command) => store_cluster(command),
        Command::Member(command) => store_member(command),
        Command::Model(command) => store_model(command),
        Command::Route(command) => store_route(command),
        Command::Rollout(command) => rollout_commands::store(command),
    }
}

fn store_cluster(command: &ClusterCommand) -> Stored {
    match command {
        ClusterCommand::Found { cluster_id } => {
            stored(FOUND, 1, &FoundCommandV1 { cluster_id: cluster_id.uuid().into_bytes() })
        }
        ClusterCommand::RaiseFeatureLevel { level } => {
            stored(RAISE_FEATURE_LEVEL, 1, &RaiseFeatureLevelCommandV1 { level: level.get() })
        }
        ClusterCommand::Checkpoint => stored(CHECKPOINT, 1, &CheckpointCommandV1 {}),
    }
}

fn store_member(command: &MemberCommand) -> Stored {
    match command {
        MemberCommand::Join { node_uuid, addresses, labels, max_feature_level, starling_version } => {
            let frozen = JoinCommandV1 {
                node_uuid: node_uuid.uuid().into_bytes(),
                addresses: addresses.into(),
                labels: labels.clone(),
                max_feature_level: max_feature_level.get(),
                starling_version: starling_version.clone(),
            };
            stored(JOIN, 1, &frozen)
        }
        MemberCommand::Drain { node_id } => stored(DRAIN, 1, &DrainCommandV1 { node_id: node_id.get() }),
        MemberCommand::Undrain { node_id } => {
            stored(UNDRAIN, 1, &UndrainCommandV1 { node_id: node_id.get() })
        }
        MemberCommand::Remove { node_id } => stored(REMOVE, 1, &RemoveCommandV1 { node_id: node_id.get() }),
        MemberCommand::SetLabels { node_id, labels } => {
            stored(SET_LABELS, 1, &SetLabelsCommandV1 { node_id: node_id.get(), labels: labels.clone() })
        }
    }
}

fn store_model(command: &ModelCommand) -> Stored {
    match command {
        ModelCommand::RegisterVersion { model, label, digest, size_bytes, signature, settings } => {
            let frozen = RegisterVersionCommand {
                model: model.to_string(),
                label: label.as_ref().map(ToString::to_string),
                digest: *digest.bytes(),
                size_bytes: *size_bytes,
                signature: signature.into(),
                settings: (),
            };
            if settings.fit_feature_level_1() {
                stored(REGISTER_VERSION, 1, &frozen.with(SettingsV1::from(settings)))
            } else {
                stored(REGISTER_VERSION, 2, &frozen.with(SettingsV2::from(settings)))
            }
        }
        ModelCommand::MarkReady { model, ordinal } => {
            stored(MARK_READY, 1, &MarkReadyCommandV1 { model: model.to_string(), ordinal: ordinal.get() })
        }
        ModelCommand::MarkFailed { model, ordinal, reason } => {
            let (model, ordinal, reason) = (model.to_string(), ordinal.get(), reason.clone());
            stored(MARK_FAILED, 1, &MarkFailedCommandV1 { model, ordinal, reason })
        }
        ModelCommand::DeleteVersion { model, version } => stored(
            DELETE_VERSION,
            1,
            &DeleteVersionCommandV1 { model: model.to_string(), version: version.into() },
        ),
        ModelCommand::DeleteModel { model } => {
            stored(DELETE_MODEL, 1, &DeleteModelCommandV1 { model: model.to_string() })
        }
        ModelCommand::SetPlacement { model, replicas } => {
            stored(SET_PLACEMENT, 1, &SetPlacementCommandV1 { model: model.to_string(), replicas: *replicas })
        }
    }
}

fn store_route(command: &RouteCommand) -> Stored {
    match command {
        RouteCommand::Set { model, weights, expected_epoch } => {
            let frozen = SetRouteCommandV1 {
                model: model.to_string(),
                weights: weights.iter().map(|(version, weight)| (version.into(), weight.get())).collect(),
                expected_epoch: expected_epoch.map(Epoch::get),
            };
            stored(SET_ROUTE, 1, &frozen)
        }
        RouteCommand::Configure { model, rules, shadows, expected_epoch } => {
            let frozen = ConfigureRouteCommandV1 {
                model: model.to_string(),
                rules: rules.as_ref().map(|rules| rules.iter().map(RuleV1::new).collect()),
                shadows: shadows.as_ref().map(|shadows| shadows.iter().map(ShadowV1::new).collect()),
                expected_epoch: expected_epoch.map(Epoch::get),
            };
            stored(CONFIGURE_ROUTE, 1, &frozen)
        }
    }
}

/// Reads whichever version.
pub(super) fn restore(number: u16, version: u16, payload: &[u8]) -> Result<Command, CodecError> {
    const WHAT: &str = "command";
    if let Some(restored) = rollout_commands::restore(number, version, payload) {
        return restored;
    }
    let command = match (number, version) {
        (FOUND, 1) => thaw::<FoundCommandV1>(WHAT, payload)?.into(),
        (RAISE_FEATURE_LEVEL, 1) => thaw::<RaiseFeatureLevelCommandV1>(WHAT, payload)?.into(),
        (CHECKPOINT, 1) => thaw::<CheckpointCommandV1>(WHAT, payload)?.into(),
        (JOIN, 1) => thaw::<JoinCommandV1>(WHAT, payload)?.into(),
        (DRAIN, 1) => thaw::<DrainCommandV1>(WHAT, payload)?.into(),
        (UNDRAIN, 1) => thaw::<UndrainCommandV1>(WHAT, payload)?.into(),
        (REMOVE, 1) => thaw::<RemoveCommandV1>(WHAT, payload)?.into(),
        (SET_LABELS, 1) => thaw::<SetLabelsCommandV1>(WHAT, payload)?.into(),
        (REGISTER_VERSION, 1) => thaw::<RegisterVersionCommandV1>(WHAT, payload)?.try_into()?,
        (REGISTER_VERSION, 2) => thaw::<RegisterVersionCommandV2>(WHAT, payload)?.try_into()?,
        (MARK_READY, 1) => thaw::<MarkReadyCommandV1>(WHAT, payload)?.try_into()?,
        (MARK_FAILED, 1) => thaw::<MarkFailedCommandV1>(WHAT, payload)?.try_into()?,
        (DELETE_VERSION, 1) => thaw::<DeleteVersionCommandV1>(WHAT, payload)?.try_into()?,
        (DELETE_MODEL, 1) => thaw::<DeleteModelCommandV1>(WHAT, payload)?.try_into()?,
        (SET_PLACEMENT, 1) => thaw::<SetPlacementCommandV1>(WHAT, payload)?.try_into()?,
        (SET_ROUTE, 1) => thaw::<SetRouteCommandV1>(WHAT, payload)?.try_into()?,
        (CONFIGURE_ROUTE, 1) => thaw::<ConfigureRouteCommandV1>(WHAT, payload)?.try_into()?,
        _ if KNOWN.iter().chain(rollout_commands::KNOWN).any(|(known, _)| *known == number) => {
            return Err(CodecError::UnknownVersion { what: WHAT, number, version });
        }
        _ => return Err(CodecError::UnknownType { what: WHAT, number }),
    };
    Ok(command)
}

impl From<FoundCommandV1> for Command {
    fn from(frozen: FoundCommandV1) -> Self {
        let cluster_id = ClusterId::new(uuid::Uuid::from_bytes(frozen.cluster_id));
        Self::Cluster(ClusterCommand::Found { cluster_id })
    }
}

impl From<RaiseFeatureLevelCommandV1> for Command {
    fn from(frozen: RaiseFeatureLevelCommandV1) -> Self {
        Self::Cluster(ClusterCommand::RaiseFeatureLevel { level: FeatureLevel::new(frozen.level) })
    }
}

impl From<CheckpointCommandV1> for Command {
    fn from(_: CheckpointCommandV1) -> Self {
        Self::Cluster(ClusterCommand::Checkpoint)
    }
}

impl From<JoinCommandV1> for Command {
    fn from(frozen: JoinCommandV1) -> Self {
        Self::Member(MemberCommand::Join {
            node_uuid: node_uuid(frozen.node_uuid),
            addresses: frozen.addresses.into(),
            labels: frozen.labels,
            max_feature_level: FeatureLevel::new(frozen.max_feature_level),
            starling_version: frozen.starling_version,
        })
    }
}

impl From<DrainCommandV1> for Command {
    fn from(frozen: DrainCommandV1) -> Self {
        Self::Member(MemberCommand::Drain { node_id: NodeId::new(frozen.node_id) })
    }
}

impl From<UndrainCommandV1> for Command {
    fn from(frozen: UndrainCommandV1) -> Self {
        Self::Member(MemberCommand::Undrain { node_id: NodeId::new(frozen.node_id) })
    }
}

impl From<RemoveCommandV1> for Command {
    fn from(frozen: RemoveCommandV1) -> Self {
        Self::Member(MemberCommand::Remove { node_id: NodeId::new(frozen.node_id) })
    }
}

impl From<SetLabelsCommandV1> for Command {
    fn from(frozen: SetLabelsCommandV1) -> Self {
        let node_id = NodeId::new(frozen.node_id);
        Self::Member(MemberCommand::SetLabels { node_id, labels: frozen.labels })
    }
}

impl<Settings: Into<VersionSettings>> TryFrom<RegisterVersionCommand<Settings>> for Command {
    type Error = CodecError;

    fn try_from(frozen: RegisterVersionCommand<Settings>) -> Result<Self, CodecError> {
        Ok(Self::Model(ModelCommand::RegisterVersion {
            model: model_name(&frozen.model)?,
            label: frozen.label.as_deref().map(version_label).transpose()?,
            digest: digest(frozen.digest),
            size_bytes: frozen.size_bytes,
            signature: frozen.signature.into(),
            settings: frozen.settings.into(),
        }))
    }
}

impl TryFrom<MarkReadyCommandV1> for Command {
    type Error = CodecError;

    fn try_from(frozen: MarkReadyCommandV1) -> Result<Self, CodecError> {
        let (model, ordinal) = (model_name(&frozen.model)?, Ordinal::new(frozen.ordinal));
        Ok(Self::Model(ModelCommand::MarkReady { model, ordinal }))
    }
}

impl TryFrom<MarkFailedCommandV1> for Command {
    type Error = CodecError;

    fn try_from(frozen: MarkFailedCommandV1) -> Result<Self, CodecError> {
        let (model, ordinal) = (model_name(&frozen.model)?, Ordinal::new(frozen.ordinal));
        Ok(Self::Model(ModelCommand::MarkFailed { model, ordinal, reason: frozen.reason }))
    }
}

impl TryFrom<DeleteVersionCommandV1> for Command {
    type Error = CodecError;

    fn try_from(frozen: DeleteVersionCommandV1) -> Result<Self, CodecError> {
        let (model, version) = (model_name(&frozen.model)?, frozen.version.try_into()?);
        Ok(Self::Model(ModelCommand::DeleteVersion { model, version }))
    }
}

impl TryFrom<DeleteModelCommandV1> for Command {
    type Error = CodecError;

    fn try_from(frozen: DeleteModelCommandV1) -> Result<Self, CodecError> {
        Ok(Self::Model(ModelCommand::DeleteModel { model: model_name(&frozen.model)? }))
    }
}

impl TryFrom<SetPlacementCommandV1> for Command {
    type Error = CodecError;

    fn try_from(frozen: SetPlacementCommandV1) -> Result<Self, CodecError> {
        let model = model_name(&frozen.model)?;
        Ok(Self::Model(ModelCommand::SetPlacement { model, replicas: frozen.replicas }))
    }
}

impl TryFrom<SetRouteCommandV1> for Command {
    type Error = CodecError;

    fn try_from(frozen: SetRouteCommandV1) -> Result<Self, CodecError> {
        let mut weights = Vec::with_capacity(frozen.weights.len());
        for (version, weight) in frozen.weights {
            weights.push((version.try_into()?, parts_per_million(weight)?));
        }
        Ok(Self::Route(RouteCommand::Set {
            model: model_name(&frozen.model)?,
            weights,
            expected_epoch: frozen.expected_epoch.map(Epoch::new),
        }))
    }
}

impl TryFrom<ConfigureRouteCommandV1> for Command {
    type Error = CodecError;

    fn try_from(frozen: ConfigureRouteCommandV1) -> Result<Self, CodecError> {
        let rules = frozen.rules.map(|rules| rules.into_iter().map(RuleV1::thaw).collect());
        let shadows = frozen.shadows.map(|shadows| shadows.into_iter().map(ShadowV1::thaw).collect());
        Ok(Self::Route(RouteCommand::Configure {
            model: model_name(&frozen.model)?,
            rules: rules.transpose()?,
            shadows: shadows.transpose()?,
            expected_epoch: frozen.expected_epoch.map(Epoch::new),
        }))
    }
}
