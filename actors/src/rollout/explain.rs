//! Why a request got its version: computed anew from the id of its decision and
//! the route as it was at that epoch, or, for a key, from any route. Pure.

use std::sync::Arc;

use starling_raft::state::bucket::Bucket;
use starling_raft::state::decision::Decision;
use starling_raft::state::{
    Epoch, ModelName, NodeId, Ordinal, PartsPerMillion, RolloutName, RuleName, State,
};

use crate::inference::routed_rules::RoutedRule;
use crate::inference::routing_table::{RoutedModel, RoutedVersion, RoutingTable};
use crate::inference::rule_matching::Attributes;

/// What a decision came to, and by which steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Whose route.
    pub model: ModelName,
    /// By which route.
    pub epoch: Epoch,
    /// Who answered, or would; absent: the request named its version itself.
    pub chosen: Option<Chosen>,
    /// From the first to the last.
    pub steps: Vec<Step>,
}

/// The version that was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Which of its model's.
    pub ordinal: Ordinal,
    /// As people call it.
    pub label: String,
    /// How probable this choice was for a key drawn at random: 0 to 1.
    pub propensity: f64,
    /// The rollout that drew.
    pub rollout: Option<RolloutName>,
    /// The arm, if it takes part.
    pub arm: Option<String>,
}

/// One step of the reasoning.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Who decided.
    Made {
        /// The decision's home.
        node: NodeId,
        /// How often it had started.
        boot: u32,
        /// Counts its decisions since then.
        sequence: u64,
    },
    /// What was in force.
    Route {
        /// The log index that set it.
        epoch: Epoch,
        /// By label.
        weights: Vec<(String, PartsPerMillion)>,
    },
    /// The request named its version; nothing was drawn.
    Pinned,
    /// A rule asks for what the request does not say.
    RuleNotMet {
        /// Its place, from 0.
        index: u16,
        /// What people call it.
        name: RuleName,
    },
    /// The key is not in the portion of a rule.
    RuleLeftOut {
        /// Its place, from 0.
        index: u16,
        /// What people call it.
        name: RuleName,
        /// Where the key falls.
        bucket: Bucket,
        /// Buckets below it are taken.
        portion: PartsPerMillion,
    },
    /// A rule decided.
    RuleTaken {
        /// Its place, from 0.
        index: u16,
        /// What people call it.
        name: RuleName,
        /// Where the key falls; absent: not looked at, or not kept in the id.
        bucket: Option<Bucket>,
        /// Buckets below it are taken.
        portion: PartsPerMillion,
        /// To whom it sends.
        version: String,
    },
    /// No rule decided.
    NoRule {
        /// Of so many.
        rules: usize,
    },
    /// Who takes part in a rollout.
    Enrolment {
        /// Which.
        rollout: RolloutName,
        /// Where the key falls; absent: everybody takes part.
        bucket: Option<Bucket>,
        /// Buckets below it take part.
        enrolment: PartsPerMillion,
        /// Gets whoever does not.
        stable: String,
    },
    /// The draw among the weights.
    Arm {
        /// Where the key falls.
        bucket: Bucket,
        /// The interval that it falls into: its first bucket.
        start: u32,
        /// One past its last.
        end: u32,
        /// Whose it was.
        version: String,
        /// What people call that version in the rollout.
        arm: Option<String>,
        /// All that the version owned.
        weight: PartsPerMillion,
    },
}

/// Why a decision cannot be explained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotExplained {
    /// The id names a model that was not there at its epoch.
    #[error(
        "the id names model number {model_id}, which this cluster did not have at epoch {epoch}; is it of another cluster?"
    )]
    UnknownModel {
        /// As in the id.
        model_id: u64,
        /// As in the id.
        epoch: Epoch,
    },
    /// Nothing changed that model's route at that index.
    #[error(
        "the id says epoch {epoch}, at which nothing changed the route of model '{model}'; is it of another cluster?"
    )]
    UnknownEpoch {
        /// Whose route.
        model: ModelName,
        /// As in the id.
        epoch: Epoch,
    },
    /// The id does not fit the route: a rule, a rollout or an owner is missing.
    #[error(
        "the id does not fit the route of model '{model}' at epoch {epoch}: {what} was not there; is it of another cluster?"
    )]
    DoesNotFit {
        /// Whose route.
        model: ModelName,
        /// As in the id.
        epoch: Epoch,
        /// What it names.
        what: String,
    },
    /// There is no route to explain a key by.
    #[error("model '{0}' had no route: none of its versions was ready")]
    NoRoute(ModelName),
}

/// A decision's model as it is in a state: that at the decision's epoch.
pub fn model_of(state: &State, decision: &Decision) -> Result<Arc<RoutedModel>, NotExplained> {
    let model = state.models.iter().find(|model| model.id == decision.model_id);
    let routed = model.and_then(|model| routed_model(state, model.name.as_str()));
    routed.ok_or(NotExplained::UnknownModel { model_id: decision.model_id, epoch: decision.epoch })
}

/// A model as requests meet it in a state.
pub fn routed_model(state: &State, name: &str) -> Option<Arc<RoutedModel>> {
    RoutingTable::default().updated(state)?.model(name).map(Arc::clone)
}

/// Which version a decision came to, and how probable that was; `None`: the
/// request named it. `model` is as it was at the decision's epoch.
pub fn replay<'a>(
    model: &'a RoutedModel,
    decision: &Decision,
) -> Result<Option<(&'a Arc<RoutedVersion>, f64)>, NotExplained> {
    if let Some(index) = decision.rule {
        return Ok(Some((&taken_rule(model, decision, index)?.version, 1.0)));
    }
    if decision.enrolment.is_some() && model.rollout.is_none() {
        return Err(does_not_fit(model, decision, "a rollout".to_owned()));
    }
    let mut enrolled_probability = 1.0;
    if let Some(rollout) = &model.rollout {
        if !rollout.enrols(decision.enrolment) {
            return Ok(Some((&rollout.stable, rollout.left_out_probability())));
        }
        enrolled_probability = rollout.enrolled_probability();
    }
    let Some(bucket) = decision.arm else { return Ok(None) };
    let owner = model.route.as_ref().and_then(|route| route.table.owner(bucket));
    let version = owner.and_then(|ordinal| model.version(ordinal));
    let version = version
        .ok_or_else(|| does_not_fit(model, decision, format!("an owner of bucket {}", bucket.get())))?;
    Ok(Some((version, enrolled_probability * version.propensity)))
}

/// Explains a decision by its model as it was at the decision's epoch.
pub fn explain(model: &RoutedModel, decision: &Decision) -> Result<Explanation, NotExplained> {
    let Decision { node, boot, sequence, epoch, .. } = *decision;
    if model.epoch() != epoch.get() {
        return Err(NotExplained::UnknownEpoch { model: model.model.name.clone(), epoch });
    }
    let mut steps = vec![Step::Made { node, boot, sequence }];
    steps.extend(route_step(model));
    let pinned = decision.rule.is_none() && decision.enrolment.is_none() && decision.arm.is_none();
    if pinned {
        steps.push(Step::Pinned);
    } else if let Some(index) = decision.rule {
        let rule = taken_rule(model, decision, index)?;
        steps.push(rule_taken(rule, None));
    } else if !model.rules.is_empty() {
        steps.push(Step::NoRule { rules: model.rules.len() });
    }
    finished(model, decision, steps)
}

/// What a key gets by this route, from a request that says no more than that of
/// itself.
pub fn explain_key(
    model: &RoutedModel,
    key: &str,
    attributes: Attributes<'_>,
) -> Result<Explanation, NotExplained> {
    if model.route.is_none() {
        return Err(NotExplained::NoRoute(model.model.name.clone()));
    }
    let key = key.as_bytes();
    let mut decision = Decision {
        node: NodeId::new(0),
        boot: 0,
        sequence: 0,
        model_id: model.model.id,
        epoch: Epoch::new(model.epoch()),
        rule: None,
        enrolment: None,
        arm: None,
    };
    let mut steps: Vec<Step> = route_step(model).into_iter().collect();
    for rule in &model.rules {
        let (index, name, portion) = (rule.index, rule.name.clone(), rule.portion());
        if rule.takes(attributes, key) {
            decision.rule = Some(index);
            let bucket = (portion != PartsPerMillion::WHOLE).then(|| rule.bucket(key));
            steps.push(rule_taken(rule, bucket));
            return finished(model, &decision, steps);
        }
        steps.push(match rule.is_met_by(attributes) {
            true => Step::RuleLeftOut { index, name, bucket: rule.bucket(key), portion },
            false => Step::RuleNotMet { index, name },
        });
    }
    decision.enrolment = model.rollout.as_ref().and_then(|rollout| rollout.enrolment_bucket(key));
    if model.rollout.as_ref().is_none_or(|rollout| rollout.enrols(decision.enrolment)) {
        decision.arm = Some(Bucket::of(&model.arm_salt, key));
    }
    finished(model, &decision, steps)
}

/// Adds the draws, and what they came to.
fn finished(
    model: &RoutedModel,
    decision: &Decision,
    mut steps: Vec<Step>,
) -> Result<Explanation, NotExplained> {
    let replayed = replay(model, decision)?;
    let drawn = decision.rule.is_none() && (decision.enrolment.is_some() || decision.arm.is_some());
    let rollout = model.rollout.as_ref().filter(|_| drawn);
    if let Some(rollout) = rollout {
        steps.push(Step::Enrolment {
            rollout: rollout.name.clone(),
            bucket: decision.enrolment,
            enrolment: rollout.enrolment,
            stable: label(&rollout.stable),
        });
    }
    let arm = rollout.filter(|_| decision.arm.is_some()).zip(replayed.as_ref());
    let arm = arm.and_then(|(rollout, (version, _))| rollout.arm_name(version.id.ordinal)).map(str::to_owned);
    if let Some((bucket, (version, _))) = decision.arm.zip(replayed.as_ref())
        && drawn
    {
        steps.extend(arm_step(model, bucket, version, arm.clone()));
    }
    let chosen = replayed.map(|(version, propensity)| Chosen {
        ordinal: version.id.ordinal,
        label: label(version),
        propensity,
        rollout: rollout.map(|rollout| rollout.name.clone()),
        arm,
    });
    Ok(Explanation { model: model.model.name.clone(), epoch: decision.epoch, chosen, steps })
}

fn route_step(model: &RoutedModel) -> Option<Step> {
    let route = model.route.as_ref()?;
    let named = |ordinal: Ordinal| model.version(ordinal).map_or_else(|| ordinal.to_string(), label);
    let weights = route.weights.iter().map(|(ordinal, weight)| (named(*ordinal), *weight)).collect();
    Some(Step::Route { epoch: route.epoch, weights })
}

fn arm_step(
    model: &RoutedModel,
    bucket: Bucket,
    version: &Arc<RoutedVersion>,
    arm: Option<String>,
) -> Option<Step> {
    let route = model.route.as_ref()?;
    let within = |start: u32, end: u32| (start..end).contains(&bucket.get());
    let interval = route.table.intervals().iter().find(|interval| within(interval.start, interval.end))?;
    let weight = route.weights.iter().find(|(named, _)| *named == version.id.ordinal);
    Some(Step::Arm {
        bucket,
        start: interval.start,
        end: interval.end,
        version: label(version),
        arm,
        weight: weight.map_or_else(PartsPerMillion::default, |(_, weight)| *weight),
    })
}

fn rule_taken(rule: &RoutedRule, bucket: Option<Bucket>) -> Step {
    let (index, name, portion) = (rule.index, rule.name.clone(), rule.portion());
    Step::RuleTaken { index, name, bucket, portion, version: label(&rule.version) }
}

fn taken_rule<'a>(
    model: &'a RoutedModel,
    decision: &Decision,
    index: u16,
) -> Result<&'a RoutedRule, NotExplained> {
    let rule = model.rules.iter().find(|rule| rule.index == index);
    rule.ok_or_else(|| does_not_fit(model, decision, format!("rule {}", u32::from(index) + 1)))
}

fn does_not_fit(model: &RoutedModel, decision: &Decision, what: String) -> NotExplained {
    NotExplained::DoesNotFit { model: model.model.name.clone(), epoch: decision.epoch, what }
}

fn label(version: &Arc<RoutedVersion>) -> String {
    version.version.label.to_string()
}

#[cfg(test)]
mod tests;
