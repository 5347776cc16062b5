//! What was written once must be read for ever. See `tests/golden/README.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use starling_raft::codec::{
    decode_command, decode_event, decode_outcome, decode_state, encode_command, encode_event, encode_outcome,
    encode_state, known_types,
};
use starling_raft::envelope::{CommandEnvelope, EventEnvelope};
use starling_raft::history::{History, HistoryOptions, HistoryRecord};
use starling_raft::snapshot_file::{read_snapshot, write_snapshot};
use starling_raft::state::models::{
    DataType, DeviceKind, InstanceMode, Oversize, TensorSpec, VersionSettings,
};
use starling_raft::state::routes::rules::{Attribute, Condition, Rule, Test};
use starling_raft::state::routes::shadows::{Agreement, Comparison, Shadow};
use starling_raft::state::{
    Accepted, ArtefactDigest, ClusterCommand, ClusterEvent, Command, EntryContext, Epoch, Event, EventClass,
    FeatureLevel, LogIndex, LogTime, MemberCommand, MemberEvent, ModelCommand, ModelEvent, NodeId, Ordinal,
    Outcome, Principal, Rejection, RouteCommand, RouteEvent, Signature, State, VersionRef, WallTime,
};
use tempfile::TempDir;

use crate::golden_rollouts;
use crate::log::{
    Log, addresses, cluster_id, delete_version, drain, join, label, labels, mark_failed, model, node_uuid,
    ppm, raise, register, register_with, remove, request_id, set_placement, set_route,
};

/// Set, and missing files are written. None is ever changed.
const WRITE_MISSING: &str = "STARLING_WRITE_GOLDEN";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The bytes of a golden file; written from `newest` first if it is missing and that was asked for.
fn golden(name: &str, newest: &[u8]) -> Vec<u8> {
    let path = folder().join(format!("{name}.hex"));
    if !path.exists() && std::env::var_os(WRITE_MISSING).is_some() {
        let lines: Vec<String> = newest.chunks(32).map(hex::encode).collect();
        fs::write(&path, lines.join("\n") + "\n").unwrap();
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

/// Every tensor type, every kind of axis.
fn full_signature() -> Signature {
    let types = [
        DataType::Bool,
        DataType::Uint8,
        DataType::Uint16,
        DataType::Uint32,
        DataType::Uint64,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Fp16,
        DataType::Bf16,
        DataType::Fp32,
        DataType::Fp64,
        DataType::Bytes,
    ];
    let tensor = |(number, data_type)| TensorSpec {
        name: format!("input-{number}"),
        data_type,
        shape: vec![-1, number, 3],
        optional: number % 2 == 1,
    };
    let outputs = vec![TensorSpec {
        name: "ausgabe-ß".to_owned(),
        data_type: DataType::Fp32,
        shape: vec![],
        optional: false,
    }];
    Signature { inputs: (0..).zip(types).map(tensor).collect(), outputs, batchable: true }
}

fn full_settings() -> VersionSettings {
    VersionSettings {
        max_batch: 32,
        max_queue_delay_micros: 2_000,
        batching_disabled: true,
        instances: 2,
        max_queue: 64,
        max_run_time_millis: 30_000,
        threads: 4,
        ..VersionSettings::default()
    }
}

/// What needs feature level 2.
fn level_2_settings() -> VersionSettings {
    VersionSettings {
        spinning: true,
        mode: InstanceMode::Dedicated,
        device: DeviceKind::Gpu,
        oversize: Oversize::Refuse,
        priority_levels: 5,
        default_priority_level: 3,
        queue_timeout_micros: 250_000,
        quiet: true,
        ..full_settings()
    }
}

/// The smallest that needs it: a mode.
fn local_settings() -> VersionSettings {
    VersionSettings { mode: InstanceMode::Local, device: DeviceKind::Cpu, ..VersionSettings::default() }
}

fn digest() -> ArtefactDigest {
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(0..).for_each(|(byte, number)| *byte = number);
    ArtefactDigest::new(bytes)
}

fn commands() -> Vec<(&'static str, Command)> {
    let node_id = NodeId::new(1_003);
    let digits = || model("digits");
    let ordinal = Ordinal::new(2);
    vec![
        ("command-0101-v1", Command::Cluster(ClusterCommand::Found { cluster_id: cluster_id(0x1234) })),
        (
            "command-0102-v1",
            Command::Cluster(ClusterCommand::RaiseFeatureLevel { level: FeatureLevel::new(2) }),
        ),
        ("command-0103-v1", Command::Cluster(ClusterCommand::Checkpoint)),
        (
            "command-0201-v1",
            Command::Member(MemberCommand::Join {
                node_uuid: node_uuid(0x5678),
                addresses: addresses(8003),
                labels: labels("a"),
                max_feature_level: FeatureLevel::new(3),
                starling_version: "0.1.0".to_owned(),
            }),
        ),
        ("command-0202-v1", Command::Member(MemberCommand::Drain { node_id })),
        ("command-0203-v1", Command::Member(MemberCommand::Undrain { node_id })),
        ("command-0204-v1", Command::Member(MemberCommand::Remove { node_id })),
        ("command-0205-v1", Command::Member(MemberCommand::SetLabels { node_id, labels: labels("b") })),
        (
            "command-0301-v1",
            Command::Model(ModelCommand::RegisterVersion {
                model: digits(),
                label: Some(label("v2")),
                digest: digest(),
                size_bytes: 4_711,
                signature: full_signature(),
                settings: full_settings(),
            }),
        ),
        (
            "command-0301-v1-unnamed",
            Command::Model(ModelCommand::RegisterVersion {
                model: digits(),
                label: None,
                digest: digest(),
                size_bytes: 0,
                signature: Signature { inputs: vec![], outputs: vec![], batchable: false },
                settings: VersionSettings::default(),
            }),
        ),
        (
            "command-0301-v2",
            Command::Model(ModelCommand::RegisterVersion {
                model: digits(),
                label: Some(label("v2")),
                digest: digest(),
                size_bytes: 4_711,
                signature: full_signature(),
                settings: level_2_settings(),
            }),
        ),
        (
            "command-0301-v2-local",
            Command::Model(ModelCommand::RegisterVersion {
                model: digits(),
                label: None,
                digest: digest(),
                size_bytes: 0,
                signature: Signature { inputs: vec![], outputs: vec![], batchable: false },
                settings: local_settings(),
            }),
        ),
        ("command-0302-v1", Command::Model(ModelCommand::MarkReady { model: digits(), ordinal })),
        (
            "command-0303-v1",
            Command::Model(ModelCommand::MarkFailed {
                model: digits(),
                ordinal,
                reason: "no such operator".to_owned(),
            }),
        ),
        (
            "command-0304-v1",
            Command::Model(ModelCommand::DeleteVersion {
                model: digits(),
                version: VersionRef::Ordinal(ordinal),
            }),
        ),
        (
            "command-0304-v1-by-label",
            Command::Model(ModelCommand::DeleteVersion {
                model: digits(),
                version: VersionRef::Label(label("v2")),
            }),
        ),
        ("command-0305-v1", Command::Model(ModelCommand::DeleteModel { model: digits() })),
        ("command-0306-v1", Command::Model(ModelCommand::SetPlacement { model: digits(), replicas: 2 })),
        (
            "command-0401-v1",
            Command::Route(RouteCommand::Set {
                model: digits(),
                weights: vec![
                    (VersionRef::Ordinal(Ordinal::new(1)), ppm(250_000)),
                    (VersionRef::Label(label("v2")), ppm(750_000)),
                ],
                expected_epoch: Some(Epoch::new(9)),
            }),
        ),
        (
            "command-0402-v1",
            Command::Route(RouteCommand::Configure {
                model: digits(),
                rules: Some(full_rules().iter().map(|rule| rule.for_version(by_label())).collect()),
                shadows: Some(full_shadows().iter().map(|shadow| shadow.for_version(by_label())).collect()),
                expected_epoch: Some(Epoch::new(9)),
            }),
        ),
        (
            "command-0402-v1-as-they-are",
            Command::Route(RouteCommand::Configure {
                model: digits(),
                rules: None,
                shadows: None,
                expected_epoch: None,
            }),
        ),
    ]
}

fn by_label() -> VersionRef {
    VersionRef::Label(label("v2"))
}

/// Every attribute, every test.
fn full_rules() -> Vec<Rule> {
    let condition = |attribute, test| Condition { attribute, test };
    let when = vec![
        condition(Attribute::Parameter("tier".to_owned()), Test::Equals("gold".to_owned())),
        condition(
            Attribute::Metadata("x-country".to_owned()),
            Test::In(vec!["de".to_owned(), "at".to_owned()]),
        ),
        condition(Attribute::Metadata("user-agent".to_owned()), Test::Matches("^ios/1[0-9]".to_owned())),
    ];
    vec![
        Rule { name: "gold".parse().unwrap(), when, portion: ppm(500_000), version: Ordinal::new(2) },
        Rule { name: "rest".parse().unwrap(), when: vec![], portion: ppm(1), version: Ordinal::new(1) },
    ]
}

/// Every agreement.
fn full_shadows() -> Vec<Shadow> {
    let outputs = vec![
        ("exact".to_owned(), Agreement::Exact),
        ("near".to_owned(), Agreement::Tolerance { absolute_nano: 5, relative_nano: 10_000 }),
        ("scores".to_owned(), Agreement::Distance { max: ppm(20_000) }),
    ];
    let when = vec![Condition {
        attribute: Attribute::Parameter("safe".to_owned()),
        test: Test::Equals("true".to_owned()),
    }];
    vec![Shadow {
        version: Ordinal::new(2),
        portion: ppm(250_000),
        when,
        comparison: Comparison { outputs, others: Agreement::TopOne },
    }]
}

fn events() -> Vec<(&'static str, Event)> {
    let node_id = NodeId::new(1_003);
    let digits = || model("digits");
    let ordinal = Ordinal::new(2);
    vec![
        ("event-8101-v1", Event::Cluster(ClusterEvent::ClusterFounded { cluster_id: cluster_id(0x1234) })),
        ("event-8102-v1", Event::Cluster(ClusterEvent::FeatureLevelRaised { level: FeatureLevel::new(2) })),
        ("event-8103-v1", Event::Cluster(ClusterEvent::CheckpointTaken {})),
        (
            "event-8201-v1",
            Event::Member(MemberEvent::NodeJoined {
                node_id,
                node_uuid: node_uuid(0x5678),
                addresses: addresses(8003),
                labels: labels("a"),
                max_feature_level: FeatureLevel::new(3),
                starling_version: "0.1.0".to_owned(),
            }),
        ),
        (
            "event-8202-v1",
            Event::Member(MemberEvent::NodeAnnounced {
                node_id,
                addresses: addresses(9003),
                labels: labels("b"),
                max_feature_level: FeatureLevel::new(4),
                starling_version: "0.2.0".to_owned(),
            }),
        ),
        ("event-8203-v1", Event::Member(MemberEvent::NodeDrained { node_id })),
        ("event-8204-v1", Event::Member(MemberEvent::NodeUndrained { node_id })),
        ("event-8205-v1", Event::Member(MemberEvent::NodeRemoved { node_id })),
        ("event-8206-v1", Event::Member(MemberEvent::NodeLabelsSet { node_id, labels: labels("c") })),
        (
            "event-8301-v1",
            Event::Model(ModelEvent::VersionRegistered {
                model: digits(),
                ordinal,
                label: label("v2"),
                digest: digest(),
                size_bytes: 4_711,
                signature: full_signature(),
                settings: full_settings(),
            }),
        ),
        ("event-8302-v1", Event::Model(ModelEvent::VersionReady { model: digits(), ordinal })),
        (
            "event-8303-v1",
            Event::Model(ModelEvent::VersionFailed {
                model: digits(),
                ordinal,
                reason: "no such operator".to_owned(),
            }),
        ),
        ("event-8304-v1", Event::Model(ModelEvent::VersionRetried { model: digits(), ordinal })),
        ("event-8305-v1", Event::Model(ModelEvent::VersionDeleted { model: digits(), ordinal })),
        ("event-8306-v1", Event::Model(ModelEvent::ModelDeleted { model: digits() })),
        ("event-8307-v1", Event::Model(ModelEvent::PlacementSet { model: digits(), replicas: 2 })),
        (
            "event-8401-v1",
            Event::Route(RouteEvent::RouteSet {
                model: digits(),
                weights: vec![(Ordinal::new(1), ppm(250_000)), (ordinal, ppm(750_000))],
            }),
        ),
    ]
}

/// Events that came later, and are not in the golden history segment.
fn later_events() -> Vec<(&'static str, Event)> {
    vec![
        (
            "event-8301-v2",
            Event::Model(ModelEvent::VersionRegistered {
                model: model("digits"),
                ordinal: Ordinal::new(2),
                label: label("v2"),
                digest: digest(),
                size_bytes: 4_711,
                signature: full_signature(),
                settings: level_2_settings(),
            }),
        ),
        (
            "event-8402-v1",
            Event::Route(RouteEvent::RouteConfigured {
                model: model("digits"),
                rules: full_rules(),
                shadows: full_shadows(),
            }),
        ),
    ]
}

fn outcomes() -> Vec<(&'static str, Outcome)> {
    let digits = || model("digits");
    let node = NodeId::new(1_003);
    let level = FeatureLevel::new;
    let accepted = Accepted { log_index: LogIndex::new(12), changed: true, created: Some(1_003) };
    vec![
        ("outcome-0501-v1", Ok(accepted)),
        (
            "outcome-0501-v1-unchanged",
            Ok(Accepted { log_index: LogIndex::new(12), changed: false, created: None }),
        ),
        ("outcome-0501-v1-unknown-model", Err(Rejection::UnknownModel(digits()))),
        (
            "outcome-0501-v1-unknown-version",
            Err(Rejection::UnknownVersion { model: digits(), version: "v9".to_owned() }),
        ),
        ("outcome-0501-v1-unknown-node", Err(Rejection::UnknownNode(node))),
        (
            "outcome-0501-v1-label-taken",
            Err(Rejection::LabelTaken { model: digits(), label: label("v1"), ordinal: Ordinal::new(1) }),
        ),
        (
            "outcome-0501-v1-version-not-ready",
            Err(Rejection::VersionNotReady { model: digits(), label: label("v1") }),
        ),
        (
            "outcome-0501-v1-version-in-route",
            Err(Rejection::VersionInRoute { model: digits(), label: label("v1") }),
        ),
        (
            "outcome-0501-v1-weights-do-not-sum",
            Err(Rejection::WeightsDoNotSum { model: digits(), sum_ppm: 1_000_001 }),
        ),
        (
            "outcome-0501-v1-version-named-twice",
            Err(Rejection::VersionNamedTwice { model: digits(), version: "1".to_owned() }),
        ),
        (
            "outcome-0501-v1-epoch-mismatch",
            Err(Rejection::EpochMismatch { model: digits(), expected: Epoch::new(3), found: Epoch::new(9) }),
        ),
        ("outcome-0501-v1-last-node", Err(Rejection::LastNode(node))),
        (
            "outcome-0501-v1-already-founded",
            Err(Rejection::AlreadyFounded("00000000-0000-0000-0000-000000001234".to_owned())),
        ),
        ("outcome-0501-v1-not-founded", Err(Rejection::NotFounded)),
        (
            "outcome-0501-v1-feature-level-too-high",
            Err(Rejection::FeatureLevelTooHigh { wanted: level(3), node, max: level(2) }),
        ),
        (
            "outcome-0501-v1-feature-not-enabled",
            Err(Rejection::FeatureNotEnabled { needed: level(2), current: level(1) }),
        ),
        ("outcome-0501-v1-node-too-old", Err(Rejection::NodeTooOld { cluster: level(2), node: level(1) })),
        (
            "outcome-0501-v1-limit-reached",
            Err(Rejection::LimitReached { what: "the number of models".to_owned(), limit: 10_000 }),
        ),
        ("outcome-0501-v1-no-route", Err(Rejection::NoRoute(digits()))),
        (
            "outcome-0501-v1-rule-named-twice",
            Err(Rejection::RuleNamedTwice { model: digits(), rule: "gold".parse().unwrap() }),
        ),
    ]
}

/// Something of everything: all phases, a draining, a removed and a moved node, a retired name,
/// answers and refusals.
fn full_state() -> State {
    let mut log = Log::of_two();
    log.accept(join(3, 1));
    log.accept(drain(1_003));
    log.accept(remove(1_004));
    log.push_ready("digits", "v1", 1);
    log.push_ready("digits", "v2", 2);
    log.accept(register("digits", "v3", 3));
    log.accept(mark_failed("digits", 3, "no such operator"));
    log.accept(register("digits", "v4", 4));
    log.accept(set_route("digits", &[("v1", 600_000), ("v2", 400_000)]));
    log.accept(set_route("digits", &[("v1", 900_000), ("v2", 100_000)]));
    log.accept(set_placement("digits", 2));
    log.push_ready("letters", "v1", 1);
    log.accept(crate::log::delete_model("letters"));
    log.refuse(delete_version("digits", "v1"));
    log.state
}

/// The same, and versions whose settings need level 2.
fn full_state_of_level_2() -> State {
    let mut log = Log { state: full_state(), index: 100, ..Log::empty() };
    log.accept(raise(2));
    let register = |settings| register_with("words", None, 7, settings, full_signature());
    log.accept(register(level_2_settings()));
    log.accept(register(local_settings()));
    log.state
}

/// The same, and a route that says more than weights.
fn full_state_of_level_3() -> State {
    let mut log = Log { state: full_state_of_level_2(), index: 200, ..Log::empty() };
    log.accept(join(1, 3));
    log.accept(join(2, 3));
    log.accept(raise(3));
    log.accept(Command::Route(RouteCommand::Configure {
        model: model("digits"),
        rules: Some(full_rules().iter().map(|rule| rule.for_version(by_label())).collect()),
        shadows: Some(full_shadows().iter().map(|shadow| shadow.for_version(by_label())).collect()),
        expected_epoch: None,
    }));
    log.state
}

/// The same, and rollouts.
fn full_state_of_level_4() -> State {
    golden_rollouts::full_state(full_state_of_level_3())
}

fn named<T>(values: Vec<(&'static str, T)>) -> impl Iterator<Item = (String, T)> {
    values.into_iter().map(|(name, value)| (name.to_owned(), value))
}

fn all_commands() -> impl Iterator<Item = (String, Command)> {
    named(commands()).chain(golden_rollouts::commands())
}

fn all_events() -> impl Iterator<Item = (String, Event)> {
    named(events()).chain(named(later_events())).chain(golden_rollouts::events())
}

fn all_outcomes() -> impl Iterator<Item = (String, Outcome)> {
    named(outcomes()).chain(golden_rollouts::outcomes())
}

fn states() -> Vec<(&'static str, State)> {
    vec![
        ("state-0601-v1", full_state()),
        ("state-0601-v1-empty", State::default()),
        ("state-0601-v2", full_state_of_level_2()),
        ("state-0601-v3", full_state_of_level_3()),
        ("state-0601-v4", full_state_of_level_4()),
    ]
}

fn context() -> EntryContext {
    EntryContext {
        log_index: LogIndex::new(77),
        log_time: LogTime::from_micros(123_456),
        wall_time: WallTime::from_unix_micros(1_700_000_000_000_000),
        principal: Principal::named("alice"),
        request_id: request_id(0x9abc),
    }
}

#[test]
fn commands_are_read_and_written_as_ever() {
    for (name, value) in all_commands() {
        let bytes = golden(&name, &encode_command(&value));
        assert_eq!(decode_command(&bytes), Ok(value.clone()), "{name}");
        assert_eq!(hex::encode(encode_command(&value)), hex::encode(bytes), "{name}");
    }
}

#[test]
fn events_are_read_and_written_as_ever() {
    for (name, value) in all_events() {
        let bytes = golden(&name, &encode_event(&value));
        assert_eq!(decode_event(&bytes), Ok(value.clone()), "{name}");
        assert_eq!(hex::encode(encode_event(&value)), hex::encode(bytes), "{name}");
    }
}

#[test]
fn answers_are_read_and_written_as_ever() {
    for (name, value) in all_outcomes() {
        let bytes = golden(&name, &encode_outcome(&value));
        assert_eq!(decode_outcome(&bytes), Ok(value.clone()), "{name}");
        assert_eq!(hex::encode(encode_outcome(&value)), hex::encode(bytes), "{name}");
    }
}

#[test]
fn states_are_read_and_written_as_ever() {
    for (name, value) in states() {
        let bytes = golden(name, &encode_state(&value));
        assert_eq!(decode_state(&bytes), Ok(value.clone()), "{name}");
        assert_eq!(hex::encode(encode_state(&value)), hex::encode(bytes), "{name}");
    }
}

#[test]
fn envelopes_are_read_and_written_as_ever() {
    let EntryContext { log_time, wall_time, principal, request_id, .. } = context();
    let feature_level = FeatureLevel::new(1);
    let command = drain(1_003);
    let class = EventClass::Audit;
    let value = CommandEnvelope { log_time, wall_time, principal, request_id, feature_level, class, command };
    let bytes = golden("envelope-v1-command", &value.encode());
    assert_eq!(CommandEnvelope::decode(&bytes), Ok(value.clone()));
    assert_eq!(hex::encode(value.encode()), hex::encode(bytes));

    let event = Event::Member(MemberEvent::NodeDrained { node_id: NodeId::new(1_003) });
    let value = EventEnvelope { context: context(), position: 1, class: EventClass::Telemetry, event };
    let bytes = golden("envelope-v1-event", &value.encode());
    assert_eq!(EventEnvelope::decode(&bytes), Ok(value.clone()));
    assert_eq!(hex::encode(value.encode()), hex::encode(bytes));
}

#[test]
fn history_segments_are_read_and_written_as_ever() {
    let records: Vec<HistoryRecord> =
        events().into_iter().map(|(_, event)| HistoryRecord::new(&context(), event)).collect();
    let folder = TempDir::new().unwrap();
    let mut history = History::open(folder.path().join("new"), HistoryOptions::default()).unwrap();
    history.append(&records).unwrap();
    history.seal().unwrap();
    let info = history.segments().remove(0);
    let newest = fs::read(history.segment_path(&info.name).unwrap()).unwrap();
    let bytes = golden("history-segment-v1", &newest);
    assert_eq!(hex::encode(newest), hex::encode(&bytes));

    fs::create_dir(folder.path().join("old")).unwrap();
    fs::write(folder.path().join("old").join(&info.name), bytes).unwrap();
    let old = History::open(folder.path().join("old"), HistoryOptions::default()).unwrap();
    assert_eq!(old.segments(), [info]);
    assert_eq!(old.read(LogIndex::new(0), 99).unwrap(), records);
}

#[test]
fn snapshot_files_are_read_and_written_as_ever() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("snapshot");
    let segments = [starling_raft::history::SegmentInfo {
        name: "audit-v1-00000000000000000001.seg".to_owned(),
        first_index: LogIndex::new(1),
        last_index: LogIndex::new(20),
        size_bytes: 4_096,
        sha256: [7; 32],
    }];
    write_snapshot(&path, b"meta", &full_state(), &segments).unwrap();
    let newest = fs::read(&path).unwrap();
    let bytes = golden("snapshot-v1", &newest);
    assert_eq!(hex::encode(newest), hex::encode(&bytes));
    fs::write(&path, bytes).unwrap();
    let contents = read_snapshot(&path).unwrap();
    assert_eq!((contents.meta_bytes, contents.state), (b"meta".to_vec(), full_state()));
    assert_eq!(contents.segments, segments);
}

#[test]
fn every_type_that_can_be_read_has_a_golden_file() {
    let files: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for (what, number, version) in known_types() {
        let name = format!("{what}-{number:04x}-v{version}.hex");
        assert!(files.contains(&name), "{name} is missing; see tests/golden/README.md");
    }
}

#[test]
fn every_golden_file_is_tested() {
    let of_files = ["envelope-v1-command", "envelope-v1-event", "history-segment-v1", "snapshot-v1"];
    let tested: BTreeSet<String> = all_commands()
        .map(|(name, _)| name)
        .chain(all_events().map(|(name, _)| name))
        .chain(all_outcomes().map(|(name, _)| name))
        .chain(named(states()).map(|(name, _)| name))
        .chain(of_files.map(str::to_owned))
        .map(|name| format!("{name}.hex"))
        .collect();
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || tested.contains(&name), "{name} is not tested");
    }
}
