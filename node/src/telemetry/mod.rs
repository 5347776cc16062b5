//! What a node says about itself: logs and metrics.

mod logs;
mod metrics;

pub(crate) use logs::start_logs;
pub(crate) use metrics::Metrics;
