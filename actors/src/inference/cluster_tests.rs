//! Three nodes in one process, with real logs, gossip, channels and models.
//! Each has a runtime of its own, so that one can be killed as a process would.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_proto::inference::{ModelInferRequest, ModelInferResponse};
use starling_raft::flock::{Durability, Flock, FlockConfig};
use starling_raft::state::cluster::FEATURE_LEVEL_SUPPORTED;
use starling_raft::state::models::{InstanceMode, VersionSettings};
use starling_raft::state::{
    Addresses, Command, MemberCommand, ModelCommand, NodeId, Ordinal, PartsPerMillion, Principal, RequestId,
    RouteCommand,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::InferError;
use super::decision_records::RecordLimits;
use super::load_gate::QueueTime;
use super::serve::{Inference, InferenceConfig, PeerInferenceService, RequestContext};
use super::shadowing::ShadowLimits;
use super::testing::{fp32_bytes, fp32_values, model_file, raw_request, runtime as onnx_runtime};

const PATIENCE: Duration = Duration::from_secs(60);

struct Node {
    runtime: Runtime,
    flock: Flock,
    inference: Inference,
    registry: prometheus::Registry,
    core: Option<DataPlaneCore>,
    peer_address: String,
    _data: TempDir,
}

/// A thread as the data plane has them, which takes what peers forward.
struct DataPlaneCore {
    tasks: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
    thread: std::thread::JoinHandle<()>,
}

impl DataPlaneCore {
    fn start(mut connections: mpsc::Receiver<TcpStream>, service: PeerInferenceService) -> Self {
        let (tasks, mut given) = mpsc::unbounded_channel::<BoxFuture<'static, ()>>();
        let thread = std::thread::spawn(move || {
            super::local::core::enter(0);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        task = given.recv() => match task {
                            Some(task) => drop(tokio::spawn(task)),
                            None => return,
                        },
                        Some(stream) = connections.recv() => {
                            tokio::spawn(service.clone().serve_forwarding(stream, CancellationToken::new()));
                        }
                    }
                }
            });
        });
        Self { tasks, thread }
    }

    fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let task = async move { drop(sender.send(future.await)) };
        self.tasks.send(Box::pin(task)).unwrap();
        receiver.blocking_recv().unwrap()
    }
}

impl Node {
    fn start(join: &[&str]) -> Self {
        Self::start_with(join, 0)
    }

    /// With a data plane of one core, or none.
    fn start_with(join: &[&str], data_plane_cores: usize) -> Self {
        let (door, connections) = mpsc::channel(4);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let data = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let peer_address = listener.local_addr().unwrap().to_string();
        let config = FlockConfig {
            data_dir: data.path().to_owned(),
            peer_listener: listener,
            addresses: Addresses { peer: peer_address.clone(), ..Addresses::default() },
            join: join.iter().map(|address| (*address).to_owned()).collect(),
            bootstrap_expect: None,
            labels: BTreeMap::new(),
            max_feature_level: FEATURE_LEVEL_SUPPORTED,
            starling_version: "test".to_owned(),
            durability: Durability::ProcessCrash,
            heartbeat_interval: Duration::from_millis(150),
            election_timeout_min: Duration::from_millis(600),
            election_timeout_max: Duration::from_millis(1_200),
            snapshot_every_entries: 10_000,
            log_entries_kept: 100_000,
            voters_max: 3,
            dead_after: Duration::from_secs(600),
            gossip_interval: Duration::from_millis(200),
            max_artefact_bytes: 1 << 20,
            forwarding: Some(door),
        };
        let inference_config = InferenceConfig {
            max_queue: 64,
            max_queue_time: QueueTime::Adaptive,
            max_run_time: Duration::from_secs(10),
            min_epoch_wait_max: Duration::from_secs(2),
            traffic_report_interval: Duration::from_millis(200),
            load_timeout: Duration::from_secs(30),
            data_plane_cores,
            decision_records: RecordLimits::default(),
            health_probe_interval: Duration::from_secs(5),
            max_request_bytes_in_flight: 1 << 30,
            shadow: ShadowLimits::default(),
        };
        let service = PeerInferenceService::default();
        let registry = prometheus::Registry::new();
        let started = runtime.block_on(async {
            let flock = Flock::start(config, service.routes(), || {}).await.unwrap();
            let inference = Inference::start(onnx_runtime(), &flock, &service, inference_config, &registry)
                .await
                .unwrap();
            (flock, inference)
        });
        let (flock, inference) = started;
        let core = (data_plane_cores > 0).then(|| DataPlaneCore::start(connections, service));
        Self { runtime, flock, inference, registry, core, peer_address, _data: data }
    }

    fn id(&self) -> NodeId {
        self.flock.consensus.node_id()
    }

    fn propose(&self, command: Command) -> Option<u64> {
        let request_id = RequestId::new(Uuid::now_v7());
        let consensus = &self.flock.consensus;
        let accepted = self
            .runtime
            .block_on(consensus.propose(&Principal::local(), request_id, command, PATIENCE))
            .unwrap();
        accepted.created
    }

    /// Stores a file of `models/testdata` and registers it as the next version.
    fn push(&self, model: &str, file: &str) -> Ordinal {
        self.push_with(model, file, VersionSettings::default())
    }

    fn push_with(&self, model: &str, file: &str, settings: VersionSettings) -> Ordinal {
        let bytes = std::fs::read(model_file(file)).unwrap();
        let artefacts = &self.flock.artefacts;
        let (digest, size_bytes) = self.runtime.block_on(async {
            let mut upload = artefacts.upload().await.unwrap();
            upload.write(bytes.into()).await.unwrap();
            let (digest, size_bytes) = upload.keep(None).await.unwrap();
            artefacts.replicate_to_majority(digest, size_bytes, PATIENCE).await.unwrap();
            (digest, size_bytes)
        });
        let created = self.propose(Command::Model(ModelCommand::RegisterVersion {
            model: model.parse().unwrap(),
            label: None,
            digest,
            size_bytes,
            signature: onnx_runtime().inspect(&model_file(file)).unwrap(),
            settings,
        }));
        Ordinal::new(created.unwrap())
    }

    fn replicas(&self, model: &str, replicas: u32) {
        self.propose(Command::Model(ModelCommand::SetPlacement { model: model.parse().unwrap(), replicas }));
    }

    fn infer(
        &self,
        request: ModelInferRequest,
        context: RequestContext<'_>,
    ) -> Result<ModelInferResponse, InferError> {
        self.runtime.block_on(self.inference.infer(request, context))
    }

    fn predict(&self, model: &str) -> ModelInferResponse {
        self.infer(request(model), context()).unwrap()
    }

    /// As [`Self::infer`], on the core.
    fn infer_on_core(&self, request: ModelInferRequest) -> Result<ModelInferResponse, InferError> {
        let inference = self.inference.clone();
        self.core.as_ref().unwrap().run(async move { inference.infer(request, context()).await })
    }

    /// Requests that were forwarded from here by this way.
    fn forwarded_by(&self, way: &str) -> u64 {
        let families = self.registry.gather();
        let family =
            families.iter().find(|family| family.name() == "starling_forwarded_requests_by_way_total");
        let metrics = family.map_or(&[][..], |family| family.get_metric());
        let of_way = metrics.iter().filter(|metric| metric.get_label()[0].value() == way);
        of_way.map(|metric| metric.get_counter().get_value() as u64).sum()
    }

    /// All at once, as SIGKILL does.
    fn kill(self) {
        if let Some(DataPlaneCore { tasks, thread }) = self.core {
            drop(tasks);
            thread.join().unwrap();
        }
        self.runtime.shutdown_background();
    }
}

fn three_nodes() -> Vec<Node> {
    let first = Node::start(&[]);
    let second = Node::start(&[&first.peer_address]);
    let third = Node::start(&[&first.peer_address]);
    let nodes = vec![first, second, third];
    eventually("every node sees three alive and three voters", || {
        let sees_all = |node: &Node| {
            let alive = node.flock.peers.live().borrow().len();
            alive == 3 && node.flock.consensus.status().voters.len() == 3
        };
        nodes.iter().all(sees_all)
    });
    nodes
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up_at = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < give_up_at, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `matmul` answers 64 ones with 1 to 8.
fn request(model: &str) -> ModelInferRequest {
    let request = raw_request("x", "FP32", &[1, 64], fp32_bytes(&[1.0; 64]));
    ModelInferRequest { model_name: model.to_owned(), id: "42".to_owned(), ..request }
}

fn context() -> RequestContext<'static> {
    RequestContext {
        principal: Principal::local(),
        deadline: Some(Instant::now() + PATIENCE),
        routing_key: None,
        min_epoch: None,
        quiet: false,
        arrived: Instant::now(),
        metadata: None,
    }
}

fn said(response: &ModelInferResponse, name: &str) -> ParameterChoice {
    response.parameters.get(name).unwrap().parameter_choice.clone().unwrap()
}

fn answered_by(response: &ModelInferResponse) -> NodeId {
    match said(response, "starling_node") {
        ParameterChoice::Int64Param(node_id) => NodeId::new(node_id as u64),
        other => panic!("starling_node is {other:?}"),
    }
}

fn assert_right(response: &ModelInferResponse) {
    let values = fp32_values(&response.raw_output_contents[0]);
    assert_eq!(values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
}

#[test]
fn a_pushed_version_becomes_ready_by_itself_and_every_node_answers() {
    let nodes = three_nodes();
    assert_eq!(nodes[1].push("digits", "matmul"), Ordinal::new(1));
    eventually("all nodes are ready and hold the version", || {
        nodes.iter().all(|node| node.inference.loaded_on("digits", 1).len() == 3 && node.inference.ready())
    });
    eventually("the first ready version has the route on every node", || {
        nodes.iter().all(|node| node.inference.model_ready("digits", "").unwrap())
    });
    for node in &nodes {
        let response = node.predict("digits");
        assert_right(&response);
        assert_eq!((response.model_version.as_str(), response.id.as_str()), ("1", "42"));
        assert_eq!(answered_by(&response), node.id(), "what is loaded here is run here");
        assert_eq!(said(&response, "starling_version"), ParameterChoice::StringParam("v1".into()));
        assert_eq!(said(&response, "starling_propensity"), ParameterChoice::DoubleParam(1.0));
        assert_eq!(said(&response, "starling_sticky"), ParameterChoice::BoolParam(false));
        let quiet = node.infer(request("digits"), RequestContext { quiet: true, ..context() }).unwrap();
        assert!(quiet.parameters.is_empty());
    }
    for node in &nodes {
        eventually("every node tells the whole cluster's traffic", || {
            let routes = node.inference.routes_with_traffic("digits", Duration::from_secs(5));
            let routes = node.runtime.block_on(routes).unwrap();
            let requests: u64 = routes[0].traffic.iter().map(|cell| cell.requests).sum();
            requests == 6 && routes[0].reported_by.len() == 3
        });
    }
    same_key_same_version_everywhere(&nodes);
}

/// Goes on where the test above ends: starting three nodes takes its time.
fn same_key_same_version_everywhere(nodes: &[Node]) {
    nodes[2].push("digits", "matmul");
    eventually("the second version is ready everywhere", || {
        nodes.iter().all(|node| matches!(node.inference.model_ready("digits", "v2"), Ok(true)))
    });
    let half = PartsPerMillion::new(500_000).unwrap();
    nodes[0].propose(Command::Route(RouteCommand::Set {
        model: "digits".parse().unwrap(),
        weights: vec![("v1".parse().unwrap(), half), ("v2".parse().unwrap(), half)],
        expected_epoch: None,
    }));
    let epoch = nodes[0].flock.consensus.applied().state.routes.get("digits").unwrap().epoch.get();
    let mut versions = BTreeSet::new();
    for number in 0..20 {
        let context = || RequestContext {
            routing_key: Some(format!("user-{number}")),
            min_epoch: Some(epoch),
            ..context()
        };
        let answers: Vec<ModelInferResponse> =
            nodes.iter().map(|node| node.infer(request("digits"), context()).unwrap()).collect();
        for answer in &answers {
            assert_eq!(answer.model_version, answers[0].model_version);
            assert_eq!(said(answer, "starling_epoch"), ParameterChoice::Int64Param(epoch as i64));
            assert_eq!(said(answer, "starling_propensity"), ParameterChoice::DoubleParam(0.5));
            assert_eq!(said(answer, "starling_sticky"), ParameterChoice::BoolParam(true));
        }
        versions.insert(answers[0].model_version.clone());
    }
    assert_eq!(versions.len(), 2, "twenty keys at 50 % each reach both versions");
    let future = RequestContext { min_epoch: Some(epoch + 1_000), ..context() };
    let refused = nodes[0].infer(request("digits"), future).unwrap_err();
    assert!(matches!(&refused, InferError::Unavailable(text) if text.contains(&(epoch + 1_000).to_string())));
}

#[test]
fn one_replica_on_three_nodes_is_answered_by_every_node_and_survives_a_drain_and_a_death() {
    let mut nodes = three_nodes();
    nodes[0].push("digits", "matmul");
    nodes[0].replicas("digits", 1);
    eventually("exactly one node holds the version, and all know it", || {
        nodes.iter().all(|node| node.inference.loaded_on("digits", 1).len() == 1)
            && nodes.iter().all(|node| matches!(node.inference.model_ready("digits", ""), Ok(true)))
    });
    let holder = nodes[0].inference.loaded_on("digits", 1)[0];
    for node in &nodes {
        let response = node.predict("digits");
        assert_right(&response);
        assert_eq!(answered_by(&response), holder);
        assert_eq!(response.model_version, "1");
    }
    let wrong = raw_request("x", "FP32", &[1, 3], fp32_bytes(&[1.0; 3]));
    let wrong = ModelInferRequest { model_name: "digits".into(), ..wrong };
    let elsewhere = nodes.iter().find(|node| node.id() != holder).unwrap();
    let refused = elsewhere.infer(wrong, context()).unwrap_err();
    assert!(matches!(refused, InferError::InvalidArgument(_)), "{refused:?}");

    nodes[0].propose(Command::Member(MemberCommand::Drain { node_id: holder }));
    eventually("another node has taken the version over", || {
        for node in &nodes {
            assert_right(&node.predict("digits"));
        }
        let holders = nodes[0].inference.loaded_on("digits", 1);
        holders.len() == 1 && holders[0] != holder
    });

    let holder = nodes[0].inference.loaded_on("digits", 1)[0];
    let victim = nodes.iter().position(|node| node.id() == holder).unwrap();
    nodes.remove(victim).kill();
    eventually("the node that is left takes the version over, and both answer", || {
        nodes.iter().all(|node| match node.infer(request("digits"), context()) {
            Ok(response) => answered_by(&response) != holder,
            Err(InferError::Unavailable(_)) => false,
            Err(other) => panic!("{other:?}"),
        })
    });
}

#[test]
fn when_a_holder_is_killed_requests_are_answered_elsewhere() {
    let mut nodes = three_nodes();
    nodes[0].push("digits", "matmul");
    nodes[0].replicas("digits", 2);
    eventually("two nodes hold the version, and all know it", || {
        nodes.iter().all(|node| node.inference.loaded_on("digits", 1).len() == 2)
            && nodes.iter().all(|node| matches!(node.inference.model_ready("digits", ""), Ok(true)))
    });
    let holders = nodes[0].inference.loaded_on("digits", 1);
    let victim = nodes.iter().position(|node| node.id() == holders[1]).unwrap();
    nodes.remove(victim).kill();
    let survivor = holders[0];
    let asked = nodes.iter().find(|node| node.id() != survivor).unwrap();
    for _ in 0..50 {
        assert_right(&asked.predict("digits"));
    }
}

#[test]
fn what_a_core_forwards_goes_from_core_to_core_and_outlives_the_death_of_a_peer() {
    let first = Node::start_with(&[], 1);
    let second = Node::start_with(&[&first.peer_address], 1);
    let third = Node::start_with(&[&first.peer_address], 1);
    let mut nodes = vec![first, second, third];
    let local = VersionSettings { mode: InstanceMode::Local, ..VersionSettings::default() };
    nodes[0].push_with("digits", "matmul", local);
    nodes[0].replicas("digits", 2);
    eventually("two nodes hold the version, and all know it", || {
        nodes.iter().all(|node| node.inference.loaded_on("digits", 1).len() == 2)
            && nodes.iter().all(|node| matches!(node.inference.model_ready("digits", ""), Ok(true)))
    });
    let held_by = nodes[0].inference.loaded_on("digits", 1);
    let asked = nodes.iter().position(|node| !held_by.contains(&node.id())).unwrap();
    let asked = nodes.remove(asked);

    let answer = asked.infer_on_core(request("digits")).unwrap();
    assert_right(&answer);
    assert_eq!((asked.forwarded_by("short"), asked.forwarded_by("ordinary")), (0, 1), "none is open yet");
    let mut answered = BTreeSet::new();
    eventually("both holders answer the short way", || {
        let before = asked.forwarded_by("short");
        let answer = asked.infer_on_core(request("digits")).unwrap();
        assert_right(&answer);
        if asked.forwarded_by("short") > before {
            answered.insert(answered_by(&answer));
        }
        answered.len() == 2
    });
    let wrong = raw_request("x", "FP32", &[1, 3], fp32_bytes(&[1.0; 3]));
    let wrong = ModelInferRequest { model_name: "digits".into(), ..wrong };
    let refused = asked.infer_on_core(wrong).unwrap_err();
    assert!(matches!(refused, InferError::InvalidArgument(_)), "{refused:?}");

    let before = (asked.forwarded_by("short"), asked.forwarded_by("ordinary"));
    assert_right(&asked.predict("digits"));
    let after = (asked.forwarded_by("short"), asked.forwarded_by("ordinary"));
    assert_eq!(after, (before.0, before.1 + 1), "what is on no core goes the ordinary way");

    nodes.remove(0).kill();
    for _ in 0..50 {
        assert_right(&asked.infer_on_core(request("digits")).unwrap());
    }
}

#[test]
fn a_node_that_shuts_down_refuses_new_requests() {
    let node = Node::start(&[]);
    node.push("digits", "matmul");
    eventually("the version is ready", || matches!(node.inference.model_ready("digits", ""), Ok(true)));
    assert_right(&node.predict("digits"));
    node.runtime.block_on(node.inference.shutdown(Duration::from_secs(5)));
    let refused = node.infer(request("digits"), context()).unwrap_err();
    assert!(matches!(&refused, InferError::Unavailable(text) if text.contains("shutting down")));
    assert!(!node.inference.ready());
    assert_eq!(node.inference.in_flight(), 0);
}
