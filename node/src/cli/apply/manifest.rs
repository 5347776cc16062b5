//! Manifests: from YAML to values that are known to be right.

use std::io::Read;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Deserialize;
use starling_proto::admin::{
    BatchingSettings, DeviceKind, InstanceMode, RouteRule, RouteShadow, VersionSettings,
};
use starling_raft::state::{ModelName, VersionLabel};

use super::super::artefact::LocalArtefact;
use super::super::duration;
use super::super::percent::Percent;
use super::super::version_settings::{self, DeviceWord, ModeWord, OversizeWord};
use super::CliError;
use super::beside_weights;
use super::fields::Field;
use super::rollout::{self, RolloutManifest};
use crate::nearest::did_you_mean;

const API_VERSION: &str = "starling/v1";
const KINDS: [&str; 2] = ["Model", "Rollout"];
const WHOLE_PPM: u64 = 1_000_000;

/// One document.
pub enum Manifest {
    /// A model.
    Model(ModelManifest),
    /// A rollout.
    Rollout(RolloutManifest),
}

/// One model, as it should be.
pub struct ModelManifest {
    /// What clients call.
    pub name: String,
    /// In the order of the file, which is the order in which they are pushed.
    pub versions: Vec<DesiredVersion>,
    /// Absent: the route is left alone.
    pub route: Option<Vec<(String, Percent)>>,
    /// In the order in which they are tried. Absent: those of the route are left alone.
    pub rules: Option<Vec<RouteRule>>,
    /// Absent: those of the route are left alone.
    pub shadows: Option<Vec<RouteShadow>>,
    /// On how many nodes; 0: every node.
    pub replicas: u32,
}

/// One version, as it should be.
pub struct DesiredVersion {
    /// Its label.
    pub label: String,
    /// Its bytes.
    pub artefact: LocalArtefact,
    /// How it is run.
    pub settings: VersionSettings,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    versions: IndexMap<String, VersionSpec>,
    route: Option<IndexMap<String, PercentText>>,
    rules: Option<serde_json::Value>,
    shadows: Option<serde_json::Value>,
    #[serde(default)]
    placement: Placement,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VersionSpec {
    artefact: PathBuf,
    #[serde(default)]
    golden: Vec<PathBuf>,
    #[serde(default)]
    batching: Batching,
    #[serde(default)]
    instances: u32,
    #[serde(default)]
    max_queue: u32,
    max_run_time: Option<String>,
    #[serde(default)]
    threads: u32,
    #[serde(default)]
    spinning: bool,
    #[serde(default)]
    mode: ModeWord,
    #[serde(default)]
    device: DeviceWord,
    #[serde(default)]
    priorities: Priorities,
    queue_timeout: Option<String>,
    #[serde(default)]
    quiet: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Batching {
    #[serde(default)]
    max_batch: u32,
    max_queue_delay: Option<String>,
    #[serde(default)]
    disabled: bool,
    #[serde(default)]
    oversize: OversizeWord,
}

/// Classes, 1 the most urgent.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Priorities {
    #[serde(default)]
    levels: u32,
    /// Of a request that names none; 0: the least urgent.
    #[serde(default)]
    default: u32,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Placement {
    #[serde(default)]
    replicas: u32,
}

/// `90%`, `"90"` and `90` are all written.
#[derive(Deserialize)]
#[serde(untagged)]
enum PercentText {
    Number(u32),
    Text(String),
}

/// Reads a file, all `.yaml` and `.yml` files of a folder in order of name, or
/// standard input (`-`).
pub fn read(path: &Path) -> Result<Vec<Manifest>, CliError> {
    let cannot_read =
        |error: std::io::Error| CliError::Local(format!("{} cannot be read: {error}", path.display()));
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(cannot_read)?;
        return parse(&text, Path::new("standard input"), Path::new("."));
    }
    if !path.is_dir() {
        let text = std::fs::read_to_string(path).map_err(cannot_read)?;
        return parse(&text, path, path.parent().unwrap_or_else(|| Path::new(".")));
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(cannot_read)? {
        let file = entry.map_err(cannot_read)?.path();
        let is_yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if is_yaml && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    let mut manifests = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)
            .map_err(|error| CliError::Local(format!("{} cannot be read: {error}", file.display())))?;
        manifests.extend(parse(&text, &file, path)?);
    }
    Ok(manifests)
}

/// Artefact paths are relative to `folder`.
fn parse(text: &str, file: &Path, folder: &Path) -> Result<Vec<Manifest>, CliError> {
    let wrong = |reason: String| CliError::Local(format!("{}: {reason}", file.display()));
    // All kinds are looked at first, so that a manifest of another kind is not
    // reported as one with wrong fields.
    let mut documents = Vec::new();
    for text in split(text) {
        let document: serde_json::Value =
            serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if !document.is_null() {
            check_kind(&document).map_err(&wrong)?;
            documents.push((text, document));
        }
    }
    let mut manifests = Vec::with_capacity(documents.len());
    for (text, document) in documents {
        if document.get("kind").is_some_and(|kind| kind == "Rollout") {
            let manifest = rollout::read(&document).map_err(|error| wrong(error.to_string()))?;
            manifests.push(Manifest::Rollout(manifest));
            continue;
        }
        let document: Document = serde_saphyr::from_str(&text).map_err(|error| wrong(in_words(&error)))?;
        manifests.push(Manifest::Model(check(document, folder, &wrong)?));
    }
    Ok(manifests)
}

/// The documents of a file, each at the lines where it stands.
fn split(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for (number, line) in text.lines().enumerate() {
        let after_marker = line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with(' '));
        if let Some(rest) = after_marker {
            // A marker begins a document, wherever it stands.
            documents.push(format!("{}{rest}\n", "\n".repeat(number)));
        } else if let Some(document) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    documents.retain(|document| !document.trim().is_empty());
    documents
}

fn check_kind(document: &serde_json::Value) -> Result<(), String> {
    let field = |name: &str| document.get(name).and_then(|value| value.as_str()).unwrap_or("").to_owned();
    let (api_version, kind) = (field("apiVersion"), field("kind"));
    if api_version != API_VERSION {
        return Err(format!("apiVersion is '{api_version}'; this binary knows '{API_VERSION}'"));
    }
    if !KINDS.contains(&kind.as_str()) {
        let meant = did_you_mean(&kind, KINDS);
        return Err(format!("kind is '{kind}'; this binary knows {}{meant}", KINDS.join(" and ")));
    }
    Ok(())
}

fn check(
    document: Document,
    folder: &Path,
    wrong: &dyn Fn(String) -> CliError,
) -> Result<ModelManifest, CliError> {
    debug_assert!(document.api_version == API_VERSION && document.kind == "Model");
    let name: ModelName = document.metadata.name.parse().map_err(|error| wrong(format!("{error}")))?;
    let mut versions = Vec::with_capacity(document.spec.versions.len());
    for (label, spec) in document.spec.versions {
        let label: VersionLabel = label.parse().map_err(|error| wrong(format!("{error}")))?;
        let golden: Vec<PathBuf> = spec.golden.iter().map(|sample| folder.join(sample)).collect();
        let artefact = LocalArtefact::read(&folder.join(&spec.artefact), &golden)?;
        let settings = settings(&spec).map_err(|reason| wrong(format!("version '{label}': {reason}")))?;
        versions.push(DesiredVersion { label: label.to_string(), artefact, settings });
    }
    let route = document.spec.route.map(|route| check_route(route, wrong)).transpose()?;
    let rules = document.spec.rules.map(|value| beside_weights::rules(&Field::new("spec.rules", &value)));
    let shadows =
        document.spec.shadows.map(|value| beside_weights::shadows(&Field::new("spec.shadows", &value)));
    Ok(ModelManifest {
        name: name.to_string(),
        versions,
        route,
        rules: rules.transpose().map_err(|error| wrong(error.to_string()))?,
        shadows: shadows.transpose().map_err(|error| wrong(error.to_string()))?,
        replicas: document.spec.placement.replicas,
    })
}

fn check_route(
    route: IndexMap<String, PercentText>,
    wrong: &dyn Fn(String) -> CliError,
) -> Result<Vec<(String, Percent)>, CliError> {
    let mut weights = Vec::with_capacity(route.len());
    for (version, percent) in route {
        let text = match percent {
            PercentText::Number(number) => number.to_string(),
            PercentText::Text(text) => text,
        };
        let percent: Percent =
            text.parse().map_err(|reason| wrong(format!("route of '{version}': {reason}")))?;
        weights.push((version, percent));
    }
    let sum: u64 = weights.iter().map(|(_, percent)| u64::from(percent.ppm())).sum();
    if sum != WHOLE_PPM {
        return Err(wrong(format!(
            "the weights of the route sum to {}% instead of 100%",
            sum as f64 / 10_000.0
        )));
    }
    Ok(weights)
}

fn settings(spec: &VersionSpec) -> Result<VersionSettings, String> {
    let micros = |text: &Option<String>| text.as_deref().map_or(Ok(0), duration::micros);
    let VersionSpec { batching, priorities, .. } = spec;
    let settings = VersionSettings {
        batching: Some(BatchingSettings {
            max_batch: batching.max_batch,
            max_queue_delay_us: micros(&batching.max_queue_delay)?,
            disabled: batching.disabled,
            refuse_oversize: batching.oversize == OversizeWord::Refuse,
        }),
        instances: spec.instances,
        max_queue: spec.max_queue,
        max_run_time_ms: micros(&spec.max_run_time)?.div_ceil(1_000),
        threads: spec.threads,
        spinning: spec.spinning,
        mode: InstanceMode::from(spec.mode).into(),
        device: DeviceKind::from(spec.device).into(),
        priority_levels: priorities.levels,
        default_priority_level: priorities.default,
        queue_timeout_us: micros(&spec.queue_timeout)?,
        quiet: spec.quiet,
    };
    version_settings::check(&settings).map(|()| settings)
}

/// Where the field or word is a typing mistake, with the one that was meant.
fn in_words(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error::{SerdeUnknownField, SerdeUnknownVariant};

    let error = error.without_snippet();
    let meant = match error {
        SerdeUnknownField { field: word, expected, .. }
        | SerdeUnknownVariant { variant: word, expected, .. } => did_you_mean(word, expected.iter().copied()),
        _ => String::new(),
    };
    format!("{error}{meant}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse_with_artefact(text: &str) -> Result<Vec<ModelManifest>, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.onnx"), b"abc").unwrap();
        let manifests = parse(text, Path::new("m.yaml"), folder.path()).map_err(|error| error.to_string())?;
        let model = |manifest| match manifest {
            Manifest::Model(manifest) => Some(manifest),
            Manifest::Rollout(_) => None,
        };
        Ok(manifests.into_iter().filter_map(model).collect())
    }

    fn refusal(text: &str) -> String {
        match parse_with_artefact(text) {
            Ok(_) => "accepted".to_owned(),
            Err(reason) => reason,
        }
    }

    #[test]
    fn a_whole_manifest_is_read_in_its_own_order() {
        let manifests = parse_with_artefact(
            "apiVersion: starling/v1\nkind: Model\nmetadata: { name: digits }\nspec:\n  versions:\n    \
             z: { artefact: ./a.onnx, batching: { maxBatch: 32, maxQueueDelay: 2ms }, instances: 2, maxRunTime: 10s }\n    \
             a: { artefact: ./a.onnx }\n  route: { z: 90%, a: 10 }\n  placement: { replicas: 2 }\n",
        )
        .unwrap();
        let manifest = &manifests[0];
        assert_eq!(manifest.name, "digits");
        assert_eq!(manifest.replicas, 2);
        let labels: Vec<&str> = manifest.versions.iter().map(|version| version.label.as_str()).collect();
        assert_eq!(labels, ["z", "a"]);
        let z = &manifest.versions[0];
        assert_eq!(z.artefact.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let batching = z.settings.batching.unwrap();
        assert_eq!((batching.max_batch, batching.max_queue_delay_us), (32, 2_000));
        assert_eq!((z.settings.instances, z.settings.max_run_time_ms), (2, 10_000));
        let route = manifest.route.as_ref().unwrap();
        assert_eq!((route[0].1.ppm(), route[1].1.ppm()), (900_000, 100_000));
    }

    #[test]
    fn every_setting_of_a_version_can_be_written() {
        let manifests = parse_with_artefact(
            "apiVersion: starling/v1\nkind: Model\nmetadata: { name: digits }\nspec:\n  versions:\n    v1:\n      \
             artefact: ./a.onnx\n      batching: { maxBatch: 32, maxQueueDelay: 2ms, oversize: refuse }\n      \
             mode: local\n      device: cpu\n      instances: 2\n      threads: 3\n      spinning: true\n      \
             maxQueue: 7\n      queueTimeout: 250ms\n      maxRunTime: 10s\n      \
             priorities: { levels: 3, default: 2 }\n      quiet: true\n",
        )
        .unwrap();
        let expected = VersionSettings {
            batching: Some(BatchingSettings {
                max_batch: 32,
                max_queue_delay_us: 2_000,
                disabled: false,
                refuse_oversize: true,
            }),
            instances: 2,
            max_queue: 7,
            max_run_time_ms: 10_000,
            threads: 3,
            spinning: true,
            mode: InstanceMode::Local.into(),
            device: DeviceKind::Cpu.into(),
            priority_levels: 3,
            default_priority_level: 2,
            queue_timeout_us: 250_000,
            quiet: true,
        };
        assert_eq!(manifests[0].versions[0].settings, expected);
    }

    #[test]
    fn several_documents_are_several_models() {
        let one = "apiVersion: starling/v1\nkind: Model\nmetadata: { name: NAME }\nspec:\n  versions:\n    v1: { artefact: a.onnx }\n";
        let text = format!("{}---\n{}", one.replace("NAME", "a"), one.replace("NAME", "b"));
        let names: Vec<String> =
            parse_with_artefact(&text).unwrap().into_iter().map(|manifest| manifest.name).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn models_and_rollouts_may_stand_in_one_file_and_mistakes_keep_their_lines() {
        let model = "apiVersion: starling/v1\nkind: Model\nmetadata: { name: digits }\nspec:\n  versions:\n    v1: { artefact: a.onnx }\n";
        let rollout = "apiVersion: starling/v1\nkind: Rollout\nmetadata: { name: r }\nspec: { model: digits, to: v2, strategy: { shadow: {} } }\n";
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.onnx"), b"abc").unwrap();
        let text = format!("---\n{model}---\n{rollout}--- # the last\n{model}");
        let manifests = parse(&text, Path::new("m.yaml"), folder.path()).unwrap();
        let kinds: Vec<&str> = manifests
            .iter()
            .map(|manifest| match manifest {
                Manifest::Model(_) => "model",
                Manifest::Rollout(_) => "rollout",
            })
            .collect();
        assert_eq!(kinds, ["model", "rollout", "model"]);
        let reason = refusal(&format!("{rollout}---\n{}", model.replace("artefact", "artifact")));
        assert!(reason.contains("line 11"), "{reason}");
    }

    #[test]
    fn mistakes_are_named() {
        let with = |spec: &str| {
            format!("apiVersion: starling/v1\nkind: Model\nmetadata: {{ name: digits }}\nspec:\n{spec}")
        };
        let cases = [
            ("apiVersion: v1\nkind: Model\n", "apiVersion is 'v1'"),
            (
                "apiVersion: starling/v1\nkind: Rolout\n",
                "kind is 'Rolout'; this binary knows Model and Rollout; did you mean 'Rollout'?",
            ),
            (&with("  versions: { v1: { artefact: a.onnx } }\n  route: { v1: 90% }\n"), "sum to 90%"),
            (&with("  versions: { v1: { artefact: missing.onnx } }\n"), "missing.onnx cannot be read"),
            (&with("  versions: { v1: { artefact: a.onnx, batchin: {} } }\n"), "unknown field `batchin`"),
            (&with("  versions: { v1: { artefact: a.onnx, batchin: {} } }\n"), "did you mean 'batching'?"),
            (&with("  versions: { v1: { artefact: a.onnx, mode: locl } }\n"), "did you mean 'local'?"),
            (
                &with("  versions: { v1: { artefact: a.onnx, priorities: { level: 3 } } }\n"),
                "did you mean 'levels'?",
            ),
            (
                &with("  versions: { v1: { artefact: a.onnx, priorities: { levels: 3, default: 4 } } }\n"),
                "version 'v1': the default priority level is 4, of 3 levels",
            ),
            (&with("  versions: { 12: { artefact: a.onnx } }\n"), "digits only"),
            (
                &with("  versions: { v1: { artefact: a.onnx, maxRunTime: soon } }\n"),
                "'soon' is not a duration",
            ),
        ];
        for (text, expected) in cases {
            let reason = refusal(text);
            assert!(reason.contains(expected), "{reason} should contain {expected}");
        }
    }
}
