//! Plans that cannot be carried out: each refusal with the field's path and what
//! would be right.

use starling_raft::state::models::{DataType, VersionSettings};
use starling_raft::state::rollouts::SpecProblem;
use starling_raft::state::rollouts::spec::{
    Arm, Bandit, BanditPolicy, CanaryStep, Experiment, GateTest, Micro, Millis, Pause, Strategy, Validation,
};
use starling_raft::state::routes::rules::{Attribute, Condition, Test};
use starling_raft::state::{Rejection, Signature, VersionRef};

use crate::log::{Log, mark_ready, ppm, register_with, set_route, signature};
use crate::plans::{
    PERCENT, Plan, WHOLE, ab_test, arm, bandit, blue_green, canary, gate, shadowing, start, version,
};

/// What is wrong with a plan, and with which field.
fn problem(plan: Plan) -> (String, SpecProblem) {
    problem_in(&mut Log::for_rollouts(), plan)
}

fn problem_in(log: &mut Log, plan: Plan) -> (String, SpecProblem) {
    match log.refuse(start("trial", plan)) {
        Rejection::InvalidRollout { rollout, field, problem } => {
            assert_eq!(rollout.as_str(), "trial");
            (field, problem)
        }
        other => panic!("{other}"),
    }
}

fn out_of_range(found: i64, min: i64, max: i64) -> SpecProblem {
    SpecProblem::OutOfRange { found, min, max }
}

fn with_steps(percent: &[u32]) -> Plan {
    let step = |percent: &u32| CanaryStep {
        weight: ppm(percent * PERCENT),
        pause: Pause::UntilApproved,
        gates: vec![],
    };
    let steps = percent.iter().map(step).collect();
    Plan { strategy: Strategy::Canary { to: version("v2"), steps }, ..canary() }
}

fn with_experiment(change: impl FnOnce(&mut Experiment<VersionRef>)) -> Plan {
    let mut plan = ab_test();
    let Strategy::AbTest(experiment) = &mut plan.strategy else { unreachable!() };
    change(experiment);
    plan
}

fn with_arms(arms: Vec<Arm<VersionRef>>) -> Plan {
    with_experiment(|experiment| experiment.arms = arms)
}

fn with_bandit(change: impl FnOnce(&mut Bandit<VersionRef>)) -> Plan {
    let mut plan = bandit();
    let Strategy::Bandit(found) = &mut plan.strategy else { unreachable!() };
    change(found);
    plan
}

fn with_validation(change: impl FnOnce(&mut Validation)) -> Plan {
    let mut plan = shadowing();
    let Strategy::Shadow { validation, .. } = &mut plan.strategy else { unreachable!() };
    change(validation);
    plan
}

fn with_gate(test: GateTest, plan: Plan) -> Plan {
    Plan { gates: vec![gate(test)], ..plan }
}

#[test]
fn the_stable_version_must_begin_with_the_whole_route() {
    let mut log = Log::for_rollouts();
    log.accept(set_route("digits", &[("v1", 600_000), ("v3", 400_000)]));
    let stable = "v1".to_owned();
    let expected = SpecProblem::NotTheWholeRoute { stable, weight_ppm: 600_000 };
    assert_eq!(problem_in(&mut log, canary()), ("spec.from".to_owned(), expected.clone()));
    assert_eq!(
        expected.to_string(),
        "version 'v1' has 60.0000 % of the route and must have all of it before a rollout begins; \
         set it with `starling route set`"
    );
    let mut from_nothing = canary();
    from_nothing.from = version("v2");
    let Strategy::Canary { to, .. } = &mut from_nothing.strategy else { unreachable!() };
    *to = version("v1");
    let (field, found) = problem_in(&mut log, from_nothing);
    assert_eq!(field, "spec.from");
    assert_eq!(found, SpecProblem::NotTheWholeRoute { stable: "v2".to_owned(), weight_ppm: 0 });
}

#[test]
fn the_candidate_must_be_another_version() {
    for plan in [canary(), blue_green(), shadowing()] {
        let mut plan = plan;
        match &mut plan.strategy {
            Strategy::Canary { to, .. } | Strategy::BlueGreen { to, .. } | Strategy::Shadow { to, .. } => {
                *to = version("1");
            }
            _ => unreachable!(),
        }
        assert_eq!(problem(plan), ("spec.to".to_owned(), SpecProblem::SameVersion("v1".to_owned())));
    }
}

/// What differs between `v1` and a version with this signature.
fn difference(change: impl FnOnce(&mut Signature)) -> Option<String> {
    let mut log = Log::for_rollouts();
    let mut other = signature();
    change(&mut other);
    log.accept(register_with("digits", Some("other"), 9, VersionSettings::default(), other));
    log.accept(mark_ready("digits", 4));
    let mut plan = canary();
    let Strategy::Canary { to, .. } = &mut plan.strategy else { unreachable!() };
    *to = version("other");
    let (_, outcome) = log.apply(start("trial", plan));
    match outcome {
        Ok(_) => None,
        Err(Rejection::InvalidRollout {
            field,
            problem: SpecProblem::OtherSignature { version, stable, tensor },
            ..
        }) => {
            assert_eq!((field.as_str(), version.as_str(), stable.as_str()), ("spec.to", "other", "v1"));
            Some(tensor)
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn the_candidate_must_take_and_give_what_the_stable_version_does() {
    let pixels = Some("pixels".to_owned());
    assert_eq!(difference(|other| other.inputs[0].data_type = DataType::Fp64), pixels);
    assert_eq!(difference(|other| other.inputs[0].shape = vec![-1, 65]), pixels);
    assert_eq!(difference(|other| other.inputs[0].shape = vec![8, 64]), pixels, "fewer shapes");
    assert_eq!(difference(|other| other.inputs[0].name = "image".to_owned()), Some("image".to_owned()));
    assert_eq!(difference(|other| other.inputs.clear()), pixels, "callers still send it");
    let extra = |optional| {
        move |other: &mut Signature| {
            let input = other.inputs[0].clone();
            other.inputs.push(starling_raft::state::models::TensorSpec {
                name: "mask".to_owned(),
                optional,
                ..input
            });
        }
    };
    assert_eq!(difference(extra(false)), Some("mask".to_owned()));
    assert_eq!(difference(|other| other.outputs[1].data_type = DataType::Fp64), Some("p".to_owned()));
    assert_eq!(difference(|other| drop(other.outputs.remove(0))), Some("label".to_owned()));
}

#[test]
fn the_candidate_may_take_more_and_give_more() {
    assert_eq!(difference(|other| other.inputs[0].shape = vec![-1, -1]), None);
    assert_eq!(difference(|other| other.inputs[0].optional = true), None);
    assert_eq!(
        difference(|other| {
            let mut extra = other.outputs[0].clone();
            extra.name = "confidence".to_owned();
            other.outputs.push(extra);
        }),
        None
    );
}

#[test]
fn steps_grow_and_end_with_everything() {
    let path = || "spec.strategy.canary.steps".to_owned();
    assert_eq!(problem(with_steps(&[])), (path(), SpecProblem::Empty));
    for percent in [&[5, 50][..], &[50, 25, 100], &[50, 50, 100], &[100, 100]] {
        assert_eq!(problem(with_steps(percent)), (path(), SpecProblem::StepsDoNotGrow), "{percent:?}");
    }
    let many: Vec<u32> = (1..=65).collect();
    assert_eq!(problem(with_steps(&many)), (path(), SpecProblem::TooMany { found: 65, max: 64 }));

    let mut plan = blue_green();
    let Strategy::BlueGreen { steps, .. } = &mut plan.strategy else { unreachable!() };
    steps.clear();
    assert_eq!(problem(plan), ("spec.strategy.blueGreen.steps".to_owned(), SpecProblem::Empty));
}

#[test]
fn arms_sum_to_the_whole_differ_and_have_the_stable_one_among_them() {
    let path = |rest: &str| format!("spec.strategy.abTest.arms{rest}");
    assert_eq!(
        problem(with_arms(vec![arm("a", "v1", 50), arm("b", "v2", 40)])),
        (path(""), SpecProblem::WeightsDoNotSum(900_000))
    );
    assert_eq!(
        problem(with_arms(vec![arm("a", "v1", 50), arm("a", "v2", 50)])),
        (path("[1].name"), SpecProblem::Twice("a".to_owned()))
    );
    assert_eq!(
        problem(with_arms(vec![arm("a", "v1", 50), arm("b", "1", 50)])),
        (path("[1].version"), SpecProblem::Twice("v1".to_owned()))
    );
    assert_eq!(
        problem(with_arms(vec![arm("a", "v2", 50), arm("b", "v3", 50)])),
        (path(""), SpecProblem::StableIsNoArm("v1".to_owned()))
    );
    assert_eq!(problem(with_arms(vec![arm("a", "v1", 100)])), (path(""), out_of_range(1, 2, 32)));
    let many = (0..33).map(|number| arm(&format!("a{number}"), "v1", 1)).collect();
    assert_eq!(problem(with_arms(many)), (path(""), SpecProblem::TooMany { found: 33, max: 32 }));
}

#[test]
fn arms_must_take_and_give_what_the_stable_version_does() {
    let mut log = Log::for_rollouts();
    let mut other = signature();
    other.outputs.pop();
    log.accept(register_with("digits", Some("other"), 9, VersionSettings::default(), other));
    log.accept(mark_ready("digits", 4));
    let (field, found) = problem_in(&mut log, with_arms(vec![arm("a", "v1", 50), arm("b", "other", 50)]));
    assert_eq!(field, "spec.strategy.abTest.arms[1].version");
    assert!(matches!(found, SpecProblem::OtherSignature { tensor, .. } if tensor == "p"));
}

#[test]
fn a_bandit_explores_no_less_than_its_floor() {
    let path = |rest: &str| format!("spec.strategy.bandit.{rest}");
    assert_eq!(
        problem(with_bandit(|bandit| bandit.floor = ppm(500_001))),
        (path("floor"), out_of_range(500_001, 0, 500_000))
    );
    assert_eq!(
        problem(with_bandit(|bandit| bandit.arms = vec![arm("a", "v1", 100), arm("b", "v2", 0)])),
        (path("arms[1].weight"), out_of_range(0, 10_000, 1_000_000))
    );
    assert_eq!(
        problem(with_bandit(|bandit| (bandit.policy, bandit.floor) = (BanditPolicy::Ucb1, ppm(0)))),
        (path("floor"), out_of_range(0, 1, 1_000_000))
    );
    assert_eq!(
        problem(with_bandit(|bandit| bandit.half_life = Some(Millis(999)))),
        (path("halfLife"), out_of_range(999, 1_000, 31_622_400_000))
    );
    assert_eq!(
        problem(with_bandit(|bandit| bandit.publish_every = Millis(99))),
        (path("publishEvery"), out_of_range(99, 100, 31_622_400_000))
    );
    assert_eq!(
        problem(with_bandit(|bandit| bandit.enrolment = ppm(0))),
        (path("enrolment"), out_of_range(0, 1, 1_000_000))
    );
}

#[test]
fn numbers_of_an_experiment_have_limits() {
    let path = |rest: &str| format!("spec.strategy.abTest.{rest}");
    assert_eq!(
        problem(with_experiment(|experiment| experiment.alpha = ppm(500_001))),
        (path("alpha"), out_of_range(500_001, 1, 500_000))
    );
    assert_eq!(
        problem(with_experiment(|experiment| experiment.enrolment = ppm(0))),
        (path("enrolment"), out_of_range(0, 1, 1_000_000))
    );
    assert_eq!(
        problem(with_experiment(|experiment| experiment.max_duration = Millis(0))),
        (path("maxDuration"), out_of_range(0, 1, 31_622_400_000))
    );
    let bounds = |floor, ceiling| starling_raft::state::rollouts::spec::RewardKind::Bounded {
        floor: Micro(floor),
        ceiling: Micro(ceiling),
    };
    assert_eq!(
        problem(with_experiment(|experiment| experiment.metric.kind = bounds(5, 5))),
        (path("metric.ceiling"), out_of_range(5, 6, i64::MAX))
    );
    let labels = (0..257).map(|number| (number.to_string(), Micro(1))).collect();
    assert_eq!(
        problem(with_experiment(|experiment| experiment.metric.labels = labels)),
        (path("metric.labels"), SpecProblem::TooMany { found: 257, max: 256 })
    );
}

#[test]
fn a_gate_looks_at_what_its_strategy_has() {
    let agreement = GateTest::Agreement { min: ppm(980_000) };
    let nothing = |strategy: &str, what: &str| SpecProblem::NothingToLookAt {
        strategy: strategy.to_owned(),
        what: what.to_owned(),
    };
    assert_eq!(
        problem(with_gate(agreement, canary())),
        ("spec.gates[0]".to_owned(), nothing("canary", "shadow"))
    );
    let reward = GateTest::RewardDifference { max_drop: Micro(1) };
    assert_eq!(
        problem(with_gate(reward, shadowing())),
        ("spec.gates[0]".to_owned(), nothing("shadow", "rewards"))
    );
    let mut unvalidated = with_gate(agreement, blue_green());
    let Strategy::BlueGreen { validate, .. } = &mut unvalidated.strategy else { unreachable!() };
    *validate = None;
    assert_eq!(problem(unvalidated), ("spec.gates[0]".to_owned(), nothing("blueGreen", "shadow")));
    assert_eq!(nothing("canary", "shadow").to_string(), "strategy canary has no shadow to look at");

    let mut stepwise = canary();
    let Strategy::Canary { steps, .. } = &mut stepwise.strategy else { unreachable!() };
    steps[1].gates = vec![gate(reward), gate(agreement)];
    assert_eq!(
        problem(stepwise),
        ("spec.strategy.canary.steps[1].gates[1]".to_owned(), nothing("canary", "shadow"))
    );
    Log::running(with_gate(agreement, blue_green()));
    Log::running(with_gate(reward, canary()));
}

#[test]
fn numbers_of_gates_have_limits() {
    let ratio =
        |quantile, max_ratio| GateTest::LatencyRatio { quantile: ppm(quantile), max_ratio: Micro(max_ratio) };
    assert_eq!(
        problem(with_gate(ratio(1_000_000, 1_200_000), canary())),
        ("spec.gates[0].quantile".to_owned(), out_of_range(1_000_000, 1, 999_999))
    );
    assert_eq!(
        problem(with_gate(ratio(990_000, -1), canary())),
        ("spec.gates[0].maxRatio".to_owned(), out_of_range(0, 1, 1_000_000_000))
    );
    let mut certain = with_gate(GateTest::ErrorRate { max: ppm(1) }, canary());
    certain.gates[0].alpha = ppm(0);
    assert_eq!(problem(certain), ("spec.gates[0].alpha".to_owned(), out_of_range(0, 1, 500_000)));
    let many = vec![gate(GateTest::ErrorRate { max: ppm(1) }); 33];
    assert_eq!(
        problem(Plan { gates: many, ..canary() }),
        ("spec.gates".to_owned(), SpecProblem::TooMany { found: 33, max: 32 })
    );
}

#[test]
fn times_have_limits() {
    let year = 31_622_400_000;
    assert_eq!(
        problem(Plan { interval: Millis(99), ..canary() }),
        ("spec.interval".to_owned(), out_of_range(99, 100, year))
    );
    let too_long = Millis(u64::MAX);
    assert_eq!(
        problem(Plan { inconclusive_after: too_long, ..canary() }),
        ("spec.inconclusiveAfter".to_owned(), out_of_range(i64::MAX, 0, year))
    );
    let mut stepwise = canary();
    let Strategy::Canary { steps, .. } = &mut stepwise.strategy else { unreachable!() };
    steps[2].pause = Pause::For(too_long);
    assert_eq!(
        problem(stepwise),
        ("spec.strategy.canary.steps[2].pause".to_owned(), out_of_range(i64::MAX, 0, year))
    );
    for (field, number) in [("every", 0), ("keepBlueWarm", 1), ("validate.shadow", 2)] {
        let mut plan = blue_green();
        let Strategy::BlueGreen { every, keep_warm, validate, .. } = &mut plan.strategy else {
            unreachable!()
        };
        let fields = [every, keep_warm, &mut validate.as_mut().unwrap().hold];
        *fields.into_iter().nth(number).unwrap() = too_long;
        let field = format!("spec.strategy.blueGreen.{field}");
        assert_eq!(problem(plan), (field, out_of_range(i64::MAX, 0, year)));
    }
}

#[test]
fn copies_have_limits() {
    let path = |rest: &str| format!("spec.strategy.shadow.{rest}");
    assert_eq!(
        problem(with_validation(|validation| validation.portion = ppm(0))),
        (path("portion"), out_of_range(0, 1, 1_000_000))
    );
    let condition = Condition {
        attribute: Attribute::Parameter("tier".to_owned()),
        test: Test::Equals("gold".to_owned()),
    };
    let (field, found) = problem(with_validation(|validation| validation.when = vec![condition; 100]));
    assert_eq!(field, path("when"));
    assert!(matches!(found, SpecProblem::TooMany { found: 100, .. }));
    let output = ("p".to_owned(), starling_raft::state::routes::shadows::Agreement::Exact);
    let (field, found) =
        problem(with_validation(|validation| validation.comparison.outputs = vec![output; 1_000]));
    assert_eq!(field, path("comparison.outputs"));
    assert!(matches!(found, SpecProblem::TooMany { found: 1_000, .. }));
}

#[test]
fn webhooks_have_limits() {
    let plan = |webhooks: Vec<String>| Plan { webhooks, ..canary() };
    assert_eq!(
        problem(plan(vec!["http://a".to_owned(); 9])),
        ("spec.notify".to_owned(), SpecProblem::TooMany { found: 9, max: 8 })
    );
    assert_eq!(
        problem(plan(vec!["http://a".to_owned(), String::new()])),
        ("spec.notify[1].webhook".to_owned(), out_of_range(0, 1, 1_024))
    );
}

#[test]
fn a_refusal_says_which_rollout_which_field_and_what_would_be_right() {
    let refused = Log::for_rollouts().refuse(start("trial", with_steps(&[5, 50])));
    assert_eq!(
        refused.to_string(),
        "rollout 'trial': spec.strategy.canary.steps: steps must grow from one to the next and end with 100 %"
    );
    assert_eq!(WHOLE, 100 * PERCENT);
}
