//! What a model's `config.pbtxt` says, in Starling's settings: a pure function,
//! and a sentence about everything that has no counterpart.

use starling_proto::admin::{BatchingSettings, DeviceKind, VersionSettings};

use super::text_format::{Field, Value};

/// A setting that is not carried over, or not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// From 1.
    pub line: u32,
    /// Its path, as in `optimization.cuda`.
    pub field: String,
    /// What that means.
    pub text: String,
}

/// A model's settings, and how its versions are found.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapped {
    /// The model's name, if the file gives one.
    pub name: Option<String>,
    /// Of every version.
    pub settings: VersionSettings,
    /// The model's file within the folder of a version.
    pub file_name: String,
    /// Which versions Triton would serve.
    pub policy: VersionPolicy,
    /// In the order of the file.
    pub remarks: Vec<Remark>,
}

/// Which versions are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The so many highest.
    Latest(usize),
    /// All there are.
    All,
    /// These.
    Specific(Vec<u64>),
}

impl VersionPolicy {
    /// Of what is there, in ascending order, what is served.
    pub fn choose(&self, mut there: Vec<u64>) -> Vec<u64> {
        there.sort_unstable();
        match self {
            Self::All => there,
            Self::Latest(count) => there.split_off(there.len().saturating_sub(*count)),
            Self::Specific(versions) => {
                there.retain(|version| versions.contains(version));
                there
            }
        }
    }
}

/// Why a model cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Unfit {
    /// From 1; 0: the whole file.
    pub line: u32,
    /// Which setting says so.
    pub field: String,
    /// Why.
    pub reason: String,
}

const FILE_NAME: &str = "model.onnx";
const BACKENDS: [&str; 2] = ["onnxruntime", "onnxruntime_onnx"];

/// Maps a whole file.
pub fn map(fields: &[Field]) -> Result<Mapped, Unfit> {
    let mut mapping = Mapping::default();
    for field in fields {
        mapping.top_level(field)?;
    }
    Ok(mapping.finish())
}

#[derive(Default)]
struct Mapping {
    name: Option<String>,
    file_name: Option<String>,
    policy: Option<VersionPolicy>,
    /// Absent: read from the model.
    max_batch_size: Option<u32>,
    batching: BatchingSettings,
    settings: VersionSettings,
    groups: Vec<DeviceKind>,
    remarks: Vec<Remark>,
}

impl Mapping {
    fn top_level(&mut self, field: &Field) -> Result<(), Unfit> {
        match field.name.as_str() {
            "name" => self.name = text(field).filter(|name| !name.is_empty()),
            "platform" | "backend" => require_onnx(field)?,
            "ensemble_scheduling" => {
                let reason = "an ensemble is a pipeline of other models, which Starling does not run; call its models one after the other, or join their graphs into one ONNX file";
                return Err(unfit(field, reason));
            }
            "sequence_batching" => {
                let reason = "requests of a sequence would have to meet the same state; Starling keeps none between requests";
                return Err(unfit(field, reason));
            }
            "max_batch_size" => {
                self.max_batch_size = Some(u32::try_from(number(field)?.max(0)).unwrap_or(u32::MAX));
            }
            "default_model_filename" => self.file_name = text(field).filter(|name| !name.is_empty()),
            "version_policy" => self.policy = Some(version_policy(field)?),
            "instance_group" => self.instance_group(field)?,
            "dynamic_batching" => self.dynamic_batching(field)?,
            "parameters" => self.parameter(field)?,
            "input" | "output" => self.tensor(field),
            "optimization" => self.optimization(field)?,
            "model_warmup" => self.remark(
                field,
                "model_warmup",
                "every version is warmed by itself when it is loaded; golden samples (`--golden`) also check its answers",
            ),
            "model_operations" => self.remark(
                field,
                "model_operations",
                "libraries of custom operators are named in the configuration of each node",
            ),
            "response_cache" if is_set(field, "enable") => {
                self.remark(field, "response_cache", "answers are not cached: every request runs");
            }
            "model_transaction_policy" if is_set(field, "decoupled") => {
                self.remark(field, "model_transaction_policy.decoupled", "every request has one answer");
            }
            "response_cache" | "model_transaction_policy" => {}
            known @ ("batch_input" | "batch_output" | "cc_model_filenames" | "metric_tags"
            | "model_repository_agents" | "model_metrics" | "runtime") => {
                self.remark(field, known, "has no counterpart and is left out");
            }
            unknown => self.remark(field, unknown, "is not a field that this binary knows; left out"),
        }
        Ok(())
    }

    fn finish(self) -> Mapped {
        let Self { batching, mut settings, groups, max_batch_size, mut remarks, .. } = self;
        let batching = match max_batch_size {
            None => batching,
            Some(0) => BatchingSettings { disabled: true, ..BatchingSettings::default() },
            // As Triton does, which has the client split it.
            Some(rows) => BatchingSettings { max_batch: rows, refuse_oversize: true, ..batching },
        };
        settings.batching = Some(batching);
        if let Some(first) = groups.first() {
            let alike = groups.iter().all(|kind| kind == first);
            settings.device = if alike { *first } else { DeviceKind::Any }.into();
        }
        remarks.sort_by_key(|remark| remark.line);
        Mapped {
            name: self.name,
            settings,
            file_name: self.file_name.unwrap_or_else(|| FILE_NAME.to_owned()),
            policy: self.policy.unwrap_or(VersionPolicy::Latest(1)),
            remarks,
        }
    }

    fn instance_group(&mut self, group: &Field) -> Result<(), Unfit> {
        let mut count = 1;
        let mut kind = DeviceKind::Any;
        for field in group.value.fields() {
            match field.name.as_str() {
                "name" => {}
                "count" => count = u32::try_from(number(field)?.max(1)).unwrap_or(u32::MAX),
                "kind" => kind = device(field)?,
                "gpus" => self.remark(
                    field,
                    "instance_group.gpus",
                    "instances run on every GPU of a node; which ones a node has is in its configuration",
                ),
                name => self.remark(
                    field,
                    &format!("instance_group.{name}"),
                    "has no counterpart and is left out",
                ),
            }
        }
        if self.groups.iter().any(|other| *other != kind) {
            self.remark(
                group,
                "instance_group",
                "groups on different kinds of device become instances on every device of a node",
            );
            self.settings.instances = self.settings.instances.max(count);
        } else {
            self.settings.instances = self.settings.instances.saturating_add(count);
        }
        self.groups.push(kind);
        Ok(())
    }

    fn dynamic_batching(&mut self, batching: &Field) -> Result<(), Unfit> {
        for field in batching.value.fields() {
            match field.name.as_str() {
                "max_queue_delay_microseconds" => self.batching.max_queue_delay_us = unsigned(field)?,
                "priority_levels" => self.settings.priority_levels = small(field)?,
                "default_priority_level" => self.settings.default_priority_level = small(field)?,
                "default_queue_policy" => self.queue_policy(field)?,
                "preferred_batch_size" => self.remark(
                    field,
                    "dynamic_batching.preferred_batch_size",
                    "whatever waits is run together, up to max_batch_size; no size is preferred",
                ),
                "preserve_ordering" if field.value.scalar() == Some("true") => self.remark(
                    field,
                    "dynamic_batching.preserve_ordering",
                    "answers come as they are ready; match them by request id",
                ),
                "preserve_ordering" => {}
                name => self.remark(
                    field,
                    &format!("dynamic_batching.{name}"),
                    "has no counterpart and is left out",
                ),
            }
        }
        Ok(())
    }

    fn queue_policy(&mut self, policy: &Field) -> Result<(), Unfit> {
        let path = |name: &str| format!("dynamic_batching.default_queue_policy.{name}");
        for field in policy.value.fields() {
            match field.name.as_str() {
                "max_queue_size" => self.settings.max_queue = small(field)?,
                "default_timeout_microseconds" => self.settings.queue_timeout_us = unsigned(field)?,
                "timeout_action" if matches!(field.value.scalar(), Some("DELAY" | "1")) => self.remark(
                    field,
                    &path("timeout_action"),
                    "a request whose time is over is refused, not put behind the others",
                ),
                "timeout_action" => {}
                "allow_timeout_override" if field.value.scalar() == Some("true") => {}
                "allow_timeout_override" => self.remark(
                    field,
                    &path("allow_timeout_override"),
                    "a request may always name a timeout of its own",
                ),
                name => self.remark(field, &path(name), "has no counterpart and is left out"),
            }
        }
        Ok(())
    }

    /// A map entry: `{ key: "…" value: { string_value: "…" } }`.
    fn parameter(&mut self, entry: &Field) -> Result<(), Unfit> {
        let inner = |name: &str| entry.value.fields().iter().find(|field| field.name == name);
        let key = inner("key").and_then(|field| field.value.scalar()).unwrap_or_default();
        let value = inner("value").and_then(|value| value.value.fields().first());
        let value = value.and_then(|field| field.value.scalar()).unwrap_or_default();
        let path = format!("parameters.{key}");
        match key {
            "intra_op_thread_count" => match value.parse() {
                Ok(threads) => self.settings.threads = threads,
                Err(_) => self.remark(entry, &path, "is not a number of threads; left out"),
            },
            "session.intra_op.allow_spinning" => self.settings.spinning = value == "1",
            _ => self.remark(entry, &path, "has no counterpart and is left out"),
        }
        Ok(())
    }

    /// Names, types and shapes are read from the model itself.
    fn tensor(&mut self, tensor: &Field) {
        for field in tensor.value.fields() {
            let text = match field.name.as_str() {
                "reshape" => "clients must send and get the shape that the model itself has",
                "allow_ragged_batch" if field.value.scalar() == Some("true") => {
                    "requests of different shapes are never run together"
                }
                "label_filename" => "classes are answered by number, without names from a file",
                _ => continue,
            };
            self.remark(field, &format!("{}.{}", tensor.name, field.name), text);
        }
    }

    fn optimization(&mut self, optimization: &Field) -> Result<(), Unfit> {
        for field in optimization.value.fields() {
            let text = match field.name.as_str() {
                "execution_accelerators" => {
                    "execution providers are chosen in the configuration of each node"
                }
                "graph" => "graphs are optimised fully",
                _ => "has no counterpart and is left out",
            };
            self.remark(field, &format!("optimization.{}", field.name), text);
        }
        Ok(())
    }

    /// Of a list, the first only.
    fn remark(&mut self, at: &Field, field: &str, text: &str) {
        let is_known = self.remarks.iter().any(|remark| remark.field == field && remark.text == text);
        if !is_known || field.starts_with("parameters.") {
            self.remarks.push(Remark { line: at.line, field: field.to_owned(), text: text.to_owned() });
        }
    }
}

fn require_onnx(field: &Field) -> Result<(), Unfit> {
    let name = text(field).unwrap_or_default();
    match name.as_str() {
        "" => Ok(()),
        name if BACKENDS.contains(&name) => Ok(()),
        "ensemble" => Err(unfit(
            field,
            "an ensemble is a pipeline of other models, which Starling does not run; call its models one after the other, or join their graphs into one ONNX file",
        )),
        name => Err(unfit(
            field,
            &format!(
                "'{name}' is another runtime; Starling runs ONNX (backend \"onnxruntime\"): export the model to it"
            ),
        )),
    }
}

fn version_policy(policy: &Field) -> Result<VersionPolicy, Unfit> {
    let Some(choice) = policy.value.fields().first() else {
        return Ok(VersionPolicy::Latest(1));
    };
    let inner = |name: &'static str| choice.value.fields().iter().filter(move |field| field.name == name);
    match choice.name.as_str() {
        "all" => Ok(VersionPolicy::All),
        "latest" => {
            let count = inner("num_versions").next().map_or(Ok(1), unsigned)?;
            Ok(VersionPolicy::Latest(usize::try_from(count.max(1)).unwrap_or(usize::MAX)))
        }
        "specific" => {
            let versions = inner("versions").map(unsigned).collect::<Result<_, _>>()?;
            Ok(VersionPolicy::Specific(versions))
        }
        other => Err(unfit(choice, &format!("'{other}' is none of latest, all and specific"))),
    }
}

fn device(field: &Field) -> Result<DeviceKind, Unfit> {
    match field.value.scalar().unwrap_or_default() {
        "KIND_AUTO" | "KIND_MODEL" | "0" | "3" => Ok(DeviceKind::Any),
        "KIND_GPU" | "1" => Ok(DeviceKind::Gpu),
        "KIND_CPU" | "2" => Ok(DeviceKind::Cpu),
        other => {
            Err(unfit(field, &format!("'{other}' is none of KIND_AUTO, KIND_CPU, KIND_GPU and KIND_MODEL")))
        }
    }
}

fn text(field: &Field) -> Option<String> {
    match &field.value {
        Value::Text(text) => Some(text.clone()),
        Value::Word(_) | Value::Message(_) => None,
    }
}

fn number(field: &Field) -> Result<i64, Unfit> {
    let word = field.value.scalar().unwrap_or("{…}");
    word.parse().map_err(|_| unfit(field, &format!("'{word}' is not a whole number")))
}

fn unsigned(field: &Field) -> Result<u64, Unfit> {
    u64::try_from(number(field)?).map_err(|_| unfit(field, "is below zero"))
}

fn small(field: &Field) -> Result<u32, Unfit> {
    u32::try_from(number(field)?).map_err(|_| unfit(field, "is out of range"))
}

fn is_set(message: &Field, name: &str) -> bool {
    message.value.fields().iter().any(|field| field.name == name && field.value.scalar() == Some("true"))
}

fn unfit(field: &Field, reason: &str) -> Unfit {
    Unfit { line: field.line, field: field.name.clone(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::text_format::parse;
    use super::*;
    use crate::cli::version_settings::describe;

    fn mapped(text: &str) -> Mapped {
        map(&parse(text).unwrap()).unwrap()
    }

    #[test]
    fn every_setting_with_a_counterpart_is_carried_over() {
        let cases = [
            ("", ""),
            ("max_batch_size: 0", "no batching"),
            ("max_batch_size: 8", "maxBatch 8, oversize refuse"),
            (
                "max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: 500 }",
                "maxBatch 8, maxQueueDelay 500us, oversize refuse",
            ),
            (
                "dynamic_batching { priority_levels: 3 default_priority_level: 2 }",
                "priorities 3, default priority 2",
            ),
            (
                "dynamic_batching { default_queue_policy { max_queue_size: 64 default_timeout_microseconds: 250000 allow_timeout_override: true timeout_action: REJECT } }",
                "maxQueue 64, queueTimeout 250ms",
            ),
            ("instance_group [ { count: 2 kind: KIND_CPU } ]", "device cpu, instances 2"),
            ("instance_group [ { kind: KIND_GPU } ]", "device gpu, instances 1"),
            (
                "instance_group [ { count: 1 kind: KIND_CPU }, { count: 2 kind: KIND_CPU } ]",
                "device cpu, instances 3",
            ),
            ("instance_group { count: 4 }", "instances 4"),
            ("parameters { key: \"intra_op_thread_count\" value: { string_value: \"3\" } }", "threads 3"),
            (
                "parameters { key: \"session.intra_op.allow_spinning\" value: { string_value: \"1\" } }",
                "spinning",
            ),
        ];
        for (text, expected) in cases {
            let mapped = mapped(text);
            assert_eq!(describe(&mapped.settings), expected, "{text}");
            assert_eq!(mapped.remarks, [], "{text}");
        }
    }

    #[test]
    fn what_describes_the_model_and_not_how_it_runs_is_taken_from_the_model() {
        let mapped = mapped(
            "name: \"digits\"\nbackend: \"onnxruntime\"\nplatform: \"onnxruntime_onnx\"\n\
             input [ { name: \"x\" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 224, 224 ] } ]\n\
             output { name: \"y\" data_type: TYPE_FP32 dims: [ 10 ] }\ndefault_model_filename: \"net.onnx\"",
        );
        assert_eq!(mapped.name.as_deref(), Some("digits"));
        assert_eq!(mapped.file_name, "net.onnx");
        assert_eq!(mapped.policy, VersionPolicy::Latest(1));
        assert_eq!(mapped.remarks, []);
    }

    #[test]
    fn every_setting_without_a_counterpart_is_named_with_its_line() {
        let cases = [
            ("dynamic_batching { preferred_batch_size: [ 4, 8 ] }", "dynamic_batching.preferred_batch_size"),
            ("dynamic_batching { preserve_ordering: true }", "dynamic_batching.preserve_ordering"),
            (
                "dynamic_batching { priority_queue_policy { key: 1 value { max_queue_size: 3 } } }",
                "dynamic_batching.priority_queue_policy",
            ),
            (
                "dynamic_batching { default_queue_policy { timeout_action: DELAY } }",
                "dynamic_batching.default_queue_policy.timeout_action",
            ),
            ("instance_group { rate_limiter { priority: 2 } }", "instance_group.rate_limiter"),
            ("instance_group { gpus: [ 0, 1 ] }", "instance_group.gpus"),
            ("response_cache { enable: true }", "response_cache"),
            ("model_warmup { name: \"w\" batch_size: 1 }", "model_warmup"),
            ("model_operations { op_library_filename: \"o.so\" }", "model_operations"),
            ("optimization { cuda { graphs: true } }", "optimization.cuda"),
            (
                "optimization { execution_accelerators { gpu_execution_accelerator { name: \"tensorrt\" } } }",
                "optimization.execution_accelerators",
            ),
            ("input { name: \"x\" reshape { shape: [ 1 ] } }", "input.reshape"),
            ("output { label_filename: \"labels.txt\" }", "output.label_filename"),
            (
                "parameters { key: \"execution_mode\" value { string_value: \"1\" } }",
                "parameters.execution_mode",
            ),
            ("model_transaction_policy { decoupled: true }", "model_transaction_policy.decoupled"),
            ("model_repository_agents { agents { name: \"a\" } }", "model_repository_agents"),
            ("metric_tags { key: \"a\" value: \"b\" }", "metric_tags"),
            ("not_yet_invented: 3", "not_yet_invented"),
        ];
        for (text, expected) in cases {
            let remarks = mapped(&format!("max_batch_size: 8\n{text}")).remarks;
            let named: Vec<(u32, &str)> =
                remarks.iter().map(|remark| (remark.line, remark.field.as_str())).collect();
            assert_eq!(named, [(2, expected)], "{text}");
        }
        for silent in ["response_cache { enable: false }", "model_transaction_policy { decoupled: false }"] {
            assert_eq!(mapped(silent).remarks, []);
        }
    }

    #[test]
    fn groups_on_several_kinds_of_device_become_instances_on_all() {
        let mapped = mapped("instance_group [ { count: 1 kind: KIND_GPU }, { count: 2 kind: KIND_CPU } ]");
        assert_eq!(describe(&mapped.settings), "instances 2");
        assert_eq!(mapped.remarks.len(), 1);
    }

    #[test]
    fn models_that_cannot_be_served_are_refused_with_the_reason() {
        for (text, line, reason) in [
            ("\nbackend: \"pytorch\"", 2, "'pytorch' is another runtime"),
            ("platform: \"tensorrt_plan\"", 1, "'tensorrt_plan' is another runtime"),
            ("platform: \"ensemble\"", 1, "a pipeline of other models"),
            ("ensemble_scheduling { step { model_name: \"a\" } }", 1, "a pipeline of other models"),
            ("sequence_batching { max_sequence_idle_microseconds: 5 }", 1, "keeps none between requests"),
            ("max_batch_size: many", 1, "'many' is not a whole number"),
            ("instance_group { kind: KIND_TPU }", 1, "'KIND_TPU' is none of"),
        ] {
            let unfit = map(&parse(text).unwrap()).unwrap_err();
            assert_eq!(unfit.line, line, "{text}");
            assert!(unfit.reason.contains(reason), "{unfit} should contain {reason}");
        }
    }

    #[test]
    fn a_version_policy_chooses_what_triton_would_serve() {
        let policy = |text: &str| mapped(text).policy.choose(vec![10, 1, 2]);
        assert_eq!(policy(""), [10]);
        assert_eq!(policy("version_policy { latest { num_versions: 2 } }"), [2, 10]);
        assert_eq!(policy("version_policy: { latest {} }"), [10]);
        assert_eq!(policy("version_policy { all {} }"), [1, 2, 10]);
        assert_eq!(policy("version_policy { specific { versions: [ 10, 1, 3 ] } }"), [1, 10]);
    }
}
