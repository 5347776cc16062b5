//! Could these concurrent operations have happened one at a time, each between
//! its call and its return?
//!
//! The search of Wing and Gong ("Testing and verifying concurrent objects",
//! 1993) with the memory of Lowe ("Testing for linearizability", 2017): a set of
//! linearized operations that led to a state once is not explored again.

use std::collections::HashSet;
use std::hash::Hash;

/// What a single copy of the object would do.
pub trait Specification {
    /// What the object remembers.
    type State: Clone + Eq + Hash;
    /// A call together with its answer.
    type Operation;

    /// The state before any operation.
    fn initial(&self) -> Self::State;

    /// The states that this operation may lead to if it happens now; empty if
    /// its answer cannot come from this state.
    fn step(&self, state: &Self::State, operation: &Self::Operation) -> Vec<Self::State>;
}

/// An operation and when it was under way.
#[derive(Debug, Clone)]
pub struct Timed<O> {
    /// When it was called.
    pub called: u64,
    /// When it returned; absent: never, so it may happen at any later time or
    /// not at all.
    pub returned: Option<u64>,
    /// What it was.
    pub operation: O,
}

/// Searches for an order. The time is exponential in the number of operations
/// that overlap, so keep the clients few.
pub fn is_linearizable<S: Specification>(specification: &S, history: &[Timed<S::Operation>]) -> bool {
    let must_happen = history.iter().filter(|timed| timed.returned.is_some()).count();
    let mut seen: HashSet<(Done, S::State)> = HashSet::new();
    let mut frontier = vec![(Done::none(history.len()), specification.initial(), 0)];
    while let Some((done, state, happened)) = frontier.pop() {
        if happened == must_happen {
            return true;
        }
        for candidate in candidates(history, &done) {
            let timed = &history[candidate];
            for next in specification.step(&state, &timed.operation) {
                let with_candidate = done.with(candidate);
                if seen.insert((with_candidate.clone(), next.clone())) {
                    frontier.push((with_candidate, next, happened + usize::from(timed.returned.is_some())));
                }
            }
        }
    }
    false
}

/// Operations that may happen next: called before any that must still happen
/// has returned.
fn candidates<'a, O>(history: &'a [Timed<O>], done: &'a Done) -> impl Iterator<Item = usize> + 'a {
    let open = move || history.iter().enumerate().filter(|(index, _)| !done.contains(*index));
    let first_return = open().filter_map(|(_, timed)| timed.returned).min().unwrap_or(u64::MAX);
    open().filter(move |(_, timed)| timed.called <= first_return).map(|(index, _)| index)
}

/// A set of operations, one bit each.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Done(Vec<u64>);

impl Done {
    fn none(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn contains(&self, index: usize) -> bool {
        self.0[index / 64] & (1 << (index % 64)) != 0
    }

    fn with(&self, index: usize) -> Self {
        let mut set = self.clone();
        set.0[index / 64] |= 1 << (index % 64);
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register of one number: writes set it, reads see it.
    struct Register;

    #[derive(Debug, Clone, Copy)]
    enum Op {
        Write(u32),
        Read(u32),
    }

    impl Specification for Register {
        type State = u32;
        type Operation = Op;

        fn initial(&self) -> u32 {
            0
        }

        fn step(&self, state: &u32, operation: &Op) -> Vec<u32> {
            match operation {
                Op::Write(value) => vec![*value],
                Op::Read(value) if value == state => vec![*state],
                Op::Read(_) => vec![],
            }
        }
    }

    fn timed(called: u64, returned: u64, operation: Op) -> Timed<Op> {
        Timed { called, returned: Some(returned), operation }
    }

    fn lost(called: u64, operation: Op) -> Timed<Op> {
        Timed { called, returned: None, operation }
    }

    #[test]
    fn an_empty_history_is_linearizable() {
        assert!(is_linearizable(&Register, &[]));
    }

    #[test]
    fn overlapping_operations_may_happen_in_either_order() {
        let history = [timed(0, 10, Op::Write(1)), timed(1, 2, Op::Read(0)), timed(3, 4, Op::Read(1))];
        assert!(is_linearizable(&Register, &history));
    }

    #[test]
    fn a_read_that_misses_a_finished_write_is_caught() {
        let history = [timed(0, 1, Op::Write(1)), timed(2, 3, Op::Read(0))];
        assert!(!is_linearizable(&Register, &history));
    }

    #[test]
    fn a_value_that_comes_back_is_caught() {
        let history = [
            timed(0, 1, Op::Write(1)),
            timed(2, 9, Op::Write(2)),
            timed(3, 4, Op::Read(2)),
            timed(5, 6, Op::Read(1)),
        ];
        assert!(!is_linearizable(&Register, &history));
    }

    #[test]
    fn a_value_that_nobody_wrote_is_caught() {
        assert!(!is_linearizable(&Register, &[timed(0, 1, Op::Read(7))]));
    }

    #[test]
    fn a_lost_write_may_have_happened_or_not() {
        let happened = [lost(0, Op::Write(1)), timed(5, 6, Op::Read(1))];
        let did_not = [lost(0, Op::Write(1)), timed(5, 6, Op::Read(0))];
        let late = [lost(0, Op::Write(1)), timed(5, 6, Op::Read(0)), timed(7, 8, Op::Read(1))];
        let twice = [
            lost(0, Op::Write(1)),
            timed(5, 6, Op::Read(1)),
            timed(7, 8, Op::Write(0)),
            timed(9, 10, Op::Read(1)),
        ];
        assert!(is_linearizable(&Register, &happened));
        assert!(is_linearizable(&Register, &did_not));
        assert!(is_linearizable(&Register, &late));
        assert!(!is_linearizable(&Register, &twice));
    }

    #[test]
    fn a_lost_write_cannot_happen_before_it_was_called() {
        let history = [timed(0, 1, Op::Read(1)), lost(2, Op::Write(1))];
        assert!(!is_linearizable(&Register, &history));
    }
}
