//! Strategies with one candidate: `blueGreen`, `canary`, `shadow`.

use starling_raft::state::PartsPerMillion;
use starling_raft::state::rollouts::spec::{CanaryStep, Millis, Pause, Strategy, Validation};
use starling_raft::state::routes::shadows::Comparison;

use super::super::comparison::{self, comparison};
use super::super::conditions::conditions;
use super::super::fields::Field;
use super::{Read, Wanted, count_or, gates};

/// How long blue stays loaded after the last step.
pub const KEEP_BLUE_WARM: Millis = Millis::from_secs(3_600);
/// How long copies are compared.
pub const SHADOW_FOR: Millis = Millis::from_secs(600);
/// How long a step stands.
pub const EVERY: Millis = Millis::from_secs(300);
/// Copies compared at least.
pub const MIN_REQUESTS: u64 = 1_000;

/// Green beside blue, and the traffic in steps.
pub fn blue_green(field: &Field<'_>, to: Wanted) -> Read<Strategy<Wanted>> {
    let mut fields = field.fields()?;
    let validate = fields.named("validate");
    let steps = fields.get("steps");
    let every = fields.or("every", EVERY, Field::duration);
    let keep_warm = fields.or("keepBlueWarm", KEEP_BLUE_WARM, Field::duration);
    fields.finish()?;
    let validate = validate.map(|validate| validation(&validate, "shadow")).transpose()?;
    let steps = match steps {
        Some(steps) => steps.list()?.iter().map(Field::portion).collect::<Read<_>>()?,
        None => vec![PartsPerMillion::WHOLE],
    };
    Ok(Strategy::BlueGreen { to, validate, steps, every: every?, keep_warm: keep_warm? })
}

/// More and more, with gates at every step.
pub fn canary(field: &Field<'_>, to: Wanted) -> Read<Strategy<Wanted>> {
    let mut fields = field.fields()?;
    let steps = fields.need("steps", "steps: [{ weight: 10%, pause: 5m }, { weight: 100% }]");
    fields.finish()?;
    let steps = steps?.list()?.iter().map(canary_step).collect::<Read<_>>()?;
    Ok(Strategy::Canary { to, steps })
}

fn canary_step(field: &Field<'_>) -> Read<CanaryStep> {
    let mut fields = field.fields()?;
    let weight = fields.need("weight", "weight: 10%");
    let pause = fields.or("pause", Pause::For(Millis(0)), pause);
    let gates = fields.or("gates", Vec::new(), gates::gates);
    fields.finish()?;
    Ok(CanaryStep { weight: weight?.portion()?, pause: pause?, gates: gates? })
}

fn pause(field: &Field<'_>) -> Read<Pause> {
    if field.text().is_ok_and(|text| text == "untilApproved") {
        return Ok(Pause::UntilApproved);
    }
    let or_approval = |error: super::FieldError| super::FieldError {
        problem: format!("{}, or untilApproved", error.problem),
        ..error
    };
    field.duration().map(Pause::For).map_err(or_approval)
}

/// Copies and no answers.
pub fn shadow(field: &Field<'_>, to: Wanted) -> Read<Strategy<Wanted>> {
    Ok(Strategy::Shadow { to, validation: validation(field, "for")? })
}

fn validation(field: &Field<'_>, hold: &'static str) -> Read<Validation> {
    let mut fields = field.fields()?;
    let hold = fields.or(hold, SHADOW_FOR, Field::duration);
    let min_requests = count_or(&mut fields, "minRequests", MIN_REQUESTS);
    let portion = fields.or("portion", PartsPerMillion::WHOLE, Field::portion);
    let when = fields.or("when", Vec::new(), conditions);
    let all = Comparison { outputs: Vec::new(), others: comparison::DEFAULT };
    let comparison = fields.or("comparison", all, comparison);
    fields.finish()?;
    Ok(Validation {
        hold: hold?,
        min_requests: min_requests?,
        portion: portion?,
        when: when?,
        comparison: comparison?,
    })
}
