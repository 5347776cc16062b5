//! A cluster of real processes on loopback, each with a folder of its own below
//! one temporary folder, and the conditions that scenarios wait for.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use starling_proto::admin as wire;
use tempfile::TempDir;

use crate::admin::Admin;
use crate::caller::Targets;
use crate::network::Network;
use crate::process::{NodeProcess, NodeSpec, Ports};
use crate::site::Site;
use crate::wait;

/// Long enough for a debug build on two busy cores.
pub const START_LIMIT: Duration = Duration::from_secs(60);
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// How a cluster is started.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Shortest and longest silence before an election.
    pub election_timeout: (Duration, Duration),
    /// Whether links can be cut; nodes then have loopback addresses of their own.
    pub partitionable: bool,
    /// Further flags of every node.
    pub args: Vec<String>,
}

impl ClusterConfig {
    /// For tests, which share their cores: elections after 600 to 1,200 ms.
    pub fn patient() -> Self {
        Self::with_elections(600, 1_200)
    }

    /// For the demo: elections after 300 to 600 ms.
    pub fn brisk() -> Self {
        Self::with_elections(300, 600)
    }

    fn with_elections(min_ms: u64, max_ms: u64) -> Self {
        Self {
            election_timeout: (Duration::from_millis(min_ms), Duration::from_millis(max_ms)),
            partitionable: false,
            args: Vec::new(),
        }
    }

    /// The same with one more flag for every node.
    pub fn arg(mut self, flag: &str, value: impl ToString) -> Self {
        self.args.extend([flag.to_owned(), value.to_string()]);
        self
    }

    /// The same with links that can be cut.
    pub fn with_partitions(mut self) -> Self {
        self.partitionable = true;
        self
    }
}

/// Some nodes, running or not.
#[derive(Debug)]
pub struct Cluster {
    // Before the folder, so that processes end before their files go.
    nodes: Vec<NodeProcess>,
    network: Network,
    site: Site,
    config: ClusterConfig,
    // Second and third octet of the nodes' own addresses.
    subnet: (u8, u8),
    root: Option<TempDir>,
    folder: PathBuf,
}

impl Cluster {
    /// No node yet.
    pub fn empty(site: &Site, config: ClusterConfig) -> Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("starling-")
            .tempdir()
            .context("cannot create a temporary folder")?;
        let folder = root.path().to_path_buf();
        // Away from 127.0, where everybody else is.
        let subnet = (rand::random_range(64..=250), rand::random_range(1..=250));
        Ok(Self {
            nodes: Vec::new(),
            network: Network::new(0),
            site: site.clone(),
            config,
            subnet,
            root: Some(root),
            folder,
        })
    }

    /// The first alone, the others by `--join`; settled when this returns.
    pub async fn start(site: &Site, config: ClusterConfig, nodes: usize) -> Result<Self> {
        let mut cluster = Self::empty(site, config)?;
        for node in 0..nodes {
            cluster.add(&[]).await?;
            cluster.nodes[node].ready(START_LIMIT).await?;
        }
        cluster.settled(START_LIMIT).await?;
        Ok(cluster)
    }

    /// Starts one more node: the first founds a cluster, later ones join those
    /// that are there. It listens when this returns, but may not be ready.
    pub async fn add(&mut self, args: &[&str]) -> Result<usize> {
        let seeds: Vec<String> = self.nodes.iter().map(|node| node.peer().to_string()).collect();
        let mut spec = self.spec(self.nodes.len(), Ports::default());
        if !seeds.is_empty() {
            spec.args.extend(["--join".to_owned(), seeds.join(",")]);
        }
        spec.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self.spawn(spec).await
    }

    /// Starts one more node with exactly these flags beside the cluster's, on these ports.
    pub async fn add_as(&mut self, ports: Ports, args: &[String]) -> Result<usize> {
        let mut spec = self.spec(self.nodes.len(), ports);
        spec.args.extend_from_slice(args);
        self.spawn(spec).await
    }

    async fn spawn(&mut self, spec: NodeSpec) -> Result<usize> {
        let index = self.nodes.len();
        let process = NodeProcess::spawn(&self.site, spec)?;
        self.network.set_pid(index, process.pid());
        self.nodes.push(process);
        let node = &mut self.nodes[index];
        node.listening(START_LIMIT).await?;
        if self.config.partitionable {
            let real = SocketAddr::from((node.spec().host, node.ports().peer));
            self.network.stand_before(index, node.peer(), real).await?;
        }
        Ok(index)
    }

    fn spec(&self, index: usize, ports: Ports) -> NodeSpec {
        let (min, max) = self.config.election_timeout;
        let mut args: Vec<String> = vec![
            "--election-timeout-min".to_owned(),
            format!("{}ms", min.as_millis()),
            "--election-timeout-max".to_owned(),
            format!("{}ms", max.as_millis()),
        ];
        args.extend_from_slice(&self.config.args);
        let name = format!("node {}", index + 1);
        let own_address = |offset: usize| {
            let last = u8::try_from(offset + index).unwrap_or(u8::MAX);
            Ipv4Addr::new(127, self.subnet.0, self.subnet.1, last)
        };
        let (host, advertise) = match self.config.partitionable {
            true => (own_address(11), Some(own_address(111))),
            false => (Ipv4Addr::LOCALHOST, None),
        };
        let home = self.folder.join(format!("node-{}", index + 1));
        NodeSpec { name, home, host, advertise, ports, args }
    }

    /// Starts a node again, on its data and its ports; waits until it is ready.
    pub async fn restart(&mut self, index: usize) -> Result<()> {
        let ports = self.nodes[index].ports();
        self.start_again(index, ports, None).await?;
        self.nodes[index].ready(START_LIMIT).await
    }

    /// Starts a node again on its data; it listens when this returns. With
    /// `join`, that replaces the `--join` of its first start.
    pub async fn start_again(&mut self, index: usize, ports: Ports, join: Option<&str>) -> Result<()> {
        let mut spec = self.nodes[index].spec().clone();
        spec.ports = ports;
        if let Some(join) = join {
            if let Some(flag) = spec.args.iter().position(|arg| arg == "--join") {
                spec.args.drain(flag..flag + 2);
            }
            spec.args.extend(["--join".to_owned(), join.to_owned()]);
        }
        self.start_as(index, spec).await
    }

    /// Starts a node again as `spec` says; it listens when this returns.
    pub async fn start_as(&mut self, index: usize, spec: NodeSpec) -> Result<()> {
        if self.nodes[index].is_running() {
            bail!("{} still runs", self.nodes[index].spec().name);
        }
        let process = NodeProcess::spawn(&self.site, spec)?;
        self.network.set_pid(index, process.pid());
        self.nodes[index] = process;
        self.nodes[index].listening(START_LIMIT).await
    }

    /// One node.
    pub fn node(&mut self, index: usize) -> &mut NodeProcess {
        &mut self.nodes[index]
    }

    /// All nodes, running or not.
    pub fn nodes(&self) -> &[NodeProcess] {
        &self.nodes
    }

    /// The links between them.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What the run needs from the machine.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Where the nodes' folders are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What reports call the nodes.
    pub fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.spec().name.clone()).collect()
    }

    /// Where all nodes listen for gRPC.
    pub fn targets(&self) -> Targets {
        Targets::new(self.nodes.iter().map(NodeProcess::grpc).collect())
    }

    /// A client of all nodes that run.
    pub fn admin(&mut self) -> Result<Admin> {
        let running: Vec<SocketAddr> =
            self.nodes.iter_mut().filter_map(|node| node.is_running().then(|| node.grpc())).collect();
        Admin::new(&running)
    }

    /// A client of one node only.
    pub fn admin_of(&self, index: usize) -> Result<Admin> {
        Admin::new(&[self.nodes[index].grpc()])
    }

    /// What a node says, or why it does not.
    pub async fn status_of(&self, index: usize) -> Result<wire::ClusterStatusResponse> {
        self.admin_of(index)?.status_of(0, PROBE_LIMIT).await
    }

    /// The index of the node that leads, once all running nodes agree on it.
    pub async fn leader(&mut self, limit: Duration) -> Result<usize> {
        let running = self.running();
        let cluster = &*self;
        wait::until("the nodes to agree on a leader", limit, || async {
            let mut leader = None;
            for index in &running {
                let status = cluster.status_of(*index).await?;
                if status.leader_id == 0 || leader.is_some_and(|leader| leader != status.leader_id) {
                    bail!("{} says that {} leads", cluster.nodes[*index].spec().name, status.leader_id);
                }
                leader = Some(status.leader_id);
            }
            let leader = leader.context("no node runs")?;
            cluster.index_of(leader, &running).await
        })
        .await
    }

    async fn index_of(&self, node_id: u64, among: &[usize]) -> Result<usize> {
        for index in among {
            if self.status_of(*index).await?.node_id == node_id {
                return Ok(*index);
            }
        }
        bail!("node {node_id} is none of those that run")
    }

    /// The indexes of the nodes that run.
    pub fn running(&mut self) -> Vec<usize> {
        let nodes = self.nodes.iter_mut().enumerate();
        nodes.filter_map(|(index, node)| node.is_running().then_some(index)).collect()
    }

    /// Waits until every running node says that all of them are members, that as
    /// many vote as are an odd number, that there is a leader, and that all have
    /// applied what the others have.
    pub async fn settled(&mut self, limit: Duration) -> Result<()> {
        let running = self.running();
        let cluster = &*self;
        let voters = running.len() - usize::from(running.len().is_multiple_of(2));
        let learners = running.len() - voters;
        wait::until("all nodes to be members and level", limit, || async {
            let mut last_index = 0;
            let mut statuses = Vec::new();
            for index in &running {
                let status = cluster.status_of(*index).await?;
                last_index = last_index.max(status.last_log_index);
                statuses.push((*index, status));
            }
            for (index, status) in statuses {
                let name = &cluster.nodes[index].spec().name;
                if status.voters.len() != voters || status.learners.len() != learners {
                    bail!("{name} sees voters {:?} and learners {:?}", status.voters, status.learners);
                }
                if status.leader_id == 0 || !status.quorum {
                    bail!("{name} sees leader {} and quorum {}", status.leader_id, status.quorum);
                }
                if status.applied_index < last_index {
                    bail!("{name} has applied {} of {last_index}", status.applied_index);
                }
            }
            Ok(())
        })
        .await
    }

    /// Waits until a version is loaded on as many nodes and ready.
    pub async fn version_ready(
        &mut self,
        model: &str,
        label: &str,
        nodes: usize,
        limit: Duration,
    ) -> Result<()> {
        let admin = self.admin()?;
        wait::until(&format!("version {label} of {model} to be ready"), limit, || async {
            let versions = admin.versions(model).await?;
            let version =
                versions.iter().find(|version| version.label == label).context("it is not listed")?;
            if version.phase != "ready" || version.loaded_on.len() < nodes {
                bail!("it is {} on {:?} {}", version.phase, version.loaded_on, version.reason);
            }
            Ok(())
        })
        .await
    }

    /// Pushes a digit model, waits until it is ready everywhere, and routes to it;
    /// answers the route's epoch.
    pub async fn serve_digits(&mut self, label: &str, file: &Path) -> Result<u64> {
        let admin = self.admin()?;
        admin.push(crate::digits::MODEL, label, file).await?;
        let nodes = self.running().len();
        self.version_ready(crate::digits::MODEL, label, nodes, START_LIMIT).await?;
        admin.set_route(crate::digits::MODEL, &[(label, 1_000_000)]).await?;
        // A first version is routed to by itself: the write may have changed nothing.
        let routes = admin.routes(crate::digits::MODEL).await?;
        Ok(routes.first().context("the model has no route")?.epoch)
    }

    /// Waits until a node has applied the log up to an index.
    pub async fn applied(&self, index: usize, log_index: u64, limit: Duration) -> Result<()> {
        wait::until(&format!("log index {log_index} to be applied"), limit, || async {
            let applied = self.status_of(index).await?.applied_index;
            if applied < log_index {
                bail!("{} has applied {applied}", self.nodes[index].spec().name);
            }
            Ok(())
        })
        .await
    }

    /// Lets the nodes run on after this program, and says where their folder is.
    pub fn keep(mut self) -> PathBuf {
        for node in &mut self.nodes {
            node.detach();
        }
        if let Some(root) = self.root.take() {
            return root.keep();
        }
        self.folder.clone()
    }
}

/// Ports that are free now, for nodes that must know each other's before they start.
pub fn free_ports() -> Result<Ports> {
    let free =
        || -> Result<std::net::TcpListener> { Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?) };
    // All bound before one is let go, so that they differ.
    let bound = [free()?, free()?, free()?, free()?];
    let port = |index: usize| -> Result<u16> { Ok(bound[index].local_addr()?.port()) };
    Ok(Ports { rest: port(0)?, grpc: port(1)?, metrics: port(2)?, peer: port(3)? })
}
