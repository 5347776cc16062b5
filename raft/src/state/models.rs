//! Models and their versions: immutable artefacts with a typed signature.

use std::sync::Arc;

use imbl::OrdMap;
use serde::Serialize;

use super::rollouts;
use super::{
    ArtefactDigest, EntryContext, Event, ModelName, Ordinal, PartsPerMillion, Rejection, RouteEvent, State,
    VersionLabel, VersionRef,
};

/// Models in one cluster.
pub const MODELS_MAX: usize = 10_000;
/// Deleted names whose ordinals are remembered.
pub const RETIRED_MAX: usize = 10_000;
/// Versions of one model.
pub const VERSIONS_PER_MODEL_MAX: usize = 1_000;

/// Inputs, or outputs, of one version.
pub const TENSORS_MAX: usize = 1_000;
/// Axes of one tensor.
pub const AXES_MAX: usize = 64;
/// Priority classes of one version.
pub const PRIORITY_LEVELS_MAX: u32 = 64;
/// Longest time that a version may let its requests wait: a day.
pub const QUEUE_TIMEOUT_MICROS_MAX: u64 = 86_400_000_000;
/// Longest tensor name, in bytes.
pub const TENSOR_NAME_BYTES_MAX: usize = 1_024;

/// Element types of the Open Inference Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum DataType {
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

impl DataType {
    /// All there are.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// As the Open Inference Protocol writes it: `FP32`, `INT64`, `BYTES`, …
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }
}

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorSpec {
    /// As the model names it.
    pub name: String,
    /// Its element type.
    pub data_type: DataType,
    /// -1 marks a dynamic axis.
    pub shape: Vec<i64>,
    /// True: a request may leave it out.
    pub optional: bool,
}

/// What a version takes and gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signature {
    /// In the model's order.
    pub inputs: Vec<TensorSpec>,
    /// In the model's order.
    pub outputs: Vec<TensorSpec>,
    /// Axis 0 of every input and output is one dynamic batch axis.
    pub batchable: bool,
}

/// How a version is run. Part of its identity: other settings, other version.
/// Zeroes stand for the default of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct VersionSettings {
    /// Rows per run; 0: measured at load.
    pub max_batch: u32,
    /// How long a batch may wait for more rows.
    pub max_queue_delay_micros: u64,
    /// Requests are never concatenated.
    pub batching_disabled: bool,
    /// Sessions per device; 0: one.
    pub instances: u32,
    /// Requests that may wait; 0: the node's default.
    pub max_queue: u32,
    /// After which a run is ended; 0: the node's default.
    pub max_run_time_millis: u64,
    /// Intra-op threads per session; 0: one.
    pub threads: u32,
    /// Whether intra-op threads spin while they wait; costs cores, saves microseconds.
    pub spinning: bool,
    /// Where its sessions run in a request's path.
    pub mode: InstanceMode,
    /// What its sessions run on.
    pub device: DeviceKind,
    /// What becomes of a request of more rows than a run may have.
    pub oversize: Oversize,
    /// Priority classes, 1 the most urgent; 0: one class.
    pub priority_levels: u32,
    /// The class of a request that names none; 0: the least urgent.
    pub default_priority_level: u32,
    /// How long a request that names no `timeout` may wait; 0: as long as its deadline allows.
    pub queue_timeout_micros: u64,
    /// Responses carry no `starling_` parameters.
    pub quiet: bool,
}

impl VersionSettings {
    /// Whether members of feature level 1 can read these: whatever came later
    /// stands at its default.
    pub fn fit_feature_level_1(&self) -> bool {
        let Self {
            max_batch,
            max_queue_delay_micros,
            batching_disabled,
            instances,
            max_queue,
            max_run_time_millis,
            threads,
            ..
        } = *self;
        let without_the_rest = Self {
            max_batch,
            max_queue_delay_micros,
            batching_disabled,
            instances,
            max_queue,
            max_run_time_millis,
            threads,
            ..Self::default()
        };
        *self == without_the_rest
    }
}

/// Where the sessions of a version run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceMode {
    /// Measured when it is loaded: local if it is small and fast, else dedicated.
    #[default]
    Auto,
    /// A session on every core of the data plane, run by the core that received the request.
    Local,
    /// A thread of its own for each instance.
    Dedicated,
}

/// What the sessions of a version run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// Every device of the node.
    #[default]
    Any,
    /// The processors.
    Cpu,
    /// The graphics processors; a node without one cannot load it.
    Gpu,
}

/// What becomes of a request of more rows than `max_batch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Oversize {
    /// It runs in parts, and its answer is put together.
    #[default]
    Split,
    /// It is refused.
    Refuse,
}

/// How far a version has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Held by a majority; being loaded.
    Registered,
    /// Loaded and warm where it should be; a route may name it.
    Ready,
    /// Could not be loaded; the reason as the runtime gave it.
    Failed(String),
}

/// One immutable version of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// 1, 2, …
    pub ordinal: Ordinal,
    /// Unique within the model.
    pub label: VersionLabel,
    /// Name of the bytes.
    pub digest: ArtefactDigest,
    /// How many.
    pub size_bytes: u64,
    /// Inputs and outputs.
    pub signature: Signature,
    /// How it is run.
    pub settings: VersionSettings,
    /// How far it has come.
    pub phase: Phase,
}

/// A name that clients call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Index of the entry that created it: short, and never used twice.
    pub id: u64,
    /// What clients call.
    pub name: ModelName,
    /// The ordinal that the next version gets; ordinals are never reused.
    pub next_ordinal: Ordinal,
    /// On how many nodes each version is loaded; 0: on all.
    pub replicas: u32,
    /// In order of ordinal.
    pub versions: OrdMap<Ordinal, Arc<Version>>,
}

impl Model {
    /// By ordinal or label.
    pub fn version(&self, wanted: &VersionRef) -> Option<&Arc<Version>> {
        match wanted {
            VersionRef::Ordinal(ordinal) => self.versions.get(ordinal),
            VersionRef::Label(label) => self.versions.values().find(|version| version.label == *label),
        }
    }
}

/// All models, in order of name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Models {
    by_name: OrdMap<ModelName, Arc<Model>>,
    /// For names that were deleted, the ordinal that the next version would
    /// have got. Were a model of the same name to count from 1 again, a late
    /// report about the old version 1 would be taken for the new one.
    retired: OrdMap<ModelName, Ordinal>,
}

/// What is asked about models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelCommand {
    /// Proposed once a majority of voters hold the bytes.
    RegisterVersion {
        /// Created if it does not exist.
        model: ModelName,
        /// Absent: `v` and the ordinal.
        label: Option<VersionLabel>,
        /// Name of the bytes.
        digest: ArtefactDigest,
        /// How many.
        size_bytes: u64,
        /// As the runtime read it from the file.
        signature: Signature,
        /// How it is run.
        settings: VersionSettings,
    },
    /// Proposed by the leader when the placed live nodes have it loaded.
    MarkReady {
        /// The model.
        model: ModelName,
        /// The version.
        ordinal: Ordinal,
    },
    /// Proposed by the leader when it cannot be loaded anywhere.
    MarkFailed {
        /// The model.
        model: ModelName,
        /// The version.
        ordinal: Ordinal,
        /// As the runtime gave it.
        reason: String,
    },
    /// Refused while the route names it.
    DeleteVersion {
        /// The model.
        model: ModelName,
        /// The version.
        version: VersionRef,
    },
    /// With all versions and the route.
    DeleteModel {
        /// The model.
        model: ModelName,
    },
    /// On how many nodes each version is loaded; 0: on all.
    SetPlacement {
        /// The model.
        model: ModelName,
        /// How many.
        replicas: u32,
    },
}

/// What happened to models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ModelEvent {
    /// A majority of voters hold the bytes.
    VersionRegistered {
        /// The model.
        model: ModelName,
        /// The version's number.
        ordinal: Ordinal,
        /// Its label.
        label: VersionLabel,
        /// Name of its bytes.
        digest: ArtefactDigest,
        /// How many.
        size_bytes: u64,
        /// What it takes and gives.
        signature: Signature,
        /// How it is run.
        settings: VersionSettings,
    },
    /// A route may name it.
    VersionReady {
        /// The model.
        model: ModelName,
        /// The version.
        ordinal: Ordinal,
    },
    /// It cannot be loaded.
    VersionFailed {
        /// The model.
        model: ModelName,
        /// The version.
        ordinal: Ordinal,
        /// Why.
        reason: String,
    },
    /// The same bytes were pushed again after a failure: it is loaded anew.
    VersionRetried {
        /// The model.
        model: ModelName,
        /// The version.
        ordinal: Ordinal,
    },
    /// Gone.
    VersionDeleted {
        /// The model.
        model: ModelName,
        /// The version.
        ordinal: Ordinal,
    },
    /// Gone, with everything.
    ModelDeleted {
        /// The model.
        model: ModelName,
    },
    /// Load on this many nodes.
    PlacementSet {
        /// The model.
        model: ModelName,
        /// How many; 0: all.
        replicas: u32,
    },
}

impl ModelEvent {
    /// The event's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::VersionRegistered { .. } => "VersionRegistered",
            Self::VersionReady { .. } => "VersionReady",
            Self::VersionFailed { .. } => "VersionFailed",
            Self::VersionRetried { .. } => "VersionRetried",
            Self::VersionDeleted { .. } => "VersionDeleted",
            Self::ModelDeleted { .. } => "ModelDeleted",
            Self::PlacementSet { .. } => "PlacementSet",
        }
    }
}

impl Models {
    /// In order of name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.by_name.values()
    }

    /// By name.
    pub fn get(&self, name: &str) -> Option<&Arc<Model>> {
        self.by_name.get(name)
    }

    /// Puts a model in as it is: for snapshots.
    pub(crate) fn insert(&mut self, model: Model) {
        self.by_name.insert(model.name.clone(), Arc::new(model));
    }

    /// Whether any version of any model refers to these bytes.
    pub fn refers_to(&self, digest: ArtefactDigest) -> bool {
        self.iter().any(|model| model.versions.values().any(|version| version.digest == digest))
    }

    /// Deleted names and their next ordinals: for snapshots.
    pub fn retired(&self) -> impl Iterator<Item = (&ModelName, Ordinal)> {
        self.retired.iter().map(|(name, next)| (name, *next))
    }

    /// Remembers where a deleted name's ordinals ended; beyond [`RETIRED_MAX`]
    /// the first name is forgotten.
    pub(crate) fn retire(&mut self, name: ModelName, next_ordinal: Ordinal) {
        self.retired.insert(name, next_ordinal);
        if self.retired.len() > RETIRED_MAX {
            self.retired = self.retired.without_min().1;
        }
    }

    /// The ordinal that the next version of this name gets.
    fn next_ordinal(&self, name: &ModelName) -> Ordinal {
        let living = self.by_name.get(name).map(|model| model.next_ordinal);
        living.or_else(|| self.retired.get(name).copied()).unwrap_or(Ordinal::new(1))
    }

    fn update(&mut self, name: &ModelName, change: impl FnOnce(&mut Model)) {
        if let Some(model) = self.by_name.get_mut(name) {
            change(Arc::make_mut(model));
        }
    }

    fn update_version(&mut self, name: &ModelName, ordinal: Ordinal, change: impl FnOnce(&mut Version)) {
        self.update(name, |model| {
            if let Some(version) = model.versions.get_mut(&ordinal) {
                change(Arc::make_mut(version));
            }
        });
    }
}

pub(super) fn decide(state: &State, command: &ModelCommand) -> Result<Vec<Event>, Rejection> {
    match command {
        ModelCommand::RegisterVersion { model, label, digest, size_bytes, signature, settings } => {
            decide_register(state, model, label.as_ref(), *digest, *size_bytes, signature, settings)
        }
        ModelCommand::MarkReady { model, ordinal } => decide_ready(state, model, *ordinal),
        ModelCommand::MarkFailed { model, ordinal, reason } => {
            let version = find(state, model, &VersionRef::Ordinal(*ordinal))?;
            if version.phase != Phase::Registered {
                return Ok(vec![]);
            }
            Ok(vec![Event::Model(ModelEvent::VersionFailed {
                model: model.clone(),
                ordinal: *ordinal,
                reason: reason.chars().take(2_000).collect(),
            })])
        }
        ModelCommand::DeleteVersion { model, version } => {
            let version = find(state, model, version)?;
            let routed = state.routes.get(model.as_str());
            let rolled_out = state.rollouts.owner_of(model);
            if routed.is_some_and(|route| route.names(version.ordinal))
                || rolled_out.is_some_and(|rollout| rollout.versions().contains(&version.ordinal))
            {
                return Err(Rejection::VersionInRoute { model: model.clone(), label: version.label.clone() });
            }
            Ok(vec![Event::Model(ModelEvent::VersionDeleted {
                model: model.clone(),
                ordinal: version.ordinal,
            })])
        }
        ModelCommand::DeleteModel { model } => {
            state.models.get(model.as_str()).ok_or_else(|| Rejection::UnknownModel(model.clone()))?;
            rollouts::require_no_owner(state, model)?;
            Ok(vec![Event::Model(ModelEvent::ModelDeleted { model: model.clone() })])
        }
        ModelCommand::SetPlacement { model, replicas } => {
            let found =
                state.models.get(model.as_str()).ok_or_else(|| Rejection::UnknownModel(model.clone()))?;
            if found.replicas == *replicas {
                return Ok(vec![]);
            }
            Ok(vec![Event::Model(ModelEvent::PlacementSet { model: model.clone(), replicas: *replicas })])
        }
    }
}

fn decide_register(
    state: &State,
    model: &ModelName,
    label: Option<&VersionLabel>,
    digest: ArtefactDigest,
    size_bytes: u64,
    signature: &Signature,
    settings: &VersionSettings,
) -> Result<Vec<Event>, Rejection> {
    let existing = state.models.get(model.as_str());
    let ordinal = state.models.next_ordinal(model);
    let label = match label {
        Some(label) => label.clone(),
        None => VersionLabel::automatic(ordinal, |label| {
            existing.is_some_and(|model| model.version(&VersionRef::Label(label.clone())).is_some())
        }),
    };
    let taken = existing.and_then(|model| model.version(&VersionRef::Label(label.clone())));
    if let Some(version) = taken {
        if version.digest == digest && version.settings == *settings {
            return Ok(retry_if_failed(model, version));
        }
        return Err(Rejection::LabelTaken { model: model.clone(), label, ordinal: version.ordinal });
    }
    if existing.is_none() && state.models.by_name.len() >= MODELS_MAX {
        return Err(Rejection::LimitReached {
            what: "the number of models".into(),
            limit: MODELS_MAX as u64,
        });
    }
    if existing.is_some_and(|model| model.versions.len() >= VERSIONS_PER_MODEL_MAX) {
        return Err(Rejection::LimitReached {
            what: format!("the number of versions of model '{model}'"),
            limit: VERSIONS_PER_MODEL_MAX as u64,
        });
    }
    require_small_signature(signature)?;
    require_sound_settings(settings)?;
    Ok(vec![Event::Model(ModelEvent::VersionRegistered {
        model: model.clone(),
        ordinal,
        label,
        digest,
        size_bytes,
        signature: signature.clone(),
        settings: *settings,
    })])
}

/// What came with feature level 2 only: an entry that an older binary has
/// accepted must be accepted for ever.
fn require_sound_settings(settings: &VersionSettings) -> Result<(), Rejection> {
    let limit = |what: String, limit: u64| Err(Rejection::LimitReached { what, limit });
    let VersionSettings { priority_levels, default_priority_level, queue_timeout_micros, .. } = *settings;
    if priority_levels > PRIORITY_LEVELS_MAX {
        return limit("the number of priority levels".to_owned(), PRIORITY_LEVELS_MAX.into());
    }
    let classes = priority_levels.max(1);
    if default_priority_level > classes {
        let what = format!("the default priority level of a version with {priority_levels} levels");
        return limit(what, classes.into());
    }
    if queue_timeout_micros > QUEUE_TIMEOUT_MICROS_MAX {
        return limit("the queue timeout in microseconds".to_owned(), QUEUE_TIMEOUT_MICROS_MAX);
    }
    Ok(())
}

fn require_small_signature(signature: &Signature) -> Result<(), Rejection> {
    let limit = |what: &str, limit: usize| {
        Err(Rejection::LimitReached { what: what.to_owned(), limit: limit as u64 })
    };
    for tensors in [&signature.inputs, &signature.outputs] {
        if tensors.len() > TENSORS_MAX {
            return limit("the number of inputs or outputs of a version", TENSORS_MAX);
        }
        if tensors.iter().any(|tensor| tensor.shape.len() > AXES_MAX) {
            return limit("the number of axes of an input or output", AXES_MAX);
        }
        if tensors.iter().any(|tensor| tensor.name.len() > TENSOR_NAME_BYTES_MAX) {
            return limit("the length of the name of an input or output, in bytes,", TENSOR_NAME_BYTES_MAX);
        }
    }
    Ok(())
}

/// Bytes that are here already need nothing, unless they could not be loaded:
/// then the push asks to try again, under the same ordinal.
fn retry_if_failed(model: &ModelName, version: &Version) -> Vec<Event> {
    match version.phase {
        Phase::Registered | Phase::Ready => vec![],
        Phase::Failed(_) => {
            vec![Event::Model(ModelEvent::VersionRetried { model: model.clone(), ordinal: version.ordinal })]
        }
    }
}

/// The first version of a model that becomes ready gets the whole route: push,
/// and it answers.
fn decide_ready(state: &State, model: &ModelName, ordinal: Ordinal) -> Result<Vec<Event>, Rejection> {
    let version = find(state, model, &VersionRef::Ordinal(ordinal))?;
    if version.phase == Phase::Ready {
        return Ok(vec![]);
    }
    let mut events = vec![Event::Model(ModelEvent::VersionReady { model: model.clone(), ordinal })];
    if state.routes.get(model.as_str()).is_none() {
        events.push(Event::Route(RouteEvent::RouteSet {
            model: model.clone(),
            weights: vec![(ordinal, PartsPerMillion::WHOLE)],
        }));
    }
    Ok(events)
}

fn find<'a>(state: &'a State, model: &ModelName, wanted: &VersionRef) -> Result<&'a Version, Rejection> {
    let found = state.models.get(model.as_str()).ok_or_else(|| Rejection::UnknownModel(model.clone()))?;
    let version = found
        .version(wanted)
        .ok_or_else(|| Rejection::UnknownVersion { model: model.clone(), version: wanted.to_string() })?;
    Ok(version)
}

pub(super) fn evolve(state: &mut State, context: &EntryContext, event: &ModelEvent) {
    match event {
        ModelEvent::VersionRegistered { model, ordinal, label, digest, size_bytes, signature, settings } => {
            if state.models.get(model.as_str()).is_none() {
                state.models.insert(Model {
                    id: context.log_index.get(),
                    name: model.clone(),
                    next_ordinal: Ordinal::new(1),
                    replicas: 0,
                    versions: OrdMap::new(),
                });
            }
            let version = Version {
                ordinal: *ordinal,
                label: label.clone(),
                digest: *digest,
                size_bytes: *size_bytes,
                signature: signature.clone(),
                settings: *settings,
                phase: Phase::Registered,
            };
            state.models.retired.remove(model);
            state.models.update(model, |model| {
                model.next_ordinal = Ordinal::new(ordinal.get() + 1);
                model.versions.insert(*ordinal, Arc::new(version));
            });
        }
        ModelEvent::VersionReady { model, ordinal } => {
            state.models.update_version(model, *ordinal, |version| version.phase = Phase::Ready);
        }
        ModelEvent::VersionFailed { model, ordinal, reason } => {
            state.models.update_version(model, *ordinal, |version| {
                version.phase = Phase::Failed(reason.clone());
            });
        }
        ModelEvent::VersionRetried { model, ordinal } => {
            state.models.update_version(model, *ordinal, |version| version.phase = Phase::Registered);
        }
        ModelEvent::VersionDeleted { model, ordinal } => {
            state.models.update(model, |model| {
                model.versions.remove(ordinal);
            });
        }
        ModelEvent::ModelDeleted { model } => {
            if let Some(deleted) = state.models.by_name.remove(model) {
                state.models.retire(model.clone(), deleted.next_ordinal);
            }
            state.routes.remove(model);
            state.rollouts.forget_model(model);
        }
        ModelEvent::PlacementSet { model, replicas } => {
            state.models.update(model, |model| model.replicas = *replicas);
        }
    }
}
