//! Real-time inference: from a request of the Open Inference Protocol to its
//! answer, on this node or on one that holds the version.
//!
//! ```text
//! serve → router → host → queue → batcher → session        (this node)
//!               ↘ forward                                   (another node)
//! ```

pub mod account;
pub mod admission;
mod answering;
pub mod backoff;
pub mod bundle;
#[cfg(test)]
mod cluster_tests;
pub mod cluster_traffic;
pub mod decision_ids;
pub mod decision_parameters;
pub mod decision_records;
pub mod devices;
pub mod error;
pub mod forward;
pub mod forward_status;
mod health_monitor;
pub mod host;
mod in_flight_ages;
mod inquiries;
mod instance_failures;
pub mod latency_sketch;
pub mod local;
pub mod local_versions;
pub mod model_config;
pub mod peer_service;
pub mod placement_follower;
pub mod placement_plan;
pub mod preload;
pub mod readiness;
pub mod readiness_view;
pub mod ready_controller;
pub mod request_metrics;
pub mod route_traffic;
pub mod routed_rollout;
pub mod routed_rules;
pub mod router;
pub mod routing_feed;
pub mod routing_table;
pub mod rule_matching;
pub mod runtime;
pub mod serve;
pub mod shadowing;
mod tally;
pub mod task_keeper;
pub mod tensor;
#[cfg(test)]
pub(crate) mod test_states;
pub mod traffic;
pub mod traffic_report;

mod batch_size;
mod batcher;
pub mod classification;
mod golden;
mod instance;
mod library_search;
pub mod load_gate;
mod metrics;
mod output_kind;
mod oversize;
mod probe_request;
pub mod queue;
mod request_terms;
mod run_pace;
mod run_slot;
mod run_statistics;
mod served_version;
mod session;
mod session_options;

mod shared_session;
mod short_way;
mod signature;
mod split_run;
mod supervisor;
#[cfg(test)]
mod testing;
mod time_limit;
mod trial;
mod version_actor;
mod version_health;
mod version_pulse;
mod warm_up;
mod worker;
mod zip_map;

pub use decision_parameters::{DecisionParameters, Parameters};
pub use error::InferError;
pub use host::{Answer, LoadedVersion, VersionHost, VersionKey};
pub use run_statistics::Failures;
pub use runtime::{Equipment, OnnxRuntime};
pub use serve::{Inference, InferenceConfig, Prediction, RequestContext};
