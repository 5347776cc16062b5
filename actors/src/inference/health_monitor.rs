//! Looks after the versions that are loaded here: sends probes through their
//! queues where no request shows that they work, and says so when one does not.
//! It runs apart from the data plane, and no answer about health waits for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::LoadedVersion;
use super::local_versions::LocalVersions;
use super::routing_table::VersionId;
use super::version_health::{HealthRules, Observed};

/// How often everything is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One version and the probe that is on its way.
struct Patient {
    version: Arc<LoadedVersion>,
    probe: Option<JoinHandle<Result<(), String>>>,
    /// When the latest probe ended, and how.
    ended: Option<(Instant, Result<(), String>)>,
}

impl Drop for Patient {
    fn drop(&mut self) {
        if let Some(probe) = &self.probe {
            probe.abort();
        }
    }
}

/// Watches without end.
pub(super) async fn run(local: Arc<LocalVersions>, probe_interval: Duration) {
    let mut patients: HashMap<VersionId, Patient> = HashMap::new();
    loop {
        let all = local.all();
        patients.retain(|id, patient| {
            all.iter().any(|(other, version)| other == id && Arc::ptr_eq(version, &patient.version))
        });
        let mut changed = false;
        for (id, version) in all {
            let patient = patients.entry(id).or_insert_with(|| Patient { version, probe: None, ended: None });
            changed |= patient.look_after(probe_interval).await;
        }
        if changed {
            local.health_changed();
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

impl Patient {
    /// True: it is well now and was not, or the other way round.
    async fn look_after(&mut self, probe_interval: Duration) -> bool {
        if let Some(probe) = self.probe.take_if(|probe| probe.is_finished()) {
            let outcome =
                probe.await.unwrap_or_else(|error| Err(format!("the probe itself failed: {error}")));
            self.ended = Some((Instant::now(), outcome));
        }
        let now = Instant::now();
        let rules = HealthRules { probe_interval, oldest_max: self.version.patience() };
        let (last_success, oldest) = self.version.liveness(now);
        let seen = Observed { last_success, oldest, probe: self.ended.clone() };
        if self.probe.is_none() && seen.probe_is_due(&rules, now) {
            let version = Arc::clone(&self.version);
            self.probe = Some(tokio::spawn(async move { version.probe().await }));
        }
        self.version.set_ailment(self.version.failure().or_else(|| seen.failing(&rules)))
    }
}
