//! `PushVersion`: the bytes come in chunks, are written aside and hashed, read by
//! ONNX Runtime, kept, spread to a majority, and only then registered. Whatever
//! fails before leaves nothing behind.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use starling_actors::inference::{OnnxRuntime, bundle};
use starling_proto::admin::push_version_request::{Header, Part};
use starling_proto::admin::{
    DeviceKind as DeviceKindWire, InstanceMode as InstanceModeWire, PushVersionRequest, PushVersionResponse,
    VersionSettings as VersionSettingsWire,
};
use starling_raft::artefacts::{ArtefactError, ArtefactStore, Upload};
use starling_raft::state::models::{DeviceKind, InstanceMode, Oversize, VersionSettings};
use starling_raft::state::{
    ArtefactDigest, Command, ModelCommand, ModelName, Ordinal, RequestId, Signature, VersionLabel, VersionRef,
};
use tonic::{Status, Streaming};

use super::{Caller, invalid, request_id};
use crate::servers::Node;
use crate::servers::errors::{artefact_status, propose_status, read_status};
use crate::servers::node::Running;

/// The first message of the stream, checked.
#[derive(Debug, PartialEq, Eq)]
struct Announcement {
    model: ModelName,
    label: Option<VersionLabel>,
    settings: VersionSettings,
    digest: Option<ArtefactDigest>,
    size_bytes: u64,
    request_id: RequestId,
}

pub(super) async fn push(
    node: Arc<Node>,
    caller: Caller,
    mut parts: Streaming<PushVersionRequest>,
) -> Result<PushVersionResponse, Status> {
    let running = node.running()?;
    let first = parts.message().await?.and_then(|message| message.part);
    let Some(Part::Header(header)) = first else {
        return Err(Status::invalid_argument("the first message of a push must be its header"));
    };
    let announced = announcement(header, node.settings.max_artefact_bytes)?;
    let mut upload = running.artefacts.upload().await.map_err(|error| artefact_status(&error))?;
    receive(&mut upload, parts, announced.size_bytes).await?;
    let signature = inspect(&node, running, &mut upload).await?;
    let (digest, size_bytes) =
        upload.keep(announced.digest).await.map_err(|error| artefact_status(&error))?;
    running
        .artefacts
        .replicate_to_majority(digest, size_bytes, caller.timeout)
        .await
        .map_err(|error| artefact_status(&error))?;
    register(running, &caller, announced, digest, size_bytes, signature).await
}

fn announcement(header: Header, max_artefact_bytes: u64) -> Result<Announcement, Status> {
    if header.size_bytes > max_artefact_bytes {
        let error = ArtefactError::TooLarge { limit_bytes: max_artefact_bytes };
        return Err(artefact_status(&error));
    }
    let optional = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(Announcement {
        model: header.model.parse().map_err(invalid)?,
        label: optional(header.label).map(|label| label.parse()).transpose().map_err(invalid)?,
        settings: settings(header.settings.unwrap_or_default()),
        digest: optional(header.sha256).map(|digest| digest.parse()).transpose().map_err(invalid)?,
        size_bytes: header.size_bytes,
        request_id: request_id(&header.request_id)?,
    })
}

fn settings(wire: VersionSettingsWire) -> VersionSettings {
    let batching = wire.batching.unwrap_or_default();
    VersionSettings {
        max_batch: batching.max_batch,
        max_queue_delay_micros: batching.max_queue_delay_us,
        batching_disabled: batching.disabled,
        instances: wire.instances,
        max_queue: wire.max_queue,
        max_run_time_millis: wire.max_run_time_ms,
        threads: wire.threads,
        spinning: wire.spinning,
        mode: match wire.mode() {
            InstanceModeWire::Auto => InstanceMode::Auto,
            InstanceModeWire::Local => InstanceMode::Local,
            InstanceModeWire::Dedicated => InstanceMode::Dedicated,
        },
        device: match wire.device() {
            DeviceKindWire::Any => DeviceKind::Any,
            DeviceKindWire::Cpu => DeviceKind::Cpu,
            DeviceKindWire::Gpu => DeviceKind::Gpu,
        },
        oversize: if batching.refuse_oversize { Oversize::Refuse } else { Oversize::Split },
        priority_levels: wire.priority_levels,
        default_priority_level: wire.default_priority_level,
        queue_timeout_micros: wire.queue_timeout_us,
        quiet: wire.quiet,
    }
}

async fn receive(
    upload: &mut Upload,
    mut parts: Streaming<PushVersionRequest>,
    announced_bytes: u64,
) -> Result<(), Status> {
    let mut received_bytes: u64 = 0;
    while let Some(message) = parts.message().await? {
        let Some(Part::Chunk(chunk)) = message.part else {
            return Err(Status::invalid_argument("after the header a push has only chunks"));
        };
        received_bytes += chunk.len() as u64;
        upload.write(chunk).await.map_err(|error| artefact_status(&error))?;
    }
    if received_bytes == 0 {
        return Err(Status::invalid_argument("the model file is empty"));
    }
    if announced_bytes > 0 && announced_bytes != received_bytes {
        return Err(Status::invalid_argument(format!(
            "{announced_bytes} bytes were announced and {received_bytes} came; push it again"
        )));
    }
    Ok(())
}

/// The signature as ONNX Runtime reads it, or why it refuses the file or bundle.
async fn inspect(node: &Node, running: &Running, upload: &mut Upload) -> Result<Signature, Status> {
    let file = upload.flushed_path().await.map_err(|error| artefact_status(&error))?;
    let onnx = node.onnx.clone();
    let artefacts = running.artefacts.clone();
    let inspected = tokio::task::spawn_blocking(move || inspect_unpacked(&onnx, &artefacts, &file)).await;
    match inspected {
        Ok(Ok(signature)) => Ok(signature),
        Ok(Err(refused)) => Err(refused),
        Err(failed) => {
            tracing::error!(%failed, "reading a model file has panicked");
            Err(Status::internal("the model file could not be read; see the log of this node"))
        }
    }
}

fn inspect_unpacked(onnx: &OnnxRuntime, artefacts: &ArtefactStore, file: &Path) -> Result<Signature, Status> {
    let refused =
        |reason: &dyn Display| Status::invalid_argument(format!("not a model that can be served: {reason}"));
    if !bundle::is_bundle(file).map_err(|error| Status::internal(error.to_string()))? {
        return onnx.inspect(file).map_err(|reason| refused(&reason));
    }
    let scratch = artefacts
        .scratch_folder()
        .map_err(|error| Status::internal(format!("a folder to unpack into cannot be made: {error}")))?;
    bundle::unpack(file, scratch.path()).map_err(|error| refused(&error))?;
    onnx.inspect(scratch.path()).map_err(|reason| refused(&reason))
}

async fn register(
    running: &Running,
    caller: &Caller,
    announced: Announcement,
    digest: ArtefactDigest,
    size_bytes: u64,
    signature: Signature,
) -> Result<PushVersionResponse, Status> {
    let Announcement { model, label, settings, request_id, .. } = announced;
    let register = ModelCommand::RegisterVersion {
        model: model.clone(),
        label: label.clone(),
        digest,
        size_bytes,
        signature,
        settings,
    };
    let consensus = &running.consensus;
    let accepted = consensus
        .propose(&caller.principal, request_id, Command::Model(register), caller.timeout)
        .await
        .map_err(|error| propose_status(&error))?;
    let applied = consensus
        .wait_applied(accepted.log_index, caller.timeout)
        .await
        .map_err(|error| read_status(&error))?;
    // Created now, or, where nothing changed, found under its label.
    let wanted = match (accepted.created, label) {
        (Some(ordinal), _) => Some(VersionRef::Ordinal(Ordinal::new(ordinal))),
        (None, label) => label.map(VersionRef::Label),
    };
    let version = applied
        .state
        .models
        .get(model.as_str())
        .zip(wanted)
        .and_then(|(model, wanted)| model.version(&wanted).cloned())
        .ok_or_else(|| Status::not_found(format!("model '{model}' was deleted as soon as it was pushed")))?;
    Ok(PushVersionResponse {
        model: model.to_string(),
        ordinal: version.ordinal.get(),
        label: version.label.to_string(),
        sha256: digest.to_string(),
        log_index: accepted.log_index.get(),
        changed: accepted.changed,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use starling_proto::admin::BatchingSettings;
    use tonic::Code;

    use super::*;

    fn header() -> Header {
        Header { model: "digits".into(), size_bytes: 10, ..Header::default() }
    }

    #[test]
    fn a_file_over_the_limit_is_refused_before_it_comes() {
        let error = announcement(header(), 9).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("max_artefact_bytes"), "{error}");
    }

    #[test]
    fn a_header_is_checked_in_full_before_the_file_comes() {
        let bad_label = Header { label: "7".into(), ..header() };
        let bad_digest = Header { sha256: "abc".into(), ..header() };
        let bad_model = Header { model: "../x".into(), ..header() };
        for header in [bad_label, bad_digest, bad_model] {
            assert_eq!(
                announcement(header.clone(), 10).unwrap_err().code(),
                Code::InvalidArgument,
                "{header:?}"
            );
        }
    }

    #[test]
    fn settings_keep_their_numbers() {
        let batching = BatchingSettings {
            max_batch: 32,
            max_queue_delay_us: 500,
            disabled: false,
            refuse_oversize: true,
        };
        let wire = VersionSettingsWire {
            batching: Some(batching),
            instances: 2,
            max_queue: 7,
            max_run_time_ms: 1_000,
            threads: 3,
            spinning: true,
            mode: InstanceModeWire::Local.into(),
            device: DeviceKindWire::Gpu.into(),
            priority_levels: 3,
            default_priority_level: 2,
            queue_timeout_us: 250_000,
            quiet: true,
        };
        let expected = VersionSettings {
            max_batch: 32,
            max_queue_delay_micros: 500,
            batching_disabled: false,
            instances: 2,
            max_queue: 7,
            max_run_time_millis: 1_000,
            threads: 3,
            spinning: true,
            mode: InstanceMode::Local,
            device: DeviceKind::Gpu,
            oversize: Oversize::Refuse,
            priority_levels: 3,
            default_priority_level: 2,
            queue_timeout_micros: 250_000,
            quiet: true,
        };
        assert_eq!(settings(wire), expected);
    }
}
