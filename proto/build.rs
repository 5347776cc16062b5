//! Compiles the .proto files with a pure-Rust compiler, so that no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const PROTO_FILES: &[&str] = &[
    "inference/grpc_service.proto",
    "starling/admin/v1/admin.proto",
    "starling/admin/v1/rollouts.proto",
    "starling/feedback/v1/feedback.proto",
    "starling/peer/v1/raft.proto",
    "starling/peer/v1/membership.proto",
    "starling/peer/v1/artefacts.proto",
    "starling/peer/v1/inference.proto",
    "starling/peer/v1/feedback.proto",
    "starling/peer/v1/rollouts.proto",
];

/// Enumerations that JSON and YAML show as words: where they stand, and what writes them.
const WORDS: &[(&str, &str)] = &[
    ("VersionSettings.mode", "instance_mode"),
    ("VersionSettings.device", "device_kind"),
    ("RolloutSpec.on_failure", "on_failure"),
    ("RolloutSpec.on_inconclusive", "on_inconclusive"),
    ("AbTestStrategy.correction", "correction"),
    ("Rollout.phase", "rollout_phase"),
    ("Rollout.ending", "rollout_ending"),
    ("RolloutStage.kind", "stage_kind"),
    ("RolloutGateReport.verdict", "rollout_verdict"),
    ("RolloutHappening.ending", "rollout_ending"),
];

/// Alternatives, whose names JSON and YAML show in lower case like those of fields.
const ALTERNATIVES: &[&str] = &[
    "RolloutSpec.strategy",
    "RequestCondition.attribute",
    "RequestCondition.test",
    "Agreement.kind",
    "RolloutReward.kind",
    "BanditStrategy.policy",
    "RolloutGate.test",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=protos");
    let descriptors = protox::compile(PROTO_FILES, ["protos"])?;
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut build = tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".starling")
        .codec_path("crate::codec::BoundedCodec")
        // The command line shows these messages as JSON and YAML.
        .type_attribute(".starling.admin", "#[derive(serde::Serialize)]");
    for (field, function) in WORDS {
        let words = format!(r#"#[serde(serialize_with = "crate::enum_words::{function}")]"#);
        build = build.field_attribute(format!(".starling.admin.v1.{field}"), words);
    }
    for field in ALTERNATIVES {
        let lower_case = r#"#[serde(rename_all = "snake_case")]"#;
        build = build.type_attribute(format!(".starling.admin.v1.{field}"), lower_case);
    }
    build.compile_fds(descriptors)?;
    Ok(())
}
