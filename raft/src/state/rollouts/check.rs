//! Whether a plan can be carried out: versions, numbers and limits, each refusal
//! with the field's path.

use serde::Serialize;

use super::super::routes::rules::{self, Condition};
use super::super::routes::shadows::COMPARED_OUTPUTS_MAX;
use super::super::{
    Model, Ordinal, PartsPerMillion, Phase, Rejection, RolloutName, Route, Signature, VersionRef,
};
use super::spec::{
    ARMS_MAX, Arm, BanditPolicy, GATES_MAX, Gate, GateTest, Millis, Pause, Reward, RewardKind, RolloutSpec,
    STEPS_MAX, Strategy, Validation, WAIT_MAX, WEBHOOK_BYTES_MAX, WEBHOOKS_MAX,
};

/// Shortest time between two looks.
pub const INTERVAL_MIN: Millis = Millis(100);
/// Labels of one reward.
pub const LABELS_MAX: usize = 256;

/// What is wrong with a field of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub enum SpecProblem {
    /// The version does not take what the stable one takes, or gives something else.
    #[error(
        "version '{version}' cannot stand in for '{stable}': input or output '{tensor}' differs; push a version with the same signature"
    )]
    OtherSignature {
        /// The version.
        version: String,
        /// The stable one.
        stable: String,
        /// The first that differs.
        tensor: String,
    },
    /// The stable version must begin with everything.
    #[error(
        "version '{stable}' has {}.{:04} % of the route and must have all of it before a rollout begins; set it with `starling route set`",
        .weight_ppm / 10_000, .weight_ppm % 10_000
    )]
    NotTheWholeRoute {
        /// The stable version.
        stable: String,
        /// What it has.
        weight_ppm: u32,
    },
    /// The candidate is the stable version.
    #[error("version '{0}' is the stable one already")]
    SameVersion(String),
    /// An experiment needs the stable version among its arms.
    #[error("version '{0}' is `from` and must be one of the arms: it is what the others are compared with")]
    StableIsNoArm(String),
    /// Twice the same.
    #[error("'{0}' is there twice")]
    Twice(String),
    /// Not within its limits.
    #[error("is {found} and must be from {min} to {max}")]
    OutOfRange {
        /// What it is.
        found: i64,
        /// Least.
        min: i64,
        /// Greatest.
        max: i64,
    },
    /// Steps must grow and end with everything.
    #[error("steps must grow from one to the next and end with 100 %")]
    StepsDoNotGrow,
    /// Weights must sum to the whole.
    #[error("weights sum to {}.{:04} % instead of 100 %", .0 / 10_000, .0 % 10_000)]
    WeightsDoNotSum(u64),
    /// More than is allowed.
    #[error("has {found} entries, and {max} is the limit")]
    TooMany {
        /// How many there are.
        found: u64,
        /// How many there may be.
        max: u64,
    },
    /// Something must be there.
    #[error("is empty")]
    Empty,
    /// A gate that looks at something this strategy does not have.
    #[error("strategy {strategy} has no {what} to look at")]
    NothingToLookAt {
        /// The strategy.
        strategy: String,
        /// What there is none of.
        what: String,
    },
}

type Problem = (String, SpecProblem);

/// The plan with its versions looked up, or what is wrong with it.
pub(super) fn checked(
    name: &RolloutName,
    model: &Model,
    route: &Route,
    spec: &RolloutSpec<VersionRef>,
) -> Result<RolloutSpec, Rejection> {
    let resolved = spec.resolved(|version| ready_version(model, version))?;
    check(model, &resolved)
        .and_then(|()| owns_all(model, route, &resolved))
        .map_err(|(field, problem)| Rejection::InvalidRollout { rollout: name.clone(), field, problem })?;
    Ok(resolved)
}

/// The arms with their versions looked up, or what is wrong with them.
pub(super) fn checked_arms(
    name: &RolloutName,
    model: &Model,
    spec: &RolloutSpec,
    arms: &[Arm<VersionRef>],
) -> Result<Vec<Arm>, Rejection> {
    let mut resolved = Vec::with_capacity(arms.len());
    for arm in arms {
        let version = ready_version(model, &arm.version)?;
        resolved.push(Arm { name: arm.name.clone(), version, weight: arm.weight });
    }
    let floor = match &spec.strategy {
        Strategy::Bandit(bandit) => bandit.floor,
        _ => PartsPerMillion::default(),
    };
    check_arms(model, spec.from, "arms", &resolved, floor)
        .map_err(|(field, problem)| Rejection::InvalidRollout { rollout: name.clone(), field, problem })?;
    Ok(resolved)
}

pub(super) fn ready_version(model: &Model, wanted: &VersionRef) -> Result<Ordinal, Rejection> {
    let version = model.version(wanted).ok_or_else(|| Rejection::UnknownVersion {
        model: model.name.clone(),
        version: wanted.to_string(),
    })?;
    if version.phase != Phase::Ready {
        let (model, label) = (model.name.clone(), version.label.clone());
        return Err(Rejection::VersionNotReady { model, label });
    }
    Ok(version.ordinal)
}

fn owns_all(model: &Model, route: &Route, spec: &RolloutSpec) -> Result<(), Problem> {
    let weight = route.weights.iter().find(|(ordinal, _)| *ordinal == spec.from);
    let weight_ppm = weight.map_or(0, |(_, weight)| weight.get());
    if weight_ppm == PartsPerMillion::WHOLE.get() {
        return Ok(());
    }
    Err((
        "spec.from".to_owned(),
        SpecProblem::NotTheWholeRoute { stable: label(model, spec.from), weight_ppm },
    ))
}

fn check(model: &Model, spec: &RolloutSpec) -> Result<(), Problem> {
    in_range("spec.interval", spec.interval.0, INTERVAL_MIN.0, WAIT_MAX.0)?;
    wait("spec.inconclusiveAfter", spec.inconclusive_after)?;
    at_most("spec.notify", spec.webhooks.len(), WEBHOOKS_MAX)?;
    for (index, url) in spec.webhooks.iter().enumerate() {
        in_range(&format!("spec.notify[{index}].webhook"), url.len() as u64, 1, WEBHOOK_BYTES_MAX as u64)?;
    }
    check_gates("spec.gates", spec, &spec.gates)?;
    match &spec.strategy {
        Strategy::BlueGreen { to, validate, steps, every, keep_warm } => {
            let path = "spec.strategy.blueGreen";
            check_candidate(model, spec.from, *to, "spec.to")?;
            if let Some(validation) = validate {
                check_validation(&format!("{path}.validate"), validation)?;
            }
            check_growth(&format!("{path}.steps"), steps)?;
            wait(&format!("{path}.every"), *every)?;
            wait(&format!("{path}.keepBlueWarm"), *keep_warm)
        }
        Strategy::Canary { to, steps } => {
            let path = "spec.strategy.canary.steps";
            check_candidate(model, spec.from, *to, "spec.to")?;
            let weights: Vec<PartsPerMillion> = steps.iter().map(|step| step.weight).collect();
            check_growth(path, &weights)?;
            for (index, step) in steps.iter().enumerate() {
                if let Pause::For(pause) = step.pause {
                    wait(&format!("{path}[{index}].pause"), pause)?;
                }
                check_gates(&format!("{path}[{index}].gates"), spec, &step.gates)?;
            }
            Ok(())
        }
        Strategy::Shadow { to, validation } => {
            check_candidate(model, spec.from, *to, "spec.to")?;
            check_validation("spec.strategy.shadow", validation)
        }
        Strategy::AbTest(experiment) => {
            let path = "spec.strategy.abTest";
            let none = PartsPerMillion::default();
            check_arms(model, spec.from, &format!("{path}.arms"), &experiment.arms, none)?;
            check_reward(&format!("{path}.metric"), &experiment.metric)?;
            alpha(&format!("{path}.alpha"), experiment.alpha)?;
            enrolment(&format!("{path}.enrolment"), experiment.enrolment)?;
            in_range(&format!("{path}.maxDuration"), experiment.max_duration.0, 1, WAIT_MAX.0)
        }
        Strategy::Bandit(bandit) => {
            let path = "spec.strategy.bandit";
            let arms = bandit.arms.len().max(1) as u64;
            let whole = u64::from(PartsPerMillion::WHOLE.get());
            in_range(&format!("{path}.floor"), bandit.floor.get().into(), 0, whole / arms)?;
            check_arms(model, spec.from, &format!("{path}.arms"), &bandit.arms, bandit.floor)?;
            check_reward(&format!("{path}.reward"), &bandit.reward)?;
            enrolment(&format!("{path}.enrolment"), bandit.enrolment)?;
            in_range(&format!("{path}.publishEvery"), bandit.publish_every.0, INTERVAL_MIN.0, WAIT_MAX.0)?;
            if let Some(half_life) = bandit.half_life {
                in_range(&format!("{path}.halfLife"), half_life.0, 1_000, WAIT_MAX.0)?;
            }
            match bandit.policy {
                // Without a floor an arm that is never played can never be judged again.
                BanditPolicy::Ucb1 => in_range(&format!("{path}.floor"), bandit.floor.get().into(), 1, whole),
                _ => Ok(()),
            }
        }
    }
}

fn check_candidate(model: &Model, stable: Ordinal, to: Ordinal, field: &str) -> Result<(), Problem> {
    if stable == to {
        return Err((field.to_owned(), SpecProblem::SameVersion(label(model, to))));
    }
    check_signature(model, stable, to, field)
}

fn check_signature(model: &Model, stable: Ordinal, to: Ordinal, field: &str) -> Result<(), Problem> {
    let signature = |ordinal| model.versions.get(&ordinal).map(|version| &version.signature);
    let (Some(old), Some(new)) = (signature(stable), signature(to)) else { return Ok(()) };
    let Some(tensor) = first_difference(old, new) else { return Ok(()) };
    let (version, stable) = (label(model, to), label(model, stable));
    Err((field.to_owned(), SpecProblem::OtherSignature { version, stable, tensor }))
}

/// The first tensor for which callers of the old signature would notice the new
/// one: an input that is needed and was not, is of another type, or takes fewer
/// shapes; an output that is gone, of another type, or of other shapes.
fn first_difference(old: &Signature, new: &Signature) -> Option<String> {
    for input in &new.inputs {
        let Some(before) = old.inputs.iter().find(|before| before.name == input.name) else {
            if input.optional {
                continue;
            }
            return Some(input.name.clone());
        };
        let narrower = before.optional && !input.optional;
        if narrower || before.data_type != input.data_type || !covers(&input.shape, &before.shape) {
            return Some(input.name.clone());
        }
    }
    if let Some(gone) =
        old.inputs.iter().find(|before| !new.inputs.iter().any(|input| input.name == before.name))
    {
        return Some(gone.name.clone());
    }
    for before in &old.outputs {
        let now = new.outputs.iter().find(|output| output.name == before.name);
        let same = now.is_some_and(|output| {
            output.data_type == before.data_type && covers(&before.shape, &output.shape)
        });
        if !same {
            return Some(before.name.clone());
        }
    }
    None
}

/// Whether every shape that `narrow` allows is one that `wide` allows.
fn covers(wide: &[i64], narrow: &[i64]) -> bool {
    wide.len() == narrow.len() && wide.iter().zip(narrow).all(|(wide, narrow)| *wide == -1 || wide == narrow)
}

fn check_arms(
    model: &Model,
    stable: Ordinal,
    path: &str,
    arms: &[Arm],
    floor: PartsPerMillion,
) -> Result<(), Problem> {
    at_most(path, arms.len(), ARMS_MAX)?;
    if arms.len() < 2 {
        let found = arms.len() as i64;
        return Err((path.to_owned(), SpecProblem::OutOfRange { found, min: 2, max: ARMS_MAX as i64 }));
    }
    for (index, arm) in arms.iter().enumerate() {
        let before = arms.iter().take(index);
        if before.clone().any(|other| other.name == arm.name) {
            return Err((format!("{path}[{index}].name"), SpecProblem::Twice(arm.name.to_string())));
        }
        if before.clone().any(|other| other.version == arm.version) {
            let twice = SpecProblem::Twice(label(model, arm.version));
            return Err((format!("{path}[{index}].version"), twice));
        }
        let whole = u64::from(PartsPerMillion::WHOLE.get());
        in_range(&format!("{path}[{index}].weight"), arm.weight.get().into(), floor.get().into(), whole)?;
        check_signature(model, stable, arm.version, &format!("{path}[{index}].version"))?;
    }
    if !arms.iter().any(|arm| arm.version == stable) {
        return Err((path.to_owned(), SpecProblem::StableIsNoArm(label(model, stable))));
    }
    let sum: u64 = arms.iter().map(|arm| u64::from(arm.weight.get())).sum();
    if sum != u64::from(PartsPerMillion::WHOLE.get()) {
        return Err((path.to_owned(), SpecProblem::WeightsDoNotSum(sum)));
    }
    Ok(())
}

fn check_growth(path: &str, weights: &[PartsPerMillion]) -> Result<(), Problem> {
    at_most(path, weights.len(), STEPS_MAX)?;
    if weights.is_empty() {
        return Err((path.to_owned(), SpecProblem::Empty));
    }
    let grows = weights.windows(2).all(|pair| matches!(pair, [before, after] if before < after));
    if grows && weights.last() == Some(&PartsPerMillion::WHOLE) {
        return Ok(());
    }
    Err((path.to_owned(), SpecProblem::StepsDoNotGrow))
}

fn check_validation(path: &str, validation: &Validation) -> Result<(), Problem> {
    wait(&format!("{path}.shadow"), validation.hold)?;
    let whole = PartsPerMillion::WHOLE.get().into();
    in_range(&format!("{path}.portion"), validation.portion.get().into(), 1, whole)?;
    check_conditions(&format!("{path}.when"), &validation.when)?;
    at_most(&format!("{path}.comparison.outputs"), validation.comparison.outputs.len(), COMPARED_OUTPUTS_MAX)
}

fn check_conditions(path: &str, conditions: &[Condition]) -> Result<(), Problem> {
    match rules::too_large(conditions) {
        Some((_, max)) => {
            let (found, max) = (conditions.len() as u64, max as u64);
            Err((path.to_owned(), SpecProblem::TooMany { found, max }))
        }
        None => Ok(()),
    }
}

fn check_gates(path: &str, spec: &RolloutSpec, gates: &[Gate]) -> Result<(), Problem> {
    at_most(path, gates.len(), GATES_MAX)?;
    for (index, gate) in gates.iter().enumerate() {
        alpha(&format!("{path}[{index}].alpha"), gate.alpha)?;
        if let GateTest::LatencyRatio { quantile, max_ratio } = gate.test {
            in_range(&format!("{path}[{index}].quantile"), quantile.get().into(), 1, 999_999)?;
            let max_ratio = u64::try_from(max_ratio.0).unwrap_or(0);
            in_range(&format!("{path}[{index}].maxRatio"), max_ratio, 1, 1_000_000_000)?;
        }
        if let Some(what) = nothing_to_look_at(&gate.test, &spec.strategy) {
            let (strategy, what) = (spec.strategy_name().to_owned(), what.to_owned());
            return Err((format!("{path}[{index}]"), SpecProblem::NothingToLookAt { strategy, what }));
        }
    }
    Ok(())
}

/// What a gate looks at and the strategy never has.
fn nothing_to_look_at(test: &GateTest, strategy: &Strategy) -> Option<&'static str> {
    let copies = match strategy {
        Strategy::BlueGreen { validate, .. } => validate.is_some(),
        Strategy::Shadow { .. } => true,
        Strategy::Canary { .. } | Strategy::AbTest(_) | Strategy::Bandit(_) => false,
    };
    match test {
        GateTest::Agreement { .. } if !copies => Some("shadow"),
        // Its answers reach nobody who could reward them.
        GateTest::RewardDifference { .. } if matches!(strategy, Strategy::Shadow { .. }) => Some("rewards"),
        _ => None,
    }
}

fn check_reward(path: &str, reward: &Reward) -> Result<(), Problem> {
    at_most(&format!("{path}.labels"), reward.labels.len(), LABELS_MAX)?;
    match reward.kind {
        RewardKind::Bounded { floor, ceiling } if floor >= ceiling => {
            let (found, min) = (ceiling.0, floor.0.saturating_add(1));
            Err((format!("{path}.ceiling"), SpecProblem::OutOfRange { found, min, max: i64::MAX }))
        }
        _ => Ok(()),
    }
}

fn alpha(path: &str, alpha: PartsPerMillion) -> Result<(), Problem> {
    in_range(path, alpha.get().into(), 1, 500_000)
}

fn enrolment(path: &str, enrolment: PartsPerMillion) -> Result<(), Problem> {
    in_range(path, enrolment.get().into(), 1, PartsPerMillion::WHOLE.get().into())
}

fn wait(path: &str, wait: Millis) -> Result<(), Problem> {
    in_range(path, wait.0, 0, WAIT_MAX.0)
}

fn in_range(path: &str, found: u64, min: u64, max: u64) -> Result<(), Problem> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let problem = SpecProblem::OutOfRange { found: signed(found), min: signed(min), max: signed(max) };
    Err((path.to_owned(), problem))
}

fn at_most(path: &str, found: usize, max: usize) -> Result<(), Problem> {
    if found <= max {
        return Ok(());
    }
    Err((path.to_owned(), SpecProblem::TooMany { found: found as u64, max: max as u64 }))
}

fn label(model: &Model, ordinal: Ordinal) -> String {
    model.versions.get(&ordinal).map_or_else(|| ordinal.to_string(), |version| version.label.to_string())
}
