//! What an experiment, a gate or a bandit concludes from sums: plain functions
//! of values, without clock, random number or I/O. Whoever uses them logs the
//! numbers that come out; nobody recomputes them while folding the log, because
//! floating-point functions may differ from one platform to the next.
//!
//! Every formula names its paper, and is tested against numbers that other
//! implementations have computed (`tests/oracles/`).

pub mod apportion;
pub mod bandits;
pub mod confidence;
pub mod correction;
pub mod distribution;
mod error;
pub mod experiment;
pub mod fixed_sample;
mod quantity;
mod root;
pub mod sample_ratio;
pub mod sums;
pub mod verdict;

pub use error::InferenceError;
pub use quantity::{Alpha, Interval, Probability};
