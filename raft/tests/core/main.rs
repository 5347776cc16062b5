//! The pure core and the formats it is written in: state, codec, envelopes,
//! history, snapshots.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod buckets;
mod cluster;
mod decisions;
mod envelopes;
mod folding;
mod golden;
mod golden_rollouts;
mod history;
mod log;
mod members;
mod models;
mod ownership;
mod placement;
mod plans;
mod purity;
mod requests;
mod rollouts;
mod routes;
mod snapshots;
