//! What a node says about itself: logs and metrics.
