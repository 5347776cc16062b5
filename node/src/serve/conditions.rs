//! Settings in the words of the crates that take them.

use std::net::TcpListener;
use std::time::Duration;

use starling_actors::feedback::FeedbackConfig;
use starling_actors::inference::InferenceConfig;
use starling_actors::inference::decision_records::RecordLimits;
use starling_actors::inference::load_gate::QueueTime;
use starling_actors::inference::shadowing::ShadowLimits;
use starling_raft::flock::{Durability, FlockConfig, ForwardingDoor};
use starling_raft::log_store::LogStoreOptions;
use starling_raft::state::cluster::FEATURE_LEVEL_SUPPORTED;
use starling_raft::state::{Addresses, FeatureLevel};

use super::CannotStart;
use crate::config::Settings;
use crate::data_plane;

/// How this node takes part in the flock.
pub(super) fn flock_config(
    settings: &Settings,
    peer_listener: TcpListener,
    addresses: Addresses,
    forwarding: ForwardingDoor,
) -> Result<FlockConfig, CannotStart> {
    let voters_max =
        settings.voters_max.parse().map_err(|_| CannotStart("key 'voters_max' is no number".into()))?;
    Ok(FlockConfig {
        data_dir: settings.data_dir.clone(),
        peer_listener,
        addresses,
        join: settings.join.clone(),
        bootstrap_expect: u32::try_from(settings.bootstrap_expect).ok().filter(|expect| *expect > 0),
        labels: settings.labels.clone(),
        max_feature_level: feature_level(settings),
        starling_version: env!("CARGO_PKG_VERSION").into(),
        durability: match settings.durability.as_str() {
            "process-crash" => Durability::ProcessCrash,
            _ => Durability::PowerLoss,
        },
        heartbeat_interval: settings.heartbeat_interval,
        election_timeout_min: settings.election_timeout_min,
        election_timeout_max: settings.election_timeout_max,
        snapshot_every_entries: settings.snapshot_every_entries,
        log_entries_kept: settings.log_entries_kept,
        voters_max,
        dead_after: settings.dead_after,
        gossip_interval: settings.gossip_interval,
        max_artefact_bytes: settings.max_artefact_bytes,
        forwarding: Some(forwarding),
    })
}

/// How the log is kept.
pub(super) fn log_store_options(settings: &Settings, config: &FlockConfig) -> LogStoreOptions {
    LogStoreOptions {
        durability: config.durability.into(),
        fail_after_appends: Some(settings.fail_log_after).filter(|appends| *appends > 0),
        ..LogStoreOptions::default()
    }
}

/// How this node predicts.
pub(super) fn inference_config(settings: &Settings) -> InferenceConfig {
    InferenceConfig {
        max_queue: usize::try_from(settings.max_queue).unwrap_or(usize::MAX),
        max_queue_time: match settings.max_queue_time {
            Duration::ZERO => QueueTime::Adaptive,
            given => QueueTime::Fixed(given),
        },
        max_run_time: settings.max_run_time,
        min_epoch_wait_max: settings.min_epoch_wait_max,
        traffic_report_interval: settings.traffic_report_interval,
        load_timeout: settings.load_timeout,
        data_plane_cores: data_plane::thread_count(settings),
        decision_records: RecordLimits {
            records: in_memory(settings.decision_records),
            parameters_max: in_memory(settings.decision_parameters_max),
            parameter_bytes_max: in_memory(settings.decision_parameter_bytes),
        },
        health_probe_interval: settings.health_probe_interval,
        max_request_bytes_in_flight: settings.max_request_bytes_in_flight,
        shadow: ShadowLimits {
            queue_max: in_memory(settings.shadow_queue_max),
            queue_bytes_max: settings.shadow_queue_bytes_max,
            concurrency: in_memory(settings.shadow_concurrency),
            deadline: settings.shadow_deadline,
            examples_max: in_memory(settings.shadow_examples_max),
        },
    }
}

/// How this node keeps feedback.
pub(super) fn feedback_config(settings: &Settings) -> FeedbackConfig {
    FeedbackConfig {
        folder: settings.data_dir.join("feedback"),
        is_durable: settings.durability != "process-crash",
        horizon: settings.feedback_horizon,
        journal_bytes_max: settings.feedback_journal_bytes_max,
        outbox_bytes_max: settings.feedback_outbox_bytes_max,
        flush_interval: settings.feedback_flush_interval,
    }
}

fn in_memory(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn feature_level(settings: &Settings) -> FeatureLevel {
    match u32::try_from(settings.announce_feature_level) {
        Ok(level) if level > 0 => FeatureLevel::new(level),
        _ => FEATURE_LEVEL_SUPPORTED,
    }
}
