//! The next step of an A/B test or a bandit: a winner, new weights, or what is
//! still missing.

use starling_raft::state::rollouts::Measure;
use starling_raft::state::rollouts::spec::{Bandit, Experiment, Strategy};
use starling_raft::state::{Ordinal, RolloutCommand};
use starling_statistics::bandits::Waiting;
use starling_statistics::experiment::Recommendation;

use super::super::gates::{Judged, micro, number};
use super::super::report::NextStep;
use super::super::{bandit_look, experiment_look};
use super::{ArmsLook, Decided, Scene, evidence_of, open_gates};

/// What can be said of the arms now.
pub(super) fn look(scene: &Scene<'_>, kept: &experiment_look::KeptPValues) -> ArmsLook {
    let looked = match &scene.rollout.spec.strategy {
        Strategy::AbTest(experiment) => {
            experiment_look::look(scene.rollout, experiment, scene.measures, kept)
                .map(ArmsLook::Experiment)
                .map_err(|error| error.to_string())
        }
        Strategy::Bandit(bandit) => bandit_look::look(scene.rollout, bandit, scene.measures, scene.now)
            .map(ArmsLook::Bandit)
            .map_err(|error| error.to_string()),
        _ => Ok(ArmsLook::None),
    };
    looked.unwrap_or_else(|error| {
        tracing::warn!(rollout = %scene.rollout.name, %error, "the rewards cannot be judged");
        ArmsLook::None
    })
}

pub(super) fn decide_experiment(
    scene: &Scene<'_>,
    experiment: &Experiment,
    gates: &[Judged],
    arms: &ArmsLook,
) -> Decided {
    let rollout = scene.rollout;
    let ends = rollout.started.plus_micros(experiment.max_duration.as_micros());
    let not_before = scene.until(ends);
    let ArmsLook::Experiment(look) = arms else {
        let what = "nothing: the rewards cannot be judged".to_owned();
        return Decided::waiting(what, vec!["rewards that can be judged".to_owned()]);
    };
    let evidence = || experiment_evidence(look);
    let mismatch = matches!(look.outcome.recommendation, Recommendation::SampleRatioMismatch { .. });
    if mismatch {
        let why = format!("{}: no comparison of arms can be believed", look.outcome.recommendation);
        let what = format!("a person is asked: {why}");
        return Decided::doing(RolloutCommand::Hold { step: scene.step(why, evidence()) }, what);
    }

    let mut waits_for = Vec::new();
    let mut recommended = None;
    if let Some(winner) = look.winner() {
        let label = scene.label(winner);
        let of_winner: Vec<&Judged> = gates.iter().filter(|gate| gate.version() == winner).collect();
        let mut open = open_gates(scene, &of_winner);
        open.extend(scene.unheard());
        let why =
            format!("{label} is better than {}: {}", scene.label(rollout.stable()), advantage(look, winner));
        if open.is_empty() && experiment.decide_automatically {
            let mut evidence = evidence();
            evidence.extend(evidence_of(&of_winner));
            let step = scene.step(why.clone(), evidence);
            let command = RolloutCommand::Conclude { step, winner: Some(winner) };
            return Decided::doing(command, format!("{label} is promoted: {why}"));
        }
        if open.is_empty() {
            let name = &rollout.name;
            recommended = Some(why);
            waits_for.push(format!("a person: `starling rollout promote {name} --winner {label}`"));
        }
        waits_for.extend(open);
    }
    if look.control_wins() {
        let label = scene.label(rollout.stable());
        let why = format!("every other arm is worse than {label}");
        if experiment.decide_automatically {
            let step = scene.step(why.clone(), evidence());
            let command = RolloutCommand::Conclude { step, winner: None };
            return Decided::doing(command, format!("{label} keeps everything: {why}"));
        }
        waits_for.push(format!("a person: `starling rollout promote {} --winner {label}`", rollout.name));
        recommended = Some(why);
    }
    if not_before.is_none() {
        return time_is_up(scene, experiment, recommended, evidence());
    }

    waits_for.extend(too_few_rewards(scene, experiment));
    if waits_for.is_empty() {
        waits_for.push("a difference that is beyond chance".to_owned());
    }
    let what = match recommended {
        Some(why) => format!("recommended: {why}"),
        None => "the better arm is promoted".to_owned(),
    };
    Decided { command: None, next: NextStep { what, waits_for, not_before } }
}

/// Without a winner the control keeps everything; one that only a person may
/// promote is not thrown away.
fn time_is_up(
    scene: &Scene<'_>,
    experiment: &Experiment,
    recommended: Option<String>,
    evidence: Vec<Measure>,
) -> Decided {
    let after = format!("time is up after {} s", experiment.max_duration.0 / 1_000);
    if let Some(recommended) = recommended {
        let why = format!("{after}, and a person has to decide: {recommended}");
        let what = format!("a person is asked: {why}");
        return Decided::doing(RolloutCommand::Hold { step: scene.step(why, evidence) }, what);
    }
    let why = format!("{after} without a winner");
    let what = format!("{} keeps everything: {why}", scene.label(scene.rollout.stable()));
    let step = scene.step(why, evidence);
    Decided::doing(RolloutCommand::Conclude { step, winner: None }, what)
}

fn too_few_rewards(scene: &Scene<'_>, experiment: &Experiment) -> Vec<String> {
    let need = experiment.min_rewards;
    let lacking = experiment.arms.iter().filter_map(|arm| {
        let have = scene.measures.rewards_of(arm.version).count();
        (have < need).then(|| format!("{have} of {need} rewards of arm '{}'", arm.name))
    });
    lacking.collect()
}

fn advantage(look: &experiment_look::ExperimentLook, version: Ordinal) -> String {
    let place = look.arms.iter().position(|arm| *arm == version);
    let result = look.outcome.arms.iter().find(|result| Some(result.arm) == place);
    let Some(Ok(comparison)) = result.map(|result| &result.comparison) else { return String::new() };
    format!(
        "by {} ({} to {})",
        number(comparison.advantage),
        number(comparison.interval.lower()),
        number(comparison.interval.upper())
    )
}

fn experiment_evidence(look: &experiment_look::ExperimentLook) -> Vec<Measure> {
    let mut evidence = Vec::new();
    for result in &look.outcome.arms {
        let Some(version) = look.arms.get(result.arm).copied() else { continue };
        let samples = result.better.samples;
        if let Ok(comparison) = &result.comparison {
            evidence.push(Measure {
                what: "rewardDifference".to_owned(),
                version: Some(version),
                value: micro(comparison.advantage),
                lower: bound(comparison.interval.lower()),
                upper: bound(comparison.interval.upper()),
                samples,
            });
        }
        evidence.push(plain("pValue", Some(version), result.p_adjusted, samples));
    }
    let ratio = look.outcome.sample_ratio.get();
    evidence.push(plain("sampleRatioPValue", None, ratio, 0));
    evidence
}

pub(super) fn decide_bandit(
    scene: &Scene<'_>,
    bandit: &Bandit,
    gates: &[Judged],
    arms: &ArmsLook,
) -> Decided {
    let ArmsLook::Bandit(look) = arms else {
        let what = "nothing: the rewards cannot be judged".to_owned();
        return Decided::waiting(what, vec!["rewards that can be judged".to_owned()]);
    };
    let mut waits_for: Vec<String> =
        look.waiting.iter().filter_map(|waiting| waiting_in_words(scene, bandit, waiting)).collect();
    if let Some(winner) = look.winner {
        let label = scene.label(winner);
        let of_winner: Vec<&Judged> = gates.iter().filter(|gate| gate.version() == winner).collect();
        let mut open = open_gates(scene, &of_winner);
        open.extend(scene.unheard());
        if open.is_empty() {
            let why = format!("{label} is the best arm with probability {}", best_probability(look, winner));
            let mut evidence = bandit_evidence(look);
            evidence.extend(evidence_of(&of_winner));
            let step = scene.step(why.clone(), evidence);
            let command = RolloutCommand::Conclude { step, winner: Some(winner) };
            return Decided::doing(command, format!("{label} gets everything: {why}"));
        }
        waits_for.extend(open);
    }

    let published = scene.last_published();
    let not_before = scene.until(published.plus_micros(bandit.publish_every.as_micros()));
    // Weights follow rewards; as long as there are none, they stay as planned.
    if not_before.is_none() && look.is_material && look.rewards > 0 {
        let shares: Vec<String> = look
            .weights
            .iter()
            .map(|(version, weight)| format!("{} {} %", scene.label(*version), f64::from(weight.get()) / 1e4))
            .collect();
        let why = format!("after {} rewards: {}", look.rewards, shares.join(", "));
        let step = scene.step(why.clone(), bandit_evidence(look));
        let command = RolloutCommand::Publish { step, weights: look.weights.clone() };
        return Decided::doing(command, format!("new weights {why}"));
    }
    if look.rewards == 0 {
        waits_for.push("the first reward".to_owned());
    } else if !look.is_material {
        waits_for.push("weights that differ by 1 % or more".to_owned());
    }
    let what = match bandit.stop {
        Some(_) => "new weights, or the best arm gets everything",
        None => "new weights; without a stop rule it ends when a person promotes an arm",
    };
    Decided { command: None, next: NextStep { what: what.to_owned(), waits_for, not_before } }
}

fn waiting_in_words(scene: &Scene<'_>, bandit: &Bandit, waiting: &Waiting) -> Option<String> {
    let label = |arm| bandit_look::version_of(bandit, arm).map(|version| scene.label(version));
    match *waiting {
        Waiting::NoArms => Some("an arm".to_owned()),
        Waiting::Samples { arm, have, need } => Some(format!("{have} of {need} rewards of {}", label(arm)?)),
        Waiting::ProbabilityBest { arm, have, need } => Some(format!(
            "{} to be the best arm with probability {}, now {}",
            label(arm)?,
            number(need),
            number(have)
        )),
        Waiting::ExpectedLoss { .. } => None,
    }
}

fn best_probability(look: &bandit_look::BanditLook, version: Ordinal) -> String {
    let outlook = look.arms.iter().find(|(arm, _)| *arm == version);
    let probability = outlook.and_then(|(_, outlook)| outlook.probability_best).unwrap_or_default();
    number(probability)
}

fn bandit_evidence(look: &bandit_look::BanditLook) -> Vec<Measure> {
    let mut evidence = Vec::new();
    for (version, outlook) in &look.arms {
        let best = outlook.probability_best.unwrap_or_default();
        evidence.push(plain("probabilityBest", Some(*version), best, outlook.samples));
        let (mean, deviation) = (outlook.posterior_mean, outlook.posterior_deviation);
        evidence.push(Measure {
            lower: bound(mean - 2.0 * deviation),
            upper: bound(mean + 2.0 * deviation),
            ..plain("rewardMean", Some(*version), mean, outlook.samples)
        });
    }
    evidence
}

fn plain(what: &str, version: Option<Ordinal>, value: f64, samples: u64) -> Measure {
    Measure { what: what.to_owned(), version, value: micro(value), lower: None, upper: None, samples }
}

fn bound(value: f64) -> Option<starling_raft::state::rollouts::spec::Micro> {
    value.is_finite().then(|| micro(value))
}
