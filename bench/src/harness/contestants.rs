//! The servers that are compared, each in a process of its own, on ports that the
//! system gives, stopped when dropped.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use starling_bench::load::Protocol;
use starling_bench::payload::{Inputs, Payload, random_request};
use starling_bench::server::{ServedModel, Signature};
use starling_chaos::admin::Admin;
use starling_chaos::cluster::{Cluster, ClusterConfig};
use starling_chaos::{rollouts, wait};
use starling_proto::admin::{BatchingSettings, InstanceMode, VersionSettings};
use starling_proto::inference::ModelInferResponse;
use starling_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;

use super::contest::{Bench, Entry};

const READY_LIMIT: Duration = Duration::from_secs(120);
/// What the first version of a model is called.
pub const FIRST: &str = "v1";

/// Some nodes of Starling.
pub struct Starling<'a> {
    bench: &'a Bench,
    cluster: Cluster,
    nodes: usize,
}

impl<'a> Starling<'a> {
    /// Starts them; they know each other when this returns.
    pub fn start(bench: &'a Bench, nodes: usize) -> Result<Self> {
        // The election timeouts that a node has by itself.
        let config = ClusterConfig::brisk();
        let cluster = bench.runtime.block_on(Cluster::start(&bench.site, config, nodes))?;
        Ok(Self { bench, cluster, nodes })
    }

    /// A client of all its nodes.
    pub fn admin(&mut self) -> Result<Admin> {
        // A channel needs a runtime around it, even one that dials later.
        let _entered = self.bench.runtime.enter();
        self.cluster.admin()
    }

    /// Process id of a node.
    pub fn pid(&mut self, node: usize) -> u32 {
        self.cluster.node(node).pid()
    }

    /// Pushes a version and waits until as many nodes have it ready.
    pub fn push(
        &mut self,
        model: &str,
        label: &str,
        file: &Path,
        settings: VersionSettings,
        loaded_on: usize,
    ) -> Result<()> {
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let admin = self.admin()?;
        self.bench.runtime.block_on(async {
            admin.push_with(model, label, bytes.into(), Some(settings)).await?;
            self.cluster.version_ready(model, label, loaded_on, READY_LIMIT).await
        })
    }

    /// Pushes the first version of a model onto every node.
    pub fn serve(&mut self, model: &str, file: &Path, settings: VersionSettings) -> Result<()> {
        let nodes = self.nodes;
        self.push(model, FIRST, file, settings, nodes)
    }

    /// Applies a manifest, as a user does.
    pub fn apply(&mut self, manifest: &Path) -> Result<()> {
        self.bench.runtime.block_on(rollouts::apply(&mut self.cluster, manifest))?;
        Ok(())
    }

    /// A model at a node.
    pub fn served(&mut self, node: usize, protocol: Protocol, model: &str) -> ServedModel {
        let node = self.cluster.node(node);
        let server = match protocol {
            Protocol::Grpc => node.grpc(),
            Protocol::Rest | Protocol::RestBinary => node.rest(),
        };
        ServedModel { server: server.to_string(), protocol, model: model.to_owned(), version: String::new() }
    }

    /// So many clients of a model at a node.
    pub fn entry(&mut self, node: usize, protocol: Protocol, model: &str, clients: usize) -> Result<Entry> {
        let asked = self.served(node, Protocol::Grpc, model);
        let signature = self.bench.signature(&asked)?;
        let served = self.served(node, protocol, model);
        let payload = self.bench.payload(protocol, &served.server, &signature, None)?;
        Ok(Entry {
            name: format!("starling, {model} over {}, {}", protocol.name(), counted(clients)),
            served,
            pid: Some(self.pid(node)),
            payload,
            load: self.bench.clients(clients),
        })
    }

    /// What a model answers to a random row.
    pub fn answer_of(&mut self, model: &str) -> Result<ModelInferResponse> {
        let served = self.served(0, Protocol::Grpc, model);
        let signature = self.bench.signature(&served)?;
        self.bench.runtime.block_on(ask_once(&served.server, &signature))
    }

    /// An echo that answers what this model answers.
    pub fn echo_of(&mut self, model: &str) -> Result<Echo> {
        let served = self.served(0, Protocol::Grpc, model);
        let signature = self.bench.signature(&served)?;
        let mut answer = self.answer_of(model)?;
        // What Starling says besides is its own cost, not the echo's.
        answer.parameters.clear();
        Echo::start(self.bench, &signature, &answer)
    }

    /// Leaves a model on one node, and says on which once the others have let go.
    pub fn place_on_one(&mut self, model: &str) -> Result<usize> {
        let admin = self.admin()?;
        let mut ids = Vec::new();
        for node in 0..self.nodes {
            ids.push(self.bench.runtime.block_on(self.cluster.status_of(node))?.node_id);
        }
        self.bench.runtime.block_on(async {
            admin.set_placement(model, 1).await?;
            wait::until(&format!("{model} to be on one node"), READY_LIMIT, || async {
                let versions = admin.versions(model).await?;
                let version = versions.first().context("it is not listed")?;
                let [holder] = version.loaded_on[..] else { bail!("it is on {:?}", version.loaded_on) };
                ids.iter().position(|id| *id == holder).context("its node is unknown")
            })
            .await
        })
    }

    /// The Raft term.
    pub fn term(&mut self) -> Result<u64> {
        let admin = self.admin()?;
        Ok(self.bench.runtime.block_on(admin.status())?.term)
    }
}

async fn ask_once(server: &str, signature: &Signature) -> Result<ModelInferResponse> {
    let request = random_request(signature, &Inputs { batch: 1, ..Inputs::default() }, 0)?;
    let mut client = GrpcInferenceServiceClient::connect(format!("http://{server}")).await?;
    Ok(client.model_infer(request).await?.into_inner())
}

/// A bare tonic server.
pub struct Echo {
    process: Child,
    server: String,
    signature: Signature,
    payload: Arc<Payload>,
}

impl Echo {
    fn start(bench: &Bench, signature: &Signature, answer: &ModelInferResponse) -> Result<Self> {
        let file = bench.file(&format!("answer-of-{}", signature.model));
        std::fs::write(&file, answer.encode_to_vec())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("echo").arg("--answer").arg(&file).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().context("cannot start the echo")?;
        let stdout = process.stdout.take().context("the echo has no stdout")?;
        // From here on it is stopped when this is dropped.
        let payload = bench.payload(Protocol::Grpc, "echo", signature, None)?;
        let mut echo = Self { process, server: String::new(), signature: signature.clone(), payload };
        BufReader::new(stdout).read_line(&mut echo.server)?;
        echo.server.truncate(echo.server.trim_end().len());
        ensure!(!echo.server.is_empty(), "the echo ended before it listened");
        echo.payload = bench.payload(Protocol::Grpc, &echo.server, signature, None)?;
        Ok(echo)
    }

    /// So many clients of it.
    pub fn entry(&self, bench: &Bench, clients: usize) -> Entry {
        Entry {
            name: format!("echo of {}, {}", self.signature.model, counted(clients)),
            served: ServedModel {
                server: self.server.clone(),
                protocol: Protocol::Grpc,
                model: self.signature.model.clone(),
                version: String::new(),
            },
            pid: Some(self.process.id()),
            payload: self.payload.clone(),
            load: bench.clients(clients),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn counted(clients: usize) -> String {
    if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") }
}

/// As the node chooses.
pub fn by_default() -> VersionSettings {
    VersionSettings::default()
}

/// In this mode.
pub fn mode(mode: InstanceMode) -> VersionSettings {
    VersionSettings { mode: mode.into(), ..VersionSettings::default() }
}

/// As the node chooses, but no two requests in one run.
pub fn unbatched() -> VersionSettings {
    let batching = BatchingSettings { disabled: true, ..BatchingSettings::default() };
    VersionSettings { batching: Some(batching), ..VersionSettings::default() }
}
