//! A rollout owns the weights of one route from its start to its end.

use starling_raft::state::rollouts::{FINISHED_KEPT_MAX, RolloutEvent, RolloutPhase};
use starling_raft::state::{
    Command, Event, FeatureLevel, LogIndex, Ordinal, Principal, Rejection, RouteCommand, VersionRef,
};

use crate::log::{
    Log, configure_route, delete_model, delete_version, label, mark_ready, model, ppm, register, request_id,
    rule, set_route, shadow,
};
use crate::plans::{
    PERCENT, WHOLE, abort, advance, blue_green, canary, epoch, pause, promote_fully, start, start_again,
    version,
};

fn owned() -> Rejection {
    Rejection::RouteOwned { model: model("digits"), rollout: "trial".parse().unwrap() }
}

fn exists(is_over: bool) -> Rejection {
    Rejection::RolloutExists { rollout: "trial".parse().unwrap(), is_over }
}

/// Buckets that change their owner when an action is taken, in percent: every
/// boundary of these plans is a multiple of that.
fn moved(log: &mut Log, action: impl FnOnce(&mut Log)) -> usize {
    let bucket = |percent: u32| starling_raft::state::bucket::Bucket::new(percent * PERCENT).unwrap();
    let before = log.route().table;
    action(log);
    let after = log.route().table;
    (0..100).filter(|percent| before.owner(bucket(*percent)) != after.owner(bucket(*percent))).count()
}

#[test]
fn a_rollout_begins_with_the_weights_of_its_first_stage_in_the_epoch_of_its_entry() {
    let mut log = Log::for_rollouts();
    let events = log.accept(start("trial", canary()));
    assert!(matches!(&events[..], [Event::Rollout(RolloutEvent::RolloutStarted { weights, .. })]
            if *weights == vec![(Ordinal::new(1), ppm(95 * PERCENT)), (Ordinal::new(2), ppm(5 * PERCENT))]));
    assert_eq!(log.weights(), [(1, 95 * PERCENT), (2, 5 * PERCENT)]);
    assert_eq!(log.route().epoch, epoch(log.index));
    let trial = log.trial();
    assert_eq!((trial.phase.clone(), trial.stage, trial.approved), (RolloutPhase::Running, 0, false));
    assert_eq!((trial.started_at, trial.revision), (LogIndex::new(log.index), LogIndex::new(log.index)));
    assert_eq!(trial.started_by, Principal::local());
    assert_eq!(trial.before, [(Ordinal::new(1), ppm(WHOLE))]);
    assert_eq!(trial.after, []);
    assert_eq!(log.state.rollouts.owner_of(&model("digits")).map(|owner| owner.name.as_str()), Some("trial"));
    let epochs: Vec<_> = trial.epochs.iter().map(|known| (known.epoch, known.stratum)).collect();
    assert_eq!(epochs, [(epoch(log.index), 0)]);
}

#[test]
fn weights_of_an_owned_route_are_refused_with_who_owns_it() {
    let mut log = Log::running(canary());
    let refused = log.refuse(set_route("digits", &[("v1", WHOLE)]));
    assert_eq!(refused, owned());
    assert_eq!(
        refused.to_string(),
        "the weights of model 'digits' belong to rollout 'trial' until it is over; \
         `starling rollout status trial` shows it, `starling rollout abort trial` ends it"
    );
    assert_eq!(log.refuse(start("another", canary())), owned());
    log.accept(abort("trial"));
    log.accept(set_route("digits", &[("v1", WHOLE / 2), ("v2", WHOLE / 2)]));
}

#[test]
fn rules_and_shadows_of_an_owned_route_can_be_set_and_begin_an_epoch_of_the_same_stratum() {
    let mut log = Log::running(canary());
    let weights = log.weights();
    log.accept(configure_route("digits", vec![rule("gold", WHOLE, "v3")], vec![shadow("v3", WHOLE)], None));
    assert_eq!(log.weights(), weights);
    let strata: Vec<_> = log.trial().epochs.iter().map(|known| (known.epoch, known.stratum)).collect();
    assert_eq!(strata, [(epoch(log.index - 1), 0), (epoch(log.index), 0)]);
    assert_eq!(log.trial().strata.len(), 1);
}

#[test]
fn other_models_are_nobodys() {
    let mut log = Log::running(canary());
    log.push_ready("letters", "v1", 1);
    log.push_ready("letters", "v2", 2);
    log.accept(set_route("letters", &[("v1", WHOLE / 2), ("v2", WHOLE / 2)]));
}

#[test]
fn the_same_plan_again_changes_nothing_while_it_runs_and_when_it_is_over() {
    let mut log = Log::running(canary());
    assert_eq!(log.find_unchanged(start("trial", canary())), None);
    assert_eq!(log.find_unchanged(start_again("trial", canary())), None);
    log.accept(pause("trial"));
    log.find_unchanged(start("trial", canary()));
    log.accept(abort("trial"));
    log.find_unchanged(start("trial", canary()));
    assert_eq!(log.weights(), [(1, WHOLE)]);
}

#[test]
fn the_same_plan_names_its_versions_by_label_or_by_ordinal() {
    let mut log = Log::running(canary());
    let mut plan = canary();
    plan.from = version("1");
    log.find_unchanged(start("trial", plan));
}

#[test]
fn another_plan_of_the_same_name_is_refused_and_says_how_to_run_it() {
    let mut log = Log::running(canary());
    assert_eq!(log.refuse(start("trial", blue_green())), exists(false));
    assert_eq!(log.refuse(start_again("trial", blue_green())), exists(false));
    log.accept(abort("trial"));
    assert_eq!(log.refuse(start("trial", blue_green())), exists(true));
    assert_eq!(
        exists(true).to_string(),
        "rollout 'trial' exists with another plan and is over; give this one another name, \
         or start it anew with `starling rollout start --again`"
    );
    log.accept(start_again("trial", blue_green()));
}

#[test]
fn a_plan_that_is_over_runs_anew_when_asked_to_and_draws_anew() {
    let mut log = Log::running(canary());
    let first = log.trial();
    log.accept(abort("trial"));
    log.accept(start_again("trial", canary()));
    let second = log.trial();
    assert_eq!(second.started_at, LogIndex::new(log.index));
    assert_eq!((first.salt().as_str(), second.salt().as_str()), ("trial@11", "trial@13"));
    assert_eq!((second.phase, second.epochs.len()), (RolloutPhase::Running, 1));
}

#[test]
fn a_retry_of_a_start_gets_the_first_answer_also_when_the_rollout_is_over() {
    let mut log = Log::for_rollouts();
    let (_, first) = log.apply_as(request_id(7), start_again("trial", canary()));
    log.accept(abort("trial"));
    let (events, again) = log.apply_as(request_id(7), start_again("trial", canary()));
    assert_eq!((events, again), (vec![], first));
    assert!(log.trial().is_over());
}

#[test]
fn a_manifest_whose_versions_are_long_gone_still_changes_nothing() {
    let mut log = Log::running(canary());
    log.accept(promote_fully("trial"));
    log.accept(promote_fully("trial"));
    log.accept(delete_version("digits", "v1"));
    log.find_unchanged(start("trial", canary()));
    let mut other = canary();
    other.retry_on_stable = true;
    assert_eq!(log.refuse(start("trial", other)), exists(true));
}

#[test]
fn a_rollout_needs_a_model_with_a_route_and_versions_that_are_ready() {
    let mut log = Log::for_rollouts();
    let of = |name: &str| {
        let mut plan = canary();
        plan.model = model(name);
        plan
    };
    assert_eq!(log.refuse(start("trial", of("nobody"))), Rejection::UnknownModel(model("nobody")));
    log.accept(register("letters", "v1", 1));
    log.accept(register("letters", "v2", 2));
    assert_eq!(log.refuse(start("trial", of("letters"))), Rejection::NoRoute(model("letters")));
    log.accept(mark_ready("letters", 1));
    let not_ready = Rejection::VersionNotReady { model: model("letters"), label: label("v2") };
    assert_eq!(log.refuse(start("trial", of("letters"))), not_ready);

    let mut plan = canary();
    plan.from = version("v9");
    let unknown = Rejection::UnknownVersion { model: model("digits"), version: "v9".to_owned() };
    assert_eq!(log.refuse(start("trial", plan)), unknown);
}

#[test]
fn versions_and_the_model_of_a_rollout_cannot_be_deleted_until_it_is_over() {
    let mut log = Log::running(blue_green());
    assert_eq!(log.weights(), [(1, WHOLE)], "green answers nobody yet");
    let in_route = Rejection::VersionInRoute { model: model("digits"), label: label("v2") };
    assert_eq!(log.refuse(delete_version("digits", "v2")), in_route);
    assert_eq!(log.refuse(delete_model("digits")), owned());
    log.accept(delete_version("digits", "v3"));
    log.accept(abort("trial"));
    log.accept(delete_version("digits", "v2"));
    log.accept(delete_model("digits"));
    assert_eq!(log.state.rollouts.iter().count(), 0, "what was known of them is gone");
}

#[test]
fn below_feature_level_four_there_are_no_rollouts() {
    let mut log = Log::founded();
    log.push_ready("digits", "v1", 1);
    log.push_ready("digits", "v2", 2);
    let (needed, current) = (FeatureLevel::new(4), FeatureLevel::new(1));
    assert_eq!(log.refuse(start("trial", canary())), Rejection::FeatureNotEnabled { needed, current });
}

#[test]
fn every_step_moves_the_minimum_and_nobody_who_has_the_candidate_loses_it() {
    let mut log = Log::for_rollouts();
    assert_eq!(moved(&mut log, |log| drop(log.accept(start("trial", blue_green())))), 0);
    for (stage, percent) in [(1, 10), (2, 40), (3, 50)] {
        log.wait(10);
        let step = log.step();
        assert_eq!(moved(&mut log, |log| drop(log.accept(advance(step, stage)))), percent, "stage {stage}");
    }
    let mut log = Log::running(canary());
    let (five, candidate) = (log.route().table, Some(Ordinal::new(2)));
    log.wait(10);
    let step = log.step();
    assert_eq!(moved(&mut log, |log| drop(log.accept(advance(step, 1)))), 20);
    for percent in 0..100 {
        let bucket = starling_raft::state::bucket::Bucket::new(percent * PERCENT).unwrap();
        let had_it = five.owner(bucket) == candidate;
        assert!(!had_it || log.route().table.owner(bucket) == candidate, "{percent} %");
    }
    assert_eq!(moved(&mut log, |log| drop(log.accept(abort("trial")))), 25);
}

#[test]
fn finished_rollouts_are_kept_up_to_a_number_and_the_oldest_go_first() {
    let mut log = Log::for_rollouts();
    for number in 0..=FINISHED_KEPT_MAX {
        // Names in an order of their own.
        let name = format!("r{}", (number * 3) % (FINISHED_KEPT_MAX + 1));
        log.accept(start(&name, canary()));
        log.accept(abort(&name));
        if number == FINISHED_KEPT_MAX - 1 {
            assert!(log.state.rollouts.get("r0").is_some());
        }
    }
    assert_eq!(log.state.rollouts.iter().count(), FINISHED_KEPT_MAX);
    assert!(log.state.rollouts.get("r0").is_none(), "it ended first");
    assert!(log.state.rollouts.get("r3").is_some());
}

#[test]
fn a_route_that_is_nobodys_keeps_its_rules_through_a_rollout() {
    let mut log = Log::for_rollouts();
    log.accept(configure_route("digits", vec![rule("gold", WHOLE, "v3")], vec![], None));
    let rules = log.route().rules;
    log.accept(start("trial", canary()));
    log.accept(abort("trial"));
    assert_eq!(log.route().rules, rules);
    let unchanged: Option<Vec<starling_raft::state::routes::rules::Rule<VersionRef>>> = None;
    let (rules, shadows) = (unchanged, None);
    let nothing = RouteCommand::Configure { model: model("digits"), rules, shadows, expected_epoch: None };
    log.find_unchanged(Command::Route(nothing));
}
