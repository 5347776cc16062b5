//! What a node does with the replicated state. One folder per kind of work,
//! each with a supervisor at its root.

pub mod feedback;
pub mod inference;
pub mod rollout;
