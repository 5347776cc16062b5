//! A request that shadows will see: kept aside while it is answered, and handed
//! to the copier when whoever encodes the answer is done with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use starling_proto::inference::{ModelInferRequest, ModelInferResponse};
use starling_raft::state::Principal;
use starling_raft::state::decision::Decision;

use super::cells::ShadowRecorder;
use super::queue::{Inbox, Queued};
use crate::inference::admission::content_bytes;
use crate::inference::routed_rules::RoutedShadow;
use crate::inference::routing_table::{RoutedVersion, VersionId};
use crate::inference::traffic::CellKey;

/// A request, and how it was answered.
pub(super) struct Original {
    pub(super) request: ModelInferRequest,
    pub(super) answer: ModelInferResponse,
    pub(super) decision: Decision,
    pub(super) principal: Principal,
    /// Who answered.
    pub(super) version: Arc<RoutedVersion>,
    /// From arrival to answer.
    pub(super) latency: Duration,
    pub(super) answered_at: Instant,
    bytes: u64,
}

/// One shadow's copy.
pub(super) struct PendingCopy {
    pub(super) original: Arc<Original>,
    pub(super) shadow: Arc<RoutedShadow>,
}

impl Queued for PendingCopy {
    fn shadow(&self) -> VersionId {
        self.shadow.version.id
    }

    fn bytes(&self) -> u64 {
        self.original.bytes
    }
}

/// Where copies go.
pub(super) struct Hatch {
    pub(super) inbox: Arc<Inbox<PendingCopy>>,
    pub(super) recorder: Arc<ShadowRecorder>,
}

/// A request that is being answered, and whom it is copied for. Dropped, nothing
/// was copied: only what was answered can be compared.
pub(in crate::inference) struct Unanswered {
    pub(super) hatch: Arc<Hatch>,
    pub(super) shadows: Vec<Arc<RoutedShadow>>,
    pub(super) request: ModelInferRequest,
    pub(super) principal: Principal,
}

impl Unanswered {
    /// A version answered it so, after `latency`; what is its own shadow as well
    /// gets no copy.
    pub(in crate::inference) fn answered(
        self: Box<Self>,
        answer: &ModelInferResponse,
        version: &Arc<RoutedVersion>,
        decision: Decision,
        latency: Duration,
    ) -> Copies {
        let Self { hatch, mut shadows, request, principal } = *self;
        shadows.retain(|shadow| shadow.version.id != version.id);
        let answer_bytes: usize = answer.raw_output_contents.iter().map(bytes::Bytes::len).sum();
        let original = Arc::new(Original {
            bytes: content_bytes(&request) + answer_bytes as u64 + ENVELOPE_BYTES,
            request,
            // Tensor bytes are shared, not copied.
            answer: answer.clone(),
            decision,
            principal,
            version: Arc::clone(version),
            latency,
            answered_at: Instant::now(),
        });
        Copies { hatch, shadows, original }
    }
}

/// About what a request and an answer have around their tensors.
const ENVELOPE_BYTES: u64 = 1_024;

/// Copies of an answered request. Dropping them hands them to the copier: hold
/// them until the answer is out.
pub struct Copies {
    hatch: Arc<Hatch>,
    shadows: Vec<Arc<RoutedShadow>>,
    original: Arc<Original>,
}

impl Drop for Copies {
    fn drop(&mut self) {
        for shadow in self.shadows.drain(..) {
            let copy = PendingCopy { original: Arc::clone(&self.original), shadow };
            if let Err((copy, reason)) = self.hatch.inbox.push(copy) {
                let epoch = copy.original.decision.epoch.get();
                self.hatch.recorder.refuse(CellKey { version: copy.shadow(), epoch }, reason);
            }
        }
    }
}
