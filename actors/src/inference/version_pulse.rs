//! By what a loaded version shows that it lives: the ages of its requests, its
//! latest answer, and the probe that stands in where there are none.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use starling_raft::state::Signature;

use super::InferError;
use super::in_flight_ages::InFlightAges;
use super::probe_request::made_up;
use super::queue::{Arrival, ArrivalKind, RequestQueue};
use super::request_terms::RequestTerms;
use super::tensor::check::CheckedRequest;

/// What a request may take beside waiting and running.
const SLACK: Duration = Duration::from_secs(1);
const PROBE_TERMS: RequestTerms = RequestTerms { class: 1, timeout: None };

/// Of one version.
pub(crate) struct VersionPulse {
    pub ages: InFlightAges,
    max_run_time: Duration,
    /// `None`: nothing can be made up for it.
    made_up: Option<Arc<CheckedRequest>>,
    /// One that is known to work is better.
    sample: OnceLock<Arc<CheckedRequest>>,
    /// Before it has, the model may not take what was made up.
    probe_has_worked: AtomicBool,
    ailment: ArcSwapOption<String>,
}

impl VersionPulse {
    pub(crate) fn new(signature: &Signature, max_run_time: Duration) -> Self {
        Self {
            ages: InFlightAges::new(Instant::now(), max_run_time / 8),
            max_run_time,
            made_up: made_up(signature).map(Arc::new),
            sample: OnceLock::new(),
            probe_has_worked: AtomicBool::new(false),
            ailment: ArcSwapOption::empty(),
        }
    }

    /// Probes are this request from now on: it has just worked.
    pub(crate) fn probe_with(&self, sample: CheckedRequest) {
        if self.sample.set(Arc::new(sample)).is_ok() {
            self.probe_has_worked.store(true, Relaxed);
        }
    }

    /// No request is in flight for longer: waiting and running take no longer.
    pub(crate) fn patience(&self, queue: &RequestQueue) -> Duration {
        self.max_run_time + queue.longest_wait().unwrap_or(self.max_run_time) + SLACK
    }

    /// An inference through the queue, as a request would have it, for as long as
    /// a request may take. A model that has never taken what was made up for it
    /// may refuse it: everything else has worked.
    pub(crate) async fn probe(&self, queue: &RequestQueue) -> Result<(), String> {
        let Some(request) = self.sample.get().or(self.made_up.as_ref()) else { return Ok(()) };
        let arrival = Arrival {
            request: Arc::clone(request),
            check: Duration::ZERO,
            terms: PROBE_TERMS,
            deadline: None,
            kind: ArrivalKind::Probe,
        };
        let limit = self.patience(queue);
        match tokio::time::timeout(limit, queue.answer(arrival)).await {
            Ok(Ok(_)) => {
                self.probe_has_worked.store(true, Relaxed);
                Ok(())
            }
            Ok(Err(InferError::InvalidArgument(_) | InferError::RefusedByModel(_)))
                if !self.probe_has_worked.load(Relaxed) =>
            {
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("it was not answered within {limit:.1?}")),
        }
    }

    /// Why it does not do what it is there for, if so.
    pub(crate) fn ailment(&self) -> Option<Arc<String>> {
        self.ailment.load_full()
    }

    pub(crate) fn is_well(&self) -> bool {
        self.ailment.load().is_none()
    }

    /// True: it is well now and was not, or the other way round.
    pub(crate) fn set_ailment(&self, ailment: Option<String>) -> bool {
        let is_ill = ailment.is_some();
        self.ailment.swap(ailment.map(Arc::new)).is_some() != is_ill
    }
}
