//! Which version of a model answers: weights, and the buckets they own; rules
//! that come before them; and shadows, which answer nobody.

pub mod rules;
pub mod shadows;

use std::sync::Arc;

use imbl::OrdMap;
use serde::Serialize;

use super::ownership::OwnershipTable;
use super::rollouts;
use super::{
    EntryContext, Epoch, Event, Model, ModelName, Ordinal, PartsPerMillion, Phase, Rejection, State,
    VersionRef,
};
use rules::{Condition, RULES_MAX, Rule};
use shadows::{COMPARED_OUTPUTS_MAX, SHADOWS_MAX, Shadow};

/// For one model: who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The log index that last changed it.
    pub epoch: Epoch,
    /// In order of ordinal; zero weights are left out; they sum to the whole.
    pub weights: Vec<(Ordinal, PartsPerMillion)>,
    /// Which version owns which bucket. Moves the minimum when weights change.
    pub table: OwnershipTable,
    /// In the order in which they are tried, before the weights.
    pub rules: Vec<Rule>,
    /// In order of ordinal.
    pub shadows: Vec<Shadow>,
}

impl Route {
    /// Whether requests, or copies of them, may come to a version by this.
    pub fn names(&self, ordinal: Ordinal) -> bool {
        self.weights.iter().any(|(named, _)| *named == ordinal)
            || self.rules.iter().any(|rule| rule.version == ordinal)
            || self.shadows.iter().any(|shadow| shadow.version == ordinal)
    }
}

/// All routes, by model name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    by_model: OrdMap<ModelName, Arc<Route>>,
}

impl Routes {
    /// In order of model name.
    pub fn iter(&self) -> impl Iterator<Item = (&ModelName, &Arc<Route>)> {
        self.by_model.iter()
    }

    /// Of one model.
    pub fn get(&self, model: &str) -> Option<&Arc<Route>> {
        self.by_model.get(model)
    }

    /// Puts a route in as it is: for snapshots.
    pub(crate) fn insert(&mut self, model: ModelName, route: Route) {
        self.by_model.insert(model, Arc::new(route));
    }

    pub(super) fn remove(&mut self, model: &ModelName) {
        self.by_model.remove(model);
    }
}

/// What is asked about routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteCommand {
    /// Set the weights of a model's versions.
    Set {
        /// The model.
        model: ModelName,
        /// They sum to the whole.
        weights: Vec<(VersionRef, PartsPerMillion)>,
        /// Refused unless the route is at this epoch.
        expected_epoch: Option<Epoch>,
    },
    /// Set what comes beside the weights.
    Configure {
        /// The model.
        model: ModelName,
        /// In the order in which they are tried; absent: left as they are.
        rules: Option<Vec<Rule<VersionRef>>>,
        /// Absent: left as they are.
        shadows: Option<Vec<Shadow<VersionRef>>>,
        /// Refused unless the route is at this epoch.
        expected_epoch: Option<Epoch>,
    },
}

/// What happened to routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum RouteEvent {
    /// From this entry on, these weights.
    RouteSet {
        /// The model.
        model: ModelName,
        /// In order of ordinal, without zeroes.
        weights: Vec<(Ordinal, PartsPerMillion)>,
    },
    /// From this entry on, these rules and shadows.
    RouteConfigured {
        /// The model.
        model: ModelName,
        /// In the order in which they are tried.
        rules: Vec<Rule>,
        /// In order of ordinal.
        shadows: Vec<Shadow>,
    },
}

impl RouteEvent {
    /// The event's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RouteSet { .. } => "RouteSet",
            Self::RouteConfigured { .. } => "RouteConfigured",
        }
    }
}

pub(super) fn decide(state: &State, command: &RouteCommand) -> Result<Vec<Event>, Rejection> {
    match command {
        RouteCommand::Set { model, weights, expected_epoch } => {
            decide_weights(state, model, weights, *expected_epoch)
        }
        RouteCommand::Configure { model, rules, shadows, expected_epoch } => {
            decide_beside_weights(state, model, rules.as_deref(), shadows.as_deref(), *expected_epoch)
        }
    }
}

fn decide_weights(
    state: &State,
    name: &ModelName,
    weights: &[(VersionRef, PartsPerMillion)],
    expected_epoch: Option<Epoch>,
) -> Result<Vec<Event>, Rejection> {
    let model = find(state, name)?;
    rollouts::require_no_owner(state, name)?;
    let current = state.routes.get(name.as_str());
    check_epoch(name, current, expected_epoch)?;
    let mut resolved: Vec<(Ordinal, PartsPerMillion)> = Vec::with_capacity(weights.len());
    for (wanted, weight) in weights {
        let ordinal = resolve(model, wanted, weight.get() > 0)?;
        if resolved.iter().any(|(named, _)| *named == ordinal) {
            return Err(named_twice(name, wanted));
        }
        resolved.push((ordinal, *weight));
    }
    let sum_ppm: u64 = resolved.iter().map(|(_, weight)| u64::from(weight.get())).sum();
    if sum_ppm != u64::from(PartsPerMillion::WHOLE.get()) {
        return Err(Rejection::WeightsDoNotSum { model: name.clone(), sum_ppm });
    }
    resolved.retain(|(_, weight)| weight.get() > 0);
    resolved.sort();
    if current.is_some_and(|route| route.weights == resolved) {
        return Ok(vec![]);
    }
    Ok(vec![Event::Route(RouteEvent::RouteSet { model: name.clone(), weights: resolved })])
}

fn decide_beside_weights(
    state: &State,
    name: &ModelName,
    rules: Option<&[Rule<VersionRef>]>,
    shadows: Option<&[Shadow<VersionRef>]>,
    expected_epoch: Option<Epoch>,
) -> Result<Vec<Event>, Rejection> {
    let model = find(state, name)?;
    let current = state.routes.get(name.as_str());
    check_epoch(name, current, expected_epoch)?;
    let Some(route) = current else { return Err(Rejection::NoRoute(name.clone())) };
    let rules = match rules {
        Some(rules) => resolved_rules(model, rules)?,
        None => route.rules.clone(),
    };
    let shadows = match shadows {
        Some(shadows) => resolved_shadows(model, shadows)?,
        None => route.shadows.clone(),
    };
    if rules == route.rules && shadows == route.shadows {
        return Ok(vec![]);
    }
    Ok(vec![Event::Route(RouteEvent::RouteConfigured { model: name.clone(), rules, shadows })])
}

fn resolved_rules(model: &Model, rules: &[Rule<VersionRef>]) -> Result<Vec<Rule>, Rejection> {
    limit("the number of rules of a route", rules.len(), RULES_MAX)?;
    let mut resolved: Vec<Rule> = Vec::with_capacity(rules.len());
    for rule in rules {
        check_conditions(&rule.when)?;
        if resolved.iter().any(|other| other.name == rule.name) {
            return Err(Rejection::RuleNamedTwice { model: model.name.clone(), rule: rule.name.clone() });
        }
        resolved.push(rule.for_version(resolve(model, &rule.version, true)?));
    }
    Ok(resolved)
}

fn resolved_shadows(model: &Model, shadows: &[Shadow<VersionRef>]) -> Result<Vec<Shadow>, Rejection> {
    limit("the number of shadows of a route", shadows.len(), SHADOWS_MAX)?;
    let mut resolved: Vec<Shadow> = Vec::with_capacity(shadows.len());
    for shadow in shadows {
        check_conditions(&shadow.when)?;
        let outputs = shadow.comparison.outputs.len();
        limit(
            "the number of outputs that a shadow compares in a way of their own",
            outputs,
            COMPARED_OUTPUTS_MAX,
        )?;
        let ordinal = resolve(model, &shadow.version, true)?;
        if resolved.iter().any(|other| other.version == ordinal) {
            return Err(named_twice(&model.name, &shadow.version));
        }
        resolved.push(shadow.for_version(ordinal));
    }
    resolved.sort_by_key(|shadow| shadow.version);
    Ok(resolved)
}

fn find<'a>(state: &'a State, name: &ModelName) -> Result<&'a Model, Rejection> {
    let model = state.models.get(name.as_str()).ok_or_else(|| Rejection::UnknownModel(name.clone()))?;
    Ok(model)
}

fn check_epoch(
    name: &ModelName,
    current: Option<&Arc<Route>>,
    expected: Option<Epoch>,
) -> Result<(), Rejection> {
    let found = current.map_or(Epoch::new(0), |route| route.epoch);
    match expected.filter(|expected| *expected != found) {
        Some(expected) => Err(Rejection::EpochMismatch { model: name.clone(), expected, found }),
        None => Ok(()),
    }
}

/// The ordinal of a version that exists and, if it is `to_be_asked`, is ready.
fn resolve(model: &Model, wanted: &VersionRef, to_be_asked: bool) -> Result<Ordinal, Rejection> {
    let version = model.version(wanted).ok_or_else(|| Rejection::UnknownVersion {
        model: model.name.clone(),
        version: wanted.to_string(),
    })?;
    if to_be_asked && version.phase != Phase::Ready {
        let (model, label) = (model.name.clone(), version.label.clone());
        return Err(Rejection::VersionNotReady { model, label });
    }
    Ok(version.ordinal)
}

fn named_twice(model: &ModelName, version: &VersionRef) -> Rejection {
    Rejection::VersionNamedTwice { model: model.clone(), version: version.to_string() }
}

fn check_conditions(conditions: &[Condition]) -> Result<(), Rejection> {
    match rules::too_large(conditions) {
        Some((what, limit)) => Err(Rejection::LimitReached { what: what.to_owned(), limit: limit as u64 }),
        None => Ok(()),
    }
}

fn limit(what: &str, count: usize, limit: usize) -> Result<(), Rejection> {
    if count > limit {
        return Err(Rejection::LimitReached { what: what.to_owned(), limit: limit as u64 });
    }
    Ok(())
}

pub(super) fn evolve(state: &mut State, context: &EntryContext, event: &RouteEvent) {
    let epoch = Epoch::new(context.log_index.get());
    match event {
        RouteEvent::RouteSet { model, weights } => set_weights(state, epoch, model, weights),
        RouteEvent::RouteConfigured { model, rules, shadows } => {
            let Some(route) = state.routes.get(model.as_str()) else { return };
            let (rules, shadows) = (rules.clone(), shadows.clone());
            let route = Route { epoch, rules, shadows, ..Route::clone(route) };
            state.routes.insert(model.clone(), route);
            rollouts::epoch_began(state, model);
        }
    }
}

/// From an epoch on, these weights, which are in order of ordinal, without zeroes.
pub(super) fn set_weights(
    state: &mut State,
    epoch: Epoch,
    model: &ModelName,
    weights: &[(Ordinal, PartsPerMillion)],
) {
    let weights = weights.to_vec();
    let route = match state.routes.get(model.as_str()) {
        Some(route) => {
            let table = route.table.reweighted(&weights);
            Route { epoch, weights, table, ..Route::clone(route) }
        }
        None => {
            let table = OwnershipTable::new(&weights);
            Route { epoch, weights, table, rules: Vec::new(), shadows: Vec::new() }
        }
    };
    state.routes.insert(model.clone(), route);
}
