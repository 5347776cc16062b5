//! Breaks real Starling clusters on purpose and reports what happened. It sees
//! what a user sees: the `starling` binary, its flags, and its gRPC services.

pub mod admin;
pub mod caller;
pub mod cause;
pub mod cluster;
pub mod digits;
pub mod feedback;
pub mod load;
pub mod network;
pub mod process;
pub mod report;
pub mod rollouts;
pub mod scenarios;
pub mod site;
pub mod wait;
