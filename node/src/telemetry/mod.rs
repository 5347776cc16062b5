//! What a node says about itself: logs and metrics.

mod gpus;
mod logs;
mod metrics;

pub(crate) use gpus::Gpus;
pub(crate) use logs::start_logs;
pub(crate) use metrics::Metrics;
