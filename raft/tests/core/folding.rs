//! Every replica folds the same log to the same state, whichever way it got there.

use std::collections::BTreeMap;

use proptest::prelude::*;
use starling_raft::codec::{decode_event, decode_state, encode_event, encode_state, state_digest};
use starling_raft::envelope::CommandEnvelope;
use starling_raft::state::models::VersionSettings;
use starling_raft::state::rollouts::RewardSum;
use starling_raft::state::{
    ClusterCommand, Command, Epoch, EventClass, FeatureLevel, LogIndex, LogTime, Ordinal, Outcome, Principal,
    RequestId, State, WallTime,
};

use crate::log::{
    SECOND_MICROS, cluster_id, configure_route, delete_model, delete_version, drain, join_at, mark_failed,
    mark_ready, model, raise, register, register_with, remove, request_id, rule, set_labels, set_placement,
    set_route, set_route_at, shadow, signature, undrain,
};
use crate::plans;

const MODELS: [&str; 3] = ["digits", "letters", "fraud"];
const VERSIONS: [&str; 5] = ["v1", "v2", "v3", "1", "2"];

/// Few names, few nodes and few bytes, so that commands meet.
fn any_command() -> impl Strategy<Value = Command> {
    let name = || prop::sample::select(&MODELS[..]);
    let version = || prop::sample::select(&VERSIONS[..]);
    let own_label = || prop::sample::select(&VERSIONS[..3]);
    let node = || prop_oneof![Just(1_000_u64), 1_001..1_040_u64];
    let split = (name(), version(), version(), 0..=1_000_000_u32, proptest::option::of(0..40_u64));
    let beside = (name(), version(), version(), 0..=1_000_000_u32, proptest::option::of(0..40_u64));
    prop_oneof![
        1 => (1..3_u128).prop_map(|id| Command::Cluster(ClusterCommand::Found { cluster_id: cluster_id(id) })),
        1 => (1..5_u32).prop_map(raise),
        1 => Just(Command::Cluster(ClusterCommand::Checkpoint)),
        4 => (1..6_u128, 1..5_u32, 8_000..8_003_u16).prop_map(|(uuid, level, port)| join_at(uuid, level, port)),
        2 => node().prop_map(drain),
        2 => node().prop_map(undrain),
        1 => node().prop_map(remove),
        1 => (node(), prop::sample::select(&["a", "b"][..])).prop_map(|(node, zone)| set_labels(node, zone)),
        6 => (name(), own_label(), 1..4_u8).prop_map(|(name, label, digest)| register(name, label, digest)),
        1 => name().prop_map(|name| register_with(name, None, 9, VersionSettings::default(), signature())),
        6 => (name(), 1..5_u64).prop_map(|(name, ordinal)| mark_ready(name, ordinal)),
        1 => (name(), 1..5_u64).prop_map(|(name, ordinal)| mark_failed(name, ordinal, "no")),
        1 => (name(), version()).prop_map(|(name, version)| delete_version(name, version)),
        1 => name().prop_map(delete_model),
        1 => (name(), 0..4_u32).prop_map(|(name, replicas)| set_placement(name, replicas)),
        1 => (name(), version()).prop_map(|(name, version)| set_route(name, &[(version, 1_000_000)])),
        4 => split.prop_map(|(name, one, other, part, epoch)| {
            set_route_at(name, &[(one, part), (other, 1_000_000 - part)], epoch)
        }),
        3 => beside.prop_map(|(name, gold, copies, portion, epoch)| {
            configure_route(name, vec![rule("gold", portion, gold)], vec![shadow(copies, portion)], epoch)
        }),
        12 => any_rollout_command(),
    ]
}

/// Steps may name any of the last few revisions; so some of them are right.
fn any_rollout_command() -> impl Strategy<Value = Command> {
    let name = || prop::sample::select(&["one", "two"][..]);
    let any_step = || (name(), 0..60_u64).prop_map(|(name, revision)| plans::step(name, revision));
    let any_start = (name(), prop::sample::select(&MODELS[..]), 0..5_usize, any::<bool>());
    let arms = || vec![plans::arm("a", "v1", 30), plans::arm("b", "v2", 70)];
    prop_oneof![
        6 => any_start.prop_map(|(name, of, plan, again)| {
            let plans = [plans::canary, plans::blue_green, plans::shadowing, plans::ab_test, plans::bandit];
            let plan = plans::Plan { model: model(of), ..plans[plan]() };
            if again { plans::start_again(name, plan) } else { plans::start(name, plan) }
        }),
        1 => name().prop_map(plans::pause),
        1 => name().prop_map(plans::resume),
        2 => name().prop_map(plans::promote),
        1 => name().prop_map(plans::promote_fully),
        1 => name().prop_map(|name| plans::promote_winner(name, "v2")),
        1 => name().prop_map(plans::abort),
        1 => name().prop_map(plans::undo),
        1 => name().prop_map(move |name| plans::set_arms(name, arms())),
        1 => (name(), 0..400_u64, 0..400_u64).prop_map(|(name, from, to)| plans::drop_learning(name, from, to)),
        4 => (any_step(), 0..4_u32).prop_map(|(step, stage)| plans::advance(step, stage)),
        1 => any_step().prop_map(plans::roll_back),
        1 => any_step().prop_map(plans::hold),
        3 => (any_step(), 1..99_u32).prop_map(|(step, percent)| {
            plans::publish(step, &[(1, percent), (2, 100 - percent)])
        }),
        1 => (any_step(), proptest::option::of(1..3_u64)).prop_map(|(step, won)| plans::conclude(step, won)),
        4 => any_feedback(),
    ]
}

fn any_feedback() -> impl Strategy<Value = Command> {
    let sum = (0..60_u64, 0..60_u64, 1..3_u64, 0..3_u8, 0..400_u32, -2..3_i64);
    let sums = proptest::collection::vec(sum, 0..4);
    (prop_oneof![3 => Just(1_000_u64), 1 => 1_001..1_040_u64], 1..6_u64, sums).prop_map(
        |(node, sequence, sums)| {
            let sum = |(started, epoch, arm, cluster, slice, count)| RewardSum {
                rollout: "one".parse().unwrap(),
                started_at: LogIndex::new(started),
                arm: Ordinal::new(arm),
                epoch: Epoch::new(epoch),
                cluster,
                slice,
                totals: plans::totals(count),
            };
            plans::feedback(node, sequence, sums.into_iter().map(sum).collect())
        },
    )
}

/// An entry as a leader would have written it: repeated requests, uneven time.
#[derive(Debug, Clone)]
struct Entry {
    log_time: LogTime,
    request_id: RequestId,
    command: Command,
}

/// Begins with founding and a first member, so that the rest has something to do.
fn any_log() -> impl Strategy<Value = Vec<Entry>> {
    prop_oneof![log_from(vec![]), log_from(ready_for_rollouts())]
}

/// At level 4, with three versions of a model that are ready.
fn ready_for_rollouts() -> Vec<Command> {
    let mut beginning = vec![raise(4)];
    for (ordinal, label) in (1..).zip(["v1", "v2", "v3"]) {
        beginning.push(register("digits", label, 1));
        beginning.push(mark_ready("digits", ordinal));
    }
    beginning
}

fn log_from(further: Vec<Command>) -> impl Strategy<Value = Vec<Entry>> {
    let entry = (any_command(), 0..60_u128, prop_oneof![9 => 0..SECOND_MICROS, 1 => 0..400 * SECOND_MICROS]);
    proptest::collection::vec(entry, 1..120).prop_map(move |entries| {
        let found = Command::Cluster(ClusterCommand::Found { cluster_id: cluster_id(1) });
        let mut beginning = vec![(found, 900, 1), (join_at(1, 4, 8_000), 901, 1)];
        beginning.extend((902..).zip(further.clone()).map(|(request, command)| (command, request, 1)));
        let mut now = 0;
        let stamp = |(command, request, micros): (Command, u128, u64)| {
            now += micros;
            Entry { log_time: LogTime::from_micros(now), request_id: request_id(request), command }
        };
        beginning.into_iter().chain(entries).map(stamp).collect()
    })
}

fn envelope(index: u64, entry: &Entry) -> CommandEnvelope {
    CommandEnvelope {
        log_time: entry.log_time,
        wall_time: WallTime::from_unix_micros(1_700_000_000_000_000 + index),
        principal: Principal::named("alice"),
        request_id: entry.request_id,
        feature_level: FeatureLevel::new(1),
        class: entry.command.class(),
        command: entry.command.clone(),
    }
}

fn fold(state: &mut State, first_index: u64, log: &[Entry]) -> Vec<Outcome> {
    let apply = |(index, entry)| {
        let envelope = envelope(index, entry);
        state.apply(&envelope.context(LogIndex::new(index)), &envelope.command).1
    };
    (first_index..).zip(log).map(apply).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_replica_that_reads_the_log_from_its_bytes_comes_to_the_same_state_and_answers(log in any_log()) {
        let mut direct = State::default();
        let answers = fold(&mut direct, 1, &log);
        let mut replica = State::default();
        for ((index, entry), answer) in (1..).zip(&log).zip(answers) {
            let read = CommandEnvelope::decode(&envelope(index, entry).encode()).unwrap();
            let (_, outcome) = replica.apply(&read.context(LogIndex::new(index)), &read.command);
            prop_assert_eq!(outcome, answer);
        }
        prop_assert_eq!(&replica, &direct);
        prop_assert_eq!(state_digest(&replica), state_digest(&direct));
    }

    #[test]
    fn a_snapshot_and_the_tail_come_to_the_same_state_as_the_whole_log(
        log in any_log(), cut in any::<prop::sample::Index>()
    ) {
        let cut = cut.index(log.len());
        let mut whole = State::default();
        fold(&mut whole, 1, &log);

        let mut state = State::default();
        fold(&mut state, 1, &log[..cut]);
        let mut restored = decode_state(&encode_state(&state)).unwrap();
        prop_assert_eq!(&restored, &state);
        fold(&mut restored, cut as u64 + 1, &log[cut..]);
        prop_assert_eq!(&restored, &whole);
        prop_assert_eq!(state_digest(&restored), state_digest(&whole));
    }

    #[test]
    fn the_events_alone_come_to_the_same_members_models_routes_and_rollouts(log in any_log()) {
        let mut state = State::default();
        let mut replayed = State::default();
        for (index, entry) in (1..).zip(&log) {
            let envelope = envelope(index, entry);
            let context = envelope.context(LogIndex::new(index));
            let (events, _) = state.apply(&context, &envelope.command);
            for event in events {
                let read = decode_event(&encode_event(&event)).unwrap();
                prop_assert_eq!(&read, &event);
                replayed.evolve(&context, &read);
            }
        }
        prop_assert_eq!(replayed.members, state.members);
        prop_assert_eq!(replayed.models, state.models);
        prop_assert_eq!(replayed.routes, state.routes);
        prop_assert_eq!(replayed.rollouts, state.rollouts);
        prop_assert_eq!(replayed.cluster.id, state.cluster.id);
        prop_assert_eq!(replayed.cluster.feature_level, state.cluster.feature_level);
    }

    #[test]
    fn whoever_repeats_a_request_in_time_gets_the_first_answer(log in any_log()) {
        let mut state = State::default();
        let mut first_answers: BTreeMap<RequestId, (LogTime, Outcome)> = BTreeMap::new();
        for ((index, entry), answer) in (1_u64..).zip(&log).zip(fold(&mut state, 1, &log)) {
            let ten_minutes = 600 * SECOND_MICROS;
            if entry.command.class() == EventClass::Telemetry {
                continue;
            }
            match first_answers.get(&entry.request_id) {
                Some((then, first)) if then.plus_micros(ten_minutes) >= entry.log_time => {
                    prop_assert_eq!(&answer, first, "entry {}", index);
                }
                _ => {
                    first_answers.insert(entry.request_id, (entry.log_time, answer));
                }
            }
        }
    }

    #[test]
    fn what_holds_always_holds(log in any_log()) {
        let mut state = State::default();
        for (index, entry) in (1..).zip(&log) {
            fold(&mut state, index, std::slice::from_ref(entry));
            let founded = state.members.iter().count() > 0;
            let serving = state.members.iter().filter(|member| !member.draining).count();
            prop_assert!(!founded || serving > 0, "somebody serves");
            for member in state.members.iter() {
                prop_assert!(!state.members.was_removed(member.node_id), "an id is never used again");
                prop_assert!(member.max_feature_level >= state.cluster.feature_level);
            }
            for (name, route) in state.routes.iter() {
                let total: u32 = route.weights.iter().map(|(_, weight)| weight.get()).sum();
                prop_assert_eq!(total, 1_000_000);
                let model = state.models.get(name.as_str()).unwrap();
                for (ordinal, _) in &route.weights {
                    let version = model.versions.get(ordinal).unwrap();
                    prop_assert_eq!(&version.phase, &starling_raft::state::Phase::Ready);
                }
            }
            for rollout in state.rollouts.active() {
                let route = state.routes.get(rollout.spec.model.as_str()).unwrap();
                let newest = rollout.epochs.last().unwrap();
                prop_assert_eq!(newest.epoch, route.epoch);
                prop_assert_eq!(&*newest.table, &route.table);
                prop_assert!(rollout.epochs.windows(2).all(|pair| pair[0].epoch < pair[1].epoch));
                prop_assert!(newest.stratum < rollout.strata.len() as u32);
                prop_assert!(rollout.current_stage().is_some());
                prop_assert!(rollout.revision >= rollout.started_at);
                let model = state.models.get(rollout.spec.model.as_str()).unwrap();
                prop_assert!(rollout.versions().iter().all(|version| model.versions.contains_key(version)));
            }
            let owned = state.rollouts.active().count();
            let unfinished = state.rollouts.iter().filter(|rollout| !rollout.is_over()).count();
            prop_assert_eq!(owned, unfinished, "every rollout that is not over owns its route");
        }
    }
}
