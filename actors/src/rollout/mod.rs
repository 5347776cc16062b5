//! What the leader does with rollouts: looks at what all nodes counted, decides
//! the next step, and says what it waits for.

pub mod controller;
pub mod report;

pub use controller::{DryRunError, RolloutController};
pub use report::{CopiesReport, DryRun, GateReport, GateVerdict, NextStep, RolloutReport, VersionReport};
