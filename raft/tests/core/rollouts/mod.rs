//! What rollouts do to the state, and what they are refused.

mod approving;
mod ending;
mod experiments;
mod learning;
mod owning;
mod refused_plans;
mod stages;
