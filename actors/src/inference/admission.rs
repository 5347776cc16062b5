//! Lets requests in while the node takes work, and knows how many are inside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::Notify;

use super::InferError;

/// The door of the data plane.
#[derive(Debug)]
pub struct Admission {
    closed: AtomicBool,
    inside: IntGauge,
    left: Notify,
}

/// A request that is inside; it leaves when this is dropped.
#[derive(Debug)]
pub struct Admitted(Arc<Admission>);

impl Admission {
    /// Open. `inside` shows how many are in.
    pub fn new(inside: IntGauge) -> Self {
        Self { closed: AtomicBool::new(false), inside, left: Notify::new() }
    }

    /// Lets one in, unless the node is shutting down.
    pub fn enter(self: &Arc<Self>) -> Result<Admitted, InferError> {
        // Counted before looking, so that whoever closes the door and then
        // counts misses nobody.
        self.inside.inc();
        let admitted = Admitted(Arc::clone(self));
        if self.is_closed() {
            return Err(InferError::Unavailable("node is shutting down; ask another node".to_owned()));
        }
        Ok(admitted)
    }

    /// Whether the node has stopped to take work.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// How many are inside.
    pub fn inside(&self) -> usize {
        usize::try_from(self.inside.get()).unwrap_or(0)
    }

    /// Lets nobody in any more; those inside may finish.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Returns once nobody is inside (true), or after `timeout` (false).
    pub async fn wait_until_empty(&self, timeout: Duration) -> bool {
        let empty = async {
            loop {
                let left = self.left.notified();
                tokio::pin!(left);
                left.as_mut().enable();
                if self.inside() == 0 {
                    return;
                }
                left.await;
            }
        };
        tokio::time::timeout(timeout, empty).await.is_ok()
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.inside.dec();
        if self.0.is_closed() {
            self.0.left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn admission() -> Arc<Admission> {
        Arc::new(Admission::new(IntGauge::new("inside", "for a test").unwrap()))
    }

    #[tokio::test]
    async fn a_closed_door_lets_nobody_in_and_waits_for_those_inside() {
        let admission = admission();
        let inside = admission.enter().unwrap();
        admission.close();
        assert!(matches!(admission.enter(), Err(InferError::Unavailable(_))));
        assert_eq!(admission.inside(), 1);
        let waiting = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.wait_until_empty(Duration::from_secs(30)).await }
        });
        tokio::task::yield_now().await;
        drop(inside);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn waiting_for_those_inside_is_bounded() {
        let admission = admission();
        let _inside = admission.enter().unwrap();
        admission.close();
        assert!(!admission.wait_until_empty(Duration::from_millis(10)).await);
    }
}
