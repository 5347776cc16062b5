//! Every plan that can be written, and every mistake with its path.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use starling_raft::state::rollouts::spec::*;
use starling_raft::state::routes::rules::{Attribute, Condition, Test};
use starling_raft::state::routes::shadows::{Agreement, Comparison};
use starling_raft::state::{PartsPerMillion, VersionRef};

use super::*;

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn with_spec(spec: &str) -> Result<RolloutSpec<Wanted>, String> {
    let text = format!("apiVersion: starling/v1\nkind: Rollout\nmetadata: {{ name: r }}\nspec:\n{spec}");
    read(&yaml(&text)).map(|manifest| manifest.spec).map_err(|error| error.to_string())
}

fn with_strategy(versions: &str, strategy: &str) -> Result<Strategy<Wanted>, String> {
    with_spec(&format!("  model: digits\n  {versions}\n  strategy: {strategy}\n")).map(|spec| spec.strategy)
}

fn refusal(spec: &str) -> String {
    with_spec(spec).unwrap_err()
}

fn ppm(ppm: u32) -> PartsPerMillion {
    PartsPerMillion::new(ppm).unwrap()
}

fn version(text: &str) -> Wanted {
    Some(text.parse::<VersionRef>().unwrap())
}

fn arm(name: &str, of: &str, weight: u32) -> Arm<Wanted> {
    Arm { name: name.parse().unwrap(), version: version(of), weight: ppm(weight) }
}

fn gate(test: GateTest) -> Gate {
    Gate { test, min_samples: 100, alpha: ppm(50_000) }
}

fn defaults(strategy: Strategy<Wanted>) -> RolloutSpec<Wanted> {
    RolloutSpec {
        model: "digits".parse().unwrap(),
        from: None,
        strategy,
        gates: vec![],
        on_failure: OnFailure::Rollback,
        on_inconclusive: OnInconclusive::Hold,
        inconclusive_after: Millis(3_600_000),
        retry_on_stable: false,
        interval: Millis(5_000),
        webhooks: vec![],
    }
}

fn compared_by(others: Agreement) -> Comparison {
    Comparison { outputs: vec![], others }
}

fn conversion() -> Reward {
    Reward { kind: RewardKind::Conversion, higher_is_better: true, labels: vec![] }
}

#[test]
fn blue_green_with_gates_and_a_webhook() {
    let text = "
apiVersion: starling/v1
kind: Rollout
metadata: { name: digits-v2 }
spec:
  model: digits
  from: v1
  to: v2
  strategy:
    blueGreen: { validate: { shadow: 10m, minRequests: 1000 }, steps: [10, 50, 100], every: 5m, keepBlueWarm: 1h }
  gates:
    - errorRate: { max: 1% }
    - latencyP99: { maxRatio: 1.2 }
    - agreement: { min: 98% }
  onFailure: rollback
  onInconclusive: hold
  notify: [{ webhook: http://example.org/told }]
";
    let manifest = read(&yaml(text)).unwrap();
    assert_eq!(manifest.name.as_str(), "digits-v2");
    let strategy = Strategy::BlueGreen {
        to: version("v2"),
        validate: Some(Validation {
            hold: Millis(600_000),
            min_requests: 1_000,
            portion: PartsPerMillion::WHOLE,
            when: vec![],
            comparison: compared_by(Agreement::TopOne),
        }),
        steps: vec![ppm(100_000), ppm(500_000), ppm(1_000_000)],
        every: Millis(300_000),
        keep_warm: Millis(3_600_000),
    };
    assert_eq!(
        manifest.spec,
        RolloutSpec {
            from: version("v1"),
            gates: vec![
                gate(GateTest::ErrorRate { max: ppm(10_000) }),
                gate(GateTest::LatencyRatio { quantile: ppm(990_000), max_ratio: Micro(1_200_000) }),
                gate(GateTest::Agreement { min: ppm(980_000) }),
            ],
            webhooks: vec!["http://example.org/told".into()],
            ..defaults(strategy)
        }
    );
}

#[test]
fn blue_green_at_once_without_validation() {
    let strategy = Strategy::BlueGreen {
        to: version("v2"),
        validate: None,
        steps: vec![PartsPerMillion::WHOLE],
        every: Millis(300_000),
        keep_warm: Millis(3_600_000),
    };
    assert_eq!(
        with_spec("  model: digits\n  to: v2\n  strategy: { blueGreen: {} }\n"),
        Ok(defaults(strategy.clone()))
    );
    assert_eq!(with_strategy("to: v2", "blueGreen"), Ok(strategy));
}

#[test]
fn a_canary_of_steps_pauses_and_gates_of_its_own() {
    let spec = "
  model: digits
  to: 2
  strategy:
    canary:
      steps:
        - { weight: 2.5%, pause: 90s }
        - { weight: 50%, pause: untilApproved, gates: [{ errorRateDifference: { max: 0.5%, minSamples: 10, alpha: 0.01 } }] }
        - weight: 100%
  gates:
    - latencyP50: { maxRatio: 2 }
    - latencyP90: { maxRatio: 2 }
    - latencyP95: { maxRatio: 2 }
    - rewardDifference: { maxDrop: 0.01 }
  onFailure: hold
  onInconclusive: promote
  inconclusiveAfter: 10m
  retryOnStable: true
  interval: 500ms
";
    let of_step =
        Gate { test: GateTest::ErrorRateDifference { max: ppm(5_000) }, min_samples: 10, alpha: ppm(10_000) };
    let latency =
        |quantile| gate(GateTest::LatencyRatio { quantile: ppm(quantile), max_ratio: Micro(2_000_000) });
    let strategy = Strategy::Canary {
        to: version("2"),
        steps: vec![
            CanaryStep { weight: ppm(25_000), pause: Pause::For(Millis(90_000)), gates: vec![] },
            CanaryStep { weight: ppm(500_000), pause: Pause::UntilApproved, gates: vec![of_step] },
            CanaryStep { weight: ppm(1_000_000), pause: Pause::For(Millis(0)), gates: vec![] },
        ],
    };
    assert_eq!(
        with_spec(spec),
        Ok(RolloutSpec {
            gates: vec![
                latency(500_000),
                latency(900_000),
                latency(950_000),
                gate(GateTest::RewardDifference { max_drop: Micro(10_000) }),
            ],
            on_failure: OnFailure::Hold,
            on_inconclusive: OnInconclusive::Promote,
            inconclusive_after: Millis(600_000),
            retry_on_stable: true,
            interval: Millis(500),
            ..defaults(strategy)
        })
    );
}

#[test]
fn a_shadow_of_a_part_that_some_requests_belong_to() {
    let strategy = "
    shadow:
      for: 1h
      minRequests: 5000
      portion: 20%
      when: [{ parameter: country, in: [DE, AT] }]
      comparison: { outputs: { probabilities: { tolerance: { absolute: 1e-3, relative: 0 } } }, others: exact }";
    let tolerance = Agreement::Tolerance { absolute_nano: 1_000_000, relative_nano: 0 };
    let when = Condition {
        attribute: Attribute::Parameter("country".into()),
        test: Test::In(vec!["DE".into(), "AT".into()]),
    };
    assert_eq!(
        with_strategy("to: v2", strategy),
        Ok(Strategy::Shadow {
            to: version("v2"),
            validation: Validation {
                hold: Millis(3_600_000),
                min_requests: 5_000,
                portion: ppm(200_000),
                when: vec![when],
                comparison: Comparison {
                    outputs: vec![("probabilities".into(), tolerance)],
                    others: Agreement::Exact
                },
            },
        })
    );
    let all = Validation {
        hold: Millis(600_000),
        min_requests: 1_000,
        portion: PartsPerMillion::WHOLE,
        when: vec![],
        comparison: compared_by(Agreement::TopOne),
    };
    assert_eq!(
        with_strategy("to: v2", "{ shadow: {} }"),
        Ok(Strategy::Shadow { to: version("v2"), validation: all })
    );
}

#[test]
fn an_a_b_test_with_everything_and_with_its_defaults() {
    let everything = "
    abTest:
      arms:
        - { name: control, version: v1, weight: 60% }
        - { name: new, version: v2, weight: 40% }
      metric: { mean: { min: 0, max: 250.5 }, lowerIsBetter: true, labels: { refund: 12.5, none: 0 } }
      alpha: 1%
      correction: benjaminiHochberg
      decide: manual
      enrolment: 30%
      minRewards: 500
      maxDuration: 7d";
    assert_eq!(
        with_strategy("from: v1", everything),
        Ok(Strategy::AbTest(Experiment {
            arms: vec![arm("control", "v1", 600_000), arm("new", "v2", 400_000)],
            metric: Reward {
                kind: RewardKind::Bounded { floor: Micro(0), ceiling: Micro(250_500_000) },
                higher_is_better: false,
                labels: vec![("none".into(), Micro(0)), ("refund".into(), Micro(12_500_000))],
            },
            alpha: ppm(10_000),
            correction: Correction::BenjaminiHochberg,
            decide_automatically: false,
            enrolment: ppm(300_000),
            min_rewards: 500,
            max_duration: Millis(604_800_000),
        }))
    );
    assert_eq!(
        with_strategy("from: v1", "{ abTest: { arms: { v1: 50%, v2: 50% } } }"),
        Ok(Strategy::AbTest(Experiment {
            arms: vec![arm("v1", "v1", 500_000), arm("v2", "v2", 500_000)],
            metric: conversion(),
            alpha: ppm(50_000),
            correction: Correction::Holm,
            decide_automatically: true,
            enrolment: PartsPerMillion::WHOLE,
            min_rewards: 100,
            max_duration: Millis(1_209_600_000),
        }))
    );
}

#[test]
fn a_bandit_of_each_policy() {
    let bandit = |policy: &str| {
        let strategy = format!(
            "{{ bandit: {{ arms: [{{ version: v1 }}, {{ version: v2 }}, {{ version: v3 }}], policy: {policy} }} }}"
        );
        match with_strategy("from: v1", &strategy) {
            Ok(Strategy::Bandit(bandit)) => bandit,
            other => panic!("{other:?}"),
        }
    };
    let thompson = Bandit {
        arms: vec![arm("v1", "v1", 333_334), arm("v2", "v2", 333_333), arm("v3", "v3", 333_333)],
        policy: BanditPolicy::Thompson,
        reward: conversion(),
        floor: ppm(10_000),
        half_life: None,
        publish_every: Millis(10_000),
        enrolment: PartsPerMillion::WHOLE,
        stop: None,
    };
    assert_eq!(bandit("{ thompson: {} }"), thompson);
    let greedy = BanditPolicy::EpsilonGreedy { epsilon: ppm(200_000), half_after: 50 };
    assert_eq!(bandit("{ epsilonGreedy: { epsilon: 0.2, halfAfter: 50 } }").policy, greedy);
    let by_default = BanditPolicy::EpsilonGreedy { epsilon: ppm(100_000), half_after: 1_000 };
    assert_eq!(bandit("epsilonGreedy").policy, by_default);
    assert_eq!(bandit("ucb1").policy, BanditPolicy::Ucb1);
    assert_eq!(
        bandit("{ topTwoThompson: {} }").policy,
        BanditPolicy::TopTwoThompson { leader: ppm(500_000) }
    );
    let everything = "
    bandit:
      arms: { v1: 90%, v2: 10% }
      reward: mean
      floor: 5%
      halfLife: 6h
      publishEvery: 1m
      enrolment: 80%
      stop: { probabilityBest: 0.99, minRewards: 1000 }";
    assert_eq!(
        with_strategy("from: v1", everything),
        Ok(Strategy::Bandit(Bandit {
            arms: vec![arm("v1", "v1", 900_000), arm("v2", "v2", 100_000)],
            reward: Reward { kind: RewardKind::Unbounded, ..conversion() },
            floor: ppm(50_000),
            half_life: Some(Millis(21_600_000)),
            publish_every: Millis(60_000),
            enrolment: ppm(800_000),
            stop: Some(StopRule { probability_best: ppm(990_000), min_rewards: 1_000 }),
            ..thompson
        }))
    );
}

#[test]
fn the_examples_of_the_documentation_can_be_read() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut read_ones = 0;
    for entry in std::fs::read_dir(root.join("docs/examples/rollouts")).unwrap() {
        let path = entry.unwrap().path();
        read(&yaml(&std::fs::read_to_string(&path).unwrap()))
            .unwrap_or_else(|error| panic!("{path:?}: {error}"));
        read_ones += 1;
    }
    assert_eq!(read_ones, 5);
    let page = std::fs::read_to_string(root.join("docs/rollouts.md")).unwrap();
    let blocks: Vec<&str> =
        page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 5);
    for block in blocks {
        if block.starts_with("apiVersion") {
            read(&yaml(block)).unwrap();
            continue;
        }
        // Parts of a plan: what is the same everywhere is left out.
        let candidate = if block.contains("arms:") { "" } else { "  to: v2\n" };
        let indented: String = block.lines().map(|line| format!("  {line}\n")).collect();
        with_spec(&format!("  model: digits\n{candidate}{indented}"))
            .unwrap_or_else(|error| panic!("{block}{error}"));
    }
}

#[test]
fn mistakes_in_the_head_are_named() {
    let said = |text: &str| read(&yaml(text)).unwrap_err().to_string();
    assert_eq!(said("kind: Rollout"), "metadata: is missing; write `metadata: { name: digits-v2 }`");
    assert_eq!(
        said("kind: Rollout\nmetadata: {}\nspc: {}"),
        "spc: is not known here; known are apiVersion, kind, metadata, spec; did you mean 'spec'?"
    );
    assert_eq!(said("metadata: {}\nspec: {}"), "metadata.name: is missing; write `name: digits-v2`");
    assert!(said("metadata: { name: a b }\nspec: {}").starts_with("metadata.name: "));
}

#[test]
fn mistakes_are_named_with_the_path_and_what_would_be_right() {
    let canary = "{ canary: { steps: [{ weight: 100% }] } }";
    let with = |rest: &str| format!("  model: digits\n  to: v2\n  strategy: {canary}\n  {rest}\n");
    let strategy = |text: &str| format!("  model: digits\n  to: v2\n  strategy: {text}\n");
    let experiment = |text: &str| format!("  model: digits\n  strategy: {text}\n");
    let cases = [
        ("  to: v2\n".to_owned(), "spec.model: is missing; write `model: digits`"),
        (
            "  modl: digits\n  to: v2\n".to_owned(),
            "spec.modl: is not known here; known are model, from, to, strategy, gates, onFailure, onInconclusive, inconclusiveAfter, retryOnStable, interval, notify; did you mean 'model'?",
        ),
        (
            "  model: digits\n  strategy: canary\n".to_owned(),
            "spec.to: is missing; canary needs the version that is tried, such as `to: v2`",
        ),
        (
            strategy("{ canry: {} }"),
            "spec.strategy: 'canry' is not known; known are blueGreen, canary, shadow, abTest, bandit; did you mean 'canary'?",
        ),
        (
            strategy("{ canary: {}, shadow: {} }"),
            "spec.strategy: has 2 entries and must have one of blueGreen, canary, shadow, abTest, bandit",
        ),
        (
            strategy("canary"),
            "spec.strategy.canary.steps: is missing; write `steps: [{ weight: 10%, pause: 5m }, { weight: 100% }]`",
        ),
        (
            strategy("{ canary: { steps: [{ weight: 10%, pause: soon }] } }"),
            "spec.strategy.canary.steps[0].pause: 'soon' is not a duration such as 500ms, 30s, 5m, 1h or 14d, or untilApproved",
        ),
        (
            strategy("{ canary: { steps: [{ weight: 110% }] } }"),
            "spec.strategy.canary.steps[0].weight: '110%' is not a percentage from 0 to 100 with at most 4 decimals, as in 90% or 2.5%",
        ),
        (
            strategy("{ blueGreen: { every: 5 } }"),
            "spec.strategy.blueGreen.every: is 5 and must be a duration such as 500ms, 30s, 5m, 1h or 14d; a unit is missing",
        ),
        (
            strategy("{ shadow: { shadow: 10m } }"),
            "spec.strategy.shadow.shadow: is not known here; known are for, minRequests, portion, when, comparison; did you mean 'when'?",
        ),
        (
            with("gates: [{ f1: { min: 90% } }]"),
            "spec.gates[0]: no such gate: 'f1' is not known; known are errorRate, errorRateDifference, latencyP50, latencyP90, latencyP95, latencyP99, agreement, rewardDifference; did you mean 'rewardDifference'?",
        ),
        (
            with("gates: [{ errorRate: { max: 0.01 } }]"),
            "spec.gates[0].errorRate.max: is 0.01: say 1% or 0.01%",
        ),
        (with("gates: [errorRate]"), "spec.gates[0].errorRate.max: is missing; write `max: 1%`"),
        (
            with("gates: [{ errorRate: { min: 1% } }]"),
            "spec.gates[0].errorRate.min: is not known here; known are minSamples, alpha, max; did you mean 'minSamples'?",
        ),
        (
            with("gates: [{ latencyP99: { maxRatio: fast } }]"),
            "spec.gates[0].latencyP99.maxRatio: is 'fast' and must be a number with at most 6 decimals, such as 1.2",
        ),
        (
            with("gates: [{ latencyP99: { maxRatio: 1.2, minSamples: -1 } }]"),
            "spec.gates[0].latencyP99.minSamples: is -1 and must be a whole number such as 1000",
        ),
        (with("gates: { errorRate: { max: 1% } }"), "spec.gates: is an object and must be a list"),
        (
            with("onFailure: rolback"),
            "spec.onFailure: is 'rolback' and must be one of rollback, hold; did you mean 'rollback'?",
        ),
        (with("retryOnStable: maybe"), "spec.retryOnStable: is 'maybe' and must be true or false"),
        (
            with("notify: [{ webhook: example.org }]"),
            "spec.notify[0].webhook: is 'example.org' and must begin with http:// or https://",
        ),
        (
            with("notify: [http://example.org]"),
            "spec.notify[0]: is 'http://example.org' and must be an object",
        ),
        (
            strategy("{ abTest: { arms: { v1: 50%, v2: 50% } } }"),
            "spec.to: is not for abTest, whose versions are its arms",
        ),
        (
            experiment("{ abTest: {} }"),
            "spec.strategy.abTest.arms: is missing; write `arms: { v1: 50%, v2: 50% }`",
        ),
        (
            experiment("{ abTest: { arms: [{ version: v1, weight: 50% }, { version: v2 }] } }"),
            "spec.strategy.abTest.arms: 1 of 2 arms have no weight; give one to each, or to none for equal parts",
        ),
        (
            experiment("{ abTest: { arms: { v1: 50%, v2: 50% }, alpha: 5 } }"),
            "spec.strategy.abTest.alpha: is 5 and must be a probability from 0 to 1 such as 0.05, or a percentage such as 5%",
        ),
        (
            experiment("{ abTest: { arms: { v1: 50%, v2: 50% }, metric: { mean: { min: 0 } } } }"),
            "spec.strategy.abTest.metric.mean: has one bound; write both, such as { min: 0, max: 100 }, or none",
        ),
        (
            experiment("{ abTest: { arms: { v1: 50%, v2: 50% }, metric: { mean: { min: 2, max: 1 } } } }"),
            "spec.strategy.abTest.metric.mean.max: must be greater than min, which is 2",
        ),
        (
            experiment("{ abTest: { arms: { v1: 50%, v2: 50% }, metric: conversions } }"),
            "spec.strategy.abTest.metric: is 'conversions' and must be one of conversion, mean; did you mean 'conversion'?",
        ),
        (
            experiment("{ bandit: { arms: { v1: 50%, v2: 50% }, policy: { thomson: {} } } }"),
            "spec.strategy.bandit.policy: 'thomson' is not known; known are thompson, epsilonGreedy, ucb1, topTwoThompson; did you mean 'thompson'?",
        ),
        (
            experiment("{ bandit: { arms: { v1: 50%, v2: 50% }, policy: { ucb1: { floor: 1% } } } }"),
            "spec.strategy.bandit.policy.ucb1.floor: is not known here: nothing is to be said here",
        ),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .map(|(spec, expected)| (refusal(spec), *expected))
        .filter(|(said, expected)| said != expected)
        .map(|(said, expected)| format!("said     {said}\nexpected {expected}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
