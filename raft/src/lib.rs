//! The replicated event log of Starling, the state it folds into, gossip
//! membership and the artefact store.
//!
//! [`state`] is pure: decisions as functions of values. Everything else here is
//! the shell that replicates, stores and announces them. The rest of the system
//! holds a [`flock::Flock`] and knows nothing of Raft.

pub mod artefacts;
pub mod codec;
pub mod consensus;
pub mod envelope;
pub mod flock;
pub mod gossip;
pub mod history;
pub mod log_store;
pub mod peer_gate;
pub mod peers;
pub mod raft_config;
pub mod raft_types;
pub mod state;
pub mod wire;
