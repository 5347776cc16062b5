//! Starts the tasks of inference and starts one again that has ended though it
//! should not: a defect in one of them must not silence the others.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;

const RESTART_WAIT_MIN: Duration = Duration::from_millis(100);
const RESTART_WAIT_MAX: Duration = Duration::from_secs(10);

/// Tasks that live until they are told to stop.
#[derive(Debug, Default)]
pub struct TaskKeeper {
    stop: CancellationToken,
}

impl TaskKeeper {
    /// Runs what `start` gives, again and again, until [`TaskKeeper::stop`].
    pub fn keep<F>(&self, name: &'static str, start: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let mut backoff = Backoff::new(RESTART_WAIT_MIN, RESTART_WAIT_MAX);
            loop {
                let mut task = tokio::spawn(start());
                let ended = tokio::select! {
                    biased;
                    () = stop.cancelled() => {
                        task.abort();
                        return;
                    }
                    ended = &mut task => ended,
                };
                match ended {
                    Ok(()) => tracing::debug!(task = name, "task ended"),
                    Err(error) => tracing::error!(task = name, %error, "task died; starting it again"),
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(backoff.next_wait()) => {}
                }
            }
        });
    }

    /// Ends all of them.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for TaskKeeper {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_started_again_until_it_is_stopped() {
        let (started, mut starts) = mpsc::unbounded_channel();
        let keeper = TaskKeeper::default();
        keeper.keep("doomed", move || {
            let started = started.clone();
            async move {
                started.send(()).unwrap();
                panic!("a defect");
            }
        });
        for _ in 0..3 {
            assert_eq!(starts.recv().await, Some(()));
        }
        keeper.stop();
        while starts.recv().await.is_some() {}
    }
}
