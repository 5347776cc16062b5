//! Notices that a part without which the node must not go on has ended, and
//! keeps the reason.

use std::future::Future;

use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::Fatal as RaftFatal;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Fatal;
use crate::raft_types::TypeConfig;
use crate::state_machine::StateMachine;

/// The first reason stands. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Watchdog {
    reason: watch::Sender<Option<String>>,
}

impl Watchdog {
    pub(super) fn new() -> Self {
        Self { reason: watch::Sender::new(None) }
    }

    /// The node must end, for this reason.
    pub(super) fn raise(&self, reason: String) {
        self.reason.send_if_modified(|known| {
            if known.is_some() {
                return false;
            }
            tracing::error!(reason, "this node must end");
            *known = Some(reason);
            true
        });
    }

    /// Resolves once there is a reason.
    pub(super) async fn fatal(&self) -> Fatal {
        let mut reason = self.reason.subscribe();
        loop {
            if let Some(reason) = reason.borrow_and_update().clone() {
                return Fatal(reason);
            }
            if reason.changed().await.is_err() {
                // The sender lives in `self`: this cannot happen.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Raises what `part` resolves to, if it ever does.
    pub(super) fn watch(
        &self,
        part: impl Future<Output = Option<String>> + Send + 'static,
    ) -> JoinHandle<()> {
        let watchdog = self.clone();
        tokio::spawn(async move {
            if let Some(reason) = part.await {
                watchdog.raise(reason);
            }
        })
    }
}

/// Resolves when the Raft core has died; with nothing if it was shut down.
pub(super) async fn raft_has_died(raft: Raft<TypeConfig, StateMachine>) -> Option<String> {
    let mut metrics = raft.metrics();
    loop {
        match metrics.borrow_watched().running_state.clone() {
            Ok(()) => {}
            Err(RaftFatal::Stopped) => return None,
            Err(fatal) => {
                return Some(format!(
                    "the Raft core has died: {fatal}; it recovers from disk when the node is started again"
                ));
            }
        }
        if metrics.changed().await.is_err() {
            return None;
        }
    }
}

/// Resolves when the log store has failed a write.
pub(super) async fn log_has_failed(mut fatal: watch::Receiver<Option<String>>) -> Option<String> {
    let failed = fatal.wait_for(Option::is_some).await.ok()?;
    failed.as_ref().map(|reason| format!("the log cannot be written: {reason}"))
}
