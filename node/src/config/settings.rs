//! The settings of one node, typed, after defaults, file, environment and flags.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// All settings. What each means stands in [`super::keys`]; every field there
/// has a default, so the zeroes of `Default` are never seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) host: String,
    pub(crate) advertise: Option<String>,
    pub(crate) rest_port: u16,
    pub(crate) grpc_port: u16,
    pub(crate) metrics_port: u16,
    pub(crate) peer_port: u16,
    pub(crate) ready_file: Option<PathBuf>,
    pub(crate) insecure: bool,
    pub(crate) join: Vec<String>,
    /// 0: not given.
    pub(crate) bootstrap_expect: u64,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) voters_max: String,
    pub(crate) dead_after: Duration,
    pub(crate) gossip_interval: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) election_timeout_min: Duration,
    pub(crate) election_timeout_max: Duration,
    pub(crate) snapshot_every_entries: u64,
    pub(crate) log_entries_kept: u64,
    pub(crate) durability: String,
    pub(crate) max_request_bytes: u64,
    pub(crate) max_request_bytes_in_flight: u64,
    pub(crate) max_artefact_bytes: u64,
    pub(crate) max_connections: u64,
    pub(crate) max_concurrent_streams: u64,
    pub(crate) header_read_timeout: Duration,
    pub(crate) data_plane_threads: u64,
    /// Empty: the GPUs that are found, else the CPU.
    pub(crate) devices: Vec<String>,
    pub(crate) custom_op_libraries: Vec<String>,
    pub(crate) preload_libraries: Vec<String>,
    pub(crate) max_queue: u64,
    /// Zero: from what is measured.
    pub(crate) max_queue_time: Duration,
    pub(crate) max_run_time: Duration,
    pub(crate) min_epoch_wait_max: Duration,
    pub(crate) load_timeout: Duration,
    pub(crate) decision_records: u64,
    pub(crate) decision_parameters_max: u64,
    pub(crate) decision_parameter_bytes: u64,
    pub(crate) health_probe_interval: Duration,
    pub(crate) shadow_queue_max: u64,
    pub(crate) shadow_queue_bytes_max: u64,
    pub(crate) shadow_concurrency: u64,
    pub(crate) shadow_deadline: Duration,
    /// 0: none.
    pub(crate) shadow_examples_max: u64,
    pub(crate) traffic_report_interval: Duration,
    pub(crate) admin_timeout: Duration,
    pub(crate) shutdown_grace: Duration,
    pub(crate) feedback_horizon: Duration,
    pub(crate) feedback_flush_interval: Duration,
    pub(crate) feedback_outbox_bytes_max: u64,
    pub(crate) feedback_journal_bytes_max: u64,
    pub(crate) log_format: String,
    pub(crate) log_level: String,
    /// 0: what this binary supports.
    pub(crate) announce_feature_level: u64,
    /// 0: never.
    pub(crate) fail_log_after: u64,
}
