//! Versions: pushed, ready, failed, deleted.

use starling_raft::state::models::{
    DeviceKind, InstanceMode, Oversize, PRIORITY_LEVELS_MAX, TENSORS_MAX, VERSIONS_PER_MODEL_MAX,
    VersionSettings,
};
use starling_raft::state::{
    Command, Event, FeatureLevel, ModelCommand, ModelEvent, Ordinal, Phase, Rejection, RouteEvent, State,
    VersionRef,
};

use crate::log::{
    Log, delete_model, delete_version, label, mark_failed, mark_ready, model, ppm, raise, register,
    register_with, set_placement, set_route, signature,
};

fn version_of<'a>(state: &'a State, name: &str, wanted: &str) -> &'a starling_raft::state::Version {
    state.models.get(name).unwrap().version(&wanted.parse::<VersionRef>().unwrap()).unwrap()
}

fn ready_event(ordinal: u64) -> Event {
    Event::Model(ModelEvent::VersionReady { model: model("digits"), ordinal: Ordinal::new(ordinal) })
}

#[test]
fn a_first_push_makes_the_model_whose_id_is_the_index_of_the_entry() {
    let mut log = Log::founded();
    let (events, outcome) = log.apply(register("digits", "v1", 1));
    assert_eq!(outcome.unwrap().created, Some(1));
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].kind(), "VersionRegistered");
    let digits = log.state.models.get("digits").unwrap();
    assert_eq!((digits.id, digits.replicas, digits.next_ordinal.get()), (log.index, 0, 2));
    let version = version_of(&log.state, "digits", "v1");
    assert_eq!((version.ordinal.get(), version.phase.clone()), (1, Phase::Registered));
    assert_eq!((version.size_bytes, version.signature.clone()), (1_001, signature()));
}

#[test]
fn without_a_label_a_version_is_called_by_its_ordinal_even_if_that_was_taken() {
    let mut log = Log::founded();
    let unnamed = |digest| register_with("digits", None, digest, VersionSettings::default(), signature());
    log.accept(unnamed(1));
    log.accept(register("digits", "v3", 2));
    log.accept(unnamed(3));
    assert_eq!(version_of(&log.state, "digits", "1").label, label("v1"));
    assert_eq!(version_of(&log.state, "digits", "2").label, label("v3"));
    assert_eq!(version_of(&log.state, "digits", "3").label, label("v3-2"));
}

#[test]
fn pushing_the_same_again_changes_nothing_and_names_the_ordinal() {
    let mut log = Log::founded();
    log.accept(register("digits", "v1", 1));
    log.accept(register("digits", "v2", 2));
    assert_eq!(log.find_unchanged(register("digits", "v2", 2)), Some(2));
    log.accept(mark_ready("digits", 2));
    assert_eq!(log.find_unchanged(register("digits", "v2", 2)), Some(2));
}

#[test]
fn a_label_stays_with_its_bytes_and_settings() {
    let mut log = Log::founded();
    log.accept(register("digits", "v1", 1));
    let taken =
        Rejection::LabelTaken { model: model("digits"), label: label("v1"), ordinal: Ordinal::new(1) };
    assert_eq!(log.refuse(register("digits", "v1", 2)), taken);
    let settings = VersionSettings { max_batch: 8, ..VersionSettings::default() };
    assert_eq!(log.refuse(register_with("digits", Some("v1"), 1, settings, signature())), taken);
    log.accept(register("other", "v1", 2));
}

#[test]
fn the_first_ready_version_gets_the_whole_route_and_the_next_does_not() {
    let mut log = Log::founded();
    log.accept(register("digits", "v1", 1));
    let first = log.accept(mark_ready("digits", 1));
    let whole =
        RouteEvent::RouteSet { model: model("digits"), weights: vec![(Ordinal::new(1), ppm(1_000_000))] };
    assert_eq!(first, [ready_event(1), Event::Route(whole)]);
    assert_eq!(log.find_unchanged(mark_ready("digits", 1)), None);
    log.accept(register("digits", "v2", 2));
    assert_eq!(log.accept(mark_ready("digits", 2)), [ready_event(2)]);
}

#[test]
fn a_failed_version_is_loaded_again_when_the_same_bytes_are_pushed_again() {
    let mut log = Log::founded();
    log.accept(register("digits", "v1", 1));
    log.accept(mark_failed("digits", 1, "no such operator"));
    assert_eq!(version_of(&log.state, "digits", "v1").phase, Phase::Failed("no such operator".to_owned()));
    assert_eq!(log.find_unchanged(mark_failed("digits", 1, "again")), None);

    let (events, outcome) = log.apply(register("digits", "v1", 1));
    assert_eq!(outcome.unwrap().created, Some(1));
    let retried = ModelEvent::VersionRetried { model: model("digits"), ordinal: Ordinal::new(1) };
    assert_eq!(events, [Event::Model(retried)]);
    assert_eq!(version_of(&log.state, "digits", "v1").phase, Phase::Registered);
    assert!(matches!(log.refuse(register("digits", "v1", 2)), Rejection::LabelTaken { .. }));
}

#[test]
fn a_failed_version_that_loads_after_all_is_ready_and_a_ready_one_cannot_fail() {
    let mut log = Log::founded();
    log.accept(register("digits", "v1", 1));
    log.accept(mark_failed("digits", 1, "out of memory"));
    log.accept(mark_ready("digits", 1));
    assert_eq!(log.find_unchanged(mark_failed("digits", 1, "late")), None);
    assert_eq!(version_of(&log.state, "digits", "v1").phase, Phase::Ready);
}

#[test]
fn a_reason_is_cut_at_2000_characters() {
    let mut log = Log::founded();
    log.accept(register("digits", "v1", 1));
    log.accept(mark_failed("digits", 1, &"ß".repeat(3_000)));
    assert_eq!(version_of(&log.state, "digits", "v1").phase, Phase::Failed("ß".repeat(2_000)));
}

#[test]
fn a_version_is_deleted_unless_the_route_names_it() {
    let mut log = Log::founded();
    log.push_ready("digits", "v1", 1);
    log.accept(register("digits", "v2", 2));
    let in_route = Rejection::VersionInRoute { model: model("digits"), label: label("v1") };
    assert_eq!(log.refuse(delete_version("digits", "v1")), in_route);
    assert_eq!(log.refuse(delete_version("digits", "1")), in_route);
    let deleted = ModelEvent::VersionDeleted { model: model("digits"), ordinal: Ordinal::new(2) };
    assert_eq!(log.accept(delete_version("digits", "v2")), [Event::Model(deleted)]);
    let unknown = Rejection::UnknownVersion { model: model("digits"), version: "v2".to_owned() };
    assert_eq!(log.refuse(delete_version("digits", "v2")), unknown);
}

#[test]
fn a_report_about_a_deleted_version_is_refused_and_its_ordinal_is_not_given_again() {
    let mut log = Log::founded();
    log.accept(register("digits", "v1", 1));
    log.accept(delete_version("digits", "v1"));
    let unknown = Rejection::UnknownVersion { model: model("digits"), version: "1".to_owned() };
    assert_eq!(log.refuse(mark_ready("digits", 1)), unknown);
    assert_eq!(log.refuse(mark_failed("digits", 1, "late")), unknown);
    let (_, outcome) = log.apply(register("digits", "v1", 1));
    assert_eq!(outcome.unwrap().created, Some(2));
}

#[test]
fn a_deleted_model_takes_versions_and_route_along_but_its_ordinals_go_on() {
    let mut log = Log::founded();
    log.push_ready("digits", "v1", 1);
    log.push_ready("digits", "v2", 2);
    let deleted = ModelEvent::ModelDeleted { model: model("digits") };
    assert_eq!(log.accept(delete_model("digits")), [Event::Model(deleted)]);
    assert!(log.state.models.get("digits").is_none());
    assert!(log.state.routes.get("digits").is_none());
    assert_eq!(log.refuse(delete_model("digits")), Rejection::UnknownModel(model("digits")));

    log.accept(register("digits", "v1", 3));
    assert_eq!(version_of(&log.state, "digits", "v1").ordinal, Ordinal::new(3));
    let late_report = log.refuse(mark_ready("digits", 1));
    assert!(matches!(late_report, Rejection::UnknownVersion { .. }));
    assert_eq!(log.state.models.retired().count(), 0);
}

#[test]
fn whether_bytes_are_still_needed_is_known() {
    let mut log = Log::founded();
    log.accept(register("digits", "v1", 1));
    let digest = version_of(&log.state, "digits", "v1").digest;
    assert!(log.state.models.refers_to(digest));
    log.accept(delete_version("digits", "v1"));
    assert!(!log.state.models.refers_to(digest));
}

#[test]
fn placement_is_set_once() {
    let mut log = Log::founded();
    assert_eq!(log.refuse(set_placement("digits", 2)), Rejection::UnknownModel(model("digits")));
    log.accept(register("digits", "v1", 1));
    let set = ModelEvent::PlacementSet { model: model("digits"), replicas: 2 };
    assert_eq!(log.accept(set_placement("digits", 2)), [Event::Model(set)]);
    assert_eq!(log.state.models.get("digits").unwrap().replicas, 2);
    assert_eq!(log.find_unchanged(set_placement("digits", 2)), None);
}

#[test]
fn what_is_asked_of_unknown_models_and_versions_is_refused() {
    let mut log = Log::founded();
    let unknown_model = Rejection::UnknownModel(model("digits"));
    for command in [
        mark_ready("digits", 1),
        mark_failed("digits", 1, "x"),
        delete_version("digits", "v1"),
        delete_model("digits"),
        set_route("digits", &[("v1", 1_000_000)]),
    ] {
        assert_eq!(log.refuse(command), unknown_model);
    }
    log.accept(register("digits", "v1", 1));
    let unknown_version =
        |version: &str| Rejection::UnknownVersion { model: model("digits"), version: version.to_owned() };
    assert_eq!(log.refuse(mark_ready("digits", 9)), unknown_version("9"));
    assert_eq!(log.refuse(mark_failed("digits", 9, "x")), unknown_version("9"));
    assert_eq!(log.refuse(delete_version("digits", "v9")), unknown_version("v9"));
}

#[test]
fn versions_of_a_model_and_sizes_of_a_signature_are_limited() {
    let mut log = Log::founded();
    let limit = |rejection: Rejection| match rejection {
        Rejection::LimitReached { limit, .. } => limit as usize,
        other => panic!("{other}"),
    };
    let mut wide = signature();
    wide.inputs = vec![wide.inputs[0].clone(); TENSORS_MAX + 1];
    let register_wide = register_with("digits", None, 1, VersionSettings::default(), wide);
    assert_eq!(limit(log.refuse(register_wide)), TENSORS_MAX);
    let mut deep = signature();
    deep.outputs[0].shape = vec![1; 65];
    assert_eq!(limit(log.refuse(register_with("digits", None, 1, VersionSettings::default(), deep))), 64);

    for number in 0..VERSIONS_PER_MODEL_MAX {
        log.accept(register("digits", &format!("n{number}"), 1));
    }
    assert_eq!(limit(log.refuse(register("digits", "more", 1))), VERSIONS_PER_MODEL_MAX);
    assert_eq!(log.find_unchanged(register("digits", "n7", 1)), Some(8));
    log.accept(Command::Model(ModelCommand::DeleteVersion {
        model: model("digits"),
        version: VersionRef::Ordinal(Ordinal::new(1)),
    }));
    log.accept(register("digits", "more", 1));
}

#[test]
fn every_setting_that_came_with_level_2_is_refused_below_it_and_kept_above() {
    let later = [
        VersionSettings { spinning: true, ..VersionSettings::default() },
        VersionSettings { mode: InstanceMode::Local, ..VersionSettings::default() },
        VersionSettings { device: DeviceKind::Gpu, ..VersionSettings::default() },
        VersionSettings { oversize: Oversize::Refuse, ..VersionSettings::default() },
        VersionSettings { priority_levels: 3, ..VersionSettings::default() },
        VersionSettings { default_priority_level: 1, ..VersionSettings::default() },
        VersionSettings { queue_timeout_micros: 1, ..VersionSettings::default() },
        VersionSettings { quiet: true, ..VersionSettings::default() },
    ];
    for settings in later {
        let mut log = Log::founded();
        let register = || register_with("digits", Some("v1"), 1, settings, signature());
        let gate =
            Rejection::FeatureNotEnabled { needed: FeatureLevel::new(2), current: FeatureLevel::new(1) };
        assert_eq!(log.refuse(register()), gate, "{settings:?}");
        assert_eq!(
            gate.to_string(),
            "this command, or a setting in it, needs feature level 2 and the cluster is at 1; it rises by itself once every node runs a binary that knows it: `starling get nodes -o json` shows which does not"
        );
        log.accept(raise(2));
        log.accept(register());
        assert_eq!(version_of(&log.state, "digits", "v1").settings, settings);
    }
}

#[test]
fn priorities_and_queue_timeouts_are_bounded() {
    let mut log = Log::founded();
    log.accept(raise(2));
    let mut refuse = |settings| match log.refuse(register_with("digits", None, 1, settings, signature())) {
        Rejection::LimitReached { limit, .. } => limit,
        other => panic!("{other}"),
    };
    let settings = VersionSettings::default();
    assert_eq!(refuse(VersionSettings { priority_levels: PRIORITY_LEVELS_MAX + 1, ..settings }), 64);
    assert_eq!(refuse(VersionSettings { priority_levels: 3, default_priority_level: 4, ..settings }), 3);
    assert_eq!(refuse(VersionSettings { default_priority_level: 2, ..settings }), 1);
    assert_eq!(refuse(VersionSettings { queue_timeout_micros: 86_400_000_001, ..settings }), 86_400_000_000);
    let widest = VersionSettings { priority_levels: 64, default_priority_level: 64, ..settings };
    log.accept(register_with("digits", None, 1, widest, signature()));
}
