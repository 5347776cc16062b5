//! Real processes, one test at a time: what a cluster promises, shown on the
//! shipped binary. `make test` builds the binary first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench_command;
mod decisions;
mod failures;
mod features;
mod feedback;
mod formation;
mod histories;
mod hot_changes;
mod imports;
mod membership;
mod placement;
mod refusals;
mod rejections;
mod rollout_command;
mod rollouts;
mod routes;
mod serving;
mod shadows;

use anyhow::Result;
use starling_chaos::report::Report;
use starling_chaos::site::Site;
use tokio::sync::{Mutex, MutexGuard};

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Waits for its turn, also where nobody said `--test-threads=1`.
async fn my_turn() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().await
}

fn site() -> Result<Site> {
    Site::find()
}

fn assert_held(report: &Report) {
    assert!(report.held(), "not everything held:\n{}", report.table());
}
