//! One session of ONNX Runtime that several run at the same time, so that its
//! weights are in memory, and in the caches that the cores share, only once.
//!
//! ONNX Runtime promises that `Run` may be called on one session from several
//! threads. The binding asks for `&mut Session` all the same, because providers
//! for other devices have broken that promise. Sessions are shared where it has
//! been kept: on the CPU, without foreign operators
//! ([`SessionOptions::may_be_shared`](super::session_options::SessionOptions::may_be_shared)).

#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use ort::session::Session;

/// One user's handle to a session.
pub(super) struct SharedSession {
    /// A second set of the fields of `owner`, for this user alone. Never dropped.
    own: ManuallyDrop<Session>,
    /// Keeps alive what the fields of `own` point to.
    owner: Arc<Session>,
}

impl SharedSession {
    pub(super) fn new(session: Session) -> Self {
        Self::of(Arc::new(session))
    }

    /// For one more user. Both may run at the same time, if the session
    /// [`may be shared`](super::session_options::SessionOptions::may_be_shared).
    pub(super) fn another(&self) -> Self {
        Self::of(Arc::clone(&self.owner))
    }

    fn of(owner: Arc<Session>) -> Self {
        // SAFETY: a `Session` is a counted pointer to the session of the runtime and
        // two lists, what its inputs and its outputs are called; the binding is
        // pinned to the release of which this was read. `owner` keeps all three for
        // as long as this copy exists, and the copy is never dropped, so nothing is
        // freed twice. Each copy lies at a place of its own: there are never two
        // exclusive references to one place. What the copies have in common is only
        // read by `run_with_options`, but for the session of the runtime itself,
        // whose `Run` several threads may call.
        let own = ManuallyDrop::new(unsafe { std::ptr::read(Arc::as_ptr(&owner)) });
        Self { own, owner }
    }
}

impl Deref for SharedSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.own
    }
}

impl DerefMut for SharedSession {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.own
    }
}
