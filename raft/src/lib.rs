//! The replicated event log of Starling, the state it folds into, gossip
//! membership and the artefact store.
//!
//! [`state`] is pure: decisions as functions of values. Everything else here is
//! the shell that replicates, stores and announces them. The rest of the system
//! holds a [`flock::Flock`] and knows nothing of Raft.

pub mod admission;
pub mod artefact_service;
pub mod artefacts;
pub mod bootstrap;
pub mod codec;
pub mod consensus;
pub mod dial;
pub mod envelope;
pub mod flock;
pub mod gossip;
pub mod history;
mod history_transfer;
pub mod identity;
pub mod join;
pub mod log_store;
pub mod membership;
pub mod membership_service;
pub mod network;
pub mod peer_gate;
pub mod peers;
mod proposals;
pub mod raft_config;
mod raft_service;
mod raft_status;
pub mod raft_types;
pub mod snapshot_file;
pub mod snapshot_stream;
mod snapshots;
pub mod state;
pub mod state_machine;
pub mod wire;
