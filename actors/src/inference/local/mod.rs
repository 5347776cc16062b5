//! Local instances: a session on every core of the data plane, run by the core
//! that received the request, together with what else has arrived there.
//!
//! They stand beside the dedicated instances of a version and never instead of
//! them: whatever a core cannot run (its session is being replaced, a run had to
//! be ended, the request came on another thread) takes the ordinary queue.

pub mod core;
mod lane;
mod lanes;
mod mode;

pub(crate) use lanes::{Lanes, Patience};
pub(crate) use mode::{Facts, Mode, choose};
