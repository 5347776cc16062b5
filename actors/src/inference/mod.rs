//! Real-time inference: from a request of the Open Inference Protocol to its
//! answer, on this node or on one that holds the version.
//!
//! ```text
//! serve → router → host → queue → batcher → session        (this node)
//!               ↘ forward                                   (another node)
//! ```

pub mod error;
pub mod host;
pub mod runtime;
pub mod serve;

pub use error::InferError;
pub use host::{Answer, LoadedVersion, VersionHost, VersionKey};
pub use runtime::OnnxRuntime;
pub use serve::{Inference, InferenceConfig, RequestContext};
