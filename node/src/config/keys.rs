//! The one table of all keys. A key is `rest_port` in the file, `--rest-port`
//! as a flag and `STARLING_REST_PORT` in the environment.

use std::time::Duration;

use super::field::Field;

/// One key.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// Heading under which the page of all keys lists it.
    pub(crate) section: &'static str,
    pub(crate) field: Field,
    /// As text; empty: nothing.
    pub(crate) default: &'static str,
    /// One or two sentences.
    pub(crate) help: &'static str,
    /// Of use in tests only; not in help or docs.
    pub(crate) hidden: bool,
}

impl Key {
    /// The flag without its dashes.
    pub(crate) fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The environment variable.
    pub(crate) fn variable(&self) -> String {
        format!("STARLING_{}", self.name.to_ascii_uppercase())
    }
}

const fn key(
    section: &'static str,
    name: &'static str,
    field: Field,
    default: &'static str,
    help: &'static str,
) -> Key {
    Key { name, section, field, default, help, hidden: false }
}

const fn hidden(name: &'static str, field: Field, default: &'static str, help: &'static str) -> Key {
    Key { name, section: "Tests", field, default, help, hidden: true }
}

const NODE: &str = "Node";
const FLOCK: &str = "Flock";
const RAFT: &str = "Raft";
const LIMITS: &str = "Limits";
const INFERENCE: &str = "Inference";
const SHADOWS: &str = "Shadows";
const FEEDBACK: &str = "Feedback";
const LOGS: &str = "Logs";

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Every key there is.
#[rustfmt::skip]
pub(crate) const KEYS: &[Key] = &[
    key(NODE, "data_dir", Field::Path(|s| &mut s.data_dir), "./starling-data",
        "Everything the node keeps: identity, log, history, artefacts. One process per directory."),
    key(NODE, "host", Field::Text(|s| &mut s.host), "127.0.0.1",
        "Address to listen on, for all four ports. Anything but loopback needs `insecure`."),
    key(NODE, "advertise", Field::OptionalText(|s| &mut s.advertise), "",
        "Host that others should dial, where it is not `host` (0.0.0.0, NAT, Kubernetes)."),
    key(NODE, "rest_port", Field::Port(|s| &mut s.rest_port), "8000",
        "Open Inference Protocol over REST."),
    key(NODE, "grpc_port", Field::Port(|s| &mut s.grpc_port), "8001",
        "Open Inference Protocol and administration over gRPC."),
    key(NODE, "metrics_port", Field::Port(|s| &mut s.metrics_port), "8002",
        "Prometheus metrics, /livez and /readyz."),
    key(NODE, "peer_port", Field::Port(|s| &mut s.peer_port), "8003",
        "Other nodes: Raft, gossip, artefacts, forwarded predictions."),
    key(NODE, "ready_file", Field::OptionalPath(|s| &mut s.ready_file), "",
        "File to write as JSON once the node listens, and again once it can answer."),
    key(NODE, "insecure", Field::Flag(|s| &mut s.insecure), "false",
        "Listen beyond loopback although there is no authentication yet: everyone who can reach the ports may do everything."),
    key(NODE, "shutdown_grace", Field::Duration(Duration::ZERO, DAY, |s| &mut s.shutdown_grace), "20s",
        "How long SIGTERM lets running requests finish."),
    key(NODE, "data_plane_threads", Field::Integer(0, 1024, |s| &mut s.data_plane_threads), "0",
        "Threads that serve REST and gRPC, each with its own event loop; 0: one per core. More than cores is slower."),

    key(FLOCK, "join", Field::List(|s| &mut s.join), "",
        "Peer addresses (HOST:PEER_PORT) of nodes that may be there. May be repeated. Without `bootstrap_expect` the node never founds a cluster of its own."),
    key(FLOCK, "bootstrap_expect", Field::Integer(0, 1_000, |s| &mut s.bootstrap_expect), "0",
        "Found a cluster once so many new nodes, all with this setting, have met; 0: do not wait for others."),
    key(FLOCK, "labels", Field::Map(|s| &mut s.labels), "",
        "Free words about the node, such as zone=a."),
    key(FLOCK, "voters_max", Field::Choice(&["1", "3", "5", "7"], |s| &mut s.voters_max), "5",
        "How many nodes vote at most; the others follow and serve all the same."),
    key(FLOCK, "dead_after", Field::Duration(SECOND, DAY, |s| &mut s.dead_after), "10min",
        "A voter that has been silent for so long is replaced by a healthy follower."),
    key(FLOCK, "gossip_interval", Field::Duration(Duration::from_millis(10), MINUTE, |s| &mut s.gossip_interval), "500ms",
        "Between rounds of gossip."),

    key(RAFT, "heartbeat_interval", Field::Duration(Duration::from_millis(10), MINUTE, |s| &mut s.heartbeat_interval), "75ms",
        "How often the leader says that it lives."),
    key(RAFT, "election_timeout_min", Field::Duration(Duration::from_millis(50), MINUTE, |s| &mut s.election_timeout_min), "300ms",
        "Shortest silence after which a node stands for election. At least twice `heartbeat_interval`; wider where machines are slow."),
    key(RAFT, "election_timeout_max", Field::Duration(Duration::from_millis(50), MINUTE, |s| &mut s.election_timeout_max), "600ms",
        "Longest such silence; also the leader's lease."),
    key(RAFT, "snapshot_every_entries", Field::Integer(1, u64::MAX, |s| &mut s.snapshot_every_entries), "10000",
        "Log entries between snapshots."),
    key(RAFT, "log_entries_kept", Field::Integer(1, u64::MAX, |s| &mut s.log_entries_kept), "100000",
        "Log entries kept behind a snapshot, so that a node that was away needs no snapshot."),
    key(RAFT, "durability", Field::Choice(&["power-loss", "process-crash"], |s| &mut s.durability), "power-loss",
        "What an acknowledged write survives. `process-crash` skips the disk flush: faster, and lost when the power goes."),

    key(LIMITS, "max_request_bytes", Field::Bytes(1024, |s| &mut s.max_request_bytes), "64MiB",
        "Largest prediction request. Larger ones are refused before they are read."),
    key(LIMITS, "max_request_bytes_in_flight", Field::Bytes(1024, |s| &mut s.max_request_bytes_in_flight), "1GiB",
        "Tensor contents of all prediction requests inside the node together. A request for which there is no room gets RESOURCE_EXHAUSTED; one that is alone is let in."),
    key(LIMITS, "max_artefact_bytes", Field::Bytes(1024, |s| &mut s.max_artefact_bytes), "4GiB",
        "Largest model file."),
    key(LIMITS, "max_connections", Field::Integer(1, 1_000_000, |s| &mut s.max_connections), "10000",
        "Client connections per port. Further ones are closed at once."),
    key(LIMITS, "max_concurrent_streams", Field::Integer(1, 100_000, |s| &mut s.max_concurrent_streams), "1024",
        "Requests at once on one HTTP/2 connection."),
    key(LIMITS, "header_read_timeout", Field::Duration(MILLISECOND, DAY, |s| &mut s.header_read_timeout), "30s",
        "How long a client may take to send the head of an HTTP/1.1 request, and each next piece of its body over REST."),
    key(LIMITS, "admin_timeout", Field::Duration(SECOND, DAY, |s| &mut s.admin_timeout), "30s",
        "After which an administrative call is given up, where its caller has no shorter deadline."),

    key(INFERENCE, "devices", Field::List(|s| &mut s.devices), "",
        "What models run on: cpu, cuda:NUMBER, tensorrt:NUMBER, the preferred kind first. One that cannot be used stops the start. Not given: the GPUs that are found, else the CPU."),
    key(INFERENCE, "custom_op_libraries", Field::List(|s| &mut s.custom_op_libraries), "",
        "Shared libraries of custom operators for ONNX Runtime. May be repeated. One that does not load stops the start."),
    key(INFERENCE, "preload_libraries", Field::List(|s| &mut s.preload_libraries), "",
        "Shared libraries to load first, for all others to use, such as libpython3.11.so.1.0. May be repeated."),
    key(INFERENCE, "max_queue", Field::Integer(1, 1_000_000, |s| &mut s.max_queue), "512",
        "Requests that may wait per version; further ones get RESOURCE_EXHAUSTED at once. A version's settings may say otherwise."),
    key(INFERENCE, "max_queue_time", Field::Duration(Duration::ZERO, DAY, |s| &mut s.max_queue_time), "0s",
        "How long a request may have to wait in the queue of its version, by estimate; one that would wait longer gets RESOURCE_EXHAUSTED at once. 0s: as long as keeps the version's instances busy, from what is measured; see serving.md. A version whose settings have `max_queue` is bounded by that alone, unless a time is given here."),
    key(INFERENCE, "max_run_time", Field::Duration(MILLISECOND, DAY, |s| &mut s.max_run_time), "30s",
        "After which a run is ended and its instance replaced. A version's settings may say otherwise."),
    key(INFERENCE, "min_epoch_wait_max", Field::Duration(Duration::ZERO, MINUTE, |s| &mut s.min_epoch_wait_max), "5s",
        "How long a request with x-starling-min-epoch may wait for this node to catch up."),
    key(INFERENCE, "health_probe_interval", Field::Duration(Duration::from_millis(100), DAY, |s| &mut s.health_probe_interval), "5s",
        "A version that has answered nobody for so long is sent a request by its node. While such a probe fails, the version is not ready there, and other nodes answer for it."),
    key(INFERENCE, "load_timeout", Field::Duration(SECOND, DAY, |s| &mut s.load_timeout), "5min",
        "How long fetching and loading a version may take."),
    key(INFERENCE, "decision_records", Field::Integer(0, 1_000_000, |s| &mut s.decision_records), "4096",
        "Newest decisions that this node keeps in memory for `starling get decisions`; 0: none."),
    key(INFERENCE, "decision_parameters_max", Field::Integer(0, 1_000, |s| &mut s.decision_parameters_max), "16",
        "Parameters of a request that are kept with its decision."),
    key(INFERENCE, "decision_parameter_bytes", Field::Bytes(0, |s| &mut s.decision_parameter_bytes), "1KiB",
        "Names and values of these together; what is beyond is left out and counted."),
    key(INFERENCE, "traffic_report_interval", Field::Duration(Duration::from_millis(50), MINUTE, |s| &mut s.traffic_report_interval), "1s",
        "How often a node reports its traffic to the leader."),

    key(SHADOWS, "shadow_queue_max", Field::Integer(1, 1_000_000, |s| &mut s.shadow_queue_max), "1024",
        "Copies of requests that may wait for shadows on this node; further ones are dropped and counted. Where several shadows wait, each has its part."),
    key(SHADOWS, "shadow_queue_bytes_max", Field::Bytes(1024, |s| &mut s.shadow_queue_bytes_max), "64MiB",
        "Tensor contents of the copies that wait, requests and answers together."),
    key(SHADOWS, "shadow_concurrency", Field::Integer(1, 10_000, |s| &mut s.shadow_concurrency), "32",
        "Copies of one shadow that this node runs at once. A quarter of them may be at other nodes, where this one does not have the version."),
    key(SHADOWS, "shadow_deadline", Field::Duration(MILLISECOND, DAY, |s| &mut s.shadow_deadline), "5s",
        "How long a copy may wait before it is dropped, and then how long it may run before it counts as an error."),
    key(SHADOWS, "shadow_examples_max", Field::Integer(0, 1_000, |s| &mut s.shadow_examples_max), "32",
        "Newest requests of each shadow that it did not agree on, kept in memory with the beginning of their tensors for `starling rollout examples`; 0: none."),
    key(FEEDBACK, "feedback_horizon", Field::Duration(MINUTE, YEAR, |s| &mut s.feedback_horizon), "30d",
        "How long after a decision its reward is credited; a later one is kept and not credited. In log time."),
    key(FEEDBACK, "feedback_flush_interval", Field::Duration(Duration::from_millis(250), MINUTE, |s| &mut s.feedback_flush_interval), "250ms",
        "Between two entries of the log with what was credited on this node; at most four per second."),
    key(FEEDBACK, "feedback_outbox_bytes_max", Field::Bytes(0, |s| &mut s.feedback_outbox_bytes_max), "256MiB",
        "Disk for feedback about decisions of nodes that cannot be reached. Further feedback about those gets RESOURCE_EXHAUSTED."),
    key(FEEDBACK, "feedback_journal_bytes_max", Field::Bytes(1024 * 1024, |s| &mut s.feedback_journal_bytes_max), "8GiB",
        "Disk for what was credited on this node. The oldest beyond it is removed, and cannot be retracted any more."),

    key(LOGS, "log_format", Field::Choice(&["auto", "pretty", "json"], |s| &mut s.log_format), "auto",
        "`auto`: pretty on a terminal, JSON otherwise. Logs go to stderr."),
    key(LOGS, "log_level", Field::Text(|s| &mut s.log_level), "info",
        "error, warn, info, debug or trace; or directives such as info,starling_raft=debug."),

    hidden("announce_feature_level", Field::Integer(0, 1_000_000, |s| &mut s.announce_feature_level), "0",
        "Announce that this binary reads up to this feature level; 0: what it supports."),
    hidden("fail_log_after", Field::Integer(0, u64::MAX, |s| &mut s.fail_log_after), "0",
        "Fail the Raft log's storage after so many appends; 0: never."),
];
