//! What was credited goes through the log: one delta at a time, in order, at
//! most four per second whatever the traffic.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::FeedbackError;
use super::metrics::FeedbackMetrics;
use super::replicated::{NotTaken, Replicated};
use super::store::Store;

/// Between two deltas of one node.
pub const FLUSH_INTERVAL_MIN: Duration = Duration::from_millis(250);
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// After a delta that was not taken.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Sends what was credited on one node.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) store: Store,
    pub(super) replicated: Arc<dyn Replicated>,
    pub(super) committed: Arc<watch::Sender<u64>>,
    pub(super) metrics: FeedbackMetrics,
    pub(super) flush_interval: Duration,
}

impl Sender {
    /// Until the store has ended.
    pub(super) async fn run(self) {
        self.find_place().await;
        let every = self.flush_interval.max(FLUSH_INTERVAL_MIN);
        let mut ticks = tokio::time::interval(every);
        // A late tick must not be followed by an early one.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.send_next().await {
                Ok(_) => {}
                Err(FeedbackError::Unavailable(reason)) => {
                    return tracing::debug!(reason, "no more rewards are sent");
                }
                Err(error) => tracing::warn!(%error, "rewards were not sent"),
            }
        }
    }

    /// Once [`Sender::run`] has ended: sends what is left, so that it does not
    /// wait for this node's return. Gives up after `timeout`.
    pub(super) async fn finish(&self, timeout: Duration) {
        let sent = async { while self.send_next().await.is_ok_and(|sent| sent) {} };
        if tokio::time::timeout(timeout, sent).await.is_err() {
            tracing::info!("rewards of this node wait on its disk until it is back");
        }
    }

    /// A home that has lost its files must not number its deltas anew.
    async fn find_place(&self) {
        while let Err(reason) = self.replicated.catch_up(CATCH_UP_TIMEOUT).await {
            tracing::debug!(reason, "this node does not know yet which rewards of its own the log has");
            tokio::time::sleep(RETRY_DELAY).await;
        }
        let confirmed = self.replicated.confirmed();
        let _ = self.store.go_on_after(confirmed).await;
        self.confirm(confirmed).await;
    }

    /// False: there was nothing to send.
    async fn send_next(&self) -> Result<bool, FeedbackError> {
        let Some(sealed) = self.store.seal().await? else { return Ok(false) };
        let confirmed = self.replicated.confirmed();
        if sealed.number <= confirmed {
            self.confirm(confirmed).await;
            return Ok(true);
        }
        let began = Instant::now();
        match self.replicated.propose(&sealed, PROPOSE_TIMEOUT).await {
            Ok(()) => {
                self.metrics.deltas.inc();
                self.metrics.commit_seconds.observe(began.elapsed().as_secs_f64());
                self.confirm(sealed.number).await;
            }
            Err(NotTaken::NotNow(reason)) => {
                tracing::debug!(reason, number = sealed.number, "rewards wait for the log");
                tokio::time::sleep(RETRY_DELAY).await;
            }
            Err(NotTaken::Never(reason)) => {
                tracing::error!(
                    reason,
                    number = sealed.number,
                    "the log refuses rewards of this node; they do not count"
                );
                self.metrics.deltas_refused.inc();
                self.confirm(sealed.number).await;
            }
        }
        Ok(true)
    }

    async fn confirm(&self, number: u64) {
        if self.store.committed(number).await.is_ok() {
            self.committed.send_if_modified(|known| std::mem::replace(known, (*known).max(number)) < number);
        }
    }
}
