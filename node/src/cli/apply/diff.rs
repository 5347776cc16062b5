//! What `--dry-run` shows: the model as it is against the model as it would be,
//! as a unified diff of manifests.

use std::fmt::Write;

use similar::TextDiff;
use starling_proto::admin::{Model, RouteRule, RouteShadow, VersionSettings};

use super::super::percent::Percent;
use super::super::route_words::{rule_line, shadow_line};
use super::super::version_settings;
use super::manifest::ModelManifest;
use super::plan::{Plan, Step};

/// A diff, or a line that says that nothing would change.
pub fn render(manifest: &ModelManifest, current: Option<&Model>, plan: &Plan) -> String {
    let name = &manifest.name;
    let kept = kept_line(plan);
    if plan.steps.is_empty() {
        return format!("model {name}: nothing would change{kept}");
    }
    let before = current.map(describe_current).unwrap_or_default();
    let after = describe_wanted(manifest, current, plan);
    let diff = TextDiff::from_lines(before.as_str(), after.as_str());
    let unified = diff.unified_diff().header("cluster", "manifest").to_string();
    format!("model {name}:{kept}\n{}", unified.trim_end())
}

/// Says which versions the manifest leaves alone; empty if none.
pub fn kept_line(plan: &Plan) -> String {
    if plan.kept.is_empty() {
        return String::new();
    }
    format!(" (kept, not in the manifest: {})", plan.kept.join(", "))
}

fn describe_current(model: &Model) -> String {
    let mut text = String::new();
    let mut lines = Lines(&mut text);
    lines.versions(model.versions.iter().map(|version| {
        (version.label.as_str(), version.sha256.as_str(), version.settings.unwrap_or_default())
    }));
    if let Some(route) = &model.route {
        let weights = route.weights.iter().filter_map(|weighted| {
            Percent::from_ppm(weighted.weight_ppm).map(|percent| (weighted.version.as_str(), percent))
        });
        lines.route(weights);
        lines.beside_weights(&route.rules, &route.shadows);
    }
    lines.replicas(model.replicas);
    text
}

fn describe_wanted(manifest: &ModelManifest, current: Option<&Model>, plan: &Plan) -> String {
    let mut text = String::new();
    let mut lines = Lines(&mut text);
    let existing = current.map(|model| &model.versions[..]).unwrap_or_default();
    let existing = existing.iter().map(|version| {
        (version.label.as_str(), version.sha256.as_str(), version.settings.unwrap_or_default())
    });
    let pushed = plan.steps.iter().filter_map(|step| match step {
        Step::Push { position, .. } => manifest.versions.get(*position),
        _ => None,
    });
    let pushed =
        pushed.map(|version| (version.label.as_str(), version.artefact.sha256.as_str(), version.settings));
    lines.versions(existing.chain(pushed));
    if let Some(route) = &manifest.route {
        lines.route(route.iter().map(|(version, percent)| (version.as_str(), *percent)));
    } else if let Some(route) = current.and_then(|model| model.route.as_ref()) {
        let weights = route.weights.iter().filter_map(|weighted| {
            Percent::from_ppm(weighted.weight_ppm).map(|percent| (weighted.version.as_str(), percent))
        });
        lines.route(weights);
    }
    let (mut rules, mut shadows) = current
        .and_then(|model| model.route.as_ref())
        .map(|route| (route.rules.clone(), route.shadows.clone()))
        .unwrap_or_default();
    for step in &plan.steps {
        if let Step::Configure { rules: new_rules, shadows: new_shadows } = step {
            rules = new_rules.clone().unwrap_or(rules);
            shadows = new_shadows.clone().unwrap_or(shadows);
        }
    }
    lines.beside_weights(&rules, &shadows);
    lines.replicas(manifest.replicas);
    text
}

/// Writes the parts of a model, one fact a line, so that a diff is readable.
struct Lines<'a>(&'a mut String);

impl Lines<'_> {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn versions<'v>(&mut self, versions: impl Iterator<Item = (&'v str, &'v str, VersionSettings)>) {
        self.line(format_args!("versions:"));
        for (label, sha256, settings) in versions {
            let short: String = sha256.chars().take(12).collect();
            let settings = version_settings::describe(&settings);
            let comma = if settings.is_empty() { "" } else { ", " };
            self.line(format_args!("  {label}: sha256 {short}{comma}{settings}"));
        }
    }

    fn route<'v>(&mut self, weights: impl Iterator<Item = (&'v str, Percent)>) {
        self.line(format_args!("route:"));
        for (version, percent) in weights {
            self.line(format_args!("  {version}: {percent}"));
        }
    }

    fn beside_weights(&mut self, rules: &[RouteRule], shadows: &[RouteShadow]) {
        for (number, rule) in (1..).zip(rules) {
            self.line(format_args!("  {}", rule_line(number, rule)));
        }
        for shadow in shadows {
            self.line(format_args!("  {}", shadow_line(shadow)));
        }
    }

    fn replicas(&mut self, replicas: u32) {
        match replicas {
            0 => self.line(format_args!("placement: every node")),
            count => self.line(format_args!("placement: {count} replicas")),
        }
    }
}
