//! What the leader does with rollouts: looks at what all nodes counted, decides
//! the next step, and says what it waits for; and why a request got its version.

pub mod bandit_look;
pub mod controller;
mod describe;
pub mod experiment_look;
pub mod explain;
mod explain_words;
pub mod gates;
pub mod measures;
pub mod metrics;
pub mod notified;
pub mod notify;
pub mod plan;
mod presence;
pub mod report;
mod reward_scale;
pub mod rounds;
#[cfg(test)]
mod testing;
pub mod webhook;

pub use controller::{DryRunError, RolloutController};
pub use report::{CopiesReport, DryRun, GateReport, GateVerdict, NextStep, RolloutReport, VersionReport};
