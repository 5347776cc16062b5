//! Which waiting requests run together. Pure: it sees shapes and counts, never a
//! clock or a lock.

use std::collections::VecDeque;
use std::ops::Range;

/// How far behind the first request others are looked for: beyond it a scan
/// costs more than a fuller batch gains.
const SCANNED_REQUESTS_MAX: usize = 256;

/// What a batcher must know of a waiting request.
pub(crate) trait Batchable {
    /// Rows it adds to a run.
    fn rows(&self) -> usize;
    /// Whether both can share a run.
    fn fits_with(&self, other: &Self) -> bool;
}

/// Takes the first request and those behind it that fit with it, up to
/// `max_rows` together; the others keep their places. The first always goes, so
/// none starves; a first request of more than `max_rows` goes alone.
pub(crate) fn take_batch<R: Batchable>(waiting: &mut VecDeque<R>, max_rows: usize) -> Vec<R> {
    let Some(first) = waiting.pop_front() else { return Vec::new() };
    let mut rows = first.rows();
    let mut batch = vec![first];
    let mut place = 0;
    let mut scanned = 0;
    while rows < max_rows && place < waiting.len() && scanned < SCANNED_REQUESTS_MAX {
        scanned += 1;
        let candidate = &waiting[place];
        if rows + candidate.rows() > max_rows || !batch[0].fits_with(candidate) {
            place += 1;
            continue;
        }
        rows += candidate.rows();
        batch.extend(waiting.remove(place));
    }
    batch
}

/// Rows that the next batch would have, counted no further than `max_rows`.
pub(crate) fn rows_ready<R: Batchable>(waiting: &VecDeque<R>, max_rows: usize) -> usize {
    let Some(first) = waiting.front() else { return 0 };
    let mut rows = first.rows();
    for candidate in waiting.iter().skip(1).take(SCANNED_REQUESTS_MAX) {
        if rows >= max_rows {
            break;
        }
        if rows + candidate.rows() <= max_rows && first.fits_with(candidate) {
            rows += candidate.rows();
        }
    }
    rows
}

/// Which rows of the run belong to which request.
pub(crate) fn row_ranges(rows: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut start = 0;
    rows.map(|count| {
        let range = start..start + count;
        start += count;
        range
    })
    .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Waiting {
        name: usize,
        rows: usize,
        shape: u8,
    }

    impl Batchable for Waiting {
        fn rows(&self) -> usize {
            self.rows
        }
        fn fits_with(&self, other: &Self) -> bool {
            self.shape == other.shape && self.shape != 0
        }
    }

    fn queue(of: &[(usize, u8)]) -> VecDeque<Waiting> {
        of.iter()
            .enumerate()
            .map(|(name, (rows, shape))| Waiting { name, rows: *rows, shape: *shape })
            .collect()
    }

    fn names(requests: impl IntoIterator<Item = Waiting>) -> Vec<usize> {
        requests.into_iter().map(|request| request.name).collect()
    }

    #[test]
    fn takes_what_fits_and_leaves_the_rest_in_order() {
        let mut waiting = queue(&[(1, 1), (1, 2), (2, 1), (4, 1), (1, 1), (1, 2)]);
        assert_eq!(rows_ready(&waiting, 4), 4);
        assert_eq!(names(take_batch(&mut waiting, 4)), [0, 2, 4]);
        assert_eq!(names(waiting), [1, 3, 5]);
    }

    #[test]
    fn a_request_larger_than_a_batch_runs_alone() {
        let mut waiting = queue(&[(9, 1), (1, 1)]);
        assert_eq!(names(take_batch(&mut waiting, 4)), [0]);
        assert_eq!(names(waiting), [1]);
    }

    #[test]
    fn what_must_not_be_concatenated_runs_alone() {
        let mut waiting = queue(&[(1, 0), (1, 0)]);
        assert_eq!(names(take_batch(&mut waiting, 8)), [0]);
    }

    #[test]
    fn an_empty_queue_gives_an_empty_batch() {
        assert_eq!(names(take_batch(&mut queue(&[]), 8)), Vec::<usize>::new());
        assert_eq!(rows_ready(&queue(&[]), 8), 0);
    }

    #[test]
    fn rows_are_split_one_after_another() {
        assert_eq!(row_ranges([2, 1, 3].into_iter()), [0..2, 2..3, 3..6]);
    }

    proptest! {
        #[test]
        fn every_request_leaves_exactly_once_in_batches_within_the_bound(
            requests in proptest::collection::vec((1_usize..6, 0_u8..3), 0..60),
            max_rows in 1_usize..10,
        ) {
            let mut waiting = queue(&requests);
            let mut seen = Vec::new();
            while !waiting.is_empty() {
                let head = waiting[0].name;
                let expected_rows = rows_ready(&waiting, max_rows);
                let batch = take_batch(&mut waiting, max_rows);
                let rows: usize = batch.iter().map(|request| request.rows).sum();
                prop_assert_eq!(rows, expected_rows);
                prop_assert_eq!(batch[0].name, head);
                prop_assert!(rows <= max_rows || batch.len() == 1);
                prop_assert!(batch.iter().all(|request| request.shape == batch[0].shape));
                seen.extend(names(batch));
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..requests.len()).collect::<Vec<_>>());
        }
    }
}
