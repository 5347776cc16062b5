//! What openraft is set to, and why.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

/// Entries in one append to a follower.
const ENTRIES_PER_APPEND_MAX: u64 = 512;
/// Queued entries that become one write to the log store.
const ENTRIES_PER_LOG_WRITE_MAX: u64 = 4_096;
/// Purging is cheaper in runs than entry by entry.
const ENTRIES_PER_PURGE_MIN: u64 = 64;
/// How long a snapshot of no size may take; size is added by the sender.
pub const INSTALL_SNAPSHOT_TIMEOUT_MIN: Duration = Duration::from_secs(10);

/// How Raft keeps time and how much it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftTiming {
    /// How often a leader says that it lives.
    pub heartbeat_interval: Duration,
    /// Shortest wait before a follower stands for election.
    pub election_timeout_min: Duration,
    /// Longest wait; also the leader's lease.
    pub election_timeout_max: Duration,
    /// Entries between snapshots.
    pub snapshot_every_entries: u64,
    /// Entries kept behind a snapshot.
    pub log_entries_kept: u64,
}

impl RaftTiming {
    /// A leader that has heard from no quorum for so long accepts nothing.
    pub fn lease(&self) -> Duration {
        self.election_timeout_max
    }

    /// The longest that an election should take while a quorum can talk, two
    /// split votes included.
    pub fn election_patience(&self) -> Duration {
        self.lease() + self.election_timeout_max * 3
    }
}

/// Openraft's settings. Errors: times that contradict each other, such as a
/// heartbeat slower than an election.
pub fn openraft_config(timing: &RaftTiming) -> Result<Arc<Config>, openraft::ConfigError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let election_timeout_max = millis(timing.election_timeout_max);
    let lease = millis(timing.lease());
    let config = Config {
        cluster_name: "starling".to_owned(),
        heartbeat_interval: millis(timing.heartbeat_interval),
        election_timeout_min: millis(timing.election_timeout_min),
        election_timeout_max,
        // A node that comes back must not unseat a leader that serves well.
        enable_pre_vote: Some(true),
        // Or a leader cut off from a quorum keeps a bridge node from electing (openraft #2080).
        quorum_loss_probe_interval: Some(2 * (lease + election_timeout_max)),
        install_snapshot_timeout: millis(INSTALL_SNAPSHOT_TIMEOUT_MIN),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(timing.snapshot_every_entries),
        // A snapshot sent to a live follower invites the race of openraft #2116: keep entries instead.
        max_in_snapshot_log_to_keep: timing.log_entries_kept,
        purge_batch_size: ENTRIES_PER_PURGE_MIN.min(timing.log_entries_kept.max(1)),
        max_payload_entries: ENTRIES_PER_APPEND_MAX,
        max_append_entries: Some(ENTRIES_PER_LOG_WRITE_MAX),
        // A log that shrank has lost what was acknowledged: that node must not go on.
        allow_log_reversion: Some(false),
        // A leader that restarts would go on in its old term, with no entry of its own to confirm
        // by, and answer reads from a commit index that is written lazily: it could miss writes
        // that it acknowledged before. An election brings a new term and its opening entry.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map(Arc::new)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn timing() -> RaftTiming {
        RaftTiming {
            heartbeat_interval: Duration::from_millis(100),
            election_timeout_min: Duration::from_millis(300),
            election_timeout_max: Duration::from_millis(600),
            snapshot_every_entries: 1_000,
            log_entries_kept: 100_000,
        }
    }

    #[test]
    fn the_settings_that_correctness_hangs_on_are_made() {
        let config = openraft_config(&timing()).unwrap();
        assert_eq!(config.enable_pre_vote, Some(true));
        assert_eq!(config.quorum_loss_probe_interval, Some(2_400));
        assert_eq!(config.max_in_snapshot_log_to_keep, 100_000);
        assert_eq!(config.allow_log_reversion, Some(false));
        assert_eq!(config.enable_leader_restore, Some(false));
        assert_eq!(config.install_snapshot_timeout, 10_000);
        assert_eq!(config.snapshot_policy, SnapshotPolicy::LogsSinceLast(1_000));
    }

    #[test]
    fn a_heartbeat_slower_than_an_election_is_refused() {
        let timing = RaftTiming { heartbeat_interval: Duration::from_secs(1), ..timing() };
        assert!(openraft_config(&timing).is_err());
    }
}
