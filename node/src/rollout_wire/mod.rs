//! Plans of rollouts between their typed form and the wire. The command line
//! writes what servers read, and the other way round.

mod from_wire;
mod to_wire;

pub(crate) use from_wire::{arms_from_wire, spec_from_wire};
pub(crate) use to_wire::{gate_to_wire, spec_to_wire, stage_to_wire};

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use starling_proto::admin as wire;
    use starling_raft::state::rollouts::RolloutSpec;
    use starling_raft::state::rollouts::spec::*;
    use starling_raft::state::routes::rules::{Attribute, Condition, Test};
    use starling_raft::state::routes::shadows::{Agreement, Comparison};
    use starling_raft::state::{PartsPerMillion, VersionRef};

    use super::*;

    fn ppm(ppm: u32) -> PartsPerMillion {
        PartsPerMillion::new(ppm).unwrap()
    }

    fn version(text: &str) -> Option<VersionRef> {
        Some(text.parse().unwrap())
    }

    fn spec(strategy: Strategy<Option<VersionRef>>) -> RolloutSpec<Option<VersionRef>> {
        let gate = |test| Gate { test, min_samples: 7, alpha: ppm(10_000) };
        RolloutSpec {
            model: "digits".parse().unwrap(),
            from: None,
            strategy,
            gates: vec![
                gate(GateTest::ErrorRate { max: ppm(1) }),
                gate(GateTest::ErrorRateDifference { max: ppm(2) }),
                gate(GateTest::LatencyRatio { quantile: ppm(990_000), max_ratio: Micro(1_200_000) }),
                gate(GateTest::Agreement { min: ppm(3) }),
                gate(GateTest::RewardDifference { max_drop: Micro(-4) }),
            ],
            on_failure: OnFailure::Hold,
            on_inconclusive: OnInconclusive::Promote,
            inconclusive_after: Millis(5),
            retry_on_stable: true,
            interval: Millis(6),
            webhooks: vec!["http://x".into()],
        }
    }

    fn arms() -> Vec<Arm<Option<VersionRef>>> {
        let arm = |name: &str, of: &str| Arm {
            name: name.parse().unwrap(),
            version: version(of),
            weight: ppm(500_000),
        };
        vec![arm("old", "v1"), arm("new", "2")]
    }

    fn validation() -> Validation {
        let tolerance = Agreement::Tolerance { absolute_nano: 1, relative_nano: 2 };
        Validation {
            hold: Millis(1),
            min_requests: 2,
            portion: ppm(3),
            when: vec![
                Condition { attribute: Attribute::Parameter("a".into()), test: Test::Equals("b".into()) },
                Condition {
                    attribute: Attribute::Metadata("c".into()),
                    test: Test::In(vec!["d".into(), "e".into()]),
                },
                Condition { attribute: Attribute::Metadata("f".into()), test: Test::Matches("g".into()) },
            ],
            comparison: Comparison {
                outputs: vec![
                    ("a".into(), Agreement::Exact),
                    ("b".into(), tolerance),
                    ("c".into(), Agreement::Distance { max: ppm(9) }),
                ],
                others: Agreement::TopOne,
            },
        }
    }

    fn reward(kind: RewardKind) -> Reward {
        Reward { kind, higher_is_better: false, labels: vec![("click".into(), Micro(1))] }
    }

    fn bandit(
        policy: BanditPolicy,
        kind: RewardKind,
        half_life: Option<Millis>,
        stop: Option<StopRule>,
    ) -> Strategy<Option<VersionRef>> {
        Strategy::Bandit(Bandit {
            arms: arms(),
            policy,
            reward: reward(kind),
            floor: ppm(1),
            half_life,
            publish_every: Millis(2),
            enrolment: ppm(3),
            stop,
        })
    }

    #[test]
    fn the_wire_changes_no_plan() {
        let to = || version("v2");
        let steps = vec![
            CanaryStep { weight: ppm(1), pause: Pause::For(Millis(2)), gates: vec![] },
            CanaryStep {
                weight: ppm(1_000_000),
                pause: Pause::UntilApproved,
                gates: vec![Gate {
                    test: GateTest::ErrorRate { max: ppm(1) },
                    min_samples: 1,
                    alpha: ppm(1),
                }],
            },
        ];
        let experiment = |correction| {
            Strategy::AbTest(Experiment {
                arms: arms(),
                metric: reward(RewardKind::Conversion),
                alpha: ppm(1),
                correction,
                decide_automatically: true,
                enrolment: ppm(2),
                min_rewards: 3,
                max_duration: Millis(4),
            })
        };
        let stop = StopRule { probability_best: ppm(1), min_rewards: 2 };
        let bounded = RewardKind::Bounded { floor: Micro(-1), ceiling: Micro(2) };
        let strategies = [
            Strategy::BlueGreen {
                to: to(),
                validate: Some(validation()),
                steps: vec![ppm(1)],
                every: Millis(2),
                keep_warm: Millis(3),
            },
            Strategy::BlueGreen {
                to: to(),
                validate: None,
                steps: vec![],
                every: Millis(0),
                keep_warm: Millis(0),
            },
            Strategy::Canary { to: to(), steps },
            Strategy::Shadow { to: to(), validation: validation() },
            experiment(Correction::None),
            experiment(Correction::Bonferroni),
            experiment(Correction::Holm),
            experiment(Correction::BenjaminiHochberg),
            bandit(
                BanditPolicy::EpsilonGreedy { epsilon: ppm(1), half_after: 2 },
                bounded,
                Some(Millis(5)),
                Some(stop),
            ),
            bandit(BanditPolicy::Ucb1, RewardKind::Unbounded, None, None),
            bandit(BanditPolicy::Thompson, RewardKind::Conversion, None, None),
            bandit(BanditPolicy::TopTwoThompson { leader: ppm(7) }, RewardKind::Conversion, None, None),
        ];
        for strategy in strategies {
            let spec = spec(strategy);
            let sent =
                spec_to_wire(&spec, |version| version.as_ref().map(ToString::to_string).unwrap_or_default());
            assert_eq!(spec_from_wire(&sent), Ok(spec));
        }
    }

    #[test]
    fn what_is_no_plan_is_refused_with_the_field() {
        let plan = || {
            spec_to_wire(&spec(Strategy::Canary { to: version("v2"), steps: vec![] }), |_| "v1".to_owned())
        };
        let refused = |change: &dyn Fn(&mut wire::RolloutSpec)| {
            let mut plan = plan();
            change(&mut plan);
            spec_from_wire(&plan).unwrap_err()
        };
        assert_eq!(refused(&|plan| plan.strategy = None), "spec.strategy is missing");
        assert_eq!(refused(&|plan| plan.gates[1].test = None), "spec.gates[1] tests nothing");
        assert_eq!(
            refused(&|plan| plan.gates[0].alpha_ppm = 1_000_001),
            "spec.gates[0].alpha: 1000001 parts per million are more than the whole (1000000)"
        );
        assert!(refused(&|plan| plan.from = "a b".into()).starts_with("spec.from: "));
    }
}
