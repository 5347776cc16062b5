//! Brings what waits in the outbox to the nodes that decided, once they can be
//! reached.

use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_raft::state::NodeId;

use super::FeedbackError;
use super::intake::Intake;
use super::item::Verdict;
use super::outbox::Parcel;
use super::replicated::Belonging;

const LOOK_INTERVAL: Duration = Duration::from_millis(250);
const ITEMS_PER_PARCEL: usize = 5_000;
const CARRY_TIMEOUT: Duration = Duration::from_secs(5);
/// Between looks at the sizes of files.
const SIZES_INTERVAL: Duration = Duration::from_secs(1);

/// Until the store has ended.
pub(super) async fn run(intake: Arc<Intake>) {
    let mut last_sizes: Option<Instant> = None;
    loop {
        match intake.store.waiting().await {
            Ok(homes) => {
                let deliveries = homes.into_iter().map(|home| deliver(&intake, home));
                futures::future::join_all(deliveries).await;
            }
            Err(error) => return tracing::debug!(%error, "nothing more is delivered"),
        }
        if last_sizes.is_none_or(|at| at.elapsed() >= SIZES_INTERVAL) {
            last_sizes = Some(Instant::now());
            note_sizes(&intake).await;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Until nothing waits for this home, or it does not take it.
async fn deliver(intake: &Intake, home: NodeId) {
    loop {
        let parcel = match intake.store.first(home, ITEMS_PER_PARCEL).await {
            Ok(Some(parcel)) => parcel,
            Ok(None) => return,
            Err(error) => return tracing::debug!(%error, "nothing more is delivered"),
        };
        let until = parcel.until;
        let count = parcel.items.len() as u64;
        if let Err(error) = hand_over(intake, home, parcel).await {
            return tracing::debug!(%home, %error, count, "feedback still waits for the node that decided");
        }
        intake.metrics.delivered.inc_by(count);
        if intake.store.delivered(home, until).await.is_err() {
            return;
        }
    }
}

async fn hand_over(intake: &Intake, home: NodeId, parcel: Parcel) -> Result<(), FeedbackError> {
    let items = parcel.items;
    match intake.replicated.belonging(home) {
        Belonging::Itself => {
            let deadline = Instant::now() + CARRY_TIMEOUT;
            intake.record_here(items, false, deadline).await.map(drop)
        }
        Belonging::Member => {
            let carried = intake.carrier.carry(home, items, false, CARRY_TIMEOUT).await;
            carried.map(drop).map_err(FeedbackError::Unavailable)
        }
        Belonging::Removed => {
            let reason = format!("node {home}, which decided, has left the cluster for good");
            intake.keep_aside(items, Verdict::Late, &reason).await.map(drop)
        }
        // It was known when this was put here: this node is behind.
        Belonging::Stranger => Err(FeedbackError::Behind),
    }
}

async fn note_sizes(intake: &Intake) {
    if let Ok(sizes) = intake.store.sizes().await {
        intake.metrics.store_bytes.set(i64::try_from(sizes.store_bytes).unwrap_or(i64::MAX));
        intake.metrics.outbox_bytes.set(i64::try_from(sizes.outbox_bytes).unwrap_or(i64::MAX));
    }
}
