//! Lets requests in while the node takes work and has the memory for them, and
//! knows how many are inside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use prometheus::IntGauge;
use starling_proto::inference::{InferTensorContents, ModelInferRequest};
use tokio::sync::Notify;

use super::InferError;
use super::error::Overload;

/// Advice to those for whom there is no memory: large requests take their time.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The door of the data plane.
#[derive(Debug)]
pub struct Admission {
    closed: AtomicBool,
    inside: IntGauge,
    max_bytes: u64,
    bytes: AtomicU64,
    left: Notify,
}

/// A request that is inside; it leaves when this is dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    bytes: u64,
}

impl Admission {
    /// Open. `inside` shows how many are in; their contents may have `max_bytes`
    /// together.
    pub fn new(inside: IntGauge, max_bytes: u64) -> Self {
        let closed = AtomicBool::new(false);
        Self { closed, inside, max_bytes, bytes: AtomicU64::new(0), left: Notify::new() }
    }

    /// Lets one in, unless the node is shutting down or the contents of those
    /// inside would be too large with it. One alone is never too large.
    pub fn enter(self: &Arc<Self>, request: &ModelInferRequest) -> Result<Admitted, InferError> {
        // Counted before looking, so that whoever closes the door and then
        // counts misses nobody.
        self.inside.inc();
        let bytes = content_bytes(request);
        let others = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let admitted = Admitted { admission: Arc::clone(self), bytes };
        if self.is_closed() {
            return Err(InferError::Unavailable("node is shutting down; ask another node".to_owned()));
        }
        if others > 0 && others.saturating_add(bytes) > self.max_bytes {
            return Err(self.no_memory(bytes));
        }
        Ok(admitted)
    }

    fn no_memory(&self, bytes: u64) -> InferError {
        let text = format!(
            "the requests inside this node may have {} bytes together (config key `max_request_bytes_in_flight`), and there is no room for {bytes} more; try again later",
            self.max_bytes
        );
        InferError::Overloaded { reason: Overload::Memory, text, retry_after: RETRY_AFTER }
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
        self.admission.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.admission.inside.dec();
        if self.admission.is_closed() {
            self.admission.left.notify_waiters();
        }
    }
}

/// Of tensors; names and parameters are small beside them.
pub(super) fn content_bytes(request: &ModelInferRequest) -> u64 {
    let raw: usize = request.raw_input_contents.iter().map(bytes::Bytes::len).sum();
    let typed = request.inputs.iter().filter_map(|input| input.contents.as_ref()).map(typed_bytes);
    (raw + typed.sum::<usize>()) as u64
}

fn typed_bytes(contents: &InferTensorContents) -> usize {
    contents.bool_contents.len()
        + size_of_val(contents.int_contents.as_slice())
        + size_of_val(contents.int64_contents.as_slice())
        + size_of_val(contents.uint_contents.as_slice())
        + size_of_val(contents.uint64_contents.as_slice())
        + size_of_val(contents.fp32_contents.as_slice())
        + size_of_val(contents.fp64_contents.as_slice())
        + contents
            .bytes_contents
            .iter()
            .map(|element| element.len() + size_of::<bytes::Bytes>())
            .sum::<usize>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use starling_proto::inference::model_infer_request::InferInputTensor;

    use super::*;

    fn admission() -> Arc<Admission> {
        Arc::new(Admission::new(IntGauge::new("inside", "for a test").unwrap(), 100))
    }

    fn of_bytes(raw: usize, typed: usize) -> ModelInferRequest {
        let contents = InferTensorContents { fp32_contents: vec![0.0; typed / 4], ..Default::default() };
        let input = InferInputTensor { contents: Some(contents), ..Default::default() };
        ModelInferRequest {
            inputs: vec![input],
            raw_input_contents: vec![vec![0; raw].into()],
            ..Default::default()
        }
    }

    #[test]
    fn those_inside_have_so_many_bytes_together_and_no_more() {
        let admission = admission();
        let first = admission.enter(&of_bytes(60, 0)).unwrap();
        let _second = admission.enter(&of_bytes(0, 40)).unwrap();
        let refused = admission.enter(&of_bytes(1, 0)).unwrap_err();
        assert!(
            matches!(&refused, InferError::Overloaded { reason: Overload::Memory, text, .. }
                if text.contains("100 bytes") && text.contains("max_request_bytes_in_flight")),
            "{refused}"
        );
        assert_eq!(admission.inside(), 2);
        drop(first);
        admission.enter(&of_bytes(60, 0)).expect("there is room again");
    }

    #[test]
    fn one_that_is_alone_is_never_too_large() {
        let admission = admission();
        let large = admission.enter(&of_bytes(1_000, 0)).unwrap();
        assert!(admission.enter(&of_bytes(1, 0)).is_err());
        assert!(admission.enter(&of_bytes(0, 0)).is_err());
        drop(large);
        assert!(admission.enter(&of_bytes(0, 0)).is_ok());
    }

    #[tokio::test]
    async fn a_closed_door_lets_nobody_in_and_waits_for_those_inside() {
        let admission = admission();
        let inside = admission.enter(&of_bytes(0, 0)).unwrap();
        admission.close();
        assert!(matches!(admission.enter(&of_bytes(0, 0)), Err(InferError::Unavailable(_))));
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
        let _inside = admission.enter(&of_bytes(0, 0)).unwrap();
        admission.close();
        assert!(!admission.wait_until_empty(Duration::from_millis(10)).await);
    }
}
