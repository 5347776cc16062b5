//! The bounded queue of copies of one node. Requests put copies into its inbox,
//! which they share with the copier for moments only; the copier sorts them into
//! lines, one per shadow, so that one that hangs does not hold up the others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::cells::DropReason;
use crate::inference::routing_table::VersionId;

/// Something that waits for its shadow.
pub(super) trait Queued {
    /// Whose copy it is.
    fn shadow(&self) -> VersionId;
    /// What it holds in memory.
    fn bytes(&self) -> u64;
}

/// Where requests leave copies.
pub(super) struct Inbox<T> {
    max_copies: usize,
    max_bytes: u64,
    /// In the inbox and in the lines.
    copies: AtomicUsize,
    bytes: AtomicU64,
    new: Mutex<Vec<T>>,
    copier_sleeps: AtomicBool,
    something_came: Notify,
}

impl<T: Queued> Inbox<T> {
    pub(super) fn new(max_copies: usize, max_bytes: u64) -> Self {
        Self {
            max_copies,
            max_bytes,
            copies: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            new: Mutex::default(),
            copier_sleeps: AtomicBool::new(false),
            something_came: Notify::new(),
        }
    }

    /// Whether one more has a place, so that nothing is made in vain.
    pub(super) fn has_room(&self) -> Result<(), DropReason> {
        if self.copies.load(Relaxed) >= self.max_copies {
            return Err(DropReason::QueueFull);
        }
        if self.bytes.load(Relaxed) >= self.max_bytes {
            return Err(DropReason::QueueBytes);
        }
        Ok(())
    }

    /// Takes a copy in, or gives it back with the reason why not.
    pub(super) fn push(&self, copy: T) -> Result<(), (T, DropReason)> {
        let bytes = copy.bytes();
        if self.copies.fetch_add(1, Relaxed) >= self.max_copies {
            self.copies.fetch_sub(1, Relaxed);
            return Err((copy, DropReason::QueueFull));
        }
        if self.bytes.fetch_add(bytes, Relaxed).saturating_add(bytes) > self.max_bytes {
            self.release(1, bytes);
            return Err((copy, DropReason::QueueBytes));
        }
        lock(&self.new).push(copy);
        if self.copier_sleeps.swap(false, SeqCst) {
            self.something_came.notify_one();
        }
        Ok(())
    }

    /// Returns once there is something in the inbox. For the copier alone.
    pub(super) async fn wait(&self) {
        loop {
            self.copier_sleeps.store(true, SeqCst);
            if !lock(&self.new).is_empty() {
                self.copier_sleeps.store(false, SeqCst);
                return;
            }
            self.something_came.notified().await;
        }
    }

    /// Copies that wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.copies.load(Relaxed)
    }

    fn take_new(&self) -> Vec<T> {
        std::mem::take(&mut *lock(&self.new))
    }

    fn release(&self, copies: usize, bytes: u64) {
        self.copies.fetch_sub(copies, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The copies that the copier has sorted. Each shadow's stand in the order in
/// which they came.
pub(super) struct Lines<T> {
    inbox: Arc<Inbox<T>>,
    by_shadow: BTreeMap<VersionId, VecDeque<T>>,
    /// The next turn begins behind this one.
    last: Option<VersionId>,
}

impl<T: Queued> Lines<T> {
    pub(super) fn new(inbox: Arc<Inbox<T>>) -> Self {
        Self { inbox, by_shadow: BTreeMap::new(), last: None }
    }

    /// Empties the inbox. Gives those that find no place: where several shadows
    /// wait, none may have more than its part of the queue.
    pub(super) fn sort(&mut self) -> Vec<T> {
        let mut refused = Vec::new();
        for copy in self.inbox.take_new() {
            let shadow = copy.shadow();
            let others = self.by_shadow.keys().filter(|known| **known != shadow).count();
            let share = (self.inbox.max_copies / (others + 1)).max(1);
            let line = self.by_shadow.entry(shadow).or_default();
            if line.len() < share {
                line.push_back(copy);
                continue;
            }
            self.inbox.release(1, copy.bytes());
            refused.push(copy);
        }
        refused
    }

    /// The next copy of a shadow that `may_run`, each shadow in its turn.
    pub(super) fn next(&mut self, may_run: impl Fn(VersionId) -> bool) -> Option<T> {
        let behind = self.by_shadow.keys().filter(|shadow| self.last.is_none_or(|last| **shadow > last));
        let from_the_first = self.by_shadow.keys();
        let shadow = *behind.chain(from_the_first).find(|shadow| may_run(**shadow))?;
        self.last = Some(shadow);
        let line = self.by_shadow.get_mut(&shadow)?;
        let copy = line.pop_front()?;
        if line.is_empty() {
            self.by_shadow.remove(&shadow);
        }
        self.inbox.release(1, copy.bytes());
        Some(copy)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_shadow.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use starling_raft::state::Ordinal;

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Numbered {
        shadow: u64,
        number: u32,
        bytes: u64,
    }

    impl Queued for Numbered {
        fn shadow(&self) -> VersionId {
            VersionId { model_id: 1, ordinal: Ordinal::new(self.shadow) }
        }

        fn bytes(&self) -> u64 {
            self.bytes
        }
    }

    fn copy(shadow: u64, number: u32) -> Numbered {
        Numbered { shadow, number, bytes: 10 }
    }

    fn queue(max_copies: usize, max_bytes: u64) -> (Arc<Inbox<Numbered>>, Lines<Numbered>) {
        let inbox = Arc::new(Inbox::new(max_copies, max_bytes));
        (Arc::clone(&inbox), Lines::new(inbox))
    }

    #[test]
    fn no_more_copies_wait_than_the_bound_allows() {
        let (inbox, mut lines) = queue(2, 1_000);
        inbox.push(copy(1, 1)).unwrap();
        inbox.push(copy(1, 2)).unwrap();
        assert_eq!(inbox.push(copy(1, 3)), Err((copy(1, 3), DropReason::QueueFull)));
        assert_eq!(inbox.has_room(), Err(DropReason::QueueFull));
        assert_eq!(lines.sort(), []);
        assert_eq!(inbox.has_room(), Err(DropReason::QueueFull), "those in the lines count as well");
        assert_eq!(lines.next(|_| true), Some(copy(1, 1)));
        inbox.push(copy(1, 3)).unwrap();
        assert_eq!(inbox.len(), 2);
    }

    #[test]
    fn no_more_bytes_wait_than_the_bound_allows() {
        let (inbox, mut lines) = queue(100, 25);
        inbox.push(copy(1, 1)).unwrap();
        inbox.push(copy(1, 2)).unwrap();
        assert_eq!(inbox.push(copy(1, 3)), Err((copy(1, 3), DropReason::QueueBytes)));
        lines.sort();
        lines.next(|_| true).unwrap();
        inbox.push(copy(1, 3)).unwrap();
    }

    #[test]
    fn shadows_take_turns_and_one_that_may_not_run_holds_up_nobody() {
        let (inbox, mut lines) = queue(100, 1_000);
        for (shadow, number) in [(1, 1), (1, 2), (2, 3), (3, 4), (2, 5)] {
            inbox.push(copy(shadow, number)).unwrap();
        }
        assert_eq!(lines.sort(), []);
        let two_hangs = |shadow: VersionId| shadow.ordinal != Ordinal::new(2);
        let order: Vec<u32> = std::iter::from_fn(|| lines.next(two_hangs)).map(|copy| copy.number).collect();
        assert_eq!(order, [1, 4, 2]);
        assert!(!lines.is_empty());
        let order: Vec<u32> = std::iter::from_fn(|| lines.next(|_| true)).map(|copy| copy.number).collect();
        assert_eq!(order, [3, 5]);
        assert!(lines.is_empty());
        assert_eq!(inbox.len(), 0);
    }

    #[test]
    fn a_shadow_that_hangs_does_not_fill_the_queue_of_the_others() {
        let (inbox, mut lines) = queue(4, 1_000);
        for (shadow, number) in [(1, 1), (1, 2), (2, 3), (1, 4)] {
            inbox.push(copy(shadow, number)).unwrap();
        }
        assert_eq!(lines.sort(), [copy(1, 4)], "half of the queue is its own");
        inbox.push(copy(2, 5)).unwrap();
        assert_eq!(lines.sort(), []);
    }

    #[tokio::test]
    async fn the_copier_wakes_when_something_comes() {
        let (inbox, mut lines) = queue(4, 1_000);
        let waiting = tokio::spawn({
            let inbox = Arc::clone(&inbox);
            async move { inbox.wait().await }
        });
        tokio::task::yield_now().await;
        inbox.push(copy(1, 1)).unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await.unwrap().unwrap();
        lines.sort();
        assert_eq!(lines.next(|_| true), Some(copy(1, 1)));
    }
}
