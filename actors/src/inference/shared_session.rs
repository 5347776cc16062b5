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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::thread;

    use crate::inference::session::{ModelSession, quiet_run_options};
    use crate::inference::session_options::SessionOptions;
    use crate::inference::tensor::columns_out::OutputColumn;
    use crate::inference::testing::{model_file, runtime};

    fn open(options: &SessionOptions) -> ModelSession {
        ModelSession::open(&runtime(), &model_file("matmul"), options).unwrap()
    }

    fn run(session: &mut ModelSession, first_row: usize, rows: usize) -> Vec<OutputColumn> {
        session.fill_with_samples(first_row, rows);
        session.run(&quiet_run_options().unwrap()).unwrap().columns
    }

    #[test]
    fn all_who_share_a_session_run_at_the_same_time_and_get_what_one_with_a_session_of_its_own_gets() {
        let first = open(&SessionOptions::INSPECTION);
        let mut alone = open(&SessionOptions::INSPECTION);
        thread::scope(|scope| {
            for user in 1..=4 {
                let mut session = first.another().expect("it may be shared");
                let expected = run(&mut alone, user, 3 * user);
                scope.spawn(move || {
                    for _ in 0..2_000 {
                        assert_eq!(run(&mut session, user, 3 * user), expected);
                    }
                });
            }
        });
    }

    #[test]
    fn the_session_lives_as_long_as_its_last_user() {
        let mut first = open(&SessionOptions::INSPECTION);
        let expected = run(&mut first, 0, 2);
        let mut second = first.another().unwrap();
        drop(first);
        let mut third = second.another().unwrap();
        assert_eq!(run(&mut second, 0, 2), expected);
        drop(second);
        assert_eq!(run(&mut third, 0, 2), expected);
    }

    #[test]
    fn sessions_with_threads_of_their_own_are_not_shared() {
        assert!(open(&SessionOptions { threads: 2, ..SessionOptions::INSPECTION }).another().is_none());
    }
}
