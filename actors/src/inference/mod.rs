//! Real-time inference: from a request of the Open Inference Protocol to its
//! answer, on this node or on one that holds the version.
//!
//! ```text
//! serve → router → host → queue → batcher → session        (this node)
//!               ↘ forward                                   (another node)
//! ```

pub mod cluster_traffic;
pub mod decision_ids;
pub mod error;
pub mod host;
pub mod latency_sketch;
pub mod model_config;
pub mod placement_plan;
pub mod readiness_view;
pub mod ready_controller;
pub mod router;
pub mod routing_table;
pub mod runtime;
pub mod serve;
#[cfg(test)]
mod test_states;
pub mod traffic;
pub mod tensor;

mod batcher;
mod instance;
mod library_search;
mod metrics;
mod queue;
mod run_slot;
mod run_statistics;
mod served_version;
mod session;
mod signature;
mod supervisor;
#[cfg(test)]
mod testing;
mod time_limit;
mod trial;
mod version_actor;
mod warm_up;
mod worker;
mod zip_map;

pub use error::InferError;
pub use host::{Answer, LoadedVersion, VersionHost, VersionKey};
pub use runtime::OnnxRuntime;
pub use serve::{Inference, InferenceConfig, RequestContext};
