//! What must be done to make a model what its manifest says: a pure function of
//! the manifest and what the cluster has.

use starling_proto::admin::{Model, RouteRule, RouteShadow, Version, VersionSettings, WeightedVersion};

use super::super::percent::Percent;
use super::super::version_settings;
use super::manifest::{DesiredVersion, ModelManifest};

/// One thing to do, in the order in which it is done.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Upload the version at this position of the manifest.
    Push {
        /// Index into the manifest's versions.
        position: usize,
        /// Its label.
        label: String,
    },
    /// Load on this many nodes; 0: every node.
    SetPlacement(u32),
    /// Wait until these are ready, then route to them.
    SetRoute(Vec<(String, Percent)>),
    /// Wait until those that are named are ready, then set what comes beside the weights.
    Configure {
        /// Absent: left as they are.
        rules: Option<Vec<RouteRule>>,
        /// Absent: left as they are.
        shadows: Option<Vec<RouteShadow>>,
    },
}

/// All steps of one model, and what the manifest leaves alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Empty: the cluster already is what the manifest says.
    pub steps: Vec<Step>,
    /// Labels that the cluster has and the manifest does not name: kept.
    pub kept: Vec<String>,
}

/// Why no plan can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Versions are immutable.
    #[error(
        "version '{label}' of model '{model}' is in the cluster with other {what}; versions are immutable, give the new one another label"
    )]
    VersionDiffers {
        /// The model.
        model: String,
        /// The version.
        label: String,
        /// Bytes, or settings and which.
        what: String,
    },
    /// A rollout decides over the weights.
    #[error(
        "the weights of model '{model}' belong to rollout '{rollout}' until it is over; `starling rollout status {rollout}` shows it, `starling rollout abort {rollout}` ends it"
    )]
    RouteOwned {
        /// The model.
        model: String,
        /// Who owns them.
        rollout: String,
    },
    /// A rule or shadow names what is neither in the manifest nor in the cluster.
    #[error(
        "{path}: names version '{version}' of model '{model}', which neither the manifest nor the cluster has"
    )]
    VersionUnknown {
        /// Such as `spec.rules[0].version`.
        path: String,
        /// The model.
        model: String,
        /// The version.
        version: String,
    },
    /// The route names what is neither in the manifest nor in the cluster.
    #[error(
        "the route of model '{model}' names version '{version}', which neither the manifest nor the cluster has"
    )]
    RouteNamesUnknown {
        /// The model.
        model: String,
        /// The version.
        version: String,
    },
}

/// Plans.
pub fn plan(manifest: &ModelManifest, current: Option<&Model>) -> Result<Plan, PlanError> {
    let mut steps = Vec::new();
    for (position, desired) in manifest.versions.iter().enumerate() {
        match current.and_then(|model| version(model, &desired.label)) {
            Some(existing) => require_equal(&manifest.name, desired, existing)?,
            None => steps.push(Step::Push { position, label: desired.label.clone() }),
        }
    }
    let current_replicas = current.map_or(0, |model| model.replicas);
    if current_replicas != manifest.replicas {
        // After the first push, since only then the model surely exists.
        let after_first_push = usize::from(current.is_none()).min(steps.len());
        steps.insert(after_first_push, Step::SetPlacement(manifest.replicas));
    }
    if let Some(route) = &manifest.route {
        for (named, _) in route {
            if !is_known(manifest, current, named) {
                return Err(PlanError::RouteNamesUnknown {
                    model: manifest.name.clone(),
                    version: named.clone(),
                });
            }
        }
        let current_weights = current.and_then(|model| model.route.as_ref()).map(|route| &route.weights[..]);
        if !same_weights(route, current_weights.unwrap_or_default()) {
            let owner = current.and_then(|model| model.route.as_ref()).map(|route| route.owner.clone());
            if let Some(rollout) = owner.filter(|owner| !owner.is_empty()) {
                return Err(PlanError::RouteOwned { model: manifest.name.clone(), rollout });
            }
            steps.push(Step::SetRoute(route.clone()));
        }
    }
    steps.extend(configuration(manifest, current)?);
    Ok(Plan { steps, kept: kept(manifest, current) })
}

fn is_known(manifest: &ModelManifest, current: Option<&Model>, named: &str) -> bool {
    manifest.versions.iter().any(|version| version.label == *named)
        || current.is_some_and(|model| version(model, named).is_some())
}

/// What differs beside the weights, if anything does.
fn configuration(manifest: &ModelManifest, current: Option<&Model>) -> Result<Option<Step>, PlanError> {
    let named_by_rules = manifest.rules.iter().flatten().enumerate();
    let named_by_rules = named_by_rules.map(|(index, rule)| ("rules", index, &rule.version));
    let named_by_shadows = manifest.shadows.iter().flatten().enumerate();
    let named_by_shadows = named_by_shadows.map(|(index, shadow)| ("shadows", index, &shadow.version));
    for (list, index, version) in named_by_rules.chain(named_by_shadows) {
        if !is_known(manifest, current, version) {
            let path = format!("spec.{list}[{index}].version");
            let (model, version) = (manifest.name.clone(), version.clone());
            return Err(PlanError::VersionUnknown { path, model, version });
        }
    }
    let route = current.and_then(|model| model.route.as_ref());
    let label = |named: &String| {
        let known = current.and_then(|model| version(model, named));
        known.map_or_else(|| named.clone(), |version| version.label.clone())
    };
    let rules = manifest.rules.as_ref().map(|rules| {
        let labelled = |rule: &RouteRule| RouteRule { version: label(&rule.version), ..rule.clone() };
        rules.iter().map(labelled).collect::<Vec<_>>()
    });
    let shadows = manifest.shadows.as_ref().map(|shadows| {
        let labelled =
            |shadow: &RouteShadow| RouteShadow { version: label(&shadow.version), ..shadow.clone() };
        let mut shadows = shadows.iter().map(labelled).collect::<Vec<_>>();
        shadows.sort_by(|one, other| one.version.cmp(&other.version));
        shadows
    });
    let mut current_shadows = route.map(|route| route.shadows.clone()).unwrap_or_default();
    current_shadows.sort_by(|one, other| one.version.cmp(&other.version));
    let current_rules = route.map(|route| &route.rules[..]).unwrap_or_default();
    let rules = rules.filter(|rules| rules != current_rules);
    let shadows = shadows.filter(|shadows| *shadows != current_shadows);
    Ok((rules.is_some() || shadows.is_some()).then_some(Step::Configure { rules, shadows }))
}

fn kept(manifest: &ModelManifest, current: Option<&Model>) -> Vec<String> {
    let existing = current.map(|model| &model.versions[..]).unwrap_or_default();
    let named = |version: &&Version| manifest.versions.iter().any(|desired| desired.label == version.label);
    existing.iter().filter(|version| !named(version)).map(|version| version.label.clone()).collect()
}

fn version<'a>(model: &'a Model, named: &str) -> Option<&'a Version> {
    model.versions.iter().find(|version| version.label == named || version.ordinal.to_string() == named)
}

fn require_equal(model: &str, desired: &DesiredVersion, existing: &Version) -> Result<(), PlanError> {
    let differs =
        |what| PlanError::VersionDiffers { model: model.to_owned(), label: desired.label.clone(), what };
    if desired.artefact.sha256 != existing.sha256 {
        return Err(differs("bytes".to_owned()));
    }
    let found = existing.settings.unwrap_or_default();
    if with_batching(desired.settings) != with_batching(found) {
        let words = |settings| match version_settings::describe(settings) {
            empty if empty.is_empty() => "all at their defaults".to_owned(),
            words => words,
        };
        return Err(differs(format!("settings ({}, not {})", words(&found), words(&desired.settings))));
    }
    Ok(())
}

/// Absent batching settings mean the same as empty ones.
fn with_batching(settings: VersionSettings) -> VersionSettings {
    VersionSettings { batching: Some(settings.batching.unwrap_or_default()), ..settings }
}

fn same_weights(wanted: &[(String, Percent)], current: &[WeightedVersion]) -> bool {
    let mut wanted: Vec<(&str, u32)> = wanted
        .iter()
        .filter(|(_, percent)| percent.ppm() > 0)
        .map(|(version, percent)| (version.as_str(), percent.ppm()))
        .collect();
    let mut current: Vec<(&str, u32)> =
        current.iter().map(|weighted| (weighted.version.as_str(), weighted.weight_ppm)).collect();
    wanted.sort_unstable();
    current.sort_unstable();
    wanted == current
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use starling_proto::admin::Route;

    use super::*;
    use crate::cli::artefact::LocalArtefact;

    fn desired(label: &str, bytes: &[u8]) -> DesiredVersion {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, bytes).unwrap();
        let artefact = LocalArtefact::read(&path, &[]).unwrap();
        DesiredVersion { label: label.to_owned(), artefact, settings: VersionSettings::default() }
    }

    fn manifest(versions: Vec<DesiredVersion>, route: &[(&str, &str)], replicas: u32) -> ModelManifest {
        let route = route.iter().map(|(version, percent)| (version.to_string(), percent.parse().unwrap()));
        let route = Some(route.collect());
        ModelManifest { name: "digits".into(), versions, route, rules: None, shadows: None, replicas }
    }

    /// What the cluster answers once the manifest is applied.
    fn applied(manifest: &ModelManifest) -> Model {
        let version = |(position, desired): (usize, &DesiredVersion)| Version {
            ordinal: position as u64 + 1,
            label: desired.label.clone(),
            sha256: desired.artefact.sha256.clone(),
            settings: Some(desired.settings),
            ..Version::default()
        };
        let weights = manifest.route.iter().flatten().map(|(version, percent)| WeightedVersion {
            version: version.clone(),
            weight_ppm: percent.ppm(),
        });
        Model {
            name: manifest.name.clone(),
            replicas: manifest.replicas,
            versions: manifest.versions.iter().enumerate().map(version).collect(),
            route: Some(Route {
                weights: weights.collect(),
                rules: manifest.rules.clone().unwrap_or_default(),
                shadows: manifest.shadows.clone().unwrap_or_default(),
                ..Route::default()
            }),
            ..Model::default()
        }
    }

    #[test]
    fn a_new_model_is_pushed_placed_and_routed_in_this_order() {
        let manifest =
            manifest(vec![desired("v1", b"1"), desired("v2", b"2")], &[("v1", "90%"), ("v2", "10%")], 2);
        let steps = plan(&manifest, None).unwrap().steps;
        assert_eq!(
            steps,
            [
                Step::Push { position: 0, label: "v1".into() },
                Step::SetPlacement(2),
                Step::Push { position: 1, label: "v2".into() },
                Step::SetRoute(manifest.route.unwrap()),
            ]
        );
    }

    #[test]
    fn applying_twice_changes_nothing() {
        let manifest = manifest(vec![desired("v1", b"1")], &[("v1", "100%")], 0);
        assert_eq!(plan(&manifest, Some(&applied(&manifest))).unwrap(), Plan::default());
    }

    #[test]
    fn a_version_with_other_bytes_or_settings_is_refused() {
        let before = manifest(vec![desired("v1", b"1")], &[("v1", "100%")], 0);
        let other_bytes = manifest(vec![desired("v1", b"2")], &[("v1", "100%")], 0);
        let refused = plan(&other_bytes, Some(&applied(&before))).unwrap_err();
        assert!(refused.to_string().contains("with other bytes"), "{refused}");

        let mut other_settings = manifest(vec![desired("v1", b"1")], &[("v1", "100%")], 0);
        other_settings.versions[0].settings.instances = 2;
        let refused = plan(&other_settings, Some(&applied(&before))).unwrap_err();
        let named = "with other settings (all at their defaults, not instances 2)";
        assert!(refused.to_string().contains(named), "{refused}");
    }

    #[test]
    fn versions_that_the_manifest_does_not_name_are_kept_and_may_be_routed_to() {
        let before = manifest(vec![desired("v1", b"1")], &[("v1", "100%")], 0);
        let after = manifest(vec![desired("v2", b"2")], &[("v1", "50%"), ("v2", "50%")], 0);
        let plan = plan(&after, Some(&applied(&before))).unwrap();
        assert_eq!(plan.kept, ["v1"]);
        assert_eq!(plan.steps.len(), 2);
    }

    #[test]
    fn weights_that_a_rollout_owns_are_refused_before_anything_is_pushed() {
        let before = manifest(vec![desired("v1", b"1")], &[("v1", "100%")], 0);
        let mut current = applied(&before);
        current.route.as_mut().unwrap().owner = "digits-v2".to_owned();
        assert_eq!(plan(&before, Some(&current)).unwrap(), Plan::default());
        let after = manifest(vec![desired("v3", b"3")], &[("v3", "100%")], 0);
        assert_eq!(
            plan(&after, Some(&current)).unwrap_err().to_string(),
            "the weights of model 'digits' belong to rollout 'digits-v2' until it is over; `starling rollout status digits-v2` shows it, `starling rollout abort digits-v2` ends it"
        );
    }

    fn gold(version: &str) -> RouteRule {
        RouteRule { name: "gold".into(), when: vec![], portion_ppm: 1_000_000, version: version.into() }
    }

    #[test]
    fn rules_and_shadows_that_differ_are_set_after_the_weights_and_others_left_alone() {
        let mut wanted = manifest(vec![desired("v1", b"1")], &[("v1", "100%")], 0);
        let before = applied(&wanted);
        wanted.rules = Some(vec![gold("1")]);
        let rules = Some(vec![gold("v1")]);
        let steps = plan(&wanted, Some(&before)).unwrap().steps;
        assert_eq!(steps, [Step::Configure { rules, shadows: None }]);
        let mut after = before;
        after.route.as_mut().unwrap().rules = vec![gold("v1")];
        assert_eq!(plan(&wanted, Some(&after)).unwrap(), Plan::default());
        wanted.rules = None;
        assert_eq!(plan(&wanted, Some(&after)).unwrap(), Plan::default());
        wanted.rules = Some(vec![]);
        let steps = plan(&wanted, Some(&after)).unwrap().steps;
        assert_eq!(steps, [Step::Configure { rules: Some(vec![]), shadows: None }]);
    }

    #[test]
    fn the_order_of_shadows_does_not_matter() {
        let versions = || vec![desired("v1", b"1"), desired("v2", b"2"), desired("v3", b"3")];
        let mut wanted = manifest(versions(), &[("v1", "100%")], 0);
        let shadow = |version: &str| RouteShadow { version: version.into(), ..RouteShadow::default() };
        wanted.shadows = Some(vec![shadow("v2"), shadow("v3")]);
        let current = applied(&wanted);
        wanted.shadows = Some(vec![shadow("3"), shadow("v2")]);
        assert_eq!(plan(&wanted, Some(&current)).unwrap(), Plan::default());
    }

    #[test]
    fn a_rule_to_nowhere_is_refused_with_its_path() {
        let mut wanted = manifest(vec![desired("v1", b"1")], &[("v1", "100%")], 0);
        wanted.rules = Some(vec![gold("v9")]);
        assert_eq!(
            plan(&wanted, None).unwrap_err().to_string(),
            "spec.rules[0].version: names version 'v9' of model 'digits', which neither the manifest nor the cluster has"
        );
    }

    #[test]
    fn a_route_to_nowhere_is_refused() {
        let manifest = manifest(vec![desired("v1", b"1")], &[("v9", "100%")], 0);
        assert_eq!(
            plan(&manifest, None).unwrap_err(),
            PlanError::RouteNamesUnknown { model: "digits".into(), version: "v9".into() }
        );
    }
}
