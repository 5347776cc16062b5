//! Manifests: from YAML to values that are known to be right.

use std::io::Read;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Deserialize;
use starling_proto::admin::{BatchingSettings, VersionSettings};
use starling_raft::state::{ModelName, VersionLabel};

use super::super::artefact::LocalArtefact;
use super::super::percent::Percent;
use super::CliError;

const API_VERSION: &str = "starling/v1";
const WHOLE_PPM: u64 = 1_000_000;

/// One model, as it should be.
pub struct ModelManifest {
    /// What clients call.
    pub name: String,
    /// In the order of the file, which is the order in which they are pushed.
    pub versions: Vec<DesiredVersion>,
    /// Absent: the route is left alone.
    pub route: Option<Vec<(String, Percent)>>,
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
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Batching {
    #[serde(default)]
    max_batch: u32,
    max_queue_delay: Option<String>,
    #[serde(default)]
    disabled: bool,
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
pub fn read(path: &Path) -> Result<Vec<ModelManifest>, CliError> {
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
fn parse(text: &str, file: &Path, folder: &Path) -> Result<Vec<ModelManifest>, CliError> {
    let wrong = |reason: String| CliError::Local(format!("{}: {reason}", file.display()));
    // The kind is looked at first, so that a manifest of another kind is not
    // reported as a model with wrong fields.
    let headers: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(text).map_err(|error| wrong(error.to_string()))?;
    for header in &headers {
        let field = |name: &str| header.get(name).and_then(|value| value.as_str()).unwrap_or("").to_owned();
        let (api_version, kind) = (field("apiVersion"), field("kind"));
        if api_version != API_VERSION {
            return Err(wrong(format!("apiVersion is '{api_version}'; this binary knows '{API_VERSION}'")));
        }
        if kind != "Model" {
            return Err(wrong(format!("kind is '{kind}'; this binary knows 'Model'")));
        }
    }
    let documents: Vec<Document> =
        serde_saphyr::from_multiple(text).map_err(|error| wrong(error.to_string()))?;
    documents.into_iter().map(|document| check(document, folder, &wrong)).collect()
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
    Ok(ModelManifest { name: name.to_string(), versions, route, replicas: document.spec.placement.replicas })
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
    let max_queue_delay_us = match &spec.batching.max_queue_delay {
        Some(text) => duration_micros(text)?,
        None => 0,
    };
    let max_run_time_ms = match &spec.max_run_time {
        Some(text) => duration_micros(text)?.div_ceil(1_000),
        None => 0,
    };
    Ok(VersionSettings {
        batching: Some(BatchingSettings {
            max_batch: spec.batching.max_batch,
            max_queue_delay_us,
            disabled: spec.batching.disabled,
            ..BatchingSettings::default()
        }),
        instances: spec.instances,
        max_queue: spec.max_queue,
        max_run_time_ms,
        threads: spec.threads,
        ..VersionSettings::default()
    })
}

/// `500us`, `2ms`, `10s`, `1m 30s`.
fn duration_micros(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a duration such as 500us, 2ms or 10s");
    let duration: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    u64::try_from(duration.as_micros()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse_with_artefact(text: &str) -> Result<Vec<ModelManifest>, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.onnx"), b"abc").unwrap();
        parse(text, Path::new("m.yaml"), folder.path()).map_err(|error| error.to_string())
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
    fn several_documents_are_several_models() {
        let one = "apiVersion: starling/v1\nkind: Model\nmetadata: { name: NAME }\nspec:\n  versions:\n    v1: { artefact: a.onnx }\n";
        let text = format!("{}---\n{}", one.replace("NAME", "a"), one.replace("NAME", "b"));
        let names: Vec<String> =
            parse_with_artefact(&text).unwrap().into_iter().map(|manifest| manifest.name).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn mistakes_are_named() {
        let with = |spec: &str| {
            format!("apiVersion: starling/v1\nkind: Model\nmetadata: {{ name: digits }}\nspec:\n{spec}")
        };
        let cases = [
            ("apiVersion: v1\nkind: Model\n", "apiVersion is 'v1'"),
            ("apiVersion: starling/v1\nkind: Rollout\n", "kind is 'Rollout'"),
            (&with("  versions: { v1: { artefact: a.onnx } }\n  route: { v1: 90% }\n"), "sum to 90%"),
            (&with("  versions: { v1: { artefact: missing.onnx } }\n"), "missing.onnx cannot be read"),
            (&with("  versions: { v1: { artefact: a.onnx, batchin: {} } }\n"), "batchin"),
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
