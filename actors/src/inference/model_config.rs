//! A version's signature in the words of the protocol (ModelMetadata) and of
//! Triton (ModelConfig, RepositoryIndex).

use starling_proto::inference::model_config::SchedulingChoice;
use starling_proto::inference::model_instance_group::Kind;
use starling_proto::inference::model_metadata_response::TensorMetadata;
use starling_proto::inference::model_version_policy::{All, PolicyChoice};
use starling_proto::inference::repository_index_response::ModelIndex;
use starling_proto::inference::{
    DataType as WireDataType, InferStatistics, ModelConfig, ModelDynamicBatching, ModelInput,
    ModelInstanceGroup, ModelMetadataResponse, ModelOutput, ModelStatistics, ModelTransactionPolicy,
    ModelVersionPolicy, StatisticDuration,
};
use starling_raft::state::models::{DataType, DeviceKind, TensorSpec};
use starling_raft::state::{Phase, Version};

use super::readiness_view::ReadinessView;
use super::routing_table::{RoutedModel, RoutedVersion};

/// What Triton's clients know a model of ONNX Runtime by.
const PLATFORM: &str = "onnxruntime_onnx";
const BACKEND: &str = "onnxruntime";

/// Of versions that no node has loaded yet; clients need to know only that it
/// is not zero.
const MAX_BATCH_UNKNOWN: u32 = 1;

fn config_datatype(data_type: DataType) -> i32 {
    let wire = match data_type {
        DataType::Bool => WireDataType::TypeBool,
        DataType::Uint8 => WireDataType::TypeUint8,
        DataType::Uint16 => WireDataType::TypeUint16,
        DataType::Uint32 => WireDataType::TypeUint32,
        DataType::Uint64 => WireDataType::TypeUint64,
        DataType::Int8 => WireDataType::TypeInt8,
        DataType::Int16 => WireDataType::TypeInt16,
        DataType::Int32 => WireDataType::TypeInt32,
        DataType::Int64 => WireDataType::TypeInt64,
        DataType::Fp16 => WireDataType::TypeFp16,
        DataType::Bf16 => WireDataType::TypeBf16,
        DataType::Fp32 => WireDataType::TypeFp32,
        DataType::Fp64 => WireDataType::TypeFp64,
        DataType::Bytes => WireDataType::TypeString,
    };
    wire.into()
}

fn instance_kind(device: DeviceKind) -> Kind {
    match device {
        DeviceKind::Any => Kind::Auto,
        DeviceKind::Cpu => Kind::Cpu,
        DeviceKind::Gpu => Kind::Gpu,
    }
}

/// The metadata of a model, described by one of its versions. Shapes keep their
/// batch axis as -1.
pub fn metadata(model: &RoutedModel, version: &RoutedVersion) -> ModelMetadataResponse {
    let ready = model.versions().filter(|version| version.version.phase == Phase::Ready);
    let tensor = |spec: &TensorSpec| TensorMetadata {
        name: spec.name.clone(),
        datatype: spec.data_type.name().to_owned(),
        shape: spec.shape.clone(),
    };
    let signature = &version.version.signature;
    ModelMetadataResponse {
        name: model.model.name.to_string(),
        versions: ready.map(|version| version.ordinal_text.clone()).collect(),
        platform: PLATFORM.to_owned(),
        inputs: signature.inputs.iter().map(tensor).collect(),
        outputs: signature.outputs.iter().map(tensor).collect(),
        ..ModelMetadataResponse::default()
    }
}

/// The configuration of a version. Where requests are batched, `max_batch_size`
/// is positive and dims leave the batch axis out, as Triton's clients expect;
/// else it is 0 and dims are whole. `instances_here`: on each device of this node,
/// if it is loaded here; else the count is what the settings say.
pub fn config(
    model: &RoutedModel,
    version: &RoutedVersion,
    view: &ReadinessView,
    instances_here: Option<usize>,
) -> ModelConfig {
    let batched = is_batched(&version.version);
    let dims = |spec: &TensorSpec| {
        let batch_axes = usize::from(batched);
        spec.shape.iter().skip(batch_axes).copied().collect::<Vec<i64>>()
    };
    let signature = &version.version.signature;
    let inputs = signature.inputs.iter().map(|spec| ModelInput {
        name: spec.name.clone(),
        data_type: config_datatype(spec.data_type),
        dims: dims(spec),
        optional: spec.optional,
        ..ModelInput::default()
    });
    let outputs = signature.outputs.iter().map(|spec| ModelOutput {
        name: spec.name.clone(),
        data_type: config_datatype(spec.data_type),
        dims: dims(spec),
        ..ModelOutput::default()
    });
    let settings = &version.version.settings;
    let dynamic_batching = ModelDynamicBatching {
        max_queue_delay_microseconds: settings.max_queue_delay_micros,
        priority_levels: settings.priority_levels.into(),
        default_priority_level: settings.default_priority_level.into(),
        ..ModelDynamicBatching::default()
    };
    let count = instances_here.unwrap_or_else(|| settings.instances.max(1) as usize);
    let instances = ModelInstanceGroup {
        name: model.model.name.to_string(),
        count: i32::try_from(count).unwrap_or(i32::MAX),
        kind: instance_kind(settings.device).into(),
        ..ModelInstanceGroup::default()
    };
    let max_batch = match settings.max_batch {
        0 => view.max_batch(version.id).unwrap_or(MAX_BATCH_UNKNOWN).max(1),
        set => set,
    };
    ModelConfig {
        name: model.model.name.to_string(),
        platform: PLATFORM.to_owned(),
        backend: BACKEND.to_owned(),
        max_batch_size: if batched { i32::try_from(max_batch).unwrap_or(i32::MAX) } else { 0 },
        // Every version is served as long as it is there.
        version_policy: Some(ModelVersionPolicy { policy_choice: Some(PolicyChoice::All(All {})) }),
        instance_group: vec![instances],
        input: inputs.collect(),
        output: outputs.collect(),
        model_transaction_policy: Some(ModelTransactionPolicy::default()),
        scheduling_choice: batched.then_some(SchedulingChoice::DynamicBatching(dynamic_batching)),
        ..ModelConfig::default()
    }
}

/// Where a version stands, in Triton's words: READY, LOADING or UNAVAILABLE.
pub fn index_entry(model: &RoutedModel, version: &RoutedVersion, view: &ReadinessView) -> ModelIndex {
    let (state, reason) = match &version.version.phase {
        Phase::Ready if view.holders(version.id).is_empty() => {
            ("UNAVAILABLE", "no live node has it loaded".to_owned())
        }
        Phase::Ready => ("READY", String::new()),
        Phase::Registered => {
            let failure = view.failure(version.id);
            (
                "LOADING",
                failure.map_or_else(String::new, |(node, why)| format!("node {node}: {}", why.reason)),
            )
        }
        Phase::Failed(reason) => ("UNAVAILABLE", reason.clone()),
    };
    ModelIndex {
        name: model.model.name.to_string(),
        version: version.ordinal_text.clone(),
        state: state.to_owned(),
        reason,
    }
}

/// The counts of a version that is not loaded here. All groups are present:
/// Triton's clients read them unchecked.
pub fn statistics_of_none(version: &RoutedVersion) -> ModelStatistics {
    let none = Some(StatisticDuration::default());
    ModelStatistics {
        name: version.key.model.to_string(),
        version: version.ordinal_text.clone(),
        inference_stats: Some(InferStatistics {
            success: none,
            fail: none,
            queue: none,
            compute_input: none,
            compute_infer: none,
            compute_output: none,
            cache_hit: none,
            cache_miss: none,
        }),
        ..ModelStatistics::default()
    }
}

/// Whether its requests run together, so that axis 0 is a batch to its clients.
pub(super) fn is_batched(version: &Version) -> bool {
    version.signature.batchable && !version.settings.batching_disabled
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use starling_raft::state::NodeId;
    use starling_raft::state::models::VersionSettings;

    use super::*;
    use crate::inference::readiness_view::{LoadFailure, NodeReadiness};
    use crate::inference::routing_table::RoutingTable;
    use crate::inference::test_states::TestState;

    fn table(cluster: &TestState) -> RoutingTable {
        RoutingTable::default().updated(&cluster.state).unwrap()
    }

    /// One ready version of `x: FP32 [-1, 4]` to `y: FP32 [-1, 2]`.
    fn one_ready() -> TestState {
        let mut cluster = TestState::default();
        let first = cluster.register("digits");
        cluster.ready("digits", first);
        cluster
    }

    fn loaded_by_one_node(version: &RoutedVersion, max_batch: u32) -> ReadinessView {
        let loaded = [(version.id, max_batch)].into_iter().collect();
        let readiness = NodeReadiness { loaded, ..NodeReadiness::default() };
        ReadinessView::default().with(NodeId::new(1), readiness, 0).unwrap()
    }

    #[test]
    fn metadata_keeps_the_batch_axis_and_lists_ready_versions() {
        let mut cluster = one_ready();
        cluster.register("digits");
        let table = table(&cluster);
        let model = table.model("digits").unwrap();
        let metadata = metadata(model, model.representative().unwrap());
        assert_eq!(metadata.versions, ["1"]);
        assert_eq!(metadata.inputs[0].name, "x");
        assert_eq!(metadata.inputs[0].datatype, "FP32");
        assert_eq!(metadata.inputs[0].shape, [-1, 4]);
        assert_eq!(metadata.outputs[0].shape, [-1, 2]);
    }

    #[test]
    fn a_batched_version_leaves_the_batch_axis_out_of_its_config() {
        let table = table(&one_ready());
        let model = table.model("digits").unwrap();
        let version = model.representative().unwrap();
        let config = config(model, version, &loaded_by_one_node(version, 32), None);
        assert_eq!(config.max_batch_size, 32);
        assert_eq!(config.input[0].dims, [4]);
        assert_eq!(config.input[0].data_type, WireDataType::TypeFp32 as i32);
        assert_eq!(config.output[0].dims, [2]);
        assert!(config.scheduling_choice.is_some());
    }

    #[test]
    fn a_config_says_how_many_instances_there_are_here_or_else_what_was_set() {
        let mut cluster = TestState::default();
        cluster.register_with("digits", VersionSettings { instances: 3, ..VersionSettings::default() });
        cluster.register("other");
        let table = table(&cluster);
        let count = |name: &str, here| {
            let model = table.model(name).unwrap();
            let version = model.representative().unwrap();
            config(model, version, &ReadinessView::default(), here).instance_group[0].count
        };
        assert_eq!((count("digits", None), count("other", None)), (3, 1));
        assert_eq!(count("other", Some(2)), 2);
    }

    #[test]
    fn a_version_that_is_never_batched_has_whole_dims_and_no_batch_size() {
        let mut cluster = TestState::default();
        let settings = VersionSettings { batching_disabled: true, ..VersionSettings::default() };
        cluster.register_with("digits", settings);
        let table = table(&cluster);
        let model = table.model("digits").unwrap();
        let config = config(model, model.representative().unwrap(), &ReadinessView::default(), None);
        assert_eq!(config.max_batch_size, 0);
        assert_eq!(config.input[0].dims, [-1, 4]);
        assert!(config.scheduling_choice.is_none());
    }

    #[test]
    fn the_index_says_ready_loading_or_unavailable_and_why() {
        let mut cluster = one_ready();
        cluster.register("digits");
        let third = cluster.register("digits");
        cluster.failed("digits", third, "truncated");
        let table = table(&cluster);
        let model = table.model("digits").unwrap();
        let versions: Vec<_> = model.versions().collect();
        let view = loaded_by_one_node(versions[0], 8);
        let failed = [(versions[1].id, LoadFailure { reason: "no peer answered".into(), refused: false })];
        let readiness = NodeReadiness { failed: failed.into_iter().collect(), ..NodeReadiness::default() };
        let view = view.with(NodeId::new(2), readiness, 0).unwrap();
        let entries: Vec<_> = versions
            .iter()
            .map(|version| index_entry(model, version, &view))
            .map(|entry| format!("{} {} {}", entry.version, entry.state, entry.reason))
            .collect();
        assert_eq!(entries, ["1 READY ", "2 LOADING node 2: no peer answered", "3 UNAVAILABLE truncated"]);
        let alone = index_entry(model, versions[0], &ReadinessView::default());
        assert_eq!(
            (alone.state.as_str(), alone.reason.as_str()),
            ("UNAVAILABLE", "no live node has it loaded")
        );
    }
}
