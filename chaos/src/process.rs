//! One real `starling` process: started, watched through its ready file, and
//! killed, paused, ended or started again.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::process::{Child, Command};

use crate::site::Site;
use crate::wait;

/// Where a node listens. Port 0: the system chooses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ports {
    /// Open Inference Protocol over REST.
    pub rest: u16,
    /// Open Inference Protocol and administration over gRPC.
    pub grpc: u16,
    /// Prometheus and health.
    pub metrics: u16,
    /// Other nodes.
    pub peer: u16,
}

/// How one node is started.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// What reports and log files call it.
    pub name: String,
    /// Its folder: data, ready file, log.
    pub home: PathBuf,
    /// Where it listens.
    pub host: Ipv4Addr,
    /// What others dial, where it is not `host`.
    pub advertise: Option<Ipv4Addr>,
    /// On which ports.
    pub ports: Ports,
    /// Further flags of `starling serve`.
    pub args: Vec<String>,
}

/// The file that a node writes once it listens, and again once it can answer.
#[derive(Debug, Clone, Deserialize)]
struct ReadyFile {
    ready: bool,
    #[serde(default)]
    node_id: Option<u64>,
    rest: String,
    grpc: String,
    metrics: String,
    peer: String,
}

/// A started process, alive or not. Dropped, it kills what still runs.
#[derive(Debug)]
pub struct NodeProcess {
    spec: NodeSpec,
    child: Child,
    pid: Pid,
    ports: Ports,
    node_id: Option<u64>,
    detached: bool,
}

impl NodeProcess {
    /// Starts it; returns before it listens.
    pub fn spawn(site: &Site, spec: NodeSpec) -> Result<Self> {
        std::fs::create_dir_all(&spec.home)
            .with_context(|| format!("cannot create {}", spec.home.display()))?;
        let ready_file = spec.home.join("ready.json");
        match std::fs::remove_file(&ready_file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let log = open_log(&spec.home)?;
        let mut command = Command::new(&site.binary);
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(spec.home.join("data"))
            .arg("--ready-file")
            .arg(&ready_file)
            .args(["--host", &spec.host.to_string()])
            .args(["--rest-port", &spec.ports.rest.to_string()])
            .args(["--grpc-port", &spec.ports.grpc.to_string()])
            .args(["--metrics-port", &spec.ports.metrics.to_string()])
            .args(["--peer-port", &spec.ports.peer.to_string()]);
        if let Some(advertise) = spec.advertise {
            command.args(["--advertise", &advertise.to_string()]);
        }
        command.args(&spec.args);
        if let Some(library) = &site.onnxruntime {
            command.env("ORT_DYLIB_PATH", library);
        }
        // A group of its own: Ctrl-C in a terminal reaches this program only,
        // which then decides what happens to the nodes.
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {}", site.binary.display()))?;
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
            .context("a process without an id")?;
        let ports = spec.ports;
        Ok(Self { spec, child, pid, ports, node_id: None, detached: false })
    }

    /// Waits until its servers listen, and knows the ports from then on.
    pub async fn listening(&mut self, limit: Duration) -> Result<()> {
        self.ready_file(limit, |_| true).await
    }

    /// Waits until it can answer.
    pub async fn ready(&mut self, limit: Duration) -> Result<()> {
        self.ready_file(limit, |file| file.ready).await
    }

    async fn ready_file(&mut self, limit: Duration, enough: impl Fn(&ReadyFile) -> bool) -> Result<()> {
        let path = self.spec.home.join("ready.json");
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            if let Some(file) = read_ready_file(&path)?
                && enough(&file)
            {
                self.ports = Ports {
                    rest: port_of(&file.rest)?,
                    grpc: port_of(&file.grpc)?,
                    metrics: port_of(&file.metrics)?,
                    peer: port_of(&file.peer)?,
                };
                self.node_id = file.node_id.filter(|id| *id != 0);
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} before it was ready:\n{}", self.spec.name, self.log_tail());
            }
            if tokio::time::Instant::now() >= deadline {
                bail!("{} was not ready within {limit:?}:\n{}", self.spec.name, self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait().await?;
        Ok(())
    }

    /// SIGSTOP: alive, and silent.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM.
    pub fn ask_to_stop(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.ask_to_stop()?;
        self.ended(limit).await
    }

    /// Waits for the process to end by itself.
    pub async fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => Err(anyhow!("{} still runs after {limit:?}:\n{}", self.spec.name, self.log_tail())),
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid, signal).with_context(|| format!("{} cannot be signalled", self.spec.name))
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How it was started.
    pub fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// The cluster's id for it, as far as it has told.
    pub fn node_id(&self) -> Option<u64> {
        self.node_id
    }

    /// Where it listens.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// Where clients dial gRPC.
    pub fn grpc(&self) -> SocketAddr {
        SocketAddr::from((self.spec.host, self.ports.grpc))
    }

    /// Where clients dial REST.
    pub fn rest(&self) -> SocketAddr {
        SocketAddr::from((self.spec.host, self.ports.rest))
    }

    /// Where Prometheus and health are.
    pub fn metrics(&self) -> SocketAddr {
        SocketAddr::from((self.spec.host, self.ports.metrics))
    }

    /// What other nodes dial.
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::from((self.spec.advertise.unwrap_or(self.spec.host), self.ports.peer))
    }

    /// Everything it has written to stdout and stderr since its first start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.spec.home.join("node.log")).unwrap_or_default()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Lets it run on after this program.
    pub fn detach(&mut self) {
        self.detached = true;
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if self.detached || !self.is_running() {
            return;
        }
        // A stopped process takes SIGKILL as well.
        if let Err(error) = self.signal(Signal::KILL) {
            tracing::warn!(node = %self.spec.name, %error, "could not be killed");
            return;
        }
        // Until it has ended it still holds its ports and its directory's lock.
        for _ in 0..200 {
            if !self.is_running() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Runs `starling` with these arguments to its end: exit code, and stdout with stderr.
pub async fn run_to_end(site: &Site, args: &[&str], limit: Duration) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(&site.binary);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    if let Some(library) = &site.onnxruntime {
        command.env("ORT_DYLIB_PATH", library);
    }
    let output = tokio::time::timeout(limit, command.output())
        .await
        .map_err(|_| anyhow!("starling {} still runs after {limit:?}", args.join(" ")))??;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code(), text))
}

/// Waits until nothing listens at an address any more.
pub async fn closed(address: SocketAddr, limit: Duration) -> Result<()> {
    wait::until(&format!("{address} to be closed"), limit, || async move {
        match tokio::net::TcpStream::connect(address).await {
            Ok(_) => bail!("somebody still listens at {address}"),
            Err(_) => Ok(()),
        }
    })
    .await
}

fn open_log(home: &Path) -> Result<File> {
    let path = home.join("node.log");
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))
}

fn read_ready_file(path: &Path) -> Result<Option<ReadyFile>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    // Written atomically: half a file would be a defect of the node.
    let file = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not what it should be", path.display()))?;
    Ok(Some(file))
}

fn port_of(address: &str) -> Result<u16> {
    let (_, port) = address.rsplit_once(':').with_context(|| format!("{address:?} has no port"))?;
    port.parse().with_context(|| format!("{address:?} has no port"))
}
