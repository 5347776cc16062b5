//! The whole state as it is stored: in snapshots, and under the digest.

use std::sync::Arc;

use uuid::Uuid;

use super::outcomes::OutcomeV1;
use super::pieces::{
    AddressesV1, LabelsV1, PhaseV1, SettingsV1, SettingsV2, SignatureV1, UuidV1, WeightsV1, digest,
    model_name, node_uuid, request_id, version_label, weights, weights_v1,
};
use super::rollout_snapshots::RolloutsV1;
use super::route_pieces::{RuleV1, ShadowV1};
use super::{CodecError, Decode, Encode, Stored, stored, thaw_state};
use crate::state::bucket::BUCKETS;
use crate::state::models::VersionSettings;
use crate::state::ownership::{Interval, OwnershipTable};
use crate::state::{
    Cluster, ClusterId, Epoch, FeatureLevel, LogTime, Member, Model, NodeId, Ordinal, Rollouts, Route, State,
    Version, WallTime,
};

const STATE: u16 = 0x0601;

/// Every (number, version) that can be read.
pub(super) const KNOWN: &[(u16, u16)] = &[(STATE, 1), (STATE, 2), (STATE, 3), (STATE, 4)];

/// Its versions differ in nothing but the settings of the models' versions.
#[derive(Encode, Decode)]
struct StateOf<Settings> {
    cluster: ClusterV1,
    members: Vec<MemberV1>,
    /// Removed ids and the UUIDs they had.
    removed: Vec<(u64, UuidV1)>,
    models: Vec<ModelOf<Settings>>,
    /// Deleted names and their next ordinals.
    retired: Vec<(String, u64)>,
    routes: Vec<RouteV1>,
    /// Log time, request id, first answer.
    requests: Vec<(u64, UuidV1, OutcomeV1)>,
}

type StateV1 = StateOf<SettingsV1>;
type StateV2 = StateOf<SettingsV2>;

/// What came with feature level 3 stands after all that was there before.
#[derive(Encode, Decode)]
struct StateV3 {
    before: StateV2,
    beside_weights: Vec<BesideWeightsV1>,
}

/// What came with feature level 4 stands after all that was there before.
#[derive(Encode, Decode)]
struct StateV4 {
    before: StateV3,
    rollouts: RolloutsV1,
}

/// Of a route that says anything beside its weights.
#[derive(Encode, Decode)]
struct BesideWeightsV1 {
    model: String,
    rules: Vec<RuleV1<u64>>,
    shadows: Vec<ShadowV1<u64>>,
}

#[derive(Encode, Decode)]
struct ClusterV1 {
    id: Option<UuidV1>,
    feature_level: u32,
    log_time_micros: u64,
    wall_time_micros: u64,
}

#[derive(Encode, Decode)]
struct MemberV1 {
    node_id: u64,
    node_uuid: UuidV1,
    addresses: AddressesV1,
    labels: LabelsV1,
    max_feature_level: u32,
    starling_version: String,
    draining: bool,
}

#[derive(Encode, Decode)]
struct ModelOf<Settings> {
    id: u64,
    name: String,
    next_ordinal: u64,
    replicas: u32,
    versions: Vec<VersionOf<Settings>>,
}

#[derive(Encode, Decode)]
struct VersionOf<Settings> {
    ordinal: u64,
    label: String,
    digest: [u8; 32],
    size_bytes: u64,
    signature: SignatureV1,
    settings: Settings,
    phase: PhaseV1,
}

#[derive(Encode, Decode)]
struct RouteV1 {
    model: String,
    epoch: u64,
    weights: WeightsV1,
    /// End and owner of each interval; each begins where the one before ends.
    intervals: Vec<(u32, u64)>,
}

/// Writes the oldest version that says all of it: equal states, equal bytes,
/// also under binaries that know only the first.
pub(super) fn store(state: &State) -> Stored {
    let mut versions = state.models.iter().flat_map(|model| model.versions.values());
    if state.rollouts != Rollouts::default() {
        stored(STATE, 4, &StateV4 { before: state.into(), rollouts: (&state.rollouts).into() })
    } else if state.routes.iter().any(|(_, route)| says_more_than_weights(route)) {
        stored(STATE, 3, &StateV3::from(state))
    } else if versions.all(|version| version.settings.fit_feature_level_1()) {
        stored(STATE, 1, &StateV1::from(state))
    } else {
        stored(STATE, 2, &StateV2::from(state))
    }
}

/// Reads whichever version.
pub(super) fn restore(number: u16, version: u16, payload: &[u8]) -> Result<State, CodecError> {
    const WHAT: &str = "state";
    match (number, version) {
        (STATE, 1) => thaw_state::<StateV1>(payload)?.try_into(),
        (STATE, 2) => thaw_state::<StateV2>(payload)?.try_into(),
        (STATE, 3) => thaw_state::<StateV3>(payload)?.try_into(),
        (STATE, 4) => {
            let StateV4 { before, rollouts } = thaw_state(payload)?;
            Ok(State { rollouts: rollouts.try_into()?, ..before.try_into()? })
        }
        (STATE, _) => Err(CodecError::UnknownVersion { what: WHAT, number, version }),
        _ => Err(CodecError::UnknownType { what: WHAT, number }),
    }
}

fn says_more_than_weights(route: &Route) -> bool {
    !route.rules.is_empty() || !route.shadows.is_empty()
}

impl From<&State> for StateV3 {
    fn from(live: &State) -> Self {
        let routes = live.routes.iter().filter(|(_, route)| says_more_than_weights(route));
        let beside_weights = routes.map(|(model, route)| BesideWeightsV1 {
            model: model.to_string(),
            rules: route.rules.iter().map(RuleV1::new).collect(),
            shadows: route.shadows.iter().map(ShadowV1::new).collect(),
        });
        Self { before: live.into(), beside_weights: beside_weights.collect() }
    }
}

impl TryFrom<StateV3> for State {
    type Error = CodecError;

    fn try_from(frozen: StateV3) -> Result<Self, CodecError> {
        let mut state: Self = frozen.before.try_into()?;
        for BesideWeightsV1 { model, rules, shadows } in frozen.beside_weights {
            let Some(route) = state.routes.get(&model) else {
                return Err(CodecError::Damaged {
                    what: "route",
                    reason: format!("'{model}' has no weights"),
                });
            };
            let mut route = Route::clone(route);
            route.rules = rules.into_iter().map(RuleV1::thaw).collect::<Result<_, _>>()?;
            route.shadows = shadows.into_iter().map(ShadowV1::thaw).collect::<Result<_, _>>()?;
            state.routes.insert(model_name(&model)?, route);
        }
        Ok(state)
    }
}

impl<Settings: for<'a> From<&'a VersionSettings>> From<&State> for StateOf<Settings> {
    fn from(live: &State) -> Self {
        let requests = live.requests.iter().map(|(log_time, request_id, outcome)| {
            (log_time.as_micros(), request_id.uuid().into_bytes(), outcome.into())
        });
        let removed = live.members.removed().map(|(id, uuid)| (id.get(), uuid.uuid().into_bytes()));
        Self {
            cluster: (&live.cluster).into(),
            members: live.members.iter().map(|member| member.as_ref().into()).collect(),
            removed: removed.collect(),
            models: live.models.iter().map(|model| model.as_ref().into()).collect(),
            retired: live.models.retired().map(|(name, next)| (name.to_string(), next.get())).collect(),
            routes: live.routes.iter().map(|(model, route)| RouteV1::new(model.as_str(), route)).collect(),
            requests: requests.collect(),
        }
    }
}

impl<Settings: Into<VersionSettings>> TryFrom<StateOf<Settings>> for State {
    type Error = CodecError;

    fn try_from(frozen: StateOf<Settings>) -> Result<Self, CodecError> {
        let mut state = State { cluster: frozen.cluster.into(), ..State::default() };
        for member in frozen.members {
            state.members.insert(member.into());
        }
        for (id, uuid) in frozen.removed {
            state.members.remember_removed(NodeId::new(id), node_uuid(uuid));
        }
        for model in frozen.models {
            state.models.insert(model.try_into()?);
        }
        for (name, next) in frozen.retired {
            state.models.retire(model_name(&name)?, Ordinal::new(next));
        }
        for route in frozen.routes {
            state.routes.insert(model_name(&route.model)?, route.try_into()?);
        }
        for (log_time, id, outcome) in frozen.requests {
            let log_time = LogTime::from_micros(log_time);
            state.requests.remember(request_id(id), log_time, outcome.try_into()?);
        }
        Ok(state)
    }
}

impl From<&Cluster> for ClusterV1 {
    fn from(live: &Cluster) -> Self {
        Self {
            id: live.id.map(|id| id.uuid().into_bytes()),
            feature_level: live.feature_level.get(),
            log_time_micros: live.log_time.as_micros(),
            wall_time_micros: live.wall_time.as_unix_micros(),
        }
    }
}

impl From<ClusterV1> for Cluster {
    fn from(frozen: ClusterV1) -> Self {
        Self {
            id: frozen.id.map(|id| ClusterId::new(Uuid::from_bytes(id))),
            feature_level: FeatureLevel::new(frozen.feature_level),
            log_time: LogTime::from_micros(frozen.log_time_micros),
            wall_time: WallTime::from_unix_micros(frozen.wall_time_micros),
        }
    }
}

impl From<&Member> for MemberV1 {
    fn from(live: &Member) -> Self {
        Self {
            node_id: live.node_id.get(),
            node_uuid: live.node_uuid.uuid().into_bytes(),
            addresses: (&live.addresses).into(),
            labels: live.labels.clone(),
            max_feature_level: live.max_feature_level.get(),
            starling_version: live.starling_version.clone(),
            draining: live.draining,
        }
    }
}

impl From<MemberV1> for Member {
    fn from(frozen: MemberV1) -> Self {
        Self {
            node_id: NodeId::new(frozen.node_id),
            node_uuid: node_uuid(frozen.node_uuid),
            addresses: frozen.addresses.into(),
            labels: frozen.labels,
            max_feature_level: FeatureLevel::new(frozen.max_feature_level),
            starling_version: frozen.starling_version,
            draining: frozen.draining,
        }
    }
}

impl<Settings: for<'a> From<&'a VersionSettings>> From<&Model> for ModelOf<Settings> {
    fn from(live: &Model) -> Self {
        Self {
            id: live.id,
            name: live.name.to_string(),
            next_ordinal: live.next_ordinal.get(),
            replicas: live.replicas,
            versions: live.versions.values().map(|version| version.as_ref().into()).collect(),
        }
    }
}

impl<Settings: Into<VersionSettings>> TryFrom<ModelOf<Settings>> for Model {
    type Error = CodecError;

    fn try_from(frozen: ModelOf<Settings>) -> Result<Self, CodecError> {
        let mut versions = imbl::OrdMap::new();
        for version in frozen.versions {
            let version: Version = version.try_into()?;
            versions.insert(version.ordinal, Arc::new(version));
        }
        Ok(Self {
            id: frozen.id,
            name: model_name(&frozen.name)?,
            next_ordinal: Ordinal::new(frozen.next_ordinal),
            replicas: frozen.replicas,
            versions,
        })
    }
}

impl<Settings: for<'a> From<&'a VersionSettings>> From<&Version> for VersionOf<Settings> {
    fn from(live: &Version) -> Self {
        Self {
            ordinal: live.ordinal.get(),
            label: live.label.to_string(),
            digest: *live.digest.bytes(),
            size_bytes: live.size_bytes,
            signature: (&live.signature).into(),
            settings: (&live.settings).into(),
            phase: (&live.phase).into(),
        }
    }
}

impl<Settings: Into<VersionSettings>> TryFrom<VersionOf<Settings>> for Version {
    type Error = CodecError;

    fn try_from(frozen: VersionOf<Settings>) -> Result<Self, CodecError> {
        Ok(Self {
            ordinal: Ordinal::new(frozen.ordinal),
            label: version_label(&frozen.label)?,
            digest: digest(frozen.digest),
            size_bytes: frozen.size_bytes,
            signature: frozen.signature.into(),
            settings: frozen.settings.into(),
            phase: frozen.phase.into(),
        })
    }
}

impl RouteV1 {
    fn new(model: &str, live: &Route) -> Self {
        Self {
            model: model.to_owned(),
            epoch: live.epoch.get(),
            weights: weights_v1(&live.weights),
            intervals: frozen_table(&live.table),
        }
    }
}

impl TryFrom<RouteV1> for Route {
    type Error = CodecError;

    fn try_from(frozen: RouteV1) -> Result<Self, CodecError> {
        Ok(Self {
            epoch: Epoch::new(frozen.epoch),
            weights: weights(frozen.weights)?,
            table: table(frozen.intervals)?,
            rules: Vec::new(),
            shadows: Vec::new(),
        })
    }
}

/// End and owner of each interval.
pub(super) fn frozen_table(live: &OwnershipTable) -> Vec<(u32, u64)> {
    live.intervals().iter().map(|interval| (interval.end, interval.owner.get())).collect()
}

pub(super) fn table(frozen: Vec<(u32, u64)>) -> Result<OwnershipTable, CodecError> {
    let mut intervals = Vec::with_capacity(frozen.len());
    let mut start = 0;
    for (end, owner) in frozen {
        if end <= start {
            return Err(damaged_table("intervals are out of order"));
        }
        intervals.push(Interval { start, end, owner: Ordinal::new(owner) });
        start = end;
    }
    if start != BUCKETS {
        return Err(damaged_table("intervals do not cover all buckets"));
    }
    Ok(OwnershipTable::from_intervals(intervals))
}

fn damaged_table(reason: &str) -> CodecError {
    CodecError::Damaged { what: "ownership table", reason: reason.to_owned() }
}
