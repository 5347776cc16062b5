//! Which core of the data plane a thread is, and how many requests it has read
//! and not answered yet. Kept per thread: nothing here is shared.

use std::cell::Cell;

thread_local! {
    static INDEX: Cell<Option<usize>> = const { Cell::new(None) };
    static REQUESTS: Cell<usize> = const { Cell::new(0) };
}

/// Says that the calling thread is core `index` of the data plane, from now on.
/// Cores count from 0; the copier counts as the one behind the last.
pub fn enter(index: usize) {
    INDEX.set(Some(index));
}

/// The core that this thread is, if it is one.
pub(crate) fn here() -> Option<usize> {
    INDEX.get()
}

/// A request that this core has read; over when dropped.
#[derive(Debug)]
pub struct ReadRequest {
    _private: (),
}

impl ReadRequest {
    /// To be called on the core's own thread, as soon as the request is read.
    pub fn begin() -> Self {
        REQUESTS.set(REQUESTS.get() + 1);
        Self { _private: () }
    }
}

impl Drop for ReadRequest {
    fn drop(&mut self) {
        // A request that ends on another thread, as a runtime is torn down, must
        // not count below zero there.
        REQUESTS.set(REQUESTS.get().saturating_sub(1));
    }
}

/// Whether this core has read another request than the one that asks. Where
/// nobody counts, there may be one.
pub(crate) fn others_have_arrived() -> bool {
    REQUESTS.get() != 1
}

/// Turns in a row for which a core reads on.
const READING_TURNS_MAX: usize = 4;

/// Lets the requests that this core has read get in line. `reads_on`: also those
/// that it reads meanwhile, for as long as more keep coming, within a bound.
pub(crate) async fn let_others_get_in_line(reads_on: bool) {
    let turns = if reads_on { READING_TURNS_MAX } else { 1 };
    for _ in 0..turns {
        let read = REQUESTS.get();
        tokio::task::yield_now().await;
        if REQUESTS.get() <= read {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_thread_is_no_core_until_it_says_so() {
        let (before, after) = std::thread::spawn(|| {
            let before = here();
            enter(3);
            (before, here())
        })
        .join()
        .unwrap_or_default();
        assert_eq!((before, after), (None, Some(3)));
    }

    #[test]
    fn a_request_that_is_alone_knows_it() {
        assert!(others_have_arrived(), "nobody counts here");
        let first = ReadRequest::begin();
        assert!(!others_have_arrived());
        let second = ReadRequest::begin();
        assert!(others_have_arrived());
        drop(first);
        assert!(!others_have_arrived());
        drop(second);
        assert!(others_have_arrived());
    }

    /// Reads on a core of its own: one request at first, one more in each turn.
    /// Gives how many there are when the first has let the others get in line.
    fn read_while_others_come(reads_on: bool, others: usize) -> usize {
        let core = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _first = ReadRequest::begin();
            runtime.spawn(async move {
                for _ in 0..others {
                    // Answered after all this is over.
                    std::mem::forget(ReadRequest::begin());
                    tokio::task::yield_now().await;
                }
            });
            runtime.block_on(async {
                let_others_get_in_line(reads_on).await;
                REQUESTS.get()
            })
        });
        core.join().unwrap()
    }

    #[test]
    fn a_core_reads_on_for_as_long_as_more_requests_come_but_not_for_ever() {
        assert_eq!(read_while_others_come(true, 0), 1);
        assert_eq!(read_while_others_come(true, 2), 3);
        assert_eq!(read_while_others_come(true, 100), 1 + READING_TURNS_MAX);
        assert_eq!(read_while_others_come(false, 100), 2, "it lets those in that are there");
    }
}
