//! `starling model`: push an ONNX file as a version, delete models and versions.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use starling_proto::admin::admin_client::AdminClient;
use starling_proto::admin::push_version_request::Part;
use starling_proto::admin::{
    DeleteModelRequest, DeleteVersionRequest, PushVersionRequest, PushVersionResponse, VersionSettings,
    push_version_request,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::artefact::LocalArtefact;
use super::connection::{admin, new_request_id};
use super::golden::{self, GoldenArgs};
use super::import_triton::{self, ImportTritonArgs};
use super::version_settings::SettingsArgs;
use super::wait_ready::wait_until_ready;
use super::{CliError, output};

const CHUNK_BYTES: usize = 512 * 1024;
const CHUNKS_IN_FLIGHT: usize = 4;

/// What can be done to models.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Upload an ONNX file as a new version of a model
    Push(PushArgs),
    /// Ask a model once and print what came as a golden sample, for --golden
    Golden(GoldenArgs),
    /// Push the ONNX models of a Triton model repository
    ImportTriton(ImportTritonArgs),
    /// Delete a model with all its versions, or one version of it
    Delete(DeleteArgs),
}

/// The file and how it is run.
#[derive(Debug, Args)]
#[command(after_help = "Example: starling model push digits ./digits-v1.onnx --label v1")]
pub struct PushArgs {
    /// The model; made if it does not exist
    model: String,
    /// The ONNX file, or a folder with model.onnx, its external data and golden/*.json
    file: PathBuf,
    /// A request with the answer it must get, as JSON; tried at every load. May be repeated
    #[arg(long, value_name = "FILE")]
    golden: Vec<PathBuf>,
    /// What to call this version; default: v and its ordinal
    #[arg(long)]
    label: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Do not wait until the version is loaded where it should be
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for that, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

/// What to delete.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The model
    model: String,
    /// Only this version, by label or ordinal
    #[arg(long)]
    version: Option<String>,
}

/// Carries it out.
pub async fn run(server: &str, command: ModelCommand) -> Result<(), CliError> {
    match command {
        ModelCommand::Push(args) => push(server, args).await,
        ModelCommand::Golden(args) => golden::run(server, args).await,
        ModelCommand::ImportTriton(args) => import_triton::run(server, args).await,
        ModelCommand::Delete(args) => delete(server, args).await,
    }
}

async fn push(server: &str, args: PushArgs) -> Result<(), CliError> {
    let file = LocalArtefact::read(&args.file, &args.golden)?;
    let settings = args.settings.settings().map_err(CliError::Local)?;
    let label = args.label.unwrap_or_default();
    let mut client = admin(server).await?;
    let answer = upload(&mut client, &args.model, &label, settings, &file).await?;
    let PushVersionResponse { model, ordinal, label, sha256, changed, .. } = answer;
    let digest: String = sha256.chars().take(12).collect();
    if changed {
        output::print_line(&format!("{model} {label} (ordinal {ordinal}, sha256 {digest}) is registered"))?;
    } else {
        output::print_line(&format!("{model} {label} (ordinal {ordinal}) already holds these bytes"))?;
    }
    if args.no_wait {
        return output::print_line(&format!("see it become ready: starling get versions {model}"));
    }
    wait_until_ready(&mut client, &model, &label, Duration::from_secs(args.timeout)).await?;
    output::print_line(&format!("{model} {label} is ready"))
}

async fn delete(server: &str, args: DeleteArgs) -> Result<(), CliError> {
    let mut client = admin(server).await?;
    let DeleteArgs { model, version } = args;
    let request_id = new_request_id();
    let Some(version) = version else {
        client.delete_model(DeleteModelRequest { model: model.clone(), request_id }).await?;
        return output::print_line(&format!("{model} is deleted"));
    };
    let request = DeleteVersionRequest { model: model.clone(), version: version.clone(), request_id };
    client.delete_version(request).await?;
    output::print_line(&format!("{model} {version} is deleted"))
}

/// Sends the file in chunks, with a progress bar on a terminal. The node reads
/// at its own pace: at most a few chunks are in memory.
pub async fn upload(
    client: &mut AdminClient<Channel>,
    model: &str,
    label: &str,
    settings: VersionSettings,
    artefact: &LocalArtefact,
) -> Result<PushVersionResponse, CliError> {
    let header = push_version_request::Header {
        model: model.to_owned(),
        label: label.to_owned(),
        settings: Some(settings),
        sha256: artefact.sha256.clone(),
        size_bytes: artefact.size_bytes,
        request_id: new_request_id(),
    };
    let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
    let artefact = artefact.clone();
    let bar = progress_bar(artefact.size_bytes, &format!("{model} {label}"));
    let reader = {
        let bar = bar.clone();
        tokio::task::spawn_blocking(move || send_chunks(&artefact, header, &sender, &bar))
    };
    let answer = client.push_version(ReceiverStream::new(receiver)).await;
    bar.finish_and_clear();
    let read = reader.await.map_err(|error| CliError::Local(format!("the upload stopped: {error}")))?;
    let answer = answer?.into_inner();
    read?;
    Ok(answer)
}

/// Ends early, without error, when the node has hung up: it says why.
fn send_chunks(
    artefact: &LocalArtefact,
    header: push_version_request::Header,
    sender: &mpsc::Sender<PushVersionRequest>,
    bar: &ProgressBar,
) -> Result<(), CliError> {
    if sender.blocking_send(PushVersionRequest { part: Some(Part::Header(header)) }).is_err() {
        return Ok(());
    }
    let mut hung_up = false;
    let chunks = Chunks { sender, bar, hung_up: &mut hung_up };
    let sent = artefact.write_to(BufWriter::with_capacity(CHUNK_BYTES, chunks));
    if hung_up { Ok(()) } else { sent }
}

/// Each write is one chunk.
struct Chunks<'a> {
    sender: &'a mpsc::Sender<PushVersionRequest>,
    bar: &'a ProgressBar,
    hung_up: &'a mut bool,
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(CHUNK_BYTES)];
        let part = Part::Chunk(Bytes::copy_from_slice(bytes));
        if self.sender.blocking_send(PushVersionRequest { part: Some(part) }).is_err() {
            *self.hung_up = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.bar.inc(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Draws on stderr, and only if that is a terminal.
fn progress_bar(size_bytes: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(size_bytes).with_message(what.to_owned());
    let template = "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
