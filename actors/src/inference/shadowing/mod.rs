//! Shadows: versions that get copies of requests, whose answers are compared
//! with the live ones and seen by no caller.
//!
//! ```text
//! request → answer → out
//!        ↘ (pending) ↘ inbox → lines → copier → version → comparison → cells, examples
//! ```
//!
//! *Invariant:* nothing here is waited for by a request. *Invariant:* every bound
//! that is reached drops copies, and counts them.

pub mod cells;
pub mod comparison;
mod copier;
pub mod examples;
mod metrics;
mod pending;
mod queue;
mod tensors;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use starling_proto::inference::ModelInferRequest;
use tokio_util::sync::CancellationToken;

use cells::{DropReason, ShadowRecorder};
use copier::Copier;
use examples::ShadowExamples;
use metrics::ShadowCollector;
use pending::{Hatch, Unanswered};
use queue::Inbox;

use super::InferError;
use super::forward::Forwarder;
use super::local_versions::LocalVersions;
use super::router::Routed;
use super::routing_feed::RoutingFeed;
use super::routing_table::VersionId;
use super::rule_matching::Attributes;
use super::serve::RequestContext;
use super::traffic::CellKey;

pub use pending::Copies;

/// Bounds of what shadows may take on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShadowLimits {
    /// Copies that wait.
    pub queue_max: usize,
    /// What they hold, in bytes.
    pub queue_bytes_max: u64,
    /// Copies of one shadow that are run at once.
    pub concurrency: usize,
    /// How long a copy may wait, and then run.
    pub deadline: Duration,
    /// Examples of disagreement of each shadow; 0: none.
    pub examples_max: usize,
}

impl Default for ShadowLimits {
    fn default() -> Self {
        Self {
            queue_max: 1_024,
            queue_bytes_max: 64 << 20,
            concurrency: 32,
            deadline: Duration::from_secs(5),
            examples_max: 32,
        }
    }
}

/// What it works with on this node.
pub(super) struct ShadowSite {
    pub(super) recorder: Arc<ShadowRecorder>,
    pub(super) local: Arc<LocalVersions>,
    pub(super) routing: Arc<RoutingFeed>,
    pub(super) forwarder: Forwarder,
    /// Of the data plane.
    pub(super) cores: usize,
}

/// Makes copies, and has them run.
pub(super) struct Shadowing {
    hatch: Arc<Hatch>,
    examples: Arc<ShadowExamples>,
    node_is_busy: Arc<AtomicBool>,
    routing: Arc<RoutingFeed>,
    stop: CancellationToken,
}

impl Shadowing {
    /// Starts the copier. Fails if its thread or its metrics cannot be had.
    pub(super) fn start(
        limits: ShadowLimits,
        site: ShadowSite,
        registry: &prometheus::Registry,
    ) -> Result<Self, InferError> {
        let cannot = |error: &dyn std::fmt::Display| {
            InferError::Internal(format!("copies for shadows cannot be made: {error}"))
        };
        let ShadowSite { recorder, local, routing, forwarder, cores } = site;
        let collector = ShadowCollector::new(&recorder, &routing).map_err(|error| cannot(&error))?;
        registry.register(Box::new(collector)).map_err(|error| cannot(&error))?;
        let inbox = Arc::new(Inbox::new(limits.queue_max, limits.queue_bytes_max));
        let examples = Arc::new(ShadowExamples::new(limits.examples_max));
        let node_is_busy = Arc::new(AtomicBool::new(false));
        let stop = CancellationToken::new();
        let copier = Copier {
            inbox: Arc::clone(&inbox),
            recorder: Arc::clone(&recorder),
            examples: Arc::clone(&examples),
            local,
            routing: Arc::clone(&routing),
            forwarder,
            node_is_busy: Arc::clone(&node_is_busy),
            concurrency: limits.concurrency.max(1),
            deadline: limits.deadline,
            cores,
        };
        copier.start(stop.clone()).map_err(|error| cannot(&error))?;
        Ok(Self { hatch: Arc::new(Hatch { inbox, recorder }), examples, node_is_busy, routing, stop })
    }

    /// Keeps of a request what its shadows need, before it is answered. `None`: it
    /// has none, or there is no room for a copy. A version gets no copy of what it
    /// answers itself.
    pub(super) fn begin(
        &self,
        request: &ModelInferRequest,
        routed: &Routed,
        context: &RequestContext<'_>,
    ) -> Option<Box<Unanswered>> {
        if routed.model.shadows.is_empty() {
            return None;
        }
        let attributes = Attributes { parameters: Some(&request.parameters), metadata: context.metadata };
        let picked = routed.model.shadows.iter().filter(|shadow| {
            shadow.version.id != routed.version.id && shadow.picks(attributes, &routed.decision)
        });
        let shadows: Vec<_> = picked.cloned().collect();
        if shadows.is_empty() {
            return None;
        }
        if let Err(reason) = self.may_copy() {
            for shadow in &shadows {
                let key = CellKey { version: shadow.version.id, epoch: routed.decision.epoch.get() };
                self.hatch.recorder.refuse(key, reason);
            }
            return None;
        }
        Some(Box::new(Unanswered {
            hatch: Arc::clone(&self.hatch),
            shadows,
            request: request.clone(),
            principal: context.principal.clone(),
        }))
    }

    fn may_copy(&self) -> Result<(), DropReason> {
        if self.node_is_busy.load(Relaxed) {
            return Err(DropReason::NodeBusy);
        }
        self.hatch.inbox.has_room()
    }

    /// The examples of this node.
    pub(super) fn examples(&self) -> &ShadowExamples {
        let table = self.routing.table();
        let exists = |shadow: VersionId| {
            table
                .models()
                .any(|model| model.model.id == shadow.model_id && model.version(shadow.ordinal).is_some())
        };
        self.examples.retain(exists);
        &self.examples
    }

    /// Makes no more copies.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for Shadowing {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
