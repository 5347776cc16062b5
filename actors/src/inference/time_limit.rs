//! Runs outside an instance, ended when they take too long.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use ort::session::RunOptions;

use super::session::quiet_run_options;

/// Gives the options to use for every run inside; those that go on after the
/// limit fail. `None`: the runtime gave no options. Blocking.
pub(super) fn with_time_limit<T>(limit: Duration, runs: impl FnOnce(&RunOptions) -> T) -> Option<T> {
    let options = Arc::new(quiet_run_options().ok()?);
    let (finished, wait_for_end) = mpsc::channel::<()>();
    let watched = Arc::clone(&options);
    let watchdog = thread::spawn(move || {
        if wait_for_end.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = watched.terminate();
        }
    });
    let result = runs(&options);
    drop(finished);
    let _ = watchdog.join();
    Some(result)
}
