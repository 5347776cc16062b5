//! Compiles the .proto files with a pure-Rust compiler, so that no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const PROTO_FILES: &[&str] = &[
    "inference/grpc_service.proto",
    "starling/admin/v1/admin.proto",
    "starling/peer/v1/raft.proto",
    "starling/peer/v1/membership.proto",
    "starling/peer/v1/artefacts.proto",
    "starling/peer/v1/inference.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=protos");
    let descriptors = protox::compile(PROTO_FILES, ["protos"])?;
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".starling")
        .codec_path("crate::codec::BoundedCodec")
        // The command line shows these messages as JSON and YAML.
        .type_attribute(".starling.admin", "#[derive(serde::Serialize)]")
        .field_attribute(
            ".starling.admin.v1.VersionSettings.mode",
            r#"#[serde(serialize_with = "crate::enum_words::instance_mode")]"#,
        )
        .field_attribute(
            ".starling.admin.v1.VersionSettings.device",
            r#"#[serde(serialize_with = "crate::enum_words::device_kind")]"#,
        )
        .compile_fds(descriptors)?;
    Ok(())
}
