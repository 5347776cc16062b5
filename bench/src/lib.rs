//! A load generator for any server of the Open Inference Protocol.
//!
//! It shares its cores with the server that it measures, so it is cheap: requests
//! are encoded once, each thread runs an event loop of its own, and answers are
//! read only as far as their status. Latency counts from the moment at which a
//! request was meant to be sent, so a server that stalls cannot hide it.
//!
//! [`server`] asks what a model takes, [`payload`] makes requests of it,
//! [`generator`] sends them as a [`load::LoadSpec`] says, [`outcome`] is what came
//! of it, [`plot`] draws it, and [`figures`] compares.

pub mod error;
pub mod figures;
pub mod generator;
pub mod load;
pub mod outcome;
pub mod payload;
pub mod plot;
pub mod server;

mod clock;
mod connection;
mod pacer;
mod recorder;
mod schedule;
mod worker;

pub use error::BenchError;
