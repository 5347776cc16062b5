//! Which version of a model answers: weights, and the buckets they own.

use std::sync::Arc;

use imbl::OrdMap;
use serde::Serialize;

use super::ownership::OwnershipTable;
use super::{
    EntryContext, Epoch, Event, ModelName, Ordinal, PartsPerMillion, Phase, Rejection, State, VersionRef,
};

/// For one model: who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The log index that last changed it.
    pub epoch: Epoch,
    /// In order of ordinal; zero weights are left out; they sum to the whole.
    pub weights: Vec<(Ordinal, PartsPerMillion)>,
    /// Which version owns which bucket. Moves the minimum when weights change.
    pub table: OwnershipTable,
}

impl Route {
    /// Whether a version has a weight here.
    pub fn names(&self, ordinal: Ordinal) -> bool {
        self.weights.iter().any(|(named, _)| *named == ordinal)
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
}

impl RouteEvent {
    /// The event's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RouteSet { .. } => "RouteSet",
        }
    }
}

pub(super) fn decide(state: &State, command: &RouteCommand) -> Result<Vec<Event>, Rejection> {
    let RouteCommand::Set { model: name, weights, expected_epoch } = command;
    let model = state.models.get(name.as_str()).ok_or_else(|| Rejection::UnknownModel(name.clone()))?;
    let current = state.routes.get(name.as_str());
    let found = current.map_or(Epoch::new(0), |route| route.epoch);
    if let Some(expected) = expected_epoch.filter(|expected| *expected != found) {
        return Err(Rejection::EpochMismatch { model: name.clone(), expected, found });
    }
    let mut resolved: Vec<(Ordinal, PartsPerMillion)> = Vec::with_capacity(weights.len());
    for (wanted, weight) in weights {
        let version = model
            .version(wanted)
            .ok_or_else(|| Rejection::UnknownVersion { model: name.clone(), version: wanted.to_string() })?;
        if resolved.iter().any(|(ordinal, _)| *ordinal == version.ordinal) {
            return Err(Rejection::VersionNamedTwice { model: name.clone(), version: wanted.to_string() });
        }
        if weight.get() > 0 && version.phase != Phase::Ready {
            return Err(Rejection::VersionNotReady { model: name.clone(), label: version.label.clone() });
        }
        resolved.push((version.ordinal, *weight));
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

pub(super) fn evolve(state: &mut State, context: &EntryContext, event: &RouteEvent) {
    let RouteEvent::RouteSet { model, weights } = event;
    let table = match state.routes.get(model.as_str()) {
        Some(route) => route.table.reweighted(weights),
        None => OwnershipTable::new(weights),
    };
    let route = Route { epoch: Epoch::new(context.log_index.get()), weights: weights.clone(), table };
    state.routes.insert(model.clone(), route);
}
