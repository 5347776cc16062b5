//! What a request needs to know about all models, immutable, made from the
//! replicated state: one load, one hash, one look-up.

use std::collections::HashMap;
use std::sync::Arc;

use starling_raft::state::rollouts::Rollout;
use starling_raft::state::{Model, ModelName, Ordinal, Phase, Route, State, Version, VersionRef};

use super::VersionKey;
use super::routed_rollout::RoutedRollout;
use super::routed_rules::{KnownConditions, RoutedRule, RoutedShadow};

/// A version, wherever it is: model ids and ordinals are never used twice, so
/// this is never another artefact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId {
    /// The model's id.
    pub model_id: u64,
    /// Which of its versions.
    pub ordinal: Ordinal,
}

/// What a bucket is drawn for. Each purpose has its own salt, so that who takes
/// part in an experiment says nothing about which arm they get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrawPurpose {
    /// Which version answers.
    Arm,
    /// Who takes part in an experiment.
    Enrolment,
}

impl DrawPurpose {
    /// Every salt begins with it.
    pub(super) fn letter(self) -> u8 {
        match self {
            Self::Arm => b'a',
            Self::Enrolment => b'e',
        }
    }
}

/// Salts the draws of one model for one purpose: the same on every node, and at
/// every epoch at which no rollout owns the route.
pub fn salt(purpose: DrawPurpose, model_id: u64) -> [u8; 9] {
    let mut salt = [0; 9];
    salt[0] = purpose.letter();
    salt[1..].copy_from_slice(&model_id.to_le_bytes());
    salt
}

/// One version, with what each request would otherwise compute anew.
#[derive(Debug)]
pub struct RoutedVersion {
    /// Which, cheap to compare.
    pub id: VersionId,
    /// Which, as the host knows it.
    pub key: VersionKey,
    /// As the log knows it.
    pub version: Arc<Version>,
    /// The ordinal as `model_version` on the wire.
    pub ordinal_text: String,
    /// Its part of the route as a probability; 0 outside it.
    pub propensity: f64,
}

/// One model: its versions and its route.
#[derive(Debug)]
pub struct RoutedModel {
    /// As the log knows it.
    pub model: Arc<Model>,
    /// Absent until a version is ready.
    pub route: Option<Arc<Route>>,
    /// The rollout that owns the route, if one does.
    pub rollout: Option<RoutedRollout>,
    /// For drawing the arm: the rollout's, or the model's own.
    pub arm_salt: Vec<u8>,
    /// In the order in which they are tried.
    pub rules: Vec<RoutedRule>,
    /// In order of ordinal.
    pub shadows: Vec<Arc<RoutedShadow>>,
    by_ordinal: HashMap<Ordinal, Arc<RoutedVersion>>,
    by_label: HashMap<String, Arc<RoutedVersion>>,
}

impl RoutedModel {
    /// `known` is an older one of the same model, from which may be taken what
    /// has not changed.
    fn new(
        model: &Arc<Model>,
        route: Option<&Arc<Route>>,
        rollout: Option<&Rollout>,
        known: Option<&Self>,
    ) -> Self {
        let weight_of = |ordinal: Ordinal| {
            let weights = route.map_or(&[][..], |route| &route.weights);
            weights.iter().find(|(named, _)| *named == ordinal).map_or(0, |(_, weight)| weight.get())
        };
        let mut by_ordinal = HashMap::with_capacity(model.versions.len());
        let mut by_label = HashMap::with_capacity(model.versions.len());
        for version in model.versions.values() {
            let routed = Arc::new(RoutedVersion {
                id: VersionId { model_id: model.id, ordinal: version.ordinal },
                key: VersionKey { model: model.name.clone(), ordinal: version.ordinal },
                version: Arc::clone(version),
                ordinal_text: version.ordinal.to_string(),
                propensity: f64::from(weight_of(version.ordinal)) / 1_000_000.0,
            });
            by_label.insert(version.label.as_str().to_owned(), Arc::clone(&routed));
            by_ordinal.insert(version.ordinal, routed);
        }
        let owner = rollout.and_then(|rollout| {
            let stable = by_ordinal.get(&rollout.stable())?;
            Some(RoutedRollout::new(rollout, stable))
        });
        let own_salt = || salt(DrawPurpose::Arm, model.id).to_vec();
        let mut routed = Self {
            model: Arc::clone(model),
            route: route.map(Arc::clone),
            arm_salt: owner.as_ref().map_or_else(own_salt, |owner| owner.arm_salt().to_vec()),
            rollout: owner,
            rules: Vec::new(),
            shadows: Vec::new(),
            by_ordinal,
            by_label,
        };
        if let Some(route) = route {
            routed.add_rules(route, known);
            routed.add_shadows(route, rollout, known);
        }
        routed
    }

    fn add_rules(&mut self, route: &Route, known: Option<&Self>) {
        let known = known.map(Self::known_conditions).unwrap_or_default();
        for (index, rule) in (0..).zip(&route.rules) {
            // The log lets nobody delete a version that a rule names.
            let Some(version) = self.by_ordinal.get(&rule.version) else { continue };
            let conditions = known.take(&rule.when, &self.model.name, &format!("rule '{}'", rule.name));
            self.rules.push(RoutedRule::new(index, rule, version, conditions));
        }
    }

    /// Those of the route, and that of the rollout's present stage: a version
    /// gets one copy of a request, so its own stands back.
    fn add_shadows(&mut self, route: &Route, rollout: Option<&Rollout>, known: Option<&Self>) {
        let known = known.map(Self::known_conditions).unwrap_or_default();
        let added = rollout.and_then(Rollout::shadow);
        let is_added = |version: Ordinal| added.as_ref().is_some_and(|added| added.version == version);
        let own = route.shadows.iter().filter(|shadow| !is_added(shadow.version));
        for shadow in own.chain(&added) {
            let Some(version) = self.by_ordinal.get(&shadow.version) else { continue };
            let whose = format!("shadow '{}'", version.version.label);
            let conditions = known.take(&shadow.when, &self.model.name, &whose);
            self.shadows.push(Arc::new(RoutedShadow::new(shadow, version, conditions)));
        }
        self.shadows.sort_by_key(|shadow| shadow.version.id.ordinal);
    }

    fn known_conditions(&self) -> KnownConditions<'_> {
        KnownConditions::of(&self.rules, &self.shadows)
    }

    fn is_made_from(
        &self,
        model: &Arc<Model>,
        route: Option<&Arc<Route>>,
        rollout: Option<&Rollout>,
    ) -> bool {
        let same_route = match (&self.route, route) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            _ => false,
        };
        let same_rollout = match (&self.rollout, rollout) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => ours.is_made_from(theirs),
            _ => false,
        };
        same_route && same_rollout && Arc::ptr_eq(&self.model, model)
    }

    /// By ordinal.
    pub fn version(&self, ordinal: Ordinal) -> Option<&Arc<RoutedVersion>> {
        self.by_ordinal.get(&ordinal)
    }

    /// As a client names it: by ordinal or by label.
    pub fn version_named(&self, text: &str) -> Option<&Arc<RoutedVersion>> {
        match text.parse::<VersionRef>() {
            Ok(VersionRef::Ordinal(ordinal)) => self.by_ordinal.get(&ordinal),
            Ok(VersionRef::Label(label)) => self.by_label.get(label.as_str()),
            Err(_) => None,
        }
    }

    /// In order of ordinal.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<RoutedVersion>> {
        self.model.versions.keys().filter_map(|ordinal| self.by_ordinal.get(ordinal))
    }

    /// Those by which the route may have a request answered, in order of ordinal.
    pub fn versions_in_route(&self) -> impl Iterator<Item = &Arc<RoutedVersion>> {
        self.versions().filter(|version| {
            let ordinal = version.id.ordinal;
            let weighted = |route: &Arc<Route>| route.weights.iter().any(|(named, _)| *named == ordinal);
            self.route.as_ref().is_some_and(weighted)
                || self.rules.iter().any(|rule| rule.version.id.ordinal == ordinal)
                || self.rollout.as_ref().is_some_and(|rollout| rollout.stable.id.ordinal == ordinal)
        })
    }

    /// What describes the model where no version is named: the one with the
    /// greatest weight (of equals the newest), else the newest ready one, else
    /// the newest.
    pub fn representative(&self) -> Option<&Arc<RoutedVersion>> {
        let rank = |version: &&Arc<RoutedVersion>| {
            let weight_ppm = (version.propensity * 1_000_000.0) as u32;
            (weight_ppm, version.version.phase == Phase::Ready, version.id.ordinal)
        };
        self.versions().max_by_key(rank)
    }

    /// The epoch of the route; 0 if there is none.
    pub fn epoch(&self) -> u64 {
        self.route.as_ref().map_or(0, |route| route.epoch.get())
    }
}

/// All models.
#[derive(Debug, Default)]
pub struct RoutingTable {
    by_name: HashMap<ModelName, Arc<RoutedModel>>,
}

impl RoutingTable {
    /// The table for a state; models that have not changed are shared with this
    /// one. `None` if nothing has changed.
    pub fn updated(&self, state: &State) -> Option<Self> {
        let mut by_name = HashMap::new();
        let mut changed = false;
        for model in state.models.iter() {
            let route = state.routes.get(model.name.as_str());
            let rollout = state.rollouts.owner_of(&model.name).map(|rollout| &**rollout);
            let known = self.by_name.get(&model.name);
            let routed = match known.filter(|known| known.is_made_from(model, route, rollout)) {
                Some(known) => Arc::clone(known),
                None => {
                    changed = true;
                    Arc::new(RoutedModel::new(model, route, rollout, known.map(Arc::as_ref)))
                }
            };
            by_name.insert(model.name.clone(), routed);
        }
        changed |= by_name.len() != self.by_name.len();
        changed.then_some(Self { by_name })
    }

    /// By name.
    pub fn model(&self, name: &str) -> Option<&Arc<RoutedModel>> {
        self.by_name.get(name)
    }

    /// In no particular order.
    pub fn models(&self) -> impl Iterator<Item = &Arc<RoutedModel>> {
        self.by_name.values()
    }

    /// In order of name.
    pub fn models_by_name(&self) -> Vec<&Arc<RoutedModel>> {
        let mut models: Vec<_> = self.by_name.values().collect();
        models.sort_by(|left, right| left.model.name.cmp(&right.model.name));
        models
    }
}
